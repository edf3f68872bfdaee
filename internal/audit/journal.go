package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey"
)

// headEvery is how far head.json may be behind.
const headEvery = time.Second

// checkBytes is how much of the journal, from its end, Open checks. A second's
// work at most; the whole is for [Verify].
const checkBytes = 256 << 20

// A Journal is an audit log in a directory. One process at a time may have it
// open. All methods may be called concurrently.
//
// Files: journal-<number of its first event>.jsonl, one canonical JSON object
// per line; head.json, how far the journal was durable a second ago at most;
// lock; and *.torn, unfinished lines that a crash left, kept aside.
type Journal struct {
	dir     string
	boot    string
	log     *slog.Logger
	limit   int64 // bytes of a segment
	room    int   // bytes that may wait
	lock    *os.File
	openSeg func(path string) (file, error) // a test may put a failing disk here

	mu      sync.Mutex
	queue   []*batch      // guarded by mu; the last one takes more
	queued  int           // bytes in queue; guarded by mu
	dead    error         // why nothing can be written any more; guarded by mu
	closed  bool          // guarded by mu
	durable position      // guarded by mu
	grown   chan struct{} // closed and replaced when durable moves; guarded by mu

	// The writer's own; nobody else touches them while it runs.
	at    end
	f     file   // nil: the next batch begins a segment
	first uint64 // of the segment f
	size  int64  // of f, as far as it is durable
	buf   []byte

	wake     chan struct{} // one token: there is something in queue
	headUp   chan struct{} // one token: durable has moved
	quit     chan struct{} // closed by Close
	wg       sync.WaitGroup
	once     sync.Once
	closeErr error
}

// A position is an end with its place.
type position struct {
	end
	first uint64 // of the segment it is in
	size  int64  // of that segment up to it
}

// Config says where the journal is.
type Config struct {
	Dir  string
	Boot string       // id of this start; empty: a fresh one
	Log  *slog.Logger // nil: none

	SegmentBytes int64 // size at which the next file is begun; 0 means 64 MiB
}

// Open opens or makes the journal, finds its end and repairs a torn last line
// (which was never acknowledged): it is cut off and kept in a file beside. A
// broken chain before that, as far back as 256 MiB, is an error that wraps a
// [*Break]; [Verify] looks at everything. A second process gets an error.
func Open(cfg Config) (*Journal, error) {
	j, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open audit journal: %w", err)
	}
	j.wg.Go(j.write)
	j.wg.Go(j.keepHead)
	return j, nil
}

func open(cfg Config) (_ *Journal, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("no directory given")
	}
	j := &Journal{
		dir: cfg.Dir, boot: name(cfg.Boot), log: cfg.Log, limit: cfg.SegmentBytes, room: maxQueue, openSeg: openFile,
		grown: make(chan struct{}), wake: make(chan struct{}, 1), headUp: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	if j.boot == "" {
		j.boot = bailey.NewID()
	}
	if !plainBoot(j.boot) {
		return nil, fmt.Errorf("%.70q is not a boot id", cfg.Boot)
	}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	if j.limit <= 0 {
		j.limit = segmentBytes
	}
	if err := makeDir(j.dir); err != nil {
		return nil, err
	}
	if j.lock, err = lockDir(j.dir); err != nil {
		return nil, err
	}
	if err := j.findEnd(); err != nil {
		return nil, errors.Join(err, j.lock.Close())
	}
	return j, nil
}

// plainBoot allows what needs no escaping: the writer copies it as it is.
func plainBoot(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.' {
			return false
		}
	}
	return true
}

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory needs its x
		return err
	}
	return syncDir(filepath.Dir(filepath.Clean(dir)))
}

// lockDir keeps a second process out: two writers would break the chain.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another process has the journal in %s open; stop it first", dir)
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

// findEnd checks the newest segments and sets j.at, j.f and j.size.
func (j *Journal) findEnd() error {
	segs, err := segments(j.dir)
	if err != nil {
		return err
	}
	said, err := readHead(j.dir)
	if errors.Is(err, fs.ErrNotExist) && len(segs) == 0 {
		// The head comes before the first line: a journal without one has lost it.
		j.at, j.durable = beginning(), position{end: beginning()}
		return writeHead(j.dir, j.at)
	}
	if err != nil {
		return missingHead(err)
	}
	from, at, err := newest(segs, checkBytes)
	if err != nil {
		return err
	}
	hash := ""
	if said.seq == at.seq {
		hash = at.hash
	}
	for i, seg := range segs[from:] {
		tail := from+i == len(segs)-1
		w, err := walkSegment(seg, at, func(line []byte, now end) error {
			if now.seq == said.seq {
				hash = now.hash
			}
			if tail && !json.Valid(line) { // of the others Verify takes care
				return errors.New("not valid JSON")
			}
			return nil
		})
		if err != nil {
			return err
		}
		if w.brk == nil && w.lines == 0 && !tail {
			w.brk = &Break{Segment: seg.name(), Reason: "empty"}
		}
		if torn := tail && w.last && w.end.seq >= said.seq && j.neverDone(seg, w); w.brk != nil && !torn {
			return w.brk
		}
		if tail {
			if err := j.takeUp(seg, w); err != nil {
				return err
			}
		}
		at = w.end
	}
	if err := checkHead(said, at, hash); err != nil {
		if j.f != nil {
			err = errors.Join(err, j.f.Close())
		}
		return err
	}
	j.at, j.durable = at, position{at, j.first, j.size}
	return nil
}

