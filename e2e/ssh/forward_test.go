package ssh

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// web starts a web server inside on loopback and returns its port.
func (w *world) web(t *testing.T, p *person) int {
	t.Helper()
	const program = `cd /workspace && mkdir -p web && cd web && echo served from inside > x && exec python3 -u -c '
import http.server
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(s.server_port, flush=True)
s.serve_forever()'`
	return w.serving(t, p, program)
}

// serving runs a program inside until the test ends, and returns the port that
// it prints.
func (w *world) serving(t *testing.T, p *person, program string) int {
	t.Helper()
	cmd := exec.Command("ssh", append(append(w.options(p), "-p", strconv.Itoa(w.port), "-T", w.to(p)), program)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var port int
	if _, err := fmt.Fscanln(out, &port); err != nil {
		t.Fatalf("the program inside printed no port: %v", err)
	}
	return port
}

func get(ctx context.Context, c *http.Client, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

const served = "served from inside\n"

// -L and -N, -D, -W: everything reaches the workspace's own loopback, and
// nothing of the server's.
func TestForwardingIntoTheWorkspace(t *testing.T) {
	w := open(t)
	p := w.admin
	inner := w.web(t, p)
	local, socks := freePort(t), freePort(t)
	background(t, "ssh", append(w.options(p), "-p", strconv.Itoa(w.port), "-N",
		"-L", fmt.Sprintf("127.0.0.1:%d:localhost:%d", local, inner), "-D", fmt.Sprintf("127.0.0.1:%d", socks), w.to(p))...)
	answers(t, fmt.Sprintf("127.0.0.1:%d", local))
	ctx := deadline(t, time.Minute)
	if got, err := get(ctx, http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/x", local)); err != nil || got != served {
		t.Errorf("-L: %q, %v", got, err)
	}
	proxied := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5h", Host: fmt.Sprintf("127.0.0.1:%d", socks)})}}
	if got, err := get(ctx, proxied, fmt.Sprintf("http://127.0.0.1:%d/x", inner)); err != nil || got != served {
		t.Errorf("-D: %q, %v", got, err)
	}
	o := w.ssh(ctx, p, strings.NewReader("GET /x HTTP/1.0\r\n\r\n"), []string{"-W", fmt.Sprintf("127.0.0.1:%d", inner)})
	if !strings.HasSuffix(o.out, served) {
		t.Errorf("-W: %s", o)
	}

	// The server's own loopback has the console and its metrics; the host has
	// Docker. None can be reached, by any name.
	console, _ := url.Parse(w.s.URL)
	_, metrics, _ := net.SplitHostPort(w.s.Metrics)
	for _, target := range []string{
		"127.0.0.1:" + console.Port(), "localhost:" + metrics, "[::1]:" + console.Port(), "127.1:" + metrics, "2130706433:" + metrics, "[::ffff:127.0.0.1]:" + metrics,
		"169.254.169.254:80", "172.17.0.1:" + console.Port(), "localhost.:" + metrics, "0.0.0.0:" + metrics, "example.org:80", "bailey:80",
	} {
		o := w.ssh(ctx, p, strings.NewReader("GET /healthz HTTP/1.0\r\n\r\n"), []string{"-W", target})
		// Of those that are loopback, nobody listens inside.
		if o.code == 0 || o.out != "" {
			t.Errorf("-W %s reached something: %s", target, o)
		}
	}
	at := freePort(t)
	background(t, "ssh", append(w.options(p), "-p", strconv.Itoa(w.port), "-N", "-L", fmt.Sprintf("127.0.0.1:%d:/var/run/docker.sock", at), w.to(p))...)
	answers(t, fmt.Sprintf("127.0.0.1:%d", at))
	if got, err := get(ctx, http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/version", at)); err == nil {
		t.Errorf("Docker's socket answers: %q", got)
	}
}

// -R: a program inside reaches a port of the client.
func TestForwardingOutOfTheWorkspace(t *testing.T) {
	w := open(t)
	p := w.admin
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "from the client") }), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	inside := 20000 + os.Getpid()%20000
	o := w.ssh(deadline(t, time.Minute), p, nil, []string{"-o", "ExitOnForwardFailure=yes", "-R", fmt.Sprintf("127.0.0.1:%d:%s", inside, ln.Addr())},
		fmt.Sprintf("curl -sS http://127.0.0.1:%d/", inside))
	if o.code != 0 || o.out != "from the client" {
		t.Errorf("-R: %s", o)
	}
	// When the connection has ended, nobody listens.
	if o := w.ssh(deadline(t, time.Minute), p, nil, nil, fmt.Sprintf("curl -sS -m 5 http://127.0.0.1:%d/", inside)); o.code == 0 {
		t.Errorf("after the connection has ended: %s", o)
	}
}

