// Package gatehouse keeps what guard decides: it tells the store of bans and
// failures and learns those of other servers within a second, so that they
// outlive a restart and hold at every door; it records each lock, ban and lift
// in the journal; and it lets administrators list, impose and lift bans.
package gatehouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/policy"
)

// Store keeps what guards share.
type Store interface {
	PushGuard(ctx context.Context, server string, c bailey.GuardChanges) error
	PullGuard(ctx context.Context, server string, since int64) (c bailey.GuardChanges, rev int64, err error)
	PruneGuard(ctx context.Context) error
}

// How often servers tell each other, and clean up.
const (
	syncEach  = 500 * time.Millisecond
	pruneEach = 10 * time.Minute
	tellEach  = 30 * time.Second
	tellApart = 256                  // addresses with an event of their own at a time; the rest share one
	longest   = 366 * 24 * time.Hour // of an administrator's ban
)

// Config is what a Keeper needs; all but Log and Now are required.
type Config struct {
	Guard *guard.Guard
	Store Store
	Audit audit.Appender
	Log   *slog.Logger
	Now   func() time.Time // nil means time.Now

	// Fresh asks whether somebody proved lately enough who they are to change
	// anything here; nil: nobody is asked.
	Fresh func(actor bailey.Actor) error
}

// A Keeper keeps one server's guard. Methods may be called concurrently.
type Keeper struct {
	cfg    Config
	server string

	turn    chan struct{}       // held while changes go to the store and come from there
	rev     int64               // the last change that was learned; guarded by turn
	unsaved bailey.GuardChanges // what the store has not taken yet; guarded by turn
}

// New makes the guard know what the store does. Without that nobody is let in:
// a restart must not be a way around a ban.
func New(ctx context.Context, cfg Config) (*Keeper, error) {
	if cfg.Guard == nil || cfg.Store == nil || cfg.Audit == nil {
		return nil, errors.New("gatehouse: Guard, Store and Audit are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	k := &Keeper{cfg: cfg, server: bailey.NewID(), turn: make(chan struct{}, 1)}
	if err := k.pull(ctx); err != nil {
		return nil, fmt.Errorf("read bans: %w", err)
	}
	return k, nil
}

// Run tells and learns until ctx ends, and tells once more then. A store that
// does not answer stops nobody: this server's own guard goes on deciding, and
// what it decided is told later.
func (k *Keeper) Run(ctx context.Context) error {
	tick, prune, tell := time.NewTicker(syncEach), time.NewTicker(pruneEach), time.NewTicker(tellEach)
	defer tick.Stop()
	defer tell.Stop()
	defer prune.Stop()
	failing := false
	try := func(ctx context.Context, do func(context.Context) error) {
		err := do(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			k.cfg.Log.WarnContext(ctx, "bans are not shared", slog.String("error", err.Error()))
		}
		failing = err != nil
	}
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			k.tell(last, true)
			return k.Sync(last)
		case <-tick.C:
			try(ctx, k.Sync)
		case <-k.cfg.Guard.Wake():
			try(ctx, k.Sync)
		case <-tell.C:
			k.tell(ctx, false)
		case <-prune.C:
			try(ctx, k.cfg.Store.PruneGuard)
		}
	}
}

// tell records refused attempts that were counted and of which nobody has heard:
// without it the end of every flood would be missing from the journal. Those of
// one address are one event.
func (k *Keeper) tell(ctx context.Context, all bool) {
	refused := map[string]int64{}
	k.cfg.Guard.Unreported(all, func(prefix string, n int) {
		ip, _, _ := strings.Cut(prefix, "/")
		if _, err := netip.ParseAddr(ip); err != nil {
			ip = "" // a device, or nobody's
		}
		refused[ip] += int64(n)
	})
	most := slices.SortedFunc(maps.Keys(refused), func(a, b string) int { return cmp.Compare(refused[b], refused[a]) })
	for _, ip := range most[min(tellApart, len(most)):] {
		refused[""] += refused[ip]
		delete(refused, ip)
	}
	for ip, n := range refused {
		err := k.cfg.Audit.Append(ctx, audit.Event{
			Actor: audit.Actor{IP: ip}, Action: audit.SignIn, Target: audit.Target{Kind: "user"},
			Outcome: audit.Refused, Reason: audit.LockedOut, Attrs: audit.Attrs{Count: n},
		})
		if err != nil {
			k.cfg.Log.ErrorContext(ctx, "refused attempts not in the audit journal", slog.Int64("count", n), slog.String("error", err.Error()))
			return
		}
	}
}

// Sync tells the store what is new here and learns what is new there.
func (k *Keeper) Sync(ctx context.Context) error {
	if err := k.take(ctx); err != nil {
		return err
	}
	defer k.giveUp()
	if err := k.push(ctx); err != nil {
		return err
	}
	return k.pull(ctx)
}

