package app

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/engine/docker"
)

// A state is the server's folder: locked by one server at a time, with the
// installation's id and its master key.
type state struct {
	dir      string
	instance string // ULID; labels this installation's containers
	master   []byte // 32 bytes; other keys are derived from it
	lock     *os.File
}

// openState makes or opens the folder and locks it. A second server on the same
// folder is refused.
func openState(dir string) (_ *state, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &bailey.Error{Kind: bailey.Unavailable, Msg: "cannot make the state folder " + dir, Hint: "run as root, or choose another with --state DIR", Cause: err}
	}
	s := &state{dir: dir}
	s.lock, err = os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &bailey.Error{Kind: bailey.Unavailable, Msg: "cannot write to the state folder " + dir, Hint: "run as root, free some space, or choose another with --state DIR", Cause: err}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lock.Close())
		}
	}()
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, &bailey.Error{
			Kind: bailey.Conflict, Msg: "another bailey server is using the state folder " + dir + holder(s.lock),
			Hint: "stop that one first, or give this one its own folder with --state DIR",
		}
	} else if err != nil {
		return nil, fmt.Errorf("lock the state folder %s: %w", dir, err)
	}
	if err := errors.Join(s.lock.Truncate(0), writeAt(s.lock, strconv.Itoa(os.Getpid()))); err != nil {
		return nil, fmt.Errorf("write the lock of the state folder: %w", err)
	}
	id, err := s.once("instance", func() string { return bailey.NewID() })
	if err != nil {
		return nil, err
	}
	s.instance = id
	key, err := s.once("master.key", func() string {
		b := make([]byte, 32)
		_, _ = rand.Read(b) // never fails since Go 1.24
		return hex.EncodeToString(b)
	})
	if err != nil {
		return nil, err
	}
	if s.master, err = hex.DecodeString(key); err != nil || len(s.master) != 32 {
		return nil, &bailey.Error{
			Kind: bailey.Unavailable, Msg: s.path("master.key") + " does not hold a key",
			Hint: "restore it from a backup; without it, what it sealed cannot be read", Cause: err,
		}
	}
	return s, nil
}

func holder(lock *os.File) string {
	b := make([]byte, 16)
	n, _ := lock.ReadAt(b, 0)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n]))); err == nil {
		return fmt.Sprintf(" (process %d)", pid)
	}
	return ""
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text+"\n"), 0)
	return err
}

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

// once reads a small file, or makes it: whole, 0600 and on disk before it is used.
func (s *state) once(name string, fresh func() string) (string, error) {
	b, err := os.ReadFile(s.path(name))
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the state: %w", err)
	}
	text := fresh()
	if err := writeFile(s.path(name), strings.NewReader(text+"\n"), 0o600); err != nil {
		return "", &bailey.Error{Kind: bailey.Unavailable, Msg: "cannot write to the state folder " + s.dir, Hint: "is the disk full?", Cause: err}
	}
	return text, nil
}

// writeFile writes through a temporary file, so that a full disk or a crash
// never leaves half of it.
func writeFile(path string, from io.Reader, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// key derives the 32-byte key for a purpose.
func (s *state) key(purpose string) []byte {
	k, err := hkdf.Key(sha256.New, s.master, nil, "bailey v1 "+purpose, 32)
	if err != nil {
		panic("app: " + err.Error()) // 32 bytes are always possible
	}
	return k
}

// installAgent copies the agent into the state under the hash of its content:
// running workspaces keep the one they were started with while a new bailey is
// put in place.
func (s *state) installAgent(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", &bailey.Error{Kind: bailey.Unavailable, Msg: "cannot read bailey-agent", Hint: "keep it beside the bailey binary (make build), or name it with --agent FILE", Cause: err}
	}
	sum := sha256.Sum256(b)
	dir := s.path("agent")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the agent is public and runs as the tenant
		return "", fmt.Errorf("install bailey-agent: %w", err)
	}
	to := filepath.Join(dir, docker.AgentName(b))
	if have, err := os.ReadFile(to); err == nil && sha256.Sum256(have) == sum {
		return to, nil
	}
	if err := writeFile(to, strings.NewReader(string(b)), 0o755); err != nil {
		return "", fmt.Errorf("install bailey-agent: %w", err)
	}
	return to, nil
}

func (s *state) close() error { return s.lock.Close() }

// portOf returns the port that browsers use.
func portOf(f *config.Config) (int, error) {
	if f.Web.PublicPort != 0 {
		return f.Web.PublicPort, nil
	}
	_, port, err := net.SplitHostPort(f.Listen.HTTPS)
	if err != nil {
		return 0, fmt.Errorf("listen.https: %w", err)
	}
	return strconv.Atoi(port)
}

// devices returns the cards that the file lists.
func devices(f *config.Config) []bailey.GPU {
	var out []bailey.GPU
	for i, d := range f.GPUs.Devices {
		out = append(out, bailey.GPU{UUID: d.UUID, Model: d.Model, Index: i})
	}
	return out
}
