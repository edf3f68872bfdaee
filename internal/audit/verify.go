package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// A Report is what [Verify] found.
type Report struct {
	OK       bool
	Events   uint64    // good ones, from the beginning
	First    time.Time // time of the first and last good event
	Last     time.Time
	Segments int
	Head     uint64 // the number up to which head.json vouches for the end
	Torn     int64  // bytes of an unfinished last line, which was never acknowledged
	Break    *Break // the first break; nil when OK
}

// Verify reads a journal from its files alone and recomputes the chain: every
// line must be in our form, carry the next number and the hash of the line
// before it, and the line that head.json names must be there. It may run
// beside a server that writes. The error is for what could not be read; what
// is wrong with the journal is in the report.
//
// It finds every change, removal, doubling or reordering of lines up to
// head.json's, which is at most a second behind, and the same after a Close.
// Beyond that line it cannot tell a crash from someone who cuts off the end.
// It cannot find what someone with the rights of the server does who rewrites
// every following line and head.json too, or removes the whole directory:
// against them only copies elsewhere help.
func Verify(dir string) (Report, error) {
	r, err := verify(dir)
	if brk := (*Break)(nil); errors.As(err, &brk) {
		r.Break, err = brk, nil
	}
	if err != nil {
		return r, fmt.Errorf("verify audit journal: %w", err)
	}
	r.OK = r.Break == nil
	return r, nil
}

// verify returns what is wrong with the journal as a [*Break].
func verify(dir string) (r Report, err error) {
	// The head first: a journal that grows meanwhile is then ahead of it.
	said, headErr := readHead(dir)
	segs, err := segments(dir)
	if err != nil {
		return r, err
	}
	if len(segs) == 0 && errors.Is(headErr, fs.ErrNotExist) {
		return r, fmt.Errorf("there is none in %s", dir)
	}
	r.Head, r.Segments = said.seq, len(segs)
	at, hash, err := r.follow(segs, said.seq)
	if err != nil {
		return r, err
	}
	if headErr != nil {
		return r, missingHead(headErr)
	}
	return r, checkHead(said, at, hash)
}

// follow walks the whole chain and returns its end, and the hash of line want.
func (r *Report) follow(segs []segment, want uint64) (at end, hash string, err error) {
	at = beginning()
	if want == 0 {
		hash = at.hash
	}
	for i, seg := range segs {
		w, err := walkSegment(seg, at, func(line []byte, now end) error {
			e, err := decode(line)
			if err != nil {
				return err
			}
			if now.seq == want {
				hash = now.hash
			}
			r.count(e)
			return nil
		})
		tail := i == len(segs)-1
		switch {
		case err != nil:
			return at, hash, err
		case w.torn && tail:
			r.Torn = w.size - w.good
		case w.brk != nil:
			return at, hash, w.brk
		case w.lines == 0 && !tail:
			return at, hash, &Break{Segment: seg.name(), Seq: at.seq + 1, Reason: "empty"}
		}
		at = w.end
	}
	return at, hash, nil
}

func (r *Report) count(e Event) {
	if r.Events == 0 {
		r.First = e.TS
	}
	r.Last = e.TS
	r.Events++
}
