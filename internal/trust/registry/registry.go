// Package registry gathers the evidence about an image from its registry,
// whoever runs it: within a budget of requests, bytes and time, over
// connections that cannot be led into the house, and with "could not look"
// never taken for "nothing there". It believes nothing it reads.
package registry

import (
	"cmp"
	"context"
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
	"time"

	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/trust"
)

// Limits of one look at a registry.
const (
	maxRequests  = 40
	maxBytes     = 16 << 20 // all answers together
	maxManifest  = 4 << 20
	maxBundle    = 4 << 20
	maxPayload   = 64 << 10
	maxToken     = 256 << 10
	maxBundles   = 16   // looked at, of those that are attached
	maxPayloads  = 12   // different ones of a ".sig" tag
	maxLayers    = 1000 // of a ".sig" tag
	maxPages     = 4    // of the referrers
	parallel     = 4
	maxRedirects = 3
)

// Config says how registries are reached. The zero Config asks anonymously,
// over TLS.
type Config struct {
	// Credentials returns the user and password for a registry's host, or
	// false. They are shown to that host and to the token service it names
	// under its own domain, and to nobody else.
	Credentials func(host string) (user string, password secret.Value, ok bool)

	Plain   []string      // hosts (with port) that speak HTTP without TLS; loopback names always do
	TLS     *tls.Config   // nil means the system's authorities
	Timeout time.Duration // of one look; 0 means 8 s

	// Dial replaces the network, for tests. Addresses are still checked.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Lookup replaces the name service, for tests.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	Now    func() time.Time // nil means time.Now
}

// A Registry is a [trust.Source] for every registry there is. It may be used
// concurrently.
type Registry struct {
	cfg Config

	mu      sync.Mutex // guards clients and tokens
	clients map[string]*http.Client
	tokens  map[string]token
}

// A token lets one repository be read for some minutes.
type token struct {
	text  string
	basic bool
	until time.Time
}

// New returns a Registry.
func New(cfg Config) (*Registry, error) {
	if cfg.Timeout < 0 {
		return nil, errors.New("registry: negative timeout")
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 8*time.Second)
	if cfg.Dial == nil {
		d := &net.Dialer{}
		cfg.Dial = d.DialContext
	}
	if cfg.Lookup == nil {
		cfg.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Registry{cfg: cfg, clients: map[string]*http.Client{}, tokens: map[string]token{}}, nil
}

// A look is one gathering of evidence, with what is left of its budget.
type look struct {
	r    *Registry
	ref  trust.Reference
	host string        // as it is dialled
	base string        // "https://host/v2/path"
	turn chan struct{} // holds one element per request under way

	mu       sync.Mutex // guards the rest
	requests int
	bytes    int64
}

func (r *Registry) look(ref trust.Reference) *look {
	host := ref.Registry()
	if host == "docker.io" {
		host = "registry-1.docker.io"
	}
	scheme := "https"
	if r.plain(host) {
		scheme = "http"
	}
	return &look{r: r, ref: ref, host: host, base: scheme + "://" + host + "/v2/" + ref.Path(), turn: make(chan struct{}, parallel)}
}

func (r *Registry) plain(host string) bool {
	return slices.Contains(r.cfg.Plain, host) || loopbackName(hostname(host))
}

func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

func loopbackName(name string) bool {
	if name == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback()
}

func unavailable(what string, err error) error { return &trust.UnavailableError{What: what, Err: err} }

var errNotFound = errors.New("not there")

// errUnknownQuestion is how registries without referrers answer about them. To
// any other question it is as good as no answer.
var errUnknownQuestion = errors.New("it does not know the question")

// errBudget ends a look that costs too much. What was found until then stays.
var errBudget = errors.New("the budget for one look is spent")

func (l *look) spend(n int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.requests >= maxRequests || l.bytes >= maxBytes {
		return errBudget
	}
	l.requests++
	l.bytes += n
	return nil
}

// accept is what we take as a manifest.
var accept = strings.Join([]string{
	"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
}, ", ")

// An answer is the body of a request that succeeded.
type answer struct {
	data   []byte
	header http.Header
}

// get asks the registry for a path below the repository.
func (l *look) get(ctx context.Context, method, path string, limit int64) (answer, error) {
	return l.fetch(ctx, method, l.base+path, limit)
}

func (l *look) fetch(ctx context.Context, method, address string, limit int64) (answer, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return answer{}, unavailable("registry "+l.host+" does not answer in time", ctx.Err())
	}
	for attempt := 0; ; attempt++ {
		resp, err := l.send(ctx, method, address)
		if err != nil {
			return answer{}, err
		}
		if resp.StatusCode == http.StatusUnauthorized && attempt == 0 {
			challenge := resp.Header.Get("WWW-Authenticate")
			_ = resp.Body.Close()
			if err := l.authenticate(ctx, challenge); err != nil {
				return answer{}, err
			}
			continue
		}
		return l.read(resp, limit)
	}
}

