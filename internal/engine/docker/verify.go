package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/engine"
)

// findings collects differences.
type findings []engine.Finding

// want notes a finding unless both are the same.
func (f *findings) want(control, want, got string) {
	if want != got {
		*f = append(*f, engine.Finding{Control: control, Want: want, Got: clip(got)})
	}
}

// clip keeps a finding readable whatever a tenant or a daemon put in it.
func clip(s string) string {
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// Verify implements [engine.Engine]. It believes neither side alone: the
// daemon is asked what it was told, and the kernel what really holds for the
// container's first process.
func (e *Engine) Verify(ctx context.Context, id string, s engine.Spec) ([]engine.Finding, error) {
	s = s.Defaulted()
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("verify container %s: %w", id, err)
	}
	c, err := e.own(ctx, id)
	if err != nil {
		return nil, err
	}
	if !c.State.Running || c.State.Pid <= 0 {
		return nil, fmt.Errorf("verify container %s: it is not running: %w", c.ID, engine.ErrConflict)
	}
	found, err := e.verify(ctx, c, s)
	if err != nil {
		return nil, fmt.Errorf("verify container %s: %w", c.ID, err)
	}
	return found, nil
}

func (e *Engine) verify(ctx context.Context, c container.InspectResponse, s engine.Spec) ([]engine.Finding, error) {
	img, err := e.resolve(ctx, s.Image)
	if err != nil {
		return nil, err
	}
	facts, err := e.factsFor(ctx, s, img)
	if err != nil {
		return nil, err
	}
	facts.AgentPath = e.agentOf(c)
	var f findings
	f.inspect(c, s, facts)
	// Everything below is read through this descriptor. If the process ends, the
	// reads fail; they can never show another process with the same number.
	proc, err := os.Open("/proc/" + strconv.Itoa(c.State.Pid))
	if err != nil {
		return nil, err
	}
	defer proc.Close() //nolint:errcheck // a directory
	again, err := e.own(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	if !again.State.Running || again.State.Pid != c.State.Pid || again.State.StartedAt != c.State.StartedAt {
		return nil, fmt.Errorf("it was restarted meanwhile: %w", engine.ErrConflict)
	}
	err = errors.Join(f.process(proc, s), f.namespaces(proc), f.mounts(proc, s, facts), f.limits(c, s, facts))
	if err != nil {
		return nil, err
	}
	return f, nil
}

// inspect compares what the daemon holds with what it was told.
func (f *findings) inspect(c container.InspectResponse, s engine.Spec, facts facts) {
	want := compileDocker(s, facts)
	f.want("image", facts.ImageID, c.Image)
	for name, value := range want.Config.Labels {
		f.want("label "+name, value, c.Config.Labels[name])
	}
	f.want("user", want.Config.User, c.Config.User)
	f.want("command", commandLine(want.Config.Entrypoint, want.Config.Cmd), commandLine([]string{c.Path}, c.Args))
	f.env(c.Config.Env, s, cdiHasAll(facts.CDI, s.GPUs))
	f.security(c, want.Host)
	f.spaces(c, want.Host)
	f.resources(c.HostConfig, want.Host)
	f.gpus(c.HostConfig, s)
	f.daemonMounts(c, want.Host)
}

func commandLine(parts ...[]string) string { return strings.Join(slices.Concat(parts...), " ") }

// env makes sure that what the profile sets stands as it was set, and that
// nothing that may not be there came along with the image.
func (f *findings) env(env []string, s engine.Spec, injected bool) {
	got := map[string]string{}
	for _, kv := range env {
		name, value, set := strings.Cut(kv, "=")
		if !set {
			continue // taken out by the daemon
		}
		if _, twice := got[name]; twice {
			f.want("environment "+clip(name), "set once", "set twice")
		}
		got[name] = value
	}
	for _, kv := range s.ProfileEnv(injected) {
		name, value, _ := strings.Cut(kv, "=")
		f.want("environment "+name, value, got[name])
		delete(got, name)
	}
	for name := range got {
		if !engine.ImageEnvKept(name) {
			f.want("environment "+clip(name), "absent", "set")
		}
	}
}

func (f *findings) security(c container.InspectResponse, want container.HostConfig) {
	h := c.HostConfig
	f.want("privileged", "false", strconv.FormatBool(h.Privileged))
	f.want("capabilities dropped", list(want.CapDrop), list(h.CapDrop))
	f.want("capabilities added", "", list(h.CapAdd))
	f.want("groups added", "", list(h.GroupAdd))
	f.want("read-only root", "true", strconv.FormatBool(h.ReadonlyRootfs))
	f.want("masked paths", list(want.MaskedPaths), list(h.MaskedPaths))
	f.want("read-only paths", list(want.ReadonlyPaths), list(h.ReadonlyPaths))
	opts := map[string]string{}
	for _, opt := range h.SecurityOpt {
		name, value, ok := strings.Cut(opt, "=")
		if !ok {
			name, value, _ = strings.Cut(opt, ":")
		}
		opts[name] = value
	}
	f.want("no-new-privileges option", "true", opts["no-new-privileges"])
	if opts["seccomp"] != engine.Seccomp() {
		f.want("seccomp option", engine.ProfileVersion, "another filter")
	}
	if profile, named := opts["apparmor"]; named || c.AppArmorProfile != "" {
		// Ours, or the daemon's own where ours is not loaded.
		ok := profile == appArmorProfile || !named && c.AppArmorProfile != "unconfined"
		f.want("apparmor", "true", strconv.FormatBool(ok))
	}
	for _, known := range []string{"no-new-privileges", "seccomp", "apparmor"} {
		delete(opts, known)
	}
	f.want("other security options", "", list(slices.Collect(maps.Keys(opts))))
}

// spaces compares namespaces, network and what could open them.
func (f *findings) spaces(c container.InspectResponse, want container.HostConfig) {
	h := c.HostConfig
	p := engine.Strict()
	network := string(want.NetworkMode)
	f.want("network mode", network, string(h.NetworkMode))
	f.want("pid mode", "", string(h.PidMode))
	f.want("ipc mode", p.IPC, string(h.IpcMode))
	f.want("uts mode", "", string(h.UTSMode))
	f.want("user namespace mode", "", string(h.UsernsMode))
	f.want("cgroup namespace mode", p.CgroupNS, string(h.CgroupnsMode))
	f.want("cgroup", "", string(h.Cgroup))
	f.want("cgroup parent", "", h.CgroupParent)
	f.want("published ports", "0", strconv.Itoa(len(h.PortBindings)))
	f.want("publish all ports", "false", strconv.FormatBool(h.PublishAllPorts))
	f.want("links", "", list(h.Links))
	f.want("sysctls", "", list(slices.Collect(maps.Keys(h.Sysctls))))
	f.want("restart policy", string(container.RestartPolicyDisabled), string(h.RestartPolicy.Name))
	f.want("daemon's init", "false", strconv.FormatBool(h.Init != nil && *h.Init))
	if c.NetworkSettings != nil {
		f.want("networks", network, list(slices.Collect(maps.Keys(c.NetworkSettings.Networks))))
		published := 0
		for _, at := range c.NetworkSettings.Ports { // an image may name ports that nobody publishes
			published += len(at)
		}
		f.want("ports", "0", strconv.Itoa(published))
	}
}

func (f *findings) resources(h *container.HostConfig, want container.HostConfig) {
	n := func(control string, want, got int64) {
		f.want(control, strconv.FormatInt(want, 10), strconv.FormatInt(got, 10))
	}
	n("memory", want.Memory, h.Memory)
	if h.MemorySwap != -1 { // -1: a kernel that cannot limit swap; see limits
		n("memory and swap", want.MemorySwap, h.MemorySwap)
	}
	n("cpu", want.NanoCPUs, h.NanoCPUs)
	n("cpu shares", want.CPUShares, h.CPUShares)
	n("size of /dev/shm", want.ShmSize, h.ShmSize)
	pids := int64(0)
	if h.PidsLimit != nil {
		pids = *h.PidsLimit
	}
	n("pids", *want.PidsLimit, pids)
	f.want("oom kill disabled", "false", strconv.FormatBool(h.OomKillDisable != nil && *h.OomKillDisable))
	f.want("ulimits", ulimits(want.Ulimits), ulimits(h.Ulimits))
	f.want("log driver", want.LogConfig.Type, h.LogConfig.Type)
	for name, value := range want.LogConfig.Config {
		f.want("log "+name, value, h.LogConfig.Config[name])
	}
}

func ulimits(us []*container.Ulimit) string {
	var out []string
	for _, u := range us {
		out = append(out, fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard))
	}
	return list(out)
}

