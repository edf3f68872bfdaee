package config

import (
	"fmt"

	"github.com/baileyhq/bailey/internal/edge/peer"
)

// Proxies says whose word is taken about who is calling.
type Proxies struct {
	Trusted  []string `yaml:"trusted" example:"[192.0.2.10]" doc:"Addresses and networks of reverse proxies that put the caller's address into a header. They must pass the Host header on as it was sent, and speak TLS to the server. Networks wider than a /8 are refused: everybody is not a proxy."`
	Header   string   `yaml:"header" enum:"x-forwarded-for,forwarded" doc:"The header that they put it into, the one of the two that they set themselves: the other may be the caller's own invention. Of its entries the right-most that is not trusted itself counts."`
	Protocol []string `yaml:"protocol" example:"[192.0.2.11]" doc:"Addresses and networks of load balancers that begin each connection with a PROXY protocol header, version 1 or 2, on the HTTPS and the SSH port. A connection of theirs without one is refused; the header of anybody else too."`
}

// checkProxies refuses lists that trust everybody.
func (d *decoder) checkProxies() {
	for _, list := range []struct {
		at    string
		texts []string
	}{{"proxies.trusted", d.cfg.Proxies.Trusted}, {"proxies.protocol", d.cfg.Proxies.Protocol}} {
		for i, text := range list.texts {
			at := fmt.Sprintf("%s[%d]", list.at, i)
			if d.broken(at) {
				continue
			}
			if _, err := peer.ParseTrust([]string{text}); err != nil {
				d.wrong([]string{at}, err.Error(), "whoever is listed can be anybody: the limits on sign-ins, the allow-lists and the journal go by what they say",
					"the proxies' own addresses: "+list.at+": [192.0.2.10]")
			}
		}
	}
}

// HeaderTrust returns whose header is believed.
func (p Proxies) HeaderTrust() (peer.Trust, error) { return peer.ParseTrust(p.Trusted) }

// ProtocolTrust returns who speaks the PROXY protocol.
func (p Proxies) ProtocolTrust() (peer.Trust, error) { return peer.ParseTrust(p.Protocol) }