func (l *look) read(resp *http.Response, limit int64) (answer, error) {
	defer func() { _ = resp.Body.Close() }()
	what := fmt.Sprintf("registry %s answered %d (%s)", l.host, resp.StatusCode, strings.ToLower(http.StatusText(resp.StatusCode)))
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return answer{}, errNotFound
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return answer{}, unavailable(what, errUnknownQuestion)
	default:
		return answer{}, unavailable(what, nil)
	}
	l.mu.Lock()
	limit = min(limit, maxBytes-l.bytes)
	l.mu.Unlock()
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	l.mu.Lock()
	l.bytes += int64(len(data))
	l.mu.Unlock()
	if err != nil {
		return answer{}, unavailable("registry "+l.host+" broke off", err)
	}
	if int64(len(data)) > limit {
		return answer{}, errTooLarge
	}
	return answer{data: data, header: resp.Header}, nil
}

var errTooLarge = errors.New("larger than it may be")

// send makes one request and follows redirects itself: without credentials,
// and never down from TLS.
func (l *look) send(ctx context.Context, method, address string) (*http.Response, error) {
	own := true
	for hop := 0; ; hop++ {
		if err := l.spend(0); err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, method, address, http.NoBody)
		if err != nil {
			return nil, unavailable("registry "+l.host+" sent us to an impossible address", nil)
		}
		req.Header.Set("Accept", accept)
		req.Header.Set("Accept-Encoding", "identity") // no bombs to unpack
		req.Header.Set("User-Agent", "bailey")
		if own {
			l.authorize(req)
		}
		resp, err := l.client().Do(req)
		if err != nil {
			return nil, unavailable("registry "+l.host+" does not answer", trim(err))
		}
		if resp.StatusCode < 300 || resp.StatusCode > 399 || resp.Header.Get("Location") == "" {
			return resp, nil
		}
		_ = resp.Body.Close()
		next, err := req.URL.Parse(resp.Header.Get("Location"))
		if err != nil || hop >= maxRedirects || next.User != nil {
			return nil, unavailable("registry "+l.host+" redirects too often or to an impossible address", nil)
		}
		if next.Scheme != "https" && (next.Scheme != "http" || req.URL.Scheme != "http") {
			return nil, unavailable("registry "+l.host+" redirects to an address without TLS", nil)
		}
		own = own && next.Host == l.host
		address = next.String()
	}
}

