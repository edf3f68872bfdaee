package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/baileyhq/bailey/internal/external"
)

const (
	maxBody    = 1 << 20 // of any answer
	maxKeys    = 100
	minRSA     = 2048
	keysEvery  = 10 * time.Second // how often keys are fetched, whatever kid somebody sends
	keysFor    = time.Hour        // how long fetched keys hold
	dialWithin = 5 * time.Second
)

// algorithms are the signatures that are believed: public keys only. "none" and
// HS256, whose key would be our own secret or somebody's public key, are none.
func algorithms() []string {
	return []string{
		oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
	}
}

// metadata is what a provider said about itself.
type metadata struct {
	provider   *oidc.Provider
	keys       *keySet
	algorithms []string
	at         time.Time

	IssParameter  bool     `json:"authorization_response_iss_parameter_supported"`
	TokenAuth     []string `json:"token_endpoint_auth_methods_supported"`
	Challenges    []string `json:"code_challenge_methods_supported"`
	Scopes        []string `json:"scopes_supported"`
	BackChannel   bool     `json:"backchannel_logout_supported"`
	AuthEndpoint  string   `json:"authorization_endpoint"`
	TokenEndpoint string   `json:"token_endpoint"`
	JWKS          string   `json:"jwks_uri"`
	UserInfo      string   `json:"userinfo_endpoint"`
	Signatures    []string `json:"id_token_signing_alg_values_supported"`
}

// discover returns what the provider says about itself, asking at most once an
// hour, and not again right after it failed.
func (p *Provider) discover(ctx context.Context) (*metadata, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	if p.meta != nil && now.Sub(p.meta.at) < metaFor && !now.Before(p.meta.at) {
		return p.meta, nil
	}
	if p.err != nil && now.Sub(p.tried) < retryAfter {
		return p.stale(now)
	}
	m, err := p.ask(ctx)
	if ctx.Err() != nil && err != nil {
		return nil, p.unavailable(err) // the caller gave up, which says nothing about the provider
	}
	p.tried, p.err = now, err
	if err != nil {
		return p.stale(now)
	}
	if p.meta != nil && p.meta.JWKS == m.JWKS {
		m.keys = p.meta.keys
	}
	p.meta = m
	return m, nil
}

// stale returns what was discovered before, while it is not too old. The caller
// holds mu.
func (p *Provider) stale(now time.Time) (*metadata, error) {
	if p.meta != nil && now.Sub(p.meta.at) < metaStale {
		return p.meta, nil
	}
	return nil, p.unavailable(p.err)
}

// A mistake is what is wrong with a provider or with what the configuration says
// about it, in an administrator's words.
type mistake struct {
	what, fix string
	err       error
}

func (m *mistake) Error() string {
	if m.err != nil {
		return m.what + ": " + m.err.Error()
	}
	return m.what
}

func (m *mistake) Unwrap() error { return m.err }

// ask discovers now.
func (p *Provider) ask(ctx context.Context) (*metadata, error) {
	ctx = oidc.ClientContext(ctx, p.client)
	provider, err := oidc.NewProvider(ctx, p.cfg.Issuer)
	if err != nil {
		return nil, p.explain(err)
	}
	m := &metadata{provider: provider, at: p.cfg.Now()}
	if err := provider.Claims(m); err != nil {
		return nil, &mistake{what: "the provider's discovery document is not what it should be", fix: "is issuer the address of an OpenID Connect provider?", err: err}
	}
	for name, at := range map[string]string{"authorization_endpoint": m.AuthEndpoint, "token_endpoint": m.TokenEndpoint, "jwks_uri": m.JWKS, "userinfo_endpoint": m.UserInfo} {
		if at == "" && name == "userinfo_endpoint" {
			continue
		}
		if err := p.checkEndpoint(name, at, name != "authorization_endpoint"); err != nil {
			return nil, err
		}
	}
	for _, alg := range algorithms() {
		if len(m.Signatures) == 0 || slices.Contains(m.Signatures, alg) {
			m.algorithms = append(m.algorithms, alg)
		}
	}
	if len(m.algorithms) == 0 {
		return nil, &mistake{
			what: "the provider signs ID tokens with nothing that can be believed: " + strings.Join(m.Signatures, ", "),
			fix:  "set the client at the provider to RS256 or ES256",
		}
	}
	m.keys = &keySet{provider: p, url: m.JWKS, algorithms: m.algorithms}
	return m, nil
}