func (k *Keeper) take(ctx context.Context) error {
	select {
	case k.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Keeper) giveUp() { <-k.turn }

// push records and stores what is new. The caller has the turn.
func (k *Keeper) push(ctx context.Context) error {
	c := k.cfg.Guard.Changes()
	for _, b := range c.Bans {
		k.record(ctx, b)
	}
	k.unsaved.Bans = keep(k.unsaved.Bans, c.Bans)
	k.unsaved.Failures = keep(k.unsaved.Failures, c.Failures)
	k.unsaved.Knowns = keep(k.unsaved.Knowns, c.Knowns)
	if err := k.cfg.Store.PushGuard(ctx, k.server, k.unsaved); err != nil {
		return err
	}
	k.unsaved = bailey.GuardChanges{}
	return nil
}

// keep appends, and forgets the oldest of too many: a store that is down for
// hours under attack must not cost the memory.
func keep[T any](old, fresh []T) []T {
	const most = 16384
	all := append(old, fresh...)
	return all[max(0, len(all)-most):]
}

// pull learns. The caller has the turn.
func (k *Keeper) pull(ctx context.Context) error {
	c, rev, err := k.cfg.Store.PullGuard(ctx, k.server, k.rev)
	if err != nil {
		return err
	}
	k.cfg.Guard.Learn(c)
	k.rev = rev
	return nil
}

// record puts a lock or a ban into the journal. It holds already, and goes on
// holding when the journal cannot be written.
func (k *Keeper) record(ctx context.Context, b bailey.Ban) {
	e := audit.Event{
		Actor: audit.By(bailey.System()), Action: audit.GuardBan, Outcome: audit.Success, Reason: audit.BadCredentials,
		Target: audit.Target{Kind: "address", ID: b.ID, Name: b.Prefix},
		Attrs:  audit.Attrs{Count: int64(b.Repeated), Millis: max(0, b.Until.Sub(k.cfg.Now()).Milliseconds())},
	}
	switch {
	case b.Pair:
		e.Action = audit.GuardLock
		e.Target = audit.Target{Kind: "user", ID: b.ID, Name: b.Subject}
		if ip, err := netip.ParsePrefix(b.Prefix); err == nil {
			e.Actor.IP = ip.Addr().String()
		}
	case b.Slowed:
		e.Action = audit.GuardAlert
		k.cfg.Log.WarnContext(ctx, "an address would be banned and is slowed instead: it may be a proxy or a container bridge with everybody behind it; see proxies.trusted in the configuration",
			slog.String("prefix", b.Prefix))
	}
	if err := k.cfg.Audit.Append(ctx, e); err != nil {
		k.cfg.Log.ErrorContext(ctx, "a ban is not in the journal", slog.String("prefix", b.Prefix), slog.String("error", err.Error()))
	}
}

func (k *Keeper) allow(ctx context.Context, actor bailey.Actor, action policy.Action) error {
	if policy.Decide(actor, action, policy.Thing{}) {
		if action == policy.BanManage && k.cfg.Fresh != nil {
			return k.cfg.Fresh(actor)
		}
		return nil
	}
	err := k.cfg.Audit.Append(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.AccessDenied, Target: audit.Target{Kind: "ban"}, Outcome: audit.Refused, Reason: audit.NotAllowed,
	})
	if err != nil {
		k.cfg.Log.ErrorContext(ctx, "a refusal is not in the journal", slog.String("error", err.Error()))
	}
	return &bailey.Error{Kind: bailey.Denied, Msg: "you may not see or change who is locked out", Hint: "ask an administrator"}
}

// List returns the bans in force at all servers, the one that ends last first.
func (k *Keeper) List(ctx context.Context, actor bailey.Actor) ([]bailey.Ban, error) {
	if err := k.allow(ctx, actor, policy.BanList); err != nil {
		return nil, err
	}
	if err := k.Sync(ctx); err != nil {
		return nil, err
	}
	return k.cfg.Guard.Bans(), nil
}

