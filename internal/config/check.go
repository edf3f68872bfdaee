package config

import (
	"fmt"
	"net/netip"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"

	"github.com/baileyhq/bailey"
)

// check judges the values, once file, environment and flags are in. It reports
// everything it finds, except about values that have a problem already.
func (d *decoder) check() {
	for _, l := range leaves(reflect.ValueOf(d.cfg).Elem()) {
		d.checkEnum(l.path, l.field, l.value)
	}
	d.checkListen()
	d.checkFiles()
	d.checkDatabase()
	d.checkWeb()
	d.checkACME()
	d.checkProxies()
	d.checkAccess()
	d.checkSessions()
	d.checkSignIn()
	for name, digest := range d.cfg.Images {
		d.checkDigest(join("images", name), string(digest), false)
	}
	d.checkClasses()
	d.checkQuota("quotas.default", d.cfg.Quotas.Default)
	for name, q := range d.cfg.Quotas.Users {
		d.checkQuota(join("quotas.users", name), q)
	}
	for name, q := range d.cfg.Quotas.Groups {
		d.checkQuota(join("quotas.groups", name), q)
	}
	d.checkGPUs()
	d.checkFilter()
	d.checkSSH()
	d.checkEgress()
	d.checkSignIn()
	d.checkPasswords()
	d.checkFactors()
	d.checkRecordings()
}

// wrong reports a problem of the value at paths[0]. The other paths are those
// it was compared with: if one of them has a problem of its own, this one may
// be its shadow and is not reported. The place is that of the first path that
// somebody set.
func (d *decoder) wrong(paths []string, what, why, fix string) {
	if slices.ContainsFunc(paths, d.broken) {
		return
	}
	from, at := Origin{Kind: FromDefault}, paths[0]
	for _, p := range paths {
		if o, ok := d.cfg.origins[p]; ok {
			from, at = o, p
			break
		}
	}
	d.bad[paths[0]] = true
	switch from.Kind {
	case FromFile:
		p := d.doc.problem(from.Line, from.Column, from.width, what, why, fix)
		p.Path = paths[0]
		if at == "database" && p.Excerpt != "" {
			line := []rune(d.doc.lines[from.Line-1])
			p.Excerpt = excerpt(fmt.Sprintf("%4d", from.Line), string(line[:from.Column-1])+blotted, from.Column, len(blotted))
		}
		d.problems = append(d.problems, p)
	case FromEnv, FromFlag:
		text := ""
		for _, l := range leaves(reflect.ValueOf(d.cfg).Elem()) {
			if l.path == at {
				text = scalarString(l.value)
			}
		}
		d.outside(at, from, text, what, why, fix)
	default:
		d.problems = append(d.problems, Problem{Where: d.doc.name, Path: paths[0], What: what, Why: why, Fix: fix})
	}
}

// broken reports whether path, or something it is part of, has a problem.
func (d *decoder) broken(path string) bool {
	for {
		if d.bad[path] && path != "" {
			return true
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return false
		}
		path = path[:i]
	}
}

// write says how to write a value where the value at path came from.
func (d *decoder) write(path, value string) string {
	switch o := d.cfg.Origin(path); o.Kind {
	case FromEnv:
		return o.Name + "=" + value
	case FromFlag:
		return o.Name + " " + value
	default:
		return path[strings.LastIndex(path, ".")+1:] + ": " + value
	}
}

// nameRule is bailey.CheckName's in a sentence.
const nameRule = "names are 1 to 30 characters a-z, 0-9 and single \"-\", beginning with a letter"

// checkKey checks a name that is a key in the file.
func (d *decoder) checkKey(path, name string, n ast.Node) {
	if bailey.CheckName("name", name) != nil {
		d.fault(n, path, quote(name)+" is not a name", nameRule, suggestName(name))
	}
}

// checkNameValue checks a name that is a value.
func (d *decoder) checkNameValue(path, name string) bool {
	if bailey.CheckName("name", name) == nil {
		return true
	}
	d.wrong([]string{path}, quote(name)+" is not a name", nameRule, suggestName(name))
	return false
}

// suggestName makes a name from what somebody wrote.
func suggestName(name string) string {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	guess := strings.Join(words, "-")
	if bailey.CheckName("name", guess) != nil {
		guess = "vision-team"
	}
	return "a name such as " + guess
}

