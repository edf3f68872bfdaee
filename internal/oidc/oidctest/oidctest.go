// Package oidctest has an OpenID Connect provider in process: with keys of its
// own, over TLS, keeping the protocol until a test makes it misbehave.
package oidctest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The one client of every Provider.
const (
	ClientID = "bailey"
	Secret   = "the-client-secret"
)

// keys are made once: RSA is slow.
var keys = sync.OnceValue(func() []*rsa.PrivateKey {
	var out []*rsa.PrivateKey
	for range 2 {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		out = append(out, k)
	}
	return out
})

// Key returns the key that providers sign with, and Foreign one that none has.
func Key() *rsa.PrivateKey { return keys()[0] }

// Foreign returns a key that no provider publishes.
func Foreign() *rsa.PrivateKey { return keys()[1] }

// A Provider is an identity provider. The fields are set before use, or under
// [Provider.Change].
type Provider struct {
	Server *httptest.Server
	Roots  *x509.CertPool

	mu       sync.Mutex // guards all below
	user     map[string]any
	codes    map[string]grant
	refresh  map[string]string // token to subject
	disabled map[string]bool
	people   map[string]map[string]any
	serial   int
	hits     map[string]int

	// How it misbehaves.
	Now        func() time.Time
	Discovery  func(doc map[string]any)
	Claims     func(claims map[string]any)        // of ID tokens
	Sign       func(claims map[string]any) string // in place of its own signature
	JWKS       func(w http.ResponseWriter, r *http.Request) bool
	Answer     func(q url.Values) // what browsers bring back
	NoRefresh  bool
	NoPKCE     bool
	UserInfo   func(claims map[string]any)
	RefreshBad func(claims map[string]any) // of ID tokens that a refresh gives
}

type grant struct {
	nonce, challenge, redirect string
	user                       map[string]any
}

// New starts a provider, until the test ends.
func New(tb testing.TB) *Provider {
	tb.Helper()
	p := &Provider{
		codes: map[string]grant{}, refresh: map[string]string{}, disabled: map[string]bool{},
		people: map[string]map[string]any{}, hits: map[string]int{}, Now: time.Now,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /jwks", p.jwks)
	mux.HandleFunc("GET /userinfo", p.userinfo)
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.hits[r.URL.Path]++
		w.Header().Set("Date", p.Now().UTC().Format(http.TimeFormat))
		p.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	tb.Cleanup(p.Server.Close)
	p.Roots = x509.NewCertPool()
	p.Roots.AddCert(p.Server.Certificate())
	return p
}

// Issuer is the provider's issuer.
func (p *Provider) Issuer() string { return p.Server.URL }

// Change runs f while the provider answers nobody.
func (p *Provider) Change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// Hits returns how often a path was asked for.
func (p *Provider) Hits(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits[path]
}

// SignedIn says who sits in front of the browser: a subject and more claims.
func (p *Provider) SignedIn(sub string, claims map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	user := maps.Clone(claims)
	if user == nil {
		user = map[string]any{}
	}
	user["sub"] = sub
	p.user, p.people[sub] = user, user
}

// Disable closes somebody's account, or opens it.
func (p *Provider) Disable(sub string, disabled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disabled[sub] = disabled
}

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.Server.URL
	doc := map[string]any{
		"issuer": at, "authorization_endpoint": at + "/authorize", "token_endpoint": at + "/token", "jwks_uri": at + "/jwks", "userinfo_endpoint": at + "/userinfo",
		"id_token_signing_alg_values_supported": []string{"RS256"}, "token_endpoint_auth_methods_supported": []string{"client_secret_basic"},
		"authorization_response_iss_parameter_supported": true, "code_challenge_methods_supported": []string{"S256"}, "backchannel_logout_supported": true,
	}
	if p.Discovery != nil {
		p.Discovery(doc)
	}
	answer(w, http.StatusOK, doc)
}

