package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey/internal/engine"
)

// A machine is a root directory with the files that the checks read, and what
// the kernel and the engine would say.
type machine struct {
	t     *testing.T
	root  string
	facts Facts
	disks map[string]Disk // by path on the machine
}

const gib = 1 << 30

// healthy returns a machine without a fault.
func healthy(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir(), disks: map[string]Disk{}}
	m.facts = Facts{
		Root: m.root, StateDir: "/var/lib/bailey", Listen: []string{"127.0.0.1:8443", ":9443"},
		Now:    time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
		Synced: func() (bool, error) { return true, nil },
		Disk: func(path string) (Disk, error) {
			rel, err := filepath.Rel(m.root, path)
			if err != nil {
				return Disk{}, err
			}
			if d, ok := m.disks["/"+rel]; ok {
				return d, nil
			}
			return Disk{FreeBytes: 100 * gib, Files: 1e7, FreeInodes: 9e6}, nil
		},
		Caps: engine.Capabilities{
			Kind: "docker", Version: "29.8.0", APIVersion: "1.56", RuncVersion: "1.5.2", CgroupVersion: "2", Seccomp: true, AppArmor: true,
			LiveRestore: true, DefaultRuntime: "runc", CPUs: 8, MemoryBytes: 64 * gib, RootDir: "/var/lib/docker",
		},
	}
	for path, text := range map[string]string{
		"/proc/sys/kernel/osrelease":                    "6.12.90-amd64\n",
		"/proc/sys/kernel/io_uring_disabled":            "2\n",
		"/proc/sys/kernel/yama/ptrace_scope":            "1\n",
		"/proc/sys/kernel/core_pattern":                 "core\n",
		"/proc/sys/kernel/unprivileged_bpf_disabled":    "2\n",
		"/proc/sys/kernel/kptr_restrict":                "1\n",
		"/proc/sys/kernel/dmesg_restrict":               "1\n",
		"/proc/sys/fs/protected_symlinks":               "1\n",
		"/proc/sys/fs/protected_hardlinks":              "1\n",
		"/proc/sys/net/ipv4/ip_unprivileged_port_start": "1024\n",
		"/proc/modules":                                 "overlay 212992 30 - Live 0x0000000000000000\nnf_tables 380928 0 - Live 0x0000000000000000\n",
		"/proc/swaps":                                   "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
		"/proc/self/status":                             fmt.Sprintf("Name:\tbailey\nUid:\t%d\t%d\t%d\t%d\n", os.Geteuid(), os.Geteuid(), os.Geteuid(), os.Geteuid()),
		"/proc/self/mountinfo": "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n" +
			"30 22 0:26 / /dev/shm rw,nosuid,nodev,noexec shared:2 - tmpfs tmpfs rw\n",
		"/proc/net/tcp": "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
			"   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1142 1\n" +
			"   1: 0100007F:20FB 0100007F:9000 01 00000000:00000000 00:00000000 00000000     0        0 1143 1\n", // established, not listening
		"/proc/net/tcp6":    "  sl  local_address                         remote_address                        st\n",
		"/proc/net/unix":    "Num       RefCount Protocol Flags    Type St Inode Path\n0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/docker.sock\n",
		"/proc/1/comm":      "systemd\n",
		"/proc/1/cmdline":   "/sbin/init\x00",
		"/proc/700/comm":    "dockerd\n",
		"/proc/700/cmdline": "/usr/sbin/dockerd\x00-H\x00fd://\x00--containerd=/run/containerd/containerd.sock\x00",
		"/sys/module/apparmor/parameters/enabled":    "Y\n",
		"/sys/fs/cgroup/cgroup.controllers":          "cpuset cpu io memory hugetlb pids rdma misc\n",
		"/etc/docker/daemon.json":                    `{"log-driver": "local", "live-restore": true, "insecure-registries": ["127.0.0.0/8", "localhost:5000"]}`,
		"/etc/group":                                 fmt.Sprintf("root:x:0:\ndocker:x:%d:\n", os.Getegid()),
		"/lib/modules/6.12.90-amd64/modules.builtin": "kernel/crypto/aes_generic.ko\n",
		"/var/lib/dpkg/status":                       "Package: containerd.io\nStatus: install ok installed\nVersion: 2.2.5-1\n\nPackage: bash\nStatus: install ok installed\nVersion: 5.2\n",
		"/var/lib/bailey/bailey.db":                  "",
		"/run/docker.sock":                           "",
	} {
		m.write(path, text)
	}
	m.chmod("/run/docker.sock", 0o660)
	m.chmod("/var/lib/bailey", 0o700)
	m.age("/var/lib/bailey/bailey.db", -time.Hour)
	return m
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	full := filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) remove(path string) {
	m.t.Helper()
	if err := os.RemoveAll(filepath.Join(m.root, path)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) chmod(path string, mode os.FileMode) {
	m.t.Helper()
	if err := os.Chmod(filepath.Join(m.root, path), mode); err != nil {
		m.t.Fatal(err)
	}
}

// age sets the time of a file relative to the machine's clock.
func (m *machine) age(path string, by time.Duration) {
	m.t.Helper()
	at := m.facts.Now.Add(by)
	if err := os.Chtimes(filepath.Join(m.root, path), at, at); err != nil {
		m.t.Fatal(err)
	}
}

// listen adds a listener to /proc/net/tcp; hexAddr is as the kernel writes it.
func (m *machine) listen(hexAddr string) {
	m.write("/proc/net/tcp", "  sl  local_address rem_address   st\n   0: "+hexAddr+" 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n")
}

func (m *machine) examine(ctx context.Context) map[string]Finding {
	m.t.Helper()
	byID := map[string]Finding{}
	for _, f := range Run(ctx, m.facts) {
		if _, twice := byID[f.ID]; twice {
			m.t.Errorf("two findings have the id %s", f.ID)
		}
		byID[f.ID] = f
	}
	return byID
}

// TestHealthyMachine proves that a machine without a fault has no warning, and
// that every check was made.
func TestHealthyMachine(t *testing.T) {
	m := healthy(t)
	findings := Run(t.Context(), m.facts)
	if got, want := len(findings), len(checks()); got != want || want < 25 {
		t.Errorf("%d findings of %d checks, want all of at least 25", got, want)
	}
	for _, f := range findings {
		if f.ID == "root" && os.Geteuid() != 0 {
			continue // the machine's user is the test's
		}
		if f.Severity != OK || f.Fix != "" || f.Detail == "" || f.Title == "" {
			t.Errorf("%+v, want a detail and no fault", f)
		}
	}
	if got := Worst(findings); got != OK && os.Geteuid() == 0 {
		t.Errorf("Worst = %s, want ok", got)
	}
}

// A fault is one thing wrong with a machine, and what must be found then.
type fault struct {
	name  string
	check string
	want  Severity
	says  string // in detail or fix
	do    func(m *machine)
	also  []string // other checks that rightly notice
}

func faults() []fault {
	caps := func(set func(c *engine.Capabilities)) func(m *machine) {
		return func(m *machine) { set(&m.facts.Caps) }
	}
	file := func(path, text string) func(m *machine) { return func(m *machine) { m.write(path, text) } }
	disk := func(path string, d Disk) func(m *machine) {
		return func(m *machine) {
			m.write(path+"/x", "")
			m.chmod(path, 0o700)
			m.age(path+"/x", -time.Hour)
			m.disks[path] = d
		}
	}
	all := []fault{
		{"Docker too old to support", "docker-version", Fail, "29.5.1", caps(func(c *engine.Capabilities) { c.Version = "19.03.15" }), nil},
		{"Docker of Debian", "docker-version", Warn, "distribution", caps(func(c *engine.Capabilities) { c.Version = "20.10.24+dfsg1" }), nil},
		{"Docker behind", "docker-version", Warn, "docker cp", caps(func(c *engine.Capabilities) { c.Version = "29.5.0" }), nil},
		{"Docker release candidate", "docker-version", Warn, "29.5.1", caps(func(c *engine.Capabilities) { c.Version = "29.5.1-rc.1" }), nil},
		{"Docker says nonsense", "docker-version", Warn, "cannot be read", caps(func(c *engine.Capabilities) { c.Version = "dev" }), nil},
		{"runc with a way out", "runc-version", Fail, "1.5.0", caps(func(c *engine.Capabilities) { c.RuncVersion = "1.2.7" }), nil},
		{"runc end of life", "runc-version", Fail, "lets a container write", caps(func(c *engine.Capabilities) { c.RuncVersion = "1.1.15" }), nil},
		{"runc with a minor hole", "runc-version", Warn, "minor", caps(func(c *engine.Capabilities) { c.RuncVersion = "1.3.5" }), nil},
		{"runc of Debian", "runc-version", Warn, "distribution", caps(func(c *engine.Capabilities) { c.RuncVersion = "1.1.5+ds1" }), nil},
		{"runc unknown", "runc-version", Warn, "not known", caps(func(c *engine.Capabilities) { c.RuncVersion = "" }), nil},
		{"runc crashes on the kernel", "runc-kernel", Warn, "1.5.2", func(m *machine) {
			m.facts.Caps.RuncVersion = "1.5.1"
			m.write("/proc/sys/kernel/osrelease", "6.18.44\n")
		}, nil},
		{"containerd behind", "containerd-version", Warn, "2.2.5", func(m *machine) { m.facts.Containerd = "2.2.4" }, nil},
		{"containerd of Debian", "containerd-version", Warn, "distribution", file("/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1+deb12u3\n"), nil},
		{"no seccomp", "seccomp", Fail, "unconfined", caps(func(c *engine.Capabilities) { c.Seccomp = false }), nil},
		{"cgroup v1", "cgroup-version", Warn, "unified", func(m *machine) {
			m.facts.Caps.CgroupVersion = "1"
			m.write("/proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t2\t1\nmemory\t4\t20\t1\npids\t8\t2\t1\n")
		}, nil},
		{"cgroup v2 without memory", "cgroup-controllers", Fail, "cgroup_enable=memory", file("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n"), nil},
		{"cgroup v1 without pids", "cgroup-controllers", Fail, "pids", func(m *machine) {
			m.facts.Caps.CgroupVersion = "1"
			m.write("/proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t2\t1\nmemory\t4\t20\t1\npids\t8\t2\t0\n")
		}, []string{"cgroup-version"}},
		{"cgroup v1, cpu not mounted", "cgroup-controllers", Fail, "without cpu", func(m *machine) {
			m.facts.Caps.CgroupVersion = "1"
			m.write("/proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t2\t1\nmemory\t4\t20\t1\npids\t8\t2\t1\n")
		}, []string{"cgroup-version"}},
		{"userns-remap", "userns-remap", Fail, "userns-remap", caps(func(c *engine.Capabilities) { c.UsernsRemap = true }), nil},
		{"no live-restore", "live-restore", Warn, "live-restore", caps(func(c *engine.Capabilities) { c.LiveRestore = false }), nil},
		{"nvidia by default", "default-runtime", Fail, "all of them", caps(func(c *engine.Capabilities) { c.DefaultRuntime = "nvidia" }), nil},
		{"nvidia by default, wishes ignored", "default-runtime", Warn, "default-runtime", func(m *machine) {
			m.facts.Caps.DefaultRuntime = "nvidia"
			m.write("/etc/nvidia-container-runtime/config.toml", "accept-nvidia-visible-devices-envvar-when-unprivileged = false # ours\n")
		}, nil},
		{"nvidia by default, switch commented out", "default-runtime", Fail, "all of them", func(m *machine) {
			m.facts.Caps.DefaultRuntime = "nvidia"
			m.write("/etc/nvidia-container-runtime/config.toml", "#accept-nvidia-visible-devices-envvar-when-unprivileged = false\n")
		}, nil},
		{"daemon.json broken", "docker-daemon-json", Warn, "not JSON", file("/etc/docker/daemon.json", `{"log-driver": "local",}`), []string{"docker-logs"}},
		{"TCP in daemon.json", "docker-tcp-config", Fail, "tcp://0.0.0.0:2375", file("/etc/docker/daemon.json", `{"log-driver": "local", "hosts": ["fd://", "tcp://0.0.0.0:2375"]}`), nil},
		{"TCP with TLS but not verified", "docker-tcp-config", Fail, "client certificates", file("/etc/docker/daemon.json", `{"log-driver": "local", "tls": true, "hosts": ["tcp://0.0.0.0:2376"]}`), nil},
		{"TCP on the command line", "docker-tcp-config", Fail, "command line", file("/proc/700/cmdline", "/usr/bin/dockerd\x00-H\x00tcp://127.0.0.1:4243\x00"), nil},
		{"TCP on the command line, joined", "docker-tcp-config", Fail, "tcp://:4243", file("/proc/700/cmdline", "/usr/bin/dockerd\x00--host=tcp://:4243\x00"), nil},
		{"TCP on the command line, short", "docker-tcp-config", Fail, "0.0.0.0:4243", file("/proc/700/cmdline", "/usr/bin/dockerd\x00-H0.0.0.0:4243\x00"), nil},
		{"port 2375", "docker-tcp-open", Fail, "0.0.0.0:2375", func(m *machine) { m.listen("00000000:0947") }, nil},
		{"port 2375 on loopback", "docker-tcp-open", Fail, "127.0.0.1:2375", func(m *machine) { m.listen("0100007F:0947") }, nil},
		{"port 2375 on IPv6", "docker-tcp-open", Fail, "[::]:2375", file("/proc/net/tcp6", "   0: 00000000000000000000000000000000:0947 00000000000000000000000000000000:0000 0A 0\n"), nil},
		{"socket for everybody", "docker-socket-mode", Fail, "0666", func(m *machine) { m.chmod("/run/docker.sock", 0o666) }, nil},
		{"members of docker", "docker-group", Warn, "alice, bob", file("/etc/group", fmt.Sprintf("docker:x:%d:alice,bob\n", os.Getegid())), nil},
		{"unbounded logs", "docker-logs", Warn, "log-driver", file("/etc/docker/daemon.json", `{"log-driver": "json-file", "log-opts": {"max-file": "3"}}`), nil},
		{"no daemon.json", "docker-logs", Warn, "log-driver", func(m *machine) { m.remove("/etc/docker/daemon.json") }, nil},
		{"insecure registry", "docker-registries", Warn, "registry.example.org:5000", file("/etc/docker/daemon.json", `{"log-driver": "local", "insecure-registries": ["registry.example.org:5000"]}`), nil},
		{"insecure network", "docker-registries", Warn, "10.0.0.0/8", file("/etc/docker/daemon.json", `{"log-driver": "local", "insecure-registries": ["10.0.0.0/8"]}`), nil},
		{"insecure everything", "docker-registries", Warn, "0.0.0.0/0", file("/etc/docker/daemon.json", `{"log-driver": "local", "insecure-registries": ["0.0.0.0/0"]}`), nil},
		{"kernel of 2019", "kernel-version", Warn, "5.4.0-190-generic", file("/proc/sys/kernel/osrelease", "5.4.0-190-generic\n"), nil},
		{"kernel unknown", "kernel-version", Warn, "uname -r", func(m *machine) { m.remove("/proc/sys/kernel/osrelease") }, nil},
		{"no security module", "lsm", Warn, "neither", func(m *machine) { m.remove("/sys/module/apparmor") }, nil},
		{"AppArmor off", "lsm", Warn, "neither", file("/sys/module/apparmor/parameters/enabled", "N\n"), nil},
		{"SELinux permissive", "lsm", Warn, "neither", func(m *machine) {
			m.remove("/sys/module/apparmor")
			m.write("/sys/fs/selinux/enforce", "0\n")
		}, nil},
		{"AppArmor not used", "lsm", Warn, "Docker does not use it", caps(func(c *engine.Capabilities) { c.AppArmor = false }), nil},
		{"algif_aead", "module-algif-aead", Warn, "rmmod algif_aead", file("/proc/modules", "algif_aead 16384 0 - Live 0x0\n"), nil},
		{"algif_aead built in", "module-algif-aead", Warn, "cannot be removed", file("/lib/modules/6.12.90-amd64/modules.builtin", "kernel/crypto/algif_aead.ko\n"), nil},
		{"esp6", "module-esp", Warn, "rmmod esp6", file("/proc/modules", "esp6 16384 0 - Live 0x0\n"), nil},
		{"rxrpc", "module-rxrpc", Warn, "rmmod rxrpc", file("/proc/modules", "rxrpc 16384 0 - Live 0x0\n"), nil},
		{"io_uring", "io-uring", Warn, "kernel.io_uring_disabled=1", file("/proc/sys/kernel/io_uring_disabled", "0\n"), nil},
		{"ptrace", "ptrace-scope", Warn, "kernel.yama.ptrace_scope=1", file("/proc/sys/kernel/yama/ptrace_scope", "0\n"), nil},
		{"no Yama", "ptrace-scope", Warn, "CONFIG_SECURITY_YAMA", func(m *machine) { m.remove("/proc/sys/kernel/yama") }, nil},
		{"core pipe", "core-pattern", Warn, "/usr/share/apport/apport", file("/proc/sys/kernel/core_pattern", "|/usr/share/apport/apport -p%p\n"), nil},
		{"BPF", "bpf", Warn, "unprivileged_bpf_disabled=1", file("/proc/sys/kernel/unprivileged_bpf_disabled", "0\n"), nil},
		{"kernel pointers", "kernel-pointers", Warn, "kptr_restrict=1", file("/proc/sys/kernel/kptr_restrict", "0\n"), nil},
		{"dmesg", "kernel-log", Warn, "dmesg_restrict=1", file("/proc/sys/kernel/dmesg_restrict", "0\n"), nil},
		{"symlinks", "links", Warn, "fs.protected_symlinks=1", file("/proc/sys/fs/protected_symlinks", "0\n"), nil},
		{"hardlinks", "links", Warn, "fs.protected_hardlinks=1", file("/proc/sys/fs/protected_hardlinks", "0\n"), nil},
		{"swap without limit", "swap", Warn, "swapaccount=1", func(m *machine) {
			m.facts.Caps.CgroupVersion = "1"
			m.write("/proc/cgroups", "cpu\t1\t2\t1\nmemory\t4\t20\t1\npids\t8\t2\t1\n")
			m.write("/proc/swaps", "Filename Type Size Used Priority\n/dev/vdb partition 1000 0 -2\n")
		}, []string{"cgroup-version"}},
		{"half a GiB of memory", "memory", Fail, "512 MiB", caps(func(c *engine.Capabilities) { c.MemoryBytes = gib / 2 }), nil},
		{"2 GiB of memory", "memory", Warn, "--demo", caps(func(c *engine.Capabilities) { c.MemoryBytes = 2 * gib }), nil},
		{"state disk full", "state-disk", Fail, "0.5 GiB", disk("/var/lib/bailey", Disk{FreeBytes: gib / 2, Files: 1e7, FreeInodes: 9e6}), nil},
		{"state disk nearly full", "state-disk", Warn, "5.0 GiB", disk("/var/lib/bailey", Disk{FreeBytes: 5 * gib, Files: 1e7, FreeInodes: 9e6}), nil},
		{"state disk out of inodes", "state-disk", Fail, "only 99 more files", disk("/var/lib/bailey", Disk{FreeBytes: 50 * gib, Files: 1e7, FreeInodes: 99}), nil},
		{"state disk nearly out of inodes", "state-disk", Warn, "only 99999 more files", disk("/var/lib/bailey", Disk{FreeBytes: 50 * gib, Files: 1e7, FreeInodes: 99_999}), nil},
		{"disk does not answer", "state-disk", Warn, "no such device", func(m *machine) {
			m.facts.Disk = func(path string) (Disk, error) { return Disk{}, errors.New("no such device") }
		}, []string{"docker-disk"}},
		{"Docker's disk full", "docker-disk", Fail, "docker system df", disk("/var/lib/docker", Disk{FreeBytes: 1, Files: 1e7, FreeInodes: 9e6}), nil},
		{"state readable", "state-mode", Warn, "chmod 700", func(m *machine) { m.chmod("/var/lib/bailey", 0o755) }, nil},
		{"state writable", "state-mode", Fail, "chmod 700", func(m *machine) { m.chmod("/var/lib/bailey", 0o777) }, nil},
		{"state writable by the group", "state-mode", Fail, "chmod 700", func(m *machine) { m.chmod("/var/lib/bailey", 0o770) }, nil},
		{"state is a file", "state-mode", Fail, "not a directory", func(m *machine) {
			m.remove("/var/lib/bailey")
			m.write("/var/lib/bailey", "")
		}, nil},
		{"state is a link", "state-mode", Warn, "is a link", func(m *machine) {
			m.remove("/var/lib/bailey")
			if err := os.Symlink("/elsewhere", filepath.Join(m.root, "/var/lib/bailey")); err != nil {
				m.t.Fatal(err)
			}
		}, nil},
		{"above the state", "state-mode", Fail, "/var/lib above it", func(m *machine) { m.chmod("/var/lib", 0o777) }, nil},
		{"above the state, which is not there yet", "state-mode", Fail, "/var/lib above it", func(m *machine) {
			m.remove("/var/lib/bailey")
			m.chmod("/var/lib", 0o777)
		}, nil},
		{"state of another user", "state-mode", Fail, "who can replace", func(m *machine) {
			if os.Geteuid() == 0 {
				if err := os.Chown(filepath.Join(m.root, "/var/lib/bailey"), 1234, 1234); err != nil {
					m.t.Fatal(err)
				}
				return
			}
			m.write("/proc/self/status", "Uid:\t0\t0\t0\t0\n")
		}, []string{"root"}},
		{"state on noexec", "state-mount", Fail, "noexec", file("/proc/self/mountinfo", "22 1 254:0 / / rw - ext4 /dev/vda rw\n23 22 254:1 / /var rw,nosuid,noexec shared:5 - ext4 /dev/vdb rw\n"), nil},
		{"state read-only", "state-mount", Fail, "read-only", file("/proc/self/mountinfo", "22 1 254:0 / / ro,relatime - ext4 /dev/vda rw\n"), nil},
		{"state in memory", "state-mount", Warn, "tmpfs", file("/proc/self/mountinfo", "22 1 254:0 / / rw - ext4 /dev/vda rw\n23 22 0:30 / /var/lib/bailey rw - tmpfs tmpfs rw\n"), nil},
		{"state on NFS", "state-mount", Warn, "network file system", file("/proc/self/mountinfo", "22 1 254:0 / / rw - nfs4 server:/x rw\n"), nil},
		{"mounts unknown", "state-mount", Warn, "findmnt", func(m *machine) { m.remove("/proc/self/mountinfo") }, nil},
		{"not root", "root", Warn, "as root", file("/proc/self/status", "Uid:\t4321\t4321\t4321\t4321\n"), []string{"state-mode"}},
		{"port taken", "ports", Fail, "ss -ltnp sport = :8443", func(m *machine) { m.listen("0100007F:20FB") }, nil},
		{"port taken on every address", "ports", Fail, "0.0.0.0:8443", func(m *machine) { m.listen("00000000:20FB") }, nil},
		{"port taken, any of ours", "ports", Fail, ":9443", func(m *machine) { m.listen("0101A8C0:24E3") }, nil},
		{"port taken on IPv6", "ports", Fail, "[::]:8443", file("/proc/net/tcp6", "   0: 00000000000000000000000000000000:20FB 00000000000000000000000000000000:0000 0A 0\n"), nil},
		{"low port without root", "ports", Fail, "kept for root", func(m *machine) {
			m.facts.Listen = []string{":443"}
			m.write("/proc/self/status", "Uid:\t4321\t4321\t4321\t4321\n")
		}, []string{"root", "state-mode"}},
		{"no address", "ports", Fail, "not an address", func(m *machine) { m.facts.Listen = []string{"8443"} }, nil},
		{"one origin", "shared-origin", Warn, "origin.mode is path", func(m *machine) { m.facts.OneOrigin = true }, nil},
		{"open network", "open-networks", Warn, "wild, west", func(m *machine) { m.facts.Bridged = []string{"wild", "west"} }, nil},
		{"clock of 1970", "clock", Fail, "before this program was made", func(m *machine) {
			m.facts.Now = time.Unix(0, 0)
			m.age("/var/lib/bailey/bailey.db", -time.Hour)
		}, nil},
		{"clock of 2100", "clock", Fail, "decades ahead", func(m *machine) { m.facts.Now = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) }, nil},
		{"clock went back", "clock-back", Warn, "bailey.db", func(m *machine) { m.age("/var/lib/bailey/bailey.db", time.Hour) }, nil},
		{"clock alone", "clock-sync", Warn, "set-ntp", func(m *machine) { m.facts.Synced = func() (bool, error) { return false, nil } }, nil},
		{"clock unknown", "clock-sync", Warn, "not permitted", func(m *machine) { m.facts.Synced = func() (bool, error) { return false, syscall.EPERM } }, nil},
		{"driver without toolkit", "nvidia-toolkit", Warn, "nvidia-ctk", file("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release Build\n"), nil},
		{"toolkit without driver", "nvidia-toolkit", Warn, "modprobe nvidia", caps(func(c *engine.Capabilities) { c.GPUDriver = true }), nil},
		{"toolkit with a way out", "nvidia-toolkit-version", Fail, "1.19.1", file("/var/lib/dpkg/status", "Package: nvidia-container-toolkit\nStatus: install ok installed\nVersion: 1.17.7-1\n"), nil},
		{"toolkit behind", "nvidia-toolkit-version", Warn, "1.19.1", file("/var/lib/dpkg/status", "Package: nvidia-container-toolkit\nStatus: install ok installed\nVersion: 1.19.0-1\n"), nil},
		{"driver behind", "nvidia-driver", Warn, "580.159.03", file("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27\n"), []string{"nvidia-toolkit"}},
		{"driver of a dead branch", "nvidia-driver", Warn, "R570", file("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.195.03  Sun Jul 27\n"), []string{"nvidia-toolkit"}},
	}
	for name, err := range map[string]error{
		"Docker not installed": fmt.Errorf("probe: %w", syscall.ENOENT),
		"Docker not running":   fmt.Errorf("probe: %w", syscall.ECONNREFUSED),
		"Docker refuses":       fmt.Errorf("probe: %w", syscall.EACCES),
		"Docker is broken":     errors.New("probe: 500 internal error"),
	} {
		says := map[string]string{"Docker not installed": "apt-get install", "Docker not running": "systemctl start docker", "Docker refuses": "as root", "Docker is broken": "500"}[name]
		all = append(all, fault{name, "docker-answers", Fail, says, func(m *machine) { m.facts.ProbeErr = err }, nil})
	}
	all = append(all, fault{"Docker's socket is a leftover", "docker-answers", Fail, "nothing listens", func(m *machine) {
		m.facts.ProbeErr = errors.New("cannot connect")
		m.write("/proc/net/unix", "Num\n")
	}, nil})
	return all
}

