// Package external says what a company's directory means here: whether the
// person it vouches for may come in, under which user name, and which role and
// groups that gives. It decides from what the directory said and what the
// configuration wants of it; it asks nobody and stores nothing.
package external

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/baileyhq/bailey"
)

// A Person is somebody whom an identity provider or a directory vouches for.
// Who they are is Issuer and Subject together, and nothing else: a login, an
// e-mail address or a name may belong to another person tomorrow.
type Person struct {
	Source  string   // "oidc:NAME" or "ldap:NAME", by the name in the configuration
	Issuer  string   // the provider's issuer URL; for a directory its Source
	Subject string   // what the issuer never gives to another person
	Login   string   // what they are called there; for a user name and for people to read
	Groups  []string // as the source names them
	Factors bool     // the source says that a second factor was used
}

// Rules is what the configuration wants of a source. The zero value lets nobody
// in.
type Rules struct {
	Everyone bool     // whoever has an account there may come in
	Allowed  []string // or the members of one of these groups

	Groups  []GroupRule // which groups mean what here; none: those that have a name of ours
	Roles   []RoleRule  // which groups give more than Default
	Default bailey.Role // empty means user; never admin
	Create  bool        // make an account for who has none

	// Same reports whether a group that the source named is the one that the
	// configuration means. Nil means that the two texts are equal.
	Same func(meant, group string) bool
	// Name returns the name of ours that a group has without a rule; "" for
	// none. Nil means the group's own name, if it is one.
	Name func(group string) string
}

// A GroupRule makes members of From, there, members of To, here.
type GroupRule struct{ From, To string }

// A RoleRule gives a role to members of a group.
type RoleRule struct {
	From string
	Role bailey.Role
}

// A Grant is what the rules make of somebody.
type Grant struct {
	Allowed bool // they may come in at all
	Role    bailey.Role
	Groups  []string // sorted; at most [MaxGroups]
}

// MaxGroups is how many groups a source can give one user.
const MaxGroups = 64

// Decide returns what somebody in these groups gets. Nobody becomes an
// administrator but by a rule that says so.
func (r Rules) Decide(groups []string) Grant {
	g := Grant{Allowed: r.Everyone, Role: cmp.Or(r.Default, bailey.RoleUser), Groups: []string{}}
	if g.Role == bailey.RoleAdmin || !g.Role.Valid() {
		g.Role = bailey.RoleUser
	}
	in := func(meant string) bool {
		return meant != "" && slices.ContainsFunc(groups, func(group string) bool { return r.same(meant, group) })
	}
	g.Allowed = g.Allowed || slices.ContainsFunc(r.Allowed, in)
	for _, rule := range r.Roles {
		if in(rule.From) && rank(rule.Role) > rank(g.Role) {
			g.Role = rule.Role
		}
	}
	for _, rule := range r.Groups {
		if in(rule.From) {
			g.Groups = append(g.Groups, rule.To)
		}
	}
	if len(r.Groups) == 0 {
		for _, group := range groups {
			if name := r.name(group); name != "" {
				g.Groups = append(g.Groups, name)
			}
		}
	}
	slices.Sort(g.Groups)
	g.Groups = slices.Compact(g.Groups)
	g.Groups = g.Groups[:min(len(g.Groups), MaxGroups)]
	return g
}

func (r Rules) same(meant, group string) bool {
	if r.Same != nil {
		return r.Same(meant, group)
	}
	return meant == group
}

func (r Rules) name(group string) string {
	if r.Name != nil {
		group = r.Name(group)
	}
	if bailey.CheckName("group", group) != nil {
		return ""
	}
	return group
}

// rank orders the roles; what is no role is below all.
func rank(r bailey.Role) int {
	return slices.Index([]bailey.Role{bailey.RoleUser, bailey.RoleAuditor, bailey.RoleAdmin}, r)
}

// Merge returns the groups of an account after its source gave others than
// before: what an administrator added by hand stays.
func Merge(have, gave, gives []string) []string {
	out := slices.DeleteFunc(slices.Clone(have), func(g string) bool { return slices.Contains(gave, g) })
	out = append(out, gives...)
	slices.Sort(out)
	out = slices.Compact(out)
	if out == nil {
		out = []string{}
	}
	return out
}

// MergeRole returns the role of an account after its source gave another than
// before. A role that somebody set by hand since then stays.
func MergeRole(has, gave, gives bailey.Role) bailey.Role {
	if has == gave {
		return gives
	}
	return has
}

// maxLogin is how long a name is that somebody types to sign in, in bytes.
const maxLogin = 256

// CheckLogin reports whether the text may be asked for in a directory at all.
func CheckLogin(login string) bool {
	return login != "" && len(login) <= maxLogin && utf8.ValidString(login) && strings.TrimSpace(login) == login &&
		!strings.ContainsFunc(login, func(r rune) bool { return !unicode.IsPrint(r) })
}
