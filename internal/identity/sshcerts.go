package identity

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/sshkey"
)

const (
	sshCertificateDefault = 12 * time.Hour
	maxSSHCertificates    = 200 // of one user, valid at a time
)

// NewSSHCertificate is a certificate to be issued.
type NewSSHCertificate struct {
	Line     string        // the public key, as it stands in a .pub file
	Lifetime time.Duration // at most 24 h; 0 means 12 h
	Sources  []string      // addresses and networks it may be used from; empty: any
}

// IssueSSHCertificate signs the actor in for SSH with a key that need not be
// stored: the certificate says who they are for a day at most. Invalid when key,
// lifetime or sources cannot be, OverQuota when too many are valid. It does not
// outlive the token it was asked for with, ends with that token or session, and
// is good from where the token is and from nowhere else.
func (s *Service) IssueSSHCertificate(ctx context.Context, actor bailey.Actor, n NewSSHCertificate) (line string, row bailey.SSHCertificate, err error) {
	fail := func(err error) (string, bailey.SSHCertificate, error) { return "", bailey.SSHCertificate{}, err }
	if err := s.allowSSH(ctx, actor, policy.SSHKeyAdd, actor.UserID); err != nil {
		return fail(err)
	}
	if err := s.Fresh(actor); err != nil {
		return fail(err)
	}
	key, err := sshkey.ParseLine(n.Line)
	if err != nil {
		return fail(err)
	}
	sources, err := certificateSources(actor, n.Sources)
	if err != nil {
		return fail(err)
	}
	row, err = s.newSSHCertificate(ctx, actor, key, n.Lifetime)
	if err != nil {
		return fail(err)
	}
	ca, err := s.authority(ctx, "user", true)
	if err != nil {
		return fail(err)
	}
	wire, err := ca.SignUser(sshkey.UserRequest{
		Key: key, Name: actor.Name, Serial: row.Serial, ID: actor.Name + " " + row.ID, From: row.CreatedAt, Until: row.ExpiresAt, Sources: sources,
	})
	if err != nil {
		return fail(err)
	}
	if line, err = sshkey.Line(wire, actor.Name+"@bailey"); err != nil {
		return fail(err)
	}
	err = s.recorded(ctx, sshCertificateEvent(actor, audit.SSHCertIssue, row), func() error { return s.cfg.Store.CreateSSHCertificate(ctx, row) })
	if err != nil {
		return fail(err)
	}
	return line, row, nil
}

// certificateSources says where a certificate is good from: where it was asked
// for, within the networks of the token that asks. Without that a token that is
// good from one network alone would make itself one that is good from anywhere.
func certificateSources(actor bailey.Actor, want []string) ([]string, error) {
	if len(actor.Networks) == 0 || len(want) == 0 {
		return slices.Concat(want, actor.Networks), nil // one of them has nothing to say
	}
	asked, err := sshkey.ParseSources(want)
	if err != nil {
		return nil, err
	}
	mine, err := sshkey.ParseSources(actor.Networks)
	if err != nil {
		return nil, err // in doubt it is good nowhere
	}
	for _, a := range asked {
		if !slices.ContainsFunc(mine, func(m netip.Prefix) bool { return m.Bits() <= a.Bits() && m.Contains(a.Addr()) }) {
			return nil, &bailey.Error{
				Kind: bailey.Denied, Msg: "a certificate that is asked for with a token is good from no more networks than the token",
				Hint: "ask for networks inside " + strings.Join(actor.Networks, ", "),
			}
		}
	}
	return want, nil
}

func sshCertificateEvent(actor bailey.Actor, action audit.Action, c bailey.SSHCertificate) audit.Event {
	return audit.Event{
		Actor: audit.By(actor), Action: action, Target: audit.Target{Kind: "sshcert", ID: c.ID, Name: clean(actor.Name, 64)},
		Outcome: audit.Success, Attrs: audit.Attrs{Key: c.Fingerprint, Serial: c.Serial},
	}
}

