package egress

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/egress/rules"
	"github.com/baileyhq/bailey/internal/policy"
)

const (
	askEvery    = 10 * time.Second // the same ask is written at most this often
	maxAsks     = 100              // open requests of one user; who tries more hosts is refused without a request
	maxPending  = 4096             // asks in sight
	storeLimit  = 5 * time.Second  // patience with the store
	onceWithin  = 24 * time.Hour   // a grant for once is used within, or gone
	dayFor      = 24 * time.Hour
	classFor    = 90 * 24 * time.Hour
	maxGrantFor = 366 * 24 * time.Hour
)

// A book knows the grants, and turns what was refused into requests: the first
// ask of its sort is stored at once, and what follows within ten seconds is
// stored as a count.
type book struct {
	store Store
	log   *slog.Logger

	mu     sync.RWMutex                    // guards the rest
	grants map[string][]bailey.EgressGrant // by class; slices are replaced, never changed
	asks   map[askKey]*ask
	open   map[string]int // requests of a user that were stored, about
	ended  bool
}

type askKey struct {
	user, class, host string
	port              int
}

// An ask is a request as far as it is in sight.
type ask struct {
	request bailey.EgressRequest // Count is what is not stored yet
	timer   *time.Timer          // stores the count, or forgets; never nil
}

func newBook(store Store, log *slog.Logger) *book {
	return &book{store: store, log: log, grants: map[string][]bailey.EgressGrant{}, asks: map[askKey]*ask{}, open: map[string]int{}}
}

