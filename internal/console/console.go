// Package console is the door for people in a browser: plain server-rendered
// pages to sign in, launch, watch and stop workspaces. It lives on its own
// origin, serves nothing that a user made, and works without JavaScript; only
// the launch progress is livelier with it.
package console

import (
	"context"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/catalogue"
	"github.com/baileyhq/bailey/internal/company"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/rulebook"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/vault"
	"github.com/baileyhq/bailey/internal/witness"
	"github.com/baileyhq/bailey/internal/workspace"
)

//go:embed templates static
var files embed.FS

// Config is what the pages stand on; all but SSHDoor and Log are required. API and Open
// are mounted beside the pages, on the same origin.
type Config struct {
	Identity   *identity.Service
	Company    *company.Service // nil: local accounts alone
	Workspaces *workspace.Service
	Egress     *egress.Proxy
	Images     *catalogue.Service
	Origins    *edge.Origins
	Audit      audit.Appender
	API        http.Handler // serves /api/
	SSH        *witness.Service
	SSHDoor    func() bailey.SSHDoor // where ssh connects to; nil: nowhere
	Rules      *rulebook.Book        // for what the filter found; nil: there is no filter
	Vault      *vault.Vault          // for the registered secrets; nil: none are shown
	Hub        http.Handler          // serves /hub/api/, for tools that know JupyterHub; nil: nobody does
	Alias      http.Handler          // serves /user/ to programs; nil: nobody does
	Open       http.Handler          // serves /open/, the hand-off to a workspace's origin
	Log        *slog.Logger
}

// A Console answers the console's origin. It may be used concurrently.
type Console struct {
	cfg     Config
	mux     *http.ServeMux
	denials *audit.Denials
	pages   map[string]*template.Template
	held    held   // forms that wait for a proof of identity
	assets  string // short hash of the static files, for cache busting
}

