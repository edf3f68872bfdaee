package docker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
)

// The attack: somebody who has a workspace tries to get out of it, at the host,
// at a colleague, or at the network. Nothing of it may work, and what people
// need for their work must.
func TestNobodyGetsOut(t *testing.T) {
	b := newBench(t)
	e := b.engine(t)
	probe := build(t, "./testdata/probe")
	s := b.spec()
	id := b.start(t, e, s)
	colleague := b.spec()
	colleague.Name, colleague.UID = "bob", 20002
	b.start(t, e, colleague)
	give(t, e, s, probe)

	var targets []string
	for _, host := range append(hostAddresses(t), "169.254.169.254", "172.17.0.1", "127.0.0.1", "8.8.8.8", b.bridged(t)) {
		targets = append(targets, net.JoinHostPort(host, openPort(t)), net.JoinHostPort(host, "80"))
	}
	session, err := e.Exec(t.Context(), id, engine.ExecSpec{
		Cmd: []string{"/workspace/probe"},
		Env: []string{"TARGETS=" + strings.Join(targets, " "), "ABSTRACT=" + abstractSocket(t)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	go func() {
		// The test fails by the missing result; this says why.
		text := make([]byte, 4096)
		if n, _ := session.Stderr().Read(text); n > 0 {
			t.Logf("probe: %s", text[:n])
		}
	}()
	var got map[string]string
	if err := json.NewDecoder(session.Stdout()).Decode(&got); err != nil {
		code, waitErr := session.Wait(t.Context())
		t.Fatalf("read the probe's results: %v (exit %d, %v)", err, code, waitErr)
	}
	allowed, denied := 0, 0
	for _, name := range slices.Sorted(maps.Keys(got)) {
		may := strings.HasPrefix(name, "may ")
		if may != strings.HasPrefix(got[name], "allowed") || may && got[name] != "allowed" {
			t.Errorf("%s: %s", name, got[name])
		}
		if may {
			allowed++
		} else {
			denied++
		}
	}
	t.Logf("%d attempts denied, %d grants work", denied, allowed)
	if denied < 150 || allowed < 17 {
		t.Errorf("the probe made %d attempts and %d grants; some are missing", denied, allowed)
	}
	if _, code := run(t, e, id, "/bin/ls", filepath.Join(e.volumes.Name(), colleague.VolumeID)); code == 0 {
		t.Error("a colleague's volume is visible")
	}
	if found, err := e.Verify(t.Context(), id, s); err != nil || len(found) > 0 {
		t.Errorf("after the attack, Verify = %v, %v", found, err)
	}
}

// The probe can see: in a container as `docker run` makes it, it gets through
// dozens of walls. Without this, a probe that fails for reasons of its own would
// make every workspace look tight.
func TestTheProbeSeesHoles(t *testing.T) {
	b := newBench(t)
	probe := build(t, "./testdata/probe")
	made, err := b.api.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config: &container.Config{Image: b.image, Entrypoint: []string{"/probe/probe"}, Cmd: []string{}, Env: []string{"TARGETS=127.0.0.1:1", "ABSTRACT=@none"}},
		HostConfig: &container.HostConfig{
			Binds: []string{filepath.Dir(probe) + ":/probe:ro"}, CapAdd: []string{"NET_ADMIN"}, SecurityOpt: []string{"seccomp=unconfined"},
			Resources: container.Resources{Memory: 1 << 30},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.remove(t, made.ID) })
	if _, err := b.api.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	wait := b.api.ContainerWait(t.Context(), made.ID, client.ContainerWaitOptions{})
	select {
	case err := <-wait.Error:
		t.Fatal(err)
	case <-wait.Result:
	}
	logs, err := b.api.ContainerLogs(t.Context(), made.ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	var out, errOut bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &errOut, logs); err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("the probe wrote %q and %q: %v", out.String(), errOut.String(), err)
	}
	holes := 0
	for name, result := range got {
		if !strings.HasPrefix(name, "may ") && strings.HasPrefix(result, "allowed") {
			holes++
		}
	}
	t.Logf("%d holes", holes)
	if holes < 60 {
		t.Errorf("in an ordinary container the probe sees only %d holes: %v", holes, got)
	}
	for _, name := range []string{"setuid program", "create in /etc", "write /etc/passwd", "socket raw ip", "io_uring_setup", "socket alg", "unshare user", "keyctl", "read /proc/interrupts", "more processes than the limit"} {
		if !strings.HasPrefix(got[name], "allowed") {
			t.Errorf("in an ordinary container, %s: %s", name, got[name])
		}
	}
}

// give puts a program into a volume.
func give(t *testing.T, e *Engine, s engine.Spec, program string) {
	t.Helper()
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := openDirAt(e.volumes, s.VolumeID)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := writeFileAt(dir, filepath.Base(program), text, 0o755, s.UID); err != nil {
		t.Fatal(err)
	}
}

// hostAddresses are this machine's own.
func hostAddresses(t *testing.T) []string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			out = append(out, ip.IP.String())
		}
	}
	return out
}

