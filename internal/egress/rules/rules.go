// Package rules decides what a workspace may reach: it compares a host, a port
// and a method with the rules of the workspace's class and with the grants that
// administrators gave, and says which of them allows it, until when and with
// what limits. What nothing allows is refused. It also knows which spellings
// are host names and which addresses nobody may be led to. It reads no clock
// and resolves nothing; the caller does.
package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
)

// A Rule allows one host, or the hosts below a domain. Empty lists allow
// everything of their sort, except Ports: no ports means 80 and 443.
type Rule struct {
	ID      string   // unique within its set; what the audit log names
	Host    string   // canonical, or "*." and a domain for every host below it, not the domain itself
	Ports   []int    // empty: 80 and 443
	Methods []string // of plain HTTP requests; a tunnel under such a rule must be TLS or HTTP
	Users   []string // names of users
	Window  Window   // when it holds; the zero Window is always
	Limits  Limits   // of one connection
	Note    string   // why it is there, in words
}

// Limits bound one connection. Zero fields are no limit.
type Limits struct {
	Bytes int64 // both ways together
	Rate  int64 // bytes per second, both ways together
}

// A Window is a time of day, from From to To since midnight, in the time zone
// of the time that is asked about. A window that ends before it begins goes
// over midnight. The zero Window is always.
type Window struct{ From, To time.Duration }

// open reports whether at lies in the window, and when that will change next;
// the zero time means never.
func (w Window) open(at time.Time) (ok bool, until time.Time) {
	if w == (Window{}) {
		return true, time.Time{}
	}
	day := func(offset int, since time.Duration) time.Time {
		// Through the calendar, not by adding hours: days are not all of 24.
		return time.Date(at.Year(), at.Month(), at.Day()+offset, int(since/time.Hour), int(since%time.Hour/time.Minute), 0, 0, at.Location())
	}
	for _, offset := range []int{-1, 0, 1} {
		from, to := day(offset, w.From), day(offset, w.To)
		if w.To <= w.From {
			to = day(offset+1, w.To)
		}
		if at.Before(from) {
			return false, from
		}
		if at.Before(to) {
			return true, to
		}
	}
	return false, at.Add(time.Hour) // not reached: tomorrow's window begins after now
}

// A Set is the rules that a class has, under a name.
type Set struct {
	Name  string
	Title string // what people read at launch
	Rules []Rule
}

// An Ask is what somebody inside wants to do.
type Ask struct {
	Host        string // by [CanonicalHost]
	Port        int
	Method      string // of a plain HTTP request; empty: a tunnel, of which only the ends are seen
	UserID      string
	User        string // the user's name
	WorkspaceID string
	Class       string
	At          time.Time // in the server's time zone
}

// A Decision is the answer to an [Ask]. The zero Decision is a refusal.
type Decision struct {
	Allowed bool
	Rule    string // "set/rule" or "grant/id" that allows it; of a refusal, the rule that almost does, or empty
	Why     Why    // of a refusal
	Limits  Limits
	Checked bool      // the rule limits methods: a tunnel must be TLS, or HTTP that is read
	Grant   string    // id of the grant that allows it; empty: a rule does
	Until   time.Time // ask again then; zero: only when rules or grants change
}

// A Why says what a refused ask lacks.
type Why string

// The reasons of a refusal, the most telling last.
const (
	NoRule    Why = "no_rule"    // nothing names the host
	OtherUser Why = "other_user" // a rule does, for somebody else
	BadMethod Why = "method"     // a rule does, for other methods
	BadPort   Why = "port"       // a rule does, for other ports
	Closed    Why = "hours"      // a rule does, at other times
)