// -J: the door as a jump host to an SSH server inside.
func TestJump(t *testing.T) {
	w := open(t)
	p := w.admin
	bin := filepath.Join(t.TempDir(), "inner")
	build := exec.Command("go", "build", "-o", bin, "./inner")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the inner server: %v: %s", err, out)
	}
	port := strconv.Itoa(w.port)
	if o := run(deadline(t, time.Minute), nil, "scp", append(w.options(p), "-P", port, bin, w.to(p)+":/workspace/inner")...); o.code != 0 {
		t.Fatal(o)
	}
	pub, err := os.ReadFile(p.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	inner := w.serving(t, p, "exec /workspace/inner '"+strings.TrimSpace(string(pub))+"'")
	conf := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf("Host door\n HostName %s\n Port %d\n User %s+lab\n UserKnownHostsFile %s\nHost inner\n HostName 127.0.0.1\n Port %d\n User any\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\nHost *\n IdentityFile %s\n IdentitiesOnly yes\n BatchMode yes\n LogLevel ERROR\n AddressFamily inet\n",
		host, w.port, p.Name, w.knownHosts, inner, p.key)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := run(deadline(t, time.Minute), nil, "ssh", "-F", conf, "-J", "door", "inner", "hello", "there")
	if o.code != 7 || o.out != "the inner server got hello there\n" {
		t.Errorf("-J: %s", o)
	}
}

// -A: the client's agent answers inside, and not after the connection.
func TestAgentForwarding(t *testing.T) {
	w := open(t)
	p := w.admin
	socket := filepath.Join(t.TempDir(), "agent")
	agent := background(t, "ssh-agent", "-D", "-a", socket)
	until(t, "the agent is there", func() bool { _, err := os.Stat(socket); return err == nil && agent.Process != nil })
	if o := run(deadline(t, time.Minute), nil, "env", "SSH_AUTH_SOCK="+socket, "ssh-add", p.key); o.code != 0 {
		t.Fatal(o)
	}
	const ask = `python3 -c '
import os, socket, struct
s = socket.socket(socket.AF_UNIX); s.connect(os.environ["SSH_AUTH_SOCK"])
s.sendall(struct.pack(">IB", 1, 11))
n, kind, keys = struct.unpack(">IBI", s.recv(9))
print(kind, keys)'`
	args := append(append([]string{"SSH_AUTH_SOCK=" + socket, "ssh"}, w.options(p)...), "-p", strconv.Itoa(w.port), "-A", w.to(p), ask)
	if o := run(deadline(t, time.Minute), nil, "env", args...); o.code != 0 || o.out != "12 1\n" {
		t.Errorf("-A: %s", o)
	}
	if o := w.ssh(deadline(t, time.Minute), p, nil, nil, `echo "${SSH_AUTH_SOCK:-none}"`); o.out != "none\n" {
		t.Errorf("without -A: %s", o)
	}
}