// newest returns the index of the first of the newest segments that together
// hold up to limit bytes, and the end that they continue.
func newest(segs []segment, limit int64) (from int, at end, err error) {
	at = beginning()
	for from = len(segs); from > 0; from-- {
		fi, err := os.Lstat(segs[from-1].path)
		if err != nil {
			return 0, at, err
		}
		if limit -= fi.Size(); limit < 0 && from < len(segs) {
			break
		}
	}
	if from == 0 {
		return 0, at, nil
	}
	line, err := lastLine(segs[from-1])
	if err != nil {
		return 0, at, err
	}
	seq, ok := seqOf(line)
	if !ok {
		return 0, at, &Break{Segment: segs[from-1].name(), Reason: "its last line is not a journal line"}
	}
	return from, end{seq, hashOf(line)}, nil
}

// neverDone reports whether a bad last line is one that was being written when
// the power went: it has no newline, or is not JSON. A line that is whole but
// does not fit was put there by somebody.
func (j *Journal) neverDone(seg segment, w walk) bool {
	if w.brk == nil || w.torn {
		return w.torn
	}
	f, err := openRead(seg.path)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // read only
	if w.size-w.good > maxLine+1 {
		return true
	}
	line := make([]byte, w.size-w.good-1)
	_, err = f.ReadAt(line, w.good)
	return err == nil && !json.Valid(line)
}

// takeUp opens the last segment for writing, after moving a torn line aside.
func (j *Journal) takeUp(seg segment, w walk) error {
	if w.brk != nil {
		aside, err := setAside(seg, w)
		if err != nil {
			return fmt.Errorf("keep the torn line of %s: %w", seg.name(), err)
		}
		j.log.Warn("torn last line of the audit journal cut off; it was never acknowledged",
			slog.String("segment", seg.name()), slog.Int("line", w.brk.Line),
			slog.Int64("bytes", w.size-w.good), slog.String("kept_in", aside))
	}
	f, err := j.openSeg(seg.path)
	if err != nil {
		return err
	}
	if w.brk != nil {
		if err := errors.Join(f.Truncate(w.good), f.Sync()); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	j.f, j.first, j.size = f, seg.first, w.good
	return nil
}

// setAside copies what follows the last good line to a new file and returns
// its name.
func setAside(seg segment, w walk) (string, error) {
	src, err := openRead(seg.path)
	if err != nil {
		return "", err
	}
	defer src.Close() //nolint:errcheck // read only
	for n := 0; ; n++ {
		path := fmt.Sprintf("%s.%d.torn", seg.path, n)
		dst, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		err = copyRange(dst, src, w.good, w.size-w.good)
		return filepath.Base(path), errors.Join(err, dst.Sync(), dst.Close(), syncDir(filepath.Dir(path)))
	}
}

// Append implements [Appender]: when it returns nil, the event is on the disk.
//
// ctx limits the waiting, not the event. An event that was given to Append is
// written even if ctx has ended, because a request that is cut off must not
// take its traces with it. Append then returns an error that wraps both
// [ErrUnwritable] and ctx's, and the caller refuses the action: the journal
// may know of something that did not happen, never the other way round.
func (j *Journal) Append(ctx context.Context, e Event) error {
	mid, err := encodeBody(e)
	if err != nil {
		return fmt.Errorf("append audit event: %w: %w", ErrUnwritable, err)
	}
	b, err := j.enqueue(entry{bailey.NewID(), mid})
	if err != nil {
		return fmt.Errorf("append audit event: %w: %w", ErrUnwritable, err)
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		select { // do not answer "perhaps" when the answer is there
		case <-b.done:
		default:
			return fmt.Errorf("append audit event: %w: it may still be written: %w", ErrUnwritable, context.Cause(ctx))
		}
	}
	if b.err != nil {
		return fmt.Errorf("append audit event: %w: %w", ErrUnwritable, b.err)
	}
	return nil
}

// Close makes everything durable, ends every Tail and closes the files. Later
// calls return the same.
func (j *Journal) Close() error {
	j.once.Do(func() {
		j.mu.Lock()
		j.closed = true
		j.mu.Unlock()
		close(j.quit)
		j.wg.Wait()
		var errs []error
		if j.dead == nil { // a file that failed says nothing true any more
			errs = append(errs, writeHead(j.dir, j.at))
		}
		if j.f != nil {
			errs = append(errs, j.f.Close())
		}
		errs = append(errs, j.lock.Close())
		if err := errors.Join(errs...); err != nil {
			j.closeErr = fmt.Errorf("close audit journal: %w", err)
		}
	})
	return j.closeErr
}
