package docker

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/engine"
)

// mounts reads the mounts that really are in the container's namespace and
// makes sure that our directories are the ones meant.
func (f *findings) mounts(proc *os.File, s engine.Spec, facts facts) error {
	text, err := readProc(proc, "mountinfo")
	if err != nil {
		return err
	}
	entries, err := parseMountinfo(text)
	if err != nil {
		return err
	}
	f.mountTable(entries, s, facts)
	for _, b := range binds(s, facts) {
		if b.Target == engine.AgentBinary {
			continue // an upgrade replaces the file; what runs keeps the one it started with
		}
		if err := f.sameFile(proc, b); err != nil {
			return err
		}
	}
	return nil
}

// sameFile compares the file at a mount point with the one on the host that
// should be there.
func (f *findings) sameFile(proc *os.File, b bind) error {
	var host, inside unix.Stat_t
	if err := unix.Lstat(b.Source, &host); err != nil {
		return &os.PathError{Op: "stat", Path: b.Source, Err: err}
	}
	// Every directory on the way is the read-only root's or a mount point, which
	// a tenant cannot exchange; the last step follows no link.
	err := unix.Fstatat(int(proc.Fd()), "root"+b.Target, &inside, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		f.want("mount "+b.Target, b.Source, "nothing")
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: "root" + b.Target, Err: err}
	}
	if host.Dev != inside.Dev || host.Ino != inside.Ino {
		f.want("mount "+b.Target, b.Source, "another file")
	}
	return nil
}

// mountTable compares a container's mounts with the only ones it may have.
func (f *findings) mountTable(entries []mountEntry, s engine.Spec, facts facts) {
	p := engine.Strict()
	seen := map[string]int{}
	for _, m := range entries {
		seen[m.Point]++
		if problem := mountProblem(m, s, p, facts); problem != "" {
			f.want("mount "+clip(m.Point), "as the profile says", problem)
		}
	}
	required := []string{"/"}
	for _, b := range binds(s, facts) {
		required = append(required, b.Target)
		if seen[b.Target] > 1 {
			f.want("mount "+b.Target, "once", strconv.Itoa(seen[b.Target])+" times")
		}
	}
	for _, t := range p.Tmpfs {
		required = append(required, t.Path)
	}
	// The files behind these are of the kernel, so what the host has, the
	// container would have.
	for _, path := range slices.Concat(p.MaskedPaths, p.ReadOnlyPaths) {
		if _, err := os.Stat(path); err == nil {
			required = append(required, path)
		}
	}
	for _, point := range required {
		if seen[point] == 0 {
			f.want("mount "+point, "mounted", "absent")
		}
	}
}

// mountProblem says what is wrong with one mount, or nothing.
func mountProblem(m mountEntry, s engine.Spec, p engine.Profile, facts facts) string {
	for _, b := range binds(s, facts) {
		if m.Point == b.Target {
			return bindProblem(m, b)
		}
	}
	for _, t := range p.Tmpfs {
		if m.Point == t.Path {
			return tmpfsProblem(m, s, t)
		}
	}
	switch {
	case slices.Contains(maskedPaths(p, facts.ThrottleCPUs), m.Point):
		return unless(m.Root == "/null" || m.FSType == "tmpfs" && slices.Contains(m.Options, "ro"), "not masked: "+m.FSType)
	case slices.Contains(p.ReadOnlyPaths, m.Point):
		return unless(m.FSType == "proc" && slices.Contains(m.Options, "ro"), "writable")
	case m.Point == "/" || m.Point == "/etc/resolv.conf" || m.Point == "/etc/hostname" || m.Point == "/etc/hosts":
		return unless(slices.Contains(m.Options, "ro"), "writable")
	case m.Point == "/sys/fs/cgroup" && m.FSType == "tmpfs":
		// cgroup v1: a directory for the controllers' mounts, in a namespace of its
		// own left writable by runc, but for root, whom there is none of inside.
		return unless(slices.Contains(m.Options, "ro") || slices.Contains(m.SuperOptions, "mode=755"), "writable")
	case m.Point == "/sys" || m.Point == "/sys/fs/cgroup" || strings.HasPrefix(m.Point, "/sys/fs/cgroup/"):
		fits := slices.Contains([]string{"sysfs", "tmpfs", "cgroup", "cgroup2"}, m.FSType)
		return unless(fits && slices.Contains(m.Options, "ro"), "writable or "+m.FSType)
	case m.Point == "/dev/shm":
		return tmpfsProblem(m, s, engine.Tmpfs{Path: m.Point, Bytes: s.ShmBytes})
	}
	if kind, ok := ownMounts()[m.Point]; ok {
		return unless(m.FSType == kind, m.FSType)
	}
	if len(s.GPUs) > 0 && isDriverMount(m) {
		return ""
	}
	return fmt.Sprintf("a mount nobody asked for: %s %s", m.FSType, m.Root)
}

