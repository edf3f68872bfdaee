// Package doctor looks at the machine that shall run workspaces and says what
// is wrong with it, why that matters and how to mend it. It reads files and
// what the engine said about itself, changes nothing, and asks nobody on the
// network. What to do about a finding is its reader's choice.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/baileyhq/bailey/internal/engine"
)

// A Severity says how bad a finding is.
type Severity string

// The severities, from good to bad.
const (
	OK   Severity = "ok"   // as it should be
	Warn Severity = "warn" // works, but a wall is missing or trouble is near
	Fail Severity = "fail" // workspaces will not start, or are not safe
)

// A Finding is the outcome of one check.
type Finding struct {
	ID       string   `json:"id"` // stable, lower-case with dashes
	Severity Severity `json:"severity"`
	Title    string   `json:"title"`          // what was looked at
	Detail   string   `json:"detail"`         // what was found
	Fix      string   `json:"fix,omitempty"`  // what to do; never empty unless OK
	Refs     []string `json:"refs,omitempty"` // rules and advisories: "CIS Docker 5.22", "CVE-…"
}

// Facts is what [Run] cannot find out by itself, and where it looks.
type Facts struct {
	Caps       engine.Capabilities // what the engine said
	ProbeErr   error               // why it did not answer; then Caps is not looked at
	Containerd string              // containerd's version, if the engine told it
	DockerHost string              // empty: unix:///var/run/docker.sock
	StateDir   string              // empty: /var/lib/bailey
	Listen     []string            // addresses that must be free; empty when the server is running
	Bridged    []string            // classes whose workspaces have an open network
	OneOrigin  bool                // workspaces are on the console's own origin

	// Root is put before every path that is read (/proc, /sys, /etc, …), so
	// that tests can bring a machine of their own. Empty means "/".
	Root string
	// Now is the time; zero means time.Now().
	Now time.Time
	// Disk tells about the file system that holds a path; nil asks the kernel.
	Disk func(path string) (Disk, error)
	// Synced tells whether the kernel believes its clock to be synchronised;
	// nil asks the kernel.
	Synced func() (bool, error)
}

// Disk is the room on a file system.
type Disk struct {
	FreeBytes  uint64
	Files      uint64 // inodes altogether; 0 means that the file system has no limit
	FreeInodes uint64
}

// A check is one thing that is looked at.
type check struct {
	id, title string
	refs      []string
	engine    bool // it needs the engine's answer
	look      func(h *host) verdict
}

// A verdict is what a check found, without its name.
type verdict struct {
	severity    Severity
	detail, fix string
}

func ok(detail string) verdict { return verdict{OK, detail, ""} }

func okf(format string, args ...any) verdict { return ok(fmt.Sprintf(format, args...)) }

func warn(detail, fix string) verdict { return verdict{Warn, detail, fix} }

func fail(detail, fix string) verdict { return verdict{Fail, detail, fix} }

// Run makes every check that can be made and returns the findings in a fixed
// order, the good ones included. Checks that need the engine are left out when
// it did not answer, which is a finding of its own. It takes well under a
// second; when ctx ends first, the last finding says so.
func Run(ctx context.Context, f Facts) []Finding {
	f.Root = cmp.Or(f.Root, "/")
	f.StateDir = cmp.Or(f.StateDir, "/var/lib/bailey")
	f.DockerHost = cmp.Or(f.DockerHost, "unix:///var/run/docker.sock")
	if f.Now.IsZero() {
		f.Now = time.Now()
	}
	h := newHost(f)
	var findings []Finding
	for _, c := range checks() {
		if ctx.Err() != nil {
			return append(findings, Finding{
				ID: "interrupted", Severity: Fail, Title: "All checks made", Detail: "there was no time for the rest: " + ctx.Err().Error(), Fix: "run bailey doctor again",
			})
		}
		if c.engine && f.ProbeErr != nil {
			continue
		}
		v := c.look(h)
		findings = append(findings, Finding{ID: c.id, Severity: v.severity, Title: c.title, Detail: v.detail, Fix: v.fix, Refs: c.refs})
	}
	return findings
}

// Worst returns the worst severity among the findings; of none, OK.
func Worst(findings []Finding) Severity {
	worst := OK
	for _, f := range findings {
		if f.Severity == Fail || f.Severity == Warn && worst == OK {
			worst = f.Severity
		}
	}
	return worst
}

