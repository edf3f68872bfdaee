// Package jupyterhub is the door for tools that know JupyterHub: the part of
// its REST API that they call, below /hub/api, in its own words. A server is a
// workspace of that name; the one without a name is the default. It takes API
// tokens and no cookies, decides nothing, and never starts anything because
// somebody looked.
package jupyterhub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/workspace"
)

// apiVersion is the version of JupyterHub whose API this is a part of. Tools
// look at it to know which requests they may make.
const apiVersion = "5.2.1"

const maxBody = 16 << 10

// Config is what the door stands on; all but Log are required.
type Config struct {
	Identity   *identity.Service
	Workspaces *workspace.Service
	Log        *slog.Logger
}

// A Hub answers /hub/api. It may be used concurrently.
type Hub struct {
	cfg Config
	mux *http.ServeMux
}

// New lists the routes.
func New(cfg Config) (*Hub, error) {
	if cfg.Identity == nil || cfg.Workspaces == nil {
		return nil, errors.New("jupyterhub: Identity and Workspaces are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Hub{cfg: cfg, mux: http.NewServeMux()}
	public := func(route string, f edge.HandlerFunc) { h.mux.Handle(route, h.handle(f)) }
	mine := func(route string, f func(http.ResponseWriter, *http.Request, bailey.Actor) error) {
		public(route, h.own(f))
	}
	public("GET /hub/api", h.version)
	public("GET /hub/api/{$}", h.version)
	mine("GET /hub/api/user", h.user)
	mine("GET /hub/api/users/{name}", h.user)
	for _, server := range []string{"/server", "/servers/{server}", "/servers/{$}"} {
		mine("POST /hub/api/users/{name}"+server, h.start)
		mine("DELETE /hub/api/users/{name}"+server, h.stop)
	}
	mine("GET /hub/api/users/{name}/server/progress", h.progress)
	mine("GET /hub/api/users/{name}/servers/{server}/progress", h.progress)
	public("POST /hub/api/users/{name}/tokens", h.newToken)
	public("POST /hub/api/authorizations/token", h.newToken) // before JupyterHub 3
	mine("GET /hub/api/users/{name}/tokens", h.tokens)
	mine("DELETE /hub/api/users/{name}/tokens/{id}", h.revokeToken)
	public("/hub/api/", func(http.ResponseWriter, *http.Request) error {
		return bailey.Errorf(bailey.NotFound, "this part of JupyterHub's API is not here")
	})
	return h, nil
}

// ServeHTTP serves /hub/api.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// handle gives answers their headers and errors JupyterHub's form.
func (h *Hub) handle(f edge.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("X-JupyterHub-Version", apiVersion)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		err := f(w, r)
		if err == nil {
			return
		}
		p := edge.ProblemOf(r, h.cfg.Log, err)
		switch p.Status {
		case http.StatusUnauthorized, http.StatusForbidden:
			// JupyterHub says 403 for both; its clients know no other.
			p.Status = http.StatusForbidden
		case http.StatusUnprocessableEntity:
			p.Status = http.StatusBadRequest
		}
		if wait := identity.RetryAfter(err); wait > 0 {
			header.Set("Retry-After", seconds(wait))
		}
		msg := p.Detail
		if p.Hint != "" {
			msg += " (" + p.Hint + ")"
		}
		_ = writeJSON(w, p.Status, map[string]any{"status": p.Status, "message": msg})
	})
}

func seconds(d time.Duration) string {
	b, _ := json.Marshal(int64((d + time.Second - 1) / time.Second)) // a number is always possible
	return string(b)
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // an error here is the client's own going away
	return nil
}

