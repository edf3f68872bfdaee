package docker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/baileyhq/bailey/internal/engine"
)

// Labels on every container of ours. Those of the image are merged in by the
// daemon but cannot override them, and images that try are refused.
const (
	labelPrefix    = "dev.bailey."
	labelInstance  = labelPrefix + "instance"
	labelRun       = labelPrefix + "run"
	labelWorkspace = labelPrefix + "workspace"
	labelOwner     = labelPrefix + "owner"
	labelName      = labelPrefix + "name"
	labelClass     = labelPrefix + "class"
	labelUID       = labelPrefix + "uid"
	labelSpec      = labelPrefix + "spec"
	labelProfile   = labelPrefix + "profile"
)

// facts is what a container depends on beside its Spec: the host, the daemon,
// the resolved image and our own paths.
type facts struct {
	Instance  string
	AgentPath string // host path of the agent
	RunDir    string // host path of the run's directory
	VolumeDir string // host path of the volume

	ImageID  string   // what Spec.Image resolved to
	ImageEnv []string // "NAME=value", as the image brings it

	CPUs         int      // of the host: the daemon refuses more
	ThrottleCPUs []int    // cores with a thermal_throttle directory to mask
	AppArmor     string   // profile to name; empty: the daemon's choice
	Runtime      string   // runtime to name; empty: the daemon's default
	CDI          []string // devices the daemon can inject, "nvidia.com/gpu=…"
	SwapLimit    bool     // the kernel can limit swap
	Bridge       string   // name of our own Docker network, for Specs of mode bridge
	MaxFiles     int64    // open files the daemon can grant at most; 0: any number
	UsernsRemap  bool
}

// compiled is what the daemon is asked to create.
type compiled struct {
	Name   string
	Config container.Config
	Host   container.HostConfig
}

// containerName is the one name of a run's container: Create is idempotent on it.
func containerName(owner, run string) string { return "bailey-" + owner + "-" + run }

// compileDocker turns a Spec that has passed Check into the daemon's words. It
// is a pure function: the same Spec and facts give the same container, and no
// field of it comes from anywhere else.
func compileDocker(s engine.Spec, f facts) compiled {
	s = s.Defaulted()
	p := engine.Strict()
	injected := cdiHasAll(f.CDI, s.GPUs)
	grace := int(s.StopGrace.Seconds())
	return compiled{
		Name: containerName(s.Name, s.Run),
		Config: container.Config{
			Hostname:     engine.Hostname,
			User:         fmt.Sprintf("%d:%d", s.UID, s.UID), // numeric: the image's passwd has no say
			Env:          compileEnv(s, f.ImageEnv, injected),
			Entrypoint:   []string{engine.AgentBinary},
			Cmd:          []string{"run", "--config", engine.AgentConfig},
			Image:        f.ImageID,
			WorkingDir:   engine.HomeDir,
			Healthcheck:  &container.HealthConfig{Test: []string{"NONE"}}, // readiness is asked through the agent; an exec each minute is load
			StopSignal:   "SIGTERM",
			StopTimeout:  &grace,
			AttachStdout: false,
			Labels: map[string]string{
				labelInstance: f.Instance, labelRun: s.Run, labelWorkspace: s.Workspace, labelOwner: s.Owner,
				labelName: s.Name, labelClass: s.Class, labelUID: strconv.Itoa(s.UID),
				labelSpec: s.Hash(), labelProfile: p.Version,
			},
		},
		Host: compileHost(s, f, p, injected),
	}
}

func compileHost(s engine.Spec, f facts, p engine.Profile, injected bool) container.HostConfig {
	no := false
	pids := s.Pids
	cpuMillis := s.CPUMillis
	if f.CPUs > 0 {
		cpuMillis = min(cpuMillis, int64(f.CPUs)*1000) // the daemon refuses more than there are
	}
	return container.HostConfig{
		NetworkMode:    container.NetworkMode(networkOf(s, p, f)),
		IpcMode:        container.IpcMode(p.IPC),
		CgroupnsMode:   container.CgroupnsMode(p.CgroupNS),
		ReadonlyRootfs: p.ReadOnlyRoot,
		CapDrop:        p.DropCaps,
		SecurityOpt:    securityOpts(f),
		MaskedPaths:    maskedPaths(p, f.ThrottleCPUs),
		ReadonlyPaths:  p.ReadOnlyPaths,
		Mounts:         compileMounts(s, f),
		Tmpfs:          compileTmpfs(s, p),
		ShmSize:        s.ShmBytes,
		Runtime:        f.Runtime,
		Init:           &no, // the agent is the init
		// The reconciler decides what starts. A container that the daemon starts
		// again by itself runs unverified, and may hold a GPU that was leased to
		// somebody else in the meantime.
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		LogConfig: container.LogConfig{Type: "local", Config: map[string]string{
			"max-size": p.LogMaxSize, "max-file": strconv.Itoa(p.LogMaxFiles),
		}},
		Resources: container.Resources{
			Memory:            s.MemoryBytes,
			MemorySwap:        s.MemoryBytes, // memory and swap together: no swap
			MemoryReservation: s.MemoryBytes / 100 * p.ReservationPercent,
			OomKillDisable:    &no,
			NanoCPUs:          cpuMillis * 1_000_000,
			CPUShares:         max(2, p.CPUShares*s.CPUMillis/1000),
			PidsLimit:         &pids,
			Ulimits:           compileUlimits(p, f.MaxFiles),
			DeviceRequests:    compileGPUs(s.GPUs, injected),
		},
	}
}

