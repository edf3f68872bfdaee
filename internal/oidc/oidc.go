// Package oidc lets an OpenID Connect provider vouch for somebody: it sends a
// browser there and judges what comes back, asks again later whether the
// provider still vouches for them, and reads the provider's word that a session
// ended. It believes nothing that is not signed by the issuer of the
// configuration, and asks no host but that issuer's and those that the
// configuration names. What the answer means for an account is not its business.
package oidc

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/secret"
)

// Config describes one provider. Name, Issuer, ClientID and Redirect are
// required.
type Config struct {
	Name     string // in the configuration
	Issuer   string // exactly as the provider writes it
	ClientID string
	Secret   secret.Value // empty: a public client
	Redirect string       // where browsers come back to, at this server
	Scopes   []string     // openid is added
	Roots    *x509.CertPool
	CA       string   // file of Roots, for messages
	Hosts    []string // that the provider's endpoints may be on, besides the issuer's own

	UserClaim   string   // what people are called; empty means preferred_username
	GroupsClaim string   // a claim, or a path through claims with dots; empty: groups are not asked for
	Factors     []string // values of amr and acr that mean that a second factor was used

	Timeout time.Duration // of each request; 0 means 10 s
	Now     func() time.Time
	Log     *slog.Logger
}

// A Provider is ready to be asked. Its methods may be called concurrently.
type Provider struct {
	cfg    Config
	client *http.Client
	clock  clock

	mu    sync.Mutex // guards below; held while discovery is under way
	meta  *metadata
	tried time.Time // of the last discovery
	err   error     // what came of it
}

// How long times may differ, and how long what was discovered holds.
const (
	skew        = time.Minute
	metaFor     = time.Hour
	metaStale   = 24 * time.Hour // when it cannot be asked again
	retryAfter  = 5 * time.Second
	maxGroups   = 2000
	maxSubject  = 255
	maxIDToken  = 64 << 10
	logoutFresh = 5 * time.Minute // how old a logout token may be
)

// New checks the configuration. It connects to nothing.
func New(cfg Config) (*Provider, error) {
	u, err := url.Parse(cfg.Issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("oidc: %q is not an issuer: it is an https:// address", cfg.Issuer)
	}
	if cfg.Name == "" || cfg.ClientID == "" || cfg.Redirect == "" {
		return nil, errors.New("oidc: a provider needs a name, a client id and a redirect address")
	}
	cfg.UserClaim = cmp.Or(cfg.UserClaim, "preferred_username")
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	if len(cfg.Scopes) == 0 {
		cfg.Scopes = []string{"profile"}
	}
	if !slices.Contains(cfg.Scopes, oidc.ScopeOpenID) {
		cfg.Scopes = append([]string{oidc.ScopeOpenID}, cfg.Scopes...)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Provider{cfg: cfg}
	p.client = p.newClient(append([]string{u.Hostname()}, cfg.Hosts...))
	return p, nil
}

// Source names the provider in identities and audit events.
func (p *Provider) Source() string { return "oidc:" + p.cfg.Name }

// Issuer returns the issuer that identities carry.
func (p *Provider) Issuer() string { return p.cfg.Issuer }

// A Flow is what ties an answer to the browser that asked. It is kept where no
// other browser gets at it and nobody can change it.
type Flow struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"`
	Since    int64  `json:"t,omitempty"` // they must have signed in there after it, in Unix seconds; 0: whenever
}

// Begin returns the address to send a browser to, and what [Provider.Finish]
// needs when it comes back.
func (p *Provider) Begin(ctx context.Context) (to string, f Flow, err error) {
	m, err := p.discover(ctx)
	if err != nil {
		return "", Flow{}, err
	}
	f = Flow{State: secret.Random(32).Reveal(), Nonce: secret.Random(32).Reveal(), Verifier: oauth2.GenerateVerifier()}
	to = p.oauth(m).AuthCodeURL(f.State, oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier))
	return to, f, nil
}

// BeginAgain is [Provider.Begin] for somebody who is to prove anew who they are:
// the provider is told to ask them, and [Provider.Finish] looks that it did.
func (p *Provider) BeginAgain(ctx context.Context) (to string, f Flow, err error) {
	to, f, err = p.Begin(ctx)
	if err != nil {
		return "", Flow{}, err
	}
	f.Since = p.cfg.Now().Unix()
	return to + "&" + url.Values{"prompt": {"login"}, "max_age": {"0"}}.Encode(), f, nil
}

