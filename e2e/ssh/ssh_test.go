// Package ssh has the SSH door tried by the clients that people have: OpenSSH,
// dropbear, PuTTY, paramiko and asyncssh, against a running bailey and real
// workspaces on a real Docker. It runs as root with BAILEY_TEST_SSH=1, after
// scripts/ssh.sh has installed the clients. BAILEY_TEST_SHORT makes transfers
// and crowds smaller.
package ssh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/e2e/drive"
)

const (
	host = "localhost"
	// canary is a token in form, and nobody's; in two parts, or it would be
	// found in this file.
	canaryA = "ghp_" + "q8Zk3Wn5Vb1Xc7Rt"
	canaryB = "9Ym2Lp4Hs6Jd0FgNxTuA"
)

// A world is a server with two people in it, each with a workspace "lab" and a
// key. All tests share it.
type world struct {
	s          *drive.Server
	dir        string
	port       int
	knownHosts string
	admin, bob *person
}

type person struct {
	*drive.Person

	key string // private key, OpenSSH's form
}

var shared *world

func TestMain(m *testing.M) {
	if os.Getenv("BAILEY_TEST_SSH") == "" {
		os.Exit(m.Run())
	}
	code := 1
	func() {
		dir, err := os.MkdirTemp("", "bailey-ssh-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		defer os.RemoveAll(dir)
		w, err := build(dir)
		if w != nil {
			defer w.close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "ssh:", err)
			if w != nil && w.s.Log != nil {
				fmt.Fprintln(os.Stderr, w.s.Log.String())
			}
			return
		}
		shared = w
		code = m.Run()
		if code != 0 && os.Getenv("BAILEY_TEST_LOG") != "" {
			fmt.Fprintln(os.Stderr, w.s.Log.String())
		}
	}()
	os.Exit(code)
}

const settings = `
listen: {ssh: "127.0.0.1:%d"}
proxies: {protocol: [127.0.0.77]}
ssh:
  recording: strict
  remote_forwarding: true
  agent_forwarding: true
  start_on_connect: true
classes:
  - {name: lab, image: notebook, cpus: 1, memory: 1GiB}
quotas:
  default: {workspaces: 4, cpus: 16, memory: 32GiB}
`

// build starts the server and makes the people.
func build(dir string) (*world, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	bin, err := filepath.Abs(filepath.Join("..", "..", "bin", "bailey"))
	if err != nil {
		return nil, err
	}
	if b := os.Getenv("BAILEY_BIN"); b != "" {
		bin = b
	}
	port, err := drive.Port()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "bailey.yaml")
	if err := os.WriteFile(conf, fmt.Appendf(nil, settings, port), 0o600); err != nil {
		return nil, err
	}
	w := &world{dir: dir, port: port, knownHosts: filepath.Join(dir, "known_hosts")}
	if w.s, err = drive.New(bin, dir, "--config", conf); err != nil {
		return nil, err
	}
	// The recordings have a small disk of their own, for the test that fills it.
	if err := os.MkdirAll(w.recordings(), 0o700); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "mount", "-t", "tmpfs", "-o", "size=320m,mode=700", "tmpfs", w.recordings()).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mount a small disk: %w: %s", err, out)
	}
	if err := w.s.Start(ctx); err != nil {
		return w, err
	}
	w.admin = &person{Person: w.s.Person("admin", w.s.Admin)}
	if err := w.admin.Login(ctx); err != nil {
		return w, err
	}
	password := filepath.Join(dir, "bob-password")
	if err := os.WriteFile(password, []byte(drive.Password()+"\n"), 0o600); err != nil {
		return w, err
	}
	if _, err := w.admin.CLI(ctx, "admin", "user", "add", "bob", "--password-file", password); err != nil {
		return w, err
	}
	w.bob = &person{Person: w.s.Person("bob", password)}
	if err := w.bob.Login(ctx); err != nil {
		return w, err
	}
	for _, p := range []*person{w.admin, w.bob} {
		if err := w.equip(ctx, p); err != nil {
			return w, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	var access struct {
		KnownHosts []string `json:"known_hosts"`
		HostKeys   []string `json:"host_keys"`
	}
	status, b, err := w.admin.API(ctx, http.MethodGet, w.s.URL+"/api/v1/ssh", nil)
	if err != nil || status != http.StatusOK || json.Unmarshal(b, &access) != nil {
		return w, fmt.Errorf("where is SSH: %d %s, %w", status, b, err)
	}
	lines := ""
	for _, key := range access.HostKeys {
		lines += fmt.Sprintf("[%s]:%d %s\n", host, port, key)
	}
	return w, os.WriteFile(w.knownHosts, []byte(lines), 0o600)
}

// equip gives a person a key and a workspace.
func (w *world) equip(ctx context.Context, p *person) error {
	p.key = filepath.Join(w.dir, p.Name+"-key")
	if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", p.Name+"@laptop", "-f", p.key).CombinedOutput(); err != nil {
		return fmt.Errorf("make a key: %w: %s", err, out)
	}
	pub, err := os.ReadFile(p.key + ".pub")
	if err != nil {
		return err
	}
	status, b, err := p.API(ctx, http.MethodPost, w.s.URL+"/api/v1/me/ssh-keys", map[string]string{"name": "laptop", "key": strings.TrimSpace(string(pub))})
	if err != nil || status != http.StatusCreated {
		return fmt.Errorf("add a key: %d %s, %w", status, b, err)
	}
	_, err = p.CLI(ctx, "run", "lab", "--name", "lab")
	return err
}

