package agent

import (
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestParseRequest(t *testing.T) {
	tests := []struct {
		line  string
		addrs []string // nil: refused
	}{
		{"DIAL tcp 127.0.0.1:8888", []string{"127.0.0.1:8888"}},
		{"DIAL tcp 127.8.9.10:1", []string{"127.8.9.10:1"}},
		{"DIAL tcp [::1]:65535", []string{"[::1]:65535"}},
		{"DIAL tcp localhost:22", []string{"127.0.0.1:22", "[::1]:22"}},
		{"DIAL unix /tmp/a b.sock", []string{"/tmp/a b.sock"}},

		{"DIAL tcp 10.0.0.1:80", nil},
		{"DIAL tcp 169.254.169.254:80", nil},
		{"DIAL tcp [fe80::1]:80", nil},
		{"DIAL tcp 0.0.0.0:80", nil},
		{"DIAL tcp [::]:80", nil},
		{"DIAL tcp :80", nil},
		{"DIAL tcp 2130706433:80", nil},         // 127.0.0.1 as one number
		{"DIAL tcp 0177.0.0.1:80", nil},         // octal, or decimal 177
		{"DIAL tcp 127.0.0.01:80", nil},         //
		{"DIAL tcp 0x7f.0.0.1:80", nil},         //
		{"DIAL tcp 127.1:80", nil},              //
		{"DIAL tcp [::ffff:127.0.0.1]:80", nil}, // IPv4-mapped
		{"DIAL tcp [::ffff:7f00:1]:80", nil},    //
		{"DIAL tcp [::1%lo]:80", nil},
		{"DIAL tcp example.org:80", nil},
		{"DIAL tcp LOCALHOST:80", nil},
		{"DIAL tcp localhost.:80", nil},
		{"DIAL tcp localhost.example.org:80", nil},
		{"DIAL tcp 127.0.0.1.nip.io:80", nil},
		{"DIAL tcp 127.0.0.1:80@10.0.0.1:80", nil},
		{"DIAL tcp 127.0.0.1", nil},
		{"DIAL tcp 127.0.0.1:", nil},
		{"DIAL tcp 127.0.0.1:0", nil},
		{"DIAL tcp 127.0.0.1:080", nil},
		{"DIAL tcp 127.0.0.1:+80", nil},
		{"DIAL tcp 127.0.0.1:65536", nil},
		{"DIAL tcp 127.0.0.1:http", nil},
		{"DIAL tcp 127.0.0.1:80\r", nil},
		{"DIAL tcp 127.0.0.1:80 ", nil},
		{"DIAL tcp  127.0.0.1:80", nil},
		{"DIAL udp 127.0.0.1:80", nil},
		{"DIAL tcp4 127.0.0.1:80", nil},
		{"dial tcp 127.0.0.1:80", nil},
		{"DIAL unix relative.sock", nil},
		{"DIAL unix @abstract", nil},
		{"DIAL unix \x00abstract", nil},
		{"DIAL unix /tmp/../etc/x", nil},
		{"DIAL unix /tmp/a\nDIAL tcp 10.0.0.1:80", nil},
		{"DIAL unix /" + strings.Repeat("a", maxUnixPath), nil},
		{"DIAL unix", nil},
		{"DIAL", nil},
		{"PING ", nil},
		{"", nil},
	}
	for _, tt := range tests {
		req, err := parseRequest(tt.line)
		if (err == nil) != (tt.addrs != nil) || !slices.Equal(req.dial.addrs, tt.addrs) || req.ping {
			t.Errorf("parseRequest(%q) = %+v, %v; want addresses %q", tt.line, req, err, tt.addrs)
		}
	}
	if req, err := parseRequest("PING"); err != nil || !req.ping {
		t.Errorf(`parseRequest("PING") = %+v, %v; want a ping`, req, err)
	}
}

// FuzzParseRequest holds that whatever is let through is loopback by a
// second, independent reading.
func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{
		"PING", "DIAL tcp 127.0.0.1:8888", "DIAL tcp [::1]:1", "DIAL tcp localhost:22", "DIAL unix /tmp/x",
		"DIAL tcp 0177.0.0.1:80", "DIAL tcp [::ffff:127.0.0.1]:80", "DIAL tcp 2130706433:80", "DIAL unix @a", "DIAL tcp 127.0.0.1:80\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		req, err := parseRequest(line)
		if err != nil || req.ping {
			return
		}
		if len(req.dial.addrs) == 0 {
			t.Fatalf("parseRequest(%q) allows, but names no address", line)
		}
		for _, a := range req.dial.addrs {
			switch req.dial.network {
			case "tcp":
				ap, err := netip.ParseAddrPort(a)
				if err != nil || !ap.Addr().Unmap().IsLoopback() || ap.Port() == 0 {
					t.Errorf("parseRequest(%q) allows %q", line, a)
				}
			case "unix":
				if !path.IsAbs(a) || strings.ContainsAny(a, "\x00\r\n") || len(a) > maxUnixPath {
					t.Errorf("parseRequest(%q) allows path %q", line, a)
				}
			default:
				t.Errorf("parseRequest(%q) allows network %q", line, req.dial.network)
			}
		}
	})
}
