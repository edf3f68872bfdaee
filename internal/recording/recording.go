// Package recording keeps what happened in a session in a sealed file, and
// gives it back: written while it happens, so that a crash leaves a beginning
// that says it is one, and bounded in memory and on disk. It decides nothing:
// who is recorded, who may look and when a recording goes is for its callers.
package recording

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey"
)

// Config says where recordings lie and what they may take. Dir and Key are
// required.
type Config struct {
	Dir   string        // made if it is missing
	Key   []byte        // 32 bytes; without it nothing can be read
	Queue int64         // bytes of one session that wait for the disk; 0 means 4 MiB
	Total int64         // bytes of all sessions that wait for the disk; 0 means 64 MiB
	Wait  time.Duration // how long a session waits for a full queue; 0 means 10 seconds
	Flush time.Duration // how long what was said may be only in memory; 0 means 2 seconds
	// Max bounds one recording on disk; 0 means 2 GiB.
	Max int64
	// Reserve is what recordings leave free on the disk, for the journal and
	// the database; 0 means 256 MiB.
	Reserve int64
	// Exec is how much of the output of a command without a terminal is kept,
	// and of its input where that is recorded; 0 means 1 MiB, negative none.
	Exec int64
	Log  *slog.Logger
}

// Errors of writing. They are returned by every call on a session from the
// moment on that its recording could not go on.
var (
	// ErrFull is given when the disk has no room for recordings.
	ErrFull = errors.New("the disk has no room for recordings")
	// ErrTooSlow is given when the disk did not take what happened in time.
	ErrTooSlow = errors.New("the disk is too slow for the recording")
	// ErrTooLong is given when one recording has reached its limit.
	ErrTooLong = errors.New("the recording has reached its limit")
)

// A Recorder writes and reads the recordings of one folder. It may be used
// concurrently.
type Recorder struct {
	cfg   Config
	total *semaphore.Weighted
}

// New makes the folder and returns a Recorder on it.
func New(cfg Config) (*Recorder, error) {
	if cfg.Dir == "" || len(cfg.Key) != 32 {
		return nil, errors.New("recording: a folder and a key of 32 bytes are required")
	}
	cfg.Queue = cmp.Or(cfg.Queue, 4<<20)
	cfg.Total = max(cmp.Or(cfg.Total, 64<<20), cfg.Queue)
	cfg.Wait = cmp.Or(cfg.Wait, 10*time.Second)
	cfg.Flush = cmp.Or(cfg.Flush, 2*time.Second)
	cfg.Max = cmp.Or(cfg.Max, 2<<30)
	cfg.Reserve = cmp.Or(cfg.Reserve, 256<<20)
	cfg.Exec = cmp.Or(cfg.Exec, 1<<20)
	if cfg.Queue < maxPiece || cfg.Wait < 0 || cfg.Flush < 0 || cfg.Max < 0 || cfg.Reserve < 0 {
		return nil, errors.New("recording: a limit is negative or too small")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, &bailey.Error{Kind: bailey.Unavailable, Msg: "cannot make the folder of recordings " + cfg.Dir, Hint: "is the disk full, or read-only?", Cause: err}
	}
	return &Recorder{cfg: cfg, total: semaphore.NewWeighted(cfg.Total)}, nil
}

// idRE is the grammar of ids: what [bailey.NewID] makes. Nothing else names a
// file.
var idRE = regexp.MustCompile(`^[0-9a-z]{26}$`)

const suffix = ".rec"

func (r *Recorder) path(id string) (string, error) {
	if !idRE.MatchString(id) {
		return "", bailey.Errorf(bailey.NotFound, "there is no such recording")
	}
	return filepath.Join(r.cfg.Dir, id+suffix), nil
}

// A File is one recording on disk.
type File struct {
	ID      string
	Size    int64
	Changed time.Time
}

// Files lists the recordings, the oldest first.
func (r *Recorder) Files() ([]File, error) {
	entries, err := os.ReadDir(r.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("list recordings: %w", err)
	}
	var all []File
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || !idRE.MatchString(id) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list recordings: %w", err)
		}
		all = append(all, File{ID: id, Size: info.Size(), Changed: info.ModTime()})
	}
	slices.SortFunc(all, func(a, b File) int { return cmp.Or(a.Changed.Compare(b.Changed), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

// Remove deletes a recording; NotFound when there is none.
func (r *Recorder) Remove(id string) error {
	path, err := r.path(id)
	if err != nil {
		return err
	}
	err = os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return bailey.Errorf(bailey.NotFound, "there is no such recording")
	}
	if err != nil {
		return fmt.Errorf("delete recording: %w", err)
	}
	return nil
}

// room returns ErrFull when the disk has no more than the reserve.
func (r *Recorder) room() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(r.cfg.Dir, &fs); err != nil {
		return fmt.Errorf("look at the disk of recordings: %w", err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < r.cfg.Reserve { //nolint:gosec // no disk is so large
		return ErrFull
	}
	return nil
}
