package egress

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey/internal/audit"
)

const (
	connectEvery = 10 * time.Minute // the same way out of the same run is recorded once in it
	recordEvery  = time.Minute      // what was carried or refused since
	maxRecords   = 8192             // ways in sight, about
	maxNames     = 60               // refused hosts of one workspace that are recorded by name in a minute
	recordLimit  = 10 * time.Second
)

// records puts into the journal who reached out to what. That somebody does is
// durable before the first byte goes; what was carried, and what was refused,
// follows within a minute with counts, so that a noisy workspace is no flood of
// events.
type records struct {
	audit audit.Appender
	log   *slog.Logger
	lost  *atomic.Int64

	mu    sync.Mutex // guards the rest
	seen  map[way]*record
	names map[string]names // by workspace
	ended bool
}

// names counts the hosts that a workspace was refused.
type names struct {
	since time.Time
	count int
}

// A way is what makes two connections the same to the journal.
type way struct {
	who    Who
	host   string
	port   int
	rule   string
	reason audit.Reason // of a refusal or a cut
	cut    bool         // it was open
}

type record struct {
	begin  *begin // nil: refused ones have none
	count  int64
	up     int64
	down   int64
	millis int64
	timer  *time.Timer // writes the sums; nil: nothing to write
}

// A begin is the event that somebody reaches out this way.
type begin struct {
	at   time.Time
	done chan struct{} // closed by whoever writes it; err is set then
	err  error
}

func (b *begin) over() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// valid reports whether b stands for connections at now, too.
func (b *begin) valid(now time.Time) bool {
	return b != nil && now.Sub(b.at) < connectEvery && (!b.over() || b.err == nil)
}

func newRecords(to audit.Appender, log *slog.Logger, c *counters) *records {
	return &records{audit: to, log: log, lost: &c.unrecorded, seen: map[way]*record{}, names: map[string]names{}}
}

// connect makes it durable that somebody reaches out, unless it is so already.
func (r *records) connect(ctx context.Context, w way) error {
	now := time.Now()
	r.mu.Lock()
	rec := r.seen[w]
	if rec == nil {
		r.makeRoom(now)
		rec = &record{}
		r.seen[w] = rec
	}
	b := rec.begin
	if b.valid(now) {
		r.mu.Unlock()
		<-b.done // somebody else writes it
		return b.err
	}
	b = &begin{at: now, done: make(chan struct{})}
	rec.begin = b
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordLimit)
	defer cancel()
	b.err = r.audit.Append(ctx, w.event(audit.EgressConnect, audit.Success))
	close(b.done)
	return b.err
}

// add counts a connection that has ended or was refused.
func (r *records) add(ctx context.Context, w way, up, down int64, took time.Duration) {
	ctx = context.WithoutCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	rec := r.seen[w]
	if rec == nil && w.reason != "" && !r.worth(w.who.WorkspaceID) {
		// Names made up faster than anybody reads them are one name.
		w.host, w.port, w.rule = "", 0, ""
		rec = r.seen[w]
	}
	if rec == nil {
		r.makeRoom(time.Now())
		rec = &record{}
		r.seen[w] = rec
	}
	first := rec.timer == nil && w.reason != ""
	rec.count++
	rec.up += up
	rec.down += down
	rec.millis += took.Milliseconds()
	if rec.timer == nil {
		after := recordEvery
		if first {
			after = 0 // a refusal is known at once; those that follow are counted
		}
		rec.timer = time.AfterFunc(after, func() { r.settle(ctx, w) })
	}
}

// settle writes the sums of a way. After a refusal it looks again in a minute.
func (r *records) settle(ctx context.Context, w way) {
	r.mu.Lock()
	rec := r.seen[w]
	if rec == nil || rec.timer == nil || r.ended {
		r.mu.Unlock()
		return
	}
	e, some := rec.sums(w)
	if some && w.reason != "" {
		rec.timer.Reset(recordEvery)
	} else {
		rec.timer = nil
		if w.reason != "" {
			delete(r.seen, w)
		}
	}
	r.mu.Unlock()
	if some {
		r.write(ctx, e)
	}
}

// sums returns the event for what was counted, and begins anew.
func (rec *record) sums(w way) (e audit.Event, some bool) {
	if rec.count == 0 {
		return e, false
	}
	e = w.event(audit.EgressTraffic, audit.Success)
	switch {
	case w.cut:
		e = w.event(audit.EgressCut, audit.Refused)
	case w.reason != "":
		e = w.event(audit.EgressRefused, audit.Refused)
	}
	e.Attrs.Count, e.Attrs.Up, e.Attrs.Down, e.Attrs.Millis = rec.count, rec.up, rec.down, rec.millis
	rec.count, rec.up, rec.down, rec.millis = 0, 0, 0, 0
	return e, true
}