func (p *Provider) oauth(m *metadata) *oauth2.Config {
	endpoint := m.provider.Endpoint()
	// Never to find out by trying: that sends a code twice.
	switch {
	case p.cfg.Secret.Empty():
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	case len(m.TokenAuth) == 0, slices.Contains(m.TokenAuth, "client_secret_basic"):
		endpoint.AuthStyle = oauth2.AuthStyleInHeader
	default:
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return &oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: p.cfg.Secret.Reveal(), Endpoint: endpoint,
		RedirectURL: p.cfg.Redirect, Scopes: p.cfg.Scopes,
	}
}

// A Login is what a provider said about somebody.
type Login struct {
	external.Person

	SID     string // the provider's name of their session there; may be empty
	Refresh string // by which the provider can be asked again; may be empty
	Told    bool   // the provider said which groups they are in, or that it is none
}

// Finish judges what a browser brought back from the provider. The order
// matters: what was not begun in this browser is not looked at any further, and
// a code is shown to nobody but the provider that it is for.
func (p *Provider) Finish(ctx context.Context, f Flow, q url.Values) (Login, error) {
	for _, name := range []string{"state", "code", "iss", "error"} {
		if len(q[name]) > 1 {
			return Login{}, refuse(BadAnswer, "the answer names "+name+" twice")
		}
	}
	if f.State == "" || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(f.State)) != 1 {
		return Login{}, refuse(BadState, "the state is not that of this browser")
	}
	m, err := p.discover(ctx)
	if err != nil {
		return Login{}, err
	}
	// RFC 9207: the answer says whose it is, so that one provider's cannot be
	// passed for another's.
	if iss := q.Get("iss"); iss != "" && iss != p.cfg.Issuer || iss == "" && m.IssParameter {
		return Login{}, refuse(BadIssuer, fmt.Sprintf("the answer is from %q", iss))
	}
	if code := q.Get("error"); code != "" {
		return Login{}, providerRefused(p.cfg.Name, code)
	}
	code := q.Get("code")
	if code == "" || len(code) > 4096 {
		return Login{}, refuse(BadAnswer, "the answer has no code")
	}
	ctx = oidc.ClientContext(ctx, p.client)
	tok, err := p.oauth(m).Exchange(ctx, code, oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return Login{}, p.exchangeError(err)
	}
	login, err := p.judge(ctx, m, tok, f)
	if err != nil {
		return Login{}, err
	}
	login.Refresh = tok.RefreshToken
	return login, nil
}

// judge verifies the ID token that came with tok. The Flow is empty when the
// token does not answer a browser.
func (p *Provider) judge(ctx context.Context, m *metadata, tok *oauth2.Token, f Flow) (Login, error) {
	raw, _ := tok.Extra("id_token").(string)
	if raw == "" || len(raw) > maxIDToken {
		return Login{}, refuse(BadToken, "there is no ID token in the answer")
	}
	id, err := p.verify(ctx, m, raw)
	if err != nil {
		return Login{}, err
	}
	if f.Nonce != "" && subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(f.Nonce)) != 1 {
		return Login{}, refuse(BadNonce, "the ID token was made for another sign-in")
	}
	if id.AccessTokenHash != "" {
		if err := id.VerifyAccessToken(tok.AccessToken); err != nil {
			return Login{}, refuse(BadToken, err.Error())
		}
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return Login{}, refuse(BadToken, err.Error())
	}
	if err := askedAnew(claims, f); err != nil {
		return Login{}, err
	}
	login := Login{Person: external.Person{Source: p.Source(), Issuer: p.cfg.Issuer, Subject: id.Subject}}
	login.SID, _ = claims["sid"].(string)
	login.Factors = p.factors(claims)
	if p.lacks(claims) {
		more, err := p.userInfo(ctx, m, tok, id.Subject)
		if err != nil {
			return Login{}, err
		}
		for name, value := range more {
			if _, ok := claims[name]; !ok { // what is signed comes first
				claims[name] = value
			}
		}
	}
	login.Login, login.Told = text(claims, p.cfg.UserClaim), true
	login.Groups, err = p.groups(claims)
	return login, err
}

// askedAnew refuses a token of somebody whom the provider did not ask again
// although it was told to: auth_time says when it last did, and a provider that
// is told a max_age must say it.
func askedAnew(claims map[string]any, f Flow) error {
	if f.Since == 0 {
		return nil
	}
	at, ok := claims["auth_time"].(float64)
	if !ok || at < float64(f.Since)-skew.Seconds() {
		return refuse(NotAsked, "auth_time does not say that the provider asked anew")
	}
	return nil
}

