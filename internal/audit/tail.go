package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"
)

// Tail sends every event after the given number, those that are there and
// those to come, as they become durable. The channel is closed when ctx ends,
// the journal is closed, or a line cannot be read.
func (j *Journal) Tail(ctx context.Context, after uint64) <-chan Event {
	out := make(chan Event)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		close(out)
		return out
	}
	j.wg.Go(func() {
		defer close(out)
		t := tail{j: j, next: after + 1, out: out, r: bufio.NewReaderSize(nil, maxLine+1)}
		defer t.close()
		if err := t.run(ctx); err != nil && ctx.Err() == nil {
			j.log.WarnContext(ctx, "following the audit journal", slog.String("err", err.Error()))
		}
	})
	return out
}

// A tail is one follower.
type tail struct {
	j    *Journal
	next uint64 // the number to send next
	out  chan<- Event

	f   *os.File // the segment it is in; nil: none yet
	seg segment
	off int64 // where event next begins in f, or an earlier one
	r   *bufio.Reader
}

func (t *tail) close() {
	if t.f != nil {
		_ = t.f.Close()
		t.f = nil
	}
}

var errClosed = errors.New("the journal is closed")

func (t *tail) run(ctx context.Context) error {
	for {
		t.j.mu.Lock()
		upTo, grown := t.j.durable, t.j.grown
		t.j.mu.Unlock()
		if t.next <= upTo.seq {
			if err := t.send(ctx, upTo); err != nil {
				return err
			}
			continue
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		case <-t.j.quit:
			return errClosed
		}
	}
}

// send sends what is durable of one segment. It reads no byte beyond that:
// what lies there may yet be taken back, and its number given to another event.
func (t *tail) send(ctx context.Context, upTo position) error {
	before, resumed := t.next, t.f != nil
	if !resumed {
		if err := t.openAt(t.next); err != nil {
			return err
		}
	}
	limit := int64(math.MaxInt64)
	if t.seg.first == upTo.first {
		limit = upTo.size
	}
	t.r.Reset(io.NewSectionReader(t.f, t.off, limit-t.off))
	for {
		line, n, err := readLine(t.r)
		if errors.Is(err, io.EOF) && n == 0 {
			break
		}
		if err != nil {
			return fmt.Errorf("before event %d: %w", t.next, err)
		}
		t.off += n
		if seq, ok := seqOf(line); ok && seq < t.next {
			continue
		}
		e, err := decode(line)
		if err != nil {
			return fmt.Errorf("event %d: %w", t.next, err)
		}
		select {
		case t.out <- e:
			t.next = e.Seq + 1
		case <-ctx.Done():
			return ctx.Err()
		case <-t.j.quit:
			return errClosed
		}
	}
	finished := t.seg.first != upTo.first
	if finished {
		t.close()
	}
	// An event that begins the next segment leaves this one without news.
	if t.next == before && (!finished || !resumed) {
		return fmt.Errorf("event %d is not in %s, where it should be", t.next, t.seg.name())
	}
	return nil
}

// openAt opens the segment that has the event.
func (t *tail) openAt(seq uint64) error {
	segs, err := segments(t.j.dir)
	if err != nil {
		return err
	}
	for _, seg := range slices.Backward(segs) {
		if seg.first <= seq {
			t.f, err = openRead(seg.path)
			t.seg, t.off = seg, 0
			return err
		}
	}
	return fmt.Errorf("event %d is in no segment", seq)
}