// CheckRule returns nil when r can be decided by. The error says what is wrong
// with it in words for an administrator.
func CheckRule(r Rule) error {
	host, wild := strings.CutPrefix(r.Host, "*.")
	canonical, err := CanonicalHost(host)
	switch {
	case err != nil:
		return fmt.Errorf("host %q: %w", shorten(r.Host), err)
	case canonical != host:
		return fmt.Errorf("host %q is not in its canonical form, %q", shorten(r.Host), canonical)
	case wild && !strings.Contains(host, "."):
		return fmt.Errorf("host %q takes in a whole top-level domain", shorten(r.Host))
	}
	for _, p := range r.Ports {
		if p < 1 || p > 65535 {
			return fmt.Errorf("%d is not a port", p)
		}
	}
	if r.Limits.Bytes < 0 || r.Limits.Rate < 0 {
		return fmt.Errorf("a limit of %q is negative", r.Host)
	}
	const day = 24 * time.Hour
	if w := r.Window; w != (Window{}) && (w.From < 0 || w.To < 0 || w.From >= day || w.To >= day || w.From == w.To) {
		return fmt.Errorf("the hours of %q are not two different times of a day", r.Host)
	}
	return nil
}

// Decide answers an ask by a class's set and the grants, of which it uses those
// that are the asker's. The first rule that allows wins, then the first grant.
func Decide(set Set, grants []bailey.EgressGrant, ask Ask) Decision {
	best := Decision{Why: NoRule}
	for _, r := range set.Rules {
		if !Match(r.Host, ask.Host) {
			continue
		}
		name := set.Name + "/" + r.ID
		open, until := r.Window.open(ask.At)
		why := Why("")
		switch {
		case len(r.Users) > 0 && !slices.Contains(r.Users, ask.User):
			why = OtherUser
		case ask.Method != "" && len(r.Methods) > 0 && !slices.Contains(r.Methods, ask.Method):
			why = BadMethod
		case !hasPort(r.Ports, ask.Port):
			why = BadPort
		case !open:
			why = Closed
		default:
			return Decision{Allowed: true, Rule: name, Limits: r.Limits, Checked: len(r.Methods) > 0, Until: until}
		}
		if telling(why) > telling(best.Why) {
			best = Decision{Why: why, Rule: name}
		}
	}
	for _, g := range grants {
		if GrantHolds(g, ask) {
			return Decision{Allowed: true, Rule: "grant/" + g.ID, Grant: g.ID, Until: GrantEnds(g)}
		}
	}
	return best
}

func telling(w Why) int {
	return slices.Index([]Why{NoRule, OtherUser, BadMethod, BadPort, Closed}, w)
}

func hasPort(ports []int, port int) bool {
	if len(ports) == 0 {
		return port == 80 || port == 443
	}
	return slices.Contains(ports, port)
}

// Match reports whether a canonical host is one that a rule's or grant's host
// names: the same, or below the domain after "*.".
func Match(pattern, host string) bool {
	if domain, wild := strings.CutPrefix(pattern, "*"); wild {
		// domain begins with its dot, so evil-example.org is not below example.org.
		return len(host) > len(domain) && strings.HasPrefix(domain, ".") && strings.HasSuffix(host, domain)
	}
	return pattern != "" && pattern == host
}

// OnceFor is how long a grant of scope once holds from its first connection.
const OnceFor = 10 * time.Minute

// GrantEnds returns when g ends by itself.
func GrantEnds(g bailey.EgressGrant) time.Time {
	if g.Scope == bailey.GrantOnce && !g.UsedAt.IsZero() {
		if end := g.UsedAt.Add(OnceFor); end.Before(g.ExpiresAt) {
			return end
		}
	}
	return g.ExpiresAt
}

// GrantHolds reports whether g allows what is asked. A grant that does not say
// for whom it is holds for nobody.
func GrantHolds(g bailey.EgressGrant, ask Ask) bool {
	if g.Class == "" || g.Class != ask.Class || g.Port != ask.Port || !Match(g.Host, ask.Host) || !ask.At.Before(GrantEnds(g)) {
		return false
	}
	switch g.Scope {
	case bailey.GrantOnce:
		return g.WorkspaceID != "" && g.WorkspaceID == ask.WorkspaceID && g.UserID == ask.UserID
	case bailey.GrantDay:
		return g.UserID != "" && g.UserID == ask.UserID
	case bailey.GrantClass:
		return true
	}
	return false
}

// shorten keeps a stranger's text short; callers quote it with %q.
func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
