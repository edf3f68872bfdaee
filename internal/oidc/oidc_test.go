package oidc_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/oidc"
	"github.com/baileyhq/bailey/internal/oidc/oidctest"
	"github.com/baileyhq/bailey/internal/secret"
)

func client(t *testing.T, idp *oidctest.Provider, changes ...func(*oidc.Config)) *oidc.Provider {
	t.Helper()
	cfg := oidc.Config{
		Name: "corp", Issuer: idp.Issuer(), ClientID: oidctest.ClientID, Secret: secret.New(oidctest.Secret),
		Redirect: "https://hub.example.org/signin/oidc/corp/callback", Roots: idp.Roots, GroupsClaim: "groups", Factors: []string{"otp", "gold"},
	}
	for _, change := range changes {
		change(&cfg)
	}
	p, err := oidc.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// signIn goes the whole way, as whoever sits in front of the browser.
func signIn(t *testing.T, p *oidc.Provider, idp *oidctest.Provider) (oidc.Login, error) {
	t.Helper()
	to, flow, err := p.Begin(t.Context())
	if err != nil {
		return oidc.Login{}, err
	}
	return p.Finish(t.Context(), flow, idp.Visit(t, to))
}

func wantRefusal(t *testing.T, err error, why oidc.Reason) {
	t.Helper()
	r, ok := errors.AsType[*oidc.Refusal](err)
	if !ok || r.Reason != why {
		t.Errorf("error = %v, want the refusal %s", err, why)
		return
	}
	if e, ok := errors.AsType[*bailey.Error](r.Words()); !ok || e.Msg == "" || e.Hint == "" || e.Kind != bailey.Unauthenticated {
		t.Errorf("the words are %v", r.Words())
	}
}

func TestSignIn(t *testing.T) {
	idp := oidctest.New(t)
	p := client(t, idp)
	idp.SignedIn("1", map[string]any{"preferred_username": "alice", "groups": []string{"/research", "/ops"}, "amr": []string{"pwd", "otp"}, "email": "root@corp"})
	alice, err := signIn(t, p, idp)
	if err != nil {
		t.Fatal(err)
	}
	if alice.Issuer != idp.Issuer() || alice.Subject != "1" || alice.Login != "alice" || alice.Source != "oidc:corp" || !alice.Factors ||
		!slices.Equal(alice.Groups, []string{"/research", "/ops"}) || alice.Refresh == "" || alice.SID == "" {
		t.Errorf("alice is %+v", alice)
	}
	idp.SignedIn("2", map[string]any{"preferred_username": "bob", "amr": []string{"pwd"}, "acr": "bronze"})
	bob, err := signIn(t, p, idp)
	if err != nil || bob.Subject != "2" || bob.Factors || len(bob.Groups) != 0 {
		t.Errorf("bob is %+v, %v", bob, err)
	}
	if n := idp.Hits("/.well-known/openid-configuration"); n != 1 {
		t.Errorf("discovered %d times for two sign-ins", n)
	}
	// Refused at the provider is refused here, in words of ours.
	idp.Disable("2", true)
	_, err = signIn(t, p, idp)
	wantRefusal(t, err, oidc.ProviderError)
}

// Claims may lie deeper, under a name with dots, or in the user info alone.
func TestWhereClaimsAre(t *testing.T) {
	for name, tt := range map[string]struct {
		claim string
		user  map[string]any
	}{
		"deeper":         {"realm_access.roles", map[string]any{"realm_access": map[string]any{"roles": []string{"a"}}}},
		"dots in a name": {"https://corp/groups", map[string]any{"https://corp/groups": []string{"a"}}},
		"one text":       {"role", map[string]any{"role": "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			idp := oidctest.New(t)
			tt.user["preferred_username"] = "x"
			idp.SignedIn("1", tt.user)
			l, err := signIn(t, client(t, idp, func(c *oidc.Config) { c.GroupsClaim = tt.claim }), idp)
			if err != nil || !slices.Equal(l.Groups, []string{"a"}) {
				t.Errorf("groups %q, %v", l.Groups, err)
			}
		})
	}
	t.Run("user info", func(t *testing.T) {
		idp := oidctest.New(t)
		idp.Claims = func(c map[string]any) { delete(c, "groups"); delete(c, "preferred_username") }
		idp.SignedIn("1", map[string]any{"preferred_username": "x", "groups": []string{"a"}})
		l, err := signIn(t, client(t, idp), idp)
		if err != nil || !slices.Equal(l.Groups, []string{"a"}) || l.Login != "x" {
			t.Errorf("%+v, %v", l, err)
		}
		// About somebody else it is about nobody.
		idp.Change(func() { idp.UserInfo = func(c map[string]any) { c["sub"] = "2" } })
		_, err = signIn(t, client(t, idp), idp)
		wantRefusal(t, err, oidc.BadToken)
	})
	t.Run("too many groups", func(t *testing.T) {
		idp := oidctest.New(t)
		idp.SignedIn("1", map[string]any{"preferred_username": "x", "_claim_names": map[string]any{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]any{"endpoint": "https://graph.example/x"}}})
		_, err := signIn(t, client(t, idp), idp)
		wantRefusal(t, err, oidc.TooManyGroups)
	})
}