// authorize lets whoever is signed in pass at once.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	if q.Get("client_id") != ClientID || q.Get("response_type") != "code" || q.Get("redirect_uri") == "" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	back := url.Values{"state": {q.Get("state")}, "iss": {p.Server.URL}}
	switch sub, _ := p.user["sub"].(string); {
	case p.user == nil || p.disabled[sub]:
		back.Set("error", "access_denied")
	default:
		code := rand.Text()
		user := p.user
		if q.Get("prompt") == "login" && q.Get("max_age") == "0" {
			user = maps.Clone(user)
			user["auth_time"] = p.Now().Unix()
		}
		p.codes[code] = grant{nonce: q.Get("nonce"), challenge: q.Get("code_challenge"), redirect: q.Get("redirect_uri"), user: user}
		back.Set("code", code)
	}
	if p.Answer != nil {
		p.Answer(back)
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, secret, _ := r.BasicAuth()
	if id != ClientID || secret != Secret {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	var user map[string]any
	nonce := ""
	tweak := p.Claims
	switch r.PostFormValue("grant_type") {
	case "authorization_code":
		g, ok := p.codes[r.PostFormValue("code")]
		delete(p.codes, r.PostFormValue("code"))
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		if !ok || g.redirect != r.PostFormValue("redirect_uri") || !p.NoPKCE && base64.RawURLEncoding.EncodeToString(sum[:]) != g.challenge {
			answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
			return
		}
		user, nonce = g.user, g.nonce
	case "refresh_token":
		sub, ok := p.refresh[r.PostFormValue("refresh_token")]
		if !ok || p.disabled[sub] {
			answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
			return
		}
		delete(p.refresh, r.PostFormValue("refresh_token")) // each one once
		user, tweak = p.people[sub], p.RefreshBad
	default:
		answer(w, http.StatusBadRequest, map[string]any{"error": "unsupported_grant_type"})
		return
	}
	sub, _ := user["sub"].(string)
	claims := p.idToken(user, nonce)
	if tweak != nil {
		tweak(claims)
	}
	access := "access " + sub
	out := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": p.sign(claims)}
	if !p.NoRefresh {
		token := rand.Text()
		p.refresh[token] = sub
		out["refresh_token"] = token
	}
	answer(w, http.StatusOK, out)
}

func (p *Provider) idToken(user map[string]any, nonce string) map[string]any {
	now := p.Now()
	claims := maps.Clone(user)
	maps.Copy(claims, map[string]any{"iss": p.Server.URL, "aud": ClientID, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()})
	if _, given := claims["sid"]; !given {
		p.serial++
		claims["sid"] = "sid-" + rand.Text()
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	return claims
}

func (p *Provider) sign(claims map[string]any) string {
	if p.Sign != nil {
		return p.Sign(claims)
	}
	return Sign(Key(), "k1", claims)
}

// Sign signs claims with a key.
func Sign(key *rsa.PrivateKey, kid string, claims map[string]any) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		panic(err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	jws, err := signer.Sign(body)
	if err != nil {
		panic(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return text
}

// LogoutToken returns a logout token about a subject or a session, changed by f.
func (p *Provider) LogoutToken(f func(claims map[string]any)) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Now()
	claims := map[string]any{
		"iss": p.Server.URL, "aud": ClientID, "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": rand.Text(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	f(claims)
	return p.sign(claims)
}

func (p *Provider) jwks(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	misbehave := p.JWKS
	p.mu.Unlock()
	if misbehave != nil && misbehave(w, r) {
		return
	}
	answer(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: Key().Public(), KeyID: "k1", Use: "sig", Algorithm: "RS256"}}})
}

func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sub := ""
	for s := range p.people {
		if r.Header.Get("Authorization") == "Bearer access "+s {
			sub = s
		}
	}
	if sub == "" || p.disabled[sub] {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_token"})
		return
	}
	claims := maps.Clone(p.people[sub])
	if p.UserInfo != nil {
		p.UserInfo(claims)
	}
	answer(w, http.StatusOK, claims)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a test's client going away
}

// Visit goes where a browser is sent, at the provider, and returns what the
// browser brings back.
func (p *Provider) Visit(tb testing.TB, to string) url.Values {
	tb.Helper()
	c := p.Server.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := c.Get(to) //nolint:noctx // a test's
	if err != nil {
		tb.Fatal(err)
	}
	_ = resp.Body.Close()
	at, err := resp.Location()
	if err != nil {
		tb.Fatalf("the provider answers %s", resp.Status)
	}
	return at.Query()
}