// What VS Code does: an install script on the standard input of a command
// without a terminal, with -T and -D; a server on a random port of the loopback
// inside; several connections to it at once through the client's proxy; and a
// second connection beside the first.
func TestWhatVSCodeDoes(t *testing.T) {
	w := open(t)
	p := w.admin
	const script = `set -e
uname -s; uname -m
mkdir -p ~/.vscode-server/bin
cat > ~/.vscode-server/bin/server.py <<'END'
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        while data := self.rfile.readline():
            self.wfile.write(b"echo " + data)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
s = Server(("127.0.0.1", 0), Echo)
print("listeningOn==%d==" % s.server_address[1], flush=True)
s.serve_forever()
END
nohup python3 ~/.vscode-server/bin/server.py > ~/.vscode-server/log 2>&1 < /dev/null &
echo $! > ~/.vscode-server/pid
for i in $(seq 100); do grep -q listeningOn ~/.vscode-server/log && break; sleep 0.1; done
cat ~/.vscode-server/log
echo done
`
	socks := freePort(t)
	t.Cleanup(func() {
		o := w.ssh(context.Background(), p, nil, nil, "kill $(cat ~/.vscode-server/pid); rm -rf ~/.vscode-server")
		if o.code != 0 {
			t.Errorf("stop the server: %s", o)
		}
	})
	cmd := exec.Command("ssh", append(w.options(p), "-p", strconv.Itoa(w.port), "-T", "-D", strconv.Itoa(socks), w.to(p), "bash")...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if _, err := io.WriteString(in, script); err != nil {
		t.Fatal(err)
	}
	// The input stays open, as VS Code's does: output must not wait for its end.
	text, buf := "", make([]byte, 4096)
	for !strings.HasSuffix(text, "done\n") {
		n, err := out.Read(buf)
		text += string(buf[:n])
		if err != nil {
			t.Fatalf("the script ended: %v after %q", err, text)
		}
	}
	if !strings.HasPrefix(text, "Linux\n") {
		t.Errorf("something stands before the script's output: %q", text)
	}
	parts := strings.Split(text, "==")
	if len(parts) != 3 {
		t.Fatalf("no port in %q", text)
	}
	port, err := strconv.Atoi(parts[1])
	if err != nil {
		t.Fatal(err)
	}

	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			c, err := throughSOCKS(fmt.Sprintf("127.0.0.1:%d", socks), port)
			if err != nil {
				t.Errorf("connection %d: %v", i, err)
				return
			}
			defer c.Close()
			for j := range 50 {
				line := fmt.Sprintf("%d %d %s\n", i, j, strings.Repeat("x", 500))
				if _, err := io.WriteString(c, line); err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				got := make([]byte, len("echo ")+len(line))
				if _, err := io.ReadFull(c, got); err != nil || string(got) != "echo "+line {
					t.Errorf("connection %d got %q, %v", i, got, err)
					return
				}
			}
		})
	}
	// useLocalServer=false: a second connection, by itself.
	if o := w.ssh(deadline(t, time.Minute), p, nil, []string{"-T"}, "cat ~/.vscode-server/log"); o.code != 0 || !strings.Contains(o.out, "listeningOn") {
		t.Errorf("the second connection: %s", o)
	}
	wg.Wait()
}

// throughSOCKS connects to a port of 127.0.0.1 at the far end.
func throughSOCKS(proxy string, port int) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", proxy, 10*time.Second)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return nil, err
	}
	answer := make([]byte, 2)
	if _, err := io.ReadFull(c, answer); err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{5, 1, 0, 1, 127, 0, 0, 1, byte(port >> 8), byte(port)}); err != nil {
		return nil, err
	}
	reply := make([]byte, 10)
	if _, err := io.ReadFull(c, reply); err != nil {
		return nil, err
	}
	if reply[1] != 0 {
		return nil, fmt.Errorf("the proxy answers %d", reply[1])
	}
	return c, nil
}

// What JetBrains Gateway does, by the library that is most like sshj.
func TestWhatJetBrainsDoes(t *testing.T) {
	w := open(t)
	o := run(deadline(t, 2*time.Minute), nil, "/usr/bin/python3", "testdata/sshj.py", host, strconv.Itoa(w.port), w.admin.Name+"+lab", w.admin.key, w.knownHosts)
	if o.code != 0 {
		t.Error(o)
	}
}
