package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// segmentBytes is how long a segment gets before the next is begun.
const segmentBytes = 64 << 20

// A segment is one file of the journal, named after its first event.
type segment struct {
	path  string
	first uint64
}

func (s segment) name() string { return filepath.Base(s.path) }

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("journal-%020d.jsonl", first))
}

// segments lists the files in order. A file that only looks like one of ours
// is a break: where it belongs cannot be told.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var segs []segment
	for _, e := range entries {
		num, ok := strings.CutPrefix(e.Name(), "journal-")
		num, isSeg := strings.CutSuffix(num, ".jsonl")
		if !ok || !isSeg {
			continue
		}
		first, err := strconv.ParseUint(num, 10, 64)
		seg := segment{filepath.Join(dir, e.Name()), first}
		if err != nil || first == 0 || seg.path != segmentPath(dir, first) || !e.Type().IsRegular() {
			return nil, &Break{Segment: e.Name(), Reason: "a file that is not part of the journal has the name of one that is"}
		}
		segs = append(segs, seg)
	}
	slices.SortFunc(segs, func(a, b segment) int {
		if a.first < b.first {
			return -1
		}
		return 1 // names, hence numbers, differ
	})
	return segs, nil
}

// A Break is the first place where a journal is not what was written. It is
// an error.
type Break struct { //nolint:errname // it is a place first, and an error for Open
	Segment string // file name
	Line    int    // in the file, from 1; 0 means the file as a whole
	Seq     uint64 // the number that should have stood there; 0 if unknown
	Reason  string
}

// Error implements error.
func (b *Break) Error() string {
	where := b.Segment
	if b.Line > 0 {
		where += ":" + strconv.Itoa(b.Line)
	}
	return where + ": " + b.Reason
}

// A walk is what reading one segment found.
type walk struct {
	end   end
	lines int
	good  int64 // bytes up to the end of the last good line
	size  int64 // bytes read
	brk   *Break
	// last says that the bad line is the very last thing in the file. Without
	// a newline (torn) it was never acknowledged.
	last, torn bool
}

// walkSegment reads a segment that continues at, checking every line. each is
// called for every good one and may add a reason to refuse it; the line is
// valid only during the call.
func walkSegment(seg segment, at end, each func(line []byte, at end) error) (walk, error) {
	w := walk{end: at}
	f, err := openRead(seg.path)
	if err != nil {
		return w, err
	}
	defer f.Close() //nolint:errcheck // read only
	if seg.first != at.seq+1 {
		w.brk = &Break{Segment: seg.name(), Seq: at.seq + 1, Reason: fmt.Sprintf("begins with %d where %d should follow: lines or a file are missing or doubled", seg.first, at.seq+1)}
		return w, nil
	}
	r := bufio.NewReaderSize(f, maxLine+1)
	for {
		line, n, err := readLine(r)
		w.size += n
		if errors.Is(err, io.EOF) && n == 0 {
			return w, nil
		}
		var reason error
		next := w.end
		switch {
		case errors.Is(err, io.EOF):
			w.torn, reason = true, errors.New("ends without a newline")
		case errors.Is(err, errTooLong):
			reason = err
		case err != nil:
			return w, err
		default:
			if next, reason = w.end.follow(line); reason == nil && each != nil {
				reason = each(line, next)
			}
		}
		if reason != nil {
			w.brk = &Break{Segment: seg.name(), Line: w.lines + 1, Seq: w.end.seq + 1, Reason: reason.Error()}
			_, err := r.Peek(1)
			w.last = errors.Is(err, io.EOF)
			return w, nil
		}
		w.end, w.lines, w.good = next, w.lines+1, w.size
	}
}

var errTooLong = fmt.Errorf("longer than %d bytes", maxLine)

// readLine returns the next line without its newline, and how many bytes it
// took. io.EOF with n > 0 means that the last line has no newline; a line that
// is too long is read over and comes as errTooLong.
func readLine(r *bufio.Reader) (line []byte, n int64, err error) {
	line, err = r.ReadSlice('\n')
	n = int64(len(line))
	if err == nil {
		return line[:n-1], n, nil
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = r.ReadSlice('\n')
		n += int64(len(line))
		if err == nil {
			return nil, n, errTooLong
		}
	}
	return nil, n, err
}

// openRead opens a file of the journal, never through a link.
func openRead(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