// unsigned makes a token by hand.
func unsigned(header string, claims map[string]any, sign func(input string) []byte) string {
	b, _ := json.Marshal(claims)
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(b)
	return input + "." + base64.RawURLEncoding.EncodeToString(sign(input))
}

// Attack 17: what is signed by nobody, by the wrong one, or says the wrong
// thing signs nobody in; and the same provider, behaving again, does.
func TestForgedTokens(t *testing.T) {
	other := "https://evil.example"
	public, err := x509.MarshalPKIXPublicKey(oidctest.Key().Public())
	if err != nil {
		t.Fatal(err)
	}
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	hs := func(key []byte) func(map[string]any) string {
		return func(c map[string]any) string {
			return unsigned(`{"alg":"HS256","kid":"k1"}`, c, func(in string) []byte {
				m := hmac.New(sha256.New, key)
				m.Write([]byte(in))
				return m.Sum(nil)
			})
		}
	}
	claims := func(f func(c map[string]any)) func(*oidctest.Provider) {
		return func(p *oidctest.Provider) { p.Claims = f }
	}
	sign := func(f func(c map[string]any) string) func(*oidctest.Provider) {
		return func(p *oidctest.Provider) { p.Sign = f }
	}
	for name, tt := range map[string]struct {
		attack func(*oidctest.Provider)
		why    oidc.Reason
	}{
		"another issuer":              {claims(func(c map[string]any) { c["iss"] = other }), oidc.BadToken},
		"the issuer with a slash":     {claims(func(c map[string]any) { c["iss"] = c["iss"].(string) + "/" }), oidc.BadToken},
		"another audience":            {claims(func(c map[string]any) { c["aud"] = "other" }), oidc.BadToken},
		"two audiences, no azp":       {claims(func(c map[string]any) { c["aud"] = []string{oidctest.ClientID, "other"} }), oidc.BadToken},
		"another's azp":               {claims(func(c map[string]any) { c["azp"] = "other" }), oidc.BadToken},
		"azp that is no text":         {claims(func(c map[string]any) { c["azp"] = []string{oidctest.ClientID} }), oidc.BadToken},
		"another nonce":               {claims(func(c map[string]any) { c["nonce"] = "x" }), oidc.BadNonce},
		"no nonce":                    {claims(func(c map[string]any) { delete(c, "nonce") }), oidc.BadNonce},
		"expired":                     {claims(func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }), oidc.BadClock},
		"no expiry":                   {claims(func(c map[string]any) { delete(c, "exp") }), oidc.BadClock},
		"from the future":             {claims(func(c map[string]any) { c["iat"] = time.Now().Add(time.Hour).Unix() }), oidc.BadClock},
		"no subject":                  {claims(func(c map[string]any) { delete(c, "sub") }), oidc.BadToken},
		"a long subject":              {claims(func(c map[string]any) { c["sub"] = strings.Repeat("x", 300) }), oidc.BadToken},
		"a subject with a zero byte":  {claims(func(c map[string]any) { c["sub"] = "1\x00" }), oidc.BadToken},
		"another access token's hash": {claims(func(c map[string]any) { c["at_hash"] = "x" }), oidc.BadToken},
		"alg none": {sign(func(c map[string]any) string {
			return unsigned(`{"alg":"none"}`, c, func(string) []byte { return nil })
		}), oidc.BadToken},
		"alg None": {sign(func(c map[string]any) string {
			return unsigned(`{"alg":"None","kid":"k1"}`, c, func(string) []byte { return nil })
		}), oidc.BadToken},
		"HS256 with the public key": {sign(hs(asPEM)), oidc.BadToken},
		"HS256 with the DER key":    {sign(hs(public)), oidc.BadToken},
		"HS256 with our secret":     {sign(hs([]byte(oidctest.Secret))), oidc.BadToken},
		"a foreign key":             {sign(func(c map[string]any) string { return oidctest.Sign(oidctest.Foreign(), "k1", c) }), oidc.BadToken},
		"a foreign key, other kid":  {sign(func(c map[string]any) string { return oidctest.Sign(oidctest.Foreign(), "k2", c) }), oidc.BadToken},
		"no token":                  {sign(func(map[string]any) string { return "" }), oidc.BadToken},
		"nonsense":                  {sign(func(map[string]any) string { return "a.b.c" }), oidc.BadToken},
		"a huge token":              {sign(func(map[string]any) string { return strings.Repeat("a", 100<<10) }), oidc.BadToken},
	} {
		t.Run(name, func(t *testing.T) {
			idp := oidctest.New(t)
			idp.SignedIn("1", map[string]any{"preferred_username": "alice"})
			p := client(t, idp)
			idp.Change(func() { tt.attack(idp) })
			l, err := signIn(t, p, idp)
			wantRefusal(t, err, tt.why)
			if l.Subject != "" {
				t.Errorf("and yet it is %+v", l)
			}
			idp.Change(func() { idp.Claims, idp.Sign = nil, nil })
			if _, err := signIn(t, p, idp); err != nil {
				t.Errorf("behaving again: %v", err)
			}
		})
	}
}

