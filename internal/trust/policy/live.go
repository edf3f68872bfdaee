package policy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Load reads the policy file at path and the files it names.
func Load(path string) (*Policy, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read image policy: %w", err)
	}
	return Parse(path, data, readFile)
}

// readFile reads at most a few hundred kilobytes of a regular file that not
// everybody may change: whoever writes it decides what may run.
func readFile(path string) (data []byte, err error) {
	// O_NONBLOCK: a named pipe must not hold a decision up.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("look at %s: %w", path, err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", path)
	case info.Mode().Perm()&0o002 != 0:
		return nil, fmt.Errorf("everybody on this machine may change %s; chmod o-w it", path)
	}
	data, err = io.ReadAll(io.LimitReader(f, 1<<20+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > 1<<20 {
		return nil, fmt.Errorf("%s is larger than 1 MiB", path)
	}
	return data, nil
}

// lookEvery is how often a decision looks whether the files changed: a removed
// key counts within half a second.
const lookEvery = 500 * time.Millisecond

// Live is a policy file that is read again when it, or a file it names,
// changes. While the policy's new text has problems the last one that had none
// stays in force; while a key or root that it names is gone, nothing is
// allowed. It may be used concurrently.
type Live struct {
	path string
	log  *slog.Logger
	now  atomic.Pointer[Policy]

	mu     sync.Mutex // guards the rest
	looked time.Time
	stamp  map[string]stamp
	err    error
}

// A stamp tells one state of a file from another without reading it.
type stamp struct {
	size  int64
	mtime time.Time
	ctime int64
	ino   uint64
}

// OpenLive reads the policy at path, which must be right the first time.
func OpenLive(path string, log *slog.Logger) (*Live, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Live{path: path, log: log}
	p, err := Load(path)
	if err != nil {
		return nil, err
	}
	l.now.Store(p)
	l.looked, l.stamp = time.Now(), stamps(p.Files)
	return l, nil
}

// Current returns the policy in force, looking at the files first if that was
// not done within the last half second.
func (l *Live) Current() *Policy {
	if l.mu.TryLock() { // somebody else is looking: what is in force will do
		defer l.mu.Unlock()
		if time.Since(l.looked) >= lookEvery {
			l.look()
		}
	}
	return l.now.Load()
}

// Problem returns why the files as they are now cannot be used, or nil.
func (l *Live) Problem() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look()
	return l.err
}

func (l *Live) look() {
	l.looked = time.Now()
	old := l.now.Load()
	now := stamps(old.Files)
	if l.err == nil && same(now, l.stamp) {
		return
	}
	p, err := Load(l.path)
	if err != nil {
		if l.err == nil || l.err.Error() != err.Error() {
			l.log.Error("image policy cannot be read; the last one stays in force", slog.String("file", l.path), slog.Any("error", err))
		}
		l.err = err
		for _, f := range old.Files[1:] {
			if now[f].size < 0 {
				// Deleting a key's file is how some people take a key back.
				l.now.Store(&Policy{Name: l.path, Hash: old.Hash, Files: old.Files, Broken: f + " is gone, and the policy names it"})
				return
			}
		}
		return
	}
	l.err, l.stamp = nil, stamps(p.Files)
	if p.Hash != old.Hash || old.Broken != "" {
		l.log.Info("image policy changed", slog.String("file", l.path), slog.String("hash", p.Hash), slog.Int("rules", len(p.Rules)))
		l.now.Store(p)
	}
}

func same(a, b map[string]stamp) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v.size != w.size || !v.mtime.Equal(w.mtime) || v.ctime != w.ctime || v.ino != w.ino {
			return false
		}
	}
	return true
}

func stamps(files []string) map[string]stamp {
	all := map[string]stamp{}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				all[f] = stamp{size: -2}
			} else {
				all[f] = stamp{size: -1}
			}
			continue
		}
		s := stamp{size: info.Size(), mtime: info.ModTime()}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			s.ctime, s.ino = st.Ctim.Nano(), st.Ino
		}
		all[f] = s
	}
	return all
}
