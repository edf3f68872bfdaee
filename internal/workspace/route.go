package workspace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/policy"
)

// A Route is the way into one running workspace: valid for one run and one
// start of its container, checked again at every Dial.
type Route struct {
	Workspace bailey.Workspace
	Token     string // Jupyter's token, injected by the gateway and never shown
	BasePath  string // Jupyter's base URL, fixed when the run began; empty: "/"
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	done      <-chan struct{}
}

// RouteTo returns a Route that dials by a function: for tests that stand in for
// a [Service]. Policy is not asked, and nothing is checked again.
func RouteTo(ws bailey.Workspace, token string, done <-chan struct{}, dial func(ctx context.Context, network, addr string) (net.Conn, error)) Route {
	return Route{Workspace: ws, Token: token, dial: dial, done: done}
}

// Dial connects to an address on the workspace's loopback. It fails with kind
// Unavailable when the run that the route was made for is over, so that a
// stale route never reaches another run's container, and with Invalid when
// the address is not on the loopback.
func (r Route) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return r.dial(ctx, network, addr)
}

// Done is closed when the run has ended: tunnels over this route must then close.
func (r Route) Done() <-chan struct{} { return r.done }

// routes are the workspaces that are served now. A value is never changed; a
// change makes a new one, so that readers need no lock.
type routes struct {
	bySlug map[string]*live
	byID   map[string]*live
}

// A live is one start of one run's container, from when it was found to be
// what it should be until it is not served any more.
type live struct {
	k       *keeper
	route   Route
	run     bailey.Run
	started time.Time // the container's start
	done    chan struct{}

	mu        sync.Mutex // guards confirmed; held while asking the engine, so that a crowd asks once
	confirmed time.Time
}

// confirmEach is how long the engine's word that a container is still the same
// start counts. Its events end a route within milliseconds; this is for the
// events that do not come.
const confirmEach = time.Second

// Route returns the way into a running workspace for an actor who may open it.
// It is on the path of every proxied request: it asks no database when the
// workspace is running and the policy is unchanged. NotFound when the actor may
// not know of it; Denied when they may, but not open it; Conflict when it is
// not running (it never starts it); Unavailable while it is not known whether
// its container is what it should be.
func (s *Service) Route(ctx context.Context, actor bailey.Actor, slug string) (Route, error) {
	if l := s.routes.Load().bySlug[slug]; l != nil {
		if policy.Decide(actor, policy.WorkspaceOpen, policy.Thing{OwnerID: l.route.Workspace.OwnerID, WorkspaceID: l.route.Workspace.ID}) {
			return l.route, nil
		}
		return Route{}, s.allow(ctx, actor, policy.WorkspaceOpen, l.route.Workspace)
	}
	ws, err := s.cfg.Store.WorkspaceBySlug(ctx, slug)
	if err != nil {
		return Route{}, hidden(err, noWorkspace())
	}
	if err := s.allow(ctx, actor, policy.WorkspaceOpen, ws); err != nil {
		return Route{}, err
	}
	return Route{}, s.notServed(ws)
}

// notServed says why there is no way into a workspace now.
func (s *Service) notServed(ws bailey.Workspace) error {
	e := &bailey.Error{Kind: bailey.Conflict, Msg: "workspace " + ws.Name + " is " + string(ws.State)}
	if ws.Reason != "" {
		e.Msg += ": " + ws.Reason
	}
	switch ws.State {
	case bailey.Starting:
		e.Hint = "wait until it is ready"
	case bailey.Stopping:
		e.Hint = "wait until it has stopped, then start it"
	case bailey.Stopped, bailey.Failed:
		e.Hint = "start it from the console, or with: bailey run --name " + ws.Name
	case bailey.Running:
		// The store says so, but no keeper vouches for the container: the
		// server has just started, or the engine does not answer.
		if k := s.keeperOf(ws.RunID); k != nil {
			if err := k.stuck(0); err != nil {
				return err
			}
		}
		return &bailey.Error{
			Kind: bailey.Unavailable,
			Msg:  "workspace " + ws.Name + " is running and is being checked before it is served",
			Hint: "try again in a moment",
		}
	}
	return e
}

