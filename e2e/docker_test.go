// Package e2e tells what happens to people when the machine misbehaves: real
// bailey, real Docker, and somebody pulling plugs. The stories run with
// BAILEY_TEST_DOCKER=1, as root.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baileyhq/bailey/e2e/drive"
)

// server returns a bailey that is not started yet, with a folder of its own.
func server(t *testing.T, args ...string) (*drive.Server, string) {
	t.Helper()
	if os.Getenv("BAILEY_TEST_DOCKER") == "" {
		t.Skip("needs Docker and root: set BAILEY_TEST_DOCKER=1, or run make test")
	}
	bin, err := filepath.Abs(filepath.Join("..", "bin", "bailey"))
	if err != nil {
		t.Fatal(err)
	}
	if b := os.Getenv("BAILEY_BIN"); b != "" {
		bin = b
	}
	dir := t.TempDir()
	s, err := drive.New(bin, dir, append([]string{"--demo"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop the server: %v", err)
		}
		if t.Failed() && s.Log != nil {
			t.Logf("the server said:\n%s", s.Log.String())
		}
	})
	return s, dir
}

func start(t *testing.T, s *drive.Server) *drive.Person {
	t.Helper()
	ctx := deadline(t, time.Minute)
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	admin := s.Person("admin", s.Admin)
	if err := admin.Login(ctx); err != nil {
		t.Fatal(err)
	}
	return admin
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// remove deletes a workspace and its volume when the story is over.
func remove(t *testing.T, p *drive.Person, name string) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := p.CLI(ctx, "rm", "--yes", name); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
}

func TestTwoServersOnOneStateFolderTheSecondRefuses(t *testing.T) {
	s, dir := server(t)
	start(t, s)
	second, err := drive.New(s.Bin, filepath.Join(dir), "--demo")
	if err != nil {
		t.Fatal(err)
	}
	second.State = s.State
	err = second.Start(deadline(t, time.Minute))
	if err == nil {
		_ = second.Stop()
		t.Fatal("the second server started")
	}
	for _, want := range []string{"another bailey server is using the state folder", fmt.Sprint(s.Pid()), "--state DIR"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the second server said %q, want %q in it", err, want)
		}
	}
	// The first is not disturbed.
	if _, err := s.Person("admin", s.Admin).CLI(deadline(t, time.Minute), "ls"); err != nil {
		t.Errorf("the first server: %v", err)
	}
}

func TestAClassWhoseImageIsMissingSaysSo(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "bailey.yaml")
	write(t, conf, "classes:\n  - {name: gone, image: nothere}\n")
	s, _ := server(t, "--config", conf)
	admin := start(t, s)
	_, err := admin.CLI(deadline(t, time.Minute), "run", "gone")
	if err == nil || !strings.Contains(err.Error(), "nothere") || !strings.Contains(err.Error(), "→") {
		t.Errorf("run of a class without image: %v; want the image's name and what to do", err)
	}
	out, err := admin.CLI(deadline(t, time.Minute), "ls", "-o", "json")
	if err != nil || strings.Contains(out, `"running"`) || strings.Contains(out, `"starting"`) {
		t.Errorf("afterwards the list is %q, %v", out, err)
	}
}

func TestAnInvalidConfigurationLeavesTheOldInForce(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "bailey.yaml")
	good := "classes:\n  - {name: one, image: notebook, memory: 1GiB}\n"
	write(t, conf, good)
	s, _ := server(t, "--config", conf)
	admin := start(t, s)
	ctx := deadline(t, time.Minute)
	classes := func() string {
		out, err := admin.CLI(ctx, "class", "ls", "-o", "name")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(out), " ")
	}
	if got := classes(); got != "one" {
		t.Fatalf("classes %q, want one", got)
	}
	write(t, conf, "classes:\n  - {name: two, image: notebook, memry: 1GiB}\n")
	_ = syscall.Kill(s.Pid(), syscall.SIGHUP)
	until(t, ctx, "the server to complain", func() bool { return strings.Contains(s.Log.String(), "memry") })
	if got := classes(); got != "one" {
		t.Errorf("with an invalid file: classes %q, want one", got)
	}
	write(t, conf, good+"  - {name: two, image: notebook, memory: 1GiB}\n")
	_ = syscall.Kill(s.Pid(), syscall.SIGHUP)
	until(t, ctx, "the corrected file to be in force", func() bool { return classes() == "one two" })
	out, err := admin.CLI(ctx, "audit", "search", "--action", "config.reload", "-o", "json")
	if err != nil || !strings.Contains(out, "invalid_config") || !strings.Contains(out, `"success"`) {
		t.Errorf("the journal of the reloads: %s, %v", out, err)
	}
}

