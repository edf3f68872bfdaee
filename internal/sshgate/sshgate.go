// Package sshgate is the SSH door: it decides what a connection may ask for
// (shells, commands, sftp, forwarding) and carries it to the person's own
// workspace and back. Who somebody is, identity says; whether they may, policy;
// what runs inside, the agent of the workspace, which no image has to bring.
package sshgate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/sshgate/crowd"
	"github.com/baileyhq/bailey/internal/sshgate/hostkey"
	"github.com/baileyhq/bailey/internal/sshlive"
	"github.com/baileyhq/bailey/internal/workspace"
)

// People is what the door asks about those who knock. [identity.Service]
// implements it.
type People interface { //nolint:interfacebloat // one question for each moment of a connection
	// OfferSSHKey reports by nil that key, or a certificate, could sign in as
	// name. A client may ask without owning the key, so it is a pure lookup: it
	// writes, counts and audits nothing, and does the same work for a name that
	// is no account.
	OfferSSHKey(ctx context.Context, name string, key ssh.PublicKey, ip string) error
	// SignInSSH signs in whoever has proved to hold the key. It checks
	// everything anew, and is audited. The actor's Session names what Ended
	// waits for.
	SignInSSH(ctx context.Context, in identity.SSHSignIn) (bailey.Actor, identity.SSHGrant, error)
	// SSHActor returns the actor of an open connection with the groups and the
	// role that the account has now. Unauthenticated when the sign-in is no
	// longer good.
	SSHActor(ctx context.Context, actor bailey.Actor) (bailey.Actor, error)
	// FailedSSH counts a connection that ended without a sign-in, once, with
	// as many keys as it offered.
	FailedSSH(ctx context.Context, name, ip string, offered int)
	// AllowSSH is asked before anything else of a connection is: an address
	// that failed too often is told to wait.
	AllowSSH(ctx context.Context, ip string) error
	// Ended is closed when the sign-in is no longer good: signed out, revoked,
	// disabled, expired. The function releases the wait.
	Ended(actor bailey.Actor) (<-chan struct{}, func())
	// FirstContact returns the address of a page on which somebody who is
	// signed in can bind a key that is not known yet, after comparing its
	// fingerprint and the address it came from. It is empty when there is none.
	// It is asked at most once in a connection.
	FirstContact(ctx context.Context, name string, key ssh.PublicKey, ip string) (link string, err error)
}

// Workspaces is how the door reaches workspaces. [workspace.Service] implements
// it; each method asks policy.
type Workspaces interface {
	Get(ctx context.Context, actor bailey.Actor, ref string) (bailey.Workspace, error)
	List(ctx context.Context, actor bailey.Actor, all bool) ([]bailey.Workspace, error)
	Start(ctx context.Context, actor bailey.Actor, id string) (bailey.Workspace, error)
	Follow(ctx context.Context, actor bailey.Actor, id string, after int64) (<-chan bailey.Stage, error)
	Route(ctx context.Context, actor bailey.Actor, slug string) (workspace.Route, error)
	Touch(workspaceID string)
}

// Config is what a Gate needs. People, Workspaces, Policy, Filter, Audit and
// HostKeys are required.
type Config struct {
	People     People
	Workspaces Workspaces
	// Policy is what a class lets people do. It is asked anew for everything
	// that is opened.
	Policy   func(class string) Policy
	Filter   *filter.Filter
	Audit    audit.Appender
	HostKeys []ssh.Signer
	NextKeys []ssh.Signer // announced beside them: the keys that will follow
	// Authority certifies HostKeys, for OpenSSH's clients; nil: nobody does.
	Authority *hostkey.Authority

	Recorder sshlive.Recorder  // nil: nothing can be recorded
	Live     *sshlive.Registry // nil: one of its own
	Log      *slog.Logger
	Limits   Limits
}

// Limits bound what strangers and people may take. The zero value is the
// default for each.
type Limits struct {
	Grace       time.Duration // from the first byte to a sign-in; 0 means 20 s
	Strangers   int           // connections that have not signed in, at most; 0 means 256. From a quarter on, some are dropped
	PerPrefix   int           // of them, from one address (IPv6: /64); 0 means 16
	Connections int           // of one person; 0 means 16
	Channels    int           // open in one connection; 0 means 64
	PerUser     int           // channels of one person, each with up to 2 MiB on its way; 0 means 128
	KeepAlive   time.Duration // between questions whether a client is still there; four without an answer end it; 0 means 30 s
}

// A Gate serves SSH. Its methods may be called concurrently.
type Gate struct {
	cfg    Config
	log    *slog.Logger
	ctx    context.Context //nolint:containedctx // of everything that is open; ended by Drain
	cancel context.CancelFunc
	wg     sync.WaitGroup

	crowd *crowd.Crowd

	mu      sync.Mutex // guards the rest
	closing bool
	silent  int // connections whose proxy has not said yet who is calling
	raw     map[net.Conn]struct{}
}

// Stats counts connections.
type Stats = crowd.Stats

