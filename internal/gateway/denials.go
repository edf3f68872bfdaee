package gateway

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/edge"
)

const (
	denialEvery    = time.Minute
	denialsInSight = 4096 // callers with a recent denial
)

// denials puts refused access into the journal: the first of a caller at once,
// and what follows within a minute as one event with a count, so that a flood
// of requests is no flood of events.
type denials struct {
	audit audit.Appender
	log   *slog.Logger
	now   func() time.Time

	mu  sync.Mutex // guards the rest
	by  map[string]*denial
	end bool
}

type denial struct {
	event audit.Event // the last one that was only counted
	count int64       // of those
	last  time.Time   // when one was written
	timer *time.Timer // writes the count; nil: nothing to write
}

func newDenials(a audit.Appender, log *slog.Logger, now func() time.Time) *denials {
	return &denials{audit: a, log: log, now: now, by: map[string]*denial{}}
}

// note records that actor was refused.
func (d *denials) note(ctx context.Context, actor bailey.Actor, slug string, why audit.Reason, status int) {
	e := audit.Event{
		Actor: audit.By(actor), Action: audit.AccessDenied, Outcome: audit.Refused, Reason: why,
		Target: audit.Target{Kind: "workspace", Name: edge.Printable(slug, 63)},
		Attrs:  audit.Attrs{Count: 1, Status: status},
	}
	key := actor.UserID + " " + string(why)
	d.mu.Lock()
	seen := d.by[key]
	if seen == nil || d.now().Sub(seen.last) >= denialEvery && seen.count == 0 {
		if seen == nil {
			d.makeRoom()
			seen = &denial{}
			d.by[key] = seen
		}
		seen.last = d.now()
		d.mu.Unlock()
		d.append(ctx, e)
		return
	}
	seen.event = e
	if seen.count++; seen.timer == nil && !d.end {
		later := context.WithoutCancel(ctx)
		seen.timer = time.AfterFunc(denialEvery, func() { d.flush(later, key) })
	}
	d.mu.Unlock()
}

// makeRoom forgets callers whose last denial is old; if there are none, the
// flood comes from many accounts, and all are forgotten.
func (d *denials) makeRoom() {
	if len(d.by) < denialsInSight {
		return
	}
	for key, seen := range d.by {
		if seen.count == 0 && d.now().Sub(seen.last) >= denialEvery {
			delete(d.by, key)
		}
	}
	for key, seen := range d.by {
		if len(d.by) < denialsInSight {
			return
		}
		if seen.count == 0 {
			delete(d.by, key)
		}
	}
}

// flush writes what was only counted for a caller.
func (d *denials) flush(ctx context.Context, key string) {
	d.mu.Lock()
	seen := d.by[key]
	if seen == nil || seen.count == 0 {
		d.mu.Unlock()
		return
	}
	e := seen.event
	e.Attrs.Count = seen.count
	seen.count, seen.timer, seen.last = 0, nil, d.now()
	d.mu.Unlock()
	d.append(ctx, e)
}

// close writes what is left; nothing is counted for later any more.
func (d *denials) close(ctx context.Context) {
	d.mu.Lock()
	d.end = true
	var keys []string
	for key, seen := range d.by {
		if seen.timer != nil {
			seen.timer.Stop()
			keys = append(keys, key)
		}
	}
	d.mu.Unlock()
	for _, key := range keys {
		d.flush(ctx, key)
	}
}

// append writes e. The access is refused whether or not that works.
func (d *denials) append(ctx context.Context, e audit.Event) {
	if err := d.audit.Append(context.WithoutCancel(ctx), e); err != nil {
		d.log.ErrorContext(ctx, "denied access not recorded", slog.String("error", err.Error()))
	}
}