// TestFaults breaks a healthy machine in one way at a time: the check that is
// responsible must say so and how to mend it, and no other may change its mind.
func TestFaults(t *testing.T) {
	tripped := map[string]bool{}
	before := healthy(t).examine(t.Context())
	for _, tt := range faults() {
		t.Run(tt.name, func(t *testing.T) {
			m := healthy(t)
			tt.do(m)
			after := m.examine(t.Context())
			got := after[tt.check]
			if got.Severity != tt.want {
				t.Fatalf("%s = %+v, want %s", tt.check, got, tt.want)
			}
			if got.Fix == "" || got.Detail == "" {
				t.Errorf("%s has no detail or no fix: %+v", tt.check, got)
			}
			if !strings.Contains(got.Detail+" "+got.Fix, tt.says) {
				t.Errorf("%s says %q, %q; want %q in it", tt.check, got.Detail, got.Fix, tt.says)
			}
			for id, f := range after {
				if id != tt.check && f.Severity != before[id].Severity && !slices.Contains(tt.also, id) {
					t.Errorf("%s noticed too: %+v", id, f)
				}
			}
		})
		tripped[tt.check] = true
	}
	for _, c := range checks() {
		if !tripped[c.id] {
			t.Errorf("no fault trips the check %s", c.id)
		}
	}
}

