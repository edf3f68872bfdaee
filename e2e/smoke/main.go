// Command smoke drives the main job from outside, through public interfaces
// only: it starts a server of its own, signs people in, launches real
// workspaces, runs PyTorch in them, and tries what must not work. It prints
// each step with its time and ends at the first that fails.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/baileyhq/bailey/e2e/drive"
)

func main() {
	bin := flag.String("bin", "bin/bailey", "the bailey binary")
	class := flag.String("class", "pytorch", "class to launch")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *class); err != nil {
		fmt.Fprintf(os.Stderr, "\nsmoke FAILED: %v\n", err)
		os.Exit(1)
	}
	fmt.Println("smoke passed")
}

// A tour is the state that the steps share.
type tour struct {
	s                 *drive.Server
	dir, class        string
	admin, alice, bob *drive.Person
	url               string // of alice's workspace, with a final slash
	kernel            *drive.Kernel
}

func run(ctx context.Context, bin, class string) (err error) {
	dir, err := os.MkdirTemp("", "bailey-smoke-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	s, err := drive.New(bin, dir, "--demo")
	if err != nil {
		return err
	}
	t := &tour{s: s, dir: dir, class: class}
	defer func() { err = errors.Join(err, t.cleanUp()) }()
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"start the server", s.Start},
		{"the administrator signs in on the command line", t.signIn},
		{"accounts for alice and bob", t.accounts},
		{"a wrong password is refused with exit code 4", t.wrongPassword},
		{"alice launches a " + class + " workspace and waits", t.launch},
		{"bob cannot see, stop, read or open it", t.bobIsOutside},
		{"a stranger is sent to the sign-in page", t.stranger},
		{"alice opens JupyterLab in a browser, by the hand-off", t.lab},
		{"a kernel computes, read back over its WebSocket", t.compute},
		{"the container is walled", t.walls},
		{"pip installs a wheel as the user", t.pip},
		{"a file is written through the contents API", t.writeFile},
		{"the server is killed (-9) and started again: the same kernel answers", t.killServer},
		{"stop and start: the file and the package are still there", t.restart},
		{"logs, classes, volumes and lists answer", t.lists},
		{"delete the workspace, then its volume by name", t.deleteAll},
		{"the audit journal has it all and its chain is whole", t.auditTrail},
		{"the server stops on a signal", func(context.Context) error { return s.Stop() }},
	}
	for i, st := range steps {
		begin := time.Now()
		sctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
		err := st.do(sctx)
		cancel()
		mark := "ok"
		if err != nil {
			mark = "FAILED"
		}
		fmt.Printf("%2d/%d %-72s %8.2f s  %s\n", i+1, len(steps), st.name, time.Since(begin).Seconds(), mark)
		if err != nil {
			if s.Log != nil {
				fmt.Fprintf(os.Stderr, "--- the server's output ---\n%s\n", s.Log.String())
			}
			return fmt.Errorf("step %q: %w", st.name, err)
		}
	}
	return nil
}

// cleanUp removes what is left over when a step failed.
func (t *tour) cleanUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if t.url != "" && t.alice != nil {
		_, _ = t.alice.CLI(ctx, "rm", "--yes", "work")
	}
	return t.s.Stop()
}

func (t *tour) signIn(ctx context.Context) error {
	t.admin = t.s.Person("admin", t.s.Admin)
	return t.admin.Login(ctx)
}

func (t *tour) accounts(ctx context.Context) error {
	for _, name := range []string{"alice", "bob"} {
		file := filepath.Join(t.dir, name+"-password")
		if err := os.WriteFile(file, []byte(drive.Password()+"\n"), 0o600); err != nil {
			return err
		}
		if _, err := t.admin.CLI(ctx, "admin", "user", "add", name, "--password-file", file); err != nil {
			return err
		}
		p := t.s.Person(name, file)
		if err := p.Login(ctx); err != nil {
			return err
		}
		if name == "alice" {
			t.alice = p
		} else {
			t.bob = p
		}
	}
	return nil
}

