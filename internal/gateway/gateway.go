// Package gateway is the door to what runs inside workspaces: Jupyter's pages
// and API over HTTP, and its WebSockets. It decides for every request and
// every upgrade who asks, whether the request came from a page of that
// workspace, and what may cross the border in either direction; whether that
// person may enter is the answer of internal/workspace. It starts nothing.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/workspace"
)

// A Route is the way into one running workspace, for one run and one start of
// its container. Dial fails once the run is over, and Done is closed then.
type Route struct {
	Workspace bailey.Workspace
	Token     secret.Value // Jupyter's; injected upstream and shown to nobody
	BasePath  string       // Jupyter's base URL; empty: "/"
	Dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	Done      <-chan struct{}
}

// Workspaces is what the gateway asks of the workspace service; [From] makes
// one. Its methods may be called concurrently.
type Workspaces interface {
	// Get returns a workspace by its slug: NotFound when the actor may not know of it.
	Get(ctx context.Context, actor bailey.Actor, slug string) (bailey.Workspace, error)
	// Route returns the way into it: NotFound as in Get, or Conflict when it
	// is not running. It is asked for every request.
	Route(ctx context.Context, actor bailey.Actor, slug string) (Route, error)
	// Touch notes that a person did something inside.
	Touch(workspaceID string)
}

// From returns the service as the gateway sees it.
func From(s *workspace.Service) Workspaces { return service{s} }

type service struct{ *workspace.Service }

func (s service) Route(ctx context.Context, actor bailey.Actor, slug string) (Route, error) {
	r, err := s.Service.Route(ctx, actor, slug)
	if err != nil {
		return Route{}, err
	}
	return Route{Workspace: r.Workspace, Token: secret.New(r.Token), BasePath: r.BasePath, Dial: r.Dial, Done: r.Done()}, nil
}

// Identity is what the gateway asks about callers.
type Identity interface {
	BySession(ctx context.Context, cookie secret.Value, ip string) (bailey.Actor, error)
	BySessionID(ctx context.Context, userID, id, ip string) (bailey.Actor, error)
	ByToken(ctx context.Context, token secret.Value, ip string) (bailey.Actor, error)
	Ended(actor bailey.Actor) (ended <-chan struct{}, release func())
	Permitted(u bailey.User, ip string) error
}

var (
	_ Identity   = (*identity.Service)(nil)
	_ Workspaces = service{}
)

// Limits bound what is open at once. Zero fields mean the defaults.
type Limits struct {
	TunnelsPerWorkspace  int // WebSockets; 64
	TunnelsPerUser       int // WebSockets; 512
	RequestsPerWorkspace int // requests being answered; 1024
}

// Config is what a Gateway needs; all but Filter, AuditCells, Log, Limits and
// Now are required.
type Config struct {
	Workspaces Workspaces
	Identity   Identity
	Origins    *edge.Origins
	Audit      audit.Appender
	Filter     *filter.Filter          // looks at what passes; nil: nothing is looked at
	AuditCells func(class string) bool // whether the code that is run there stands in the journal, as a hash; nil: nowhere. Needs Filter
	CellKey    secret.Value            // keys those hashes
	Log        *slog.Logger            // nil: silent
	Limits     Limits                  //
	Now        func() time.Time        // nil means time.Now
}

// A Gateway answers the workspaces' origins. It may be used concurrently.
type Gateway struct {
	cfg     Config
	codes   *codes
	passes  *passes
	denials *denials
	buffers *buffers

	stop chan struct{}  // closed by Drain
	wg   sync.WaitGroup // tunnels, watchers and judges

	judgings chan *judging // messages to look at; never closed
	judges   atomic.Int32  // goroutines that wait for one

	mu       sync.Mutex // guards the rest, and the sets inside
	draining bool
	runs     map[runKey]*run
	sessions map[string]*watch // open tunnels by the session or token that opened them
	users    map[string]int    // open tunnels by user id
	stats    TunnelStats
}