func TestAFullDiskStopsSignInsAndLosesNothing(t *testing.T) {
	s, dir := server(t)
	mnt := filepath.Join(dir, "small")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", mnt, "tmpfs", 0, "size=96m,mode=0700"); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if err := syscall.Unmount(mnt, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	s.State = filepath.Join(mnt, "state")
	admin := start(t, s)
	ctx := deadline(t, 2*time.Minute)
	fill := filepath.Join(mnt, "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(make([]byte, 128<<20))
	f.Close()
	if err == nil {
		t.Fatal("the small disk never filled up")
	}
	// What was prepared in advance may take some sign-ins still; then they are
	// refused, and no session exists that the journal does not know.
	refused := false
	for range 200 {
		if err := s.Person("other", s.Admin).Login(ctx); err == nil {
			t.Fatal("an account that does not exist signed in")
		}
		if err := admin.Login(ctx); err != nil {
			refused = true
			if strings.Contains(err.Error(), "internal error") {
				t.Errorf("a full disk reads %v; want what to do", err)
			}
			break
		}
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	until(t, ctx, "sign-in to work again", func() bool { return admin.Login(ctx) == nil })
	if out, err := admin.CLI(ctx, "audit", "verify", "--state", s.State); err != nil {
		t.Errorf("the journal afterwards: %s %v", out, err)
	}
	t.Logf("sign-ins were refused while the disk was full: %v", refused)
}

// TestKilledDockerLosesNoWorkspace runs a Docker daemon of its own, so that the
// machine's is left alone, and kills it twice: with live-restore the same
// kernel answers afterwards, without it the workspace is started again.
func TestKilledDockerLosesNoWorkspace(t *testing.T) {
	for _, live := range []bool{true, false} {
		t.Run(fmt.Sprintf("live-restore=%v", live), func(t *testing.T) {
			s, dir := server(t)
			d := newDaemon(t, live)
			d.start(t)
			d.load(t, "notebook")
			s.Args = append(s.Args, "--docker-host", "unix://"+d.socket)
			_ = dir
			admin := start(t, s)
			ctx := deadline(t, 3*time.Minute)
			out, err := admin.CLI(ctx, "run", "notebook", "--name", "kept")
			if err != nil {
				t.Fatal(err)
			}
			remove(t, admin, "kept")
			base := strings.TrimSpace(out)
			k, err := admin.StartKernel(ctx, base)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.Run(ctx, "kept = 'memory'; open('kept.txt','w').write('disk')"); err != nil {
				t.Fatal(err)
			}
			d.kill(t)
			d.start(t)
			until(t, ctx, "the workspace to be served again", func() bool {
				status, _, err := admin.API(ctx, http.MethodGet, base+"api/contents/kept.txt", nil)
				return err == nil && status == http.StatusOK
			})
			if !live {
				return
			}
			ws, err := admin.Channels(ctx, base, k.ID)
			if err != nil {
				t.Fatal(err)
			}
			again := drive.Reconnect(k.ID, ws)
			defer again.Close()
			if got, err := again.Run(ctx, "print(kept)"); err != nil || got != "memory" {
				t.Errorf("the same kernel says %q, %v; want memory", got, err)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, ctx context.Context, what string, probe func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !probe() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited for %s in vain", what)
		case <-tick.C:
		}
	}
}

// A daemon is a Docker daemon of a test's own: own data, own socket, no
// bridge, no firewall rules.
type daemon struct {
	dir, socket string
	args        []string
	cmd         *exec.Cmd
	log         *os.File
}

func newDaemon(t *testing.T, live bool) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "bailey-dockerd-")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{dir: dir, socket: filepath.Join(dir, "docker.sock")}
	d.args = []string{
		"--host", "unix://" + d.socket, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
	}
	if live {
		d.args = append(d.args, "--live-restore")
	}
	if d.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.stop(t) })
	return d
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	// A killed daemon leaves pid files of itself and of its containerd, which
	// died with it; whoever is slow to reap them must not keep us waiting.
	_ = os.Remove(filepath.Join(d.dir, "pid"))
	_ = os.Remove(filepath.Join(d.dir, "exec", "containerd", "containerd.pid"))
	d.cmd = exec.Command("dockerd", d.args...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	// A network of its own: a daemon without a bridge would take the machine's away.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t, time.Minute)
	until(t, ctx, "dockerd to answer", func() bool { return d.docker("version").Run() == nil })
}

func (d *daemon) docker(args ...string) *exec.Cmd {
	cmd := exec.Command("docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.socket)
	return cmd
}

// load copies an image of the machine's daemon into this one.
func (d *daemon) load(t *testing.T, name string) {
	t.Helper()
	ids, err := exec.Command("docker", "images", "-q", "--no-trunc", "--filter", "label=dev.bailey.image="+name).Output()
	if err != nil || len(ids) == 0 {
		t.Fatalf("the machine's Docker has no image %s: %v", name, err)
	}
	save := exec.Command("docker", "save", strings.Fields(string(ids))[0])
	load := d.docker("load")
	var errs bytes.Buffer
	load.Stderr = &errs
	if load.Stdin, err = save.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := save.Start(); err != nil {
		t.Fatal(err)
	}
	if err := load.Run(); err != nil {
		t.Fatalf("load %s: %v: %s", name, err, errs.String())
	}
	if err := save.Wait(); err != nil {
		t.Fatal(err)
	}
}

func (d *daemon) kill(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
}

// stop removes every container, ends the daemon and the containerd it started,
// and deletes the data.
func (d *daemon) stop(t *testing.T) {
	if out, err := d.docker("ps", "-aq").Output(); err == nil {
		if ids := strings.Fields(string(out)); len(ids) > 0 {
			_ = d.docker(append([]string{"rm", "-f"}, ids...)...).Run()
		}
	}
	if d.cmd != nil && d.cmd.Process != nil {
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		_ = d.cmd.Wait()
	}
	if b, err := os.ReadFile(filepath.Join(d.dir, "exec", "containerd", "containerd.pid")); err == nil {
		var pid int
		if _, err := fmt.Sscan(string(b), &pid); err == nil && pid > 1 {
			if line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); bytes.Contains(line, []byte(d.dir)) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	d.log.Close()
	d.unmount()
	if err := os.RemoveAll(d.dir); err != nil {
		t.Logf("clean up %s: %v", d.dir, err)
	}
}

// unmount takes away what the daemon had mounted below its folder, deepest
// first.
func (d *daemon) unmount() {
	b, _ := os.ReadFile("/proc/self/mounts")
	var below []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], d.dir+"/") {
			below = append(below, f[1])
		}
	}
	slices.Sort(below)
	for _, m := range slices.Backward(below) {
		_ = syscall.Unmount(m, syscall.MNT_DETACH)
	}
}
