package measure

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc/PID/stat: USER_HZ is 100 on every
// Linux that Go runs on.
const tick = 10 * time.Millisecond

// A Usage is what a process has used up to now, or holds now.
type Usage struct {
	CPU   time.Duration // user and system, all threads, since its start; in steps of 10 ms
	RSS   int64         // resident bytes
	Peak  int64         // the most resident bytes it ever had
	Files int           // open file descriptors
}

// Of reads the usage of a process. It needs the right to look at the process's
// descriptors: the same user, or root.
func Of(pid int) (Usage, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Usage{}, fmt.Errorf("usage of process %d: %w", pid, err)
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return Usage{}, fmt.Errorf("usage of process %d: %w", pid, err)
	}
	files, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return Usage{}, fmt.Errorf("usage of process %d: %w", pid, err)
	}
	u := Usage{Files: len(files)}
	if u.CPU, err = cpuOf(stat); err != nil {
		return Usage{}, fmt.Errorf("usage of process %d: %w", pid, err)
	}
	if u.RSS, err = kibOf(status, "VmRSS:"); err != nil {
		return Usage{}, fmt.Errorf("usage of process %d: %w", pid, err)
	}
	if u.Peak, err = kibOf(status, "VmHWM:"); err != nil {
		return Usage{}, fmt.Errorf("usage of process %d: %w", pid, err)
	}
	return u, nil
}

// cpuOf reads utime and stime, fields 14 and 15. The command name before them
// is in parentheses and may hold anything, so fields are counted after it.
func cpuOf(stat []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("stat has no command name")
	}
	f := strings.Fields(string(stat[end+1:]))
	if len(f) < 13 {
		return 0, fmt.Errorf("stat has %d fields after the command name, want 13 or more", len(f))
	}
	user, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("utime: %w", err)
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("stime: %w", err)
	}
	return time.Duration(user+system) * tick, nil
}

// kibOf reads a line "Key:  123 kB" in bytes.
func kibOf(status []byte, key string) (int64, error) {
	for line := range strings.Lines(string(status)) {
		rest, ok := strings.CutPrefix(line, key)
		if !ok {
			continue
		}
		f := strings.Fields(rest)
		if len(f) != 2 || f[1] != "kB" {
			return 0, fmt.Errorf("status line %q is not an amount of kB", strings.TrimSpace(line))
		}
		n, err := strconv.ParseInt(f[0], 10, 64)
		return n << 10, err
	}
	return 0, fmt.Errorf("status has no line %s", key)
}
