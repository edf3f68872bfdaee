package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/e2e/bench/measure"
)

// A machine is where and when something was measured.
type machine struct {
	When   time.Time `json:"when"`
	Commit string    `json:"commit"`
	CPU    string    `json:"cpu"`
	Cores  int       `json:"cores"`
	Memory int64     `json:"memory"`
	Kernel string    `json:"kernel"`
	Go     string    `json:"go"`
	Docker string    `json:"docker"`
	Node   string    `json:"node"`
	Busy   float64   `json:"busy"` // share of the CPUs that others used right before
}

// describe looks at the machine.
func describe(ctx context.Context) (machine, error) {
	m := machine{When: time.Now().UTC().Truncate(time.Second), Cores: runtime.NumCPU(), Go: runtime.Version()}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("kernel: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	var i unix.Sysinfo_t
	if err := unix.Sysinfo(&i); err != nil {
		return m, fmt.Errorf("memory: %w", err)
	}
	m.Memory = int64(i.Totalram) * int64(i.Unit)
	m.CPU = cpuModel()
	for _, ask := range []struct {
		into *string
		cmd  []string
	}{
		{&m.Docker, []string{"docker", "version", "--format", "{{.Server.Version}}"}},
		{&m.Node, []string{"node", "--version"}},
		{&m.Commit, []string{"git", "describe", "--always", "--dirty", "--abbrev=12"}},
	} {
		out, err := exec.CommandContext(ctx, ask.cmd[0], ask.cmd[1:]...).Output()
		if err != nil {
			return m, fmt.Errorf("%s: %w", strings.Join(ask.cmd, " "), err)
		}
		*ask.into = strings.TrimSpace(string(out))
	}
	return m, nil
}

// quiet is the share of the CPUs that others may use before a measurement.
const quiet = 0.05

// calm waits, at most for patience, until nobody uses the machine much, looking
// for a moment at a time, and returns the share of the CPUs that was used in
// the last of these moments.
func calm(ctx context.Context, moment, patience time.Duration) (busy float64, err error) {
	for deadline := time.Now().Add(patience); ; {
		used, all, err := cpuTimes()
		if err != nil {
			return 0, err
		}
		if err := pause(ctx, moment); err != nil {
			return 0, err
		}
		usedNow, allNow, err := cpuTimes()
		if err != nil {
			return 0, err
		}
		if busy = float64(usedNow-used) / float64(max(allNow-all, 1)); busy <= quiet || time.Now().After(deadline) {
			return busy, nil
		}
	}
}

// cpuTimes returns the ticks that all CPUs together were used, and the ticks
// there were. What a hypervisor gave to somebody else counts as used.
func cpuTimes() (used, all int64, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	for i, text := range f[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		all += n
		if i != 3 && i != 4 {
			used += n
		}
	}
	return used, all, nil
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

func (m machine) String() string {
	return fmt.Sprintf("%d cores (%s), %s memory, Linux %s, Docker Engine %s, %s, Node.js %s",
		m.Cores, m.CPU, measure.Bytes.Format(float64(m.Memory)), m.Kernel, m.Docker, m.Go, m.Node)
}

// An image is what a class starts.
type image struct{ ID, Tag string }

// images returns the newest image of each catalogue name that is loaded.
func images(ctx context.Context) (map[string]image, error) {
	out, err := exec.CommandContext(ctx, "docker", "image", "ls", "--no-trunc", "--filter", "label=dev.bailey.image", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").Output()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	found, newest := map[string]image{}, map[string]string{}
	for line := range strings.Lines(string(out)) {
		id, tag, _ := strings.Cut(strings.TrimSpace(line), " ")
		b, err := exec.CommandContext(ctx, "docker", "image", "inspect", "--format", "{{json .}}", id).Output()
		if err != nil {
			return nil, fmt.Errorf("inspect image %s: %w", id, err)
		}
		var v struct {
			Created string
			Config  struct{ Labels map[string]string }
		}
		if err := json.Unmarshal(b, &v); err != nil {
			return nil, fmt.Errorf("inspect image %s: %w", id, err)
		}
		if name := v.Config.Labels["dev.bailey.image"]; v.Created > newest[name] {
			newest[name], found[name] = v.Created, image{ID: id, Tag: tag}
		}
	}
	return found, nil
}