// TestAlsoGood are machines that look odd and are all right.
func TestAlsoGood(t *testing.T) {
	tests := []struct {
		name  string
		check string
		do    func(m *machine)
	}{
		{"SELinux", "lsm", func(m *machine) {
			m.remove("/sys/module/apparmor")
			m.write("/sys/fs/selinux/enforce", "1")
		}},
		{"cgroup v1 with everything", "cgroup-controllers", func(m *machine) {
			m.facts.Caps.CgroupVersion = "1"
			m.write("/proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t2\t1\nmemory\t4\t20\t1\npids\t8\t2\t1\n")
		}},
		{"swap that can be limited", "swap", func(m *machine) { m.write("/proc/swaps", "Filename\n/dev/vdb\n") }},
		{"TCP with verified clients", "docker-tcp-config", func(m *machine) {
			m.write("/etc/docker/daemon.json", `{"hosts": ["tcp://0.0.0.0:2376"], "tlsverify": true}`)
		}},
		{"TCP with verified clients on the command line", "docker-tcp-config", func(m *machine) {
			m.write("/proc/700/cmdline", "dockerd\x00--tlsverify\x00-H\x00tcp://0.0.0.0:2376\x00")
		}},
		{"a kernel with the fix", "module-rxrpc", func(m *machine) {
			m.write("/proc/sys/kernel/osrelease", "6.18.44\n")
			m.write("/proc/modules", "rxrpc 1 0\n")
		}},
		{"a file system without inodes", "state-disk", func(m *machine) { m.disks["/var/lib/bailey"] = Disk{FreeBytes: 50 * gib} }},
		{"no state yet", "state-mode", func(m *machine) { m.remove("/var/lib/bailey") }},
		{"no state yet: disk", "state-disk", func(m *machine) { m.remove("/var/lib/bailey") }},
		{"state below a sticky directory", "state-mode", func(m *machine) { m.chmod("/var/lib", 0o777|os.ModeSticky) }},
		{"another port on another address", "ports", func(m *machine) { m.listen("0200007F:20FB") }},
		{"any port", "ports", func(m *machine) { m.facts.Listen = []string{"127.0.0.1:0"} }},
		{"a running server's ports", "ports", func(m *machine) { m.facts.Listen = nil; m.listen("00000000:20FB") }},
		{"localhost by name, others on another address", "ports", func(m *machine) { m.facts.Listen = []string{"localhost:8443"}; m.listen("0101A8C0:20FB") }},
		{"synchronised by systemd", "clock-sync", func(m *machine) {
			m.facts.Synced = func() (bool, error) { return false, nil }
			m.write("/run/systemd/timesync/synchronized", "")
		}},
		{"GPUs by CDI", "nvidia-toolkit", func(m *machine) {
			m.write("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.71.05  Release Build\n")
			m.facts.Caps.GPUDriver, m.facts.Caps.CDI = true, true
		}},
		{"a newer driver", "nvidia-driver", func(m *machine) {
			m.write("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  615.71.09  Release Build\n")
		}},
		{"a removed package", "nvidia-toolkit-version", func(m *machine) {
			m.write("/var/lib/dpkg/status", "Package: nvidia-container-toolkit\nStatus: deinstall ok config-files\nVersion: 1.13.0-1\n")
		}},
		{"runc of a patched branch", "runc-version", func(m *machine) { m.facts.Caps.RuncVersion = "1.3.6" }},
		{"a newer runc", "runc-version", func(m *machine) { m.facts.Caps.RuncVersion = "2.0.0" }},
		{"runc of the distribution on a new kernel", "runc-kernel", func(m *machine) {
			m.facts.Caps.RuncVersion = "1.1.5+ds1"
			m.write("/proc/sys/kernel/osrelease", "6.18.44\n")
		}},
		{"socket of another path", "docker-socket-mode", func(m *machine) { m.facts.DockerHost = "unix:///nowhere.sock" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := healthy(t)
			tt.do(m)
			if got := m.examine(t.Context())[tt.check]; got.Severity != OK {
				t.Errorf("%+v, want ok", got)
			}
		})
	}
}