// New checks cfg and returns a Gate. What it serves outlives ctx, whose values
// alone count; it ends with Drain.
func New(ctx context.Context, cfg Config) (*Gate, error) {
	if cfg.People == nil || cfg.Workspaces == nil || cfg.Policy == nil || cfg.Filter == nil || cfg.Audit == nil || len(cfg.HostKeys) == 0 {
		return nil, errors.New("sshgate: People, Workspaces, Policy, Filter, Audit and HostKeys are required")
	}
	l := &cfg.Limits
	for _, n := range []int{l.Strangers, l.PerPrefix, l.Connections, l.Channels, l.PerUser} {
		if n < 0 {
			return nil, errors.New("sshgate: negative limit")
		}
	}
	l.Grace = cmp.Or(l.Grace, 20*time.Second)
	l.Strangers = cmp.Or(l.Strangers, 256)
	l.PerPrefix = cmp.Or(l.PerPrefix, 16)
	l.Connections = cmp.Or(l.Connections, 16)
	l.Channels = cmp.Or(l.Channels, 64)
	l.PerUser = cmp.Or(l.PerUser, 128)
	l.KeepAlive = cmp.Or(l.KeepAlive, 30*time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Live == nil {
		cfg.Live = &sshlive.Registry{}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &Gate{
		cfg: cfg, log: cfg.Log, ctx: ctx, cancel: cancel,
		crowd: crowd.New(crowd.Limits{Strangers: l.Strangers, PerPrefix: l.PerPrefix, Connections: l.Connections, Channels: l.PerUser}),
		raw:   map[net.Conn]struct{}{},
	}, nil
}

// Live returns the sessions that are open.
func (g *Gate) Live() *sshlive.Registry { return g.cfg.Live }

// Stats returns the counts of connections.
func (g *Gate) Stats() Stats { return g.crowd.Stats() }

// Serve accepts connections until the listener is closed. The address of a
// connection is what its RemoteAddr says: a listener behind a proxy has to tell
// the truth there. A connection of a proxy has a method Socket with the proxy's
// own address, as those of package peer do, and its RemoteAddr may wait for the
// proxy's word.
func (g *Gate) Serve(ln net.Listener) error {
	for {
		nc, err := ln.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			if g.ctx.Err() != nil {
				return nil //nolint:nilerr // it was stopped
			}
			g.log.Warn("ssh connection not accepted", slog.String("error", err.Error()))
			select { // out of descriptors, most likely
			case <-time.After(50 * time.Millisecond):
			case <-g.ctx.Done():
				return nil
			}
			continue
		}
		if _, told := nc.(interface{ Socket() net.Addr }); told {
			g.introduce(nc)
			continue
		}
		g.admit(nc, hostOf(nc.RemoteAddr()))
	}
}

// introduce waits until a proxy has said who is calling, which nobody else has
// to wait for. As many proxies' connections may be silent as there may be
// strangers: whoever fills them keeps out what comes by that proxy alone.
func (g *Gate) introduce(nc net.Conn) {
	g.mu.Lock()
	full := g.closing || g.silent >= g.cfg.Limits.Strangers
	if !full {
		g.silent++
		g.wg.Add(1)
	}
	g.mu.Unlock()
	if full {
		g.crowd.Dropped()
		_ = nc.Close()
		return
	}
	go func() {
		defer g.wg.Done()
		stop := context.AfterFunc(g.ctx, func() { _ = nc.Close() })
		ip := hostOf(nc.RemoteAddr()) // waits for the header
		stop()
		g.mu.Lock()
		g.silent--
		g.mu.Unlock()
		g.admit(nc, ip)
	}()
}

// Drain ends every connection and waits until they are gone, or ctx ends. The
// caller closes the listeners.
func (g *Gate) Drain(ctx context.Context) error {
	g.mu.Lock()
	g.closing = true
	g.mu.Unlock()
	g.cancel()
	done := make(chan struct{})
	go func() { g.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		g.mu.Lock()
		for nc := range g.raw {
			_ = nc.Close()
		}
		g.mu.Unlock()
		return fmt.Errorf("end ssh connections: %w", ctx.Err())
	}
}

// admit decides whether a connection is listened to, and then does.
func (g *Gate) admit(nc net.Conn, ip string) {
	leave, why := g.enter(nc, ip)
	if leave == nil {
		g.log.Debug("ssh connection dropped", slog.String("ip", ip), slog.String("why", why))
		_ = nc.Close()
		return
	}
	go func() {
		defer g.wg.Done()
		defer leave()
		defer nc.Close() //nolint:errcheck // it has ended
		defer func() {
			// One connection's hostile bytes must not end the others.
			if p := recover(); p != nil {
				g.log.Error("ssh connection failed", slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
			}
		}()
		g.serve(nc, ip, leave)
	}()
}

// enter counts a stranger in, and their connection among those that Drain waits
// for.
func (g *Gate) enter(nc net.Conn, ip string) (leave func(), why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return nil, "closing"
	}
	if leave, why = g.crowd.Enter(nc, ip); leave != nil {
		g.raw[nc] = struct{}{}
		g.wg.Add(1)
	}
	return leave, why
}

// hostOf returns the IP address of an address, in its one written form.
func hostOf(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok {
		if ip, ok := netip.AddrFromSlice(t.IP); ok {
			return ip.Unmap().String()
		}
	}
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return ""
	}
	return host
}