// checks is the list of everything that is looked at, in the order shown.
func checks() []check {
	return []check{
		{"docker-answers", "Docker answers", nil, false, dockerAnswers},
		{"docker-version", "Docker Engine is new enough", []string{"CIS Docker 1.2.2", "CVE-2026-41567", "CVE-2026-41568", "CVE-2026-42306", "CVE-2026-31431"}, true, dockerVersion},
		{"runc-version", "runc is new enough", []string{"CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881", "CVE-2026-41579"}, true, runcVersion},
		{"runc-kernel", "runc and the kernel get along", nil, true, runcKernel},
		{"containerd-version", "containerd is new enough", []string{"CVE-2024-25621", "CVE-2025-64329", "CVE-2026-46680", "CVE-2026-47262"}, false, containerdVersion},
		{"seccomp", "Docker filters system calls", []string{"CIS Docker 5.22"}, true, seccomp},
		{"cgroup-version", "Control groups are version 2", nil, true, cgroupVersion},
		{"cgroup-controllers", "Memory, processes and CPU can be limited", []string{"CIS Docker 5.11", "CIS Docker 5.12", "CIS Docker 5.29"}, true, cgroupControllers},
		{"userns-remap", "Docker leaves user ids as they are", []string{"CIS Docker 2.9"}, true, usernsRemap},
		{"live-restore", "Workspaces survive a restart of Docker", []string{"CIS Docker 2.15"}, true, liveRestore},
		{"default-runtime", "No container gets GPUs by default", []string{"CVE-2025-23266"}, true, defaultRuntime},
		{"docker-daemon-json", "Docker's configuration can be read", nil, false, daemonJSON},
		{"docker-tcp-config", "Docker is not configured to listen on TCP", []string{"CIS Docker 2.7"}, false, dockerTCPConfig},
		{"docker-tcp-open", "Docker's unencrypted port is closed", []string{"CIS Docker 2.7"}, false, dockerTCPOpen},
		{"docker-socket-mode", "Docker's socket is not open to everybody", []string{"CIS Docker 3.16"}, false, dockerSocketMode},
		{"docker-group", "Nobody is root by way of Docker's group", []string{"CIS Docker 1.1.2"}, false, dockerGroup},
		{"docker-logs", "Logs of other containers cannot fill the disk", []string{"CIS Docker 2.13"}, false, dockerLogs},
		{"docker-registries", "Docker trusts no registry without TLS", []string{"CIS Docker 2.5"}, false, dockerRegistries},
		{"kernel-version", "The kernel is maintained", nil, false, kernelVersion},
		{"lsm", "AppArmor or SELinux is on", []string{"CIS Docker 5.2", "CIS Docker 5.3"}, false, securityModule},
		{"module-algif-aead", "Kernel module algif_aead is absent", []string{"CVE-2026-31431"}, false, moduleAlgif},
		{"module-esp", "Kernel modules esp4 and esp6 are absent", []string{"CVE-2026-43284", "CVE-2026-46300"}, false, moduleESP},
		{"module-rxrpc", "Kernel module rxrpc is absent", []string{"CVE-2026-43500"}, false, moduleRxRPC},
		{"io-uring", "io_uring is restricted", nil, false, ioUring},
		{"ptrace-scope", "Processes cannot trace each other", nil, false, ptraceScope},
		{"core-pattern", "Crashes start no program on the host", nil, false, corePattern},
		{"bpf", "Unprivileged BPF is off", nil, false, unprivilegedBPF},
		{"kernel-pointers", "Kernel addresses are hidden", nil, false, kernelPointers},
		{"kernel-log", "The kernel's log is hidden", nil, false, kernelLog},
		{"links", "Links cannot lead root astray", nil, false, protectedLinks},
		{"swap", "Swap cannot get around memory limits", nil, true, swap},
		{"memory", "There is enough memory", nil, true, memorySize},
		{"state-disk", "The state directory has room", nil, false, stateDisk},
		{"docker-disk", "Docker's directory has room", []string{"CIS Docker 1.1.1"}, true, dockerDisk},
		{"state-mode", "The state directory is private", nil, false, stateMode},
		{"state-mount", "The state directory is on a suitable file system", nil, false, stateMount},
		{"root", "The server runs as root", nil, false, rootUser},
		{"ports", "The ports are free", nil, false, ports},
		{"shared-origin", "Workspaces have origins of their own", []string{"OWASP ASVS 3.5.4"}, false, sharedOrigin},
		{"open-networks", "No class has an open network", []string{"CIS Docker 5.10"}, false, openNetworks},
		{"clock", "The clock is right", nil, false, clock},
		{"clock-back", "The clock did not go back", nil, false, clockBack},
		{"clock-sync", "The clock is synchronised", nil, false, clockSync},
		{"nvidia-toolkit", "GPUs can be given to containers", nil, true, nvidiaToolkit},
		{"nvidia-toolkit-version", "NVIDIA's container toolkit is new enough", []string{"CVE-2024-0132", "CVE-2025-23266", "CVE-2026-24260"}, false, nvidiaToolkitVersion},
		{"nvidia-driver", "NVIDIA's driver is new enough", []string{"CVE-2026-24187"}, false, nvidiaDriver},
	}
}

// notThere reports whether an error means that a file does not exist.
func notThere(err error) bool { return isAny(err, fs.ErrNotExist) }
