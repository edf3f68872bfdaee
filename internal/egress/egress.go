// Package egress is the way out of workspaces: it takes the raw bytes of one
// connection from inside, reads what they ask for (HTTP CONNECT, a plain HTTP
// request or SOCKS5), and carries it to hosts that the rules of the workspace's
// class, or an administrator's grant, allow. It resolves names itself, connects
// only to addresses it has checked, and holds TLS to the name that was asked
// for, without opening it. What it refuses becomes a request to an
// administrator. Who is behind a connection is decided by the caller, which
// knows the socket it came in by; nothing said on it can change that.
package egress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress/rules"
	"github.com/baileyhq/bailey/internal/secret"
)

// Who is behind a connection. The caller knows it from the socket.
type Who struct {
	UserID      string
	User        string // the user's name
	WorkspaceID string
	Workspace   string // its name
	Run         string
	Class       string
}

// A Policy is what holds now for all workspaces. [Proxy.Apply] replaces it.
type Policy struct {
	Classes  map[string]string    // name of a class → name of its set; a class that is not here reaches nothing
	Sets     map[string]rules.Set // by name
	Mirrors  []rules.Rule         // allowed to every class above, before its own set
	Private  []netip.Prefix       // as in [rules.Guard]
	Upstream Upstream             // zero: connections are made directly
	Limits   Limits
	Lenient  bool // TLS without a server name, or with an encrypted one, passes; so does what is not TLS on port 443
}

// An Upstream is an HTTP proxy between this server and the internet.
type Upstream struct {
	URL      *url.URL // http or https, a host and perhaps a port; nil: none
	User     string
	Password secret.Value
}

// Limits bound what one workspace, and one user, may take.
type Limits struct {
	Connections int   // open at once per workspace; 0 means 256. A user has four times as many.
	Rate        int64 // bytes per second of one workspace, both ways together; 0: no limit
	Total       int64 // bytes per second of all together, shared evenly between the users who want some; 0: no limit
}

// A Store keeps what was asked for and what was granted.
type Store interface {
	// AskEgress adds r's Count to the request with the same UserID, Class, Host
	// and Port and sets its LastAt, WorkspaceID, Workspace and Method, or
	// inserts r. It returns what is stored then: the id of an older request
	// stays, and so does its state, except that one which was allowed is open
	// again: it would not be asked if the grant still held.
	AskEgress(ctx context.Context, r bailey.EgressRequest) (bailey.EgressRequest, error)
	// EgressRequests returns the requests of a user, or of all when userID is
	// empty, the last tried first.
	EgressRequests(ctx context.Context, userID string) ([]bailey.EgressRequest, error)
	// DecideEgress sets the state of a request and who decided it when, and
	// returns it. The error is of kind NotFound when there is none.
	DecideEgress(ctx context.Context, id string, state bailey.AskState, by string, at time.Time) (bailey.EgressRequest, error)
	// GrantEgress inserts a grant, or replaces the one with its id.
	GrantEgress(ctx context.Context, g bailey.EgressGrant) error
	// EgressGrants returns all grants, expired ones perhaps among them.
	EgressGrants(ctx context.Context) ([]bailey.EgressGrant, error)
	// RevokeEgress deletes a grant. The error is of kind NotFound when there is none.
	RevokeEgress(ctx context.Context, id string) error
}