// tokenOf returns the one token that a request carries: in its header, or, as
// some of JupyterHub's clients send it, in the query of these API paths.
func tokenOf(r *http.Request) (secret.Value, bool, error) {
	var found []string
	for _, line := range r.Header["Authorization"] {
		scheme, rest, _ := strings.Cut(line, " ")
		if !strings.EqualFold(scheme, "token") && !strings.EqualFold(scheme, "bearer") {
			return secret.Value{}, false, &bailey.Error{Kind: bailey.Unauthenticated, Msg: "this kind of Authorization is not accepted", Hint: `send "Authorization: token bly_…"`}
		}
		found = append(found, strings.TrimSpace(rest))
	}
	found = append(found, r.URL.Query()["token"]...)
	switch len(found) {
	case 0:
		return secret.Value{}, false, nil
	case 1:
		return secret.New(found[0]), true, nil
	}
	return secret.Value{}, false, bailey.Errorf(bailey.Invalid, "there is more than one token")
}

// own wraps a handler for the caller's own user: other names are as good as not
// there.
func (h *Hub) own(f func(http.ResponseWriter, *http.Request, bailey.Actor) error) edge.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		actor, err := h.actor(r)
		if err != nil {
			return err
		}
		if name := r.PathValue("name"); name != "" && name != actor.Name {
			return errNoUser
		}
		return f(w, r, actor)
	}
}

var errNoUser = bailey.Errorf(bailey.NotFound, "there is no such user, or it is not you")

func (h *Hub) actor(r *http.Request) (bailey.Actor, error) {
	token, given, err := tokenOf(r)
	if err != nil {
		return bailey.Actor{}, err
	}
	if !given {
		return bailey.Actor{}, &bailey.Error{Kind: bailey.Unauthenticated, Msg: "sign-in needed", Hint: `send "Authorization: token bly_…"`}
	}
	return h.cfg.Identity.ByToken(r.Context(), token, edge.ClientIP(r))
}

func (h *Hub) version(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, map[string]string{"version": apiVersion})
}

// A userModel and a serverModel are JupyterHub's.
type userModel struct {
	Kind         string                 `json:"kind"`
	Name         string                 `json:"name"`
	Admin        bool                   `json:"admin"`
	Groups       []string               `json:"groups"`
	Server       *string                `json:"server"`
	Pending      *string                `json:"pending"`
	Created      *time.Time             `json:"created"`
	LastActivity *time.Time             `json:"last_activity"`
	Servers      map[string]serverModel `json:"servers"`
}

