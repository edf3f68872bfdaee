package external_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/external"
)

func TestDecide(t *testing.T) {
	rules := external.Rules{
		Allowed: []string{"/research"},
		Groups:  []external.GroupRule{{From: "/research", To: "vision"}, {From: "/big", To: "large"}},
		Roles:   []external.RoleRule{{From: "/ops", Role: bailey.RoleAdmin}, {From: "/audit", Role: bailey.RoleAuditor}},
	}
	tests := []struct {
		name    string
		groups  []string
		allowed bool
		role    bailey.Role
		want    []string
	}{
		{"a member", []string{"/research"}, true, bailey.RoleUser, []string{"vision"}},
		{"in two", []string{"/big", "/research", "/other"}, true, bailey.RoleUser, []string{"large", "vision"}},
		{"no group", nil, false, bailey.RoleUser, []string{}},
		{"another group", []string{"/sales"}, false, bailey.RoleUser, []string{}},
		{"another case is another group", []string{"/Research", "/OPS"}, false, bailey.RoleUser, []string{}},
		{"part of a name", []string{"/research/guests", "research"}, false, bailey.RoleUser, []string{}},
		{"a role is no admission", []string{"/ops"}, false, bailey.RoleAdmin, []string{}},
		{"an administrator", []string{"/research", "/audit", "/ops"}, true, bailey.RoleAdmin, []string{"vision"}},
		{"an auditor", []string{"/audit", "/research"}, true, bailey.RoleAuditor, []string{"vision"}},
		{"the empty name", []string{""}, false, bailey.RoleUser, []string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := rules.Decide(tt.groups)
			if g.Allowed != tt.allowed || g.Role != tt.role || !slices.Equal(g.Groups, tt.want) {
				t.Errorf("Decide(%q) = %+v, want allowed %v, %s, %q", tt.groups, g, tt.allowed, tt.role, tt.want)
			}
		})
	}
}

// Nobody is let in, and nobody becomes an administrator, by what was left out.
func TestNothingSaidNothingGiven(t *testing.T) {
	if g := (external.Rules{}).Decide([]string{"admin", "wheel", ""}); g.Allowed || g.Role != bailey.RoleUser {
		t.Errorf("without rules: %+v", g)
	}
	if g := (external.Rules{Everyone: true, Default: bailey.RoleAdmin}).Decide(nil); g.Role != bailey.RoleUser {
		t.Errorf("a default of admin gives %s", g.Role)
	}
	if g := (external.Rules{Everyone: true, Roles: []external.RoleRule{{"", bailey.RoleAdmin}, {"x", "superuser"}}}).Decide([]string{"", "x"}); g.Role != bailey.RoleUser {
		t.Errorf("an empty group or a role that is none gives %s", g.Role)
	}
}

// Without rules for groups, those with a name of ours are taken over as they
// stand: folding case would make two groups one.
func TestGroupsThatHaveOurNames(t *testing.T) {
	g := external.Rules{Everyone: true}.Decide([]string{"vision", "Vision", "/speech", "a b", "x--y", "nlp", "nlp"})
	if !slices.Equal(g.Groups, []string{"nlp", "vision"}) {
		t.Errorf("groups = %q", g.Groups)
	}
	many := make([]string, 200)
	for i := range many {
		many[i] = "g" + strings.Repeat("a", i/26) + string(rune('a'+i%26))
	}
	if g := (external.Rules{Everyone: true}).Decide(many); len(g.Groups) != external.MaxGroups {
		t.Errorf("%d groups", len(g.Groups))
	}
}