func (t *tour) wrongPassword(ctx context.Context) error {
	file := filepath.Join(t.dir, "wrong")
	if err := os.WriteFile(file, []byte("not-the-password\n"), 0o600); err != nil {
		return err
	}
	err := t.s.Person("mallory", file).Login(ctx)
	return wantExit(err, 4)
}

func wantExit(err error, code int) error {
	if got := drive.ExitCode(err); got != code {
		return fmt.Errorf("exit code %d, want %d (%w)", got, code, err)
	}
	return nil
}

func (t *tour) launch(ctx context.Context) error {
	out, err := t.alice.CLI(ctx, "run", t.class, "--name", "work")
	if err != nil {
		return err
	}
	t.url = strings.TrimSpace(out)
	if !strings.HasPrefix(t.url, "https://") || !strings.HasSuffix(t.url, "/") {
		return fmt.Errorf("bailey run printed %q, want an address", out)
	}
	return nil
}

func (t *tour) bobIsOutside(ctx context.Context) error {
	out, err := t.alice.CLI(ctx, "ls", "-o", "json")
	if err != nil {
		return err
	}
	var list []struct{ ID string }
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		return fmt.Errorf("alice's list is %q (%w)", out, err)
	}
	if out, err := t.bob.CLI(ctx, "ls", "-o", "name"); err != nil || strings.TrimSpace(out) != "" {
		return fmt.Errorf("bob's list is %q, %w; want none", out, err)
	}
	for _, cmd := range [][]string{{"open", list[0].ID}, {"stop", list[0].ID}, {"logs", list[0].ID}, {"rm", "--yes", list[0].ID}, {"open", "alice.work"}} {
		_, err := t.bob.CLI(ctx, cmd...)
		if err := wantExit(err, 5); err != nil {
			return fmt.Errorf("bob: bailey %v: %w", cmd, err)
		}
	}
	_, err = t.bob.CLI(ctx, "ls", "--all")
	if err := wantExit(err, 6); err != nil {
		return fmt.Errorf("bob lists everybody's: %w", err)
	}
	for _, path := range []string{"api/status", "lab", "api/contents", "files/x"} {
		status, body, err := t.bob.API(ctx, http.MethodGet, t.url+path, nil)
		if err != nil {
			return err
		}
		if status < 400 {
			return fmt.Errorf("bob reads %s with his token: %d %.200s", path, status, body)
		}
	}
	if ws, err := t.bob.Channels(ctx, t.url, "00000000-0000-0000-0000-000000000000"); err == nil {
		ws.CloseNow()
		return errors.New("bob opened a kernel WebSocket of alice's")
	}
	c, err := t.bob.Browser(ctx)
	if err != nil {
		return err
	}
	resp, body, err := drive.Navigate(ctx, c, t.url+"lab")
	if err != nil {
		return err
	}
	if resp.StatusCode < 400 {
		return fmt.Errorf("bob's browser opened alice's workspace: %d %.200s", resp.StatusCode, body)
	}
	return nil
}

func (t *tour) stranger(ctx context.Context) error {
	c, err := t.s.HTTP(true, true)
	if err != nil {
		return err
	}
	resp, body, err := drive.Navigate(ctx, c, t.url+"lab")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(resp.Request.URL.String(), t.s.URL+"/signin") {
		return fmt.Errorf("a stranger ended at %s: %.200s", resp.Request.URL, body)
	}
	if status, body, err := t.s.Person("nobody", "").API(ctx, http.MethodGet, t.url+"api/status", nil); err == nil {
		return fmt.Errorf("no profile, yet %d %s", status, body)
	}
	return nil
}

func (t *tour) lab(ctx context.Context) error {
	c, err := t.alice.Browser(ctx)
	if err != nil {
		return err
	}
	resp, body, err := drive.Navigate(ctx, c, t.url)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "jupyter-config-data") {
		return fmt.Errorf("the browser ended at %s with %d: %.300s", resp.Request.URL, resp.StatusCode, body)
	}
	return nil
}

