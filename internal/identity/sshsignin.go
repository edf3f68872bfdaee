package identity

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/sshkey"
)

// aLifetime is how long a connection may last whose key never ends.
const aLifetime = 100 * 365 * 24 * time.Hour

// anySSH is the subject under which guard remembers that somebody proved an
// SSH key from a prefix.
const anySSH = "ssh"

// AllowSSH says whether a connection from the address is talked to at all:
// TooMany while the address is banned, at this door or another. One from which
// somebody signed in over SSH before is talked to; SignInSSH decides for whom.
func (s *Service) AllowSSH(ctx context.Context, ip string) error {
	a, _ := netip.ParseAddr(ip) // an address that is none is on no list
	if err := s.anybody(a); err != nil {
		return err
	}
	return s.proven(ctx, ip, anySSH)
}

func (s *Service) proven(ctx context.Context, ip, subject string) error {
	v := s.cfg.Guard.Proven(guard.Prefix(ip), subject)
	if v.Allowed {
		return nil
	}
	if v.Report > 0 {
		s.note(ctx, audit.Event{
			Actor: audit.Actor{Method: MethodSSHKey, IP: cleanIP(ip)}, Action: audit.SignIn, Target: audit.Target{Kind: "server", Name: "ssh"},
			Outcome: audit.Refused, Reason: audit.LockedOut, Attrs: audit.Attrs{Count: int64(v.Report)},
		})
	}
	return errLimited(v.RetryAfter)
}

// OfferSSHKey reports by nil that the key or certificate could sign in as name.
// Whoever asks need not own the key, so nothing is counted, stored or audited,
// and a name that is no account makes the same work as one that is: the key is
// looked up, never the name.
func (s *Service) OfferSSHKey(ctx context.Context, name string, key ssh.PublicKey, ip string) error {
	in := SSHSignIn{Name: name, Key: key, IP: ip}
	if cert, ok := key.(*ssh.Certificate); ok {
		in.Key, in.Certificate = cert.Key, cert
	}
	_, err := s.findSSH(ctx, in)
	if err != nil {
		s.cfg.Log.DebugContext(ctx, "SSH key was not accepted", slog.String("error", err.Error()))
	}
	return err
}

// SignInSSH signs in whoever proved to hold the key in in: the door has
// verified the signature, and everything else is checked here, whatever was
// offered before. Success is in the audit journal before it is answered.
// Unauthenticated when the key is not good for the account, TooMany from a
// banned address, Unavailable without a journal. A failure is not counted: the
// client may have other keys, and the door calls [Service.FailedSSH] once at
// the end.
func (s *Service) SignInSSH(ctx context.Context, in SSHSignIn) (bailey.Actor, SSHGrant, error) {
	fail := func(err error) (bailey.Actor, SSHGrant, error) { return bailey.Actor{}, SSHGrant{}, err }
	if err := s.proven(ctx, in.IP, sshSubject(in.Name)); err != nil {
		return fail(err)
	}
	var found sshFound
	c, err := s.load(ctx, "", errSSHRefused, func() (credential, error) {
		var err error
		found, err = s.findSSH(ctx, in)
		return found.credential, err
	})
	if err != nil {
		return fail(err)
	}
	actor := c.actor(cleanIP(in.IP))
	err = s.record(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.SignIn, Target: audit.Target{Kind: "user", ID: actor.UserID, Name: actor.Name},
		Outcome: audit.Success, Attrs: audit.Attrs{Key: found.grant.Fingerprint, Serial: found.serial},
	})
	if err != nil {
		return fail(err)
	}
	prefix := guard.Prefix(in.IP)
	s.cfg.Guard.Hit(prefix, sshSubject(in.Name))
	s.cfg.Guard.Hit(prefix, anySSH)
	s.touchSSH(ctx, c, actor.IP)
	return actor, found.grant, nil
}

func sshSubject(name string) string { return "ssh:" + name[:min(len(name), 64)] }

// touchSSH notes the use of a key or certificate. That it cannot be stored is
// no reason to refuse.
func (s *Service) touchSSH(ctx context.Context, c credential, ip string) {
	store := s.cfg.Store.TouchSSHKey
	if c.method == MethodSSHCertificate {
		store = s.cfg.Store.TouchSSHCertificate
	}
	if err := store(ctx, c.id, s.cfg.Now(), ip); err != nil && ctx.Err() == nil && bailey.KindOf(err) != bailey.NotFound {
		s.cfg.Log.WarnContext(ctx, "last use of an SSH key was not stored", slog.String("key", c.id), slog.String("error", err.Error()))
	}
}

