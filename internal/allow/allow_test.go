package allow_test

import (
	"net/netip"
	"testing"

	"github.com/baileyhq/bailey/internal/allow"
)

func nets(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

func TestPermits(t *testing.T) {
	l := &allow.Lists{
		Everyone: nets("10.0.0.0/8", "2001:db8::/32"),
		Groups:   map[string][]netip.Prefix{"vision": nets("10.1.0.0/16"), "night": nets("10.0.0.0/9"), "nowhere": {}},
		Users:    map[string][]netip.Prefix{"root": nets("10.1.1.0/24")},
	}
	for _, tt := range []struct {
		name   string
		groups []string
		ip     string
		want   bool
	}{
		{"alice", nil, "10.200.0.1", true},
		{"alice", nil, "::ffff:10.200.0.1", true},
		{"alice", nil, "2001:db8::1", true},
		{"alice", nil, "192.0.2.1", false},
		{"alice", nil, "", false},
		{"bob", []string{"vision"}, "10.1.2.3", true},
		{"bob", []string{"vision"}, "10.2.2.3", false},
		{"bob", []string{"vision", "night"}, "10.1.2.3", true},
		{"bob", []string{"night", "vision"}, "10.2.2.3", false}, // a second group does not widen
		{"bob", []string{"other"}, "10.2.2.3", true},
		{"bob", []string{"nowhere"}, "10.1.1.1", false},
		{"root", nil, "10.1.1.9", true},
		{"root", []string{"vision"}, "10.1.2.9", false},
		{"Root", nil, "10.9.9.9", true}, // another person
	} {
		a, _ := netip.ParseAddr(tt.ip)
		if got := l.Permits(tt.name, tt.groups, a); got != tt.want {
			t.Errorf("Permits(%q, %v, %q) = %v, want %v", tt.name, tt.groups, tt.ip, got, tt.want)
		}
	}
	if !(*allow.Lists)(nil).Permits("alice", []string{"vision"}, netip.Addr{}) || !(&allow.Lists{}).Permits("alice", nil, netip.MustParseAddr("192.0.2.1")) {
		t.Error("without lists there is a restriction")
	}
}
