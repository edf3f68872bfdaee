package ldap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/external"
)

const (
	maxOperations = 16              // under way at a time
	maxIdle       = 4               // connections that are kept
	idleFor       = time.Minute     // for how long
	waitSlot      = 2 * time.Second // for a turn
	downFor       = 10 * time.Second
	maxAnswer     = 64 << 20 // bytes that one connection may bring
)

// A server is one of the machines behind a directory.
type server struct {
	host, addr string
	tls        bool         // from the first byte; else StartTLS
	down       atomic.Int64 // UnixNano until which it is asked last
}

type idle struct {
	conn  *ldap.Conn
	since time.Time
}

// The steps at which asking can fail.
const (
	stepConnect = "connect"
	stepTLS     = "tls"
	stepBind    = "bind"
	stepSearch  = "search"
)

// A problem is why the directory could not tell. It is an administrator's to
// read.
type problem struct {
	step, what, fix string
	err             error
	otherServer     bool // another server may do better
}

func (p *problem) Error() string {
	if p.err != nil {
		return p.what + ": " + p.err.Error()
	}
	return p.what
}

func (p *problem) Unwrap() error { return p.err }

// outage is what a stranger reads when the directory could not tell.
func outage(name string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &bailey.Error{
		Kind: bailey.Unavailable, Msg: "the company directory cannot be asked now",
		Hint:  "try again in a moment; if it lasts, an administrator runs: bailey admin sign-in test ldap " + name,
		Cause: err,
	}
}

// do runs f on a connection that is bound as the account that searches. When
// a server does not answer, the next one is asked.
func (d *Directory) do(ctx context.Context, f func(*ldap.Conn) error) error {
	return d.turn(ctx, func(ctx context.Context) error {
		for {
			c, ok := d.kept()
			if !ok {
				break
			}
			err := guarded(ctx, c, f)
			if err == nil || !broken(err) {
				d.keep(c)
				return d.explain(err)
			}
			_ = c.Close() // it died while nobody looked
		}
		return d.each(ctx, func(c *ldap.Conn) error {
			if err := d.bindSelf(c); err != nil {
				return err
			}
			err := f(c)
			if err == nil || !broken(err) {
				d.keep(c)
			}
			return d.explain(err)
		})
	})
}

// fresh runs f on a connection of its own, which is bound as nobody.
func (d *Directory) fresh(ctx context.Context, f func(*ldap.Conn) error) error {
	return d.turn(ctx, func(ctx context.Context) error {
		return d.each(ctx, func(c *ldap.Conn) error {
			defer c.Close() //nolint:errcheck // it is only hung up
			return d.explain(f(c))
		})
	})
}

// turn waits for a place among the operations under way.
func (d *Directory) turn(ctx context.Context, f func(context.Context) error) error {
	late := time.NewTimer(waitSlot)
	defer late.Stop()
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-late.C:
		return outage(d.cfg.Name, errors.New("too many people are asked about at once"))
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, 4*d.cfg.Timeout)
	defer cancel()
	if err := f(ctx); err != nil {
		return outage(d.cfg.Name, err)
	}
	return nil
}

// each tries the servers, those that were down a moment ago last, until one has
// an answer.
func (d *Directory) each(ctx context.Context, f func(*ldap.Conn) error) error {
	now := d.cfg.Now().UnixNano()
	order := slices.Clone(d.servers)
	slices.SortStableFunc(order, func(a, b *server) int {
		down := func(s *server) int {
			if s.down.Load() > now {
				return 1
			}
			return 0
		}
		return down(a) - down(b)
	})
	var errs []error
	for _, s := range order {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		err := d.on(ctx, s, f)
		p, ok := errors.AsType[*problem](err)
		if err == nil || !ok || !p.otherServer {
			return err
		}
		s.down.Store(d.cfg.Now().Add(downFor).UnixNano())
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// on runs f on a new connection to one server.
func (d *Directory) on(ctx context.Context, s *server, f func(*ldap.Conn) error) error {
	c, err := d.dial(ctx, s)
	if err != nil {
		return err
	}
	if err := guarded(ctx, c, f); err != nil {
		if broken(err) {
			_ = c.Close() // nothing more comes of it
		}
		return err
	}
	return nil
}

// guarded runs f and hangs up when ctx ends: the library knows no contexts.
func guarded(ctx context.Context, c *ldap.Conn, f func(*ldap.Conn) error) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	return f(c)
}

// dial connects to a server and returns when TLS holds.
func (d *Directory) dial(ctx context.Context, s *server) (*ldap.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		what, fix := external.Unreachable(err, s.addr, d.cfg.CA)
		return nil, &problem{step: stepConnect, what: what, fix: fix, err: err, otherServer: true}
	}
	conf := &tls.Config{ServerName: s.host, RootCAs: d.cfg.Roots, MinVersion: tls.VersionTLS12}
	bounded := &boundedConn{Conn: raw}
	bounded.left.Store(maxAnswer)
	if s.tls {
		secure := tls.Client(bounded, conf)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = raw.Close() // the handshake says what is wrong
			return nil, d.tlsProblem(s, err)
		}
		c := ldap.NewConn(secure, true)
		c.SetTimeout(d.cfg.Timeout)
		c.Start()
		return c, nil
	}
	deadline, _ := ctx.Deadline()
	_ = raw.SetDeadline(deadline) // the library's handshake has none
	// The library's handshake hides the error's type; this keeps it.
	var refused error
	conf.VerifyConnection = nil
	conf.InsecureSkipVerify = true //nolint:gosec // verified right below, in the handshake
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		refused = verify(cs, d, s.host)
		return refused
	}
	c := ldap.NewConn(bounded, false)
	c.SetTimeout(d.cfg.Timeout)
	c.Start()
	if err := c.StartTLS(conf); err != nil {
		_ = c.Close() // not one byte more without TLS
		if refused != nil {
			return nil, d.tlsProblem(s, refused)
		}
		if e, ok := errors.AsType[*ldap.Error](err); ok && e.ResultCode != ldap.ErrorNetwork {
			return nil, &problem{
				step: stepTLS, what: s.addr + " refuses StartTLS", err: err, otherServer: true,
				fix: "turn TLS on there (a certificate and its key), or use ldaps://; without TLS, passwords would be readable on the network, so there is no switch for that",
			}
		}
		return nil, d.tlsProblem(s, err)
	}
	if _, ok := c.TLSConnectionState(); !ok {
		_ = c.Close() // not one byte more without TLS
		return nil, &problem{step: stepTLS, what: s.addr + " answered StartTLS without TLS", fix: "use ldaps://", otherServer: true}
	}
	_ = raw.SetDeadline(time.Time{}) // operations have their own
	return c, nil
}