// ownMounts are file systems of the container's own that every runtime mounts.
func ownMounts() map[string]string {
	return map[string]string{"/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/dev/mqueue": "mqueue"}
}

func bindProblem(m mountEntry, b bind) string {
	if slices.Contains(m.Options, "ro") != b.ReadOnly {
		return fmt.Sprintf("read-only is %t", !b.ReadOnly)
	}
	for _, p := range m.Propagation {
		if strings.HasPrefix(p, "shared:") || strings.HasPrefix(p, "master:") {
			return "propagates mounts: " + p
		}
	}
	return ""
}

func tmpfsProblem(m mountEntry, s engine.Spec, t engine.Tmpfs) string {
	if m.FSType != "tmpfs" {
		return m.FSType + " instead of tmpfs"
	}
	for _, opt := range []string{"nosuid", "nodev"} {
		if !slices.Contains(m.Options, opt) {
			return "no " + opt
		}
	}
	if slices.Contains(m.Options, "noexec") == t.Exec {
		return fmt.Sprintf("executable is %t", !t.Exec)
	}
	size := t.Bytes
	if size == 0 {
		size = s.TmpBytes
	}
	// The kernel rounds up to pages and prints KiB.
	page := int64(os.Getpagesize())
	want := "size=" + strconv.FormatInt((size+page-1)/page*page/1024, 10) + "k"
	return unless(slices.Contains(m.SuperOptions, want), "size is not "+want)
}

// isDriverMount reports whether a mount is what the NVIDIA toolkit adds to a
// container with GPUs: libraries, tools, firmware and device nodes of the
// driver, none of them a directory of the host's that can be written.
func isDriverMount(m mountEntry) bool {
	name := path.Base(m.Point)
	named := strings.Contains(name, "nvidia") || strings.HasPrefix(name, "libcuda") || strings.HasPrefix(name, "libnv") ||
		strings.HasPrefix(name, "gsp_") || strings.HasPrefix(name, "libvdpau_nvidia") || strings.HasPrefix(name, "libEGL_nvidia")
	switch {
	case strings.HasPrefix(m.Point, "/dev/nvidia"):
		return m.FSType == "devtmpfs" || m.FSType == "tmpfs"
	case strings.HasPrefix(m.Point, "/proc/driver/nvidia"):
		return slices.Contains(m.Options, "ro") || m.FSType == "proc" || m.FSType == "tmpfs"
	case strings.HasPrefix(m.Point, "/run/nvidia-persistenced/") || strings.HasPrefix(m.Point, "/usr/lib/firmware/nvidia/") || strings.HasPrefix(m.Point, "/lib/firmware/nvidia/"):
		return slices.Contains(m.Options, "ro")
	case strings.HasPrefix(m.Point, "/usr/") || strings.HasPrefix(m.Point, "/lib") || strings.HasPrefix(m.Point, "/etc/"):
		return named && slices.Contains(m.Options, "ro")
	}
	return false
}

func unless(ok bool, problem string) string {
	if ok {
		return ""
	}
	return problem
}