// A code is worth something in the browser that asked for it alone, once, and
// with the provider that gave it.
func TestCodesAreBound(t *testing.T) {
	idp := oidctest.New(t)
	idp.SignedIn("mallory", map[string]any{"preferred_username": "mallory"})
	p := client(t, idp)
	to, hers, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, his, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answer := idp.Visit(t, to)
	// Mallory's answer in another browser.
	_, err = p.Finish(t.Context(), his, answer)
	wantRefusal(t, err, oidc.BadState)
	// Her code with his state: the verifier and the nonce are his.
	forged := url.Values{"code": answer["code"], "iss": answer["iss"], "state": {his.State}}
	_, err = p.Finish(t.Context(), his, forged)
	wantRefusal(t, err, oidc.BadAnswer)
	// Nor without any state, with two, or with none begun.
	_, err = p.Finish(t.Context(), oidc.Flow{}, url.Values{"code": {"x"}})
	wantRefusal(t, err, oidc.BadState)
	_, err = p.Finish(t.Context(), hers, url.Values{"state": {"x", hers.State}, "code": {"x"}})
	wantRefusal(t, err, oidc.BadAnswer)

	// A provider without PKCE is still held to the nonce.
	idp.Change(func() { idp.NoPKCE = true })
	answer = idp.Visit(t, to)
	forged = url.Values{"code": answer["code"], "iss": answer["iss"], "state": {his.State}}
	_, err = p.Finish(t.Context(), his, forged)
	wantRefusal(t, err, oidc.BadNonce)
	// Her own browser, once.
	answer = idp.Visit(t, to)
	if _, err := p.Finish(t.Context(), hers, answer); err != nil {
		t.Fatal(err)
	}
	_, err = p.Finish(t.Context(), hers, answer)
	wantRefusal(t, err, oidc.BadAnswer)
}

// Two providers: the answer of one is not passed for the other's, and one
// subject at both is two people.
func TestMixUp(t *testing.T) {
	honest, evil := oidctest.New(t), oidctest.New(t)
	honest.SignedIn("1", map[string]any{"preferred_username": "alice"})
	evil.SignedIn("1", map[string]any{"preferred_username": "alice"})
	h := client(t, honest)
	to, flow, err := h.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answer := honest.Visit(t, to)
	for name, iss := range map[string][]string{"another's": {evil.Issuer()}, "none, where one is promised": nil, "two": {honest.Issuer(), evil.Issuer()}} {
		bad := url.Values{"state": answer["state"], "code": answer["code"], "iss": iss}
		if _, err := h.Finish(t.Context(), flow, bad); err == nil {
			t.Errorf("iss %s passes", name)
		}
	}
	if n := honest.Hits("/token"); n != 0 {
		t.Errorf("the code was shown to the provider %d times", n)
	}
	a, err := h.Finish(t.Context(), flow, answer)
	if err != nil {
		t.Fatal(err)
	}
	b, err := signIn(t, client(t, evil, func(c *oidc.Config) { c.Name = "evil" }), evil)
	if err != nil || a.Issuer == b.Issuer || a.Subject != b.Subject {
		t.Errorf("%+v, %+v, %v", a, b, err)
	}
	// The evil one's tokens, signed by a key that it shares with the honest one,
	// still say whose they are.
	honest.Change(func() { honest.Claims = func(c map[string]any) { c["iss"] = evil.Issuer() } })
	_, err = signIn(t, h, honest)
	wantRefusal(t, err, oidc.BadToken)
}

