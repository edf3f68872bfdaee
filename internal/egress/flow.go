package egress

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress/rules"
)

// Why a flow was cut.
var (
	errShutdown = errors.New("the server is stopping")
	errRules    = errors.New("it is no longer allowed")
	errBytes    = errors.New("it has carried as much as its rule allows")
)

// A flow is one thing that a workspace does outside: a tunnel, or one plain
// HTTP request. It lives from the decision to its end, and is cut when the
// decision no longer holds.
type flow struct {
	p      *Proxy
	who    Who
	host   string // canonical
	port   int
	method string
	lane   *lane
	begin  time.Time
	cancel context.CancelCauseFunc
	done   <-chan struct{} // of the context that open returned

	up, down atomic.Int64 // bytes out of and into the workspace
	moved    atomic.Int64 // when something was last moved, in nanoseconds since begin
	half     atomic.Bool  // one side has finished
	meter    bucket       // by the rule's rate; the shares' mutex guards it

	mu       sync.Mutex // guards the rest
	decision rules.Decision
	decided  bool
	made     bool // connected
	gone     bool // nobody asks about it any more
	addr     netip.Addr
	reached  route
	timer    *time.Timer // asks again; nil: only when rules or grants change
}

// open decides about a flow and begins it: it is among those that a change of
// rules looks at before it is decided, so that none slips through between. The
// context that it returns ends when the flow is cut. The caller calls end, also
// when a [refusal] comes back: f is nil then.
func (p *Proxy) open(ctx context.Context, l *lane, who Who, host string, port int, method string) (context.Context, *flow, error) {
	canonical, err := rules.CanonicalHost(host)
	if err != nil {
		what := "that"
		if s := visible(host); len(s) <= 80 {
			what = s
		}
		r := &refusal{
			status: 403, error: "http_request_denied", reason: audit.BadRequest, class: who.Class,
			msg: what + " cannot be reached: " + err.Error(), hint: "Use the host's name.", cause: err,
		}
		p.note(ctx, who, r)
		return ctx, nil, r
	}
	f := &flow{p: p, who: who, host: canonical, port: port, method: method, lane: l, begin: time.Now()}
	ctx, f.cancel = context.WithCancelCause(ctx)
	f.done = ctx.Done()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		f.cancel(errShutdown)
		return ctx, nil, &refusal{status: 503, error: "proxy_internal_error", reason: audit.Unreachable, msg: errShutdown.Error(), hint: "Try again in a moment."}
	}
	p.live[f] = struct{}{}
	p.mu.Unlock()
	d := f.decide()
	if !d.Allowed {
		f.forget()
		state := p.book.note(ctx, who, canonical, port, method)
		r := notAllowed(who, canonical, port, method, d, state)
		p.note(ctx, who, r)
		return ctx, nil, r
	}
	err = p.records.connect(ctx, way{who: who, host: canonical, port: port, rule: d.Rule})
	if err == nil && d.Grant != "" {
		err = p.book.use(ctx, who.Class, d.Grant)
		f.decide() // a grant for once ends earlier now
	}
	if err != nil {
		f.forget()
		p.log.ErrorContext(ctx, "egress refused because it cannot be recorded", slog.String("workspace", who.WorkspaceID), slog.String("error", err.Error()))
		r := &refusal{
			status: 503, error: "proxy_internal_error", reason: audit.Unreachable, host: canonical, port: port, class: who.Class,
			msg: "what workspaces reach cannot be recorded now, so nothing is reached", hint: "Try again later, or tell an administrator.", cause: err,
		}
		p.counters.refuse(r.reason)
		return ctx, nil, r
	}
	return ctx, f, nil
}

// note counts and records a refusal.
func (p *Proxy) note(ctx context.Context, who Who, r *refusal) {
	p.counters.refuse(r.reason)
	p.records.add(ctx, way{who: who, host: r.host, port: r.port, reason: r.reason}, 0, 0, 0)
	if r.cause != nil {
		p.log.InfoContext(ctx, "egress refused", slog.String("workspace", who.WorkspaceID), slog.String("host", r.host),
			slog.String("reason", string(r.reason)), slog.String("error", r.cause.Error()))
	}
}