// New parses the pages and lists the routes.
func New(cfg Config) (*Console, error) {
	if cfg.Identity == nil || cfg.Workspaces == nil || cfg.Egress == nil || cfg.Images == nil || cfg.SSH == nil || cfg.Origins == nil || cfg.Audit == nil || cfg.API == nil || cfg.Open == nil {
		return nil, errors.New("console: all of Config but SSHDoor, Rules and Log is required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Console{cfg: cfg, mux: http.NewServeMux(), denials: audit.NewDenials(cfg.Audit, cfg.Log)}
	if err := c.parse(); err != nil {
		return nil, err
	}
	c.mux.Handle("/api", c.apart(cfg.API)) // or it would be redirected to the next
	c.mux.Handle("/api/", c.apart(cfg.API))
	if cfg.Hub != nil {
		// By method: a pattern for all methods would clash with "GET /hub/{rest...}".
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			c.mux.Handle(method+" /hub/api", c.apart(cfg.Hub))
			c.mux.Handle(method+" /hub/api/", c.apart(cfg.Hub))
		}
	}
	c.mux.Handle("/user/{name}/{rest...}", c.jupyterhubServer())
	c.mux.Handle("GET /open/{slug}", withHeaders(c.apart(cfg.Open)))
	c.mux.HandleFunc("GET /static/{file}", c.static)
	c.mux.Handle("POST /signin/oidc/{name}/logout", withHeaders(http.HandlerFunc(c.providerLogout)))
	for _, r := range c.routes() {
		c.mux.Handle(r.pattern, c.page(r.handler))
	}
	return c, nil
}

// A route is one kind of page, or one thing to do.
type route struct {
	pattern string
	handler edge.HandlerFunc
}

// routes is the whole of the console's own pages.
func (c *Console) routes() []route {
	return []route{
		{"GET /{$}", c.home},
		{"GET /signin", c.signInPage},
		{"POST /signin", c.signIn},
		{"GET /signin/oidc/{name}", c.toProvider},
		{"GET /signin/oidc/{name}/callback", c.fromProvider},
		{"POST /signin/passkey", c.signInPasskey},
		{"GET /signin/step", c.step},
		{"POST /signin/factor", c.answerFactor},
		{"POST /signin/enrol", c.answerEnrol},
		{"POST /signin/password", c.answerPassword},
		{"GET /stepup", c.stepUpPage},
		{"POST /stepup", c.stepUp},
		{"GET /stepup/{name}", c.stepUpAtProvider},
		{"POST /signout", c.signOut},
		{"GET /setup", c.setupPage},
		{"POST /setup", c.setup},
		{"GET /workspaces", c.workspaces},
		{"POST /workspaces", c.launch},
		{"GET /workspaces/{id}", c.workspace},
		{"POST /workspaces/{id}/start", c.start},
		{"POST /workspaces/{id}/stop", c.stop},
		{"POST /workspaces/{id}/delete", c.remove},
		{"GET /images", c.images},
		{"POST /images", c.addImage},
		{"POST /images/{id}/approve", c.changeImage((*catalogue.Service).Approve)},
		{"POST /images/{id}/countersign", c.changeImage((*catalogue.Service).Countersign)},
		{"POST /images/{id}/fetch", c.changeImage((*catalogue.Service).Prefetch)},
		{"POST /images/{id}/retire", c.retireImage},
		{"GET /volumes", c.volumes},
		{"POST /volumes/{id}/delete", c.deleteVolume},
		{"GET /network", c.network},
		{"POST /network/requests/{id}/allow", c.allowRequest},
		{"POST /network/requests/{id}/deny", c.denyRequest},
		{"POST /network/grants/{id}/revoke", c.revokeGrant},
		{"GET /sessions", c.sshSessions},
		{"POST /sessions/{id}/kill", c.killSSHSession},
		{"POST /sessions/{id}/delete-recording", c.deleteRecording},
		{"GET /account", c.account},
		{"GET /account/company", c.companyAccount},
		{"GET /account/link/{name}", c.linkProvider},
		{"POST /account/link", c.linkDirectory},
		{"POST /account/password", c.password},
		{"POST /account/sessions/{id}/end", c.endSession},
		{"GET /account/factors", c.newFactorPage},
		{"POST /account/factors", c.newFactor},
		{"POST /account/factors/{id}/rename", c.renameFactor},
		{"POST /account/factors/{id}/remove", c.removeFactor},
		{"POST /account/codes", c.newCodes},
		{"POST /account/browsers/{id}/forget", c.forgetBrowser},
		{"POST /account/notices", c.putAwayNotices},
		{"POST /account/tokens", c.newToken},
		{"POST /account/tokens/{id}/revoke", c.revokeToken},
		{"POST /account/end", c.endEverything},
		{"GET /device", c.devicePage},
		{"POST /device", c.device},
		{"POST /device/answer", c.answerDevice},
		{"GET /groups", c.groups},
		{"POST /groups/{name}/members", c.changeGroup},
		{"POST /admin/users/{name}/end", c.endUser},
		{"POST /account/ssh-keys", c.addSSHKey},
		{"POST /account/ssh-keys/{id}/remove", c.removeSSHKey},
		{"POST /account/ssh-certificates/{serial}/revoke", c.revokeSSHCertificate},
		{"GET /ssh/{code}", c.sshContact},
		{"POST /ssh/{code}/bind", c.bindSSHContact},
		{"POST /ssh/{code}/refuse", c.refuseSSHContact},
		{"GET /admin", c.admin},
		{"POST /admin/users", c.createUser},
		{"POST /admin/users/{name}/disable", c.setDisabled(true)},
		{"POST /admin/users/{name}/enable", c.setDisabled(false)},
		{"POST /admin/users/{name}/factors", c.resetFactors},
		// JupyterHub's paths, for bookmarks and tools that know them.
		{"GET /user/{name}", c.jupyterhubUser},
		{"GET /hub/{rest...}", c.jupyterhubHome},
		{"/", noPage},
	}
}

func noPage(http.ResponseWriter, *http.Request) error {
	return bailey.Errorf(bailey.NotFound, "there is no such page")
}

// ServeHTTP serves the console's origin.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.mux.ServeHTTP(w, r) }

// withHeaders gives the headers of a console page to answers that have none of
// their own.
func withHeaders(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		edge.ConsoleHeaders(w, r)
		w.Header().Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}

// static serves the files that pages load. Those under the present hash never
// change.
func (c *Console) static(w http.ResponseWriter, r *http.Request) {
	name := "static/" + r.PathValue("file")
	if info, err := fs.Stat(files, name); err != nil || info.IsDir() {
		c.page(noPage).ServeHTTP(w, r)
		return
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	if r.URL.Query().Get("v") == c.assets {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeFileFS(w, r, files, name)
}

type viewKey struct{}

// A view is what every page shows around its own data.
type view struct {
	Title, Section string
	Actor          bailey.Actor
	Staff, Admin   bool
	Manager        bool // of a group
	Problem        *edge.Problem
	Notice         string
	Refresh        int // seconds after which a browser without JavaScript asks again; 0: never
	Nonce, Assets  string
	Shared         bool   // workspaces are on this origin too
	FormToken      string // that our forms carry then
	request        *http.Request
	Version        string
	Data           any
}

// maxForm bounds a form: three passwords of 1024 bytes, encoded, and a name.
const maxForm = 12 << 10

// page wraps a handler: headers, sign-in, protection of state changes, errors
// as pages.
func (c *Console) page(h edge.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &view{Nonce: edge.ConsoleHeaders(w, r), Assets: c.assets, Version: bailey.Version, request: r}
		w.Header().Set("Cache-Control", "no-store")
		r = r.WithContext(context.WithValue(r.Context(), viewKey{}, v))
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if v.Shared = c.cfg.Origins.SharedOrigin(); v.Shared {
			if err := c.formToken(w, r, v); err != nil {
				c.fail(w, r, err)
				return
			}
		}
		actor, ok, err := c.authenticate(r)
		if ok {
			v.Actor = actor
			v.Admin = policy.Decide(actor, policy.UserManage, policy.Thing{})
			v.Staff = policy.Decide(actor, policy.FleetView, policy.Thing{})
			v.Manager = len(actor.Manages) > 0 || v.Staff
			r = r.WithContext(edge.WithActor(r.Context(), actor))
		}
		if err == nil {
			err = c.sameOrigin(r)
		}
		if err == nil {
			err = h(w, r)
		}
		if err != nil {
			c.fail(w, r, err)
		}
	})
}

// authenticate returns whose session the cookie is. ok is false without one,
// and with one that has ended.
func (c *Console) authenticate(r *http.Request) (actor bailey.Actor, ok bool, err error) {
	cookies := r.CookiesNamed(c.cookie(""))
	if len(cookies) != 1 { // of two, somebody planted one
		return actor, false, nil
	}
	actor, err = c.cfg.Identity.BySession(r.Context(), secret.New(cookies[0].Value), edge.ClientIP(r))
	if err != nil && bailey.KindOf(err) == bailey.Unauthenticated {
		return bailey.Actor{}, false, nil
	}
	return actor, err == nil, err
}

// sameOrigin refuses state changes that did not come from a page of ours:
// workspaces are the same site, so SameSite cookies do not stop them. It also
// protects sign-in, where no cookie is there yet.
func (c *Console) sameOrigin(r *http.Request) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	if site == "same-origin" || site == "" && origin == c.cfg.Origins.Console() {
		return c.ourForm(r)
	}
	c.noteForeign(r)
	return &bailey.Error{
		Kind: bailey.Denied, Msg: "this request did not come from a page of this server",
		Hint: "open " + c.cfg.Origins.Console() + " and try again there",
	}
}

func (c *Console) noteForeign(r *http.Request) {
	if actor, ok := edge.ActorFrom(r.Context()); ok {
		c.denials.Note(r.Context(), audit.By(actor), audit.Target{Kind: "server", Name: "console"}, audit.ForeignOrigin)
	}
}

// signedIn returns the actor or the way to the sign-in page.
func (c *Console) signedIn(r *http.Request) (bailey.Actor, error) {
	if a, ok := edge.ActorFrom(r.Context()); ok {
		return a, nil
	}
	return bailey.Actor{}, errSignIn
}

var errSignIn = &bailey.Error{Kind: bailey.Unauthenticated, Msg: "sign in first"}

// formOf returns what was sent with a form; Invalid when it cannot be read.
func formOf(r *http.Request) (url.Values, error) {
	err := r.ParseForm()
	if err == nil {
		return r.PostForm, nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, err // edge has words for it
	}
	return nil, &bailey.Error{Kind: bailey.Invalid, Msg: "the form could not be read", Hint: "go back and send it again", Cause: err}
}
