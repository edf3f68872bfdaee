package rules_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/egress/rules"
)

func TestCanonicalHost(t *testing.T) {
	tests := []struct{ in, want string }{
		{"example.org", "example.org"},
		{"EXAMPLE.Org", "example.org"},
		{"example.org.", "example.org"},
		{"a_b.example.org", "a_b.example.org"},
		{"xn--mnchen-3ya.example.org", "xn--mnchen-3ya.example.org"},
		{"München.example.org", "xn--mnchen-3ya.example.org"},
		{"ｅｘａｍｐｌｅ.org", "example.org"},                 // full-width letters
		{"example。org", "example.org"},                 // ideographic full stop
		{"1.2.3.4.example.org", "1.2.3.4.example.org"}, // a name that begins like an address
		{"127.0.0.1.nip.io", "127.0.0.1.nip.io"},       // where it leads is checked later
		{strings.Repeat("a", 63) + ".org", strings.Repeat("a", 63) + ".org"},
	}
	for _, tt := range tests {
		if got, err := rules.CanonicalHost(tt.in); got != tt.want || err != nil {
			t.Errorf("CanonicalHost(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

// An attacker inside writes an address in every way in which some resolver or
// library would take it.
func TestNoNotationOfAnAddressIsAName(t *testing.T) {
	for _, in := range []string{
		"127.0.0.1", "169.254.169.254", "8.8.8.8", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001",
		"127.0.0.1.", "0", "0x", "0X7F.1", "1.2.3.0x4", "example.1", "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "256.256.256.256", "1.2.3.4.5",
		"[::1]", "::1", "[::]", "::ffff:127.0.0.1", "[::ffff:7f00:1]", "64:ff9b::7f00:1",
		"2002:7f00:1::", "fd00:ec2::254",
	} {
		if got, err := rules.CanonicalHost(in); !errors.Is(err, rules.ErrLiteral) {
			t.Errorf("CanonicalHost(%q) = %q, %v; want ErrLiteral", in, got, err)
		}
	}
	for _, in := range []string{
		"", ".", "..", "localhost", "metadata", "org", "example..org", ".example.org", "-a.example.org", "a-.example.org", "exa mple.org",
		"example.org:443", "example.org/x", "user@example.org", "exam\x00ple.org", "example.org\r\nX: y", "*.example.org", "example.org..",
		"[fe80::1%25eth0]", "fe80::1%eth0", "%31%32%37.0.0.1", "a\u200bb.example.org\u202e", "xn--a.example.org", "xn--.org", "exámple.org\xff",
		strings.Repeat("a", 64) + ".org", strings.Repeat("a.", 127) + "org", strings.Repeat("ä", 5000),
	} {
		if got, err := rules.CanonicalHost(in); err == nil {
			t.Errorf("CanonicalHost(%q) = %q; want an error", in, got)
		}
	}
}

func FuzzCanonicalHost(f *testing.F) {
	for _, s := range []string{"example.org", "0x7f.1", "[::1]", "München.de", "xn--mnchen-3ya.de", "a。b", "１.2.3.4", "a.b.", "\xff.org"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, err := rules.CanonicalHost(s)
		if err != nil {
			return
		}
		if again, err := rules.CanonicalHost(host); err != nil || again != host {
			t.Errorf("CanonicalHost(%q) = %q, and of that %q, %v", s, host, again, err)
		}
		if _, err := netip.ParseAddr(host); err == nil || len(host) > 253 || !strings.Contains(host, ".") || strings.HasSuffix(host, ".") {
			t.Errorf("CanonicalHost(%q) = %q, which is no name", s, host)
		}
	})
}

func addrs(texts ...string) (list []netip.Addr) {
	for _, s := range texts {
		list = append(list, netip.MustParseAddr(s))
	}
	return list
}

// Where a name may lead: the public internet, and nowhere else.
func TestGuard(t *testing.T) {
	var g rules.Guard
	for _, a := range addrs("8.8.8.8", "93.184.216.34", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "223.255.255.255", "2606:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888") {
		if err := g.Check(a); err != nil {
			t.Errorf("%v is refused: %v", a, err)
		}
	}
	for _, a := range addrs(
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.9", "169.254.1.1", "169.254.169.254",
		"172.16.0.1", "172.31.255.255", "192.168.1.1", "192.0.0.8", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.7", "203.0.113.9",
		"224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", "168.63.129.16", "100.100.100.200",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1", "2001::1", "2001:0:4136:e378::", "2001:10::1", "2001:20::1",
		"2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1", "fc00::1", "fd12:3456::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "5f00::1", "4000::1", "100::1",
	) {
		if err := g.Check(a); err == nil {
			t.Errorf("%v may be reached", a)
		}
	}
	if g.Check(netip.MustParseAddr("fe80::1%eth0")) == nil || g.Check(netip.Addr{}) == nil {
		t.Error("an address with a zone, or none, may be reached")
	}
}

// An organisation's mirror lies in a private network. Naming that network opens
// it, and neither this machine's own addresses nor what lies around it.
func TestGuardPrivate(t *testing.T) {
	prefixes := func(texts ...string) (list []netip.Prefix) {
		for _, s := range texts {
			list = append(list, netip.MustParsePrefix(s))
		}
		return list
	}
	tests := []struct {
		name    string
		private []netip.Prefix
		own     []netip.Addr
		ok, no  []netip.Addr
	}{
		{"a network", prefixes("10.20.0.0/16"), nil, addrs("10.20.3.4", "8.8.8.8"), addrs("10.21.0.1", "192.168.0.1", "127.0.0.1")},
		{"everything opens nothing", prefixes("0.0.0.0/0", "::/0"), nil, addrs("8.8.8.8"), addrs("10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00::1")},
		{"a wider network than the range opens nothing", prefixes("10.0.0.0/7"), nil, nil, addrs("10.0.0.1")},
		{"metadata stays shut", prefixes("169.254.0.0/16", "100.64.0.0/10", "fd00::/8"), nil, addrs("169.254.7.7", "100.64.0.1", "fd00::1"), addrs("169.254.169.254", "100.100.100.200", "fd00:ec2::254")},
		{"metadata stays shut by name", prefixes("169.254.169.254/32"), nil, nil, addrs("169.254.169.254")},
		{"this machine, in a public network", nil, addrs("93.184.216.34"), addrs("93.184.216.35"), addrs("93.184.216.34")},
		{"this machine, in an open private network", prefixes("10.20.0.0/16"), addrs("10.20.0.1"), addrs("10.20.0.2"), addrs("10.20.0.1")},
		{"this machine, by name", prefixes("10.20.0.1/32"), addrs("10.20.0.1"), addrs("10.20.0.1"), addrs("10.20.0.2")},
		{"loopback, by name", prefixes("127.0.0.0/8"), addrs("127.0.0.1"), addrs("127.0.0.1"), addrs("::1")},
		{"IPv4 inside IPv6 never", prefixes("::ffff:0:0/96", "64:ff9b::/96"), nil, nil, addrs("::ffff:10.0.0.1")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := rules.Guard{Private: tt.private, Own: tt.own}
			for _, a := range tt.ok {
				if err := g.Check(a); err != nil {
					t.Errorf("%v is refused: %v", a, err)
				}
			}
			for _, a := range tt.no {
				if g.Check(a) == nil {
					t.Errorf("%v may be reached", a)
				}
			}
		})
	}
}

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func ask(host string, port int, method string) rules.Ask {
	return rules.Ask{Host: host, Port: port, Method: method, UserID: "u1", User: "alice", WorkspaceID: "w1", Class: "ml", At: noon}
}

func TestDecide(t *testing.T) {
	set := rules.Set{Name: "s", Rules: []rules.Rule{
		{ID: "exact", Host: "files.example.org"},
		{ID: "wild", Host: "*.example.net", Ports: []int{443, 8443}},
		{ID: "read", Host: "plain.example.org", Methods: []string{"GET", "HEAD"}},
		{ID: "bobs", Host: "private.example.org", Users: []string{"bob"}},
		{ID: "night", Host: "night.example.org", Window: rules.Window{From: 22 * time.Hour, To: 6 * time.Hour}},
		{ID: "day", Host: "day.example.org", Window: rules.Window{From: 8 * time.Hour, To: 18 * time.Hour}, Limits: rules.Limits{Bytes: 5, Rate: 7}},
	}}
	tests := []struct {
		host   string
		port   int
		method string
		rule   string
		why    rules.Why
	}{
		{"files.example.org", 443, "", "s/exact", ""},
		{"files.example.org", 80, "POST", "s/exact", ""},
		{"files.example.org", 22, "", "s/exact", rules.BadPort},
		{"x.files.example.org", 443, "", "", rules.NoRule},
		{"example.org", 443, "", "", rules.NoRule},
		{"a.example.net", 443, "", "s/wild", ""},
		{"a.b.example.net", 8443, "", "s/wild", ""},
		{"example.net", 443, "", "", rules.NoRule},
		{"evilexample.net", 443, "", "", rules.NoRule},
		{"a.example.net.evil.org", 443, "", "", rules.NoRule},
		{"a.example.net", 80, "GET", "s/wild", rules.BadPort},
		{"plain.example.org", 80, "GET", "s/read", ""},
		{"plain.example.org", 80, "POST", "s/read", rules.BadMethod},
		{"plain.example.org", 80, "get", "s/read", rules.BadMethod},
		{"private.example.org", 443, "", "s/bobs", rules.OtherUser},
		{"night.example.org", 443, "", "s/night", rules.Closed},
		{"day.example.org", 443, "", "s/day", ""},
	}
	for _, tt := range tests {
		d := rules.Decide(set, nil, ask(tt.host, tt.port, tt.method))
		if d.Allowed != (tt.why == "") || d.Rule != tt.rule || d.Why != tt.why {
			t.Errorf("Decide(%s:%d %s) = %+v; want rule %q, why %q", tt.host, tt.port, tt.method, d, tt.rule, tt.why)
		}
	}
	if d := rules.Decide(set, nil, ask("day.example.org", 443, "")); !d.Until.Equal(noon.Add(6*time.Hour)) || d.Limits != (rules.Limits{Bytes: 5, Rate: 7}) {
		t.Errorf("a rule with hours and limits: %+v", d)
	}
	if d := rules.Decide(set, nil, ask("plain.example.org", 80, "")); !d.Allowed || !d.Checked {
		t.Errorf("a tunnel under a rule with methods: %+v; want one that is looked into", d)
	}
}

func TestWindowOverMidnight(t *testing.T) {
	set := rules.Set{Rules: []rules.Rule{{Host: "a.example.org", Window: rules.Window{From: 22 * time.Hour, To: 6 * time.Hour}}}}
	day := noon.Truncate(24 * time.Hour)
	for hour, want := range map[int]bool{0: true, 5: true, 6: false, 12: false, 21: false, 22: true, 23: true} {
		a := ask("a.example.org", 443, "")
		a.At = day.Add(time.Duration(hour) * time.Hour)
		d := rules.Decide(set, nil, a)
		if d.Allowed != want || want && !d.Until.After(a.At) {
			t.Errorf("at %d o'clock: %+v, want allowed = %v", hour, d, want)
		}
	}
}

// Each grant beside those for whom it is not.
func TestGrants(t *testing.T) {
	grant := func(scope bailey.GrantScope) bailey.EgressGrant {
		return bailey.EgressGrant{ID: "g", Scope: scope, UserID: "u1", WorkspaceID: "w1", Class: "ml", Host: "new.example.com", Port: 443, CreatedAt: noon, ExpiresAt: noon.Add(24 * time.Hour)}
	}
	asked := ask("new.example.com", 443, "")
	with := func(change func(*rules.Ask)) rules.Ask { a := asked; change(&a); return a }
	bob := with(func(a *rules.Ask) { a.UserID, a.User, a.WorkspaceID = "u2", "bob", "w2" })
	other := with(func(a *rules.Ask) { a.WorkspaceID = "w9" })
	class := with(func(a *rules.Ask) { a.Class = "gpu" })
	late := with(func(a *rules.Ask) { a.At = noon.Add(24 * time.Hour) })
	port := with(func(a *rules.Ask) { a.Port = 80 })
	host := with(func(a *rules.Ask) { a.Host = "x.new.example.com" })
	soon := with(func(a *rules.Ask) { a.At = noon.Add(rules.OnceFor) })
	used := grant(bailey.GrantOnce)
	used.UsedAt = noon
	nobody := grant(bailey.GrantDay)
	nobody.UserID = ""
	tests := []struct {
		name   string
		grant  bailey.EgressGrant
		ok, no []rules.Ask
	}{
		{"once", grant(bailey.GrantOnce), []rules.Ask{asked, soon}, []rules.Ask{bob, other, class, late, port, host}},
		{"once, used", used, []rules.Ask{asked}, []rules.Ask{bob, other, soon}},
		{"day", grant(bailey.GrantDay), []rules.Ask{asked, other}, []rules.Ask{bob, class, late, port, host}},
		{"class", grant(bailey.GrantClass), []rules.Ask{asked, other, bob}, []rules.Ask{class, late, port, host}},
		{"day, of nobody", nobody, nil, []rules.Ask{asked, bob}},
		{"no scope", grant(""), nil, []rules.Ask{asked}},
	}
	for _, tt := range tests {
		for _, a := range tt.ok {
			if d := rules.Decide(rules.Set{}, []bailey.EgressGrant{tt.grant}, a); !d.Allowed || d.Grant != "g" || d.Until.IsZero() {
				t.Errorf("%s: %+v is refused: %+v", tt.name, a, d)
			}
		}
		for _, a := range tt.no {
			if d := rules.Decide(rules.Set{}, []bailey.EgressGrant{tt.grant}, a); d.Allowed {
				t.Errorf("%s: %+v is allowed", tt.name, a)
			}
		}
	}
}

func TestPresetsCanBeDecidedBy(t *testing.T) {
	for _, name := range []string{rules.PresetNone, rules.PresetML, rules.PresetMirrorOnly} {
		set, ok := rules.Preset(name)
		if !ok || set.Name != name || set.Title == "" {
			t.Errorf("Preset(%s) = %+v, %v", name, set, ok)
		}
		var ids []string
		for _, r := range set.Rules {
			if err := rules.CheckRule(r); err != nil {
				t.Errorf("preset %s: %v", name, err)
			}
			if slices.Contains(ids, r.ID) || r.Note == "" {
				t.Errorf("preset %s: rule %q is there twice, or says nothing", name, r.ID)
			}
			ids = append(ids, r.ID)
		}
		if (len(set.Rules) > 0) != (name == rules.PresetML) {
			t.Errorf("preset %s has %d rules", name, len(set.Rules))
		}
	}
	if _, ok := rules.Preset("all"); ok {
		t.Error("there is a preset that was never made")
	}
}

func TestCheckRule(t *testing.T) {
	for _, r := range []rules.Rule{
		{},
		{Host: "*"},
		{Host: "*.org"},
		{Host: "*."},
		{Host: "**.example.org"},
		{Host: "10.0.0.1"},
		{Host: "Example.org"},
		{Host: "example.org."},
		{Host: "localhost"},
		{Host: "example.org", Ports: []int{0}},
		{Host: "example.org", Ports: []int{65536}},
		{Host: "example.org", Limits: rules.Limits{Bytes: -1}},
		{Host: "example.org", Window: rules.Window{From: time.Hour, To: time.Hour}},
		{Host: "example.org", Window: rules.Window{From: 24 * time.Hour}},
	} {
		if rules.CheckRule(r) == nil {
			t.Errorf("CheckRule(%+v) = nil", r)
		}
	}
}
