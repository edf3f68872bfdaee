package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

// The network modes of a class, and the egress policies that need no entry in
// the file.
const (
	NetworkNone    = "none"
	NetworkProxied = "proxied"
	NetworkBridge  = "bridge"

	EgressNone       = "none"
	EgressML         = "ml"
	EgressMirrorOnly = "mirror-only"
)

// Egress says what workspaces of network mode proxied may reach.
type Egress struct {
	Policies map[string]EgressPolicy `yaml:"policies" doc:"Policies of your own, by the name that a class has in its field egress."`
	Mirrors  Mirrors                 `yaml:"mirrors" doc:"The organisation's own mirrors. They may be reached with every policy, and with mirror-only the tools inside are pointed to them."`
	Private  []string                `yaml:"private" example:"[10.20.0.0/16]" doc:"Private networks in which allowed names may lie, such as that of a mirror. Everything private, local or special is refused otherwise, whatever name leads to it."`
	Upstream Upstream                `yaml:"upstream" doc:"A proxy that connections are made through, where the server itself may not reach the internet."`
	Limits   EgressLimits            `yaml:"limits" doc:"What workspaces may take."`
	TLS      string                  `yaml:"tls" enum:"strict,relaxed" doc:"strict: on port 443 nothing but TLS, whose server name is the name that was asked for. relaxed: a TLS connection without a server name, or with an encrypted one, passes too."`
}

// An EgressPolicy is a set of rules with a name.
type EgressPolicy struct {
	Title  string       `yaml:"title" default:"the rules' hosts" example:"PyTorch and our data portal" doc:"What people read at launch. At most 200 characters."`
	Preset string       `yaml:"preset" enum:"none,ml,mirror-only" default:"none" doc:"What the rules are added to."`
	Rules  []EgressRule `yaml:"rules" doc:"What may be reached. What no rule allows is refused, and asked for."`
}

// An EgressRule allows one host, or the hosts below a domain.
type EgressRule struct {
	Host    string   `yaml:"host" required:"true" example:"*.example.org" doc:"A host name, or *. and a domain for every host below it (not the domain itself). Never an address."`
	Ports   []int    `yaml:"ports" default:"[80, 443]" example:"[443]" doc:"Ports that may be reached."`
	Methods []string `yaml:"methods" default:"every method" example:"[GET, HEAD]" doc:"Methods of plain HTTP requests. What is inside TLS is not seen."`
	Users   []string `yaml:"users" default:"everyone" example:"[alice]" doc:"Users for whom the rule holds."`
	Hours   string   `yaml:"hours" default:"always" example:"08:00-18:00" doc:"When the rule holds, in the server's time zone. A range that ends before it begins goes over midnight."`
	Bytes   Bytes    `yaml:"bytes" default:"0" example:"50GiB" doc:"Bytes that one connection may carry, both ways together. 0: no limit."`
	Rate    Bytes    `yaml:"rate" default:"0" example:"20MiB" doc:"Bytes per second of one connection. 0: no limit but the workspace's."`
}

// Mirrors are the organisation's own copies of what people install from.
type Mirrors struct {
	Pip   string `yaml:"pip" example:"https://mirror.example.org/pypi/simple" doc:"Package index for pip."`
	Conda string `yaml:"conda" example:"https://mirror.example.org/conda" doc:"Where conda's channels lie."`
	Apt   string `yaml:"apt" example:"https://mirror.example.org/debian" doc:"Where apt's packages lie."`
	Hub   string `yaml:"hub" example:"https://hub.example.org" doc:"Model hub for huggingface_hub."`
}

// Upstream is a proxy between the server and the internet.
type Upstream struct {
	URL         string `yaml:"url" example:"http://proxy.example.org:3128" doc:"An HTTP proxy that does CONNECT. http or https, without a path and without credentials."`
	Credentials string `yaml:"credentials" example:"file:/etc/bailey/proxy-credentials" doc:"env:NAME or file:/path of a text USER:PASSWORD."`
}

