package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of one file: the longest, dpkg's list of
// packages, is a few MiB.
const maxFile = 32 << 20

// A host is the machine as the checks see it. It belongs to one Run.
type host struct {
	Facts

	daemon    map[string]any // Docker's daemon.json; nil: none
	daemonErr error
	packages  map[string]string // from dpkg: installed packages and versions; nil: no dpkg
	kernel    version
}

func newHost(f Facts) *host {
	h := &host{Facts: f}
	if h.Disk == nil {
		h.Disk = diskOf
	}
	if h.Synced == nil {
		h.Synced = kernelSynced
	}
	h.kernel = parseVersion(h.line("/proc/sys/kernel/osrelease"))
	switch data, err := h.read("/etc/docker/daemon.json"); {
	case notThere(err):
	case err != nil:
		h.daemonErr = err
	default:
		h.daemon, h.daemonErr = parseDaemonJSON(data)
	}
	if data, err := h.read("/var/lib/dpkg/status"); err == nil {
		h.packages = parseDpkg(data, "containerd", "containerd.io", "nvidia-container-toolkit")
	}
	return h
}

// at returns where a path of the machine is to be read.
func (h *host) at(path string) string { return filepath.Join(h.Root, path) }

// read returns at most maxFile bytes of a file of the machine.
func (h *host) read(path string) (data []byte, err error) {
	f, err := os.Open(h.at(path))
	if err != nil {
		return nil, err //nolint:wrapcheck // the callers say what they looked for
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

// line returns the first line of a file, without space around it; of a file
// that cannot be read, "".
func (h *host) line(path string) string {
	data, err := h.read(path)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(first)
}

// exists reports whether a path of the machine is there.
func (h *host) exists(path string) bool {
	_, err := os.Lstat(h.at(path))
	return err == nil
}

// sysctl returns a number below /proc/sys; known is false when there is none.
func (h *host) sysctl(path string) (value int, known bool) {
	n, err := strconv.Atoi(h.line("/proc/sys/" + path))
	return n, err == nil
}

// euid returns the effective user id of this process, as /proc tells it; -1
// when it does not.
func (h *host) euid() int {
	data, err := h.read("/proc/self/status")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(data)) {
		if ids, found := strings.CutPrefix(line, "Uid:"); found {
			if f := strings.Fields(ids); len(f) >= 2 {
				if n, err := strconv.Atoi(f[1]); err == nil {
					return n
				}
			}
		}
	}
	return -1
}

// parseDaemonJSON reads Docker's configuration file.
func parseDaemonJSON(data []byte) (map[string]any, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return map[string]any{}, nil
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	return m, nil
}

// parseDpkg returns the versions of those named packages that are installed.
func parseDpkg(data []byte, names ...string) map[string]string {
	found := map[string]string{}
	for stanza := range bytes.SplitSeq(data, []byte("\n\n")) {
		var name, installed, ver string
		for line := range bytes.Lines(stanza) {
			key, value, _ := bytes.Cut(line, []byte(":"))
			switch string(key) {
			case "Package":
				name = string(bytes.TrimSpace(value))
			case "Status":
				installed = string(bytes.TrimSpace(value))
			case "Version":
				ver = string(bytes.TrimSpace(value))
			}
		}
		for _, n := range names {
			if name == n && strings.HasSuffix(installed, " installed") && ver != "" {
				found[n] = ver
			}
		}
	}
	return found
}

// diskOf asks the kernel about the file system of a path.
func diskOf(path string) (Disk, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Disk{}, fmt.Errorf("ask for the room at %s: %w", path, err)
	}
	return Disk{FreeBytes: s.Bavail * uint64(s.Bsize), Files: s.Files, FreeInodes: s.Ffree}, nil //nolint:gosec // block sizes are positive
}

// kernelSynced asks the kernel whether something keeps its clock right.
func kernelSynced() (bool, error) {
	var t unix.Timex // Modes 0: only look
	if _, err := unix.Adjtimex(&t); err != nil {
		return false, fmt.Errorf("ask for the clock's state: %w", err)
	}
	return t.Status&unix.STA_UNSYNC == 0, nil
}

func isAny(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}