// TestDockerSilent proves that nothing is said about an engine that did not
// answer, and everything else still is.
func TestDockerSilent(t *testing.T) {
	m := healthy(t)
	m.facts.ProbeErr = errors.New("no")
	m.facts.Caps = engine.Capabilities{}
	byID := m.examine(t.Context())
	for _, c := range checks() {
		if _, there := byID[c.id]; there == c.engine {
			t.Errorf("%s: reported %t, needs the engine %t", c.id, there, c.engine)
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	findings := Run(ctx, healthy(t).facts)
	if len(findings) != 1 || findings[0].ID != "interrupted" || Worst(findings) != Fail {
		t.Errorf("Run without time = %+v, want one failure that says so", findings)
	}
}

// TestThisMachine runs on the real thing: whatever it finds, it finds something
// for every check, and changes nothing that it looks at.
func TestThisMachine(t *testing.T) {
	findings := Run(t.Context(), Facts{ProbeErr: errors.New("not asked"), StateDir: t.TempDir(), Listen: []string{"127.0.0.1:0"}})
	if len(findings) < 25 {
		t.Errorf("%d findings, want at least 25", len(findings))
	}
	for _, f := range findings {
		if f.Severity != OK && f.Fix == "" || f.Detail == "" {
			t.Errorf("%+v has no detail or no fix", f)
		}
	}
}

func TestWorst(t *testing.T) {
	tests := []struct {
		in   []Severity
		want Severity
	}{
		{nil, OK}, {[]Severity{OK, OK}, OK}, {[]Severity{OK, Warn, OK}, Warn}, {[]Severity{Fail, Warn}, Fail}, {[]Severity{Warn, Fail, OK}, Fail},
	}
	for _, tt := range tests {
		var findings []Finding
		for _, s := range tt.in {
			findings = append(findings, Finding{Severity: s})
		}
		if got := Worst(findings); got != tt.want {
			t.Errorf("Worst(%v) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestVersions(t *testing.T) {
	tests := []struct {
		text, want string
		distro     bool
	}{
		{"20.10.24+dfsg1", "20.10.24", true},
		{"1.1.5+ds1-1+deb12u1", "1.1.5", true},
		{"1.6.20~ds1", "1.6.20", true},
		{"1.1.12-0ubuntu2~22.04.1", "1.1.12", true},
		{"5:29.5.1-1~debian.12~bookworm", "29.5.1", false},
		{"v2.4.2", "2.4.2", false},
		{"1.5", "1.5.0", false},
		{"1.3.0-rc.2", "1.3.0", false},
		{"6.12.90-amd64", "6.12.90", false},
		{"1.2.8-3.el9", "1.2.8", true},
		{"535.309.01", "535.309.1", false},
		{"", "unknown", false},
		{"dev", "unknown", false},
		{"99999999999.1", "unknown", false},
	}
	for _, tt := range tests {
		v := parseVersion(tt.text)
		if v.String() != tt.want || v.distribution() != tt.distro {
			t.Errorf("parseVersion(%q) = %s, distribution %t; want %s, %t", tt.text, v, v.distribution(), tt.want, tt.distro)
		}
	}
	floors := []string{"1.3.6", "1.4.3", "1.5.0"}
	for text, want := range map[string]bool{
		"1.3.5": false, "1.3.6": true, "1.4.0": false, "1.4.3": true, "1.5.0": true, "1.5.0-rc.1": false, "1.6.0": true, "2.0.0": true, "1.2.99": false, "0.1.1": false,
	} {
		if got := parseVersion(text).reaches(floors...); got != want {
			t.Errorf("%s reaches %v = %t, want %t", text, floors, got, want)
		}
	}
}

func TestListeners(t *testing.T) {
	text := `  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 0
   1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 0
   2: B80D0120000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A 0
   3: 0100007F:0277 00000000:0000 06 0
   4: short
   5: XX:YY 0 0A 0
   6: 0100:0050 0 0A 0
`
	var got []string
	for _, l := range parseListeners(text) {
		got = append(got, l.String())
	}
	if diff := cmp.Diff([]string{"[::1]:631", "127.0.0.1:8080", "[2001:db8::1]:443"}, got); diff != "" {
		t.Errorf("listeners (-want +got):\n%s", diff)
	}
}

// hostile is what a broken or hostile machine might show in any of its files.
func hostile() []string {
	return []string{
		"", "\n", "\x00", "\xff\xfe", ":", "=", strings.Repeat("9", 1000), strings.Repeat("a:", 1000), strings.Repeat("\n", 1000),
		"  0: 00000000:0016 00000000:0000 0A 0\n",
		`{"hosts": [1, "tcp://x"], "insecure-registries": "x", "log-opts": [], "tlsverify": "yes", "log-driver": 1}`,
		`{"hosts": {}, "insecure-registries": [1, null, "::"], "log-opts": {"max-size": null}}`, "[]", "null", `"x"`,
		"Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1\n",
		"22 1 254:0 / /\\040 rw,noexec shared:1 - ext4 /dev/vda rw\n22 1 254:0 / / rw -\n",
		"NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun\n",
		"docker:x:999:a,b,,\n:::\n",
		"accept-nvidia = false\n\x00\xff=\n",
		"-H\x00", "--host=\x00-H", "Uid:\t-1\t99999999999999999999\n",
	}
}

// TestHostileFiles puts nonsense into every file that is read: each check still
// has its say.
func TestHostileFiles(t *testing.T) {
	for _, text := range hostile() {
		m := healthy(t)
		for _, name := range []string{
			"/proc/net/tcp", "/proc/net/tcp6", "/proc/net/unix", "/proc/modules", "/proc/swaps", "/proc/cgroups", "/proc/self/status", "/proc/self/mountinfo",
			"/proc/700/cmdline", "/proc/sys/kernel/osrelease", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/yama/ptrace_scope", "/proc/driver/nvidia/version",
			"/etc/docker/daemon.json", "/etc/group", "/var/lib/dpkg/status", "/etc/nvidia-container-runtime/config.toml", "/sys/fs/cgroup/cgroup.controllers",
		} {
			m.write(name, text)
		}
		m.facts.Containerd, m.facts.Listen = text, []string{text, "127.0.0.1:8443"}
		m.facts.Caps.Version, m.facts.Caps.RuncVersion, m.facts.Caps.DefaultRuntime = text, text, "nvidia"
		findings := Run(t.Context(), m.facts)
		if len(findings) != len(checks()) {
			t.Errorf("with %.40q everywhere: %d findings of %d checks", text, len(findings), len(checks()))
		}
		for _, f := range findings {
			if f.Severity != OK && f.Fix == "" || f.Detail == "" {
				t.Errorf("with %.40q everywhere: %+v has no detail or no fix", text, f)
			}
		}
	}
}

// FuzzParsers feeds every parser what a broken or hostile machine might show.
func FuzzParsers(f *testing.F) {
	for _, text := range hostile() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, l := range parseListeners(text) {
			if !l.IsValid() {
				t.Errorf("a listener without an address in %q", text)
			}
		}
		daemon, err := parseDaemonJSON([]byte(text))
		h := &host{Facts: Facts{Root: "/nonexistent"}, daemon: daemon, daemonErr: err, packages: parseDpkg([]byte(text), "containerd", "containerd.io", "nvidia-container-toolkit")}
		for _, look := range []func(*host) verdict{daemonJSON, dockerTCPConfig, dockerLogs, dockerRegistries, containerdVersion, nvidiaToolkitVersion} {
			if v := look(h); v.severity != OK && v.fix == "" || v.detail == "" {
				t.Errorf("%+v of %q has no detail or no fix", v, text)
			}
		}
		if m, found := mountOf(text, "/var/lib/bailey"); found && m.point == "" {
			t.Errorf("a mount without a point in %q", text)
		}
		if v := parseVersion(text); v.known && v.compare(v) != 0 {
			t.Errorf("the version in %q is not equal to itself", text)
		}
		groupOf(text, 999)
		tomlFalse(text, "x")
		isTCP(text)
		loopback(text)
	})
}
