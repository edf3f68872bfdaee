package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/mutant"
	"github.com/baileyhq/bailey/internal/secret"
)

// The hand-off brings a browser that is signed in at the console onto a
// workspace's origin, which cannot see the console's cookie:
//
//  1. The workspace's origin, asked for a page without a pass, sets a random
//     nonce as a cookie and sends the browser to the console with the nonce's
//     hash.
//  2. The console, if the session may enter, answers with a code for that
//     session, workspace and hash: once, within 30 seconds.
//  3. The workspace's origin takes the code from the browser that holds the
//     nonce, and sets the pass.
//
// A code that leaks is of no use without the nonce; and because nobody can make
// a browser hold somebody else's nonce, nobody can sign a victim in as himself.

const (
	codeLife      = 30 * time.Second
	handOffLife   = 5 * time.Minute // of the cookies that wait for it to be done
	maxWantedPath = 2 << 10
	ownPrefix     = "/.bailey"
	enterPath     = ownPrefix + "/enter"
)

// ownPath reports whether a decoded path is ours, on every workspace's origin.
// Nothing below it goes upstream.
func ownPath(path string) bool {
	return path == ownPrefix || strings.HasPrefix(path, ownPrefix+"/")
}

// OpenPath returns the console's path that opens a workspace: its slug, and n,
// the nonce's hash of a hand-off that has begun, or empty. ok is false when
// they are not of that form. The console keeps the two through a sign-in
// instead of an address, so that there is none for a stranger to choose.
func OpenPath(slug, n string) (path string, ok bool) {
	if !edge.ValidSlug(slug) || n != "" && !isHash(n) {
		return "", false
	}
	if n == "" {
		return "/open/" + slug, true
	}
	return "/open/" + slug + "?n=" + n, true
}

// isHash reports whether s is 32 bytes in unpadded URL-safe base64, in the one
// spelling that has.
func isHash(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == 32 && len(s) == 43
}

func hashOf(nonce string) string {
	sum := sha256.Sum256([]byte(nonce))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// navigates reports whether a person opens a page in a tab of their own; only
// then it makes sense to send the browser elsewhere.
func (q *request) navigates() bool {
	if !edge.WantsPage(q.Request) {
		return false
	}
	dest := q.Header.Get("Sec-Fetch-Dest")
	return dest == "" || dest == "document"
}

// beginHandOff is step 1.
func (q *request) beginHandOff(w http.ResponseWriter) {
	// Two tabs opened at once share the nonce, or the second would void the first.
	nonce, ok := readCookie(q.Header, q.nonceCookie())
	if !ok || !isHash(nonce) {
		nonce = secret.Random(32).Reveal()
	}
	q.setCookie(w, q.nonceCookie(), nonce, handOffLife)
	rest, _ := splitQuery(q.URL.RawQuery)
	wanted := q.URL.EscapedPath()
	if rest != "" {
		wanted += "?" + rest
	}
	if cleanPath(wanted) == wanted {
		q.setCookie(w, q.pathCookie(), base64.RawURLEncoding.EncodeToString([]byte(wanted)), handOffLife)
	}
	path, _ := OpenPath(q.slug, hashOf(nonce))
	redirect(w, q.gateway.cfg.Origins.Console()+path)
}

func redirect(w http.ResponseWriter, to string) {
	h := w.Header()
	h.Set("Location", to)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(http.StatusSeeOther)
}

// cleanPath returns path if a browser, sent there, stays on this origin and
// off our own paths; else "/". Browsers read "//" and "/\" as another host and
// skip control characters, so none of those may be anywhere near the start; we
// allow them nowhere.
func cleanPath(path string) string {
	if mutant.Redirects {
		return path
	}
	if len(path) > maxWantedPath || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
		return "/"
	}
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f || c == '\\' || c == '#' {
			return "/"
		}
	}
	u, err := url.ParseRequestURI(path)
	if err != nil || u.Host != "" || u.Scheme != "" || ownPath(u.Path) {
		return "/"
	}
	return path
}

// wantedPath returns where the person wanted to go before the hand-off.
func (q *request) wantedPath() string {
	value, _ := readCookie(q.Header, q.pathCookie())
	if len(value) > 2*maxWantedPath {
		return "/"
	}
	path, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		return "/"
	}
	return cleanPath(string(path))
}

// OpenHandler is step 2, and lives on the console's origin: it serves
// GET /open/<slug>. Without a hand-off that has begun it sends the browser to
// the workspace, where one begins.
func (g *Gateway) OpenHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.open(w, r); err != nil {
			g.fail(w, r, err)
		}
	})
}

func (g *Gateway) open(w http.ResponseWriter, r *http.Request) error {
	slug, n := strings.TrimPrefix(r.URL.Path, "/open/"), r.URL.Query().Get("n")
	if _, ok := OpenPath(slug, n); !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return bailey.Errorf(bailey.NotFound, "there is no such page")
	}
	if dest := r.Header.Get("Sec-Fetch-Dest"); dest != "" && dest != "document" {
		return bailey.Errorf(bailey.Denied, "a workspace opens in a tab of its own only")
	}
	actor, ok, err := g.consoleActor(r)
	if err != nil {
		return err
	}
	if !ok {
		redirect(w, signInPath(slug, n))
		return nil
	}
	if _, err := g.route(r.Context(), actor, slug); err != nil {
		return err
	}
	address := g.cfg.Origins.Workspace(slug)
	if address == "" {
		return &bailey.Error{
			Kind: bailey.Unavailable, Msg: "every port for workspaces is in use",
			Hint: "ask an administrator to widen the range of workspace ports",
		}
	}
	if n == "" {
		redirect(w, address+"/")
		return nil
	}
	code, err := g.codes.add(code{slug: slug, userID: actor.UserID, session: actor.Session, n: n})
	if err != nil {
		return err
	}
	redirect(w, address+enterPath+"?code="+code.Reveal())
	return nil
}