func (t *tour) compute(ctx context.Context) error {
	k, err := t.alice.StartKernel(ctx, t.url)
	if err != nil {
		return err
	}
	t.kernel = k
	code, want := "import torch; (torch.ones(2,2)@torch.ones(2,2)).sum()", "tensor(8.)"
	if t.class == "notebook" {
		code, want = "sum(range(9))", "36"
	}
	got, err := k.Run(ctx, code)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s = %q, want %q", code, got, want)
	}
	_, err = k.Run(ctx, "kept = 'before the kill'")
	return err
}

// walls tries from inside what must fail.
func (t *tour) walls(ctx context.Context) error {
	for _, w := range []struct{ what, code, want string }{
		{"uid", "import os; print(os.getuid() >= 20000 and os.getuid() == os.getgid())", "True"},
		{"capabilities and no_new_privs", "s=open('/proc/self/status').read(); print('CapBnd:\\t0000000000000000' in s, 'NoNewPrivs:\\t1' in s, 'Seccomp:\\t2' in s)", "True True True"},
		{"root is read-only", "try:\n open('/etc/x','w')\nexcept OSError as e: print(type(e).__name__)", "OSError"},
		{"no network", "import os; print(sorted(os.listdir('/sys/class/net')))", "['lo']"},
		{"no metadata", "import socket\ntry:\n socket.create_connection(('169.254.169.254',80),2)\nexcept OSError: print('refused')", "refused"},
		{"no docker socket", "print(os.path.exists('/var/run/docker.sock') or os.path.exists('/run/docker.sock'))", "False"},
		{"no other container", "print([p for p in os.listdir('/proc') if p.isdigit() and b'dockerd' in open(f'/proc/{p}/cmdline','rb').read()])", "[]"},
		{"no raw sockets", "try:\n socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nexcept OSError as e: print('refused')", "refused"},
		{"no AF_ALG", "try:\n socket.socket(38, socket.SOCK_SEQPACKET)\nexcept OSError as e: print('refused')", "refused"},
		{"no user namespaces", "import subprocess; print(subprocess.run(['unshare','-U','true'],capture_output=True).returncode != 0)", "True"},
	} {
		got, err := t.kernel.Run(ctx, w.code)
		if err != nil {
			return fmt.Errorf("%s: %w", w.what, err)
		}
		if got != w.want {
			return fmt.Errorf("%s: %q, want %q", w.what, got, w.want)
		}
	}
	return nil
}

// pip builds a tiny wheel inside and installs it: no network, PEP 668 not in
// the way.
func (t *tour) pip(ctx context.Context) error {
	const code = `
import zipfile, subprocess, sys, pathlib
p = pathlib.Path('/tmp/baileysmoke-1.0-py3-none-any.whl')
with zipfile.ZipFile(p, 'w') as z:
    z.writestr('baileysmoke.py', 'answer = 42\n')
    z.writestr('baileysmoke-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: baileysmoke\nVersion: 1.0\n')
    z.writestr('baileysmoke-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nGenerator: smoke\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    z.writestr('baileysmoke-1.0.dist-info/RECORD', '')
r = subprocess.run(['pip', 'install', '--no-index', str(p)], capture_output=True, text=True)
print(r.returncode, r.stderr[-300:] if r.returncode else '')
`
	got, err := t.kernel.Run(ctx, code)
	if err != nil {
		return err
	}
	if got != "0" {
		return fmt.Errorf("pip install: %s", got)
	}
	got, err = t.kernel.Run(ctx, "import importlib; importlib.invalidate_caches(); import baileysmoke; print(baileysmoke.answer)")
	if err == nil && got != "42" {
		err = fmt.Errorf("the package answers %q", got)
	}
	return err
}

func (t *tour) writeFile(ctx context.Context) error {
	status, body, err := t.alice.API(ctx, http.MethodPut, t.url+"api/contents/hello.txt", map[string]string{"type": "file", "format": "text", "content": "still here"})
	if err != nil {
		return err
	}
	if status != http.StatusCreated && status != http.StatusOK {
		return fmt.Errorf("write hello.txt: %d %.200s", status, body)
	}
	return nil
}

