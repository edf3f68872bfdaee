package audit

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	denialEach = 10 * time.Second
	maxDenials = 4096 // remembered at a time
)

// A Denials records refusals for a door: of the same refusal of the same
// person one event in ten seconds, so that knocking all the time cannot fill
// the journal's disk. It may be used concurrently.
type Denials struct {
	to  Appender
	log *slog.Logger

	mu   sync.Mutex // guards last
	last map[denial]time.Time
}

// A denial is what makes two refusals the same.
type denial struct {
	actor  string
	target Target
	reason Reason
}

// NewDenials returns a Denials that writes to a journal; log may be nil.
func NewDenials(to Appender, log *slog.Logger) *Denials {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Denials{to: to, log: log, last: map[denial]time.Time{}}
}

// Note records that somebody was refused something. The refusal stands whether
// or not that works; that it did not is in the log.
func (d *Denials) Note(ctx context.Context, who Actor, what Target, why Reason) {
	if !d.worth(denial{who.ID, what, why}) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), denialEach)
	defer cancel()
	err := d.to.Append(ctx, Event{Actor: who, Action: AccessDenied, Target: what, Outcome: Refused, Reason: why})
	if err != nil {
		d.log.ErrorContext(ctx, "refusal not in the audit journal", slog.String("reason", string(why)), slog.String("error", err.Error()))
	}
}

// worth reports whether a refusal is to be recorded now.
func (d *Denials) worth(key denial) bool {
	now := time.Now() // monotonic: a clock that is put right changes nothing
	d.mu.Lock()
	defer d.mu.Unlock()
	if last, ok := d.last[key]; ok && now.Sub(last) < denialEach {
		return false
	}
	if len(d.last) >= maxDenials { // a crowd; whoever comes again is recorded again
		clear(d.last)
	}
	d.last[key] = now
	return true
}
