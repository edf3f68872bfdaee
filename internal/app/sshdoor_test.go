package app

import (
	"net"
	"testing"
)

func TestWhereClientsFindSSH(t *testing.T) {
	at := &net.TCPAddr{IP: net.IPv4zero, Port: 2222}
	for _, tt := range []struct {
		console, public string
		host            string
		port            int
	}{
		{"https://lab.example.org:8443", "", "lab.example.org", 2222},
		{"https://lab.example.org", "ssh.example.org:22", "ssh.example.org", 22},
		{"https://lab.example.org", "[2001:db8::7]:22", "2001:db8::7", 22},
	} {
		d, err := sshDoorAt(tt.console, tt.public, at, nil)
		if err != nil || d.Host != tt.host || d.Port != tt.port {
			t.Errorf("console %s, public %q: %+v, %v; want %s port %d", tt.console, tt.public, d, err, tt.host, tt.port)
		}
	}
	if d, err := sshDoorAt("https://lab.example.org", "ssh.example.org", at, nil); err == nil {
		t.Errorf("a public address without a port: %+v", d)
	}
}