func (w *world) recordings() string { return filepath.Join(w.s.State, "recordings") }

func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, p := range []*person{w.admin, w.bob} {
		if p != nil {
			_, _ = p.CLI(ctx, "rm", "--yes", "lab")
		}
	}
	_ = w.s.Stop()
	_ = exec.CommandContext(ctx, "umount", w.recordings()).Run()
}

// open returns the world, or skips.
func open(t *testing.T) *world {
	t.Helper()
	if shared == nil {
		t.Skip("needs Docker, root and SSH clients: set BAILEY_TEST_SSH=1, or run scripts/ssh.sh")
	}
	return shared
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// sized returns whole, or less where there is little time.
func sized(whole, short int) int {
	if os.Getenv("BAILEY_TEST_SHORT") != "" {
		return short
	}
	return whole
}

// An outcome is how a command on this machine ended.
type outcome struct {
	out, errs string
	code      int
}

func (o outcome) String() string {
	return fmt.Sprintf("exit %d, stdout %.400q, stderr %.800q", o.code, o.out, o.errs)
}

func run(ctx context.Context, stdin io.Reader, name string, args ...string) outcome {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	code := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		code = e.ExitCode()
	} else if err != nil {
		return outcome{errs: err.Error(), code: -1}
	}
	return outcome{out: out.String(), errs: errs.String(), code: code}
}

// options are OpenSSH's for a person: this key, these host keys, no questions,
// nothing from the machine's own configuration.
func (w *world) options(p *person) []string {
	return []string{
		"-F", "none", "-i", p.key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
		"-o", "UserKnownHostsFile=" + w.knownHosts, "-o", "GlobalKnownHostsFile=none", "-o", "UpdateHostKeys=no", "-o", "LogLevel=ERROR",
		"-o", "AddressFamily=inet", "-o", "ConnectTimeout=60",
	}
}

// to returns where a person's workspace is, for ssh.
func (w *world) to(p *person) string { return p.Name + "+lab@" + host }

// ssh runs OpenSSH's ssh: flags before the host, then a command.
func (w *world) ssh(ctx context.Context, p *person, stdin io.Reader, flags []string, command ...string) outcome {
	args := append(w.options(p), "-p", strconv.Itoa(w.port))
	args = append(append(args, flags...), w.to(p))
	return run(ctx, stdin, "ssh", append(args, command...)...)
}

// inside runs a command in a person's workspace that has to work.
func (w *world) inside(t *testing.T, p *person, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute) // also when the test is over
	defer cancel()
	o := w.ssh(ctx, p, nil, nil, command)
	if o.code != 0 {
		t.Fatalf("inside, %s: %s", command, o)
	}
	return strings.TrimSpace(o.out)
}

// file makes a file of random bytes on this machine and returns its hash.
func file(t *testing.T, name string, size int) string {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, h), r, int64(size)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func hashOf(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// until waits, with a deadline, for what happens elsewhere.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for !done() {
		if time.Now().After(end) {
			t.Fatalf("after a minute still not so: %s", what)
		}
		time.Sleep(100 * time.Millisecond) // other processes run in real time beside us
	}
}

// answers waits until somebody listens.
func answers(t *testing.T, addr string) {
	t.Helper()
	until(t, addr+" answers", func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// background starts a command that ends with the test.
func background(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	var errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &errs
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() && errs.Len() > 0 {
			t.Logf("%s said: %.2000s", name, errs.String())
		}
	})
	return cmd
}

func freePort(t *testing.T) int {
	t.Helper()
	p, err := drive.Port()
	if err != nil {
		t.Fatal(err)
	}
	return p
}
