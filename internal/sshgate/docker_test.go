package sshgate_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/engine/docker"
	"github.com/baileyhq/bailey/internal/secret"
)

// contain puts a person's workspace into a real container, in place of the
// agent beside the test.
func (w *world) contain(e *docker.Engine, name string, uid int, image string) {
	w.t.Helper()
	run, volume := bailey.NewID(), bailey.NewID()
	ctx := context.WithoutCancel(w.t.Context())
	if err := e.EnsureVolume(ctx, volume, uid); err != nil {
		w.t.Fatal(err)
	}
	id, err := e.Create(ctx, engine.Spec{
		Run: run, Workspace: bailey.NewID(), Owner: bailey.NewID(), Name: name, Class: "notebook", Image: image, UID: uid, VolumeID: volume,
		CPUMillis: 1000, MemoryBytes: 1 << 30, ShmBytes: 64 << 20, TmpBytes: 128 << 20, Pids: 512, JupyterToken: secret.Random(32), BasePath: "/",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := e.Remove(ctx, id); err != nil {
			w.t.Errorf("remove: %v", err)
		}
		if err := e.RemoveVolume(ctx, volume); err != nil {
			w.t.Errorf("remove volume: %v", err)
		}
	})
	if err := e.Start(ctx, id); err != nil {
		w.t.Fatal(err)
	}
	ro := w.rooms.byOwner["u-"+name]
	ro.container = id
	ro.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return e.Dial(ctx, run, uid, network, addr)
	}
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) { //nolint:forbidigo // a real container starts
		c, err := ro.dial(ctx, "tcp", engine.JupyterAddr)
		if err == nil {
			fmt.Fprintf(c, "GET /api HTTP/1.0\r\nHost: 127.0.0.1:8888\r\n\r\n")
			n, _ := c.Read(make([]byte, 16))
			_ = c.Close()
			if n > 0 {
				return
			}
		}
		if time.Now().After(until) {
			w.t.Fatalf("%s's Jupyter does not answer: %v", name, err)
		}
	}
}

