package sshgate

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/sshlive"
	"github.com/baileyhq/bailey/internal/workspace"
)

// dialLimit is how long connecting to something inside may take.
const dialLimit = 10 * time.Second

// maxRemotes bounds the listeners of one connection.
const maxRemotes = 16

// inside reads the address of a forward: the workspace's own loopback, in its
// plain forms alone. Everything else is somewhere that nobody is led to:
// 127.1, 2130706433 and ::ffff:127.0.0.1 mean different things to different
// parsers, and a name means whatever somebody's resolver says.
func inside(host string, port uint32) (addr string, err error) {
	if port == 0 || port > 65535 {
		return "", bailey.Errorf(bailey.Invalid, "there is no such port")
	}
	if host == "localhost" {
		return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10)), nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() || ip.Is4In6() || ip.Zone() != "" {
		return "", &bailey.Error{
			Kind: bailey.Denied, Msg: "only the workspace's own 127.0.0.1, ::1 and localhost can be reached",
			Hint: "what listens inside the workspace is there; other machines are not",
		}
	}
	return netip.AddrPortFrom(ip, uint16(port)).String(), nil
}

// directTCP connects a client to a port inside.
func (c *conn) directTCP(nc ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if ssh.Unmarshal(nc.ExtraData(), &to) != nil {
		_ = nc.Reject(ssh.ConnectionFailed, "bailey: the request cannot be read")
		return
	}
	addr, err := inside(to.Host, to.Port)
	c.direct(nc, "tcp", addr, int(to.Port), err)
}

// directSocket connects a client to a Unix socket inside.
func (c *conn) directSocket(nc ssh.NewChannel) {
	var to struct {
		Path     string
		Reserved string
		Port     uint32
	}
	if ssh.Unmarshal(nc.ExtraData(), &to) != nil {
		_ = nc.Reject(ssh.ConnectionFailed, "bailey: the request cannot be read")
		return
	}
	c.direct(nc, "unix", to.Path, 0, checkPath(to.Path))
}

func checkPath(p string) error {
	if !path.IsAbs(p) || p == "/" || path.Clean(p) != p || len(p) > 107 || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		return bailey.Errorf(bailey.Invalid, "the socket's path is absolute and plain, and at most 107 bytes long")
	}
	return nil
}

// direct connects a channel to something inside.
func (c *conn) direct(nc ssh.NewChannel, network, addr string, port int, err error) {
	self := &channel{end: func(string) {}}
	if why := c.enter(self, false); why != "" {
		_ = nc.Reject(ssh.ResourceShortage, "bailey: "+why)
		return
	}
	defer c.leave(self)
	route, p, at, rerr := c.route(c.ctx)
	switch {
	case rerr != nil:
		_ = nc.Reject(ssh.ConnectionFailed, say(rerr))
		return
	case err != nil, p.Access == NoAccess, c.grant.NoForwarding, !p.mayForward(port):
		if err == nil {
			err = errDenied("this class of workspaces does not forward to that")
		}
		c.refused(c.ctx, sshlive.Forward, at.ws, port)
		_ = nc.Reject(ssh.Prohibited, say(err))
		return
	}
	ctx, cancel := context.WithTimeout(c.ctx, dialLimit)
	defer cancel()
	if err := c.audited(ctx, sshlive.Forward, at, network, addr, port); err != nil {
		_ = nc.Reject(ssh.ConnectionFailed, say(err))
		return
	}
	conn, err := route.Connect(ctx, network, addr)
	if err != nil {
		_ = nc.Reject(ssh.ConnectionFailed, say(err))
		return
	}
	m := c.meta(sshlive.Forward)
	m.Target = clean(addr, 128)
	c.pipe(c.ctx, m, at, p, conn, func() (ssh.Channel, error) {
		ch, requests, err := nc.Accept()
		if err == nil {
			go ssh.DiscardRequests(requests)
		}
		return ch, err
	})
}

// audited makes it durable that a forward is used, once for each target in a
// connection: a browser behind -D opens hundreds.
func (c *conn) audited(ctx context.Context, kind sshlive.Kind, at *place, network, addr string, port int) error {
	if !c.first(string(kind) + " " + network + " " + addr) {
		return nil
	}
	host, _, _ := net.SplitHostPort(addr)
	return c.record(ctx, audit.Event{
		Action: audit.SSHForward, Target: audit.Target{Kind: "workspace", ID: at.ws.ID, Name: at.ws.Name}, Outcome: audit.Success,
		Attrs: audit.Attrs{Kind: string(kind), Class: at.ws.Class, Run: at.ws.RunID, Key: c.grant.Fingerprint, Host: host, Port: port},
	})
}