// gpus compares the cards, by UUID, in whichever way they were asked for.
func (f *findings) gpus(h *container.HostConfig, s engine.Spec) {
	var got []string
	for _, r := range h.DeviceRequests {
		if r.Count != 0 {
			f.want("gpu count", "0", strconv.Itoa(r.Count))
		}
		for _, id := range r.DeviceIDs {
			got = append(got, strings.TrimPrefix(id, cdiKind))
		}
	}
	f.want("gpus", list(s.GPUs), list(got))
	f.want("devices", "0", strconv.Itoa(len(h.Devices)))
	f.want("device rules", "", list(h.DeviceCgroupRules))
	if len(s.GPUs) == 0 {
		f.want("nvidia runtime", "false", strconv.FormatBool(h.Runtime == "nvidia"))
	}
}

// daemonMounts compares the mounts that the daemon says it made.
func (f *findings) daemonMounts(c container.InspectResponse, want container.HostConfig) {
	line := func(target, source string, rw bool, kind mount.Type) string {
		return fmt.Sprintf("%s %s from %s writable=%t", kind, target, source, rw)
	}
	var wanted, got []string
	for _, m := range want.Mounts {
		wanted = append(wanted, line(m.Target, m.Source, !m.ReadOnly, m.Type))
	}
	for _, m := range c.Mounts {
		got = append(got, line(m.Destination, m.Source, m.RW, m.Type))
		if m.Propagation != mount.PropagationRPrivate {
			f.want("propagation of "+clip(m.Destination), string(mount.PropagationRPrivate), string(m.Propagation))
		}
	}
	for _, m := range wanted {
		f.want("mounts", m, pick(got, m))
	}
	for _, m := range got {
		if !slices.Contains(wanted, m) {
			f.want("mounts", "", m)
		}
	}
	f.want("binds", "", list(c.HostConfig.Binds))
	f.want("volumes from", "", list(c.HostConfig.VolumesFrom))
	for _, path := range slices.Sorted(maps.Keys(want.Tmpfs)) {
		f.want("tmpfs "+path, want.Tmpfs[path], c.HostConfig.Tmpfs[path])
	}
	for path := range c.HostConfig.Tmpfs {
		if _, ok := want.Tmpfs[path]; !ok {
			f.want("tmpfs "+clip(path), "absent", "mounted")
		}
	}
}