// openPort listens on every address of the host and returns the port.
func openPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func abstractSocket(t *testing.T) string {
	t.Helper()
	name := "@bailey-attack-" + bailey.NewID()
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return name
}

// bridged starts a container of somebody else on Docker's bridge, where the
// daemon has one, and returns its address.
func (b *bench) bridged(t *testing.T) string {
	t.Helper()
	made, err := b.api.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config: &container.Config{Image: b.image, Entrypoint: []string{"/bin/sleep"}, Cmd: []string{"3600"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.remove(t, made.ID) })
	if _, err := b.api.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := b.api.ContainerInspect(t.Context(), made.ID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Container.NetworkSettings.Networks {
		if n.IPAddress.IsValid() {
			return n.IPAddress.String()
		}
	}
	return "172.17.0.2" // a daemon without a bridge: nothing is there to be reached
}

// A workspace that takes more memory than it has is killed, and that is seen.
func TestOutOfMemoryIsSeen(t *testing.T) {
	b := newBench(t)
	e := b.engine(t)
	s := b.spec()
	s.MemoryBytes, s.TmpBytes = 128<<20, 512<<20
	id := b.start(t, e, s)
	// Files in /tmp are memory: the kernel must stop this at the limit.
	_, code := run(t, e, id, "/bin/dd", "if=/dev/zero", "of=/tmp/fill", "bs=1048576", "count=400")
	if code == 0 {
		t.Fatal("400 MiB fit into a workspace of 128 MiB")
	}
	// The files stay, so the kernel goes on killing, the first process at last.
	var seen string
	within(t, func() bool {
		st, err := e.Inspect(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		u, err := e.Stats(t.Context(), id)
		seen = fmt.Sprintf("%+v, %+v, %v", st, u, err)
		return st.OOMKilled || u.OOMKills > 0
	}, func() { t.Errorf("no sign of the OOM kill: %s", seen) })
}

// within polls until ok; after 20 s it gives up.
func within(t *testing.T, ok func() bool, giveUp func()) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			giveUp()
			return
		case <-tick.C:
		}
	}
}

// kill -9 of bailey loses no workspace: the next process finds what runs.
func TestAnotherProcessTakesOver(t *testing.T) {
	b := newBench(t)
	e := b.engine(t)
	s := b.spec()
	id := b.start(t, e, s)
	// A second process of bailey takes over what the first began.
	again, err := New(Config{Instance: e.cfg.Instance, Root: e.cfg.Root, AgentPath: b.agent})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	list, err := again.List(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != id || !list[0].Running {
		t.Errorf("after a restart, List = %+v, %v", list, err)
	}
	if got, err := again.Create(t.Context(), s); err != nil || got != id {
		t.Errorf("after a restart, Create of the same run = %q, %v; want %q", got, err, id)
	}
	within(t, func() bool {
		conn, err := again.Dial(t.Context(), s.Run, s.UID, "tcp", engine.JupyterAddr)
		if err != nil {
			return false
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
		n, _ := conn.Read(make([]byte, 8))
		return n > 0
	}, func() { t.Error("after a restart, nobody answers") })
	if found, err := again.Verify(t.Context(), id, s); err != nil || len(found) > 0 {
		t.Errorf("after a restart, Verify = %v, %v", found, err)
	}
}

// An upgrade of bailey brings another agent and stops no workspace.
func TestAnUpgradeTakesOver(t *testing.T) {
	b := newBench(t)
	program, err := os.ReadFile(b.agent)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { //nolint:gosec // the tenant reads it
			t.Fatal(err)
		}
	}
	install := func(content []byte) string {
		t.Helper()
		path := filepath.Join(dir, AgentName(content))
		if err := os.WriteFile(path, content, 0o755); err != nil { //nolint:gosec // an agent
			t.Fatal(err)
		}
		return path
	}
	before := b.engine(t)
	old, err := New(Config{Instance: before.cfg.Instance, Root: before.cfg.Root, AgentPath: install(program)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = old.Close() }) // after what the run needs of it
	s := b.spec()
	id := b.start(t, old, s)
	upgraded, err := New(Config{Instance: before.cfg.Instance, Root: before.cfg.Root, AgentPath: install(append(program, 0))})
	if err != nil {
		t.Fatal(err)
	}
	defer upgraded.Close()
	if found, err := upgraded.Verify(t.Context(), id, s); err != nil || len(found) > 0 {
		t.Errorf("after an upgrade, Verify = %v, %v", found, err)
	}
	// An agent that is not what its name says is none of ours.
	if err := os.WriteFile(old.cfg.AgentPath, append(program, 1), 0o755); err != nil { //nolint:gosec // an agent
		t.Logf("a program that runs cannot be written to (%v): put another in its place", err)
		if err := os.Remove(old.cfg.AgentPath); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(old.cfg.AgentPath, append(program, 1), 0o755); err != nil { //nolint:gosec // an agent
			t.Fatal(err)
		}
	}
	if found, err := upgraded.Verify(t.Context(), id, s); err != nil || len(found) == 0 {
		t.Errorf("with another agent than its name says, Verify = %v, %v; want a finding", found, err)
	}
}