func (w way) event(action audit.Action, outcome audit.Outcome) audit.Event {
	return audit.Event{
		Actor:  audit.Actor{ID: w.who.UserID, Name: w.who.User, Method: "workspace"},
		Action: action, Outcome: outcome, Reason: w.reason,
		Target: audit.Target{Kind: "workspace", ID: w.who.WorkspaceID, Name: w.who.Workspace},
		Attrs:  audit.Attrs{Class: w.who.Class, Run: w.who.Run, Host: w.host, Port: w.port, Rule: w.rule},
	}
}

func (r *records) write(ctx context.Context, e audit.Event) {
	ctx, cancel := context.WithTimeout(ctx, recordLimit)
	defer cancel()
	if err := r.audit.Append(ctx, e); err != nil {
		r.lost.Add(1)
		r.log.ErrorContext(ctx, "egress not in the audit journal", slog.String("workspace", e.Target.ID), slog.String("error", err.Error()))
	}
}

// makeRoom forgets ways of which nothing is left to write.
func (r *records) makeRoom(now time.Time) {
	if len(r.seen) < maxRecords {
		return
	}
	for _, old := range []bool{true, false} {
		for w, rec := range r.seen {
			if rec.timer != nil || old && rec.begin.valid(now) || rec.begin != nil && !rec.begin.over() {
				continue
			}
			delete(r.seen, w)
			if !old && len(r.seen) < maxRecords { // a crowd; whoever comes again is recorded again
				return
			}
		}
		if len(r.seen) < maxRecords {
			return
		}
	}
}

// worth reports whether one more host that a workspace was refused is recorded
// by its name.
func (r *records) worth(workspace string) bool {
	now := time.Now()
	n := r.names[workspace]
	if now.Sub(n.since) >= recordEvery {
		if len(r.names) >= maxRecords {
			clear(r.names)
		}
		n = names{since: now}
	}
	n.count++
	r.names[workspace] = n
	return n.count <= maxNames && len(r.seen) < maxRecords
}

// flush writes all sums.
func (r *records) flush(ctx context.Context) {
	r.mu.Lock()
	r.ended = true
	var rest []audit.Event
	for w, rec := range r.seen {
		if rec.timer != nil {
			rec.timer.Stop()
		}
		if e, some := rec.sums(w); some {
			rest = append(rest, e)
		}
	}
	clear(r.seen)
	r.mu.Unlock()
	for _, e := range rest {
		r.write(ctx, e)
	}
}

// counters are read by Stats.
type counters struct {
	unrecorded atomic.Int64
	connected  atomic.Int64
	up, down   atomic.Int64
	cut        atomic.Int64
	refused    [len(reasons)]atomic.Int64
}

// reasons are what connections are refused for, as Stats counts them.
var reasons = [...]audit.Reason{
	audit.NotAllowed, audit.BadAddress, audit.BadServerName, audit.BadRequest, audit.Unreachable, audit.OverQuota,
}

// Stats are counters since the start of the server.
type Stats struct {
	Open       int              // connections being carried now
	Connected  int64            // connections that were made
	Cut        int64            // of those, by a change of rules, a grant's end or a limit
	Refused    map[string]int64 // by reason
	Up, Down   int64            // bytes out of and into workspaces
	Waiting    int              // users with open requests
	Unrecorded int64            // events that the journal did not take
}

// Stats returns what has happened so far.
func (p *Proxy) Stats() Stats {
	p.mu.RLock()
	open := len(p.live)
	p.mu.RUnlock()
	p.book.mu.RLock()
	waiting := 0
	for _, n := range p.book.open {
		if n > 0 {
			waiting++
		}
	}
	p.book.mu.RUnlock()
	c := &p.counters
	s := Stats{
		Open: open, Connected: c.connected.Load(), Cut: c.cut.Load(), Up: c.up.Load(), Down: c.down.Load(),
		Waiting: waiting, Unrecorded: c.unrecorded.Load(), Refused: map[string]int64{},
	}
	for i, why := range reasons {
		s.Refused[string(why)] = c.refused[i].Load()
	}
	return s
}

func (c *counters) refuse(why audit.Reason) {
	for i, r := range reasons {
		if r == why {
			c.refused[i].Add(1)
		}
	}
}
