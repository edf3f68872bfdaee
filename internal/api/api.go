// Package api is the JSON door: /api/v1, described by an OpenAPI 3.1 document
// that is made from the code below. It decodes, asks a service, and answers;
// it decides nothing.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/catalogue"
	"github.com/baileyhq/bailey/internal/company"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/gatehouse"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/rulebook"
	"github.com/baileyhq/bailey/internal/vault"
	"github.com/baileyhq/bailey/internal/witness"
	"github.com/baileyhq/bailey/internal/workspace"
)

// maxBody bounds what a request may bring: names, passwords, notes.
const maxBody = 64 << 10

// Config is what the door stands on. All but SSHDoor and Log are required.
type Config struct {
	Identity   *identity.Service
	Company    *company.Service // nil: local accounts alone
	Workspaces *workspace.Service
	Vault      *vault.Vault
	Egress     *egress.Proxy
	Images     *catalogue.Service
	Rules      *rulebook.Book
	Bans       *gatehouse.Keeper
	SSH        *witness.Service
	Origins    *edge.Origins
	SSHDoor    func() bailey.SSHDoor // nil: there is no SSH door
	Audit      AuditLog
	Log        *slog.Logger
}

// An AuditLog records, and answers questions about what was recorded.
type AuditLog interface {
	audit.Appender
	Search(ctx context.Context, f audit.Filter) ([]audit.Event, error)
}

// An API answers /api/v1. It may be used concurrently.
type API struct {
	cfg       Config
	mux       *http.ServeMux
	huma      huma.API
	document  func() ([]byte, error)
	followers followers
	cookie    string // the console's, by name
	denials   *audit.Denials
}

// New registers every operation. The zero Config is enough to make the
// document ([API.Document]), not to answer.
func New(cfg Config) *API {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{
		cfg: cfg, mux: http.NewServeMux(), followers: followers{open: map[string]int{}},
		denials: audit.NewDenials(cfg.Audit, cfg.Log), cookie: edge.ConsoleCookie,
	}
	if cfg.Origins != nil {
		a.cookie = cfg.Origins.Cookie("")
	}
	hc := huma.DefaultConfig("bailey", "1")
	hc.Info.Description = "Walled, shared GPU workspaces. Sign in with `Authorization: Bearer bly_…`, or with the console's cookie from the console's own pages."
	hc.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	hc.OpenAPIPath = "" // huma's handler makes the document while it answers, unguarded; ours is below
	hc.DocsPath = ""    // no page of ours loads scripts from elsewhere
	hc.SchemasPath = "" // the document has them all
	hc.CreateHooks = nil
	hc.Formats = map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat}
	hc.Transformers = []huma.Transformer{a.reword}
	hc.RejectUnknownQueryParameters = true
	hc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":  {Type: "http", Scheme: "bearer", BearerFormat: "bly_<id>_<secret>"},
		"cookie": {Type: "apiKey", In: "cookie", Name: edge.ConsoleCookie},
	}
	a.huma = humago.New(a.mux, hc)
	a.routes()
	a.document = sync.OnceValues(a.huma.OpenAPI().MarshalJSON)
	a.mux.HandleFunc("GET /api/openapi.json", a.serveDocument)
	return a
}

// routes is the whole of the API, one line an operation.
func (a *API) routes() {
	a.sessionRoutes()
	a.sshKeyRoutes()
	a.workspaceRoutes()
	a.volumeRoutes()
	a.egressRoutes()
	a.imageRoutes()
	a.adminRoutes()
	a.externalRoutes()
	a.secretRoutes()
	a.filterRoutes()
	a.banRoutes()
	a.groupRoutes()
	a.serviceRoutes()
	a.deviceRoutes()
	a.sshSessionRoutes()
	// huma describes its own error form for operations without one; all of
	// ours answer with Problem.
	schemas := a.huma.OpenAPI().Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
}

// Document returns the OpenAPI document as JSON.
func (a *API) Document() ([]byte, error) { return a.document() }

func (a *API) serveDocument(w http.ResponseWriter, r *http.Request) {
	b, err := a.Document()
	if err != nil {
		a.problem(r.Context(), err).write(w)
		return
	}
	w.Header().Set("Content-Type", "application/openapi+json")
	_, _ = w.Write(b) // an error here is the client's own going away
}