// SSHActor returns the actor of an open SSH connection with the rights that the
// account has now: groups and role may have changed since the sign-in. Answers
// may be a second old. Unauthenticated when the key, the certificate or the
// account is no longer good.
func (s *Service) SSHActor(ctx context.Context, actor bailey.Actor) (bailey.Actor, error) {
	c, ok := s.live.findID(actor.Session, s.cfg.Now())
	if !ok {
		last, known := s.live.last(actor.Session)
		if !known {
			last = credential{id: actor.Session, method: actor.Method}
		}
		var err error
		c, err = s.load(ctx, "", errSSHRefused, func() (credential, error) { return s.reloadSSH(ctx, actor, last) })
		if err != nil {
			return bailey.Actor{}, err
		}
	}
	if c.user.ID != actor.UserID || c.method != actor.Method {
		return bailey.Actor{}, errSSHRefused()
	}
	return s.admit(ctx, c, actor.IP, errSSHRefused)
}

// reloadSSH reads a key or certificate by its row's id.
func (s *Service) reloadSSH(ctx context.Context, actor bailey.Actor, c credential) (credential, error) {
	var err error
	switch actor.Method {
	case MethodSSHKey:
		var rows []bailey.SSHKey
		rows, err = s.cfg.Store.SSHKeys(ctx, actor.UserID)
		i := slices.IndexFunc(rows, func(k bailey.SSHKey) bool { return k.ID == actor.Session })
		if err == nil && i < 0 {
			return c, errSSHRefused()
		}
		if err == nil {
			c.expires = s.sshEnd(rows[i].ExpiresAt)
		}
	case MethodSSHCertificate:
		var rows []bailey.SSHCertificate
		rows, err = s.cfg.Store.SSHCertificates(ctx, actor.UserID)
		i := slices.IndexFunc(rows, func(k bailey.SSHCertificate) bool { return k.ID == actor.Session && k.RevokedAt.IsZero() })
		if err == nil && i < 0 {
			return c, errSSHRefused()
		}
		if err == nil {
			c.expires = rows[i].ExpiresAt
		}
	default:
		return c, errSSHRefused()
	}
	if err == nil {
		c.user, err = s.cfg.Store.UserByID(ctx, actor.UserID)
		c.user.Groups = slices.Clip(c.user.Groups)
	}
	return c, err
}

// FailedSSH counts and records a connection that ended without a sign-in: once,
// with however many keys it offered, and on the same counters as a wrong
// password.
func (s *Service) FailedSSH(ctx context.Context, name, ip string, offered int) {
	ctx = context.WithoutCancel(ctx) // the client has gone; the failure has not
	a := newAttempt(name, ip)
	v := s.cfg.Guard.Check(a.prefix, a.key)
	if !v.Allowed && v.Report == 0 {
		return
	}
	u, err := s.cfg.Store.UserByName(ctx, lookupName(name))
	if err != nil {
		u = bailey.User{}
	}
	who := s.who(a, u)
	who.Method = MethodSSHKey
	event := audit.Event{
		Actor: who, Action: audit.SignIn, Target: audit.Target{Kind: "user", ID: u.ID, Name: u.Name},
		Outcome: audit.Failure, Reason: audit.BadCredentials, Attrs: audit.Attrs{Count: int64(offered)},
	}
	if v.Allowed {
		s.cfg.Guard.Fail(a.prefix, a.key, u.ID != "")
	} else {
		event.Outcome, event.Reason, event.Attrs.Count = audit.Refused, audit.LockedOut, int64(v.Report)
	}
	s.note(ctx, event)
}

// lookupName keeps what a stranger typed out of the database unless it can be
// a name.
func lookupName(name string) string {
	if bailey.CheckName("user", name) != nil {
		return ""
	}
	return name
}

// sshFound is a key or certificate that is good for the account it was offered
// for.
type sshFound struct {
	credential credential
	grant      SSHGrant
	serial     uint64
}