// checkEndpoint refuses addresses that the provider must not lead us to. Where
// browsers go may be anywhere; where this server goes may not.
func (p *Provider) checkEndpoint(name, at string, ours bool) error {
	u, err := url.Parse(at)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return &mistake{what: fmt.Sprintf("the provider's %s is no https address: %q", name, shown(at)), fix: "that is the provider's mistake, or issuer is not one"}
	}
	if ours && !p.allowed(u.Hostname()) {
		return &mistake{
			what: fmt.Sprintf("the provider's %s is on another host than the issuer: %s", name, shown(u.Hostname())),
			fix:  "if that is right, add it: hosts: [" + shown(u.Hostname()) + "]",
		}
	}
	return nil
}

func (p *Provider) allowed(host string) bool {
	issuer, _ := url.Parse(p.cfg.Issuer) // parsed by New
	return strings.EqualFold(host, issuer.Hostname()) || slices.ContainsFunc(p.cfg.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

func shown(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return -1
		}
		return r
	}, text[:min(len(text), 200)])
}

// explain gives an error of discovery its words.
func (p *Provider) explain(err error) error {
	if e, ok := errors.AsType[*oidc.IssuerMismatchError](err); ok {
		return &mistake{
			what: fmt.Sprintf("the provider at %s calls itself %q", p.cfg.Issuer, shown(e.Discovered)),
			fix:  fmt.Sprintf("write it exactly so if that is the one you mean, also with or without a slash at the end: issuer: %s", shown(e.Discovered)), err: err,
		}
	}
	if e, ok := errors.AsType[*mistake](err); ok {
		return e
	}
	u, _ := url.Parse(p.cfg.Issuer) // parsed by New
	if e, ok := errors.AsType[*url.Error](err); ok {
		what, fix := external.Unreachable(e.Err, u.Host, p.cfg.CA)
		return &mistake{what: what, fix: fix, err: err}
	}
	return &mistake{
		what: "there is no discovery document at " + strings.TrimSuffix(p.cfg.Issuer, "/") + "/.well-known/openid-configuration",
		fix:  "check issuer: for Keycloak it is https://HOST/realms/REALM, for Entra ID https://login.microsoftonline.com/TENANT/v2.0", err: err,
	}
}

// newClient returns the only HTTP client that talks to the provider: to these
// hosts, by https, without following redirects, for so long and so many bytes.
func (p *Provider) newClient(hosts []string) *http.Client {
	dialer := &net.Dialer{Timeout: dialWithin, Control: refuseSpecial}
	return &http.Client{
		Timeout:       p.cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &narrow{hosts: hosts, clock: &p.clock, now: p.cfg.Now, below: &http.Transport{
			DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
			TLSClientConfig:     &tls.Config{RootCAs: p.cfg.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: dialWithin, ResponseHeaderTimeout: p.cfg.Timeout, MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConnsPerHost: 4, MaxConnsPerHost: 16, IdleConnTimeout: time.Minute,
		}},
	}
}

// refuseSpecial refuses to connect to addresses that no provider has: the
// metadata services of clouds live there.
func refuseSpecial(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if a := ap.Addr().Unmap(); a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || a == netip.MustParseAddr("fd00:ec2::254") {
		return &mistake{what: "the name leads to " + a.String() + ", where no identity provider is", fix: "check the name server of this machine"}
	}
	return nil
}

// A narrow transport lets through what a provider is asked, and no more.
type narrow struct {
	hosts []string
	below http.RoundTripper
	clock *clock
	now   func() time.Time
}

// RoundTrip implements [http.RoundTripper].
func (n *narrow) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" || !slices.ContainsFunc(n.hosts, func(h string) bool { return strings.EqualFold(h, r.URL.Hostname()) }) {
		return nil, &mistake{what: "the provider leads to " + shown(r.URL.Host) + ", which is not one of its hosts", fix: "if that is right, add it to hosts"}
	}
	resp, err := n.below.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		n.clock.set(at.Sub(n.now()))
	}
	resp.Body = &bounded{ReadCloser: resp.Body, left: maxBody}
	return resp, nil
}