// pipe carries bytes between something inside and a channel, which it opens.
// What is carried is opaque: it is counted, and recorded as so many bytes to
// there. It ends with ctx.
func (c *conn) pipe(ctx context.Context, m sshlive.Meta, at *place, p Policy, conn net.Conn, open func() (ssh.Channel, error)) {
	defer conn.Close() //nolint:errcheck // it has ended
	m.WorkspaceID, m.Workspace, m.Class, m.Run, m.Strict = at.ws.ID, at.ws.Name, at.ws.Class, at.ws.RunID, p.Recording == RecordStrict
	rec, err := c.begin(c.ctx, m, p)
	if err != nil {
		return
	}
	ch, err := open()
	if err != nil {
		rec.close(sshlive.End{At: time.Now(), ExitCode: -1, Reason: "not opened"})
		return
	}
	var once sync.Once
	reason := ""
	over := func(why string) {
		once.Do(func() { reason = why })
		_ = ch.Close()
		_ = conn.Close()
	}
	entry := c.g.cfg.Live.Add(m, over)
	stop := context.AfterFunc(ctx, func() { over("what it belonged to ended") })
	var both sync.WaitGroup
	both.Go(func() { // into the workspace
		copyBytes(conn, ch, func(n int) { entry.Carried(n, 0); c.touch(at) })
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	})
	both.Go(func() {
		copyBytes(ch, conn, func(n int) { entry.Carried(0, n); c.touch(at) })
		_ = ch.CloseWrite()
	})
	both.Wait()
	stop()
	once.Do(func() {})
	_ = ch.Close()
	entry.Remove()
	up, down := entry.Totals()
	rec.close(sshlive.End{At: time.Now(), Reason: reason, Up: up, Down: down})
}