// Touch notes real activity of a person in the workspace (keys typed, cells
// run, files saved; never polling). It is cheap and writes behind.
func (s *Service) Touch(workspaceID string) {
	if l := s.routes.Load().byID[workspaceID]; l != nil {
		l.k.touch(s.elapsed())
	}
}

// publish serves the container's start at that time. Serving what is served
// already changes nothing.
func (k *keeper) publish(ws bailey.Workspace, started time.Time) {
	if l := k.live.Load(); l != nil && l.started.Equal(started) {
		return
	}
	k.withdraw()
	l := &live{k: k, run: k.run, started: started, done: make(chan struct{}), confirmed: time.Now()}
	l.route = Route{Workspace: ws, Token: k.run.Token, BasePath: k.basePath(), dial: l.dial, done: l.done}
	k.s.swapRoutes(func(r *routes) {
		k.live.Store(l)
		r.bySlug[ws.Slug] = l
		r.byID[ws.ID] = l
	})
}

// withdraw stops serving the run: from when it returns no new connection is
// made, and everybody who holds a route is told. It may be called by anyone,
// and again.
func (k *keeper) withdraw() {
	if k.live.Load() == nil {
		return
	}
	var l *live
	k.s.swapRoutes(func(r *routes) {
		if l = k.live.Swap(nil); l == nil {
			return // somebody else has
		}
		ws := l.route.Workspace
		if r.bySlug[ws.Slug] == l {
			delete(r.bySlug, ws.Slug)
		}
		if r.byID[ws.ID] == l {
			delete(r.byID, ws.ID)
		}
	})
	if l != nil {
		close(l.done)
	}
}

// swapRoutes replaces the routes by a changed copy.
func (s *Service) swapRoutes(change func(*routes)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.routes.Load()
	fresh := &routes{bySlug: maps.Clone(old.bySlug), byID: maps.Clone(old.byID)}
	change(fresh)
	s.routes.Store(fresh)
}

func errRouteOver() error {
	return &bailey.Error{
		Kind: bailey.Unavailable,
		Msg:  "the workspace was stopped or started again meanwhile",
		Hint: "open it again",
	}
}

// dial connects into the container if it is still the one that was published.
func (l *live) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	// The engine checks again; here it costs nothing to be sure that no
	// engine ever sees an address of another machine.
	if err := engine.CheckDial(network, addr); err != nil {
		return nil, err
	}
	if err := l.confirm(ctx); err != nil {
		return nil, err
	}
	conn, err := l.k.s.cfg.Engine.Dial(ctx, l.run.ID, l.run.UID, network, addr)
	if err != nil {
		return nil, l.dialFailed(ctx, err)
	}
	if l.isOver() { // ended between the check and the connection
		_ = conn.Close()
		return nil, errRouteOver()
	}
	return conn, nil
}

func (l *live) dialFailed(ctx context.Context, err error) error {
	switch {
	case l.isOver():
		return errRouteOver()
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, engine.ErrHostile):
		l.k.s.log.WarnContext(ctx, "workspace's socket is not what it should be", slog.String("run", l.run.ID),
			slog.String("workspace", l.run.WorkspaceID), slog.Any("error", err))
	}
	nudge(l.k.kick) // the container may be gone without an event
	return &bailey.Error{
		Kind: bailey.Unavailable, Msg: "the workspace does not answer",
		Hint: "try again in a moment; if it stays so, stop and start it", Cause: fmt.Errorf("dial run %s: %w", l.run.ID, err),
	}
}

func (l *live) isOver() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// confirm returns nil if the container is still the start that was published.
func (l *live) confirm(ctx context.Context) error {
	if l.isOver() {
		return errRouteOver()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.confirmed) < confirmEach {
		return nil
	}
	look, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	st, err := l.k.s.cfg.Engine.Inspect(look, l.run.ContainerID)
	switch {
	case err == nil && st.Running && st.Run == l.run.ID && st.StartedAt.Equal(l.started):
		l.confirmed = time.Now()
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil, errors.Is(err, engine.ErrNotFound):
		if l.k.live.Load() == l {
			l.k.withdraw()
		}
		nudge(l.k.kick)
		return errRouteOver()
	}
	return engineDown(err)
}