// checkText checks text that people read.
func (d *decoder) checkText(path, text string, most int) {
	if n := utf8.RuneCountInString(text); n > most {
		d.wrong([]string{path}, fmt.Sprintf("the text is %d characters long", n), fmt.Sprintf("there is room for %d on the page", most), "a shorter text")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }) {
		d.wrong([]string{path}, "the text has line breaks or control characters in it", "it stands on one line, in pages and terminals", "one line of text")
	}
}

// checkEnum checks a field that takes one of a few words.
func (d *decoder) checkEnum(path string, f reflect.StructField, v reflect.Value) {
	tag := f.Tag.Get("enum")
	if tag == "" {
		return
	}
	words := strings.Split(tag, ",")
	if slices.Contains(words, v.String()) {
		return
	}
	fix := "one of those words"
	if near := nearest(v.String(), words); near != "" {
		fix = d.write(path, near)
	}
	d.wrong([]string{path}, quote(v.String())+" is not one of the words for this field", "the words are "+strings.Join(words, ", "), fix)
}

// An address is a checked host:port to listen on. A zero addr is every address.
type address struct {
	addr netip.Addr
	port int
	ok   bool
}

// overlaps reports whether two listeners could not both listen on one port.
func (a address) overlaps(b address) bool {
	return !a.addr.IsValid() || !b.addr.IsValid() || a.addr.IsUnspecified() || b.addr.IsUnspecified() || a.addr == b.addr
}

var hostPort = regexp.MustCompile(`^(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^\[\]:]*)):([0-9]{1,5})$`)

// listenAddress checks an address to listen on.
func (d *decoder) listenAddress(path, text string) address {
	const why = "it is an IP address (empty: every address of the machine), a colon and a port"
	m := hostPort.FindStringSubmatch(text)
	if m == nil {
		d.wrong([]string{path}, quote(text)+" is not an address to listen on", why, d.write(path, listenFix(path, text)))
		return address{}
	}
	host := m[1] + m[2]
	port, _ := strconv.Atoi(m[3]) // digits by hostPort
	a := address{port: port, ok: true}
	if port > 65535 {
		d.wrong([]string{path}, fmt.Sprintf("%d is not a port", port), "ports end at 65535", d.write(path, quote(m[0][:len(m[0])-len(m[3])]+"8443")))
		return address{}
	}
	switch host {
	case "":
	case "localhost":
		a.addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		addr, err := netip.ParseAddr(host)
		if err != nil {
			d.wrong([]string{path}, quote(host)+" is not an IP address", why+"; names belong into origin.host", d.write(path, listenFix(path, m[3])))
			return address{}
		}
		a.addr = addr.Unmap()
	}
	return a
}

// listenFix suggests an address for what somebody wrote instead.
func listenFix(path, text string) string {
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n < 65536 {
		if path == "listen.metrics" { // asks nobody to sign in
			return fmt.Sprintf("\"127.0.0.1:%d\"", n)
		}
		return fmt.Sprintf("\"127.0.0.1:%d\" for this machine alone, \":%d\" for every address", n, n)
	}
	switch path {
	case "listen.metrics":
		return `"127.0.0.1:9443"`
	case "listen.ssh":
		return `"127.0.0.1:2222"`
	case "listen.http":
		return `"0.0.0.0:80"`
	}
	return `"127.0.0.1:8443"`
}

func (d *decoder) checkListen() {
	https := d.listenAddress("listen.https", d.cfg.Listen.HTTPS)
	metrics := d.listenAddress("listen.metrics", d.cfg.Listen.Metrics)
	if !https.ok || !metrics.ok {
		return
	}
	if https.port == metrics.port && https.port != 0 && https.overlaps(metrics) {
		d.wrong([]string{"listen.metrics", "listen.https"}, fmt.Sprintf("port %d is taken by listen.https (%s)", metrics.port, d.cfg.Listen.HTTPS),
			"two listeners cannot share a port", d.write("listen.metrics", `"127.0.0.1:9443"`))
	}
	d.checkListenMore(https, metrics)
	r := d.cfg.Web.Ports
	if d.cfg.Web.Mode != "port" || d.broken("origin.ports") {
		return
	}
	for _, l := range []struct {
		path string
		address
	}{{"listen.https", https}, {"listen.metrics", metrics}} {
		if l.port >= r.First && l.port <= r.Last && l.overlaps(https) {
			d.wrong([]string{"origin.ports", l.path}, fmt.Sprintf("the range %s contains the port of %s (%d)", r, l.path, l.port),
				"each port of the range is a workspace's own", d.write("origin.ports", fmt.Sprintf("\"%d-%d\"", l.port+1, l.port+100)))
		}
	}
}

