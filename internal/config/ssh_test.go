package config

import (
	"strings"
	"testing"
)

// What is named there is written into the SSH configuration of everybody's
// machine: it must be a host and a port, and nothing that ssh would obey.
func TestThePublicAddressOfSSH(t *testing.T) {
	for _, good := range []string{"ssh.example.org:22", "192.0.2.7:2222", "[2001:db8::7]:22"} {
		if _, err := Load(t.Context(), Source{Path: write(t, "ssh: {public: \""+good+"\"}\n")}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"ssh.example.org", "ssh.example.org:0", "ssh.example.org:65536", "ssh.example.org:022", "ssh.example.org:ssh", ":22",
		"-oProxyCommand=x:22", "a b:22", "a\\nProxyCommand x:22", "https://ssh.example.org:22", "%h:22", "*:22",
	} {
		if _, err := Load(t.Context(), Source{Path: write(t, "ssh: {public: \""+bad+"\"}\n")}); err == nil || !strings.Contains(err.Error(), "ssh.public") {
			t.Errorf("%q: %v, want a refusal that names ssh.public", bad, err)
		}
	}
}