// What a provider says about itself is believed only about itself.
func TestDiscovery(t *testing.T) {
	for name, tt := range map[string]struct {
		doc       func(d map[string]any)
		what, fix string
	}{
		"another issuer":        {func(d map[string]any) { d["issuer"] = "https://other.example" }, "calls itself", "issuer: https://other.example"},
		"a slash more":          {func(d map[string]any) { d["issuer"] = d["issuer"].(string) + "/" }, "calls itself", "slash"},
		"keys elsewhere":        {func(d map[string]any) { d["jwks_uri"] = "https://evil.example/keys" }, "jwks_uri is on another host", "hosts: [evil.example]"},
		"keys at the metadata":  {func(d map[string]any) { d["jwks_uri"] = "https://169.254.169.254/latest" }, "another host", "hosts"},
		"keys in the clear":     {func(d map[string]any) { d["jwks_uri"] = strings.Replace(d["jwks_uri"].(string), "https", "http", 1) }, "no https address", ""},
		"keys in a file":        {func(d map[string]any) { d["jwks_uri"] = "file:///etc/passwd" }, "no https address", ""},
		"keys with a password":  {func(d map[string]any) { d["jwks_uri"] = "https://u:p@127.0.0.1/" }, "no https address", ""},
		"tokens elsewhere":      {func(d map[string]any) { d["token_endpoint"] = "https://evil.example/token" }, "token_endpoint is on another host", "hosts"},
		"user info elsewhere":   {func(d map[string]any) { d["userinfo_endpoint"] = "https://evil.example/u" }, "userinfo_endpoint is on another host", "hosts"},
		"browsers in the clear": {func(d map[string]any) { d["authorization_endpoint"] = "http://evil.example/a" }, "authorization_endpoint is no https address", ""},
		"script":                {func(d map[string]any) { d["authorization_endpoint"] = "javascript:alert(1)" }, "no https address", ""},
		"symmetric signatures":  {func(d map[string]any) { d["id_token_signing_alg_values_supported"] = []string{"HS256", "none"} }, "nothing that can be believed", "RS256"},
		"no keys":               {func(d map[string]any) { delete(d, "jwks_uri") }, "no https address", ""},
	} {
		t.Run(name, func(t *testing.T) {
			idp := oidctest.New(t)
			idp.Discovery = tt.doc
			p := client(t, idp)
			if _, _, err := p.Begin(t.Context()); bailey.KindOf(err) != bailey.Unavailable {
				t.Errorf("Begin: %v; want unavailable", err)
			}
			steps := p.Test(t.Context())
			if len(steps) != 1 || steps[0].OK || !strings.Contains(steps[0].Detail, tt.what) || !strings.Contains(steps[0].Fix, tt.fix) || steps[0].Fix == "" {
				t.Errorf("the test says %+v, want %q, %q", steps, tt.what, tt.fix)
			}
		})
	}
}

// The other host is asked when the configuration names it.
func TestHosts(t *testing.T) {
	idp := oidctest.New(t)
	idp.SignedIn("1", nil)
	idp.Discovery = func(d map[string]any) {
		d["jwks_uri"] = strings.Replace(d["jwks_uri"].(string), "127.0.0.1", "example.com", 1)
	}
	if _, _, err := client(t, idp).Begin(t.Context()); err == nil {
		t.Error("another host is asked")
	}
	if _, _, err := client(t, idp, func(c *oidc.Config) { c.Hosts = []string{"example.com"} }).Begin(t.Context()); err != nil {
		t.Errorf("a host of the configuration is not: %v", err)
	}
}

