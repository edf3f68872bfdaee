package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/mutant"
	"github.com/baileyhq/bailey/internal/secret"
)

// tokenPrefix begins our own tokens. None of them crosses to a workspace.
const tokenPrefix = "bly_"

// cookiePrefixes begin the names of our own cookies. Nothing that begins like
// that crosses to a workspace, and no workspace may set such a cookie. The
// second is the console's where workspaces share its host, see
// [edge.Origins.Cookie]; the third is ours where they share its origin: there
// each workspace's cookies have a path, which __Host- forbids.
var cookiePrefixes = [...]string{"__Host-bailey", "__Host-Http-bailey", "__Http-bailey"}

// tag names a workspace inside a cookie's name: cookies do not know ports, so
// each workspace needs names of its own.
func tag(slug string) string {
	sum := sha256.Sum256([]byte(slug))
	return hex.EncodeToString(sum[:8])
}

func (q *request) passCookie() string  { return q.cookiePrefix() + "-ws-" + tag(q.slug) }
func (q *request) nonceCookie() string { return q.cookiePrefix() + "-nonce-" + tag(q.slug) }
func (q *request) pathCookie() string  { return q.cookiePrefix() + "-path-" + tag(q.slug) }

func (q *request) cookiePrefix() string {
	if q.base != "" {
		return cookiePrefixes[2]
	}
	return cookiePrefixes[0]
}

// authenticate finds out who asks. A token that is given must be good: there
// is no falling back to a cookie. Without any credential, or with a cookie that
// no longer means anything, the error is errSignIn.
func (q *request) authenticate() error {
	token, given, err := tokenOf(q.Request)
	if err != nil {
		return err
	}
	ip := edge.ClientIP(q.Request)
	if given {
		q.actor, err = q.gateway.cfg.Identity.ByToken(q.Context(), token, ip)
		return err
	}
	value, ok := readCookie(q.Header, q.passCookie())
	if !ok {
		return errSignIn
	}
	key := sha256.Sum256([]byte(value))
	p, ok := q.gateway.passes.get(key, q.slug)
	if !ok {
		return errSignIn
	}
	if q.gateway.cfg.Origins.SharedHost() {
		q.actor, err = q.sameSession(p)
	} else {
		q.actor, err = q.gateway.cfg.Identity.BySessionID(q.Context(), p.userID, p.session, ip)
	}
	if err != nil && mutant.SocketAuth {
		q.actor, err = bailey.Actor{UserID: p.userID, Role: bailey.RoleUser}, nil
	}
	if err != nil {
		if errors.Is(err, errSignIn) {
			return errSignIn // the pass may be good where it belongs
		}
		if bailey.KindOf(err) == bailey.Unauthenticated {
			q.gateway.passes.drop(key)
			return errSignIn
		}
		return err
	}
	q.cookie = true
	return nil
}

// sameSession returns whose session a pass is of, where workspaces share the
// console's host. There a script of one workspace can set cookies that another
// gets, so a pass alone could be somebody else's, planted to make its reader
// work as them. It counts beside the console's own cookie of the same session,
// which browsers send here too, and let no script set.
func (q *request) sameSession(p pass) (bailey.Actor, error) {
	value, ok := readCookie(q.Header, q.gateway.cfg.Origins.Cookie(""))
	if !ok {
		return bailey.Actor{}, errSignIn
	}
	actor, err := q.gateway.cfg.Identity.BySession(q.Context(), secret.New(value), edge.ClientIP(q.Request))
	if err == nil && (actor.Session != p.session || actor.UserID != p.userID) {
		return bailey.Actor{}, errSignIn
	}
	return actor, err
}

var errSignIn = &bailey.Error{
	Kind: bailey.Unauthenticated, Msg: "sign-in needed",
	Hint: `open this address in a browser, or send "Authorization: Bearer bly_…"`,
}

// tokenOf returns the API token that the request carries: in Authorization as
// "Bearer" or, as Jupyter's clients send it, "token"; or, since some clients of
// WebSockets cannot set headers, among the sub-protocols or in the query of an
// API call or kernel or terminal WebSocket. Other Authorizations are nothing to
// us, and are not passed on either.
func tokenOf(r *http.Request) (token secret.Value, given bool, err error) {
	values := r.Header["Authorization"]
	if len(values) > 1 {
		return token, false, bailey.Errorf(bailey.Invalid, "there is more than one Authorization header")
	}
	if len(values) == 1 {
		scheme, rest, _ := strings.Cut(values[0], " ")
		rest = strings.TrimSpace(rest)
		if (strings.EqualFold(scheme, "bearer") || strings.EqualFold(scheme, "token")) && strings.HasPrefix(rest, tokenPrefix) {
			return secret.New(rest), true, nil
		}
	}
	_, found := splitProtocols(r.Header["Sec-Websocket-Protocol"])
	if strings.HasPrefix(r.URL.Path, "/api/") || strings.HasPrefix(r.URL.Path, "/terminals/websocket/") {
		_, query := splitQuery(r.URL.RawQuery)
		found = append(found, query...)
	}
	switch len(found) {
	case 0:
		return token, false, nil
	case 1:
		return secret.New(found[0]), true, nil
	}
	return token, false, bailey.Errorf(bailey.Invalid, "there is more than one token")
}