// securityOpts passes everything inline: nothing is left to the daemon's defaults.
func securityOpts(f facts) []string {
	opts := []string{"no-new-privileges=true", "seccomp=" + engine.Seccomp()}
	if f.AppArmor != "" {
		opts = append(opts, "apparmor="+f.AppArmor)
	}
	return opts
}

func maskedPaths(p engine.Profile, cpus []int) []string {
	paths := slices.Clone(p.MaskedPaths)
	for _, cpu := range cpus {
		paths = append(paths, engine.MaskedCPUPath(cpu))
	}
	return paths
}

// bind is one host path that a workspace sees.
type bind struct {
	Source, Target string
	ReadOnly       bool
}

// binds is the whole list of them. Nothing else of the host is mounted.
func binds(s engine.Spec, f facts) []bind {
	conf := f.RunDir + "/" + confDir
	all := []bind{
		{f.VolumeDir, engine.HomeDir, false},
		{f.RunDir + "/" + sockDir, engine.AgentSockDir, false},
		{conf + "/" + agentDir, engine.AgentConfDir, true},
		{conf + "/passwd", "/etc/passwd", true},
		{conf + "/group", "/etc/group", true},
		{f.AgentPath, engine.AgentBinary, true},
	}
	if s.Network != engine.NetworkBridge {
		// Else the daemon copies the host's, with the addresses of an
		// organisation's name servers in it.
		all = append(all, bind{conf + "/resolv.conf", "/etc/resolv.conf", true})
	}
	if s.Network == engine.NetworkProxied {
		// The directory, not the socket in it: a server that comes back makes a
		// new socket, and it has to be seen inside. Read-only, and root's: from
		// inside it can be connected to and nothing else.
		all = append(all, bind{f.RunDir + "/" + egressDir, engine.EgressDir, true})
	}
	return all
}

// networkOf is the one place that gives a container anything but a loopback.
func networkOf(s engine.Spec, p engine.Profile, f facts) string {
	if s.Network == engine.NetworkBridge {
		return f.Bridge
	}
	return p.Network
}

func compileMounts(s engine.Spec, f facts) []mount.Mount {
	var mounts []mount.Mount
	for _, b := range binds(s, f) {
		mounts = append(mounts, mount.Mount{
			Type: mount.TypeBind, Source: b.Source, Target: b.Target, ReadOnly: b.ReadOnly,
			BindOptions: &mount.BindOptions{Propagation: mount.PropagationRPrivate},
		})
	}
	return mounts
}

func compileTmpfs(s engine.Spec, p engine.Profile) map[string]string {
	out := map[string]string{}
	for _, t := range p.Tmpfs {
		size := t.Bytes
		if size == 0 {
			size = s.TmpBytes
		}
		exec := "noexec"
		if t.Exec {
			exec = "exec"
		}
		opts := fmt.Sprintf("rw,nosuid,nodev,%s,size=%d,mode=%o", exec, size, t.Mode)
		if t.Own {
			opts += fmt.Sprintf(",uid=%d,gid=%d", s.UID, s.UID)
		}
		out[t.Path] = opts
	}
	return out
}

func compileUlimits(p engine.Profile, maxFiles int64) []*container.Ulimit {
	var out []*container.Ulimit
	for _, u := range p.Ulimits {
		if u.Name == "nofile" && maxFiles > 0 {
			u.Value = min(u.Value, maxFiles)
		}
		out = append(out, &container.Ulimit{Name: u.Name, Soft: u.Value, Hard: u.Value})
	}
	return out
}

// cdiHasAll reports whether the daemon can inject every leased GPU itself.
func cdiHasAll(devices, gpus []string) bool {
	return len(gpus) > 0 && !slices.ContainsFunc(gpus, func(uuid string) bool {
		return !slices.Contains(devices, cdiKind+uuid)
	})
}

const cdiKind = "nvidia.com/gpu="

// compileGPUs asks for leased cards by UUID, never by count: a count gives
// every workspace the same first card. CDI is preferred, because its devices
// stand in the container's own configuration and survive a systemd reload.
func compileGPUs(gpus []string, injected bool) []container.DeviceRequest {
	if len(gpus) == 0 {
		return nil
	}
	ids := slices.Sorted(slices.Values(gpus))
	if !injected {
		return []container.DeviceRequest{{Driver: "nvidia", DeviceIDs: ids, Capabilities: [][]string{{"gpu", "compute", "utility"}}}}
	}
	for i, id := range ids {
		ids[i] = cdiKind + id
	}
	return []container.DeviceRequest{{Driver: "cdi", DeviceIDs: ids}}
}

// compileEnv gives the container's environment. The daemon adds what the image
// brings; a name without "=" takes it out again. So every variable of the image
// that the profile does not set and that may not stay is named here.
func compileEnv(s engine.Spec, image []string, injected bool) []string {
	env := s.ProfileEnv(injected)
	ours := map[string]bool{}
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		ours[name] = true
	}
	var out []string
	for _, kv := range image {
		if name, _, _ := strings.Cut(kv, "="); name != "" && !ours[name] && !engine.ImageEnvKept(name) {
			ours[name] = true
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return append(env, out...)
}
