package config

import (
	"strings"
	"testing"
)

// Whoever trusts everybody believes whatever anybody says about who they are.
// Three products shipped that as a default; here it does not load.
func TestNobodyTrustsEverybody(t *testing.T) {
	for _, list := range []string{"trusted", "protocol"} {
		for _, net := range []string{"0.0.0.0/0", "::/0", "128.0.0.0/1", "::ffff:0:0/96", "10.0.0.1/8", "proxy.example.org"} {
			_, err := Load(t.Context(), Source{Path: write(t, "proxies: {"+list+": [\""+net+"\"]}\n")})
			if err == nil || !strings.Contains(err.Error(), "proxies."+list) {
				t.Errorf("proxies.%s: [%s]: %v, want a refusal", list, net, err)
			}
		}
		if _, err := Load(t.Context(), Source{Path: write(t, "proxies: {"+list+": [192.0.2.7, \"10.0.0.0/8\"]}\n")}); err != nil {
			t.Errorf("proxies.%s: %v", list, err)
		}
	}
	if p := Default().Proxies; len(p.Trusted)+len(p.Protocol) != 0 {
		t.Errorf("by default somebody is trusted: %+v", p)
	}
}
