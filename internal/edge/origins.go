package edge

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The origin modes.
const (
	ModeLocalhost = "localhost" // https://localhost and https://<slug>.localhost
	ModeSubdomain = "subdomain" // https://<host> and https://<slug>.<domain>
	ModePort      = "port"      // https://<host> and https://<host>:<a port per workspace>
	ModePath      = "path"      // https://<host> and https://<host>/w/<slug>: one origin for all, see SharedOrigin
)

// pathPrefix is where workspaces are in mode path.
const pathPrefix = "/w/"

// OriginConfig chooses an origin mode (design: console and workspace never
// share an origin, but in mode path, which somebody has to ask for).
type OriginConfig struct {
	Mode   string // "localhost", "subdomain", "port" or "path"
	Host   string // console's host name: "localhost", "hub.example.org", or an address in port and path mode
	Port   int    // public port of the HTTPS listener
	Domain string // subdomain mode: workspaces are <slug>.Domain
	Ports  [2]int // port mode: first and last port for workspaces
}

// An Origins says which origin is whose. It may be used concurrently.
type Origins struct {
	cfg     OriginConfig
	console string    // "https://localhost:8443"
	host    string    // what a browser sends as Host for the console, in lower case
	suffix  string    // ".localhost:8443": what follows the slug in a workspace's Host; empty in port and path mode
	loop    [2]string // what a browser sends as Host for the loopback addresses

	mu     sync.RWMutex // guards bySlug and byPort
	bySlug map[string]int
	byPort map[int]string
}

// hostRE is a DNS name of one or more labels, in lower case.
var hostRE = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)

// NewOrigins checks c.
func NewOrigins(c OriginConfig) (*Origins, error) {
	c.Host, c.Domain = strings.ToLower(c.Host), strings.ToLower(c.Domain)
	if c.Port < 1 || c.Port > 65535 {
		return nil, fmt.Errorf("origins: port %d is not between 1 and 65535", c.Port)
	}
	o := &Origins{cfg: c, bySlug: map[string]int{}, byPort: map[int]string{}}
	switch c.Mode {
	case ModeLocalhost:
		if c.Host != "" && c.Host != "localhost" {
			return nil, fmt.Errorf("origins: in mode localhost the host is localhost, not %q", c.Host)
		}
		o.cfg.Host, o.cfg.Domain = "localhost", "localhost"
	case ModeSubdomain:
		if err := checkSubdomain(c); err != nil {
			return nil, err
		}
	case ModePort:
		if err := checkPorts(c); err != nil {
			return nil, err
		}
	case ModePath:
		if !isIP(c.Host) && !hostRE.MatchString(c.Host) {
			return nil, fmt.Errorf("origins: %q is neither an address nor a DNS name", c.Host)
		}
	default:
		return nil, fmt.Errorf("origins: unknown mode %q; it is localhost, subdomain, port or path", c.Mode)
	}
	o.host = hostPort(o.cfg.Host, c.Port)
	o.console = "https://" + o.host
	o.loop = [2]string{hostPort("127.0.0.1", c.Port), hostPort("::1", c.Port)}
	if c.Mode == ModeLocalhost || c.Mode == ModeSubdomain {
		o.suffix = "." + hostPort(o.cfg.Domain, c.Port)
	}
	return o, nil
}

func checkSubdomain(c OriginConfig) error {
	if !hostRE.MatchString(c.Host) || !hostRE.MatchString(c.Domain) {
		return fmt.Errorf("origins: mode subdomain needs two DNS names: host is %q, domain is %q", c.Host, c.Domain)
	}
	if isIP(c.Host) || isIP(c.Domain) {
		return errors.New("origins: an address has no subdomains; use mode port")
	}
	return nil
}