func pick(all []string, one string) string {
	if slices.Contains(all, one) {
		return one
	}
	return "absent"
}

func list(ss []string) string { return strings.Join(slices.Sorted(slices.Values(ss)), ", ") }

// process reads what the kernel says of the first process: no capability in any
// set, no new privileges, a filter, and the tenant's numbers only. Seccomp and
// no_new_privs are inherited and cannot be taken off, so what holds for the
// first process holds for all of them.
func (f *findings) process(proc *os.File, s engine.Spec) error {
	text, err := readProc(proc, "status")
	if err != nil {
		return err
	}
	return f.status(text, s.UID)
}

// status is process on the text of /proc/<pid>/status.
func (f *findings) status(text []byte, uid int) error {
	fields := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	id := strconv.Itoa(uid)
	for _, want := range []struct{ field, control, value string }{
		{"Uid", "uid", strings.Join([]string{id, id, id, id}, " ")},
		{"Gid", "gid", strings.Join([]string{id, id, id, id}, " ")},
		{"CapInh", "inheritable capabilities", noCaps},
		{"CapPrm", "permitted capabilities", noCaps},
		{"CapEff", "effective capabilities", noCaps},
		{"CapBnd", "bounding capabilities", noCaps},
		{"CapAmb", "ambient capabilities", noCaps},
		{"NoNewPrivs", "no-new-privileges", "1"},
		{"Seccomp", "seccomp", "2"},
	} {
		got, ok := fields[want.field]
		if !ok {
			return fmt.Errorf("the kernel does not tell %s", want.field)
		}
		f.want(want.control, want.value, got)
	}
	if groups := fields["Groups"]; groups != id {
		f.want("groups", "", groups)
	}
	return nil
}

const noCaps = "0000000000000000"

// namespaces makes sure that the container shares none with the host, neither
// with its first process nor with us.
func (f *findings) namespaces(proc *os.File) error {
	for _, kind := range []string{"net", "pid", "ipc", "uts", "mnt", "cgroup"} {
		own, err := readLinkAt(proc, "ns/"+kind)
		if kind == "cgroup" && errors.Is(err, os.ErrNotExist) {
			continue // a kernel before 4.6
		}
		if err != nil {
			return err
		}
		for _, host := range []string{"/proc/1/ns/", "/proc/self/ns/"} {
			other, err := os.Readlink(host + kind)
			if errors.Is(err, os.ErrPermission) && host == "/proc/1/ns/" {
				continue // a host inside a virtual machine's container hides its own first process
			}
			if err != nil {
				return err
			}
			if own == other {
				f.want(kind+" namespace", "its own", "the host's")
				break
			}
		}
	}
	return nil
}