// checkListenMore checks the addresses of SSH and plain HTTP, which may be none.
func (d *decoder) checkListenMore(https, metrics address) {
	type listener struct {
		path, value string
		address
	}
	others := []listener{{"listen.https", d.cfg.Listen.HTTPS, https}, {"listen.metrics", d.cfg.Listen.Metrics, metrics}}
	for _, more := range []listener{{path: "listen.ssh", value: d.cfg.Listen.SSH}, {path: "listen.http", value: d.cfg.Listen.HTTP}} {
		if more.value == "" {
			continue
		}
		more.address = d.listenAddress(more.path, more.value)
		for _, l := range others {
			if more.ok && more.port == l.port && more.port != 0 && more.overlaps(l.address) {
				d.wrong([]string{more.path, l.path}, fmt.Sprintf("port %d is taken by %s (%s)", more.port, l.path, l.value),
					"two listeners cannot share a port", d.write(more.path, listenFix(more.path, "")))
			}
		}
		if more.ok {
			others = append(others, more)
		}
	}
}

// checkFiles checks what names a place on this machine.
func (d *decoder) checkFiles() {
	c := d.cfg
	if !path.IsAbs(c.State) || path.Clean(c.State) == "/" || strings.ContainsFunc(c.State, unprintable) {
		d.wrong([]string{"state"}, quote(c.State)+" is not a directory for the state", "it is an absolute path, and not the root directory",
			d.write("state", "/var/lib/bailey"))
	}
	for _, f := range []struct{ path, value, example string }{
		{"tls.cert", c.TLS.Cert, "/etc/bailey/tls.crt"},
		{"tls.key", c.TLS.Key, "/etc/bailey/tls.key"},
	} {
		if strings.Contains(f.value, "-----BEGIN") {
			d.wrong([]string{f.path}, "this is the PEM text itself", "a key in the configuration would be copied, shown and backed up with it", d.write(f.path, f.example))
		} else if f.value != "" && (!path.IsAbs(f.value) || strings.ContainsFunc(f.value, unprintable)) {
			d.wrong([]string{f.path}, quote(f.value)+" is not an absolute path", "relative paths depend on where the server was started", d.write(f.path, f.example))
		}
	}
	for _, f := range []struct{ path, value, example string }{
		{"trust.policy", c.Trust.Policy, DefaultPolicy},
		{"trust.key", c.Trust.Key, "/etc/bailey/trust/images.key"},
		{"trust.layouts", c.Trust.Layouts, "/var/cache/bailey/images"},
		{"trust.credentials", c.Trust.Credentials, "/etc/bailey/trust/registries.json"},
	} {
		switch {
		case strings.Contains(f.value, "-----BEGIN"):
			d.wrong([]string{f.path}, "this is the PEM text itself", "a key in the configuration would be copied, shown and backed up with it", d.write(f.path, f.example))
		case f.value == "" && (f.path == "trust.layouts" || f.path == "trust.credentials"):
		case !path.IsAbs(f.value) || strings.ContainsFunc(f.value, unprintable):
			d.wrong([]string{f.path}, quote(f.value)+" is not an absolute path", "relative paths depend on where the server was started", d.write(f.path, f.example))
		}
	}
	switch {
	case c.TLS.Cert != "" && c.TLS.Key == "":
		d.wrong([]string{"tls.cert"}, "there is a certificate but no key", "the server needs both, or neither to make its own", "tls.key with the file of the private key")
	case c.TLS.Key != "" && c.TLS.Cert == "":
		d.wrong([]string{"tls.key"}, "there is a key but no certificate", "the server needs both, or neither to make its own", "tls.cert with the file of the certificate")
	}
	socket, isUnix := strings.CutPrefix(c.Docker.Host, "unix://")
	switch {
	case isUnix && path.IsAbs(socket) && !strings.ContainsFunc(socket, unprintable):
	case strings.HasPrefix(c.Docker.Host, "tcp://"), strings.HasPrefix(c.Docker.Host, "http"):
		d.wrong([]string{"docker.host"}, "a TCP address of Docker is refused", "whoever reaches such a port is root on the machine", d.write("docker.host", "unix:///var/run/docker.sock"))
	default:
		d.wrong([]string{"docker.host"}, quote(c.Docker.Host)+" is not a Unix socket", "it is unix:// and an absolute path", d.write("docker.host", "unix:///var/run/docker.sock"))
	}
}