func checkPorts(c OriginConfig) error {
	if !isIP(c.Host) && !hostRE.MatchString(c.Host) {
		return fmt.Errorf("origins: %q is neither an address nor a DNS name", c.Host)
	}
	if c.Ports[0] < 1 || c.Ports[1] > 65535 || c.Ports[0] > c.Ports[1] {
		return fmt.Errorf("origins: port range %d-%d is empty or not between 1 and 65535", c.Ports[0], c.Ports[1])
	}
	if c.Port >= c.Ports[0] && c.Port <= c.Ports[1] {
		return fmt.Errorf("origins: the console's port %d lies in the workspaces' range %d-%d", c.Port, c.Ports[0], c.Ports[1])
	}
	return nil
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// hostPort is what a browser sends as Host: no default port, and brackets
// around IPv6.
func hostPort(host string, port int) string {
	if port == 443 {
		if strings.Contains(host, ":") {
			return "[" + host + "]"
		}
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// Console returns the console's origin, "https://localhost:8443".
func (o *Origins) Console() string { return o.console }

// SharedHost reports whether workspaces differ by port or path alone. Browsers
// do not tell cookies apart by either, so the gateway then must.
func (o *Origins) SharedHost() bool { return o.cfg.Mode == ModePort || o.cfg.Mode == ModePath }

// SharedOrigin reports whether the console and all workspaces are one origin:
// to a browser, a script of a workspace is then a script of the console. What
// is left of the walls is built by the doors, out of what scripts cannot forge.
func (o *Origins) SharedOrigin() bool { return o.cfg.Mode == ModePath }

// Workspace returns the address of a workspace by its slug, without a slash at
// its end: an origin and, in path mode, [Origins.Base]. In port mode it
// assigns a port, stable while the server runs; empty when the range is used
// up or the slug is not one label. Ask only for workspaces that exist: in port
// mode every slug asked for takes a port.
func (o *Origins) Workspace(slug string) string {
	if !ValidSlug(slug) {
		return ""
	}
	switch o.cfg.Mode {
	case ModePath:
		return o.console + o.Base(slug)
	case ModePort:
	default:
		return "https://" + slug + o.suffix
	}
	port := o.port(slug)
	if port == 0 {
		return ""
	}
	return "https://" + hostPort(o.cfg.Host, port)
}

// Base returns the path below which a workspace is on its origin: "/w/<slug>"
// in path mode, and "" in the others, where it has an origin of its own.
func (o *Origins) Base(slug string) string {
	if o.cfg.Mode != ModePath {
		return ""
	}
	return pathPrefix + slug
}

// Cookie returns the full name of a cookie of the console's: kind is "" for
// the session. Its prefix makes browsers keep it to this host, Secure, and with
// Path=/; so no other host can set it. Where workspaces share the host, a
// script of theirs could: there the prefix is one that has browsers (those that
// know it; the others read __Host-) refuse what a script sets under that name.
func (o *Origins) Cookie(kind string) string {
	name := ConsoleCookie
	if o.SharedHost() {
		name = sharedConsoleCookie
	}
	if kind == "" {
		return name
	}
	return name + "-" + kind
}

// port returns the slug's port, or assigns the first free one from where the
// slug's hash points: so a workspace tends to keep its origin, and with it
// what its pages stored in the browser, over restarts of the server.
func (o *Origins) port(slug string) int {
	o.mu.RLock()
	port := o.bySlug[slug]
	o.mu.RUnlock()
	if port != 0 {
		return port
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if port := o.bySlug[slug]; port != 0 {
		return port
	}
	first, n := o.cfg.Ports[0], o.cfg.Ports[1]-o.cfg.Ports[0]+1
	h := fnv.New32a()
	_, _ = h.Write([]byte(slug))
	start := int(h.Sum32() % uint32(n)) //nolint:gosec // n is between 1 and 65535
	for i := range n {
		port := first + (start+i)%n
		if _, taken := o.byPort[port]; !taken {
			o.bySlug[slug], o.byPort[port] = port, slug
			return port
		}
	}
	return 0
}

// Release gives a deleted workspace's port back. In the other modes there is
// nothing to give back.
func (o *Origins) Release(slug string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.byPort, o.bySlug[slug])
	delete(o.bySlug, slug)
}

// ValidSlug reports whether slug is one DNS label in lower case, as slugs are.
func ValidSlug(slug string) bool {
	if slug == "" || len(slug) > 63 || slug[0] == '-' || slug[len(slug)-1] == '-' {
		return false
	}
	for i := range len(slug) {
		c := slug[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Match says whom a request is for by its Host (and in port mode its local
// port): the console, a workspace's slug, or neither (ok false: refuse with 421).
// The Host must be the origin's own, port included; only case does not matter.
// A trailing dot, another port or an address make another origin in a browser,
// whose cookies and scripts we do not know, so they match nothing.
func (o *Origins) Match(r *http.Request) (slug string, console, ok bool) {
	host := lowerHost(r.Host)
	switch o.cfg.Mode {
	case ModePort:
		return o.matchPort(r, host)
	case ModePath:
		if host != o.host {
			return "", false, false
		}
		slug = pathSlug(r.URL.EscapedPath())
		return slug, slug == "", true
	}
	if host == o.host || o.loopbackAPI(r) {
		return "", true, true
	}
	slug, found := strings.CutSuffix(host, o.suffix)
	if !found || !ValidSlug(slug) {
		return "", false, false
	}
	return slug, false, true
}

// matchPort goes by the port that the connection really arrived at; the Host
// header must agree with it, so that no page of one origin speaks for another.
func (o *Origins) matchPort(r *http.Request, host string) (slug string, console, ok bool) {
	port := localPort(r)
	if port < o.cfg.Ports[0] || port > o.cfg.Ports[1] {
		return "", host == o.host, host == o.host
	}
	o.mu.RLock()
	slug, found := o.byPort[port]
	o.mu.RUnlock()
	if !found || host != hostPort(o.cfg.Host, port) {
		return "", false, false
	}
	return slug, false, true
}

// pathSlug returns the workspace that a path is of, as it was sent: a slug has
// one spelling, so whoever writes it in another is not understood. "" is the
// console.
func pathSlug(escaped string) string {
	rest, found := strings.CutPrefix(escaped, pathPrefix)
	slug, _, _ := strings.Cut(rest, "/")
	if !found || !ValidSlug(slug) {
		return ""
	}
	return slug
}

func localPort(r *http.Request) int {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return 0
	}
	return addr.Port
}

// lowerHost returns host in lower case, and without the port when it is the
// default one, which a client may spell out. What is not ASCII becomes nothing:
// Unicode has letters whose lower case is ASCII.
func lowerHost(host string) string {
	for i := range len(host) {
		if host[i] >= 0x80 {
			return ""
		}
	}
	return strings.TrimSuffix(strings.ToLower(host), ":443")
}

// loopbackAlias reports whether the request names the console by a loopback
// address. People type those; they are redirected to the console's one origin.
func (o *Origins) loopbackAlias(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && o.loopbackHost(r) && !apiPath(r)
}

// loopbackAPI reports whether a program calls the API by a loopback address.
// That is served, because programs do not follow redirects with their token,
// but without cookies: those of an address belong to every port of it.
func (o *Origins) loopbackAPI(r *http.Request) bool { return o.loopbackHost(r) && apiPath(r) }

func apiPath(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/api/") }

func (o *Origins) loopbackHost(r *http.Request) bool {
	if o.cfg.Mode != ModeLocalhost {
		return false
	}
	host := lowerHost(r.Host)
	return host == o.loop[0] || host == o.loop[1]
}

// formTargets is what a console page's form may lead to beside the console, as
// a CSP source: browsers check form-action on redirects too, and the launch
// form ends on a workspace's origin.
func (o *Origins) formTargets() string {
	switch o.cfg.Mode {
	case ModePath:
		return "" // workspaces are 'self'
	case ModePort:
	default:
		return "https://*" + o.suffix
	}
	if strings.Contains(o.cfg.Host, ":") {
		return "" // CSP cannot name an IPv6 address
	}
	return "https://" + o.cfg.Host + ":*"
}

// hsts reports whether browsers may be told to use HTTPS only. Not for
// localhost, and not in port and path mode: there other services may share the
// host, and HSTS knows no ports.
func (o *Origins) hsts() bool { return o.cfg.Mode == ModeSubdomain }

// workspacePorts lists the ports that workspaces are served on, in port mode.
func (o *Origins) workspacePorts() []int {
	if o.cfg.Mode != ModePort {
		return nil
	}
	ports := make([]int, 0, o.cfg.Ports[1]-o.cfg.Ports[0]+1)
	for p := o.cfg.Ports[0]; p <= o.cfg.Ports[1]; p++ {
		ports = append(ports, p)
	}
	return ports
}

// CertHosts returns the names and addresses that the server's certificate must
// cover: DNS names, wildcards of one label, and addresses. In port
// and path mode it includes the addresses that the machine has now.
func (o *Origins) CertHosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "::1", o.cfg.Host}
	switch o.cfg.Mode {
	case ModeLocalhost, ModeSubdomain:
		hosts = append(hosts, "*."+o.cfg.Domain)
	case ModePort, ModePath:
		hosts = append(hosts, machineAddresses()...)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// PublicNames returns the DNS names that an authority can vouch for: the
// console's host and, in subdomain mode, the wildcard of the workspaces. There
// are none in localhost mode and for an address.
func (o *Origins) PublicNames() []string {
	switch {
	case o.cfg.Mode == ModeSubdomain:
		return []string{o.cfg.Host, "*." + o.cfg.Domain}
	case o.SharedHost() && !isIP(o.cfg.Host):
		return []string{o.cfg.Host}
	}
	return nil
}

// secure returns the HTTPS origin whose host name is that of a plain HTTP
// request, whatever port was asked for; empty when it is none of ours. In port
// mode that is always the console: plain HTTP says nothing of a workspace.
func (o *Origins) secure(host string) string {
	name := lowerHost(host)
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if name == strings.ToLower(o.cfg.Host) {
		return o.console
	}
	if o.SharedHost() {
		return ""
	}
	if slug, found := strings.CutSuffix(name, "."+o.cfg.Domain); found && ValidSlug(slug) {
		return "https://" + slug + o.suffix
	}
	return ""
}

// machineAddresses lists the machine's global addresses, at most 64: what a
// person without DNS may type.
func machineAddresses() []string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []string
	for _, a := range addrs {
		ipNet, ok := a.(*net.IPNet)
		if !ok || !ipNet.IP.IsGlobalUnicast() || len(out) == 64 {
			continue
		}
		out = append(out, ipNet.IP.String())
	}
	return out
}