// verify checks signature, issuer, audience and times of an ID token.
func (p *Provider) verify(ctx context.Context, m *metadata, raw string) (*oidc.IDToken, error) {
	id, err := oidc.NewVerifier(p.cfg.Issuer, m.keys, &oidc.Config{
		ClientID: p.cfg.ClientID, SupportedSigningAlgs: m.algorithms,
		Now: func() time.Time { return p.cfg.Now().Add(-skew) }, // a clock that is a little ahead
	}).Verify(ctx, raw)
	if expired, ok := errors.AsType[*oidc.TokenExpiredError](err); ok {
		return nil, p.clockRefusal("the ID token ended at "+expired.Expiry.UTC().Format(time.DateTime)+" UTC", err)
	}
	if err != nil {
		if down := m.keys.failure(); down != nil {
			return nil, p.unavailable(fmt.Errorf("the provider's keys: %w", down))
		}
		return nil, &Refusal{Reason: BadToken, err: err}
	}
	if id.IssuedAt.After(p.cfg.Now().Add(2 * skew)) {
		return nil, p.clockRefusal("the ID token was made at "+id.IssuedAt.UTC().Format(time.DateTime)+" UTC, which is in the future", nil)
	}
	var more struct {
		AZP any `json:"azp"`
	}
	if err := id.Claims(&more); err != nil {
		return nil, &Refusal{Reason: BadToken, err: err}
	}
	if azp, given := more.AZP.(string); more.AZP != nil && (!given || azp != p.cfg.ClientID) || more.AZP == nil && len(id.Audience) > 1 {
		return nil, refuse(BadToken, "the ID token was made for another program (azp)")
	}
	if !goodSubject(id.Subject) {
		return nil, refuse(BadToken, "the ID token has no usable subject")
	}
	return id, nil
}

func goodSubject(sub string) bool {
	return sub != "" && len(sub) <= maxSubject && !strings.ContainsFunc(sub, func(r rune) bool { return !unicode.IsPrint(r) })
}

// lacks reports whether the signed claims leave out something that the user
// info may have.
func (p *Provider) lacks(claims map[string]any) bool {
	return text(claims, p.cfg.UserClaim) == "" || p.cfg.GroupsClaim != "" && claim(claims, p.cfg.GroupsClaim) == nil && !overflows(claims)
}

// userInfo asks for more claims. Without an endpoint there are none; a failure
// is one, or somebody's groups would vanish whenever it is slow.
func (p *Provider) userInfo(ctx context.Context, m *metadata, tok *oauth2.Token, subject string) (map[string]any, error) {
	if m.provider.UserInfoEndpoint() == "" || tok.AccessToken == "" {
		return nil, nil
	}
	info, err := m.provider.UserInfo(ctx, oauth2.StaticTokenSource(tok))
	if err != nil {
		return nil, p.unavailable(fmt.Errorf("user info: %w", err))
	}
	if info.Subject != subject {
		return nil, refuse(BadToken, "the user info is about another person")
	}
	claims := map[string]any{}
	if err := info.Claims(&claims); err != nil {
		return nil, refuse(BadToken, err.Error())
	}
	return claims, nil
}

// claim returns a claim by its name or, if there is none, by a path of names
// with dots between.
func claim(claims map[string]any, name string) any {
	if v, ok := claims[name]; ok {
		return v
	}
	first, rest, ok := strings.Cut(name, ".")
	if !ok {
		return nil
	}
	below, _ := claims[first].(map[string]any)
	if below == nil {
		return nil
	}
	return claim(below, rest)
}

func text(claims map[string]any, name string) string {
	s, _ := claim(claims, name).(string)
	if !external.CheckLogin(s) {
		return ""
	}
	return s
}

// overflows reports whether the provider left the groups out because there are
// too many, and points to where they can be asked for.
func overflows(claims map[string]any) bool {
	names, _ := claims["_claim_names"].(map[string]any)
	_, ok := names["groups"]
	return ok
}

func (p *Provider) groups(claims map[string]any) ([]string, error) {
	if p.cfg.GroupsClaim == "" {
		return nil, nil
	}
	v := claim(claims, p.cfg.GroupsClaim)
	if v == nil && overflows(claims) {
		return nil, &Refusal{Reason: TooManyGroups, err: errors.New("the provider left the groups out of the ID token because there are too many; " +
			"let it send only those assigned to this application, or use application roles")}
	}
	var out []string
	switch v := v.(type) {
	case string:
		out = []string{v}
	case []any:
		for _, item := range v {
			if s, ok := item.(string); ok {
				out = append(out, s)
			}
		}
	}
	if len(out) > maxGroups {
		return nil, &Refusal{Reason: TooManyGroups, err: fmt.Errorf("somebody is in %d groups", len(out))}
	}
	return out, nil
}