// New checks cfg and returns a Gateway.
func New(cfg Config) (*Gateway, error) {
	if cfg.Workspaces == nil || cfg.Identity == nil || cfg.Origins == nil || cfg.Audit == nil {
		return nil, errors.New("gateway: Workspaces, Identity, Origins and Audit are required")
	}
	if l := cfg.Limits; l.TunnelsPerWorkspace < 0 || l.TunnelsPerUser < 0 || l.RequestsPerWorkspace < 0 {
		return nil, errors.New("gateway: negative limit")
	}
	cfg.Limits.TunnelsPerWorkspace = cmp.Or(cfg.Limits.TunnelsPerWorkspace, 64)
	cfg.Limits.TunnelsPerUser = cmp.Or(cfg.Limits.TunnelsPerUser, 512)
	cfg.Limits.RequestsPerWorkspace = cmp.Or(cfg.Limits.RequestsPerWorkspace, 1024)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Gateway{
		cfg:      cfg,
		codes:    newCodes(cfg.Now),
		passes:   newPasses(cfg.Now),
		denials:  newDenials(cfg.Audit, cfg.Log, cfg.Now),
		buffers:  &buffers{},
		stop:     make(chan struct{}),
		judgings: make(chan *judging),
		runs:     map[runKey]*run{},
		sessions: map[string]*watch{},
		users:    map[string]int{},
	}, nil
}

// ServeHTTP serves the workspaces' origins.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	slug, console, ok := g.cfg.Origins.Match(r)
	if !ok || console {
		edge.WriteProblem(w, edge.Problem{
			Type: "about:blank", Title: http.StatusText(http.StatusMisdirectedRequest),
			Status: http.StatusMisdirectedRequest, Code: bailey.NotFound.String(), Detail: "there is no workspace at this address",
		})
		return
	}
	q := g.request(r, slug)
	if q.base != "" && !q.below(w) {
		return
	}
	if err := q.serve(w); err != nil {
		q.fail(w, err)
	}
}

func (g *Gateway) request(r *http.Request, slug string) *request {
	base := g.cfg.Origins.Base(slug)
	return &request{Request: r, gateway: g, slug: slug, base: base, origin: strings.TrimSuffix(g.cfg.Origins.Workspace(slug), base)}
}

// A request is one request for a workspace's origin and what became known of
// it on the way.
type request struct {
	*http.Request
	gateway *Gateway
	slug    string
	origin  string // "https://ada-1f00.localhost:8443"
	base    string // in mode path "/w/ada-1f00": what URL.Path leaves out and Jupyter wants to see; else empty
	actor   bailey.Actor
	alias   string // the console's path that it came by, "/user/ada/lab"; empty: by the workspace's own origin
	cookie  bool   // the credential was a cookie, which browsers send by themselves
}

// serve is the one way in, for pages, API calls and upgrades alike.
func (q *request) serve(w http.ResponseWriter) error {
	if own := ownPath(q.URL.Path); own {
		return q.serveOwn(w)
	}
	kind, upgrade := upgradeOf(q.Header)
	if upgrade {
		if err := checkHandshake(q.Request, kind); err != nil {
			return err
		}
	}
	if err := q.authenticate(); err != nil {
		if errors.Is(err, errSignIn) && !upgrade && q.navigates() {
			q.beginHandOff(w)
			return nil
		}
		return err
	}
	if q.cookie {
		if err := q.checkFetch(upgrade); err != nil {
			q.gateway.denials.note(q.Context(), q.actor, q.slug, audit.ForeignOrigin, http.StatusForbidden)
			return err
		}
	}
	route, err := q.gateway.route(q.Context(), q.actor, q.slug)
	if err != nil {
		return err
	}
	if upgrade {
		return q.tunnel(w, route)
	}
	return q.proxy(w, route)
}