// EgressLimits bound one workspace, and all together.
type EgressLimits struct {
	Connections int   `yaml:"connections" doc:"Connections open at once. 1 to 4096."`
	Rate        Bytes `yaml:"rate" doc:"Bytes per second of one workspace, both ways together. 0: no limit."`
	Total       Bytes `yaml:"total" doc:"Bytes per second of all workspaces together, shared evenly between the users who want some: what the server's line has, or a little less. 0: no limit, and users share as the network has it."`
}

// defaultEgress is what holds before the file speaks.
func defaultEgress() Egress { return Egress{TLS: "strict", Limits: EgressLimits{Connections: 256}} }

// reach completes the two fields that depend on each other.
func (c *Class) reach(given func(field string) bool) {
	if !given("network") {
		c.Network = NetworkNone
		if given("egress") {
			c.Network = NetworkProxied
		}
	}
	if !given("egress") && c.Network == NetworkProxied {
		c.Egress = EgressNone
	}
}

// reach says in words what a workspace of the class can reach.
func (e Egress) reach(c Class) string {
	switch c.Network {
	case NetworkBridge:
		return "An open network: this host and the networks it is in can be reached, and nobody is asked."
	case NetworkProxied:
	default:
		return "No network."
	}
	switch c.Egress {
	case EgressNone:
		return "No site by itself; what you ask for, an administrator may allow."
	case EgressML:
		return "Package indexes, conda, model hubs and code hosts; for other sites an administrator is asked."
	case EgressMirrorOnly:
		return "The organisation's own mirrors; for other sites an administrator is asked."
	}
	p := e.Policies[c.Egress]
	return strings.TrimSuffix(cmp.Or(p.Title, p.words()), ".") + "; for other sites an administrator is asked."
}

// words names the first hosts of the rules.
func (p EgressPolicy) words() string {
	var hosts []string
	if p.Preset == EgressML {
		hosts = append(hosts, "package indexes, conda, model hubs, code hosts")
	}
	for i, r := range p.Rules {
		if i == 4 {
			hosts = append(hosts, fmt.Sprintf("and %d more", len(p.Rules)-i))
			break
		}
		hosts = append(hosts, r.Host)
	}
	if len(hosts) == 0 {
		return "No site by itself"
	}
	return strings.Join(hosts, ", ")
}

// mirrored reports whether the tools inside are to be pointed to the mirrors.
func (e Egress) mirrored(c Class) bool {
	return c.Network == NetworkProxied && (c.Egress == EgressMirrorOnly || e.Policies[c.Egress].Preset == EgressMirrorOnly)
}

// env returns the environment that points the tools of a mirror-only class to
// the mirrors. It is part of the class, so what was started stays as it was.
func (e Egress) env(c Class) map[string]string {
	if !e.mirrored(c) {
		return nil
	}
	env := map[string]string{}
	set := func(value string, names ...string) {
		for _, name := range names {
			if value != "" {
				env[name] = value
			}
		}
	}
	set(strings.TrimSuffix(e.Mirrors.Pip, "/"), "PIP_INDEX_URL", "UV_DEFAULT_INDEX")
	set(strings.TrimSuffix(e.Mirrors.Conda, "/"), "CONDA_CHANNEL_ALIAS")
	if base := strings.TrimSuffix(e.Mirrors.Conda, "/"); base != "" {
		set(base+"/main,"+base+"/r", "CONDA_DEFAULT_CHANNELS")
	}
	set(strings.TrimSuffix(e.Mirrors.Hub, "/"), "HF_ENDPOINT")
	set(strings.TrimSuffix(e.Mirrors.Apt, "/"), "APT_MIRROR")
	return env
}

// Hosts returns the host and port of each mirror that is configured.
func (m Mirrors) Hosts() []string {
	var hosts []string
	for _, text := range []string{m.Pip, m.Conda, m.Apt, m.Hub} {
		u, err := url.Parse(text)
		if text == "" || err != nil {
			continue
		}
		port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
		if at := strings.ToLower(u.Hostname()) + ":" + port; !slices.Contains(hosts, at) {
			hosts = append(hosts, at)
		}
	}
	return hosts
}

// Window is the time of day at which a rule holds; the zero value is always.
type Window struct{ From, To time.Duration } // since midnight

