package ssh

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A client runs one command in a person's workspace.
type client struct {
	name string
	run  func(ctx context.Context, stdin io.Reader, command string) outcome
}

// clients are those that people have, for one person.
func clients(t *testing.T, w *world, p *person) []client {
	t.Helper()
	home := t.TempDir()
	drop, ppk := filepath.Join(home, "dropbear"), filepath.Join(home, "key.ppk")
	ctx := deadline(t, time.Minute)
	// dbclient asks for nothing with a known_hosts of its own.
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	known, err := os.ReadFile(w.knownHosts)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh", "known_hosts"), bytes.ReplaceAll(known, fmt.Appendf(nil, "[%s]:%d ", host, w.port), []byte(host+" ")), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := run(ctx, nil, "dropbearconvert", "openssh", "dropbear", p.key, drop); o.code != 0 {
		t.Fatalf("dropbearconvert: %s", o)
	}
	if o := run(ctx, nil, "puttygen", p.key, "-O", "private", "-o", ppk); o.code != 0 {
		t.Fatalf("puttygen: %s", o)
	}
	port := strconv.Itoa(w.port)
	return []client{
		{"openssh", func(ctx context.Context, in io.Reader, command string) outcome {
			return w.ssh(ctx, p, in, []string{"-T"}, command)
		}},
		{"dropbear", func(ctx context.Context, in io.Reader, command string) outcome {
			return run(ctx, in, "env", "HOME="+home, "dbclient", "-y", "-T", "-i", drop, "-p", port, w.to(p), command)
		}},
		{"plink", func(ctx context.Context, in io.Reader, command string) outcome {
			args := []string{"HOME=" + home, "plink", "-batch", "-T", "-ssh", "-i", ppk, "-P", port}
			for _, print := range fingerprints(t, w) {
				args = append(args, "-hostkey", print)
			}
			return run(ctx, in, "env", append(args, w.to(p), command)...)
		}},
		{"paramiko", func(ctx context.Context, in io.Reader, command string) outcome {
			return run(ctx, in, "/usr/bin/python3", "testdata/paramiko_exec.py", host, port, p.Name+"+lab", p.key, w.knownHosts, command)
		}},
		{"asyncssh", func(ctx context.Context, in io.Reader, command string) outcome {
			return run(ctx, in, "/usr/bin/python3", "testdata/asyncssh_exec.py", host, port, p.Name+"+lab", p.key, w.knownHosts, command)
		}},
	}
}

// fingerprints returns those of the host keys, as PuTTY takes them.
func fingerprints(t *testing.T, w *world) []string {
	t.Helper()
	o := run(deadline(t, time.Minute), nil, "ssh-keygen", "-l", "-f", w.knownHosts)
	if o.code != 0 {
		t.Fatalf("ssh-keygen -l: %s", o)
	}
	var all []string
	for line := range strings.Lines(o.out) {
		if f := strings.Fields(line); len(f) > 1 {
			all = append(all, f[1])
		}
	}
	return all
}

// Every client signs in, gets stdout and stderr apart, half-closes stdin, and
// gets exit codes as they were.
func TestEveryClient(t *testing.T) {
	w := open(t)
	codes := []int{0, 1, 2, 77, 126, 128, 130, 254, 255}
	for _, c := range clients(t, w, w.admin) {
		t.Run(c.name, func(t *testing.T) {
			ctx := deadline(t, 5*time.Minute)
			o := c.run(ctx, strings.NewReader("line one\nline two"), `cat; echo; id -u; echo problem >&2; pwd; exit 3`)
			lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(o.out, "\r", "")), "\n")
			if o.code != 3 || len(lines) != 4 || lines[1] != "line two" || lines[2] == "0" || lines[3] != "/workspace" || !strings.Contains(o.errs, "problem") {
				t.Errorf("a command: %s", o)
			}
			for _, code := range codes {
				if o := c.run(ctx, nil, "exit "+strconv.Itoa(code)); o.code != code {
					t.Errorf("exit %d: %s", code, o)
				}
			}
			// Bytes of every value, both ways, whole.
			every := bytes.Repeat(func() []byte {
				b := make([]byte, 256)
				for i := range b {
					b[i] = byte(i)
				}
				return b
			}(), 2048)
			if o := c.run(ctx, bytes.NewReader(every), "cat"); o.code != 0 || o.out != string(every) {
				t.Errorf("%d bytes there and back: exit %d, %d bytes, the same: %v, %.300s", len(every), o.code, len(o.out), o.out == string(every), o.errs)
			}
		})
	}
}

