package config

import (
	"strings"
	"testing"
)

// An authority is asked only where it can say yes, and what cannot work is said
// before the server starts.
func TestACME(t *testing.T) {
	const port = "origin: {mode: port, host: hub.example.org, ports: \"9000-9001\"}\n"
	const sub = "origin: {mode: subdomain, host: hub.example.org, domain: apps.example.net}\n"
	const dir = "directory: https://acme.example.org/directory"
	for name, tt := range map[string]struct{ file, want string }{
		"a name in port mode":           {port + "tls: {acme: {" + dir + "}}\n", ""},
		"with plain HTTP":               {port + "listen: {http: \":80\"}\ntls: {acme: {" + dir + ", challenges: [http-01]}}\n", ""},
		"a wildcard with a hook":        {sub + "tls: {acme: {" + dir + ", dns_hook: /etc/bailey/hook}}\n", ""},
		"an account of the authority":   {port + "tls: {acme: {" + dir + ", eab_key_id: kid, eab_mac_key: \"file:/etc/bailey/eab\"}}\n", ""},
		"localhost":                     {"tls: {acme: {" + dir + "}}\n", "no authority vouches for localhost"},
		"an address":                    {"origin: {mode: port, host: 192.0.2.1, ports: \"9000-9001\"}\ntls: {acme: {" + dir + "}}\n", "is an address"},
		"a wildcard without a hook":     {sub + "tls: {acme: {" + dir + "}}\n", "dns_hook: /etc/bailey/dns-hook"},
		"http-01 without a listener":    {port + "tls: {acme: {" + dir + ", challenges: [http-01]}}\n", "http-01 needs listen.http"},
		"dns-01 without a hook":         {port + "tls: {acme: {" + dir + ", challenges: [dns-01]}}\n", "dns-01 needs tls.acme.dns_hook"},
		"a hook that is never called":   {port + "tls: {acme: {" + dir + ", challenges: [tls-alpn-01], dns_hook: /x}}\n", "never called"},
		"an unknown challenge":          {port + "tls: {acme: {" + dir + ", challenges: [tls-sni-01]}}\n", "is not a challenge"},
		"plain HTTP to the authority":   {port + "tls: {acme: {directory: \"http://acme.example.org/\"}}\n", "it is an https:// address"},
		"files as well":                 {port + "tls: {cert: /c, key: /k, acme: {" + dir + "}}\n", "there is tls.cert as well"},
		"an e-mail alone":               {port + "tls: {acme: {email: ops@example.org}}\n", "no authority is named"},
		"half a binding":                {port + "tls: {acme: {" + dir + ", eab_key_id: kid}}\n", "one is there without the other"},
		"the binding's key in the file": {port + "tls: {acme: {" + dir + ", eab_key_id: kid, eab_mac_key: c2VjcmV0}}\n", "no reference to a secret"},
		"a relative hook":               {sub + "tls: {acme: {" + dir + ", dns_hook: hook.sh}}\n", "not an absolute path"},
		"HTTP on the port of HTTPS":     {"listen: {https: \":8443\", http: \":8443\"}\n", "two listeners cannot share a port"},
		"HTTP on the port of SSH":       {"listen: {ssh: \":2222\", http: \":2222\"}\n", "two listeners cannot share a port"},
	} {
		_, err := Load(t.Context(), Source{Path: write(t, tt.file)})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		case err != nil && strings.Contains(err.Error(), "c2VjcmV0"):
			t.Errorf("%s: the error shows the key", name)
		}
	}
	if c := Default(); c.Listen.HTTP != "" || c.TLS.ACME.Directory != "" {
		t.Errorf("by default plain HTTP is open or an authority is asked: %+v %+v", c.Listen, c.TLS.ACME)
	}
}