var hoursRE = regexp.MustCompile(`^([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])$`)

// Window returns the hours of a checked rule.
func (r EgressRule) Window() Window {
	m := hoursRE.FindStringSubmatch(r.Hours)
	if m == nil {
		return Window{}
	}
	at := func(h, min string) time.Duration {
		d, _ := time.ParseDuration(h + "h" + min + "m") // digits by hoursRE
		return d
	}
	return Window{at(m[1], m[2]), at(m[3], m[4])}
}

// UpstreamCredentials reads the credentials of the upstream proxy; empty when
// there are none.
func (c *Config) UpstreamCredentials() (user string, password secret.Value, err error) {
	if c.Egress.Upstream.Credentials == "" {
		return "", secret.Value{}, nil
	}
	text, err := c.follow(c.Egress.Upstream.Credentials)
	if err != nil {
		return "", secret.Value{}, &bailey.Error{
			Kind: bailey.Invalid, Msg: "the credentials of egress.upstream cannot be read",
			Hint: "look at egress.upstream.credentials: " + c.Egress.Upstream.Credentials, Cause: err,
		}
	}
	user, pass, ok := strings.Cut(strings.TrimSpace(text), ":")
	if !ok || user == "" {
		return "", secret.Value{}, &bailey.Error{Kind: bailey.Invalid, Msg: "the credentials of egress.upstream are not USER:PASSWORD", Hint: "write one line USER:PASSWORD"}
	}
	return user, secret.New(pass), nil
}

// checkEgress checks the policies, mirrors and limits.
func (d *decoder) checkEgress() {
	e := d.cfg.Egress
	for name, p := range e.Policies {
		at := join("egress.policies", name)
		if slices.Contains([]string{EgressNone, EgressML, EgressMirrorOnly}, name) {
			d.wrong([]string{at}, quote(name)+" is the name of a preset", "a class that names it would mean the preset", "another name")
		}
		d.checkText(at+".title", p.Title, 200)
		if p.Preset != "" && !slices.Contains([]string{EgressNone, EgressML, EgressMirrorOnly}, p.Preset) {
			d.wrong([]string{at + ".preset"}, quote(p.Preset)+" is not a preset", "the presets are none, ml and mirror-only", "preset: ml")
		}
		for i, r := range p.Rules {
			d.checkEgressRule(fmt.Sprintf("%s.rules[%d]", at, i), r)
		}
	}
	for _, m := range []struct{ path, url, example string }{
		{"egress.mirrors.pip", e.Mirrors.Pip, "https://mirror.example.org/pypi/simple"},
		{"egress.mirrors.conda", e.Mirrors.Conda, "https://mirror.example.org/conda"},
		{"egress.mirrors.apt", e.Mirrors.Apt, "https://mirror.example.org/debian"},
		{"egress.mirrors.hub", e.Mirrors.Hub, "https://hub.example.org"},
	} {
		d.checkMirror(m.path, m.url, m.example)
	}
	for i, text := range e.Private {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() || p.Bits() == 0 {
			d.wrong([]string{fmt.Sprintf("egress.private[%d]", i)}, quote(text)+" is not a network", "it is an address, a slash and the length of the network's prefix, the rest being zero", "10.20.0.0/16")
		}
	}
	if u, err := url.Parse(e.Upstream.URL); e.Upstream.URL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "") {
		d.wrong([]string{"egress.upstream.url"}, "this is not the address of a proxy", "it is http:// or https://, a host and a port; credentials are in egress.upstream.credentials", d.write("egress.upstream.url", "http://proxy.example.org:3128"))
	}
	if c := e.Upstream.Credentials; c != "" && !strings.HasPrefix(c, "env:") && !strings.HasPrefix(c, "file:/") {
		d.wrong([]string{"egress.upstream.credentials"}, "credentials in the configuration are refused", "they would be copied, shown and backed up with it", d.write("egress.upstream.credentials", "file:/etc/bailey/proxy-credentials"))
	}
	if n := e.Limits.Connections; n < 1 || n > 4096 {
		d.wrong([]string{"egress.limits.connections"}, fmt.Sprintf("%d is out of range", n), "a workspace has 1 to 4096 connections", d.write("egress.limits.connections", "256"))
	}
	if r := e.Limits.Rate; r != 0 && r < 64*kib {
		d.wrong([]string{"egress.limits.rate"}, r.String()+" is out of range", "it is at least 64KiB a second; 0 means no limit", d.write("egress.limits.rate", "20MiB"))
	}
	if r := e.Limits.Total; r != 0 && r < mib {
		d.wrong([]string{"egress.limits.total"}, r.String()+" is out of range", "it is at least 1MiB a second; 0 means no limit", d.write("egress.limits.total", "100MiB"))
	}
	d.checkReach()
}