// ServeHTTP authenticates the request, if it carries a credential, and serves
// it. A credential that is wrong is refused even where none is needed.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	// Answers hold what people and workspaces wrote. Whatever is in them, a
	// browser that is led here must not take it for a page, nor let another
	// origin's page have it.
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	r = r.WithContext(context.WithValue(r.Context(), requestKey{}, r))
	actor, ok, err := a.authenticate(r)
	if err != nil {
		a.problem(r.Context(), err).write(w)
		return
	}
	if ok {
		r = r.WithContext(edge.WithActor(r.Context(), actor))
	}
	if _, route := a.mux.Handler(r); route == "" {
		a.unrouted(w, r)
		return
	}
	if err := readBody(w, r); err != nil {
		a.problem(r.Context(), err).write(w)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// unrouted answers what no operation is for.
func (a *API) unrouted(w http.ResponseWriter, r *http.Request) {
	const hint = "GET /api/openapi.json lists the operations"
	var allowed []string
	for _, method := range []string{http.MethodDelete, http.MethodGet, http.MethodPatch, http.MethodPost, http.MethodPut} {
		if _, route := a.mux.Handler(&http.Request{Method: method, URL: r.URL, Host: r.Host}); route != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		a.problem(r.Context(), &bailey.Error{Kind: bailey.NotFound, Msg: "the API has no such path", Hint: hint}).write(w)
		return
	}
	p := a.problem(r.Context(), &bailey.Error{Kind: bailey.Invalid, Msg: "this path does not take this method", Hint: hint})
	p.Status, p.Title = http.StatusMethodNotAllowed, http.StatusText(http.StatusMethodNotAllowed)
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	p.write(w)
}

// readBody reads the body whole, so that no operation begins with half of one.
func readBody(w http.ResponseWriter, r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	limit := int64(maxBody)
	if r.URL.Path == "/api/v1"+shadowPath {
		limit = maxRules
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	_ = r.Body.Close() // what there is to know, err says
	r.Body = io.NopCloser(bytes.NewReader(b))
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fmt.Errorf("%w: %w", errTooLarge, err)
	}
	if slow, ok := errors.AsType[net.Error](err); ok && slow.Timeout() {
		return &bailey.Error{Kind: bailey.Invalid, Msg: "the request body arrived too slowly", Hint: "try again", Cause: err}
	}
	return &bailey.Error{Kind: bailey.Invalid, Msg: "the request body broke off", Hint: "try again", Cause: err}
}

// jsonFormat encodes before it writes: a client that went away is then no
// error of ours. Unlike huma's it escapes what HTML would act on.
var jsonFormat = huma.Format{
	Marshal: func(w io.Writer, v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		_, _ = w.Write(append(b, '\n'))
		return nil
	},
	Unmarshal: json.Unmarshal,
}

type requestKey struct{}

// requestOf returns the HTTP request behind an operation's context: who called
// from where, and under which id it stands in the log.
func requestOf(ctx context.Context) *http.Request {
	r, _ := ctx.Value(requestKey{}).(*http.Request)
	return r
}

// op describes an operation; register adds it with the house's error answer.
func op(method, path, id, summary string, tags ...string) huma.Operation {
	return huma.Operation{
		Method: method, Path: "/api/v1" + path, OperationID: id, Summary: summary, Tags: tags,
		Security:     []map[string][]string{{"token": {}}, {"cookie": {}}},
		MaxBodyBytes: maxBody + 1, BodyReadTimeout: -1, // ServeHTTP has read it
	}
}

func withStatus(o huma.Operation, status int) huma.Operation {
	o.DefaultStatus = status
	return o
}

// register adds an operation whose handler gets the actor.
func register[I, O any](a *API, o huma.Operation, h func(ctx context.Context, actor bailey.Actor, in *I) (*O, error)) {
	add(a, o, func(ctx context.Context, in *I) (*O, error) {
		actor, err := need(ctx)
		if err != nil {
			return nil, err
		}
		return h(ctx, actor, in)
	})
}

// registerPublic adds an operation that needs no sign-in.
func registerPublic[I, O any](a *API, o huma.Operation, h func(ctx context.Context, in *I) (*O, error)) {
	o.Security = []map[string][]string{}
	add(a, o, h)
}

func add[I, O any](a *API, o huma.Operation, h func(ctx context.Context, in *I) (*O, error)) {
	a.describeErrors(&o)
	huma.Register(a.huma, o, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return out, nil
	})
}

// A none is an operation's missing input.
type none struct{}
