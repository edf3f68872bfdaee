package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/baileyhq/bailey"
)

// In mode path the console and all workspaces are one origin. A browser then
// lets a script of a workspace do what a script of the console could, so what
// is here takes from a workspace's pages the means to it: they open no windows
// and are framed by nobody else, they register no service worker, they ask for
// no passkey, and their cookies have a path and a name of their own. What the
// console does for its part is in its own room. What cannot be held is written
// in docs/edge.md.

// below takes the workspace's path off a request, so that all that follows
// reads the path as on an origin of the workspace's own. It reports false when
// it has answered.
func (q *request) below(w http.ResponseWriter) bool {
	tail, ok := strings.CutPrefix(q.URL.EscapedPath(), q.base)
	if ok && tail == "" {
		to := q.base + "/"
		if q.URL.RawQuery != "" {
			to += "?" + q.URL.RawQuery
		}
		redirect(w, to)
		return false
	}
	path, err := url.PathUnescape(tail)
	if !ok || err != nil || !strings.HasPrefix(tail, "/") {
		q.fail(w, bailey.Errorf(bailey.Invalid, "the path is written in an odd way"))
		return false
	}
	in := *q.Request
	in.URL = &url.URL{Path: path, RawPath: tail, RawQuery: q.URL.RawQuery}
	q.Request = &in
	if in.Header.Get("Service-Worker") != "" {
		q.fail(w, &bailey.Error{
			Kind: bailey.Denied, Msg: "service workers are switched off here: workspaces and the console share an origin (origin.mode: path)",
			Hint: "an administrator gives workspaces origins of their own with another origin.mode",
		})
		return false
	}
	return true
}

// above puts it before a path that goes upstream: Jupyter serves below it too.
func (q *request) above(u *url.URL) {
	if q.base == "" {
		return
	}
	if u.RawPath != "" {
		u.RawPath = q.base + u.RawPath
	}
	u.Path = q.base + u.Path
}

// sandbox is what a page of a workspace may do in mode path. What is missing
// counts: allow-popups, because a window can be reached into by who opened it,
// and allow-top-navigation, for frames in it.
const sandbox = "sandbox allow-same-origin allow-scripts allow-forms allow-modals allow-downloads allow-pointer-lock"

// confine changes an answer's headers for a shared origin.
func confine(h http.Header) {
	h.Del("Service-Worker-Allowed")
	h.Add("Content-Security-Policy", sandbox)
	// Not the console's: so a browser puts the two into different groups of
	// windows, whichever leads to the other. And a sandbox goes with no other.
	h.Set("Cross-Origin-Opener-Policy", "unsafe-none")
	// Last, so it wins over what the workspace says.
	h.Add("Permissions-Policy", "publickey-credentials-get=(), publickey-credentials-create=()")
}

// confineCookie gives a workspace's cookie the workspace's path, unless it has
// one within.
func (q *request) confineCookie(line string) string {
	var b strings.Builder
	path := q.base + "/"
	for i, part := range strings.Split(line, ";") {
		if i == 0 {
			b.WriteString(part)
			continue
		}
		part = strings.TrimSpace(part)
		key, value, _ := strings.Cut(part, "=")
		if !strings.EqualFold(strings.TrimSpace(key), "Path") {
			b.WriteString("; " + part)
			continue
		}
		// The last one counts, as browsers have it.
		path = q.base + "/"
		if value = strings.TrimSpace(value); strings.HasPrefix(value, q.base+"/") {
			path = value
		}
	}
	return b.String() + "; Path=" + path
}