func (s *Service) newSSHCertificate(ctx context.Context, actor bailey.Actor, key sshkey.Key, lifetime time.Duration) (bailey.SSHCertificate, error) {
	none := bailey.SSHCertificate{}
	have, err := s.cfg.Store.SSHCertificates(ctx, actor.UserID)
	if err != nil {
		return none, err
	}
	valid := 0
	for _, c := range have {
		if c.RevokedAt.IsZero() {
			valid++
		}
	}
	if valid >= maxSSHCertificates {
		return none, &bailey.Error{
			Kind: bailey.OverQuota, Msg: fmt.Sprintf("you have %d valid SSH certificates already", valid), Hint: "use one of them, or revoke them",
		}
	}
	switch {
	case lifetime == 0:
		lifetime = sshCertificateDefault
	case lifetime < time.Minute || lifetime > sshkey.MaxCertificate:
		return none, &bailey.Error{Kind: bailey.Invalid, Msg: "an SSH certificate lives for a day at most", Hint: "ask for 1 minute to 24 hours"}
	}
	now := s.cfg.Now().Truncate(time.Second) // certificates know no parts of seconds
	until := now.Add(lifetime)
	limit, err := s.tokenEnd(ctx, actor)
	if err != nil {
		return none, err
	}
	if !limit.IsZero() && limit.Before(until) {
		until = limit.Truncate(time.Second)
	}
	if !now.Before(until) {
		return none, errTokenWrong()
	}
	return bailey.SSHCertificate{
		Serial: newSerial(), ID: bailey.NewID(), UserID: actor.UserID, Fingerprint: key.Fingerprint,
		MadeBy: actor.Session, MadeFrom: cleanIP(actor.IP), CreatedAt: now, ExpiresAt: until,
	}, nil
}

// newSerial returns a random serial of 63 bits, never zero.
func newSerial() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails since Go 1.24
		if n := binary.BigEndian.Uint64(b[:]) >> 1; n != 0 {
			return n
		}
	}
}

// SSHCertificates lists the certificates of the user of that name (empty: the
// actor's own) that have not expired.
func (s *Service) SSHCertificates(ctx context.Context, actor bailey.Actor, owner string) ([]bailey.SSHCertificate, error) {
	userID, err := s.sshOwner(ctx, actor, owner, policy.SSHKeyView)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.SSHCertificates(ctx, userID)
}

// RevokeSSHCertificates revokes the certificate of the serial, or with serial 0
// all, of the user of that name (empty: the actor's own), and ends the
// connections that were made with them. It returns how many there were;
// NotFound when a serial is not theirs or was revoked before. It is done before
// it is recorded.
func (s *Service) RevokeSSHCertificates(ctx context.Context, actor bailey.Actor, owner string, serial uint64) (int, error) {
	userID, err := s.sshOwner(ctx, actor, owner, policy.SSHKeyRemove)
	if err != nil {
		return 0, err
	}
	ids, err := s.revokeCertificates(ctx, userID, serial, "")
	if err != nil {
		return 0, err
	}
	if serial != 0 && len(ids) == 0 {
		return 0, &bailey.Error{Kind: bailey.NotFound, Msg: "there is no such valid certificate", Hint: "list the certificates to see their serials"}
	}
	reason := audit.ByUser
	if userID != actor.UserID {
		reason = audit.ByAdmin
	}
	for _, id := range ids {
		event := sshCertificateEvent(actor, audit.SSHCertRevoke, bailey.SSHCertificate{ID: id, Serial: serial})
		event.Reason = reason
		s.note(ctx, event)
	}
	return len(ids), nil
}

// revokeCertificates revokes and ends.
func (s *Service) revokeCertificates(ctx context.Context, userID string, serial uint64, madeBy string) ([]string, error) {
	ids, err := s.cfg.Store.RevokeSSHCertificates(ctx, userID, serial, madeBy, s.cfg.Now())
	for _, id := range ids {
		s.end(id)
	}
	return ids, err
}

// endCertificatesOf revokes what a session or token that has ended asked for.
func (s *Service) endCertificatesOf(ctx context.Context, userID, id string) {
	if id == "" {
		return
	}
	if _, err := s.revokeCertificates(context.WithoutCancel(ctx), userID, 0, id); err != nil {
		s.cfg.Log.ErrorContext(ctx, "SSH certificates of an ended sign-in were not revoked", slog.String("session", id), slog.String("error", err.Error()))
	}
}