// findSSH judges a key or certificate and looks up whose it is. All refusals
// are one error to the client; its cause is for the log.
func (s *Service) findSSH(ctx context.Context, in SSHSignIn) (sshFound, error) {
	if in.Key == nil {
		return sshFound{}, refusedSSH(errors.New("no key"))
	}
	if in.Certificate != nil {
		return s.findSSHCertificate(ctx, in)
	}
	key, err := sshkey.ParseWire(in.Key.Marshal())
	if err != nil {
		return sshFound{}, refusedSSH(err)
	}
	row, user, err := s.cfg.Store.SSHKeyByFingerprint(ctx, key.Fingerprint)
	switch {
	case err != nil && bailey.KindOf(err) != bailey.NotFound:
		return sshFound{}, err
	case err != nil:
		return sshFound{}, refusedSSH(errors.New("the key is nobody's"))
	case user.Name != in.Name:
		return sshFound{}, refusedSSH(errors.New("the key is somebody else's"))
	case user.Disabled:
		return sshFound{}, refusedSSH(errors.New("the account is disabled"))
	}
	if err := s.Permitted(user, in.IP); err != nil {
		return sshFound{}, refusedSSH(err)
	}
	end := s.sshEnd(row.ExpiresAt)
	if !s.cfg.Now().Before(end) {
		return sshFound{}, refusedSSH(errors.New("the key has expired"))
	}
	user.Groups = slices.Clip(user.Groups)
	return sshFound{
		credential: credential{id: row.ID, method: MethodSSHKey, user: user, seen: s.cfg.Now(), expires: end},
		grant:      SSHGrant{KeyID: row.ID, KeyName: row.Name, Fingerprint: row.Fingerprint, Expires: row.ExpiresAt},
	}, nil
}

// sshEnd is when a key ends; for one that never does, a time that nobody lives
// to see.
func (s *Service) sshEnd(expires time.Time) time.Time {
	if expires.IsZero() {
		return s.cfg.Now().Add(aLifetime)
	}
	return expires
}

// findSSHCertificate judges a certificate: by the rules of sshkey, and by what
// was noted when it was issued. One that was not issued here is not accepted
// even if our authority signed it.
func (s *Service) findSSHCertificate(ctx context.Context, in SSHSignIn) (sshFound, error) {
	ca, err := s.authority(ctx, "user", false)
	if err != nil {
		if bailey.KindOf(err) == bailey.NotFound {
			err = refusedSSH(errors.New("no certificate was ever issued"))
		}
		return sshFound{}, err
	}
	addr, _ := netip.ParseAddr(in.IP) // none: fits no source-address
	now := s.cfg.Now()
	cert, err := sshkey.Checker{Authorities: [][]byte{ca.Wire()}, Name: in.Name, IP: addr, Now: now}.Check(in.Certificate.Marshal())
	if err != nil {
		return sshFound{}, refusedSSH(err)
	}
	row, user, err := s.cfg.Store.SSHCertificateBySerial(ctx, cert.Serial)
	switch {
	case err != nil && bailey.KindOf(err) != bailey.NotFound:
		return sshFound{}, err
	case err != nil:
		return sshFound{}, refusedSSH(errors.New("the certificate was not issued here"))
	case sshkey.Fingerprint(in.Key.Marshal()) != cert.Key.Fingerprint, row.Fingerprint != cert.Key.Fingerprint:
		return sshFound{}, refusedSSH(errors.New("the certificate is another key's"))
	case user.Name != in.Name:
		return sshFound{}, refusedSSH(errors.New("the certificate is somebody else's"))
	case user.Disabled:
		return sshFound{}, refusedSSH(errors.New("the account is disabled"))
	case !row.RevokedAt.IsZero():
		return sshFound{}, refusedSSH(errors.New("the certificate is revoked"))
	case !now.Before(row.ExpiresAt):
		return sshFound{}, refusedSSH(errors.New("the certificate has expired"))
	}
	if err := s.Permitted(user, in.IP); err != nil {
		return sshFound{}, refusedSSH(err)
	}
	end := row.ExpiresAt
	if cert.Expires.Before(end) {
		end = cert.Expires
	}
	user.Groups = slices.Clip(user.Groups)
	return sshFound{
		credential: credential{id: row.ID, method: MethodSSHCertificate, user: user, seen: now, expires: end},
		grant: SSHGrant{
			KeyID: strconv.FormatUint(cert.Serial, 10) + " " + cert.ID, KeyName: cmp.Or(cert.ID, "certificate"),
			Fingerprint: cert.Key.Fingerprint, Certificate: true,
			ForceCommand: cert.ForceCommand, Expires: end,
			NoPTY: !cert.PTY, NoForwarding: !cert.PortForwarding, NoAgentForwarding: !cert.AgentForwarding,
		},
		serial: cert.Serial,
	}, nil
}

func errSSHRefused() error { return refusedSSH(nil) }

func refusedSSH(cause error) error {
	return &bailey.Error{
		Kind: bailey.Unauthenticated, Msg: "this key is not accepted for this account",
		Hint: `add it on the account page or with "bailey ssh-key add"; "bailey ssh-key ls" shows those that are accepted`, Cause: cause,
	}
}