func (d *Directory) tlsProblem(s *server, err error) error {
	what, fix := external.Unreachable(err, s.addr, d.cfg.CA)
	return &problem{step: stepTLS, what: what, fix: fix, err: err, otherServer: true}
}

// bindSelf binds as the account that searches.
func (d *Directory) bindSelf(c *ldap.Conn) error {
	if d.cfg.BindDN == "" {
		return nil
	}
	if d.cfg.Password.Empty() {
		return &problem{step: stepBind, what: "there is no password for " + d.cfg.BindDN, fix: "set bind_password to file:/path or env:NAME"}
	}
	_, err := c.SimpleBind(ldap.NewSimpleBindRequest(d.cfg.BindDN, d.cfg.Password.Reveal(), nil))
	if err == nil || broken(err) {
		return d.explain(err)
	}
	_ = c.Close() // of no use
	if ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidDNSyntax) {
		return &problem{step: stepBind, what: "bind_dn " + d.cfg.BindDN + " is not a DN", fix: "write it whole, such as cn=bailey,ou=services,dc=example,dc=org (Active Directory also takes bailey@example.org)", err: err}
	}
	return &problem{
		step: stepBind, what: "the directory refuses bind_dn " + d.cfg.BindDN, err: err,
		fix: "either the DN or its password is wrong: try ldapwhoami -x -ZZ -D '" + d.cfg.BindDN + "' -W; then look at bind_dn and bind_password",
	}
}

// broken reports whether nothing more can come over the connection.
func broken(err error) bool {
	if err == nil {
		return false
	}
	if p, ok := errors.AsType[*problem](err); ok && p.err == nil {
		return false
	}
	if e, ok := errors.AsType[*ldap.Error](err); ok {
		return e.ResultCode >= ldap.ErrorNetwork || e.ResultCode == ldap.LDAPResultUnavailable || e.ResultCode == ldap.LDAPResultBusy
	}
	return true
}

// explain gives an error of an operation its words.
func (d *Directory) explain(err error) error {
	if _, ok := errors.AsType[*problem](err); err == nil || ok {
		return err
	}
	switch {
	case broken(err):
		return &problem{step: stepSearch, what: "the connection to the directory broke off, or nothing came for " + d.cfg.Timeout.String(), fix: "look at the directory's log", err: err, otherServer: true}
	case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject):
		return &problem{step: stepSearch, what: "there is nothing at " + d.cfg.UserBase + " or " + d.cfg.GroupBase, fix: "check user_base and group_base; the account that searches must be allowed to read them", err: err}
	case ldap.IsErrorWithCode(err, ldap.LDAPResultReferral):
		return &problem{step: stepSearch, what: "the directory refers to another server, and referrals are not followed", fix: "name the server that has the people in servers; for a whole Active Directory forest that is a global catalogue (ldaps://…:3269)", err: err}
	case ldap.IsErrorAnyOf(err, ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultOperationsError, ldap.LDAPResultStrongAuthRequired, ldap.LDAPResultInappropriateAuthentication):
		return &problem{step: stepSearch, what: "the directory does not let the account that searches do so", fix: "give bind_dn the right to read people and groups; Active Directory answers nobody without one", err: err}
	}
	return &problem{step: stepSearch, what: "the directory answers with an error", fix: "look at its log", err: err}
}

// kept returns a connection that is bound and idle.
func (d *Directory) kept() (*ldap.Conn, bool) {
	for {
		select {
		case i := <-d.idle:
			if d.cfg.Now().Sub(i.since) < idleFor && !i.conn.IsClosing() {
				return i.conn, true
			}
			_ = i.conn.Close() // too old
		default:
			return nil, false
		}
	}
}

// keep keeps a connection, or hangs up when there are enough.
func (d *Directory) keep(c *ldap.Conn) {
	select {
	case d.idle <- idle{c, d.cfg.Now()}:
	default:
		_ = c.Close() // one too many
	}
}

// A boundedConn ends a connection that brings more than anybody asked for.
type boundedConn struct {
	net.Conn

	left atomic.Int64
}

func (b *boundedConn) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if b.left.Add(-int64(n)) < 0 {
		return 0, fmt.Errorf("more than %d bytes: %w", maxAnswer, io.ErrUnexpectedEOF)
	}
	return n, err
}