// TestOpenSSHAndARealContainer is the main story with the clients that people
// have, against containers of two people.
func TestOpenSSHAndARealContainer(t *testing.T) {
	if os.Getenv("BAILEY_TEST_DOCKER") != "1" {
		t.Skip("needs Docker, root, OpenSSH's clients and the notebook image: set BAILEY_TEST_DOCKER=1")
	}
	w := newWorld(t, nil)
	bin := filepath.Join(t.TempDir(), "bailey-agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "github.com/baileyhq/bailey/cmd/bailey-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v\n%s", err, out)
	}
	e, err := docker.New(docker.Config{Instance: bailey.NewID(), Root: filepath.Join(t.TempDir(), "state"), AgentPath: bin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	image := ""
	all, err := e.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range all {
		if img.Labels[engine.LabelImage] == "notebook" {
			image = img.ID
		}
	}
	if image == "" {
		t.Fatal("there is no notebook image: make images")
	}
	for i, name := range []string{"ada", "bob"} {
		w.contain(e, name, 20101+i, image)
	}

	dir := t.TempDir()
	host, port, _ := net.SplitHostPort(w.addr)
	known := fmt.Sprintf("[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(w.hostKey.PublicKey()))
	if err := os.WriteFile(filepath.Join(dir, "known"), []byte(known), 0o600); err != nil {
		t.Fatal(err)
	}
	config := ""
	for _, name := range []string{"ada", "bob"} {
		block, err := ssh.MarshalPrivateKey(w.people.raw[name], "")
		if err != nil {
			t.Fatal(err)
		}
		key := filepath.Join(dir, name+".key")
		if err := os.WriteFile(key, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		config += fmt.Sprintf("Host %s\n HostName %s\n Port %s\n User %s\n IdentityFile %s\n IdentitiesOnly yes\n UserKnownHostsFile %s\n StrictHostKeyChecking yes\n BatchMode yes\n LogLevel ERROR\n",
			name, host, port, name, key, filepath.Join(dir, "known"))
	}
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	do := func(stdin []byte, program string, args ...string) (string, int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, append([]string{"-F", file}, args...)...)
		if program == "rsync" {
			cmd = exec.CommandContext(ctx, program, append([]string{"-e", "ssh -F " + file}, args...)...)
		}
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatalf("%s %v: %v", program, args, err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}

	for i, name := range []string{"ada", "bob"} {
		if out, code := do(nil, "ssh", name, "id -u; echo $USER; pwd; exit 7"); code != 7 || out != fmt.Sprintf("%d\n%s\n/workspace\n", 20101+i, name) {
			t.Errorf("ssh %s: %q, %d", name, out, code)
		}
	}
	if out, code := do(nil, "ssh", "-tt", "ada", "tty; stty size >/dev/null && echo sized"); code != 0 || !strings.Contains(out, "/dev/pts/") || !strings.Contains(out, "sized") {
		t.Errorf("ssh -tt: %q, %d", out, code)
	}
	data := make([]byte, 8<<20)
	_, _ = rand.Read(data)
	src := filepath.Join(dir, "src")
	if err := os.WriteFile(src, data, 0o600); err != nil {
		t.Fatal(err)
	}
	back := func(name string) {
		t.Helper()
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes came back, %v", name, len(got), err)
		}
	}
	for name, steps := range map[string][][]string{
		"scp":    {{"scp", src, "ada:one"}, {"scp", "ada:one", filepath.Join(dir, "scp")}},
		"scp -O": {{"scp", "-O", src, "ada:two"}, {"scp", "-O", "ada:two", filepath.Join(dir, "scp -O")}},
	} {
		missing := ""
		for _, s := range steps {
			out, code := do(nil, s[0], s[1:]...)
			if strings.Contains(out, "scp: command not found") || strings.Contains(out, "scp: not found") {
				missing = "the image has no scp for the old protocol"
				continue
			}
			if code != 0 {
				t.Errorf("%s: %q, %d", name, out, code)
			}
		}
		if missing != "" {
			t.Logf("%s: %s", name, missing)
			continue
		}
		back(name)
	}
	if out, code := do([]byte("put "+src+" three\nget three "+filepath.Join(dir, "sftp")+"\nmkdir d\nrename three d/three\nls -l d\n"), "sftp", "-b", "-", "ada"); code != 0 || !strings.Contains(out, "three") {
		t.Errorf("sftp: %q, %d", out, code)
	}
	back("sftp")
	if out, code := do(nil, "rsync", src, "ada:four"); code == 127 || strings.Contains(out, "command not found") || strings.Contains(out, "not found") {
		t.Logf("rsync: the image has none: %q", out)
	} else if out2, code2 := do(nil, "rsync", "ada:four", filepath.Join(dir, "rsync")); code != 0 || code2 != 0 {
		t.Errorf("rsync: %q %d, %q %d", out, code, out2, code2)
	} else {
		back("rsync")
	}
	if out, code := do(data, "ssh", "ada", "sha256sum | cut -c1-8; cat one | sha256sum | cut -c1-8"); code != 0 || len(strings.Fields(out)) != 2 || strings.Fields(out)[0] != strings.Fields(out)[1] {
		t.Errorf("a pipe: %q, %d", out, code)
	}
	// -W is one forward: Jupyter answers through it, without any published port.
	// Its input stays open until the answer is there: Jupyter takes the end of a
	// request's stream for a caller who has gone.
	forward := exec.CommandContext(t.Context(), "ssh", "-F", file, "-W", "127.0.0.1:8888", "ada")
	in, err := forward.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := forward.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "GET /api HTTP/1.0\r\nHost: 127.0.0.1:8888\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, answer, `"version"`)
	_ = in.Close()
	if err := forward.Wait(); err != nil {
		t.Errorf("forward to Jupyter: %v", err)
	}
	// The server's own loopback is not the workspace's.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if out, code := do(nil, "ssh", "-W", ln.Addr().String(), "ada"); code == 0 {
		t.Errorf("the server's loopback: %q", out)
	}
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(time.Second))
	if c, err := ln.Accept(); err == nil {
		_ = c.Close()
		t.Error("a forward reached the server's own loopback")
	}
	if out, code := do(nil, "ssh", "bob", "cat /workspace/one 2>&1 || ls /workspace"); strings.Contains(out, "one\n") || code != 0 {
		t.Errorf("bob sees ada's files: %q, %d", out, code)
	}

	// The container dies in the middle of something.
	cmd := exec.CommandContext(t.Context(), "ssh", "-F", file, "ada", "echo up; sleep 1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	readUntil(t, out, "up\n")
	if err := exec.CommandContext(t.Context(), "docker", "kill", w.rooms.byOwner["u-ada"].container).Run(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 255 {
		t.Errorf("the client of a killed container: %v, want 255", err)
	}
	if out, code := do(nil, "ssh", "bob", "echo on"); out != "on\n" || code != 0 {
		t.Errorf("bob: %q, %d", out, code)
	}
}