// trim takes the address out of an error of the HTTP client: it may hold a
// token in its query.
func trim(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

func (l *look) authorize(req *http.Request) {
	l.r.mu.Lock()
	t, ok := l.r.tokens[l.ref.Repository]
	l.r.mu.Unlock()
	switch {
	case !ok || l.r.cfg.Now().After(t.until):
	case t.basic:
		if user, password, ok := l.credentials(); ok {
			req.SetBasicAuth(user, password.Reveal())
		}
	default:
		req.Header.Set("Authorization", "Bearer "+t.text)
	}
}

func (l *look) credentials() (string, secret.Value, bool) {
	if l.r.cfg.Credentials == nil {
		return "", secret.Value{}, false
	}
	return l.r.cfg.Credentials(l.ref.Registry())
}

// authenticate answers a challenge of the registry.
func (l *look) authenticate(ctx context.Context, challenge string) error {
	refused := unavailable("registry "+l.host+" does not let us look (401)", nil)
	scheme, rest, _ := strings.Cut(challenge, " ")
	user, password, known := l.credentials()
	switch strings.ToLower(scheme) {
	case "basic":
		if !known {
			return refused
		}
		l.keep(token{basic: true, until: l.r.cfg.Now().Add(time.Hour)})
		return nil
	case "bearer":
	default:
		return refused
	}
	params := challengeParams(rest)
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" || realm.User != nil || realm.Scheme != "https" && (realm.Scheme != "http" || realm.Host != l.host || !l.r.plain(l.host)) {
		return unavailable("registry "+l.host+" names an impossible token service", nil)
	}
	q := realm.Query()
	q.Set("service", params["service"])
	q.Set("scope", "repository:"+l.ref.Path()+":pull") // never what the registry asks for
	realm.RawQuery = q.Encode()
	if err := l.spend(0); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), http.NoBody)
	if err != nil {
		return refused
	}
	req.Header.Set("User-Agent", "bailey")
	if known && sameHouse(l.host, realm.Host) {
		req.SetBasicAuth(user, password.Reveal())
	}
	resp, err := l.client().Do(req)
	if err != nil {
		return unavailable("token service "+realm.Host+" of registry "+l.host+" does not answer", trim(err))
	}
	defer func() { _ = resp.Body.Close() }()
	var t struct {
		Token  string `json:"token"`
		Access string `json:"access_token"`
		Expire int    `json:"expires_in"`
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(data, &t) != nil || cmp.Or(t.Token, t.Access) == "" {
		return unavailable(fmt.Sprintf("token service %s of registry %s answered %d", realm.Host, l.host, resp.StatusCode), nil)
	}
	text := cmp.Or(t.Token, t.Access)
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return refused
	}
	life := time.Duration(min(max(t.Expire, 60), 3600)) * time.Second
	l.keep(token{text: text, until: l.r.cfg.Now().Add(life - 10*time.Second)})
	return nil
}

func (l *look) keep(t token) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if len(l.r.tokens) > 1000 {
		clear(l.r.tokens)
	}
	l.r.tokens[l.ref.Repository] = t
}

// challengeParams reads the parameters of a WWW-Authenticate header.
func challengeParams(s string) map[string]string {
	out := map[string]string{}
	for s != "" && len(out) < 16 {
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		name = strings.ToLower(strings.Trim(name, " ,\t"))
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, rest, _ = strings.Cut(rest[1:], `"`)
			_, rest, _ = strings.Cut(rest, ",")
		} else {
			value, rest, _ = strings.Cut(rest, ",")
		}
		if _, twice := out[name]; !twice {
			out[name] = strings.TrimSpace(value)
		}
		s = rest
	}
	return out
}

// sameHouse reports whether a token service belongs to the registry: it is
// the same host, or both are below one domain.
func sameHouse(registry, realm string) bool {
	a, b := hostname(registry), hostname(realm)
	if a == b {
		return registry == realm || !loopbackName(a)
	}
	if _, err := netip.ParseAddr(a); err == nil {
		return false
	}
	domain := a
	if strings.Count(a, ".") >= 2 {
		_, domain, _ = strings.Cut(a, ".")
	}
	return strings.Contains(domain, ".") && (b == domain || strings.HasSuffix(b, "."+domain))
}

// client returns the HTTP client for one registry. Its connections know whose
// they are: where the registry sends us is judged by where the registry is.
func (l *look) client() *http.Client {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	if c, ok := l.r.clients[l.host]; ok {
		return c
	}
	if len(l.r.clients) > 256 {
		for _, c := range l.r.clients {
			c.CloseIdleConnections()
		}
		clear(l.r.clients)
	}
	host := l.host
	c := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return l.r.dial(ctx, host, network, address)
			},
			TLSClientConfig:        l.r.cfg.TLS.Clone(),
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    parallel,
			MaxConnsPerHost:        4 * parallel,
			IdleConnTimeout:        30 * time.Second,
			TLSHandshakeTimeout:    5 * time.Second,
			ResponseHeaderTimeout:  5 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
		},
	}
	l.r.clients[l.host] = c
	return c
}
