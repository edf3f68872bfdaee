package docker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// cgroups are the control groups of one container, as directories on the host.
type cgroups struct {
	unified string            // cgroup v2; empty on v1
	v1      map[string]string // controller to directory
}

// readCgroups finds the control groups of a process that belongs to container
// id. A group whose path does not name the container is an error: then the
// process is somebody else's, or the limits we would read are.
func readCgroups(pid int, id string) (cgroups, error) {
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return cgroups{}, fmt.Errorf("read control groups: %w", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return cgroups{}, fmt.Errorf("read control groups: %w", err)
	}
	return findCgroups(own, mounts, id)
}

// findCgroups is readCgroups on the texts of the files.
func findCgroups(own, mountinfo []byte, id string) (cgroups, error) {
	mounts, err := parseMountinfo(mountinfo)
	if err != nil {
		return cgroups{}, err
	}
	out := cgroups{v1: map[string]string{}}
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			return cgroups{}, fmt.Errorf("control group line %q is malformed", line)
		}
		path := filepath.Clean("/" + parts[2])
		controllers := strings.Split(parts[1], ",")
		for _, m := range mounts {
			switch {
			case m.FSType == "cgroup2" && parts[1] == "" && strings.Contains(path, id) && len(out.v1) == 0:
				out.unified = filepath.Join(m.Point, path)
			case m.FSType == "cgroup" && parts[1] != "" && slices.Contains(m.SuperOptions, controllers[0]):
				if !strings.Contains(path, id) {
					return cgroups{}, fmt.Errorf("control group %s of %s is not the container's", path, parts[1])
				}
				for _, c := range controllers {
					out.v1[c] = filepath.Join(m.Point, path)
				}
			}
		}
	}
	if len(out.v1) > 0 {
		out.unified = "" // a hybrid host: the v1 controllers are the ones that limit
	}
	if out.unified == "" && len(out.v1) == 0 {
		return cgroups{}, errors.New("the container's control groups are not where this host mounts them")
	}
	return out, nil
}

// number reads a file with one number; "max" is -1. v1 names the controller
// and file of cgroup v1, v2 the file of cgroup v2.
func (g cgroups) number(controller, v1, v2 string) (int64, error) {
	path := filepath.Join(g.unified, v2)
	if g.unified == "" {
		path = filepath.Join(g.v1[controller], v1)
		if g.v1[controller] == "" {
			return 0, fmt.Errorf("no %s controller", controller)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if first == "max" {
		return -1, nil
	}
	return strconv.ParseInt(first, 10, 64)
}

// cpuMillis returns the CPU limit in thousandths of a core, or -1 for none.
func (g cgroups) cpuMillis() (int64, error) {
	quota, err := g.number("cpu", "cpu.cfs_quota_us", "cpu.max")
	if err != nil || quota < 0 {
		return -1, err
	}
	period := int64(100_000)
	if g.unified == "" {
		if period, err = g.number("cpu", "cpu.cfs_period_us", ""); err != nil {
			return 0, err
		}
	} else {
		text, err := os.ReadFile(filepath.Join(g.unified, "cpu.max"))
		if err != nil {
			return 0, err
		}
		if fields := strings.Fields(string(text)); len(fields) == 2 {
			if period, err = strconv.ParseInt(fields[1], 10, 64); err != nil {
				return 0, err
			}
		}
	}
	if period <= 0 {
		return 0, fmt.Errorf("cpu period is %d", period)
	}
	return quota * 1000 / period, nil
}

// oomKills returns how many processes the kernel killed in the container for
// want of memory, or 0 when it does not say.
func (g cgroups) oomKills() uint64 {
	path := filepath.Join(g.unified, "memory.events")
	if g.unified == "" {
		path = filepath.Join(g.v1["memory"], "memory.oom_control")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if n, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
			kills, _ := strconv.ParseUint(n, 10, 64) // 0 when malformed
			return kills
		}
	}
	return 0
}

// A mountEntry is one line of mountinfo.
type mountEntry struct {
	Root, Point  string
	Options      []string // of this mount
	FSType       string
	Source       string
	SuperOptions []string // of the file system
	Propagation  []string // "shared:N", "master:N"
}

// parseMountinfo reads /proc/<pid>/mountinfo (proc_pid_mountinfo(5)). For a
// container it is text that its tenant can influence, mount points included.
func parseMountinfo(text []byte) ([]mountEntry, error) {
	var out []mountEntry
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		left, right, ok := strings.Cut(line, " - ")
		before, after := strings.Split(left, " "), strings.Split(right, " ")
		if !ok || len(before) < 6 || len(after) < 3 {
			return nil, fmt.Errorf("mountinfo line %q is malformed", line)
		}
		out = append(out, mountEntry{
			Root: unescapeMount(before[3]), Point: unescapeMount(before[4]),
			Options: strings.Split(before[5], ","), Propagation: before[6:],
			FSType: after[0], Source: unescapeMount(after[1]), SuperOptions: strings.Split(after[2], ","),
		})
	}
	return out, nil
}

// unescapeMount undoes the kernel's octal escapes for space, tab, line break
// and backslash.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
