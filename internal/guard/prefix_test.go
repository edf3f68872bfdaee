package guard_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/guard"
)

func TestPrefix(t *testing.T) {
	tests := []struct{ ip, want string }{
		{"203.0.113.9", "203.0.113.9/32"},
		{"::ffff:203.0.113.9", "203.0.113.9/32"},
		{"::ffff:cb00:7109", "203.0.113.9/32"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"2001:DB8:1:2::ffff", "2001:db8:1:2::/64"},
		{"fe80::1%eth0", "fe80::/64"},
		{"::1", "::/64"},
		{"127.0.0.1", "127.0.0.1/32"},
		{"", "unknown"},
		{"@", "unknown"},
		{"203.0.113.9:443", "unknown"},
		{"203.0.113.09", "unknown"},
		{"1.2.3", "unknown"},
		{"example.org", "unknown"},
	}
	for _, tt := range tests {
		if got := guard.Prefix(tt.ip); got != tt.want {
			t.Errorf("Prefix(%q) = %q, want %q", tt.ip, got, tt.want)
		}
	}
}

func FuzzPrefix(f *testing.F) {
	for _, s := range []string{"203.0.113.9", "::ffff:1.2.3.4", "2001:db8::1", "fe80::1%a/b", "", "::", "1.2.3.4.5", "%", "::%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ip string) {
		got := guard.Prefix(ip)
		if got == "unknown" {
			if _, err := netip.ParseAddr(ip); err == nil {
				t.Errorf("Prefix(%q) = unknown, but it is an address", ip)
			}
			return
		}
		p, err := netip.ParsePrefix(got)
		if err != nil || p.Masked() != p {
			t.Fatalf("Prefix(%q) = %q, want a masked prefix", ip, got)
		}
		a, _ := netip.ParseAddr(ip)
		if !p.Contains(a.Unmap().WithZone("")) || strings.ContainsAny(got, "%") {
			t.Errorf("Prefix(%q) = %q does not hold the address", ip, got)
		}
		if again := guard.Prefix(p.Addr().String()); again != got {
			t.Errorf("Prefix(%q) = %q but that prefix's own address gives %q", ip, got, again)
		}
	})
}