func unprintable(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }

// checkWeb checks origins: who could end up on the console's origin.
func (d *decoder) checkWeb() {
	w := d.cfg.Web
	host, domain := strings.ToLower(w.Host), strings.ToLower(w.Domain)
	_, notIP := netip.ParseAddr(w.Host)
	switch w.Mode {
	case "localhost":
		if host != "localhost" {
			d.wrong([]string{"origin.host", "origin.mode"}, quote(w.Host)+" cannot be the host in localhost mode",
				"that mode is for browsers on this machine, at https://localhost", "host: localhost, or mode: subdomain or port for other machines")
		}
	case "subdomain":
		if notIP == nil || !isDomain(host) {
			d.wrong([]string{"origin.host", "origin.mode"}, quote(w.Host)+" is not a host name that subdomain mode can use",
				"the console needs a DNS name, without scheme, port and path", d.write("origin.host", "hub.example.org"))
		}
		switch {
		case domain == "":
			d.wrong([]string{"origin.domain", "origin.mode"}, "subdomain mode needs a domain for the workspaces",
				"each workspace is a host of its own below it", "origin.domain, such as apps.example.net, with a wildcard DNS record")
		case domain == host:
			d.wrong([]string{"origin.domain", "origin.host"}, "the workspaces' domain is the console's host",
				"what runs in a workspace could then set cookies for the console", d.write("origin.domain", "apps."+strings.TrimPrefix(domain, "hub.")))
		case !isDomain(domain) || !strings.Contains(domain, "."):
			d.wrong([]string{"origin.domain"}, quote(w.Domain)+" is not a domain", "it is a DNS name without \"*.\", scheme, port and path",
				d.write("origin.domain", "apps.example.net"))
		}
	case "port":
		if notIP != nil && !isDomain(host) {
			d.wrong([]string{"origin.host", "origin.mode"}, quote(w.Host)+" is not a host", "it is a host name or an IP address, without scheme, port and path",
				d.write("origin.host", "192.0.2.10"))
		}
		if r := w.Ports; r.First < 1024 || r.Last > 65535 || r.First > r.Last || r.Last-r.First >= 2000 {
			d.wrong([]string{"origin.ports", "origin.mode"}, r.String()+" is not a usable range of ports",
				"it lies between 1024 and 65535, lowest first, and has at most 2000 ports", d.write("origin.ports", `"8500-8599"`))
		}
	}
	if w.Mode == "path" {
		if notIP != nil && !isDomain(host) {
			d.wrong([]string{"origin.host", "origin.mode"}, quote(w.Host)+" is not a host", "it is a host name or an IP address, without scheme, port and path",
				d.write("origin.host", "hub.example.org"))
		}
		if w.Trust != "semi-trusted" {
			d.wrong([]string{"origin.mode"}, "mode path gives up the wall between a workspace and the console",
				"both are one origin to a browser: a notebook's script can look like the console, reach the reader's other workspaces, and sees their storage; it is for people who trust one another's code",
				"mode: subdomain (with a wildcard DNS record) or mode: port (without DNS), which keep the wall; or, knowing this, trust: semi-trusted beside mode: path")
		}
	} else if w.Trust == "semi-trusted" {
		d.wrong([]string{"origin.trust", "origin.mode"}, "trust: semi-trusted means nothing in "+w.Mode+" mode",
			"only mode path gives up the wall between workspaces and the console", "mode: path, or no trust")
	}
	if domain != "" && w.Mode != "subdomain" {
		d.wrong([]string{"origin.domain", "origin.mode"}, "a domain means nothing in "+w.Mode+" mode", "only in subdomain mode do workspaces live below a domain",
			"mode: subdomain, or no domain")
	}
	if w.PublicPort < 0 || w.PublicPort > 65535 {
		d.wrong([]string{"origin.public_port"}, fmt.Sprintf("%d is not a port", w.PublicPort), "ports are 1 to 65535; 0 means that of listen.https",
			d.write("origin.public_port", "443"))
	}
}

