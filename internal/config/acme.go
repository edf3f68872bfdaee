package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/baileyhq/bailey/internal/secret"
)

// ACME names an authority that gives certificates.
type ACME struct {
	Directory  string   `yaml:"directory" example:"https://acme-v02.api.letsencrypt.org/directory" doc:"The authority's directory. Empty: no authority is asked. To name one is to agree to its terms."`
	Email      string   `yaml:"email" example:"ops@example.org" doc:"Where the authority writes to when something is wrong."`
	Challenges []string `yaml:"challenges" default:"dns-01 with dns_hook, else tls-alpn-01, and http-01 with listen.http" example:"[tls-alpn-01]" doc:"How it is proved that the names are yours. tls-alpn-01: the authority comes to port 443, which must lead to listen.https. http-01: it comes to port 80, which must lead to listen.http. dns-01: a DNS record, the only way to a wildcard and so to origin.mode subdomain."`
	DNSHook    string   `yaml:"dns_hook" example:"/etc/bailey/dns-hook" doc:"Program that sets a DNS record, called as lego's exec provider calls its own: present|cleanup NAME VALUE. An absolute path."`
	CA         string   `yaml:"ca" example:"/etc/bailey/step-ca.pem" doc:"PEM file with the certificates that are trusted for the directory, in place of the system's: for an authority of your own."`
	KeyID      string   `yaml:"eab_key_id" example:"kid-1" doc:"External account binding, for authorities that ask for it."`
	MACKey     string   `yaml:"eab_mac_key" example:"file:/etc/bailey/eab" doc:"env:NAME or file:/path of the binding's key, base64url as the authority gave it. A key in this file is refused."`
}

// acmeChallenges are the ways to prove a name.
var acmeChallenges = []string{"http-01", "tls-alpn-01", "dns-01"}

// ACMEChallenges returns the challenges that are answered.
func (c *Config) ACMEChallenges() []string {
	a := c.TLS.ACME
	switch {
	case len(a.Challenges) > 0:
		return a.Challenges
	case a.DNSHook != "":
		return []string{"dns-01"}
	case c.Listen.HTTP != "":
		return []string{"tls-alpn-01", "http-01"}
	}
	return []string{"tls-alpn-01"}
}

// ACMEKey follows the reference to the key of the external account binding.
func (c *Config) ACMEKey() (secret.Value, error) {
	return c.signInSecret(c.TLS.ACME.MACKey, "the key of tls.acme", "eab_mac_key")
}

// checkACME checks what can be known without asking the authority.
func (d *decoder) checkACME() {
	a := d.cfg.TLS.ACME
	d.checkPath("tls.acme.dns_hook", a.DNSHook, "/etc/bailey/dns-hook")
	d.checkPath("tls.acme.ca", a.CA, "/etc/bailey/authority.pem")
	d.checkReference("tls.acme.eab_mac_key", a.MACKey, "file:/etc/bailey/eab")
	for i, challenge := range a.Challenges {
		if !slices.Contains(acmeChallenges, challenge) {
			d.wrong([]string{fmt.Sprintf("tls.acme.challenges[%d]", i)}, quote(challenge)+" is not a challenge", "they are "+strings.Join(acmeChallenges, ", "), "challenges: [tls-alpn-01]")
		}
	}
	if a.Directory == "" {
		for _, f := range []struct{ at, value string }{{"email", a.Email}, {"dns_hook", a.DNSHook}, {"ca", a.CA}, {"eab_key_id", a.KeyID}, {"eab_mac_key", a.MACKey}, {"challenges", strings.Join(a.Challenges, "")}} {
			if f.value != "" {
				d.wrong([]string{"tls.acme." + f.at}, "no authority is named", "without tls.acme.directory none is asked, and this has no effect", "directory: https://acme-v02.api.letsencrypt.org/directory")
				return
			}
		}
		return
	}
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		d.wrong([]string{"tls.acme.directory"}, quote(a.Directory)+" is not an authority's directory", "it is an https:// address", d.write("tls.acme.directory", "https://acme-v02.api.letsencrypt.org/directory"))
	}
	if (a.KeyID == "") != (a.MACKey == "") {
		d.wrong([]string{"tls.acme.eab_key_id", "tls.acme.eab_mac_key"}, "an external account binding is a key id and a key", "one is there without the other", "eab_key_id and eab_mac_key")
	}
	if d.cfg.TLS.Cert != "" {
		d.wrong([]string{"tls.acme.directory"}, "there is tls.cert as well", "certificates come from files or from an authority", "one of tls.cert and tls.acme")
	}
	d.checkACMENames()
	challenges := d.cfg.ACMEChallenges()
	if slices.Contains(challenges, "http-01") && d.cfg.Listen.HTTP == "" {
		d.wrong([]string{"tls.acme.challenges"}, "http-01 needs listen.http", "the authority asks over plain HTTP on port 80", `listen.http: "0.0.0.0:80"`)
	}
	if slices.Contains(challenges, "dns-01") && a.DNSHook == "" {
		d.wrong([]string{"tls.acme.challenges"}, "dns-01 needs tls.acme.dns_hook", "a program of yours sets the record", "dns_hook: /etc/bailey/dns-hook")
	}
	if a.DNSHook != "" && path.IsAbs(a.DNSHook) && !slices.Contains(challenges, "dns-01") {
		d.wrong([]string{"tls.acme.dns_hook"}, "the hook is never called", "tls.acme.challenges does not have dns-01", "challenges: [dns-01]")
	}
}

// checkACMENames refuses origins that no authority vouches for.
func (d *decoder) checkACMENames() {
	w := d.cfg.Web
	_, notIP := netip.ParseAddr(w.Host)
	switch {
	case w.Mode == "localhost":
		d.wrong([]string{"tls.acme.directory"}, "no authority vouches for localhost", "it names this machine to whoever asks", "origin.mode: subdomain, or port with a DNS name; for one machine leave tls.acme out")
	case notIP == nil:
		d.wrong([]string{"tls.acme.directory"}, quote(w.Host)+" is an address", "certificates of an authority are for DNS names here", "origin.host: hub.example.org")
	case w.Mode == "subdomain" && !slices.Contains(d.cfg.ACMEChallenges(), "dns-01"):
		d.wrong([]string{"tls.acme.directory"}, "workspaces are under *."+w.Domain, "an authority gives a wildcard only for a DNS record (dns-01)", "dns_hook: /etc/bailey/dns-hook")
	}
}