// All exit codes, over one connection that several sessions share at once.
func TestExitCodesOverOneConnection(t *testing.T) {
	w := open(t)
	m := w.master(t, w.admin)
	ctx := deadline(t, 10*time.Minute)
	type result struct{ code, got int }
	results := make(chan result)
	next := make(chan int)
	for range 4 {
		go func() {
			for code := range next {
				results <- result{code, m.ssh(ctx, nil, "exit "+strconv.Itoa(code)).code}
			}
		}()
	}
	step := sized(1, 5)
	go func() {
		for code := 0; code < 256; code += step {
			next <- code
		}
		close(next)
	}()
	for code := 0; code < 256; code += step {
		if r := <-results; r.got != r.code {
			t.Errorf("exit %d became %d", r.code, r.got)
		}
	}
}

// A master is a connection of OpenSSH's that others share.
type master struct {
	w      *world
	p      *person
	socket string
}

func (w *world) master(t *testing.T, p *person) *master {
	t.Helper()
	m := &master{w: w, p: p, socket: filepath.Join(t.TempDir(), "m")}
	background(t, "ssh", append(w.options(p), "-p", strconv.Itoa(w.port), "-M", "-N", "-S", m.socket, w.to(p))...)
	until(t, "the master connection is there", func() bool {
		return run(t.Context(), nil, "ssh", "-F", "none", "-S", m.socket, "-O", "check", w.to(p)).code == 0
	})
	return m
}

func (m *master) ssh(ctx context.Context, stdin io.Reader, command string) outcome {
	return m.w.ssh(ctx, m.p, stdin, []string{"-S", m.socket, "-o", "ControlMaster=no"}, command)
}