var labelRE = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)

// isDomain reports whether s, in lower case, is a DNS name.
func isDomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !labelRE.MatchString(label) {
			return false
		}
	}
	return true
}

func (d *decoder) checkSessions() {
	const most = Duration(30 * 24 * time.Hour)
	s := d.cfg.Sessions
	if s.Idle < Duration(5*time.Minute) || s.Idle > most {
		d.wrong([]string{"sessions.idle"}, s.Idle.String()+" is not a usable time", "it lies between 5m and 720h (30 days)", d.write("sessions.idle", "8h"))
	}
	if s.Lifetime > most || s.Lifetime <= 0 {
		d.wrong([]string{"sessions.lifetime"}, s.Lifetime.String()+" is not a usable time", "it ends at 720h (30 days): a stolen cookie must not work for ever",
			d.write("sessions.lifetime", "24h"))
	} else if s.Lifetime < s.Idle {
		d.wrong([]string{"sessions.lifetime", "sessions.idle"}, fmt.Sprintf("%s is shorter than sessions.idle (%s)", s.Lifetime, s.Idle),
			"a session cannot idle for longer than it lives", d.write("sessions.lifetime", s.Idle.String()))
	}
}

var digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// checkDigest checks an image: a digest, or where names are allowed a
// catalogue name.
func (d *decoder) checkDigest(path, image string, names bool) {
	if digestRE.MatchString(image) || names && bailey.CheckName("image", image) == nil {
		return
	}
	fix := d.write(path, "sha256:…")
	why := "an image is named by its digest, \"sha256:\" and 64 digits 0-9 a-f: a digest cannot change behind your back, a tag can"
	if names {
		why = "it is a catalogue name or a digest, never a tag: a tag can change behind your back"
		fix = d.write(path, "pytorch") + ", or its digest from `docker images --digests`"
	}
	d.wrong([]string{path}, quote(image)+" does not name an image", why, fix)
}

var gpuRE = regexp.MustCompile(`^(?:GPU|MIG)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func (d *decoder) checkGPUs() {
	g := d.cfg.GPUs
	switch {
	case g.Source == "list" && len(g.Devices) == 0:
		d.wrong([]string{"gpus.source", "gpus.devices"}, "the list of GPUs is empty", "source list leases the listed devices and no others",
			"gpus.devices with the UUIDs from `nvidia-smi -L`, or source: none")
	case (g.Source == "auto" || g.Source == "none") && len(g.Devices) > 0:
		d.wrong([]string{"gpus.devices", "gpus.source"}, "devices are listed, but source is "+g.Source, "the list counts only with source list", "source: list, or no devices")
	}
	first := map[string]int{}
	for i, dev := range g.Devices {
		at := fmt.Sprintf("gpus.devices[%d]", i)
		d.checkText(at+".model", dev.Model, 80)
		switch {
		case !d.given(at+".uuid") && !d.broken(at+".uuid"):
			d.wrong([]string{at}, "the device has no uuid", "GPUs are leased by UUID, never by number: numbers change at a reboot", "uuid: GPU-… as `nvidia-smi -L` prints it")
		case !gpuRE.MatchString(dev.UUID):
			d.wrong([]string{at + ".uuid"}, quote(dev.UUID)+" is not the UUID of a GPU", "it is GPU- or MIG- and a UUID in lower case, as `nvidia-smi -L` prints it",
				"uuid: GPU-5c0b3c1e-7a52-4f0f-9c57-0d1f1f6e8a11")
		default:
			if j, twice := first[dev.UUID]; twice {
				d.wrong([]string{at + ".uuid"}, "this GPU is listed twice", fmt.Sprintf("it is gpus.devices[%d] already, and a GPU has one holder at a time", j), "one entry per GPU")
			}
			first[dev.UUID] = i
		}
	}
}