// factors reports whether the provider says that a second factor was used.
func (p *Provider) factors(claims map[string]any) bool {
	if acr, ok := claims["acr"].(string); ok && acr != "" && slices.Contains(p.cfg.Factors, acr) {
		return true
	}
	amr, _ := claims["amr"].([]any)
	return slices.ContainsFunc(amr, func(v any) bool {
		s, ok := v.(string)
		return ok && s != "" && slices.Contains(p.cfg.Factors, s)
	})
}

// Again asks the provider whether it still vouches for the subject, and what
// their groups are now. [ErrEnded] when it does not any more; other errors are
// no answer. The Login has the refresh token for the next time.
func (p *Provider) Again(ctx context.Context, subject, refresh string) (Login, error) {
	m, err := p.discover(ctx)
	if err != nil {
		return Login{}, err
	}
	ctx = oidc.ClientContext(ctx, p.client)
	tok, err := p.oauth(m).TokenSource(ctx, &oauth2.Token{RefreshToken: refresh}).Token()
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok && (e.ErrorCode == "invalid_grant" || e.ErrorCode == "unauthorized_client" || e.ErrorCode == "access_denied") {
		return Login{}, fmt.Errorf("%w: %s", ErrEnded, clean(e.ErrorCode))
	}
	if err != nil {
		return Login{}, p.exchangeError(err)
	}
	var login Login
	if raw, _ := tok.Extra("id_token").(string); raw != "" {
		login, err = p.judge(ctx, m, tok, Flow{})
	} else {
		login.Person = external.Person{Source: p.Source(), Issuer: p.cfg.Issuer, Subject: subject}
		var claims map[string]any
		if claims, err = p.userInfo(ctx, m, tok, subject); err == nil && claims != nil {
			login.Login = text(claims, p.cfg.UserClaim)
			login.Told = p.cfg.GroupsClaim == "" || claim(claims, p.cfg.GroupsClaim) != nil
			login.Groups, err = p.groups(claims)
		}
	}
	if err != nil {
		return Login{}, err
	}
	if login.Subject != subject {
		return Login{}, fmt.Errorf("%w: the provider answers about somebody else", ErrEnded)
	}
	login.Refresh = cmp.Or(tok.RefreshToken, refresh)
	return login, nil
}

// A Logout is the provider's word that somebody's session, or all of them,
// ended there.
type Logout struct {
	ID      string // unique; it counts once
	Until   time.Time
	Subject string // may be empty, then SID is not
	SID     string
}

// Logout judges a logout token (OpenID Connect Back-Channel Logout 1.0).
func (p *Provider) Logout(ctx context.Context, raw string) (Logout, error) {
	if raw == "" || len(raw) > maxIDToken {
		return Logout{}, refuse(BadToken, "there is no logout token")
	}
	m, err := p.discover(ctx)
	if err != nil {
		return Logout{}, err
	}
	t, err := oidc.NewVerifier(p.cfg.Issuer, m.keys, &oidc.Config{
		ClientID: p.cfg.ClientID, SupportedSigningAlgs: m.algorithms, Now: func() time.Time { return p.cfg.Now().Add(-skew) },
	}).VerifyLogout(ctx, raw)
	if err != nil {
		if down := m.keys.failure(); down != nil {
			return Logout{}, p.unavailable(fmt.Errorf("the provider's keys: %w", down))
		}
		return Logout{}, &Refusal{Reason: BadToken, err: err}
	}
	var event struct {
		Events map[string]json.RawMessage `json:"events"`
	}
	now := p.cfg.Now()
	switch err := t.Claims(&event); {
	case err != nil:
		return Logout{}, &Refusal{Reason: BadToken, err: err}
	case !strings.HasPrefix(strings.TrimSpace(string(event.Events["http://schemas.openid.net/event/backchannel-logout"])), "{"):
		return Logout{}, refuse(BadToken, "the event of the logout token is no object")
	case t.IssuedAt.IsZero() || t.IssuedAt.Before(now.Add(-logoutFresh)) || t.IssuedAt.After(now.Add(2*skew)):
		return Logout{}, p.clockRefusal("the logout token was made at "+t.IssuedAt.UTC().Format(time.DateTime)+" UTC", nil)
	}
	sum := sha256.Sum256([]byte(p.cfg.Issuer + "\x00" + t.TokenID))
	return Logout{ID: hex.EncodeToString(sum[:]), Until: now.Add(logoutFresh + 3*skew), Subject: t.Subject, SID: t.SessionID}, nil
}