// load reads the grants and counts the open requests.
func (b *book) load(ctx context.Context) error {
	list, err := b.store.EgressGrants(ctx)
	if err != nil {
		return fmt.Errorf("read the grants: %w", err)
	}
	asked, err := b.store.EgressRequests(ctx, "")
	if err != nil {
		return fmt.Errorf("read the requests: %w", err)
	}
	grants := map[string][]bailey.EgressGrant{}
	for _, g := range list {
		grants[g.Class] = append(grants[g.Class], g)
	}
	open := map[string]int{}
	for _, r := range asked {
		if r.State == bailey.AskOpen {
			open[r.UserID]++
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.grants, b.open = grants, open
	return nil
}

func (b *book) grantsOf(class string) []bailey.EgressGrant {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.grants[class]
}

// put takes a stored grant into account, or out of it.
func (b *book) put(g bailey.EgressGrant, gone bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(b.grants[g.Class]), func(old bailey.EgressGrant) bool { return old.ID == g.ID })
	if !gone {
		list = append(list, g)
	}
	b.grants[g.Class] = list
}

// use notes the first connection of a grant for once. That must be stored
// before the connection is made: a restart would give the grant new life.
func (b *book) use(ctx context.Context, class, id string) error {
	for _, g := range b.grantsOf(class) {
		if g.ID != id || g.Scope != bailey.GrantOnce || !g.UsedAt.IsZero() {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, storeLimit)
		defer cancel()
		g.UsedAt = time.Now().UTC()
		if err := b.store.GrantEgress(ctx, g); err != nil {
			return fmt.Errorf("use grant %s: %w", id, err)
		}
		b.put(g, false)
	}
	return nil
}

// note turns a refusal into a request and returns its state: open when an
// administrator has not answered, denied when they said no, and empty when the
// user has asked for too much already or the store does not answer.
func (b *book) note(ctx context.Context, who Who, host string, port int, method string) bailey.AskState {
	now := time.Now().UTC()
	key := askKey{who.UserID, who.Class, host, port}
	r := bailey.EgressRequest{
		ID: bailey.NewID(), UserID: who.UserID, User: who.User, WorkspaceID: who.WorkspaceID, Workspace: who.Workspace,
		Class: who.Class, Host: host, Port: port, Method: method, Count: 1, FirstAt: now, LastAt: now, State: bailey.AskOpen,
	}
	b.mu.Lock()
	if seen := b.asks[key]; seen != nil {
		seen.request.Count++
		seen.request.LastAt, seen.request.WorkspaceID, seen.request.Workspace, seen.request.Method = now, who.WorkspaceID, who.Workspace, method
		state := seen.request.State
		b.mu.Unlock()
		return state
	}
	if b.ended || b.open[who.UserID] >= maxAsks || len(b.asks) >= maxPending {
		b.mu.Unlock()
		return ""
	}
	// In sight before it is stored: a hundred tries at once are one statement.
	seen := &ask{request: r}
	seen.request.Count = 0
	ctx = context.WithoutCancel(ctx)
	seen.timer = time.AfterFunc(askEvery, func() { b.settle(ctx, key) })
	b.asks[key] = seen
	b.mu.Unlock()
	stored, ok := b.write(ctx, r)
	if !ok {
		return ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	seen.request.State = stored.State
	if stored.ID == r.ID {
		b.open[who.UserID]++
	}
	return stored.State
}

// write stores a request.
func (b *book) write(ctx context.Context, r bailey.EgressRequest) (bailey.EgressRequest, bool) {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	stored, err := b.store.AskEgress(ctx, r)
	if err != nil {
		b.log.ErrorContext(ctx, "egress request not stored", slog.String("user", r.UserID), slog.String("error", err.Error()))
		return r, false
	}
	return stored, true
}

// settle stores what was only counted, and forgets what was not tried again.
func (b *book) settle(ctx context.Context, key askKey) {
	b.mu.Lock()
	seen := b.asks[key]
	if seen == nil || b.ended {
		b.mu.Unlock()
		return
	}
	r := seen.request
	if r.Count == 0 {
		delete(b.asks, key)
		b.mu.Unlock()
		return
	}
	seen.request.Count = 0
	seen.timer.Reset(askEvery)
	b.mu.Unlock()
	if stored, ok := b.write(ctx, r); ok {
		b.mu.Lock()
		seen.request.State = stored.State
		b.mu.Unlock()
	}
}

// answered takes an administrator's answer into account at once.
func (b *book) answered(r bailey.EgressRequest, was bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if seen := b.asks[askKey{r.UserID, r.Class, r.Host, r.Port}]; seen != nil {
		seen.request.State = r.State
	}
	if was && b.open[r.UserID] > 0 {
		b.open[r.UserID]--
	}
}

// flush stores every count and stops the timers.
func (b *book) flush(ctx context.Context) {
	b.mu.Lock()
	b.ended = true
	var rest []bailey.EgressRequest
	for _, seen := range b.asks {
		seen.timer.Stop()
		if seen.request.Count > 0 {
			rest = append(rest, seen.request)
		}
	}
	clear(b.asks)
	b.mu.Unlock()
	for _, r := range rest {
		b.write(ctx, r)
	}
}

// Requests returns what was asked for by the workspaces of a user, or of
// everybody when userID is empty, the last tried first.
func (p *Proxy) Requests(ctx context.Context, actor bailey.Actor, userID string) ([]bailey.EgressRequest, error) {
	if !policy.Decide(actor, policy.EgressView, policy.Thing{OwnerID: userID}) {
		return nil, errNotAllowed
	}
	list, err := p.cfg.Store.EgressRequests(ctx, userID)
	if err != nil {
		return nil, fmt.Errorf("list egress requests: %w", err)
	}
	return list, nil
}

// Grants returns the grants that hold now for a user, or all when userID is
// empty, the next to end first. A user's are those that name the user, and
// those of whole classes.
func (p *Proxy) Grants(ctx context.Context, actor bailey.Actor, userID string) ([]bailey.EgressGrant, error) {
	if !policy.Decide(actor, policy.EgressView, policy.Thing{OwnerID: userID}) {
		return nil, errNotAllowed
	}
	list, err := p.cfg.Store.EgressGrants(ctx)
	if err != nil {
		return nil, fmt.Errorf("list egress grants: %w", err)
	}
	now := time.Now()
	list = slices.DeleteFunc(list, func(g bailey.EgressGrant) bool {
		return !now.Before(rules.GrantEnds(g)) || userID != "" && g.UserID != "" && g.UserID != userID
	})
	slices.SortFunc(list, func(a, b bailey.EgressGrant) int {
		return cmp.Or(rules.GrantEnds(a).Compare(rules.GrantEnds(b)), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

var errNotAllowed = &bailey.Error{
	Kind: bailey.Denied, Msg: "you may not do this with what workspaces may reach",
	Hint: "ask an administrator: they see the request in bailey egress requests",
}

// An Answer is an administrator's yes. With Request it answers that request,
// which says for whom and what; without, Grant says so itself.
type Answer struct {
	Request string // id of a request
	Scope   bailey.GrantScope
	For     time.Duration // 0: a day for once and day, 90 days for class; at most 366 days

	Class, Host string // without Request; Host may be "*." and a domain
	Port        int
	UserID      string // with scope day
	User        string // the name to it
}

// mayAnswer reports why somebody may not say what is allowed.
func (p *Proxy) mayAnswer(actor bailey.Actor) error {
	if !policy.Decide(actor, policy.EgressManage, policy.Thing{}) {
		return errNotAllowed
	}
	if p.cfg.Fresh != nil {
		return p.cfg.Fresh(actor)
	}
	return nil
}

// Allow makes a grant. The error is of kind Denied, Invalid or NotFound, or
// wraps [audit.ErrUnwritable]; nothing is granted then.
func (p *Proxy) Allow(ctx context.Context, actor bailey.Actor, a Answer) (bailey.EgressGrant, error) {
	if err := p.mayAnswer(actor); err != nil {
		return bailey.EgressGrant{}, err
	}
	g, asked, err := p.grantFor(ctx, actor, a)
	if err != nil {
		return g, err
	}
	if err := p.evidence(ctx, actor, audit.EgressAllow, g); err != nil {
		return g, err
	}
	if err := p.cfg.Store.GrantEgress(ctx, g); err != nil {
		return g, fmt.Errorf("store an egress grant: %w", err)
	}
	p.book.put(g, false)
	if asked != nil {
		r, err := p.cfg.Store.DecideEgress(ctx, asked.ID, bailey.AskAllowed, actor.Name, g.CreatedAt)
		if err != nil {
			return g, fmt.Errorf("answer egress request %s: %w", asked.ID, err)
		}
		p.book.answered(r, asked.State == bailey.AskOpen)
	}
	return g, nil
}

// grantFor returns the grant that an answer means, and the request it answers.
func (p *Proxy) grantFor(ctx context.Context, actor bailey.Actor, a Answer) (g bailey.EgressGrant, asked *bailey.EgressRequest, err error) {
	invalid := func(msg, hint string) (bailey.EgressGrant, *bailey.EgressRequest, error) {
		return bailey.EgressGrant{}, nil, &bailey.Error{Kind: bailey.Invalid, Msg: msg, Hint: hint}
	}
	now := time.Now().UTC()
	g = bailey.EgressGrant{
		ID: bailey.NewID(), Scope: a.Scope, Class: a.Class, Host: a.Host, Port: a.Port,
		UserID: a.UserID, User: a.User, By: actor.Name, CreatedAt: now,
	}
	if a.Request != "" {
		if asked, err = p.request(ctx, a.Request); err != nil {
			return g, nil, err
		}
		g.RequestID, g.Class, g.Host, g.Port = asked.ID, asked.Class, asked.Host, asked.Port
		g.UserID, g.User, g.WorkspaceID = asked.UserID, asked.User, asked.WorkspaceID
	}
	lasts := dayFor
	switch a.Scope {
	case bailey.GrantOnce:
		lasts = onceWithin
		if g.WorkspaceID == "" {
			return invalid("only a request can be allowed once", "name the request: bailey egress requests")
		}
	case bailey.GrantDay:
		g.WorkspaceID = ""
		if g.UserID == "" {
			return invalid("a grant for a day needs a user", "name the user, or the request")
		}
	case bailey.GrantClass:
		g.UserID, g.User, g.WorkspaceID, lasts = "", "", "", classFor
	default:
		return invalid(fmt.Sprintf("%.20q is not a scope", a.Scope), "allow once, for a day, or for the class")
	}
	if a.For < 0 || a.For > maxGrantFor {
		return invalid("a grant lasts at most 366 days", "what holds for longer is a rule: write it into egress.policies")
	}
	g.ExpiresAt = now.Add(cmp.Or(a.For, lasts))
	if err := rules.CheckRule(rules.Rule{Host: g.Host, Ports: []int{g.Port}}); err != nil {
		return invalid("this cannot be allowed: "+err.Error(), "give a host name in lower case, or *. and a domain, and a port")
	}
	if _, ok := p.Rules(g.Class); !ok {
		return invalid(fmt.Sprintf("class %.40q has no network to allow something on", g.Class), "classes of network mode proxied have: bailey egress rules")
	}
	return g, asked, nil
}

// request returns one request.
func (p *Proxy) request(ctx context.Context, id string) (*bailey.EgressRequest, error) {
	list, err := p.cfg.Store.EgressRequests(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("read egress request: %w", err)
	}
	for i := range list {
		if list[i].ID == id {
			return &list[i], nil
		}
	}
	return nil, &bailey.Error{Kind: bailey.NotFound, Msg: fmt.Sprintf("there is no egress request %.40q", id), Hint: "bailey egress requests lists them"}
}

// Deny answers a request with no. What was granted because of it ends, and
// connections that it allowed are cut.
func (p *Proxy) Deny(ctx context.Context, actor bailey.Actor, request string) (bailey.EgressRequest, error) {
	if err := p.mayAnswer(actor); err != nil {
		return bailey.EgressRequest{}, err
	}
	asked, err := p.request(ctx, request)
	if err != nil {
		return bailey.EgressRequest{}, err
	}
	about := bailey.EgressGrant{Class: asked.Class, Host: asked.Host, Port: asked.Port, ID: asked.ID}
	if err := p.evidence(ctx, actor, audit.EgressDeny, about); err != nil {
		return *asked, err
	}
	for _, g := range p.book.grantsOf(asked.Class) {
		if g.RequestID == asked.ID {
			if err := p.cfg.Store.RevokeEgress(ctx, g.ID); err != nil && bailey.KindOf(err) != bailey.NotFound {
				return *asked, fmt.Errorf("revoke egress grant %s: %w", g.ID, err)
			}
			p.book.put(g, true)
		}
	}
	r, err := p.cfg.Store.DecideEgress(ctx, asked.ID, bailey.AskDenied, actor.Name, time.Now().UTC())
	if err != nil {
		return *asked, fmt.Errorf("answer egress request %s: %w", asked.ID, err)
	}
	p.book.answered(r, asked.State == bailey.AskOpen)
	p.recheck()
	return r, nil
}

// Revoke ends a grant and cuts the connections that it alone allowed.
func (p *Proxy) Revoke(ctx context.Context, actor bailey.Actor, id string) error {
	if err := p.mayAnswer(actor); err != nil {
		return err
	}
	list, err := p.cfg.Store.EgressGrants(ctx)
	if err != nil {
		return fmt.Errorf("read egress grant: %w", err)
	}
	i := slices.IndexFunc(list, func(g bailey.EgressGrant) bool { return g.ID == id })
	if i < 0 {
		return &bailey.Error{Kind: bailey.NotFound, Msg: fmt.Sprintf("there is no egress grant %.40q", id), Hint: "bailey egress rules lists them"}
	}
	if err := p.evidence(ctx, actor, audit.EgressRevoke, list[i]); err != nil {
		return err
	}
	if err := p.cfg.Store.RevokeEgress(ctx, id); err != nil {
		return fmt.Errorf("revoke egress grant %s: %w", id, err)
	}
	p.book.put(list[i], true)
	p.recheck()
	return nil
}

// evidence records an administrator's answer before it holds.
func (p *Proxy) evidence(ctx context.Context, actor bailey.Actor, action audit.Action, g bailey.EgressGrant) error {
	kind := "egress_grant"
	if action == audit.EgressDeny {
		kind = "egress_request"
	}
	err := p.cfg.Audit.Append(ctx, audit.Event{
		Actor: audit.By(actor), Action: action, Outcome: audit.Success,
		Target: audit.Target{Kind: kind, ID: g.ID, Name: g.User},
		Attrs:  audit.Attrs{Class: g.Class, Host: g.Host, Port: g.Port, Rule: string(g.Scope)},
	})
	if err != nil {
		return &bailey.Error{Kind: bailey.Unavailable, Msg: "the audit journal cannot be written, so nothing is changed", Hint: "try again later", Cause: err}
	}
	return nil
}