// decide asks the rules and cuts the flow when they say no.
func (f *flow) decide() rules.Decision {
	d := f.p.decide(f.who, f.host, f.port, f.method)
	f.mu.Lock()
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	before := f.decided
	f.decided = true
	addr := f.addr
	if d.Allowed {
		if !before {
			f.meter.rate = float64(d.Limits.Rate)
		}
		f.decision = d
		if !d.Until.IsZero() && !f.gone {
			f.timer = time.AfterFunc(time.Until(d.Until), func() { f.decide() })
		}
	}
	f.mu.Unlock()
	if d.Allowed && addr.IsValid() {
		if guard, err := f.p.guard(); err != nil || guard.Check(addr) != nil {
			d.Allowed = false
		}
	}
	if !d.Allowed {
		f.cut(errRules)
	}
	return d
}

// rule returns the decision that the flow lives by.
func (f *flow) rule() rules.Decision {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.decision
}

// at notes which address the flow was connected to.
func (f *flow) at(a netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addr = a
}

// by notes how the flow's host is reached, and way returns it.
func (f *flow) by(r route) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reached = r
}

func (f *flow) way() route {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reached
}

// connected counts a flow that has reached its host.
func (f *flow) connected() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.made {
		f.made = true
		f.p.counters.connected.Add(1)
	}
}

// cut ends the flow's context; whoever serves it closes the connections.
func (f *flow) cut(why error) { f.cancel(why) }

// sent and received count n bytes and wait until more may be moved.
func (f *flow) sent(n int)     { f.account(&f.up, &f.p.counters.up, n) }
func (f *flow) received(n int) { f.account(&f.down, &f.p.counters.down, n) }

func (f *flow) account(way, all *atomic.Int64, n int) {
	way.Add(int64(n))
	all.Add(int64(n))
	f.moved.Store(int64(time.Since(f.begin)))
	if most := f.rule().Limits.Bytes; most > 0 && f.up.Load()+f.down.Load() > most {
		f.cut(errBytes)
		return
	}
	f.lane.spend(f.done, &f.meter, n)
}

// still is how long nothing was moved.
func (f *flow) still() time.Duration {
	return time.Since(f.begin) - time.Duration(f.moved.Load())
}

// patience is how long it may be still.
func (f *flow) patience() time.Duration {
	if f.half.Load() {
		return halfLimit
	}
	return idleLimit
}

// forget takes the flow out of those that rules are asked about again.
func (f *flow) forget() {
	f.p.mu.Lock()
	delete(f.p.live, f)
	f.p.mu.Unlock()
	f.mu.Lock()
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	f.gone = true
	f.mu.Unlock()
	f.cancel(context.Canceled)
}

// end records what the flow has carried. err is why it ended, nil when it just did.
func (f *flow) end(ctx context.Context, err error) {
	cause := context.Cause(ctx)
	f.forget()
	cut := errors.Is(cause, errRules) || errors.Is(cause, errBytes)
	if r, ok := errors.AsType[*refusal](err); ok && !cut {
		f.p.note(ctx, f.who, r)
		return
	}
	w := way{who: f.who, host: f.host, port: f.port, rule: f.rule().Rule}
	if cut {
		w.cut, w.reason = true, audit.RuleChanged
		if errors.Is(cause, errBytes) {
			w.reason = audit.OverQuota
		}
		f.p.counters.cut.Add(1)
		f.p.log.InfoContext(ctx, "egress cut", slog.String("workspace", f.who.WorkspaceID), slog.String("host", f.host), slog.String("reason", cause.Error()))
	}
	f.p.records.add(ctx, w, f.up.Load(), f.down.Load(), time.Since(f.begin))
}

// recheck asks the rules about everything that is open.
func (p *Proxy) recheck() {
	p.mu.RLock()
	all := make([]*flow, 0, len(p.live))
	for f := range p.live {
		all = append(all, f)
	}
	p.mu.RUnlock()
	for _, f := range all {
		f.decide()
	}
}
