package gateway

import (
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/baileyhq/bailey/internal/mutant"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/workspace"
)

// What Jupyter sees as its own address. It listens on the workspace's loopback
// and is asked under that name, so its checks of Host and Origin hold.
const (
	upstreamHost   = workspace.JupyterAddr
	upstreamOrigin = "http://" + upstreamHost
)

// dropped are the request headers that never go upstream, and droppedPrefixes
// the families of such: what belongs to one connection only, what frames a
// message, what is rewritten below, and every way in which proxies tell a
// server who is asking. A workspace must not be able to believe those, and we
// do not use them.
var (
	dropped = set(
		// of one connection
		"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Trailers",
		"Transfer-Encoding", "Upgrade", "Http2-Settings", "Expect",
		// framing
		"Content-Length", "Host",
		// rewritten below
		"Authorization", "Cookie", "Cookie2", "Origin", "Referer",
		// who is asking, and by which way
		"Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Client-Ip",
		"Cf-Connecting-Ip", "Fastly-Client-Ip", "X-User", "X-Username", "X-User-Id", "X-Email", "X-Groups",
		"X-Scheme", "X-Url-Scheme", "Front-End-Https", "X-Client-Cert", "X-Http-Method", "X-Http-Method-Override",
		"X-Method-Override", "X-Rewrite-Url",
	)
	droppedPrefixes = []string{
		"Proxy", "Sec-Websocket-", "X-Forwarded", "X-Original-", "X-Bailey", "X-Jupyterhub", "X-Remote-", "Remote-",
		"X-Auth-", "X-Authenticated-", "X-Webauth-", "X-Proxied-", "X-Ssl-", "Ssl-Client-", "X-Proxy", "X-Envoy-",
	}
)

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// upstreamHeader returns what goes upstream of in: for pages, API calls and
// upgrades alike. Names with anything but letters, digits and "-" go nowhere:
// many servers take X_Forwarded_For and X.Forwarded.For for X-Forwarded-For,
// and nobody needs them. What we set is set last, so that no "Connection: …"
// of a client can remove it.
func (q *request) upstreamHeader(token secret.Value) http.Header {
	out := make(http.Header, len(q.Header)+4)
	named := connectionNames(q.Header)
	for name, values := range q.Header {
		if plainName(name) && !goesNowhere(name) && !named[name] {
			out[name] = values
		}
	}
	if cookies := q.upstreamCookies(); cookies != "" {
		out["Cookie"] = []string{cookies}
	}
	// The origin was ours when it mattered (see checkFetch); a foreign one is
	// not passed off as ours.
	if o := q.Header["Origin"]; len(o) == 1 && o[0] == q.origin {
		out["Origin"] = []string{upstreamOrigin}
	}
	if ref := q.Header["Referer"]; len(ref) == 1 {
		rest, ok := strings.CutPrefix(ref[0], q.origin)
		if ok && strings.HasPrefix(rest, q.base+"/") && !strings.HasPrefix(rest, q.base+ownPrefix) && !strings.Contains(rest, tokenPrefix) {
			out["Referer"] = []string{upstreamOrigin + rest}
		}
	}
	out["Authorization"] = []string{"token " + token.Reveal()}
	return out
}

// connectionNames returns the headers that a message declares to be of its
// connection only.
func connectionNames(h http.Header) map[string]bool {
	var named map[string]bool
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name == "" || strings.EqualFold(name, "keep-alive") || strings.EqualFold(name, "close") {
				continue
			}
			if named == nil {
				named = map[string]bool{}
			}
			named[http.CanonicalHeaderKey(name)] = true
		}
	}
	return named
}

func plainName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return name != ""
}

