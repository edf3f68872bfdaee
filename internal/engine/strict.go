package engine

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ProfileVersion names the strict profile. It goes into every container's
// label and Spec hash, and changes whenever a value below does.
const ProfileVersion = "strict/1"

// Where things are inside every workspace. The agent and the images rely on them.
const (
	HomeDir       = "/workspace"
	CacheDir      = "/workspace/.cache"
	VenvDir       = "/workspace/.venv"
	AgentBinary   = "/opt/bailey/bailey-agent"
	AgentConfDir  = "/etc/bailey"
	AgentConfig   = "/etc/bailey/agent.json"
	TokenFile     = "/etc/bailey/jupyter-token"
	SecretsFrom   = "/etc/bailey/secrets" // the agent copies them from here …
	SecretsDir    = "/run/secrets"        // … to memory, where programs look for them
	AgentSockDir  = "/run/bailey"
	AgentSocket   = "/run/bailey/agent.sock"
	JupyterAddr   = "127.0.0.1:8888"
	EgressDir     = "/opt/bailey/egress"             // below the read-only root: nobody inside can put another in its place
	EgressSocket  = "/opt/bailey/egress/egress.sock" // the server listens here
	EgressAddr    = "127.0.0.1:3128"                 // the agent listens here
	EgressNotice  = "/run/egress-refused"            // the newest refusal, for terminals
	Hostname      = "workspace"
	LabelImage    = "dev.bailey.image" // on images that may be workspaces; its value is the catalogue name
	voidDevices   = "void"
	driverCaps    = "compute,utility"
	shellInWS     = "/bin/bash"
	deviceListEnv = "NVIDIA_VISIBLE_DEVICES"
)

// A Tmpfs is a file system in memory. Its pages count against the memory limit.
type Tmpfs struct {
	Path  string
	Bytes int64 // 0: the Spec says
	Mode  uint32
	Exec  bool // may files on it be executed or mapped executable
	Own   bool // owned by the tenant instead of root
}

// An Ulimit is a per-process limit, soft and hard alike.
type Ulimit struct {
	Name  string
	Value int64
}

// A Profile is everything about a workspace's container that no Spec can
// change. There is one, [Strict]; it is a value so that engines, Verify and
// the documents read the same numbers.
type Profile struct {
	Version string

	ReadOnlyRoot    bool     // the image's files cannot be written
	DropCaps        []string // capabilities taken away; none are ever added
	NoNewPrivileges bool     // setuid and file capabilities do nothing
	Network         string   // "none": a loopback of its own and nothing else, but for NetworkBridge
	IPC             string   // "private": nobody else's shared memory
	CgroupNS        string   // "private": /proc/self/cgroup tells nothing of the host

	Tmpfs         []Tmpfs
	Ulimits       []Ulimit
	MaskedPaths   []string // unreadable inside
	ReadOnlyPaths []string

	TmpBytes           int64 // default size of /tmp
	MaxShmBytes        int64 // default /dev/shm is half the memory, at most this
	Pids               int64 // default
	CPUShares          int64 // weight per started core when the host is busy
	ReservationPercent int64 // memory below which the kernel reclaims last
	StopGrace          time.Duration

	LogMaxSize  string // of one log file of the container's own output
	LogMaxFiles int
}

// Strict returns the profile "strict", version 1. Reasons stand beside the
// values that need one.
func Strict() Profile {
	return Profile{
		Version: ProfileVersion,

		ReadOnlyRoot:    true,
		DropCaps:        []string{"ALL"},
		NoNewPrivileges: true,
		Network:         "none",
		IPC:             "private",
		CgroupNS:        "private",

		Tmpfs: []Tmpfs{
			// exec: PyTorch's compiler and pip dlopen what they build there, and a
			// noexec mount fails that with "failed to map segment".
			{Path: "/tmp", Mode: 0o1777, Exec: true},
			{Path: "/run", Bytes: 16 << 20, Mode: 0o755, Own: true},
			{Path: "/var/tmp", Bytes: 64 << 20, Mode: 0o1777},
		},
		Ulimits: []Ulimit{
			// nproc is left alone: it counts per uid over all containers.
			{"core", 0}, // a core file of somebody's process would lie on the host
			{"nofile", 65536},
		},
		// Spelled out because old engines mask less: Engine 20.10 leaves
		// /proc/interrupts readable, a clock for keystrokes on the host.
		MaskedPaths: []string{
			"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
			"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
			"/sys/devices/virtual/powercap", "/sys/firmware",
		},
		ReadOnlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},

		TmpBytes:           2 << 30,
		MaxShmBytes:        32 << 30,
		Pids:               4096,
		CPUShares:          1024,
		ReservationPercent: 80,
		StopGrace:          10 * time.Second,

		LogMaxSize:  "10m", // unbounded logs would let a tenant fill the host's disk
		LogMaxFiles: 3,
	}
}

// MaskedCPUPath is the path to mask for one core on hosts that have it: how
// often it was throttled is a side channel to what others compute.
func MaskedCPUPath(cpu int) string {
	return fmt.Sprintf("/sys/devices/system/cpu/cpu%d/thermal_throttle", cpu)
}

// ProfileEnv returns the environment that the profile gives the container of
// s, "NAME=value" sorted by name, with s.Env merged in: its names cannot
// clash with the profile's ([EnvAllowed]) and may replace what a network mode
// says of proxies. injected says that leased GPUs are attached by the
// engine itself (CDI), so that no runtime hook may act on the variable; without
// it the hook gets the leased UUIDs, and "void" when there are none. It is set
// in every container: images may carry NVIDIA_VISIBLE_DEVICES=all, which an
// NVIDIA default runtime would obey.
func (s Spec) ProfileEnv(injected bool) []string {
	devices := voidDevices
	if len(s.GPUs) > 0 && !injected {
		devices = strings.Join(slices.Sorted(slices.Values(s.GPUs)), ",")
	}
	env := map[string]string{
		"HOME":                    HomeDir,
		"USER":                    s.Name, // torch.compile fails for a uid without a name
		"LOGNAME":                 s.Name,
		"SHELL":                   shellInWS,
		"TMPDIR":                  "/tmp",
		"XDG_CACHE_HOME":          CacheDir,
		"TORCHINDUCTOR_CACHE_DIR": CacheDir + "/torchinductor",
		"TRITON_CACHE_DIR":        CacheDir + "/triton",
		"PIP_CACHE_DIR":           CacheDir + "/pip",
		"HF_HOME":                 CacheDir + "/huggingface",
		"MPLCONFIGDIR":            CacheDir + "/matplotlib",
		// Libraries count the host's cores, not the quota, and would fight over it.
		"OMP_NUM_THREADS":            strconv.FormatInt(ceilDiv(s.CPUMillis, 1000), 10),
		deviceListEnv:                devices,
		"NVIDIA_DRIVER_CAPABILITIES": driverCaps,
	}
	maps.Copy(env, proxyEnv(s.Network))
	maps.Copy(env, s.Env)
	out := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}

// ImageEnvKept reports whether a variable that an image brings along stays in
// the container's environment when the profile does not set it. The image's
// own search paths stay, because programs in it need them; what selects devices,
// preloads code or speaks in our name goes.
func ImageEnvKept(name string) bool {
	switch name {
	case "PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "HOSTNAME":
		return true
	}
	return EnvAllowed(name)
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }
