package docker

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
)

// factsAge is how long what the daemon said about itself is believed without
// asking again.
const factsAge = 30 * time.Second

// appArmorProfile is ours, loaded by the package's installation where the
// kernel has AppArmor.
const appArmorProfile = "bailey-workspace"

// Probe implements [engine.Engine].
func (e *Engine) Probe(ctx context.Context) (engine.Capabilities, error) {
	version, err := e.api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return engine.Capabilities{}, wrap("probe docker", err)
	}
	info, err := e.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return engine.Capabilities{}, wrap("probe docker", err)
	}
	e.keepFacts(e.factsOf(ctx, info.Info))
	c := capabilitiesOf(info.Info)
	c.Version, c.APIVersion = version.Version, version.APIVersion
	for _, part := range version.Components {
		if part.Name == "runc" {
			c.RuncVersion = part.Version
		}
	}
	c.Warnings = append(c.Warnings, probeWarnings(c, info.Info)...)
	return c, nil
}

// capabilitiesOf reads the daemon's own description.
func capabilitiesOf(info system.Info) engine.Capabilities {
	_, nvidia := info.Runtimes["nvidia"]
	cdi := slices.ContainsFunc(cdiDevices(info), func(string) bool { return true })
	return engine.Capabilities{
		Kind:           "docker",
		CgroupVersion:  cgroupVersion(info),
		Seccomp:        hasSecurity(info, "seccomp"),
		AppArmor:       hasSecurity(info, "apparmor"),
		UsernsRemap:    hasSecurity(info, "userns"),
		LiveRestore:    info.LiveRestoreEnabled,
		CDI:            len(info.CDISpecDirs) > 0,
		GPUDriver:      nvidia || cdi,
		DefaultRuntime: info.DefaultRuntime,
		ByManifest:     slices.Contains(info.DriverStatus, [2]string{"driver-type", "io.containerd.snapshotter.v1"}),
		CPUs:           info.NCPU,
		MemoryBytes:    info.MemTotal,
		RootDir:        info.DockerRootDir,
		Warnings:       slices.Clone(info.Warnings),
	}
}

func probeWarnings(c engine.Capabilities, info system.Info) []string {
	var out []string
	add := func(bad bool, text string) {
		if bad {
			out = append(out, text)
		}
	}
	add(!c.Seccomp, "the engine has no seccomp: workspaces will not start")
	add(!c.AppArmor, "the kernel or the engine has no AppArmor: one wall less around workspaces")
	add(c.UsernsRemap, "the engine remaps user ids (userns-remap): not supported, workspaces will not start")
	add(!c.LiveRestore, "live-restore is off: restarting the engine stops every workspace")
	add(!info.SwapLimit && c.CgroupVersion == "1" && hostHasSwap(), "the kernel cannot limit swap: workspaces can use more than their memory limit")
	add(c.DefaultRuntime == "nvidia", "nvidia is the default runtime: every container that is not ours sees the GPUs that its image asks for")
	return out
}

func hasSecurity(info system.Info, name string) bool {
	return slices.ContainsFunc(info.SecurityOptions, func(opt string) bool {
		return strings.HasPrefix(opt, "name="+name) || opt == name
	})
}

// cgroupVersion is "1" or "2"; engines before 20.10 say nothing and know only 1.
func cgroupVersion(info system.Info) string {
	if info.CgroupVersion == "2" {
		return "2"
	}
	return "1"
}

func cdiDevices(info system.Info) []string {
	var out []string
	for _, d := range info.DiscoveredDevices {
		if d.Source == "cdi" && strings.HasPrefix(d.ID, cdiKind) {
			out = append(out, d.ID)
		}
	}
	return out
}

// factsOf takes from the daemon's description, and from the host, what
// containers are compiled with.
func (e *Engine) factsOf(ctx context.Context, info system.Info) facts {
	f := facts{
		CPUs:         info.NCPU,
		ThrottleCPUs: throttleCPUs(),
		CDI:          cdiDevices(info),
		SwapLimit:    info.SwapLimit,
		UsernsRemap:  hasSecurity(info, "userns"),
		MaxFiles:     daemonMaxFiles(ctx, strings.TrimPrefix(e.cfg.Host, "unix://")),
	}
	if hasSecurity(info, "apparmor") && appArmorLoaded() {
		f.AppArmor = appArmorProfile
	}
	// An nvidia default runtime acts on every container; ours ask for none of
	// it unless GPUs are leased, and then ask by name.
	if _, ok := info.Runtimes["runc"]; ok && info.DefaultRuntime == "nvidia" {
		f.Runtime = "runc"
	}
	return f
}

// daemonMaxFiles returns how many open files the daemon behind a socket can
// grant a container: any number (0) as a rule, but no more than its own hard
// limit when it lacks CAP_SYS_RESOURCE, as in a virtual machine's container.
// Asking for more makes every start fail.
func daemonMaxFiles(ctx context.Context, socket string) int64 {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return 0
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return 0
	}
	cred, err := peerOf(unixConn)
	if err != nil {
		return 0
	}
	status, errStatus := os.ReadFile(fmt.Sprintf("/proc/%d/status", cred.Pid))
	limits, errLimits := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cred.Pid))
	if errStatus != nil || errLimits != nil {
		return 0
	}
	return maxFiles(string(status), string(limits))
}

// maxFiles is daemonMaxFiles on the texts of /proc/<pid>/status and limits.
func maxFiles(status, limits string) int64 {
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			if err != nil || caps>>unix.CAP_SYS_RESOURCE&1 == 1 {
				return 0
			}
		}
	}
	for line := range strings.Lines(limits) {
		if values, ok := strings.CutPrefix(line, "Max open files"); ok {
			if fields := strings.Fields(values); len(fields) >= 2 {
				hard, _ := strconv.ParseInt(fields[1], 10, 64) // "unlimited": 0, any number
				return hard
			}
		}
	}
	return 0
}

// throttleCPUs lists the cores whose throttling counters the host shows.
func throttleCPUs() []int {
	dirs, _ := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle") // the pattern is right, so there is no error
	var out []int
	for _, dir := range dirs {
		if cpu, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(dir)), "cpu")); err == nil {
			out = append(out, cpu)
		}
	}
	slices.Sort(out)
	return out
}

// appArmorLoaded reports whether our profile is in the kernel. If it is not,
// the daemon's own profile applies.
func appArmorLoaded() bool {
	text, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
	return err == nil && slices.ContainsFunc(strings.Split(string(text), "\n"), func(line string) bool {
		return strings.HasPrefix(line, appArmorProfile+" (")
	})
}

func hostHasSwap() bool {
	text, err := os.ReadFile("/proc/swaps")
	return err == nil && strings.Count(string(text), "\n") > 1
}

// keepFacts remembers f for factsAge.
func (e *Engine) keepFacts(f facts) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.facts, e.read = &f, time.Now()
}

// freshFacts returns what the daemon said at most factsAge ago.
func (e *Engine) freshFacts(ctx context.Context) (facts, error) {
	e.mu.Lock()
	if e.facts != nil && time.Since(e.read) < factsAge {
		defer e.mu.Unlock()
		return *e.facts, nil
	}
	e.mu.Unlock()
	info, err := e.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return facts{}, wrap("ask docker about itself", err)
	}
	f := e.factsOf(ctx, info.Info)
	e.keepFacts(f)
	return f, nil
}

// factsFor adds to the host's facts those of one Spec and its image.
func (e *Engine) factsFor(ctx context.Context, s engine.Spec, img resolvedImage) (facts, error) {
	f, err := e.freshFacts(ctx)
	if err != nil {
		return facts{}, err
	}
	if f.UsernsRemap {
		return facts{}, &bailey.Error{
			Kind: bailey.Unavailable,
			Msg:  "Docker remaps user ids (userns-remap), and workspaces cannot start then: the owner of a volume would be nobody inside",
			Hint: "take userns-remap out of the daemon's configuration",
		}
	}
	f.Instance = e.cfg.Instance
	f.Bridge = e.bridgeName()
	f.AgentPath = e.cfg.AgentPath
	f.RunDir = filepath.Join(e.runs.Name(), s.Run)
	f.VolumeDir = filepath.Join(e.volumes.Name(), s.VolumeID)
	f.ImageID, f.ImageEnv = img.ID, img.Env
	return f, nil
}