func TestMerge(t *testing.T) {
	got := external.Merge([]string{"by-hand", "old", "kept"}, []string{"old", "kept"}, []string{"kept", "new"})
	if !slices.Equal(got, []string{"by-hand", "kept", "new"}) {
		t.Errorf("Merge = %q", got)
	}
	for _, tt := range []struct{ has, gave, gives, want bailey.Role }{
		{bailey.RoleUser, bailey.RoleUser, bailey.RoleAdmin, bailey.RoleAdmin},
		{bailey.RoleAdmin, bailey.RoleAdmin, bailey.RoleUser, bailey.RoleUser},
		{bailey.RoleAuditor, bailey.RoleUser, bailey.RoleUser, bailey.RoleAuditor}, // by hand
		{bailey.RoleUser, bailey.RoleAdmin, bailey.RoleAdmin, bailey.RoleUser},     // taken away by hand
	} {
		if got := external.MergeRole(tt.has, tt.gave, tt.gives); got != tt.want {
			t.Errorf("MergeRole(%s, %s, %s) = %s, want %s", tt.has, tt.gave, tt.gives, got, tt.want)
		}
	}
}

func TestNames(t *testing.T) {
	for login, want := range map[string]string{
		"alice": "alice", "Alice": "alice", "a.smith": "a-smith", "alice@corp.example": "alice", `CORP\alice`: "alice",
		"a@evil@corp": "a", "José Álvarez": "jose-alvarez", "42": "u42", "_x_": "x", "a..b": "a-b", "Groß": "gross",
		"ALICE": "alice", "abcdefghijklmnopqrstuvwxyz0123456789": "abcdefghijklmnopqrstuvwxyz0123",
	} {
		if got := external.Names(external.Person{Login: login, Issuer: "i", Subject: "s"})[0]; got != want {
			t.Errorf("Names(%q)[0] = %q, want %q", login, got, want)
		}
	}
	// Names of power are nobody's from outside, nor is nothing a name.
	for _, login := range []string{"admin", "Root", "system@corp", "", "@corp", "王小明", `x\`, "\x00", "бейли"} {
		got := external.Names(external.Person{Login: login, Issuer: "i", Subject: "s"})
		if !strings.Contains(got[0], "-") || len(got) != 3 {
			t.Errorf("Names(%q) = %q", login, got)
		}
	}
	// One login at two issuers is two people, whose names differ past the first.
	a := external.Names(external.Person{Login: "alice", Issuer: "https://a", Subject: "1"})
	b := external.Names(external.Person{Login: "alice", Issuer: "https://b", Subject: "1"})
	c := external.Names(external.Person{Login: "alice", Issuer: "https://b", Subject: "1"})
	if a[1] == b[1] || !slices.Equal(b, c) {
		t.Errorf("%q %q %q", a, b, c)
	}
}

// Whatever a directory calls somebody, it becomes names of ours, always the
// same, and none that stands for power here.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"alice", "a@evil@corp", `C\x`, "--", "ﬀ", "admin\u200b", "\xff\xfe", strings.Repeat("ä", 500)} {
		f.Add(s, "iss", "sub")
	}
	f.Fuzz(func(t *testing.T, login, issuer, subject string) {
		p := external.Person{Login: login, Issuer: issuer, Subject: subject}
		got := external.Names(p)
		for _, name := range got {
			if err := bailey.CheckName("user", name); err != nil {
				t.Errorf("Names(%q) has %q: %v", login, name, err)
			}
			if name == "admin" || name == "root" || name == "bailey" || name == "system" {
				t.Errorf("Names(%q) has %q", login, name)
			}
		}
		if len(got) < 3 || !slices.Equal(got, external.Names(p)) {
			t.Errorf("Names(%q) = %q, then %q", login, got, external.Names(p))
		}
	})
}

func TestCheckLogin(t *testing.T) {
	for _, ok := range []string{"alice", `CORP\alice`, "a@b", "*)(uid=*", "王"} {
		if !external.CheckLogin(ok) {
			t.Errorf("%q is refused", ok)
		}
	}
	for _, bad := range []string{"", " a", "a\x00", "a\nb", "\xff", strings.Repeat("a", 257), "a\u202eb", "a\x1b[2J"} {
		if external.CheckLogin(bad) {
			t.Errorf("%q passes", bad)
		}
	}
}