// consoleActor returns who is signed in at the console; ok is false for nobody.
func (g *Gateway) consoleActor(r *http.Request) (actor bailey.Actor, ok bool, err error) {
	value, ok := readCookie(r.Header, g.cfg.Origins.Cookie(""))
	if !ok {
		return actor, false, nil
	}
	actor, err = g.cfg.Identity.BySession(r.Context(), secret.New(value), edge.ClientIP(r))
	if bailey.KindOf(err) == bailey.Unauthenticated {
		return actor, false, nil
	}
	return actor, err == nil, err
}

// signInPath is the console's sign-in page, which comes back to [OpenPath].
func signInPath(slug, n string) string {
	q := url.Values{"open": {slug}}
	if n != "" {
		q.Set("n", n)
	}
	return "/signin?" + q.Encode()
}

// serveOwn answers our own paths on a workspace's origin: step 3.
func (q *request) serveOwn(w http.ResponseWriter) error {
	if q.URL.Path != enterPath || q.Method != http.MethodGet {
		return bailey.Errorf(bailey.NotFound, "there is no such page")
	}
	nonce, _ := readCookie(q.Header, q.nonceCookie())
	c, ok := q.gateway.codes.take(q.URL.Query().Get("code"), q.slug, hashOf(nonce))
	if !ok || nonce == "" {
		// A page opened twice, or "back": if the pass is there, all is well.
		if q.authenticate() == nil && q.cookie {
			redirect(w, q.base+q.wantedPath())
			return nil
		}
		return &bailey.Error{
			Kind: bailey.Denied, Msg: "this link was used already, is too old, or belongs to another browser",
			Hint: "open the workspace again from the console",
		}
	}
	actor, err := q.gateway.cfg.Identity.BySessionID(q.Context(), c.userID, c.session, edge.ClientIP(q.Request))
	if err != nil {
		return err
	}
	route, err := q.gateway.route(q.Context(), actor, q.slug)
	if err != nil {
		return err
	}
	// No trace, no entry.
	if err := q.gateway.cfg.Audit.Append(q.Context(), audit.Event{
		Actor: audit.By(actor), Action: audit.Opened, Outcome: audit.Success,
		Target: audit.Target{Kind: "workspace", ID: route.Workspace.ID, Name: route.Workspace.Name},
		Attrs:  audit.Attrs{Run: route.Workspace.RunID, Class: route.Workspace.Class},
	}); err != nil {
		return &bailey.Error{
			Kind: bailey.Unavailable, Msg: "the audit journal cannot be written, so no workspace opens",
			Hint: "tell an administrator", Cause: err,
		}
	}
	value := q.gateway.passes.add(pass{slug: q.slug, userID: actor.UserID, session: actor.Session})
	q.setCookie(w, q.passCookie(), value.Reveal(), 0)
	if o := q.gateway.cfg.Origins; o.SharedHost() && !o.SharedOrigin() {
		// This port may have been another workspace's: what that one left in
		// the browser, a service worker above all, must not meet this one.
		w.Header().Set("Clear-Site-Data", `"storage"`)
	}
	to := q.wantedPath()
	q.setCookie(w, q.pathCookie(), "", 0)
	redirect(w, q.base+to)
	return nil
}

// A code is a permission to enter one workspace with one session, for the
// browser that holds the nonce behind n.
type code struct {
	slug, userID, session, n string
	expires                  time.Time
}

const (
	codesInMemory = 4096
	codesPerUser  = 32
)

// codes keeps the codes that were given out, by their hash.
type codes struct {
	now func() time.Time

	mu    sync.Mutex // guards byKey
	byKey map[[32]byte]code
}

func newCodes(now func() time.Time) *codes {
	return &codes{now: now, byKey: map[[32]byte]code{}}
}

// add stores c for 30 seconds and returns its text. It fails with TooMany when
// there are too many that nobody used.
func (s *codes) add(c code) (secret.Value, error) {
	text := secret.Random(32)
	now := s.now()
	c.expires = now.Add(codeLife)
	s.mu.Lock()
	defer s.mu.Unlock()
	own := 0
	for k, old := range s.byKey {
		switch {
		case !now.Before(old.expires):
			delete(s.byKey, k)
		case old.userID == c.userID:
			own++
		}
	}
	if own >= codesPerUser || len(s.byKey) >= codesInMemory {
		return secret.Value{}, &bailey.Error{
			Kind: bailey.TooMany, Msg: "too many workspaces are being opened at once", Hint: "wait half a minute and try again",
		}
	}
	s.byKey[sha256.Sum256([]byte(text.Reveal()))] = c
	return text, nil
}

// take returns the code, once, if it is for this workspace and nonce. Whoever
// presents it in the wrong place uses it up all the same.
func (s *codes) take(text, slug, n string) (code, bool) {
	key := sha256.Sum256([]byte(text))
	s.mu.Lock()
	c, ok := s.byKey[key]
	delete(s.byKey, key)
	s.mu.Unlock()
	if !ok || c.slug != slug || !s.now().Before(c.expires) || subtle.ConstantTimeCompare([]byte(c.n), []byte(n)) != 1 {
		return code{}, false
	}
	return c, true
}
