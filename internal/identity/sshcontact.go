package identity

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/sshkey"
)

const (
	contactFor      = 10 * time.Minute // how long a link is good
	contactBindsFor = 24 * time.Hour   // how long a key is bound that is not kept
	contactLength   = 8
	// Crockford's alphabet: no I, L, O and U, so that a code can be read aloud.
	contactLetters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)

// FirstContact returns the address of a page on which the person of that name,
// signed in, can bind an unknown key to their account. Whoever offers the key
// need not own it, nor need there be such a person: the answer is the same for
// every name that can be one and for every key that is strong enough, also for
// those that are bound already. It is empty, without an error, when there is
// nothing to offer: a certificate, a weak key, too many links for the address.
func (s *Service) FirstContact(ctx context.Context, name string, key ssh.PublicKey, ip string) (string, error) {
	if s.cfg.SSHLink == nil || key == nil || bailey.CheckName("user", name) != nil {
		return "", nil //nolint:nilerr // nobody has such a name
	}
	k, err := sshkey.ParseWire(key.Marshal())
	if err != nil {
		return "", nil //nolint:nilerr // it could not be bound
	}
	prefix := guard.Prefix(ip)
	if v := s.cfg.Guard.Lookup(prefix, "first contact"); !v.Allowed {
		return "", nil
	}
	s.cfg.Guard.Miss(prefix) // it costs a row; whoever fills the table is slowed
	code := newCode()
	now := s.cfg.Now()
	err = s.cfg.Store.CreateSSHPending(ctx, bailey.SSHPending{
		Name: name, Type: k.Type, Fingerprint: k.Fingerprint, Wire: k.Wire, IP: cleanIP(ip), CreatedAt: now, ExpiresAt: now.Add(contactFor),
	}, hashCode(code))
	if err != nil {
		return "", err
	}
	return s.cfg.SSHLink(code[:4] + "-" + code[4:]), nil
}

func newCode() string {
	b := make([]byte, contactLength)
	_, _ = rand.Read(b) // never fails since Go 1.24
	for i := range b {
		b[i] = contactLetters[b[i]%32]
	}
	return string(b)
}

// readCode undoes what people do to a code they type; empty when it can be
// none.
func readCode(text string) string {
	if len(text) > 64 {
		return ""
	}
	text = strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(text))
	if len(text) != contactLength || strings.Trim(text, contactLetters) != "" {
		return ""
	}
	return text
}

func hashCode(code string) string { return secret.New("ssh contact " + code).Hash() }

// Contact returns the key that waits under a code for the actor to recognise
// it. NotFound for everybody but the person whose account was named: for them
// there is no such code.
func (s *Service) Contact(ctx context.Context, actor bailey.Actor, code string) (bailey.SSHPending, error) {
	if err := s.allowSSHKey(ctx, actor); err != nil {
		return bailey.SSHPending{}, err
	}
	prefix := guard.Prefix(actor.IP)
	if v := s.cfg.Guard.Lookup(prefix, "contact of "+actor.UserID); !v.Allowed {
		return bailey.SSHPending{}, errLimited(v.RetryAfter)
	}
	known := readCode(code)
	if known == "" {
		return bailey.SSHPending{}, errNoContact()
	}
	p, err := s.cfg.Store.SSHPending(ctx, hashCode(known))
	if err == nil && p.Name == actor.Name {
		return p, nil
	}
	if err != nil && bailey.KindOf(err) != bailey.NotFound {
		return bailey.SSHPending{}, err
	}
	s.cfg.Guard.Miss(prefix)
	return bailey.SSHPending{}, errNoContact()
}

func errNoContact() error {
	return &bailey.Error{
		Kind: bailey.NotFound, Msg: "there is no key waiting under this link: it was used, has expired, or is not for your account",
		Hint: "connect again with ssh to get a fresh link, or add the key on the account page",
	}
}

// BindContact binds the waiting key to the actor's account, for a day or, with
// keep, like a key that was added. typed is what the person read off their own
// terminal: the fingerprint or its last six characters and more. Invalid when
// it is not this key's; NotFound and Conflict like [Service.Contact] and
// [Service.AddSSHKey]. A code binds once.
func (s *Service) BindContact(ctx context.Context, actor bailey.Actor, code, typed string, keep bool) (bailey.SSHKey, error) {
	p, err := s.Contact(ctx, actor, code)
	if err != nil {
		return bailey.SSHKey{}, err
	}
	if err := s.Fresh(actor); err != nil {
		return bailey.SSHKey{}, err
	}
	if !fingerprintMatches(p.Fingerprint, typed) {
		s.cfg.Guard.Miss(guard.Prefix(actor.IP))
		return bailey.SSHKey{}, &bailey.Error{
			Kind: bailey.Invalid, Msg: "this is not the fingerprint of the key that waits here",
			Hint: "type the last six characters that your own terminal shows (ssh-keygen -lf FILE.pub); if they differ from this page, refuse the key: somebody else is trying to use your account",
		}
	}
	key, err := sshkey.ParseWire(p.Wire)
	if err != nil {
		return bailey.SSHKey{}, err
	}
	lifetime := contactBindsFor
	if keep {
		lifetime = 0
	}
	key.Comment = "first used from " + p.IP
	row, err := s.newSSHKey(ctx, actor, key, "", lifetime)
	if err != nil {
		return bailey.SSHKey{}, err
	}
	event := sshKeyEvent(actor, audit.SSHKeyAdd, row)
	event.Reason = audit.FirstContact
	err = s.recorded(ctx, event, func() error { return s.cfg.Store.FinishSSHPending(ctx, hashCode(readCode(code)), row) })
	if bailey.KindOf(err) == bailey.NotFound && err != nil {
		err = errNoContact()
	}
	if err != nil {
		return bailey.SSHKey{}, err
	}
	return row, nil
}

// RefuseContact throws the waiting key away, and records that its owner did not
// know it.
func (s *Service) RefuseContact(ctx context.Context, actor bailey.Actor, code string) error {
	p, err := s.Contact(ctx, actor, code)
	if err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteSSHPending(ctx, hashCode(readCode(code))); err != nil {
		return err
	}
	s.note(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.SSHKeyAdd, Target: audit.Target{Kind: "sshkey", Name: p.IP}, Outcome: audit.Refused,
		Reason: audit.FirstContact, Attrs: audit.Attrs{Key: p.Fingerprint},
	})
	return nil
}
