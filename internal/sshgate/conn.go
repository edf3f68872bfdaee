package sshgate

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/sshgate/line"
	"github.com/baileyhq/bailey/internal/sshlive"
	"github.com/baileyhq/bailey/internal/workspace"
)

// farewell is how long an ending waits for its words to be read.
const farewell = 250 * time.Millisecond

// A conn is one connection that has signed in. It belongs to one person and,
// once something was opened in it, to one run of one workspace: it ends with
// either.
type conn struct {
	g      *Gate
	sc     *ssh.ServerConn
	line   *line.Conn // what sc writes on
	id     string
	actor  bailey.Actor
	grant  identity.SSHGrant
	want   string // the workspace that was asked for; empty: choose
	ip     string
	client string

	ctx    context.Context //nolint:containedctx // the connection's own: what it opened ends with it
	cancel context.CancelFunc
	wg     sync.WaitGroup // everything that runs for the connection

	once sync.Mutex // held while the workspace is looked for, and started
	at   *place     // guarded by once: what was found

	mu       sync.Mutex // guards the rest
	reason   string     // why it was ended from here
	open     map[*channel]struct{}
	channels int
	closed   bool // it is ending
	full     bool // the client wants no more sessions
	forwards map[string]*remote
	seen     map[string]bool // what was audited once

	touched atomic.Int64 // when the workspace was last told of activity, in nanoseconds since began
	began   time.Time
}

// A place is where a connection has come to.
type place struct {
	ws    bailey.Workspace
	scope *filter.Scope
}

func newConn(g *Gate, sc *ssh.ServerConn, under *line.Conn, in signedIn, ip string) *conn {
	return &conn{
		g: g, sc: sc, line: under, id: bailey.NewID(), actor: in.actor, grant: in.grant, want: in.target, ip: ip,
		client: clean(string(sc.ClientVersion()), 128),
		open:   map[*channel]struct{}{}, forwards: map[string]*remote{}, seen: map[string]bool{},
	}
}

// serve is the life of the connection.
func (c *conn) serve(ctx context.Context, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	c.ctx, c.cancel = context.WithCancel(ctx)
	defer c.cancel()
	ended, release := c.g.cfg.People.Ended(c.actor)
	defer release()
	entry := c.g.cfg.Live.Add(c.meta(sshlive.Connection), c.end)
	defer entry.Remove()
	log := c.g.log.With(slog.String("ssh", c.id), slog.String("user", c.actor.UserID), slog.String("ip", c.ip))
	log.InfoContext(ctx, "ssh connection opened", slog.String("client", c.client), slog.String("key", c.grant.Fingerprint))
	c.began = time.Now()

	c.safely(func() { c.watch(ctx, ended) })
	c.safely(func() { c.keepAlive() })
	c.safely(func() { c.requests(requests) })
	c.announce()
	for nc := range channels {
		c.safely(func() { c.channel(nc) })
	}
	c.cancel()
	c.closeForwards()
	_ = c.sc.Close()
	c.wg.Wait()
	log.InfoContext(ctx, "ssh connection ended", slog.Duration("took", time.Since(c.began)), slog.String("reason", c.why()))
}

// safely runs something for the connection. A panic of it ends the connection,
// not the server.
func (c *conn) safely(f func()) {
	c.wg.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				c.g.log.Error("ssh connection failed", slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
				_ = c.sc.Close()
			}
		}()
		f()
	})
}

// watch ends the connection with the sign-in, with its key, and with the server.
func (c *conn) watch(ctx context.Context, ended <-chan struct{}) {
	var expiry <-chan time.Time
	if !c.grant.Expires.IsZero() {
		t := time.NewTimer(time.Until(c.grant.Expires))
		defer t.Stop()
		expiry = t.C
	}
	select {
	case <-c.ctx.Done():
		if ctx.Err() != nil {
			c.end("the server is stopping")
		}
	case <-ended:
		c.end("your key, your session or your account was revoked")
	case <-expiry:
		c.end("your key or certificate has expired")
	}
}

// keepAlive asks now and then whether the client is still there. It is not
// activity: a workspace may stop although somebody's client idles.
func (c *conn) keepAlive() {
	each := c.g.cfg.Limits.KeepAlive
	tick := time.NewTicker(each)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		gone := time.AfterFunc(4*each, func() { _ = c.sc.Close() })
		_, _, err := c.sc.SendRequest("keepalive@openssh.com", true, nil)
		gone.Stop()
		if err != nil {
			return
		}
	}
}

// end ends the connection, and tells everybody in it why. It does not wait, and
// may be called more than once.
func (c *conn) end(reason string) {
	c.mu.Lock()
	if c.reason != "" {
		c.mu.Unlock()
		return
	}
	c.reason, c.closed = reason, true
	open := make([]*channel, 0, len(c.open))
	for ch := range c.open {
		open = append(open, ch)
	}
	c.mu.Unlock()
	go func() { // ends soon after the connection is closed
		var words sync.WaitGroup
		for _, ch := range open {
			words.Go(func() { ch.end(reason) })
		}
		said := make(chan struct{})
		go func() { words.Wait(); close(said) }()
		select {
		case <-said:
		case <-time.After(farewell):
		}
		c.cancel()
		_ = c.sc.Close()
	}()
}

func (c *conn) why() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// A channel is something open in a connection that can be ended.
type channel struct {
	end func(reason string) // says why and ends; may take a moment
}