// goesNowhere expects a canonical name, as net/http makes them.
func goesNowhere(name string) bool {
	if mutant.HeaderSpoof {
		return false
	}
	if dropped[name] {
		return true
	}
	for _, p := range droppedPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// upstreamCookies returns the cookies without ours. Where workspaces share a
// host, browsers send every workspace the cookies of all; then only those that
// this one has set go to it, under the name that it gave them.
func (q *request) upstreamCookies() string {
	prefix := ""
	if q.gateway.cfg.Origins.SharedHost() {
		prefix = sharedPrefix(q.slug)
	}
	var b strings.Builder
	for _, line := range q.Header["Cookie"] {
		for part := range strings.SplitSeq(line, ";") {
			part = strings.TrimSpace(part)
			name, _, _ := strings.Cut(part, "=")
			if part == "" || ours(name) {
				continue
			}
			rest, ok := strings.CutPrefix(part, prefix)
			if !ok || ours(rest) {
				continue
			}
			if b.Len() > 0 {
				b.WriteString("; ")
			}
			b.WriteString(rest)
		}
	}
	return b.String()
}

// ours reports whether a cookie's name is one of ours, or could be taken for
// one: browsers do not tell the case of the prefix apart.
func ours(name string) bool {
	name = strings.TrimSpace(name)
	for _, p := range cookiePrefixes {
		if len(name) >= len(p) && strings.EqualFold(name[:len(p)], p) {
			return true
		}
	}
	return false
}

func sharedPrefix(slug string) string { return "ws" + tag(slug) + "-" }

// hidden are the response headers that stay inside: what is of one connection,
// what speaks for a whole host or about the network, what says which software
// answers, and what would open the origin to others.
var hidden = set(
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Strict-Transport-Security", "Public-Key-Pins", "Public-Key-Pins-Report-Only", "Expect-Ct", "Alt-Svc", "Clear-Site-Data",
	"Nel", "Report-To", "Reporting-Endpoints", "Set-Cookie2",
	"Server", "X-Powered-By", "Via", "Www-Authenticate", "Authorization", "X-Content-Type-Options",
	"Origin-Agent-Cluster", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy", "Referrer-Policy",
)

// The bounds of what a workspace may put into a browser's cookie jar with one
// answer.
const (
	maxSetCookies = 32
	maxSetCookie  = 4096
)

// downstreamHeader makes h, a workspace's answer, fit for the browser, in place.
func (q *request) downstreamHeader(h http.Header) {
	named := connectionNames(h)
	for name := range h {
		if hidden[name] || named[name] || strings.HasPrefix(name, "Access-Control-") || strings.HasPrefix(name, "X-Bailey") {
			delete(h, name)
		}
	}
	q.filterSetCookies(h)
	if to, ok := strings.CutPrefix(h.Get("Location"), upstreamOrigin); ok && strings.HasPrefix(to, "/") {
		h.Set("Location", q.origin+to)
	}
	// Added to what is there and never in its place: JupyterLab's own policy
	// knows what it needs, and a browser obeys all of them. 'self' is this one
	// workspace, whose apps JupyterLab shows in frames; nobody else can.
	h.Add("Content-Security-Policy", "frame-ancestors 'self'")
	if servesFiles(q.URL.Path) {
		// A file that is shown is the work of whoever wrote it, and must not
		// act as the person who looks at it (as jupyter-server does since
		// CVE-2026-44727; images may have an older one).
		h.Add("Content-Security-Policy", "sandbox allow-scripts")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Origin-Agent-Cluster", "?1")
	if q.base != "" {
		confine(h)
	}
	if q.alias != "" {
		q.aliasHeader(h)
	}
}

// servesFiles reports whether a decoded path may be one of those under which
// Jupyter serves what users wrote. In doubt it is: upstream may read dots and
// slashes differently.
func servesFiles(p string) bool {
	if decoded, err := url.PathUnescape(p); err == nil {
		p = decoded // what was encoded twice
	}
	for _, form := range []string{p, path.Clean("/" + p)} {
		if strings.Contains(form+"/", "/files/") || strings.Contains(form+"/", "/nbconvert/") {
			return true
		}
	}
	return false
}

func (q *request) filterSetCookies(h http.Header) {
	lines := h["Set-Cookie"]
	if len(lines) == 0 {
		return
	}
	shared := q.gateway.cfg.Origins.SharedHost()
	kept := lines[:0:0]
	for _, line := range lines {
		line, ok := filterSetCookie(line)
		if !ok || len(kept) == maxSetCookies {
			continue
		}
		if shared {
			line = sharedPrefix(q.slug) + line
		}
		if q.base != "" {
			line = q.confineCookie(line)
		}
		kept = append(kept, line)
	}
	if len(kept) == 0 {
		h.Del("Set-Cookie")
		return
	}
	h["Set-Cookie"] = kept
}

// filterSetCookie returns a workspace's cookie as it may be set: for its own
// host only, by HTTPS only, and under no name of ours. A cookie without a name
// is none: browsers send it as its bare value, which could be "__Host-bailey=…".
func filterSetCookie(line string) (string, bool) {
	if mutant.CookieFilter {
		return line, true
	}
	if len(line) > maxSetCookie {
		return "", false
	}
	for i := range len(line) {
		if c := line[i]; c < ' ' || c == 0x7f {
			return "", false
		}
	}
	pair, attributes, _ := strings.Cut(line, ";")
	name, value, ok := strings.Cut(pair, "=")
	name = strings.TrimSpace(name)
	if !ok || name == "" || ours(name) {
		return "", false
	}
	b := strings.Builder{}
	b.WriteString(name + "=" + strings.TrimSpace(value))
	for attr := range strings.SplitSeq(attributes, ";") {
		attr = strings.TrimSpace(attr)
		key, _, _ := strings.Cut(attr, "=")
		key = strings.TrimSpace(key)
		if key == "" || strings.EqualFold(key, "Domain") || strings.EqualFold(key, "Secure") {
			continue
		}
		b.WriteString("; " + attr)
	}
	b.WriteString("; Secure")
	return b.String(), true
}
