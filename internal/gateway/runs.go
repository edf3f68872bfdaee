package gateway

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/mutant"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/workspace"
)

// A runKey names one start of one run. Whatever is kept for a run, connections
// above all, is found under it alone: the same workspace, started again, is
// another key, and so is another workspace with the same address.
type runKey struct {
	run     string
	started int64
}

// A run is what the gateway keeps for a running workspace, from the first
// request until the route is done.
type run struct {
	key       runKey
	workspace string
	upstream  *upstream
	touched   atomic.Int64  // Unix nanoseconds of the last Touch
	requests  atomic.Int64  // being answered
	holding   atomic.Int64  // bytes of big messages that are being read
	scope     *filter.Scope // nil: there is no filter

	// guarded by Gateway.mu
	tunnels map[*tunnel]struct{}
	slots   int // tunnels that are open or being opened
}

// runFor returns the run of a route, and makes it on first sight.
func (g *Gateway) runFor(route Route) (*run, error) {
	key := runKey{route.Workspace.RunID, route.Workspace.StartedAt.UnixNano()}
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.runs[key]; r != nil {
		return r, nil
	}
	if g.draining {
		return nil, errDraining
	}
	r := &run{
		key: key, workspace: route.Workspace.ID,
		upstream: newUpstreamOf(route),
		tunnels:  map[*tunnel]struct{}{},
	}
	if g.cfg.Filter != nil {
		w := route.Workspace
		r.scope = g.cfg.Filter.For(filter.Subject{
			UserID: w.OwnerID, User: w.Owner, WorkspaceID: w.ID, Workspace: w.Name, Class: w.Class, Run: w.RunID,
		}, map[string]secret.Value{"jupyter-token": route.Token})
	}
	g.runs[key] = r
	g.wg.Go(func() {
		select {
		case <-route.Done:
		case <-g.stop:
		}
		g.endRun(r)
	})
	return r, nil
}

// inspected reports whether what passes is looked at.
func (r *run) inspected() bool { return r.scope != nil && !r.scope.Off() }

func logWorkspace(r *run) slog.Attr  { return slog.String("workspace", r.workspace) }
func logError(err error) slog.Attr   { return slog.String("error", err.Error()) }
func logStatus(status int) slog.Attr { return slog.Int("status", status) }

var errDraining = &bailey.Error{Kind: bailey.Unavailable, Msg: "the server is going down", Hint: "try again in a moment"}

// endRun forgets a run: its kept connections and its tunnels close.
func (g *Gateway) endRun(r *run) {
	g.mu.Lock()
	delete(g.runs, r.key)
	var open []*tunnel
	for t := range r.tunnels {
		open = append(open, t)
	}
	g.mu.Unlock()
	r.upstream.close()
	for _, t := range open {
		t.end(closeGoingAway)
	}
}

// touch tells the workspace service that a person is there, at most every few
// seconds.
func (g *Gateway) touch(r *run) {
	now := g.cfg.Now().UnixNano()
	last := r.touched.Load()
	if now-last >= int64(touchEvery) && r.touched.CompareAndSwap(last, now) {
		g.cfg.Workspaces.Touch(r.workspace)
	}
}

const dialLimit = 10 * time.Second

// newUpstreamOf speaks to one run's Jupyter. Every new connection asks the
// route, which knows whether the run is still that one.
func newUpstreamOf(route Route) *upstream {
	return newUpstream(func(ctx context.Context) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialLimit)
		defer cancel()
		return route.Dial(ctx, "tcp", workspace.JupyterAddr)
	})
}

// A watch is the tunnels of one session or token, and the goroutine that
// closes them when it ends.
type watch struct {
	tunnels map[*tunnel]struct{} // guarded by Gateway.mu
	stop    chan struct{}        // closed when the last tunnel has left
}

// reserve takes a place for a tunnel, or fails with TooMany.
func (g *Gateway) reserve(r *run, userID string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return errDraining
	}
	if !mutant.TunnelLimits && (r.slots >= g.cfg.Limits.TunnelsPerWorkspace || g.users[userID] >= g.cfg.Limits.TunnelsPerUser) {
		g.stats.Refused++
		return &bailey.Error{
			Kind: bailey.TooMany, Msg: "too many open connections to this workspace", Hint: "close some of its browser tabs",
		}
	}
	r.slots++
	g.users[userID]++
	return nil
}

// unreserve gives the place back.
func (g *Gateway) unreserve(r *run, userID string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r.slots--
	if g.users[userID]--; g.users[userID] <= 0 {
		delete(g.users, userID)
	}
}