// enter counts a channel in; the refusal is in words.
func (c *conn) enter(ch *channel, session bool) (refused string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed, c.full && session:
		return "no more sessions on this connection"
	case c.channels >= c.g.cfg.Limits.Channels:
		return fmt.Sprintf("%d channels are open in this connection, which is as many as there may be", c.channels)
	case !c.g.crowd.TakeChannel(c.actor.UserID):
		return "you have too many channels open; close some"
	}
	c.channels++
	c.open[ch] = struct{}{}
	return ""
}

func (c *conn) leave(ch *channel) {
	c.mu.Lock()
	delete(c.open, ch)
	c.channels--
	c.mu.Unlock()
	c.g.crowd.ReleaseChannel(c.actor.UserID)
}

// channel serves one channel.
func (c *conn) channel(nc ssh.NewChannel) {
	switch nc.ChannelType() {
	case "session":
		c.session(nc)
	case "direct-tcpip":
		c.directTCP(nc)
	case "direct-streamlocal@openssh.com":
		c.directSocket(nc)
	default: // x11, auth-agent from a client, tun: not from here
		_ = nc.Reject(ssh.UnknownChannelType, "bailey does not know this kind of channel")
	}
}

// route returns the way into the connection's workspace. It asks policy every
// time, with the rights that the person has now; the workspace is chosen once.
func (c *conn) route(ctx context.Context) (workspace.Route, Policy, *place, error) {
	actor, err := c.g.cfg.People.SSHActor(ctx, c.actor)
	if err != nil {
		return workspace.Route{}, Policy{}, nil, err
	}
	c.once.Lock()
	defer c.once.Unlock()
	if c.at == nil {
		ws, route, err := c.g.find(ctx, actor, c.want)
		if err != nil {
			return workspace.Route{}, Policy{}, nil, err
		}
		c.at = &place{ws: ws, scope: c.g.cfg.Filter.For(filter.Subject{
			UserID: c.actor.UserID, User: c.actor.Name, WorkspaceID: ws.ID, Workspace: ws.Name, Class: ws.Class, Run: ws.RunID,
		}, map[string]secret.Value{"jupyter-token": secret.New(route.Token)})}
		c.safely(func() {
			select {
			case <-route.Done():
				c.end("workspace " + ws.Name + " was stopped")
			case <-c.ctx.Done():
			}
		})
		return route, c.g.cfg.Policy(ws.Class), c.at, nil
	}
	route, err := c.g.cfg.Workspaces.Route(ctx, actor, c.at.ws.Slug)
	return route, c.g.cfg.Policy(c.at.ws.Class), c.at, err
}

// meta is what is known of something in the connection.
func (c *conn) meta(kind sshlive.Kind) sshlive.Meta {
	return sshlive.Meta{
		ID: bailey.NewID(), ConnID: c.id, Kind: kind, UserID: c.actor.UserID, User: c.actor.Name,
		KeyID: c.grant.KeyID, Fingerprint: c.grant.Fingerprint, Certificate: c.grant.Certificate,
		IP: c.ip, Client: c.client, Started: time.Now(),
	}
}

// record makes an event durable; when it cannot, what it says must not happen.
func (c *conn) record(ctx context.Context, e audit.Event) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	e.Actor = audit.By(c.actor)
	err := c.g.cfg.Audit.Append(ctx, e)
	if err == nil {
		return nil
	}
	c.g.log.ErrorContext(ctx, "ssh event not in the audit journal", slog.String("action", string(e.Action)), slog.Any("error", err))
	return &bailey.Error{
		Kind: bailey.Unavailable, Msg: "this is not possible now: the audit journal cannot be written",
		Hint: "an administrator checks the disk of the state directory; nothing was lost", Cause: err,
	}
}

// refused records what policy refused, once for each thing in a connection, so
// that asking cannot fill the journal's disk.
func (c *conn) refused(ctx context.Context, kind sshlive.Kind, ws bailey.Workspace, port int) {
	if !c.first("refused " + string(kind)) {
		return
	}
	_ = c.record(ctx, audit.Event{
		Action: audit.AccessDenied, Target: audit.Target{Kind: "workspace", ID: ws.ID, Name: ws.Name},
		Outcome: audit.Refused, Reason: audit.NotAllowed, Attrs: audit.Attrs{Route: "ssh", Kind: string(kind), Class: ws.Class, Port: port},
	})
}

// first reports whether something is done for the first time in the connection.
func (c *conn) first(what string) bool {
	const most = 1024
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[what] || len(c.seen) >= most {
		return false
	}
	c.seen[what] = true
	return true
}

// clean cuts foreign text to n bytes and takes out what could act on a terminal.
func clean(text string, n int) string {
	out := make([]rune, 0, min(len(text), n))
	size := 0
	for _, r := range text {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfffd || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			r = '?'
		}
		if size += len(string(r)); size > n {
			break
		}
		out = append(out, r)
	}
	return string(out)
}

// touchEvery is how often a workspace is told that somebody is at work in it.
const touchEvery = 5 * time.Second

// touch notes that a person did something: typed, or carried bytes.
func (c *conn) touch(at *place) {
	now := int64(time.Since(c.began)) + 1
	last := c.touched.Load()
	if last != 0 && now-last < int64(touchEvery) || !c.touched.CompareAndSwap(last, now) {
		return
	}
	c.g.cfg.Workspaces.Touch(at.ws.ID)
}