// copyBytes copies until either side ends.
func copyBytes(dst io.Writer, src io.Reader, carried func(n int)) {
	buf := make([]byte, chunk)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			carried(n)
			if _, err := dst.Write(buf[:n]); err != nil {
				if half, ok := src.(interface{ CloseRead() error }); ok {
					_ = half.CloseRead()
				}
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// A remote is a listener inside that a client asked for.
type remote struct {
	ln   *workspace.Listener
	once sync.Once
}

func (r *remote) close() { r.once.Do(func() { _ = r.ln.Close() }) }

var errTooMany = errors.New("too many listeners")

// listenInside opens a listener inside and serves it.
func (c *conn) listenInside(key, network, addr string, port int, open func(from string, bound string) (ssh.Channel, error)) (bound string, err error) {
	route, p, at, err := c.route(c.ctx)
	if err != nil {
		return "", err
	}
	if p.Access == NoAccess || p.Access == SFTPOnly || !p.RemoteForwarding || c.grant.NoForwarding {
		c.refused(c.ctx, sshlive.Remote, at.ws, port)
		return "", errDenied("this class of workspaces does not listen for clients")
	}
	c.mu.Lock()
	full := c.forwards[key] != nil || len(c.forwards) >= maxRemotes || c.closed
	c.mu.Unlock()
	if full {
		return "", errTooMany
	}
	if err := c.audited(c.ctx, sshlive.Remote, at, network, addr, port); err != nil {
		return "", err
	}
	ln, err := route.Listen(c.ctx, network, addr)
	if err != nil {
		return "", err
	}
	bound = ln.Addr()
	if network == "tcp" && port == 0 {
		key = bound
	}
	r := &remote{ln: ln}
	c.mu.Lock()
	c.forwards[key] = r
	c.mu.Unlock()
	c.safely(func() {
		defer func() {
			r.close()
			c.mu.Lock()
			if c.forwards[key] == r {
				delete(c.forwards, key)
			}
			c.mu.Unlock()
		}()
		c.accept(c.ctx, ln, sshlive.Remote, bound, at, p, func(from string) (ssh.Channel, error) { return open(from, bound) })
	})
	return bound, nil
}

// accept gives every caller at a listener a channel to the client. What it
// opened ends with ctx.
func (c *conn) accept(ctx context.Context, ln *workspace.Listener, kind sshlive.Kind, bound string, at *place, p Policy, open func(from string) (ssh.Channel, error)) {
	for {
		caller, err := ln.Accept(ctx)
		if err != nil {
			return
		}
		c.safely(func() {
			self := &channel{end: func(string) {}}
			if c.enter(self, false) != "" {
				_ = caller.Close()
				return
			}
			defer c.leave(self)
			m := c.meta(kind)
			m.Target = clean(bound, 128)
			c.pipe(ctx, m, at, p, caller.Conn, func() (ssh.Channel, error) { return open(caller.From) })
		})
	}
}

// listenTCP is a client's tcpip-forward. Whatever address it names, what
// listens is the workspace's loopback: there is no other interface.
func (c *conn) listenTCP(payload []byte) (ok bool, answer []byte) {
	var want struct {
		Host string
		Port uint32
	}
	if ssh.Unmarshal(payload, &want) != nil || want.Port > 65535 || want.Port > 0 && want.Port < 1024 {
		return false, nil
	}
	host, ok := loopback(want.Host)
	if !ok {
		return false, nil
	}
	addr := net.JoinHostPort(host, strconv.FormatUint(uint64(want.Port), 10))
	bound, err := c.listenInside(addr, "tcp", addr, int(want.Port), func(from, bound string) (ssh.Channel, error) {
		fromHost, fromPort := splitPort(from)
		_, port := splitPort(bound)
		// The host as the client wrote it: that is how it finds its forward.
		return c.openChannel("forwarded-tcpip", ssh.Marshal(struct {
			Host       string
			Port       uint32
			OriginHost string
			OriginPort uint32
		}{want.Host, port, fromHost, fromPort}))
	})
	if err != nil {
		return false, nil
	}
	if want.Port == 0 {
		_, port := splitPort(bound)
		answer = ssh.Marshal(struct{ Port uint32 }{port})
	}
	return true, answer
}

// loopback returns the loopback address that a client's bind address means.
func loopback(host string) (string, bool) {
	switch host {
	case "", "*", "0.0.0.0", "localhost", "127.0.0.1":
		return "127.0.0.1", true
	case "::", "::1":
		return "::1", true
	}
	return "", false
}

func splitPort(addr string) (host string, port uint32) {
	host, text, _ := net.SplitHostPort(addr)
	n, _ := strconv.ParseUint(text, 10, 16)
	return host, uint32(n)
}

func (c *conn) openChannel(kind string, data []byte) (ssh.Channel, error) {
	ch, requests, err := c.sc.OpenChannel(kind, data)
	if err == nil {
		go ssh.DiscardRequests(requests)
	}
	return ch, err
}

func (c *conn) cancelTCP(payload []byte) bool {
	var want struct {
		Host string
		Port uint32
	}
	if ssh.Unmarshal(payload, &want) != nil {
		return false
	}
	host, ok := loopback(want.Host)
	return ok && c.stopListening(net.JoinHostPort(host, strconv.FormatUint(uint64(want.Port), 10)))
}

func (c *conn) listenSocket(payload []byte) bool {
	var want struct{ Path string }
	if ssh.Unmarshal(payload, &want) != nil || checkPath(want.Path) != nil {
		return false
	}
	_, err := c.listenInside(want.Path, "unix", want.Path, 0, func(string, string) (ssh.Channel, error) {
		return c.openChannel("forwarded-streamlocal@openssh.com", ssh.Marshal(struct{ Path, Reserved string }{want.Path, ""}))
	})
	return err == nil
}

func (c *conn) cancelSocket(payload []byte) bool {
	var want struct{ Path string }
	return ssh.Unmarshal(payload, &want) == nil && c.stopListening(want.Path)
}

func (c *conn) stopListening(key string) bool {
	c.mu.Lock()
	r := c.forwards[key]
	delete(c.forwards, key)
	c.mu.Unlock()
	if r != nil {
		r.close()
	}
	return r != nil
}

func (c *conn) closeForwards() {
	c.mu.Lock()
	all := make([]*remote, 0, len(c.forwards))
	for _, r := range c.forwards {
		all = append(all, r)
	}
	c.mu.Unlock()
	for _, r := range all {
		r.close()
	}
}

// lendAgent lets programs in the workspace use the client's agent, for as long
// as the session lasts.
func (c *conn) lendAgent(ctx context.Context, route workspace.Route, p Policy, at *place) (path string, stop func(), err error) {
	if !p.AgentForwarding || c.grant.NoAgentForwarding {
		c.refused(ctx, sshlive.Agent, at.ws, 0)
		return "", nil, errDenied("this class of workspaces is not lent the client's agent")
	}
	if err := c.audited(ctx, sshlive.Agent, at, "agent", "", 0); err != nil {
		return "", nil, err
	}
	ln, err := route.Listen(ctx, "agent", "")
	if err != nil {
		return "", nil, err
	}
	r := &remote{ln: ln}
	lent, cancel := context.WithCancel(c.ctx)
	cut := context.AfterFunc(lent, r.close)
	c.safely(func() {
		// Used no longer than it was lent: what an agent signs is a key's whole power.
		c.accept(lent, ln, sshlive.Agent, "agent", at, p, func(string) (ssh.Channel, error) {
			return c.openChannel("auth-agent@openssh.com", nil)
		})
	})
	return ln.Addr(), func() { cancel(); cut(); r.close() }, nil
}
