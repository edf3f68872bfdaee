package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/secret"
)

// A Finder says which of the actor's workspaces a path below /user/NAME means,
// and what of the path is left for it. NotFound when there is none.
type Finder func(ctx context.Context, actor bailey.Actor, rest string) (slug, tail string, err error)

// Alias serves /user/{name}/{rest...} on the console's origin as JupyterHub
// does, for programs alone. It takes an API token in a header (or, for a
// WebSocket, where browsers' clients put it) and no cookie. So no page can be
// led here: a link cannot carry a header, and what a workspace answers never
// acts on the console's origin. To be sure of that it also answers with few
// headers, none of which speaks to a browser, and as a sandbox.
func (g *Gateway) Alias(find Finder) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.alias(w, r, find); err != nil {
			if v, ok := errors.AsType[*versionError](err); ok {
				w.Header().Set("Sec-WebSocket-Version", v.want)
			}
			edge.WriteError(w, r, g.cfg.Log, err)
		}
	})
}

func (g *Gateway) alias(w http.ResponseWriter, r *http.Request, find Finder) error {
	kind, upgrade := upgradeOf(r.Header)
	if upgrade {
		if err := checkHandshake(r, kind); err != nil {
			return err
		}
	}
	token, given, err := aliasToken(r, upgrade)
	if err != nil {
		return err
	}
	if !given {
		return &bailey.Error{Kind: bailey.Unauthenticated, Msg: "this path is for programs with an API token", Hint: `send "Authorization: token bly_…"; people open their workspaces from the console`}
	}
	actor, err := g.cfg.Identity.ByToken(r.Context(), token, edge.ClientIP(r))
	if err != nil {
		return err
	}
	if r.PathValue("name") != actor.Name {
		return bailey.Errorf(bailey.NotFound, "there is no such server, or it is not yours")
	}
	prefix := "/user/" + actor.Name + "/"
	slug, tail, err := find(r.Context(), actor, strings.TrimPrefix(r.URL.Path, prefix))
	if err != nil {
		return err
	}
	if !strings.HasPrefix(tail, "/") || !strings.HasSuffix(r.URL.Path, tail) || ownPath(tail) {
		return bailey.Errorf(bailey.NotFound, "there is no such path")
	}
	prefix = strings.TrimSuffix(r.URL.Path, tail)
	// The prefix is made of names, which are written in one way.
	escaped, ok := strings.CutPrefix(r.URL.EscapedPath(), prefix)
	if !ok {
		return bailey.Errorf(bailey.Invalid, "the path is written in an odd way")
	}
	in := r.Clone(r.Context())
	in.URL = &url.URL{Path: tail, RawPath: escaped, RawQuery: r.URL.RawQuery}
	q := g.request(in, slug)
	q.actor, q.alias = actor, prefix
	route, err := g.route(r.Context(), actor, slug)
	if err != nil {
		return err
	}
	if upgrade {
		return q.tunnel(w, route)
	}
	return q.proxy(w, route)
}

// aliasToken is tokenOf for the alias: the query counts for WebSockets alone.
func aliasToken(r *http.Request, upgrade bool) (secret.Value, bool, error) {
	plain := &http.Request{Header: r.Header, URL: &url.URL{Path: "/"}}
	if upgrade {
		plain.URL = &url.URL{Path: "/api/", RawQuery: r.URL.RawQuery}
	}
	return tokenOf(plain)
}

// aliasHeaders are the headers of an answer that pass the alias.
var aliasHeaders = set(
	"Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length", "Content-Type", "Date",
	"Etag", "Last-Modified", "Location", "Retry-After", "Vary", "X-Content-Type-Options",
)

// aliasHeader takes from an answer what could act on the console's origin.
func (q *request) aliasHeader(h http.Header) {
	for name := range h {
		if !aliasHeaders[name] {
			delete(h, name)
		}
	}
	switch to := strings.TrimPrefix(h.Get("Location"), q.origin); {
	case to == "":
		h.Del("Location")
	case strings.HasPrefix(to, q.base+"/") && !strings.HasPrefix(to, "//"):
		h.Set("Location", q.alias+strings.TrimPrefix(to, q.base))
	default:
		h.Del("Location")
	}
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}