// tokenProtocol is how Jupyter's clients put a token among the sub-protocols.
const tokenProtocol = "v1.token.websocket.jupyter.org."

// splitProtocols returns the lines of Sec-WebSocket-Protocol, exactly as they
// came unless one of our tokens is among them, and the tokens.
func splitProtocols(lines []string) (rest, tokens []string) {
	for _, line := range lines {
		if !strings.Contains(line, tokenPrefix) {
			rest = append(rest, line)
			continue
		}
		var kept []string
		for p := range strings.SplitSeq(line, ",") {
			p = strings.TrimSpace(p)
			if token, ok := strings.CutPrefix(p, tokenProtocol); ok && strings.HasPrefix(token, tokenPrefix) {
				tokens = append(tokens, token)
			} else if p != "" {
				kept = append(kept, p)
			}
		}
		if len(kept) > 0 {
			rest = append(rest, strings.Join(kept, ", "))
		}
	}
	return rest, tokens
}

// splitQuery returns the query without our tokens, everything else being left
// as it is, and the tokens.
func splitQuery(raw string) (rest string, tokens []string) {
	if !strings.Contains(raw, tokenPrefix) && !strings.Contains(raw, "%") {
		return raw, nil
	}
	var kept []string
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		if name, err := url.QueryUnescape(name); err == nil && name == "token" {
			if value, err := url.QueryUnescape(value); err == nil && strings.HasPrefix(value, tokenPrefix) {
				tokens = append(tokens, value)
				continue
			}
		}
		kept = append(kept, part)
	}
	return strings.Join(kept, "&"), tokens
}

// readCookie returns the value of the one cookie of that name. When there are
// two, someone planted one of them, and neither counts.
func readCookie(h http.Header, name string) (value string, ok bool) {
	for _, line := range h["Cookie"] {
		for part := range strings.SplitSeq(line, ";") {
			n, v, _ := strings.Cut(part, "=")
			if strings.TrimSpace(n) != name {
				continue
			}
			if ok {
				return "", false
			}
			value, ok = strings.TrimSpace(v), true
		}
	}
	return value, ok
}

// setCookie sets one of our cookies, for this workspace's paths. An empty value
// removes it.
func (q *request) setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	c := &http.Cookie{
		Name: name, Value: value, Path: q.base + "/", MaxAge: int(life / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// A pass is what a workspace's cookie stands for: a session of a user, for one
// workspace. It has no rights of its own and dies with the session.
type pass struct {
	slug    string
	userID  string
	session string
	made    time.Time
}

// The bounds of passes. An evicted pass costs its owner a hand-off, which
// browsers do by themselves.
const (
	passLife       = 7 * 24 * time.Hour
	passesPerUser  = 256
	passesInMemory = 65536
)

// passes keeps the passes by the hash of their cookie, in memory: after a
// restart browsers go through the hand-off again.
type passes struct {
	now func() time.Time

	mu    sync.RWMutex // guards the rest
	byKey map[[32]byte]pass
	users map[string][][32]byte // a user's keys, oldest first
}

func newPasses(now func() time.Time) *passes {
	return &passes{now: now, byKey: map[[32]byte]pass{}, users: map[string][][32]byte{}}
}

// add stores p and returns the cookie's value.
func (s *passes) add(p pass) secret.Value {
	value := secret.Random(32)
	key := sha256.Sum256([]byte(value.Reveal()))
	p.made = s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if own := s.users[p.userID]; len(own) >= passesPerUser {
		s.remove(own[0])
	}
	if len(s.byKey) >= passesInMemory {
		for k := range s.byKey { // whichever comes first
			s.remove(k)
			break
		}
	}
	s.byKey[key] = p
	s.users[p.userID] = append(s.users[p.userID], key)
	return value
}

// get returns the pass, if it is for that workspace.
func (s *passes) get(key [32]byte, slug string) (pass, bool) {
	s.mu.RLock()
	p, ok := s.byKey[key]
	s.mu.RUnlock()
	if !ok || p.slug != slug || s.now().Sub(p.made) > passLife {
		return pass{}, false
	}
	return p, true
}

func (s *passes) drop(key [32]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(key)
}

func (s *passes) remove(key [32]byte) {
	p, ok := s.byKey[key]
	if !ok {
		return
	}
	delete(s.byKey, key)
	own := s.users[p.userID]
	for i, k := range own {
		if k == key {
			own = append(own[:i:i], own[i+1:]...)
			break
		}
	}
	if len(own) == 0 {
		delete(s.users, p.userID)
		return
	}
	s.users[p.userID] = own
}