type serverModel struct {
	Name         string         `json:"name"`
	FullName     string         `json:"full_name"`
	Ready        bool           `json:"ready"`
	Stopped      bool           `json:"stopped"`
	Pending      *string        `json:"pending"`
	URL          string         `json:"url"`
	ProgressURL  string         `json:"progress_url"`
	Started      *time.Time     `json:"started"`
	LastActivity *time.Time     `json:"last_activity"`
	UserOptions  map[string]any `json:"user_options"`
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func server(owner, name string, ws bailey.Workspace) serverModel {
	m := serverModel{
		Name: name, FullName: owner + "/" + name, Ready: ws.State == bailey.Running,
		Stopped: ws.State == bailey.Stopped || ws.State == bailey.Failed,
		URL:     "/user/" + owner + "/", ProgressURL: "/hub/api/users/" + owner + "/server/progress",
		Started: optional(ws.StartedAt), LastActivity: optional(ws.ActiveAt), UserOptions: map[string]any{"class": ws.Class},
	}
	if name != "" {
		m.URL += name + "/"
		m.ProgressURL = "/hub/api/users/" + owner + "/servers/" + name + "/progress"
	}
	switch ws.State { //nolint:exhaustive // nothing is pending otherwise
	case bailey.Starting:
		m.Pending = new("spawn")
	case bailey.Stopping:
		m.Pending = new("stop")
	}
	return m
}

// defaultOf returns the workspace that the server without a name is: the only
// one, or the one called "default", or else the one started last.
func defaultOf(list []bailey.Workspace) (bailey.Workspace, bool) {
	if len(list) == 0 {
		return bailey.Workspace{}, false
	}
	if i := slices.IndexFunc(list, func(ws bailey.Workspace) bool { return ws.Name == defaultName }); i >= 0 {
		return list[i], true
	}
	return slices.MaxFunc(list, func(a, b bailey.Workspace) int {
		return cmp.Or(a.StartedAt.Compare(b.StartedAt), a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(b.Name, a.Name))
	}), true
}

// defaultName is what the server without a name is called when it is made.
const defaultName = "default"

func (h *Hub) user(w http.ResponseWriter, r *http.Request, actor bailey.Actor) error {
	u, err := h.cfg.Identity.Me(r.Context(), actor)
	if err != nil {
		return err
	}
	list, err := h.cfg.Workspaces.List(r.Context(), actor, false)
	if err != nil {
		return err
	}
	m := userModel{
		Kind: "user", Name: u.Name, Admin: u.Role == bailey.RoleAdmin, Groups: append([]string{}, u.Groups...),
		Created: optional(u.CreatedAt), Servers: map[string]serverModel{},
	}
	_, stoppedToo := r.URL.Query()["include_stopped_servers"]
	add := func(name string, ws bailey.Workspace) serverModel {
		s := server(u.Name, name, ws)
		if stoppedToo || !s.Stopped {
			m.Servers[name] = s
		}
		return s
	}
	for _, ws := range list {
		if s := add(ws.Name, ws); s.LastActivity != nil && (m.LastActivity == nil || m.LastActivity.Before(*s.LastActivity)) {
			m.LastActivity = s.LastActivity
		}
	}
	if ws, ok := defaultOf(list); ok {
		s := add("", ws)
		if m.Pending = s.Pending; s.Ready {
			m.Server = &s.URL
		}
	}
	return writeJSON(w, http.StatusOK, m)
}

// find returns the workspace that a server's name means.
func (h *Hub) find(ctx context.Context, actor bailey.Actor, name string) (bailey.Workspace, error) {
	list, err := h.cfg.Workspaces.List(ctx, actor, false)
	if err != nil {
		return bailey.Workspace{}, err
	}
	if name == "" {
		if ws, ok := defaultOf(list); ok {
			return ws, nil
		}
	}
	if i := slices.IndexFunc(list, func(ws bailey.Workspace) bool { return ws.Name == name }); i >= 0 {
		return list[i], nil
	}
	return bailey.Workspace{}, &bailey.Error{Kind: bailey.NotFound, Msg: "there is no such server", Hint: "POST to it makes and starts it"}
}

// Resolve says which workspace a path below /user/NAME/ means and what is left
// of it: a server's name first, or else all of it is the default's. It starts
// nothing.
func (h *Hub) Resolve(ctx context.Context, actor bailey.Actor, rest string) (slug, tail string, err error) {
	first, more, _ := strings.Cut(rest, "/")
	if first != "" && bailey.CheckName("server", first) == nil {
		ws, err := h.find(ctx, actor, first)
		if err == nil {
			return ws.Slug, "/" + more, nil
		}
		if bailey.KindOf(err) != bailey.NotFound {
			return "", "", err
		}
	}
	ws, err := h.find(ctx, actor, "")
	return ws.Slug, "/" + rest, err
}

// start starts a server and makes it if there is none. The body may name a
// class, as {"class": "gpu"} or as a profile.
func (h *Hub) start(w http.ResponseWriter, r *http.Request, actor bailey.Actor) error {
	var options struct {
		Class   string `json:"class"`
		Profile string `json:"profile"`
	}
	if err := readJSON(r, &options); err != nil {
		return err
	}
	class := cmp.Or(options.Class, options.Profile)
	ws, err := h.find(r.Context(), actor, r.PathValue("server"))
	switch {
	case err != nil && bailey.KindOf(err) != bailey.NotFound:
		return err
	case err != nil:
		ws, err = h.cfg.Workspaces.Launch(r.Context(), actor, cmp.Or(r.PathValue("server"), defaultName), class)
	case class != "" && class != ws.Class:
		return bailey.Errorf(bailey.Conflict, "the server is of class %s", ws.Class)
	default:
		ws, err = h.cfg.Workspaces.Start(r.Context(), actor, ws.ID)
	}
	if err != nil {
		return err
	}
	if ws.State == bailey.Running {
		w.WriteHeader(http.StatusCreated)
		return nil
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// readJSON reads a body that may be missing.
func readJSON(r *http.Request, into any) error {
	b, err := io.ReadAll(r.Body)
	if err == nil && len(b) > 0 {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return &bailey.Error{Kind: bailey.Invalid, Msg: "the request body is not JSON that fits", Hint: "see JupyterHub's REST API", Cause: err}
	}
	return nil
}

// stop stops a server and keeps it. To remove one is not JupyterHub's to ask:
// it would be a workspace.
func (h *Hub) stop(w http.ResponseWriter, r *http.Request, actor bailey.Actor) error {
	var options struct {
		Remove bool `json:"remove"`
	}
	if err := readJSON(r, &options); err != nil {
		return err
	}
	if options.Remove {
		return &bailey.Error{Kind: bailey.Invalid, Msg: "servers are not removed here", Hint: "bailey rm NAME, or the console"}
	}
	ws, err := h.find(r.Context(), actor, r.PathValue("server"))
	if err != nil {
		return err
	}
	if _, err := h.cfg.Workspaces.Stop(r.Context(), actor, ws.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// newToken gives a program a token: for name and password in the body, as tools
// do that ask a person for them, or for the token that asks. It is for
// workspaces alone.
func (h *Hub) newToken(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Auth struct {
			User     string `json:"username"`
			Password string `json:"password"`
		} `json:"auth"`
		User     string `json:"username"` // of /authorizations/token
		Password string `json:"password"`
		Note     string `json:"note"`
		Expires  int64  `json:"expires_in"`
	}
	if err := readJSON(r, &in); err != nil {
		return err
	}
	if in.Expires < 0 || in.Expires > int64(366*24*time.Hour/time.Second) {
		return bailey.Errorf(bailey.Invalid, "expires_in must be seconds, a year at most")
	}
	lifetime := time.Duration(in.Expires) * time.Second
	user, pass := cmp.Or(in.Auth.User, in.User), cmp.Or(in.Auth.Password, in.Password)
	scopes := []bailey.Scope{bailey.ScopeWorkspacesWrite, bailey.ScopeWorkspacesOpen}
	if in.Note == "" {
		in.Note = "JupyterHub client"
	}
	var grant identity.Grant[bailey.Token]
	name := r.PathValue("name")
	if user == "" && pass == "" {
		actor, err := h.actor(r)
		if err != nil {
			return err
		}
		if name != "" && name != actor.Name {
			return errNoUser
		}
		if grant, err = h.cfg.Identity.CreateToken(r.Context(), actor, identity.TokenRequest{Note: in.Note, Lifetime: lifetime, Scopes: scopes}); err != nil {
			return err
		}
		user = actor.Name
	} else {
		if name != "" && name != user {
			return bailey.Errorf(bailey.Denied, "the name in the path is not the one in the body")
		}
		var err error
		grant, _, err = h.cfg.Identity.SignInForToken(r.Context(), identity.SignInRequest{
			Name: user, Password: secret.New(pass), IP: edge.ClientIP(r), UserAgent: r.UserAgent(),
		}, in.Note, lifetime, scopes...)
		if err != nil {
			return err
		}
	}
	m := tokenModel(user, grant.Row)
	m["token"] = grant.Secret.Reveal()
	return writeJSON(w, http.StatusOK, m)
}

func tokenModel(user string, t bailey.Token) map[string]any {
	return map[string]any{
		"kind": "api_token", "id": t.ID, "user": user, "note": t.Note, "created": t.CreatedAt, "expires_at": t.ExpiresAt,
		"last_activity": optional(t.UsedAt), "scopes": t.Scopes,
	}
}

func (h *Hub) tokens(w http.ResponseWriter, r *http.Request, actor bailey.Actor) error {
	list, err := h.cfg.Identity.Tokens(r.Context(), actor)
	if err != nil {
		return err
	}
	out := make([]map[string]any, 0, len(list))
	for _, t := range list {
		out = append(out, tokenModel(actor.Name, t))
	}
	return writeJSON(w, http.StatusOK, map[string]any{"api_tokens": out})
}

func (h *Hub) revokeToken(w http.ResponseWriter, r *http.Request, actor bailey.Actor) error {
	if err := h.cfg.Identity.RevokeToken(r.Context(), actor, r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// progress sends the stages of a start as JupyterHub's server-sent events, to
// the one that ends them. It does not start anything.
func (h *Hub) progress(w http.ResponseWriter, r *http.Request, actor bailey.Actor) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	name := r.PathValue("server")
	ws, err := h.find(ctx, actor, name)
	if err != nil {
		return err
	}
	if ws.State == bailey.Stopped || ws.State == bailey.Failed {
		return &bailey.Error{Kind: bailey.NotFound, Msg: "the server is not starting", Hint: "POST to it first"}
	}
	if !policy.Decide(actor, policy.WorkspaceView, h.cfg.Workspaces.Thing(ctx, actor, ws)) {
		return errNoUser
	}
	stages, err := h.cfg.Workspaces.Follow(ctx, actor, ws.ID, 0)
	if err != nil {
		return err
	}
	ended, release := h.cfg.Identity.Over(actor)
	defer release()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	send := func(v map[string]any) bool {
		b, err := json.Marshal(v)
		if err != nil {
			return false
		}
		_, err = w.Write(slices.Concat([]byte("data: "), b, []byte("\n\n")))
		return err == nil && rc.Flush() == nil
	}
	beat := time.NewTicker(20 * time.Second)
	defer beat.Stop()
	for done := 0; ; {
		select {
		case st, ok := <-stages:
			if !ok {
				return nil
			}
			if st.Run != ws.RunID {
				continue // of a start before
			}
			if st.Status == "done" {
				done++
			}
			event, last := eventOf(st, done, server(actor.Name, name, ws).URL)
			if !send(event) || last {
				return nil
			}
		case <-beat.C:
			if _, err := w.Write([]byte(": still here\n\n")); err != nil || rc.Flush() != nil {
				return nil
			}
		case <-ended:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// eventOf is a stage as an event, and whether it is the last.
func eventOf(st bailey.Stage, done int, url string) (map[string]any, bool) {
	switch {
	case st.Name == "ready" && st.Status == "done":
		return map[string]any{"progress": 100, "ready": true, "message": "Server ready at " + url, "url": url}, true
	case st.Status == "failed" || st.Name == "failed" || st.Name == "stopped":
		return map[string]any{"progress": 100, "failed": true, "message": "Spawn failed: " + cmp.Or(st.Detail, st.Name)}, true
	}
	return map[string]any{"progress": min(95, 10*done), "message": strings.TrimSpace(st.Name + " " + st.Detail)}, false
}

// Env is what JupyterHub's tools inside a workspace look for, as far as it is
// no secret. Jupyter's base URL is "/" on the workspace's own origin, so that
// is the prefix by which tools inside build their addresses. There is no token:
// nothing inside may act on the hub.
func Env(origins *edge.Origins, ws bailey.Workspace) map[string]string {
	console := origins.Console()
	env := map[string]string{
		"JUPYTERHUB_USER": ws.Owner, "JUPYTERHUB_SERVER_NAME": ws.Name, "JUPYTERHUB_BASE_URL": "/",
		"JUPYTERHUB_SERVICE_PREFIX": origins.Base(ws.Slug) + "/", "JUPYTERHUB_HOST": console, "JUPYTERHUB_API_URL": console + "/hub/api",
		"JUPYTERHUB_PUBLIC_HUB_URL": console + "/hub/",
	}
	if !origins.SharedHost() || origins.SharedOrigin() { // else the port may be another one tomorrow
		env["JUPYTERHUB_PUBLIC_URL"] = origins.Workspace(ws.Slug) + "/"
	}
	return env
}