// A Resolver finds the addresses of a name; [net.Resolver] is one. The name
// ends in a dot, so that no search list is tried.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// A Dialer connects to a checked address; [net.Dialer] is one.
type Dialer interface {
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// A Filter looks at what plain HTTP carries. Body returns a reader in the place
// of body, which may mask or fail; up says whether it leaves the workspace. It
// may be called concurrently.
type Filter interface {
	Body(ctx context.Context, who Who, host string, up bool, contentType string, body io.Reader) io.Reader
}

// Config is what a Proxy cannot invent. Zero fields mean what is said at them.
type Config struct {
	Store    Store          // required
	Audit    audit.Appender // required
	Log      *slog.Logger   // nil: nothing is logged
	Resolver Resolver       // nil: the host's, by Go's own code
	Dialer   Dialer         // nil: a net.Dialer
	Filter   Filter         // nil: plain HTTP bodies pass as they are

	// Own returns this machine's addresses; nil: those of its interfaces.
	Own func() ([]netip.Addr, error)

	// Fresh asks whether somebody proved lately enough who they are to change
	// anything here; nil: nobody is asked.
	Fresh func(actor bailey.Actor) error
}

// A Proxy serves the connections that come out of workspaces. It is safe for
// concurrent use.
type Proxy struct {
	cfg      Config
	log      *slog.Logger
	book     *book
	records  *records
	shares   *shares
	counters counters
	own      ownAddresses

	end     context.CancelFunc              // begins the end
	atEnd   func(func()) (stop func() bool) // calls a function then
	serving sync.WaitGroup                  // connections

	mu     sync.RWMutex // guards policy, live and closed
	policy Policy
	live   map[*flow]struct{}
	closed bool
}

// New returns a Proxy that allows nothing yet: [Proxy.Apply] tells it what. It
// reads the grants from the store.
func New(ctx context.Context, cfg Config) (*Proxy, error) {
	if cfg.Store == nil || cfg.Audit == nil {
		return nil, errors.New("egress: a store and a journal are needed")
	}
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	if cfg.Resolver == nil {
		cfg.Resolver = &net.Resolver{PreferGo: true}
	}
	if cfg.Dialer == nil {
		cfg.Dialer = &net.Dialer{}
	}
	p := &Proxy{cfg: cfg, log: cfg.Log, live: map[*flow]struct{}{}}
	p.own.read = cfg.Own
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	p.end = end
	p.atEnd = func(f func()) func() bool { return context.AfterFunc(life, f) }
	p.shares = newShares()
	p.book = newBook(cfg.Store, cfg.Log)
	p.records = newRecords(cfg.Audit, cfg.Log, &p.counters)
	if err := p.book.load(ctx); err != nil {
		return nil, fmt.Errorf("egress: %w", err)
	}
	return p, nil
}

// Apply makes policy hold from now on, and cuts within a second what it no
// longer allows. A policy with a rule that cannot be decided by is refused as a
// whole, and the one before stays.
func (p *Proxy) Apply(policy Policy) error {
	for _, name := range slices.Sorted(maps.Keys(policy.Sets)) {
		for _, r := range policy.Sets[name].Rules {
			if err := rules.CheckRule(r); err != nil {
				return fmt.Errorf("egress: set %s: rule %s: %w", name, r.ID, err)
			}
		}
	}
	for _, r := range policy.Mirrors {
		if err := rules.CheckRule(r); err != nil {
			return fmt.Errorf("egress: mirror %s: %w", r.ID, err)
		}
	}
	for _, class := range slices.Sorted(maps.Keys(policy.Classes)) {
		if _, ok := policy.Sets[policy.Classes[class]]; !ok {
			return fmt.Errorf("egress: class %s: there is no set %q", class, policy.Classes[class])
		}
	}
	if u := policy.Upstream.URL; u != nil && (u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "") {
		return errors.New("egress: the upstream proxy is not http:// or https:// and a host")
	}
	policy.Limits.Connections = cmp.Or(policy.Limits.Connections, defaultConnections)
	p.mu.Lock()
	p.policy = policy
	p.mu.Unlock()
	p.shares.limit(policy.Limits)
	p.recheck()
	return nil
}

// Refresh reads the grants again, for when somebody else has changed them, and
// cuts what no longer is granted.
func (p *Proxy) Refresh(ctx context.Context) error {
	if err := p.book.load(ctx); err != nil {
		return fmt.Errorf("egress: %w", err)
	}
	p.recheck()
	return nil
}

// Rules returns the set that a class has, the mirrors first, and whether the
// class reaches anything at all.
func (p *Proxy) Rules(class string) (rules.Set, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	name, ok := p.policy.Classes[class]
	set := p.policy.Sets[name]
	set.Rules = append(slices.Clone(p.policy.Mirrors), set.Rules...)
	return set, ok
}

// Classes returns the names of the classes that have a set, sorted.
func (p *Proxy) Classes() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Sorted(maps.Keys(p.policy.Classes))
}

// Decide says what would be answered to somebody, without connecting and
// without asking anybody. method is empty for a tunnel. The error is of kind
// Invalid when host is no name that could be allowed.
func (p *Proxy) Decide(who Who, host string, port int, method string) (rules.Decision, error) {
	canonical, err := rules.CanonicalHost(host)
	if err != nil || port < 1 || port > 65535 {
		return rules.Decision{}, &bailey.Error{
			Kind: bailey.Invalid, Msg: fmt.Sprintf("%.80q, port %d, can never be reached", host, port),
			Hint: "give a host name, such as files.example.org, and a port; addresses are never allowed", Cause: err,
		}
	}
	return p.decide(who, canonical, port, method), nil
}

// decide asks the rules and the grants.
func (p *Proxy) decide(who Who, host string, port int, method string) rules.Decision {
	set, ok := p.Rules(who.Class)
	if !ok {
		return rules.Decision{Why: rules.NoRule}
	}
	return rules.Decide(set, p.book.grantsOf(who.Class), rules.Ask{
		Host: host, Port: port, Method: method,
		UserID: who.UserID, User: who.User, WorkspaceID: who.WorkspaceID, Class: who.Class, At: time.Now(),
	})
}

// Close cuts every connection, waits for them and writes what is not recorded
// yet. Serve returns at once afterwards.
func (p *Proxy) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	for f := range p.live {
		f.cut(errShutdown)
	}
	p.mu.Unlock()
	p.end()
	p.serving.Wait()
	p.records.flush(ctx)
	p.book.flush(ctx)
	return nil
}