// A bounded body fails when it is longer than anything that was asked for.
type bounded struct {
	io.ReadCloser

	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the answer is longer than %d bytes", maxBody)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// A clock knows how far the provider's is ahead of ours.
type clock struct {
	mu    sync.Mutex // guards both
	ahead time.Duration
	known bool
}

func (c *clock) set(ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead, c.known = ahead, true
}

func (c *clock) apart() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ahead, c.known
}

// A keySet has the keys of the provider, as it published them last. Whoever
// sends tokens with made-up key ids does not make us fetch more often.
type keySet struct {
	provider   *Provider
	url        string
	algorithms []string

	mu    sync.Mutex // guards below; held while keys are fetched
	keys  []jose.JSONWebKey
	tried time.Time
	at    time.Time
	err   error
}

// VerifySignature implements [oidc.KeySet].
func (k *keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	var algs []jose.SignatureAlgorithm
	for _, a := range k.algorithms {
		algs = append(algs, jose.SignatureAlgorithm(a))
	}
	jws, err := jose.ParseSigned(jwt, algs)
	if err != nil {
		return nil, err
	}
	if len(jws.Signatures) != 1 {
		return nil, errors.New("it has not one signature")
	}
	header := jws.Signatures[0].Header // a key that is in it is not looked at: keys come from the provider
	for _, again := range []bool{false, true} {
		keys, err := k.get(ctx, again)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			if header.KeyID != "" && key.KeyID != header.KeyID || key.Algorithm != "" && key.Algorithm != header.Algorithm {
				continue
			}
			if payload, err := jws.Verify(key.Key); err == nil {
				return payload, nil
			}
		}
	}
	return nil, errors.New("no key of the provider made the signature")
}

// get returns the keys; with again, fresh ones if it is time.
func (k *keySet) get(ctx context.Context, again bool) ([]jose.JSONWebKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.provider.cfg.Now()
	old := k.at.IsZero() || now.Sub(k.at) > keysFor
	if !old && !again || !k.tried.IsZero() && now.Sub(k.tried) < keysEvery {
		if k.at.IsZero() {
			return nil, k.provider.unavailable(fmt.Errorf("the provider's keys: %w", k.err))
		}
		return k.keys, nil
	}
	keys, err := k.fetch(ctx)
	if ctx.Err() == nil || err == nil {
		k.tried, k.err = now, err
	}
	switch {
	case err == nil:
		k.keys, k.at = keys, now
	case k.at.IsZero() || now.Sub(k.at) > metaStale:
		return nil, k.provider.unavailable(fmt.Errorf("the provider's keys: %w", err))
	}
	return k.keys, nil
}

// failure returns why there are no keys at all.
func (k *keySet) failure() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at.IsZero() {
		return k.err
	}
	return nil
}

// fetch asks for the keys and keeps those that can sign.
func (k *keySet) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := k.provider.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read, or it does not matter
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the provider answers %d", resp.StatusCode)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		return nil, err
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys", len(set.Keys))
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) != nil { // of a kind that nobody here uses
			continue
		}
		if canSign(key) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

func canSign(key jose.JSONWebKey) bool {
	if key.Use != "" && key.Use != "sig" || !key.Valid() {
		return false
	}
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= minRSA && k.N.BitLen() <= 16384
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