// Add bans a network: an address, or a network no wider than a /8 of IPv4 or a
// /16 of IPv6. It is in the journal before it holds. A network that holds the
// caller's own address, or this machine's loopback, is refused: the next
// request could not lift it.
func (k *Keeper) Add(ctx context.Context, actor bailey.Actor, network string, d time.Duration) (bailey.Ban, error) {
	if err := k.allow(ctx, actor, policy.BanManage); err != nil {
		return bailey.Ban{}, err
	}
	n, err := parseNetwork(network)
	if err != nil {
		return bailey.Ban{}, err
	}
	if d < time.Minute || d > longest {
		return bailey.Ban{}, &bailey.Error{Kind: bailey.Invalid, Msg: "a ban lasts from a minute to a year", Hint: "for ever is a job for the firewall; ask for 1m to 8784h"}
	}
	if own, err := netip.ParseAddr(actor.IP); err == nil && n.Contains(own.Unmap()) {
		return bailey.Ban{}, &bailey.Error{Kind: bailey.Conflict, Msg: "you would ban yourself: you are calling from " + own.Unmap().String(), Hint: "name a smaller network"}
	}
	if n.Addr().IsLoopback() || n.Contains(netip.IPv6Loopback()) {
		return bailey.Ban{}, &bailey.Error{Kind: bailey.Conflict, Msg: "this machine itself cannot be banned", Hint: "commands on the host come from there"}
	}
	e := audit.Event{
		Actor: audit.By(actor), Action: audit.GuardBan, Outcome: audit.Success, Reason: audit.ByAdmin,
		Target: audit.Target{Kind: "address", Name: n.String()}, Attrs: audit.Attrs{Millis: d.Milliseconds()},
	}
	if err := k.cfg.Audit.Append(ctx, e); err != nil {
		return bailey.Ban{}, unwritable(err)
	}
	if err := k.take(ctx); err != nil {
		return bailey.Ban{}, err
	}
	defer k.giveUp()
	b, err := k.cfg.Guard.Impose(n, k.cfg.Now().Add(d), actor.Name)
	if errors.Is(err, guard.ErrTooManyBans) {
		err = &bailey.Error{Kind: bailey.OverQuota, Msg: "there are too many bans", Hint: "lift some, or ban wider networks"}
	}
	if err == nil {
		if err = k.cfg.Store.PushGuard(ctx, k.server, bailey.GuardChanges{Bans: []bailey.Ban{b}}); err != nil {
			k.cfg.Guard.Lift(b.ID)
		}
	}
	if err != nil {
		e.Outcome = audit.Failure
		return bailey.Ban{}, errors.Join(err, k.cfg.Audit.Append(ctx, e))
	}
	return b, nil
}

// Lift ends a ban or a lock, by its id or by the address or network as
// [Keeper.List] shows it (then all that are on it), at all servers. It returns
// what was lifted; NotFound when there is none. It is in the journal before.
func (k *Keeper) Lift(ctx context.Context, actor bailey.Actor, what string) ([]bailey.Ban, error) {
	if err := k.allow(ctx, actor, policy.BanManage); err != nil {
		return nil, err
	}
	if err := k.Sync(ctx); err != nil {
		return nil, err
	}
	var lifted []bailey.Ban
	for _, b := range k.cfg.Guard.Bans() {
		if b.ID == what || b.Prefix == what || strings.TrimSuffix(strings.TrimSuffix(b.Prefix, "/32"), "/128") == what || b.Prefix == guard.Prefix(what) {
			lifted = append(lifted, b)
		}
	}
	if len(lifted) == 0 {
		return nil, &bailey.Error{Kind: bailey.NotFound, Msg: "there is no such ban", Hint: "\"bailey admin ban ls\" lists them; it may have ended by itself"}
	}
	if err := k.take(ctx); err != nil {
		return nil, err
	}
	defer k.giveUp()
	for i := range lifted {
		b := &lifted[i]
		e := audit.Event{
			Actor: audit.By(actor), Action: audit.GuardLift, Outcome: audit.Success, Reason: audit.ByAdmin,
			Target: audit.Target{Kind: "address", ID: b.ID, Name: b.Prefix},
		}
		if b.Pair {
			e.Target = audit.Target{Kind: "user", ID: b.ID, Name: b.Subject}
		}
		if err := k.cfg.Audit.Append(ctx, e); err != nil {
			return nil, unwritable(err)
		}
		ended := *b
		ended.Until, ended.Repeated = k.cfg.Now(), 0
		if err := k.cfg.Store.PushGuard(ctx, k.server, bailey.GuardChanges{Bans: []bailey.Ban{ended}}); err != nil {
			e.Outcome = audit.Failure
			return nil, errors.Join(err, k.cfg.Audit.Append(ctx, e))
		}
		k.cfg.Guard.Lift(b.ID)
	}
	return lifted, nil
}

func unwritable(err error) error {
	return &bailey.Error{
		Kind: bailey.Unavailable, Msg: "this is not possible now: the audit journal cannot be written",
		Hint: "an administrator checks the disk of the state directory; nothing was changed", Cause: err,
	}
}

// parseNetwork reads an address or a network.
func parseNetwork(text string) (netip.Prefix, error) {
	wrong := func(why string) (netip.Prefix, error) {
		return netip.Prefix{}, &bailey.Error{Kind: bailey.Invalid, Msg: "this is no network that can be banned: " + why, Hint: "write an address (203.0.113.9) or a network (203.0.113.0/24, 2001:db8::/48)"}
	}
	if a, err := netip.ParseAddr(text); err == nil {
		if a = a.Unmap(); a.Zone() != "" {
			return wrong("an address with a zone means nothing elsewhere")
		}
		bits := a.BitLen()
		if a.Is6() {
			bits = 64 // whoever has one address of a /64 has all of them
		}
		return netip.PrefixFrom(a, bits).Masked(), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return wrong("it is neither an address nor a network")
	case p.Addr().Is4In6():
		return wrong("it mixes IPv4 and IPv6")
	case p.Masked() != p:
		return wrong("it has bits set behind its length")
	case p.Addr().Is4() && p.Bits() < 8, p.Addr().Is6() && p.Bits() < 16:
		return wrong("it is so wide that it could be everybody")
	}
	return p, nil
}