// Keys: however long, however slow, wherever they redirect to, and whatever kid
// somebody sends.
func TestKeys(t *testing.T) {
	idp := oidctest.New(t)
	idp.SignedIn("1", nil)
	reached := false
	inside := oidctest.New(t)
	inside.JWKS = func(http.ResponseWriter, *http.Request) bool { reached = true; return false }
	for name, jwks := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"huge": func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = io.WriteString(w, `{"keys":["`+strings.Repeat("x", 2<<20)+`"]}`)
			return true
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, inside.Issuer()+"/jwks", http.StatusFound)
			return true
		},
		"many": func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = io.WriteString(w, `{"keys":[`+strings.Repeat(`{},`, 500)+`{}]}`)
			return true
		},
		"nonsense": func(w http.ResponseWriter, _ *http.Request) bool { _, _ = io.WriteString(w, `<html>`); return true },
		"broken":   func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true },
	} {
		t.Run(name, func(t *testing.T) {
			idp.Change(func() { idp.JWKS = jwks })
			if l, err := signIn(t, client(t, idp), idp); bailey.KindOf(err) != bailey.Unavailable {
				t.Errorf("%+v, %v; want unavailable", l, err)
			}
		})
	}
	if reached {
		t.Error("a redirect was followed")
	}
	for name, jwks := range map[string]string{
		"none":       `{"keys":[]}`,
		"short RSA":  `{"keys":[{"kty":"RSA","kid":"k1","e":"AQAB","n":"` + base64.RawURLEncoding.EncodeToString(oidctest.Key().N.Bytes()[:64]) + `"}]}`,
		"symmetric":  `{"keys":[{"kty":"oct","kid":"k1","k":"c2VjcmV0"}]}`,
		"encryption": `{"keys":[{"kty":"RSA","kid":"k1","use":"enc","e":"AQAB","n":"` + base64.RawURLEncoding.EncodeToString(oidctest.Key().N.Bytes()) + `"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			idp.Change(func() {
				idp.JWKS = func(w http.ResponseWriter, _ *http.Request) bool { _, _ = io.WriteString(w, jwks); return true }
			})
			_, err := signIn(t, client(t, idp), idp)
			wantRefusal(t, err, oidc.BadToken)
		})
	}
	t.Run("made-up kids", func(t *testing.T) {
		idp.Change(func() { idp.JWKS = nil })
		p := client(t, idp)
		before := idp.Hits("/jwks")
		for range 20 {
			_, err := p.Logout(t.Context(), oidctest.Sign(oidctest.Foreign(), "made-up", map[string]any{"iss": idp.Issuer()}))
			wantRefusal(t, err, oidc.BadToken)
		}
		if n := idp.Hits("/jwks") - before; n > 2 {
			t.Errorf("20 made-up kids made us fetch %d times", n)
		}
	})
}

// A provider is asked again whether it still vouches for somebody.
func TestAgain(t *testing.T) {
	idp := oidctest.New(t)
	p := client(t, idp)
	idp.SignedIn("1", map[string]any{"preferred_username": "alice", "groups": []string{"a"}})
	alice, err := signIn(t, p, idp)
	if err != nil {
		t.Fatal(err)
	}
	idp.SignedIn("1", map[string]any{"preferred_username": "alice", "groups": []string{"b"}})
	idp.SignedIn("2", map[string]any{"preferred_username": "bob"})
	again, err := p.Again(t.Context(), "1", alice.Refresh)
	if err != nil || !slices.Equal(again.Groups, []string{"b"}) || again.Refresh == alice.Refresh || again.Refresh == "" {
		t.Fatalf("Again = %+v, %v", again, err)
	}
	// About somebody else it is no answer about her.
	if _, err := p.Again(t.Context(), "2", again.Refresh); !errors.Is(err, oidc.ErrEnded) {
		t.Errorf("for bob with alice's token: %v", err)
	}
	idp.SignedIn("1", map[string]any{"preferred_username": "alice"})
	alice, err = signIn(t, p, idp)
	if err != nil {
		t.Fatal(err)
	}
	idp.Disable("1", true)
	if _, err := p.Again(t.Context(), "1", alice.Refresh); !errors.Is(err, oidc.ErrEnded) {
		t.Errorf("disabled: %v", err)
	}
	idp.Server.Close()
	if _, err := p.Again(t.Context(), "1", alice.Refresh); errors.Is(err, oidc.ErrEnded) || bailey.KindOf(err) != bailey.Unavailable {
		t.Errorf("the provider is down: %v; want unavailable", err)
	}
}

// Logout tokens: the provider's alone, about one of its subjects or sessions,
// fresh, and never an ID token.
func TestLogoutTokens(t *testing.T) {
	idp := oidctest.New(t)
	p := client(t, idp)
	good, err := p.Logout(t.Context(), idp.LogoutToken(func(c map[string]any) { c["sub"], c["sid"] = "1", "s" }))
	if err != nil || good.Subject != "1" || good.SID != "s" || len(good.ID) != 64 || good.Until.Before(time.Now()) {
		t.Fatalf("%+v, %v", good, err)
	}
	const event = "http://schemas.openid.net/event/backchannel-logout"
	for name, change := range map[string]func(c map[string]any){
		"nobody":             func(c map[string]any) {},
		"a nonce":            func(c map[string]any) { c["sub"], c["nonce"] = "1", "x" },
		"no event":           func(c map[string]any) { c["sub"] = "1"; delete(c, "events") },
		"another event":      func(c map[string]any) { c["sub"], c["events"] = "1", map[string]any{"x": map[string]any{}} },
		"an event of text":   func(c map[string]any) { c["sub"], c["events"] = "1", map[string]any{event: "yes"} },
		"no jti":             func(c map[string]any) { c["sub"] = "1"; delete(c, "jti") },
		"no exp":             func(c map[string]any) { c["sub"] = "1"; delete(c, "exp") },
		"expired":            func(c map[string]any) { c["sub"], c["exp"] = "1", time.Now().Add(-time.Hour).Unix() },
		"old":                func(c map[string]any) { c["sub"], c["iat"] = "1", time.Now().Add(-time.Hour).Unix() },
		"no iat":             func(c map[string]any) { c["sub"] = "1"; delete(c, "iat") },
		"from the future":    func(c map[string]any) { c["sub"], c["iat"] = "1", time.Now().Add(time.Hour).Unix() },
		"another's audience": func(c map[string]any) { c["sub"], c["aud"] = "1", "other" },
		"another issuer":     func(c map[string]any) { c["sub"], c["iss"] = "1", "https://evil.example" },
	} {
		t.Run(name, func(t *testing.T) {
			if l, err := p.Logout(t.Context(), idp.LogoutToken(change)); err == nil {
				t.Errorf("it passes: %+v", l)
			}
		})
	}
	idp.Sign = func(c map[string]any) string { return oidctest.Sign(oidctest.Foreign(), "k1", c) }
	if _, err := p.Logout(t.Context(), idp.LogoutToken(func(c map[string]any) { c["sub"] = "1" })); err == nil {
		t.Error("a foreign signature passes")
	}
	for _, raw := range []string{"", "x", "a.b.c", strings.Repeat("x", 1<<20)} {
		if _, err := p.Logout(t.Context(), raw); err == nil {
			t.Errorf("%.10q passes", raw)
		}
	}
}

// Each mistake of an administrator says what it is and what to do.
func TestMistakes(t *testing.T) {
	idp := oidctest.New(t)
	step := func(steps []external.Step, name string) external.Step {
		i := slices.IndexFunc(steps, func(s external.Step) bool { return s.Name == name })
		if i < 0 {
			t.Fatalf("there is no step %q in %+v", name, steps)
		}
		return steps[i]
	}
	for _, s := range client(t, idp).Test(t.Context()) {
		if !s.OK || s.Warn {
			t.Errorf("everything is right, and yet: %+v", s)
		}
	}
	for name, tt := range map[string]struct {
		change            func(*oidc.Config)
		step, detail, fix string
	}{
		"wrong issuer":   {func(c *oidc.Config) { c.Issuer += "/realms/none" }, "discovery", "no discovery document", "Keycloak"},
		"wrong host":     {func(c *oidc.Config) { c.Issuer = "https://127.0.0.1:1" }, "discovery", "refuses the connection", "port"},
		"no such name":   {func(c *oidc.Config) { c.Issuer = "https://idp.invalid" }, "discovery", "idp.invalid", "resolv.conf"},
		"wrong CA":       {func(c *oidc.Config) { c.Roots, c.CA = x509.NewCertPool(), "/etc/x.pem" }, "discovery", "signed by nobody whom this server trusts", "/etc/x.pem"},
		"wrong secret":   {func(c *oidc.Config) { c.Secret = secret.New("wrong") }, "client", "refuses client_id bailey", "copy client_id"},
		"wrong client":   {func(c *oidc.Config) { c.ClientID = "other" }, "client", "refuses client_id other", "copy client_id"},
		"our clock late": {func(c *oidc.Config) { c.Now = func() time.Time { return time.Now().Add(-10 * time.Minute) } }, "clock", "the provider's clock says", "NTP"},
	} {
		t.Run(name, func(t *testing.T) {
			s := step(client(t, idp, tt.change).Test(t.Context()), tt.step)
			if s.OK || !strings.Contains(s.Detail, tt.detail) || !strings.Contains(s.Fix, tt.fix) {
				t.Errorf("it says %+v, want %q, %q", s, tt.detail, tt.fix)
			}
		})
	}
	// A sign-in says so too: by how much the clocks differ, and that the secret
	// is wrong.
	idp.SignedIn("1", nil)
	late := client(t, idp, func(c *oidc.Config) { c.Now = func() time.Time { return time.Now().Add(-10 * time.Minute) } })
	_, err := signIn(t, late, idp)
	wantRefusal(t, err, oidc.BadClock)
	if r, _ := errors.AsType[*oidc.Refusal](err); r != nil && !strings.Contains(r.Words().Error(), "differ by 10m") && !strings.Contains(r.Words().Error(), "differ by 9m59") {
		t.Errorf("the words are %v", r.Words())
	}
	_, err = signIn(t, client(t, idp, func(c *oidc.Config) { c.Secret = secret.New("wrong") }), idp)
	wantRefusal(t, err, oidc.BadClient)
}

func TestNew(t *testing.T) {
	for _, issuer := range []string{"", "http://idp", "https://", "https://u:p@idp", "https://idp?x=y", "https://idp#x", "idp", "https://idp/%zz"} {
		if _, err := oidc.New(oidc.Config{Name: "a", Issuer: issuer, ClientID: "b", Redirect: "c"}); err == nil {
			t.Errorf("New accepts the issuer %q", issuer)
		}
	}
}

// Whatever comes back from a browser or out of a token, nobody is signed in by
// chance and nothing breaks.
func FuzzAnswer(f *testing.F) {
	idp := oidctest.New(f)
	cfg := oidc.Config{Name: "corp", Issuer: idp.Issuer(), ClientID: oidctest.ClientID, Redirect: "https://h/cb", Roots: idp.Roots}
	p, err := oidc.New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("state=x&code=y", "a.b.c")
	f.Add("error=access_denied&state=s", "eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, query, token string) {
		q, _ := url.ParseQuery(query)
		if l, err := p.Finish(t.Context(), oidc.Flow{State: "never-guessed", Nonce: "n", Verifier: "v"}, q); err == nil {
			t.Errorf("%q signs %+v in", query, l)
		}
		if l, err := p.Logout(t.Context(), token); err == nil {
			t.Errorf("%q signs %+v out", token, l)
		}
	})
}

// Who is to prove anew who they are is asked anew, and the provider says so.
func TestAskedAnew(t *testing.T) {
	for name, tt := range map[string]struct {
		claims func(map[string]any)
		want   oidc.Reason
	}{
		"asked":              {nil, ""},
		"an old sign-in":     {func(c map[string]any) { c["auth_time"] = time.Now().Add(-2 * time.Minute).Unix() }, oidc.NotAsked},
		"says nothing":       {func(c map[string]any) { delete(c, "auth_time") }, oidc.NotAsked},
		"says it in words":   {func(c map[string]any) { c["auth_time"] = "now" }, oidc.NotAsked},
		"a clock a bit late": {func(c map[string]any) { c["auth_time"] = time.Now().Add(-30 * time.Second).Unix() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			idp := oidctest.New(t)
			idp.SignedIn("1", map[string]any{"preferred_username": "alice"})
			idp.Change(func() { idp.Claims = tt.claims })
			p := client(t, idp)
			to, flow, err := p.BeginAgain(t.Context())
			if err != nil || !strings.Contains(to, "prompt=login") || !strings.Contains(to, "max_age=0") {
				t.Fatalf("leads to %s, %v", to, err)
			}
			login, err := p.Finish(t.Context(), flow, idp.Visit(t, to))
			if tt.want != "" {
				wantRefusal(t, err, tt.want)
				return
			}
			if err != nil || login.Subject != "1" {
				t.Errorf("%+v, %v", login, err)
			}
		})
	}
}