// join registers an open tunnel with its run and its session. It fails when
// the server went down meanwhile.
func (g *Gateway) join(t *tunnel) error {
	key := t.actor.Method + " " + t.actor.Session
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return errDraining
	}
	w := g.sessions[key]
	if w == nil {
		w = &watch{tunnels: map[*tunnel]struct{}{}, stop: make(chan struct{})}
		g.sessions[key] = w
		actor := t.actor
		g.wg.Go(func() { g.watchSession(key, w, actor) })
	}
	w.tunnels[t] = struct{}{}
	t.watch, t.watchKey = w, key
	t.run.tunnels[t] = struct{}{}
	g.stats.Open++
	g.stats.Opened++
	// Two for the loops. The run may have ended a moment ago, before we were
	// in its set: then nobody else will tell us.
	g.wg.Add(2)
	if g.runs[t.run.key] != t.run {
		t.end(closeGoingAway)
	}
	return nil
}

// placeEvery is how often it is asked whether somebody may still be where they
// are. It bounds how long a ban or a change of the allow-lists takes to end what
// is open.
const placeEvery = time.Second / 2

// misplaced reports whether nobody, or not this person, may come from their
// address any more.
func (g *Gateway) misplaced(a bailey.Actor) bool {
	return !mutant.Places && g.cfg.Identity.Permitted(bailey.User{ID: a.UserID, Name: a.Name, Groups: a.Groups}, a.IP) != nil
}

// endMisplaced closes the tunnels of a session whose addresses were closed
// after they had opened.
func (g *Gateway) endMisplaced(w *watch) {
	g.mu.Lock()
	byIP := map[string][]*tunnel{}
	for t := range w.tunnels {
		byIP[t.actor.IP] = append(byIP[t.actor.IP], t)
	}
	g.mu.Unlock()
	for _, tunnels := range byIP {
		if !g.misplaced(tunnels[0].actor) {
			continue
		}
		for _, t := range tunnels {
			t.end(closePolicy)
		}
	}
}

// watchSession closes the tunnels of a session when it ends, and those from
// where nobody may come any more.
func (g *Gateway) watchSession(key string, w *watch, actor bailey.Actor) {
	ended, release := g.cfg.Identity.Ended(actor)
	defer release()
	tick := time.NewTicker(placeEvery)
	defer tick.Stop()
	for over := false; !over; {
		select {
		case <-w.stop:
			return
		case <-tick.C:
			g.endMisplaced(w)
		case <-ended:
			over = true
		}
	}
	g.mu.Lock()
	if g.sessions[key] == w {
		delete(g.sessions, key)
	}
	var open []*tunnel
	for t := range w.tunnels {
		open = append(open, t)
	}
	g.mu.Unlock()
	if mutant.Endings {
		return
	}
	for _, t := range open {
		t.end(closePolicy)
	}
}

// leave is the end of a tunnel that joined.
func (g *Gateway) leave(t *tunnel) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stats.Open--
	delete(t.run.tunnels, t)
	delete(t.watch.tunnels, t)
	if len(t.watch.tunnels) == 0 && g.sessions[t.watchKey] == t.watch {
		delete(g.sessions, t.watchKey)
		close(t.watch.stop)
	}
}

// Drain refuses new upgrades, closes the open ones with 1001 (going away) and
// waits until they are gone or ctx ends; then it cuts them off and returns
// ctx's error. Call it beside [edge.Server.Shutdown], which sees to the rest.
func (g *Gateway) Drain(ctx context.Context) error {
	g.mu.Lock()
	first := !g.draining
	g.draining = true
	open := g.openTunnels()
	g.mu.Unlock()
	if first {
		close(g.stop)
	}
	for _, t := range open {
		t.end(closeGoingAway)
	}
	done := make(chan struct{})
	go func() {
		g.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		g.mu.Lock()
		open = g.openTunnels()
		g.mu.Unlock()
		for _, t := range open {
			t.cut()
		}
		<-done
	}
	g.denials.close(context.WithoutCancel(ctx))
	return err
}

// openTunnels lists the tunnels of all runs. The caller holds mu.
func (g *Gateway) openTunnels() []*tunnel {
	var open []*tunnel
	for _, w := range g.sessions {
		for t := range w.tunnels {
			open = append(open, t)
		}
	}
	return open
}

// buffers is a pool of relay buffers.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

// Get and Put are [httputil.BufferPool].
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return make([]byte, bufferSize)
}

func (b *buffers) Put(p []byte) {
	if cap(p) >= bufferSize {
		b.pool.Put((*[bufferSize]byte)(p[:bufferSize]))
	}
}