// limits reads the numbers that the kernel enforces.
func (f *findings) limits(c container.InspectResponse, s engine.Spec, facts facts) error {
	g, err := readCgroups(c.State.Pid, c.ID)
	if err != nil {
		return err
	}
	memory, err := g.number("memory", "memory.limit_in_bytes", "memory.max")
	if err != nil {
		return fmt.Errorf("read memory limit: %w", err)
	}
	pageRounded := s.MemoryBytes &^ int64(os.Getpagesize()-1)
	f.want("memory limit", strconv.FormatInt(pageRounded, 10), strconv.FormatInt(memory, 10))
	pids, err := g.number("pids", "pids.max", "pids.max")
	if err != nil {
		return fmt.Errorf("read pids limit: %w", err)
	}
	f.want("pids limit", strconv.FormatInt(s.Pids, 10), strconv.FormatInt(pids, 10))
	cpu, err := g.cpuMillis()
	if err != nil {
		return fmt.Errorf("read cpu limit: %w", err)
	}
	wantCPU := compileDocker(s, facts).Host.NanoCPUs / 1_000_000
	f.want("cpu limit", strconv.FormatInt(wantCPU, 10), strconv.FormatInt(cpu, 10))
	if err := f.swapLimit(g, pageRounded); err != nil {
		return err
	}
	return f.deviceRules(g, len(s.GPUs) > 0)
}

// swapLimit makes sure that there is no swap to use: by limit, or because the
// host has none.
func (f *findings) swapLimit(g cgroups, memory int64) error {
	want := memory // v1 counts memory and swap together
	if g.unified != "" {
		want = 0
	}
	swap, err := g.number("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
	if errors.Is(err, os.ErrNotExist) {
		if hostHasSwap() {
			f.want("swap limit", "a limit", "none: the kernel does not account swap")
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read swap limit: %w", err)
	}
	f.want("swap limit", strconv.FormatInt(want, 10), strconv.FormatInt(swap, 10))
	return nil
}

// deviceRules reads which devices may be opened. Only cgroup v1 tells; on v2
// the rules are a program in the kernel, and /dev is what the daemon made.
func (f *findings) deviceRules(g cgroups, gpus bool) error {
	if g.unified != "" {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(g.v1["devices"], "devices.list"))
	if err != nil {
		return fmt.Errorf("read device rules: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		rule := strings.TrimSpace(line)
		if !deviceRuleFits(rule, gpus) {
			f.want("device rules in force", "", rule)
		}
	}
	return nil
}

// deviceRuleFits reports whether a device rule is one that the runtime gives
// every container, or an NVIDIA device's in one that leases GPUs. Making nodes
// (only "m") gives nothing without the capability to.
func deviceRuleFits(rule string, gpus bool) bool {
	fields := strings.Fields(rule)
	if len(fields) != 3 {
		return false
	}
	if fields[2] == "m" {
		return true
	}
	dev := fields[0] + " " + fields[1]
	if slices.Contains([]string{
		"c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", // null, zero, full, random, urandom
		"c 5:0", "c 5:1", "c 5:2", "c 136:*", // terminals of its own
		"c 10:200", // /dev/net/tun, from the runtime; there is no node of it and no capability to use it
	}, dev) {
		return true
	}
	major, _, _ := strings.Cut(fields[1], ":")
	return gpus && fields[0] == "c" && isNVIDIAMajor(major)
}

// isNVIDIAMajor reports whether the kernel gave a character device number to
// NVIDIA: 195, and the ones /proc/devices lists by name.
func isNVIDIAMajor(major string) bool {
	if major == "195" {
		return true
	}
	text, err := os.ReadFile("/proc/devices")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == major && strings.HasPrefix(fields[1], "nvidia") {
			return true
		}
	}
	return false
}

// readProc reads a file of the process behind proc.
func readProc(proc *os.File, name string) ([]byte, error) {
	fd, err := unix.Openat(int(proc.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: proc.Name() + "/" + name, Err: err}
	}
	f := os.NewFile(uintptr(fd), proc.Name()+"/"+name)
	defer f.Close() //nolint:errcheck // read only
	return io.ReadAll(io.LimitReader(f, 4<<20))
}

func readLinkAt(dir *os.File, name string) (string, error) {
	buf := make([]byte, 256)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: dir.Name() + "/" + name, Err: err}
	}
	return string(buf[:n]), nil
}
