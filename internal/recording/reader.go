package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey"
)

// A Reader gives a recording back, record by record. It is for one reader.
type Reader struct {
	Meta Meta

	src    io.ReadSeeker
	close  func() error
	open   *opener
	begin  int64 // where the first chunk begins
	lines  []byte
	parsed bool // the Meta was read
	err    error
}

// Open opens a recording; NotFound when there is none. One that is still being
// written reads as one that was cut. The caller closes it.
func (r *Recorder) Open(id string) (*Reader, error) {
	path, err := r.path(id)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, bailey.Errorf(bailey.NotFound, "there is no such recording")
	}
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	read, err := NewReader(f, r.cfg.Key, id)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open recording: %w", err), f.Close())
	}
	read.close = f.Close
	return read, nil
}

// NewReader reads a recording from src. It fails with [ErrForeign],
// [ErrWrongKey], [ErrDamaged] or [ErrCut] when there is not even a beginning.
func NewReader(src io.ReadSeeker, key []byte, id string) (*Reader, error) {
	if len(key) != 32 {
		return nil, errors.New("recording: a key has 32 bytes")
	}
	open, err := newOpener(src, key, id)
	if err != nil {
		return nil, err
	}
	r := &Reader{src: src, open: open, begin: int64(headSize), close: func() error { return nil }}
	if err := r.chunk(); err != nil {
		if errors.Is(err, io.EOF) {
			err = ErrDamaged
		}
		return nil, err
	}
	return r, nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.close() }

// Next returns the next record: io.EOF after the last one of a whole recording,
// an error that wraps [ErrCut] or [ErrDamaged] where it does not go on.
func (r *Reader) Next() (Record, error) {
	for len(r.lines) == 0 {
		if r.err != nil {
			return Record{}, r.err
		}
		if r.err = r.chunk(); r.err != nil {
			return Record{}, r.err
		}
	}
	line, rest, found := bytes.Cut(r.lines, []byte("\n"))
	r.lines = rest
	rec, err := parseRecord(line)
	if err != nil || !found {
		// Sealed with our key and yet not ours: a program with a mistake in it.
		r.err, r.lines = ErrDamaged, nil
		return Record{}, r.err
	}
	return rec, nil
}

// chunk opens the next chunk.
func (r *Reader) chunk() error {
	_, size, err := r.open.next()
	if err != nil {
		return err
	}
	plain, err := r.open.open(size)
	if err != nil {
		return err
	}
	if !r.parsed {
		head, rest, found := bytes.Cut(plain, []byte("\n"))
		if !found || json.Unmarshal(head, &r.Meta) != nil {
			return ErrDamaged
		}
		r.parsed, plain = true, rest
	}
	r.lines = plain
	return nil
}

// Seek goes to the last chunk that begins at or before the time, so that the
// next record is at most one chunk's worth before it. What lies between is not
// opened. It fails as [Reader.Next] does.
func (r *Reader) Seek(to time.Duration) error {
	if _, err := r.src.Seek(r.begin, io.SeekStart); err != nil {
		return fmt.Errorf("seek in recording: %w", err)
	}
	r.open.n, r.open.ended, r.lines, r.err = 0, false, nil, nil
	target, targetN, pos := r.begin, uint64(0), r.begin
	for n := uint64(0); ; n++ {
		at, size, err := r.open.next()
		if err != nil || n > 0 && at > to {
			break // the chunk before is the one; what is wrong shows when reading gets here
		}
		target, targetN = pos, n
		last := r.open.head[0]&flagLast != 0
		if pos, err = r.src.Seek(int64(size), io.SeekCurrent); err != nil {
			return fmt.Errorf("seek in recording: %w", err)
		}
		if last {
			break
		}
	}
	if _, err := r.src.Seek(target, io.SeekStart); err != nil {
		return fmt.Errorf("seek in recording: %w", err)
	}
	r.open.n = targetN
	r.parsed = targetN > 0
	return nil
}