// One large file in and out, by every way that OpenSSH has, and rsync.
func TestLargeFilesByOpenSSH(t *testing.T) {
	w := open(t)
	p := w.admin
	dir := t.TempDir()
	size := sized(1<<30, 32<<20)
	local := filepath.Join(dir, "up")
	sum := file(t, local, size)
	t.Cleanup(func() { w.inside(t, p, "rm -rf /workspace/big") })
	w.inside(t, p, "mkdir -p /workspace/big")
	opts := w.options(p)
	port := strconv.Itoa(w.port)
	remote := func(name string) string { return w.to(p) + ":/workspace/big/" + name }
	batch := filepath.Join(dir, "batch")
	if err := os.WriteFile(batch, []byte("put "+local+" /workspace/big/sftp\nrename /workspace/big/sftp /workspace/big/sftp2\nls -l /workspace/big\nget /workspace/big/sftp2 "+dir+"/sftp\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rsh := "ssh " + strings.Join(opts, " ") + " -p " + port
	for _, way := range []struct {
		name   string
		there  []string
		back   []string
		remote string
	}{
		{"scp", append(append([]string{"scp"}, opts...), "-P", port, local, remote("scp")), append(append([]string{"scp"}, opts...), "-P", port, remote("scp"), dir+"/scp"), "scp"},
		{"scp -O", append(append([]string{"scp", "-O"}, opts...), "-P", port, local, remote("scpo")), append(append([]string{"scp", "-O"}, opts...), "-P", port, remote("scpo"), dir+"/scpo"), "scpo"},
		{"sftp", append(append([]string{"sftp"}, opts...), "-P", port, "-b", batch, w.to(p)), nil, "sftp2"},
		{"rsync", []string{"rsync", "-e", rsh, local, remote("rsync")}, []string{"rsync", "-e", rsh, remote("rsync"), dir + "/rsync"}, "rsync"},
	} {
		t.Run(way.name, func(t *testing.T) {
			ctx := deadline(t, 9*time.Minute)
			if o := run(ctx, nil, way.there[0], way.there[1:]...); o.code != 0 {
				t.Fatalf("there: %s", o)
			}
			if got := w.inside(t, p, "sha256sum < /workspace/big/"+way.remote); !strings.HasPrefix(got, sum) {
				t.Errorf("there it is %s, was %s", got, sum)
			}
			if way.back != nil {
				if o := run(ctx, nil, way.back[0], way.back[1:]...); o.code != 0 {
					t.Fatalf("back: %s", o)
				}
			}
			back := dir + "/" + strings.TrimSuffix(way.remote, "2")
			if got := hashOf(t, back); got != sum {
				t.Errorf("back it is %s, was %s", got, sum)
			}
			_ = os.Remove(back)
			w.inside(t, p, "rm /workspace/big/"+way.remote)
		})
	}
	t.Run("pipe", func(t *testing.T) {
		f, err := os.Open(local)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		o := w.ssh(deadline(t, 9*time.Minute), p, f, []string{"-T"}, "sha256sum")
		if o.code != 0 || !strings.HasPrefix(o.out, sum) {
			t.Errorf("there: %s, want %s", o, sum)
		}
	})
}

// The sftp clients that are not OpenSSH's.
func TestFilesByOtherClients(t *testing.T) {
	w := open(t)
	p := w.admin
	dir := t.TempDir()
	local := filepath.Join(dir, "up")
	sum := file(t, local, sized(64<<20, 8<<20))
	port := strconv.Itoa(w.port)
	for name, script := range map[string]string{"paramiko": "testdata/paramiko_sftp.py", "asyncssh": "testdata/asyncssh_sftp.py"} {
		t.Run(name, func(t *testing.T) {
			o := run(deadline(t, 5*time.Minute), nil, "/usr/bin/python3", script, host, port, p.Name+"+lab", p.key, w.knownHosts, local, dir+"/"+name)
			if o.code != 0 {
				t.Fatal(o)
			}
			if got := hashOf(t, dir+"/"+name); got != sum {
				t.Errorf("back it is %s, was %s", got, sum)
			}
		})
	}
	t.Run("psftp", func(t *testing.T) {
		ppk, batch := filepath.Join(dir, "key.ppk"), filepath.Join(dir, "batch")
		if o := run(t.Context(), nil, "puttygen", p.key, "-O", "private", "-o", ppk); o.code != 0 {
			t.Fatal(o)
		}
		if err := os.WriteFile(batch, []byte("cd /workspace\nput "+local+" psftp.bin\nmv psftp.bin psftp2.bin\nget psftp2.bin "+dir+"/psftp\nrm psftp2.bin\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"HOME=" + dir, "psftp", "-batch", "-i", ppk, "-P", port, "-b", batch}
		for _, print := range fingerprints(t, w) {
			args = append(args, "-hostkey", print)
		}
		if o := run(deadline(t, 5*time.Minute), nil, "env", append(args, w.to(p))...); o.code != 0 {
			t.Fatal(o)
		}
		if got := hashOf(t, dir+"/psftp"); got != sum {
			t.Errorf("back it is %s, was %s", got, sum)
		}
	})
}

// A workspace as a folder of this machine.
func TestSSHFS(t *testing.T) {
	w := open(t)
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("this machine has no FUSE: %v", err)
	} else {
		f.Close()
	}
	p := w.admin
	at := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	args := []string{w.to(p) + ":/workspace", at, "-p", strconv.Itoa(w.port), "-F", "none", "-o", "ssh_command=ssh -F none -i " + p.key}
	for _, o := range []string{"IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=yes", "UserKnownHostsFile=" + w.knownHosts} {
		args = append(args, "-o", o)
	}
	if o := run(deadline(t, time.Minute), nil, "sshfs", args...); o.code != 0 {
		t.Fatalf("mount: %s", o)
	}
	t.Cleanup(func() {
		if o := run(context.Background(), nil, "fusermount", "-u", at); o.code != 0 {
			t.Errorf("unmount: %s", o)
		}
	})
	sum := file(t, filepath.Join(at, "by-fuse"), 4<<20)
	if got := w.inside(t, p, "sha256sum < /workspace/by-fuse"); !strings.HasPrefix(got, sum) {
		t.Errorf("there it is %s, was %s", got, sum)
	}
	w.inside(t, p, "echo from inside > /workspace/from-inside")
	if b, err := os.ReadFile(filepath.Join(at, "from-inside")); err != nil || string(b) != "from inside\n" {
		t.Errorf("from inside: %q, %v", b, err)
	}
	for _, name := range []string{"by-fuse", "from-inside"} {
		if err := os.Remove(filepath.Join(at, name)); err != nil {
			t.Error(err)
		}
	}
}

// The exit code of a command on a terminal is the command's own, whichever it is,
// by itself and through a connection that several share; and a shared connection
// ends when it is told to, with nothing of it left.
func TestExitCodesOnATerminal(t *testing.T) {
	w := open(t)
	p := w.bob
	ctx := deadline(t, 5*time.Minute)
	m := w.master(t, p)
	for _, code := range []int{0, 1, 2, 3, 77, 126, 127, 128, 129, 130, 137, 143, 200, 254, 255} {
		command := fmt.Sprintf("echo code; exit %d", code)
		for name, flags := range map[string][]string{"alone": {"-tt"}, "shared": {"-tt", "-S", m.socket, "-o", "ControlMaster=no"}} {
			if o := w.ssh(ctx, p, nil, flags, command); o.code != code || strings.TrimSpace(o.out) != "code" {
				t.Errorf("exit %d on a terminal, %s: %s", code, name, o)
			}
		}
	}
	// What ends by a signal has a code as well, and is no success.
	if o := w.ssh(ctx, p, nil, []string{"-tt"}, "kill -TERM $$"); o.code == 0 {
		t.Errorf("killed: %s", o)
	}
	if o := run(ctx, nil, "ssh", "-F", "none", "-S", m.socket, "-O", "exit", w.to(p)); o.code != 0 {
		t.Errorf("the shared connection does not end: %s", o)
	}
	if _, err := os.Stat(m.socket); err == nil {
		t.Error("its socket is left")
	}
	until(t, "no session is left", func() bool { return len(w.sessions(t, p, "--live", "--kind", "exec")) == 0 })
}