func (t *tour) readFile(ctx context.Context) error {
	status, body, err := t.alice.API(ctx, http.MethodGet, t.url+"api/contents/hello.txt", nil)
	if err != nil {
		return err
	}
	if status != http.StatusOK || !strings.Contains(string(body), "still here") {
		return fmt.Errorf("read hello.txt: %d %.200s", status, body)
	}
	return nil
}

func (t *tour) killServer(ctx context.Context) error {
	if err := t.s.Kill(); err != nil {
		return err
	}
	if err := t.s.Start(ctx); err != nil {
		return err
	}
	if err := t.untilRunning(ctx); err != nil {
		return err
	}
	ws, err := t.alice.Channels(ctx, t.url, t.kernel.ID)
	if err != nil {
		return err
	}
	t.kernel = drive.Reconnect(t.kernel.ID, ws)
	got, err := t.kernel.Run(ctx, "print(kept)")
	if err == nil && got != "before the kill" {
		err = fmt.Errorf("the kernel's memory says %q", got)
	}
	return err
}

// untilRunning waits until the reconciler serves the workspace again.
func (t *tour) untilRunning(ctx context.Context) error {
	for {
		status, body, err := t.alice.API(ctx, http.MethodGet, t.url+"api/status", nil)
		if err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the workspace was not served again: %d %.200s %w", status, body, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (t *tour) restart(ctx context.Context) error {
	t.kernel.Close()
	if _, err := t.alice.CLI(ctx, "stop", "work"); err != nil {
		return err
	}
	if status, _, err := t.alice.API(ctx, http.MethodGet, t.url+"api/status", nil); err != nil || status < 400 {
		return fmt.Errorf("a stopped workspace answers %d, %w", status, err)
	}
	if _, err := t.alice.CLI(ctx, "run", t.class, "--name", "work"); err != nil {
		return err
	}
	if err := t.readFile(ctx); err != nil {
		return err
	}
	k, err := t.alice.StartKernel(ctx, t.url)
	if err != nil {
		return err
	}
	defer k.Close()
	got, err := k.Run(ctx, "import baileysmoke; print(baileysmoke.answer)")
	if err == nil && got != "42" {
		err = fmt.Errorf("the package answers %q", got)
	}
	return err
}

func (t *tour) lists(ctx context.Context) error {
	for _, cmd := range [][]string{{"ls"}, {"ls", "-o", "yaml"}, {"class", "ls"}, {"volume", "ls"}, {"logs", "work"}, {"open", "work"}} {
		if out, err := t.alice.CLI(ctx, cmd...); err != nil || out == "" {
			return fmt.Errorf("bailey %v: %q, %w", cmd, out, err)
		}
	}
	_, err := t.admin.CLI(ctx, "ls", "--all")
	return err
}

func (t *tour) deleteAll(ctx context.Context) error {
	if _, err := t.alice.CLI(ctx, "rm", "--yes", "work"); err != nil {
		return err
	}
	if _, err := t.alice.CLI(ctx, "volume", "rm", "work", "--confirm", "other"); err == nil {
		return errors.New("a volume was deleted under the wrong name")
	}
	if _, err := t.alice.CLI(ctx, "volume", "rm", "work", "--confirm", "work"); err != nil {
		return err
	}
	t.url = ""
	entries, err := os.ReadDir(filepath.Join(t.s.State, "volumes"))
	if err == nil && len(entries) > 0 {
		return fmt.Errorf("files of the deleted volume are left: %v", entries)
	}
	return nil
}

func (t *tour) auditTrail(ctx context.Context) error {
	out, err := t.admin.CLI(ctx, "audit", "search", "--limit", "1000", "-o", "json")
	if err != nil {
		return err
	}
	for _, action := range []string{"session.signin", "user.create", "workspace.launch", "workspace.stop", "workspace.delete", "volume.delete", "access.denied"} {
		if !strings.Contains(out, `"`+action+`"`) {
			return fmt.Errorf("the journal has no %s", action)
		}
	}
	if _, err := t.bob.CLI(ctx, "audit", "search"); drive.ExitCode(err) != 6 {
		return fmt.Errorf("bob searches the journal: %w", err)
	}
	_, err = t.admin.CLI(ctx, "audit", "verify", "--state", t.s.State)
	return err
}
