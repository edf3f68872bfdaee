package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

const (
	defaultLimit = 100
	maxLimit     = 10_000
	// block is how much is read at once, from the end backwards.
	block = 256 << 10
)

// Search returns the newest events that f chooses, oldest first: what is
// durable when it is called. It reads backwards from the end, in blocks, until
// it has enough, so that memory is bounded by f.Limit; time is bounded by ctx.
// Times in the journal follow the clock of the machine, which may jump, so
// f.Since does not end the search early.
func (j *Journal) Search(ctx context.Context, f Filter) ([]Event, error) {
	events, err := j.search(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("search audit journal: %w", err)
	}
	return events, nil
}

func (j *Journal) search(ctx context.Context, f Filter) ([]Event, error) {
	f.Limit = min(max(f.Limit, 0), maxLimit)
	if f.Limit == 0 {
		f.Limit = defaultLimit
	}
	j.mu.Lock()
	durable := j.durable.seq
	j.mu.Unlock()
	segs, err := segments(j.dir)
	if err != nil {
		return nil, err
	}
	needles := f.needles()
	var found []Event
	var stopped error
	for i, seg := range slices.Backward(segs) {
		if len(found) >= f.Limit || i+1 < len(segs) && segs[i+1].first <= f.After+1 {
			break
		}
		err := backwards(seg, func(line []byte) bool {
			if stopped = ctx.Err(); stopped != nil {
				return false
			}
			seq, ok := seqOf(line)
			if ok && seq <= f.After {
				return false
			}
			if !ok || seq > durable || !containsAll(line, needles) || !f.mentions(line) || !f.inTime(line) {
				return true
			}
			e, err := decode(line)
			if err != nil { // one bad line hides no other
				j.log.WarnContext(ctx, "unreadable line in the audit journal", slog.String("segment", seg.name()), slog.String("err", err.Error()))
				return true
			}
			if f.match(e) {
				found = append(found, e)
			}
			return len(found) < f.Limit
		})
		if err := errors.Join(err, stopped); err != nil {
			return nil, err
		}
	}
	slices.Reverse(found)
	return found, nil
}

// needles are texts that every matching line contains. Looking for them first
// saves decoding the lines that cannot match.
func (f Filter) needles() [][]byte {
	var out [][]byte
	for _, s := range []string{f.Actor, f.Target, f.IP, f.Action, string(f.Outcome)} {
		if s == "" {
			continue
		}
		if text, err := json.Marshal(s); err == nil {
			out = append(out, text[1:len(text)-1])
		}
	}
	return out
}

// mentions reports whether the line names one of those that it should be about.
func (f Filter) mentions(line []byte) bool {
	return len(f.About) == 0 || slices.ContainsFunc(f.About, func(id string) bool { return bytes.Contains(line, []byte(id)) })
}

func containsAll(line []byte, needles [][]byte) bool {
	for _, n := range needles {
		if !bytes.Contains(line, n) {
			return false
		}
	}
	return true
}

// inTime looks at the time of a line only.
func (f Filter) inTime(line []byte) bool {
	if f.Since.IsZero() && f.Until.IsZero() {
		return true
	}
	const key = `,"ts":"`
	_, after, ok := bytes.Cut(line, []byte(key))
	if !ok {
		return false
	}
	text, _, _ := bytes.Cut(after, []byte{'"'})
	ts, err := time.Parse(time.RFC3339Nano, string(text))
	return err != nil || !f.outside(ts) // the decoder will say what is wrong
}

func (f Filter) outside(ts time.Time) bool {
	return !f.Since.IsZero() && ts.Before(f.Since) || !f.Until.IsZero() && ts.After(f.Until)
}

// match reports whether f chooses e, its Limit aside.
func (f Filter) match(e Event) bool {
	action := string(e.Action)
	switch {
	case f.outside(e.TS),
		e.Seq <= f.After,
		f.Actor != "" && f.Actor != e.Actor.ID && f.Actor != e.Actor.Name,
		f.Target != "" && f.Target != e.Target.ID && f.Target != e.Target.Name,
		f.IP != "" && f.IP != e.Actor.IP,
		f.Outcome != "" && f.Outcome != e.Outcome,
		len(f.About) > 0 && !slices.ContainsFunc(f.About, func(id string) bool {
			return id != "" && (id == e.Actor.ID || id == e.Target.ID || id == e.Attrs.Owner)
		}):
		return false
	}
	if strings.HasSuffix(f.Action, ".") {
		return strings.HasPrefix(action, f.Action)
	}
	return f.Action == "" || f.Action == action
}

// backwards calls each for every whole line of a segment, last first, until it
// returns false. The line is valid only during the call.
func backwards(seg segment, each func(line []byte) bool) error {
	f, err := openRead(seg.path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	var (
		pos  = fi.Size()
		head []byte // the beginning of a line whose newline was met already
		buf  = make([]byte, 0, block+maxLine)
		tail = true // what follows the last newline is no line yet
	)
	for pos > 0 {
		n := min(pos, block)
		pos -= n
		buf = append(buf[:n], head...)
		if _, err := f.ReadAt(buf[:n], pos); err != nil {
			return err
		}
		rest := buf
		for {
			i := bytes.LastIndexByte(rest, '\n')
			if i < 0 {
				break
			}
			if line := rest[i+1:]; !tail && !each(line) {
				return nil
			}
			tail = false
			rest = rest[:i]
		}
		if len(rest) > maxLine { // garbage; Verify says so
			rest = rest[:0]
		}
		head = bytes.Clone(rest)
	}
	if !tail {
		each(head)
	}
	return nil
}

// lastLine returns a copy of the last whole line of a segment.
func lastLine(seg segment) (line []byte, err error) {
	err = backwards(seg, func(l []byte) bool {
		line = bytes.Clone(l)
		return false
	})
	return line, err
}

// ForOwner returns the event as somebody may read it whom it is about: without
// the address and session of somebody else who did it.
func ForOwner(e Event, userID string) Event {
	if e.Actor.ID != userID {
		e.Actor.IP, e.Actor.Session = "", ""
	}
	return e
}
