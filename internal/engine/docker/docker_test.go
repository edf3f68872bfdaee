package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/engine/enginetest"
	"github.com/baileyhq/bailey/internal/secret"
)

// needDocker skips a test that needs a real Docker Engine.
func needDocker(t *testing.T) {
	t.Helper()
	if os.Getenv("BAILEY_TEST_DOCKER") != "1" {
		t.Skip("needs Docker: set BAILEY_TEST_DOCKER=1")
	}
}

// build compiles one of testdata's programs, statically, once per test run.
func build(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, text)
	}
	if err := os.Chmod(out, 0o755); err != nil {
		t.Fatal(err)
	}
	return out
}

// bench is what all cases of one test share: the image and the agent.
type bench struct {
	api   *client.Client
	image string
	agent string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	needDocker(t)
	api, err := client.New(client.WithHost(DefaultHost))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { api.Close() })
	return &bench{api: api, image: importBusybox(t, api), agent: build(t, "./testdata/agent")}
}

// importBusybox makes the smallest image that has a shell, with an environment
// that is as bad as an image's can be.
func importBusybox(t *testing.T, api *client.Client) string {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("the test image is made from busybox-static: %v", err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "etc", "run", "var", "workspace", "opt"} {
		put(tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	for _, dir := range []string{"tmp", "var/tmp"} { // runc before 1.2 gives a tmpfs the mode of what lies under it
		put(tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	}
	put(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o4755}, program) // setuid root, on purpose
	for _, name := range []string{"sh", "cat", "echo", "id", "env", "pwd", "stty", "sleep", "ln", "rm", "kill", "ls", "mkdir", "dd", "tail", "head"} {
		put(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	put(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0::/:/bin/sh\nevil:x:20001:0::/:/bin/sh\n"))
	put(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\ndocker:x:999:evil\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tag := "bailey-engine-test:" + bailey.NewID()
	result, err := api.ImageImport(t.Context(), client.ImageImportSource{Source: &b, SourceName: "-"}, tag, client.ImageImportOptions{Changes: []string{
		"LABEL dev.bailey.image=enginetest", "USER 0:0", "ENTRYPOINT [\"/bin/false\"]", "CMD [\"x\"]", "WORKDIR /opt", "EXPOSE 80",
		"ENV PATH=/bin NVIDIA_VISIBLE_DEVICES=all NVIDIA_REQUIRE_CUDA=x LD_PRELOAD=/evil.so HOME=/root BAILEY_TOKEN=x LANG=C.UTF-8",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, result); err != nil {
		t.Fatal(err)
	}
	found, err := api.ImageInspect(t.Context(), tag)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := api.ImageRemove(context.WithoutCancel(t.Context()), tag, client.ImageRemoveOptions{Force: true}); err != nil {
			t.Errorf("remove test image: %v", err)
		}
	})
	return found.ID
}

// engine makes an installation of its own, with a state directory so deep that
// no socket address would hold its paths.
func (b *bench) engine(t *testing.T) *Engine {
	t.Helper()
	root := filepath.Join(t.TempDir(), strings.Repeat("deep", 20), "state")
	e, err := New(Config{Instance: bailey.NewID(), Root: root, AgentPath: b.agent, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

// shell spells the suite's tools for busybox.
func shell(tool string, args ...string) []string {
	script := map[string]string{
		"print": `echo "$1"`, "warn": `echo "$1" >&2`, "cat": `exec cat`, "exit": `exit "$1"`, "env": `eval echo \$$1`, "pwd": `pwd`,
		"whoami": `id -u`, "size": `while read x; do stty size; done`, "hang": `exec sleep 3600`,
	}[tool]
	return append([]string{"/bin/sh", "-c", script, tool}, args...)
}

func (b *bench) harness(t *testing.T) *enginetest.Harness {
	t.Helper()
	e, other := b.engine(t), b.engine(t)
	return &enginetest.Harness{
		Engine: e, Other: other, Image: b.image, EchoPath: "/tmp/echo.sock", Command: shell,
		Foreign: func(t *testing.T) string {
			t.Helper()
			return b.foreign(t, container.Config{Cmd: []string{"/bin/sleep", "3600"}})
		},
		ForeignLives: func(t *testing.T, id string) bool {
			t.Helper()
			c, err := b.api.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
			return err == nil && c.Container.State.Running
		},
		Plant: func(t *testing.T, s engine.Spec, kind string) {
			t.Helper()
			plant(t, e, s, kind)
		},
		Tamper: func(t *testing.T, id string) {
			t.Helper()
			raisePids(t, e, id)
		},
		Crash: func(t *testing.T, id string, code int) {
			t.Helper()
			b.crash(t, id, code)
		},
		Volume: func(t *testing.T, id string) (int, bool, bool) {
			t.Helper()
			st, err := statAt(e.volumes, id)
			return int(st.Uid), st.Mode&0o777 == 0o700, err == nil
		},
		RunFiles: func(t *testing.T, run string) bool {
			t.Helper()
			_, err := statAt(e.runs, run)
			return err == nil
		},
	}
}

// foreign starts a container that is nobody's of ours.
func (b *bench) foreign(t *testing.T, cfg container.Config) string {
	t.Helper()
	cfg.Image, cfg.Entrypoint = b.image, []string{}
	made, err := b.api.ContainerCreate(t.Context(), client.ContainerCreateOptions{Config: &cfg, HostConfig: &container.HostConfig{NetworkMode: "none"}})
	if err == nil {
		t.Cleanup(func() { b.remove(t, made.ID) })
		_, err = b.api.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return made.ID
}

func (b *bench) remove(t *testing.T, id string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if _, err := b.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
		t.Errorf("remove test container: %v", err)
	}
}

func (b *bench) crash(t *testing.T, id string, code int) {
	t.Helper()
	signal := map[int]string{3: "USR1", 1: "USR2"}[code]
	if _, err := b.api.ContainerKill(t.Context(), id, client.ContainerKillOptions{Signal: signal}); err != nil || signal == "" {
		t.Fatalf("crash with %d: %v", code, err)
	}
}

// plant does to a run's socket what a tenant, or a mistake on the host, could do.
func plant(t *testing.T, e *Engine, s engine.Spec, kind string) {
	t.Helper()
	dir := filepath.Join(e.runs.Name(), s.Run, sockDir)
	path := filepath.Join(dir, "agent.sock")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	listen := func() {
		// By way of the descriptor: the path is too long for an address.
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/agent.sock", d.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	var err error
	switch kind {
	case enginetest.SocketAbsent:
	case enginetest.SocketLink:
		err = os.Symlink("/var/run/docker.sock", path)
	case enginetest.SocketFile:
		err = errors.Join(os.WriteFile(path, nil, 0o777), os.Chown(path, s.UID, s.UID))
	case enginetest.SocketForeign:
		listen()
	case enginetest.SocketPeer:
		listen()
		err = os.Chown(path, s.UID, s.UID)
	default:
		t.Fatalf("plant %q", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// raisePids lifts a limit behind everybody's back.
func raisePids(t *testing.T, e *Engine, id string) {
	t.Helper()
	c, err := e.own(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	g, err := readCgroups(c.State.Pid, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	dir := g.unified
	if dir == "" {
		dir = g.v1["pids"]
	}
	if err := os.WriteFile(filepath.Join(dir, "pids.max"), []byte("max"), 0); err != nil {
		t.Fatal(err)
	}
}

func TestDockerConforms(t *testing.T) {
	b := newBench(t)
	enginetest.Run(t, b.harness)
}

// spec is a small Spec for the tests of this file.
func (b *bench) spec() engine.Spec {
	return engine.Spec{
		Run: bailey.NewID(), Workspace: bailey.NewID(), Owner: bailey.NewID(), Name: "alice", Class: "small", Image: b.image,
		UID: 20001, VolumeID: bailey.NewID(), CPUMillis: 500, MemoryBytes: 256 << 20, ShmBytes: 32 << 20, TmpBytes: 64 << 20,
		Pids: 256, JupyterToken: secret.Random(24), StopGrace: 2 * time.Second,
	}
}

// start makes and starts a container, and removes it with the test.
func (b *bench) start(t *testing.T, e *Engine, s engine.Spec) string {
	t.Helper()
	id, err := e.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := errors.Join(e.Remove(ctx, id), e.RemoveVolume(ctx, s.VolumeID)); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if err := e.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

// run executes a command and returns what it wrote.
func run(t *testing.T, e *Engine, id string, cmd ...string) (stdout string, code int) {
	t.Helper()
	session, err := e.Exec(t.Context(), id, engine.ExecSpec{Cmd: cmd})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	var out, errOut bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(&out, session.Stdout()) })
	wg.Go(func() { io.Copy(&errOut, session.Stderr()) })
	wg.Wait()
	code, err = session.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if errOut.Len() > 0 {
		t.Logf("%s: %s", strings.Join(cmd, " "), errOut.String())
	}
	return out.String(), code
}

// What an image brings cannot reach through: neither its environment, nor its
// entry point, user, setuid files, or groups.
func TestHostileImageInside(t *testing.T) {
	b := newBench(t)
	e := b.engine(t)
	s := b.spec()
	id := b.start(t, e, s)
	env, _ := run(t, e, id, "/bin/env")
	vars := map[string]string{}
	for line := range strings.Lines(env) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		vars[name] = value
	}
	for name, want := range map[string]string{
		"NVIDIA_VISIBLE_DEVICES": "void", "HOME": "/workspace", "USER": "alice", "PATH": "/bin", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1",
	} {
		if vars[name] != want {
			t.Errorf("inside, %s=%q, want %q", name, vars[name], want)
		}
	}
	for _, gone := range []string{"LD_PRELOAD", "NVIDIA_REQUIRE_CUDA", "BAILEY_TOKEN"} {
		if value, ok := vars[gone]; ok {
			t.Errorf("inside, %s=%q came through from the image", gone, value)
		}
	}
	if who, _ := run(t, e, id, "/bin/id"); strings.TrimSpace(who) != "uid=20001(alice) gid=20001(alice) groups=20001(alice)" &&
		strings.TrimSpace(who) != "uid=20001(alice) gid=20001(alice)" {
		t.Errorf("id says %q", who)
	}
	if text, code := run(t, e, id, "/bin/cat", "/etc/passwd"); code != 0 || strings.Contains(text, "evil") || !strings.Contains(text, "alice:x:20001:20001:") {
		t.Errorf("/etc/passwd inside (code %d): %s", code, text)
	}
	if token, _ := run(t, e, id, "/bin/cat", engine.TokenFile); token != s.JupyterToken.Reveal() {
		t.Error("the token inside is not the run's")
	}
	logs, err := e.Logs(t.Context(), id, 10, 1000)
	if err != nil || string(logs) != "agent ready\n" {
		t.Errorf("Logs = %q, %v", logs, err)
	}
}

// A container with our labels but not our making: whoever can do that is root
// already, but Verify must name everything that is wrong with it.
func TestVerifyNamesEverything(t *testing.T) {
	b := newBench(t)
	e := b.engine(t)
	s := b.spec()
	id, err := e.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(e.Remove(context.WithoutCancel(t.Context()), id), e.RemoveVolume(context.WithoutCancel(t.Context()), s.VolumeID)); err != nil {
			t.Error(err)
		}
	}()
	genuine, err := e.own(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	// Take its place under the same name and labels.
	if err := e.makeRunDir(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := b.api.ContainerRemove(t.Context(), id, client.ContainerRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	cfg := *genuine.Config
	cfg.Hostname = ""
	cfg.User, cfg.Entrypoint, cfg.Cmd = "0:0", []string{"/bin/sleep"}, []string{"3600"}
	cfg.Env = append(cfg.Env, "LD_PRELOAD=/evil.so", "NVIDIA_VISIBLE_DEVICES=all")
	pids := int64(-1)
	made, err := b.api.ContainerCreate(t.Context(), client.ContainerCreateOptions{Config: &cfg, Name: strings.TrimPrefix(genuine.Name, "/"), HostConfig: &container.HostConfig{
		PidMode: "host", IpcMode: "host", NetworkMode: "host", UTSMode: "host", Binds: []string{"/:/host", "/var/run/docker.sock:/var/run/docker.sock"},
		CapAdd: []string{"SYS_ADMIN"}, SecurityOpt: []string{"seccomp=unconfined"}, RestartPolicy: container.RestartPolicy{Name: "always"},
		Resources: container.Resources{PidsLimit: &pids, Memory: 512 << 20},
	}})
	if err != nil {
		t.Fatal(err)
	}
	id = made.ID
	if _, err := b.api.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	found, err := e.Verify(t.Context(), made.ID, s)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, finding := range found {
		got[finding.Control] = true
	}
	for _, want := range []string{
		"user", "command", "capabilities added", "capabilities dropped", "read-only root", "seccomp option", "no-new-privileges option",
		"network mode", "pid mode", "ipc mode", "uts mode", "restart policy", "memory", "pids", "cpu", "masked paths", "mounts", "binds", "ulimits", "log driver",
		"environment LD_PRELOAD", "environment NVIDIA_VISIBLE_DEVICES",
		"uid", "gid", "effective capabilities", "bounding capabilities", "permitted capabilities", "no-new-privileges", "seccomp",
		"net namespace", "pid namespace", "ipc namespace", "uts namespace", "memory limit", "pids limit", "cpu limit",
		"mount /", "mount /workspace", "mount /host", "mount /proc/interrupts",
	} {
		if !got[want] {
			t.Errorf("no finding about %q", want)
		}
	}
	if t.Failed() {
		for _, finding := range found {
			t.Logf("%+v", finding)
		}
	}
}

// Somebody renames a workspace's container: it stays ours, or a GPU that it
// still holds would be leased to the next.
func TestRenamedContainerStaysOurs(t *testing.T) {
	b := newBench(t)
	e := b.engine(t)
	s := b.spec()
	id := b.start(t, e, s)
	if _, err := b.api.ContainerRename(t.Context(), id, client.ContainerRenameOptions{NewName: "renamed-" + s.Run}); err != nil {
		t.Fatal(err)
	}
	list, err := e.List(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != id {
		t.Errorf("List = %+v, %v; want the renamed container", list, err)
	}
	if _, err := e.Create(t.Context(), s); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("Create of the same run = %v, want %v: there must not be two", err, engine.ErrConflict)
	}
}

// An image may carry our label. A container that somebody makes of it is theirs.
func TestLabelledContainerOfSomebodyElse(t *testing.T) {
	b := newBench(t)
	e := b.engine(t)
	id := b.foreign(t, container.Config{Cmd: []string{"/bin/sleep", "3600"}, Labels: map[string]string{
		labelInstance: e.cfg.Instance, labelRun: "../../x", labelName: "alice", labelUID: "0",
	}})
	if list, err := e.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("List = %+v, %v; want nothing", list, err)
	}
	if err := e.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := e.Stop(t.Context(), id); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Stop = %v, want %v", err, engine.ErrNotFound)
	}
	if c, err := b.api.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{}); err != nil || !c.Container.State.Running {
		t.Errorf("the container of somebody else is gone or stopped: %v", err)
	}
}