func (d *decoder) checkEgressRule(at string, r EgressRule) {
	bad := func(field, what, why, fix string) { d.wrong([]string{at + "." + field}, what, why, fix) }
	host := strings.TrimPrefix(r.Host, "*.")
	switch _, notIP := netip.ParseAddr(r.Host); {
	case r.Host == "":
		d.wrong([]string{at}, "the rule has no host", "a rule allows one host, or the hosts below a domain", "host: files.example.org")
	case notIP == nil:
		bad("host", "a rule cannot name an address", "only names are checked against where they lead, and a certificate is for a name", "host: files.example.org")
	case !isDomain(host) || !strings.Contains(host, ".") || strings.Contains(host, "*"):
		bad("host", quote(r.Host)+" is not a host name", "it is a DNS name in lower case, with *. before it for every host below it; without scheme, port and path", "host: \"*.example.org\"")
	}
	for i, p := range r.Ports {
		if p < 1 || p > 65535 {
			d.wrong([]string{fmt.Sprintf("%s.ports[%d]", at, i)}, fmt.Sprintf("%d is not a port", p), "ports are 1 to 65535", "443")
		}
	}
	for i, m := range r.Methods {
		if !methodRE.MatchString(m) {
			d.wrong([]string{fmt.Sprintf("%s.methods[%d]", at, i)}, quote(m)+" is not a method", "methods are written in capitals", "GET")
		}
	}
	for i, u := range r.Users {
		d.checkNameValue(fmt.Sprintf("%s.users[%d]", at, i), u)
	}
	if r.Hours != "" && (!hoursRE.MatchString(r.Hours) || r.Hours[:5] == r.Hours[6:]) {
		bad("hours", quote(r.Hours)+" is not a time of day", "it is two different times with a dash between, in 24 hours", "hours: \"08:00-18:00\"")
	}
}

var methodRE = regexp.MustCompile(`^[A-Z]{3,20}$`)

func (d *decoder) checkMirror(at, text, example string) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || !isDomain(strings.ToLower(u.Hostname())) || !strings.Contains(u.Hostname(), ".") ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		d.wrong([]string{at}, "this is not the address of a mirror", "it is http:// or https://, a host name, and a path; without credentials, which everybody inside could read", d.write(at, example))
	}
}

// checkReach compares the classes' two fields with each other and the policies.
func (d *decoder) checkReach() {
	for i, c := range d.cfg.Classes {
		at := fmt.Sprintf("classes[%d]", i)
		network, egress := at+".network", at+".egress"
		if d.broken(at) || d.broken(network) {
			continue
		}
		_, own := d.cfg.Egress.Policies[c.Egress]
		preset := slices.Contains([]string{EgressNone, EgressML, EgressMirrorOnly}, c.Egress)
		switch {
		case c.Egress != "" && c.Network != NetworkProxied:
			d.wrong([]string{egress, network}, "an egress policy means nothing with network "+c.Network, "only what the server carries can be checked", "network: proxied, or no egress")
		case c.Network == NetworkProxied && !own && !preset:
			d.wrong([]string{egress}, "there is no egress policy "+quote(c.Egress), "it is none, ml, mirror-only or a name from egress.policies", "egress: ml")
		case d.cfg.Egress.mirrored(c) && d.cfg.Egress.Mirrors == (Mirrors{}):
			d.wrong([]string{egress}, "there are no mirrors for mirror-only", "with it, the mirrors are all that can be reached", "egress.mirrors.pip, for one")
		}
	}
}