// route asks for the way in, and leaves a trace when it is refused. A workspace
// that is not running becomes a *stopped.
func (g *Gateway) route(ctx context.Context, actor bailey.Actor, slug string) (Route, error) {
	route, err := g.cfg.Workspaces.Route(ctx, actor, slug)
	if err == nil && strings.TrimSuffix(route.BasePath, "/") != g.cfg.Origins.Base(slug) {
		return Route{}, &bailey.Error{
			Kind: bailey.Unavailable, Msg: "this workspace was started when workspaces had other addresses (origin.mode has been changed)",
			Hint: "stop it and start it again; files and notebooks stay",
		}
	}
	if err == nil {
		select {
		case <-route.Done: // it ended while we asked
			return Route{}, g.stopped(ctx, actor, slug, nil)
		default:
			return route, nil
		}
	}
	switch bailey.KindOf(err) { //nolint:exhaustive // the rest goes to the caller as it is
	case bailey.NotFound, bailey.Denied:
		g.denials.note(ctx, actor, slug, audit.NotAllowed, http.StatusNotFound)
		return Route{}, &bailey.Error{
			Kind: bailey.NotFound, Msg: "there is no such workspace, or it is not yours",
			Hint: "your workspaces are listed at " + g.cfg.Origins.Console() + "/workspaces", Cause: err,
		}
	case bailey.Conflict:
		return Route{}, g.stopped(ctx, actor, slug, err)
	}
	return Route{}, err
}

// A stopped is the error for a workspace that exists and is not running.
type stopped struct {
	err   *bailey.Error
	page  string // of the workspace, on the console
	state bailey.State
}

func (s *stopped) Error() string { return s.err.Error() }
func (s *stopped) Unwrap() error { return s.err }

func (g *Gateway) stopped(ctx context.Context, actor bailey.Actor, slug string, cause error) error {
	ws, err := g.cfg.Workspaces.Get(ctx, actor, slug)
	if err != nil {
		return err
	}
	page := g.cfg.Origins.Console() + "/workspaces/" + ws.ID
	msg := "workspace " + ws.Name + " is " + string(ws.State)
	if ws.State == bailey.Running {
		msg = "workspace " + ws.Name + " does not answer just now"
	}
	if ws.Reason != "" && ws.State != bailey.Starting {
		msg += ": " + ws.Reason
	}
	hint := "start it at " + page
	if ws.State == bailey.Starting || ws.State == bailey.Running {
		hint = "wait a moment; its progress is at " + page
	}
	return &stopped{
		err:  &bailey.Error{Kind: bailey.Unavailable, Msg: msg, Hint: hint, Cause: cause},
		page: page, state: ws.State,
	}
}

// fail answers with err: a page with the way on for a person, a problem for a
// program.
func (q *request) fail(w http.ResponseWriter, err error) {
	q.gateway.fail(w, q.Request, err)
}

func (g *Gateway) fail(w http.ResponseWriter, r *http.Request, err error) {
	if v, ok := errors.AsType[*versionError](err); ok {
		w.Header().Set("Sec-WebSocket-Version", v.want)
	}
	if !edge.WantsPage(r) {
		edge.WriteError(w, r, g.cfg.Log, err)
		return
	}
	p := edge.ProblemOf(r, g.cfg.Log, err)
	page := edge.Page{
		Status: p.Status, Title: p.Title, Detail: sentence(p.Detail), Hint: sentence(p.Hint), RequestID: p.RequestID,
		Link: g.cfg.Origins.Console() + "/", LinkText: "To your workspaces",
	}
	if s, ok := errors.AsType[*stopped](err); ok {
		page.Title, page.Hint = "This workspace is not running", ""
		page.Link, page.LinkText = s.page, "Go to this workspace's page"
		if s.state == bailey.Starting {
			page.Title = "This workspace is starting"
			w.Header().Set("Refresh", "3")
		}
	}
	edge.WritePage(w, page)
}

// sentence makes an error's words a sentence.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// TunnelStats says how many WebSockets there are and were.
type TunnelStats struct {
	Open    int    // now
	Opened  uint64 // since the start
	Refused uint64 // because of a limit
}

// Tunnels returns the counts of WebSockets.
func (g *Gateway) Tunnels() TunnelStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stats
}
