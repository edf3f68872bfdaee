package identity

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/sshkey"
)

const (
	sshKeyDefault = 365 * 24 * time.Hour
	// SSHKeyWarning is how long before its end the owner of a key is told.
	SSHKeyWarning = 14 * 24 * time.Hour
	maxSSHKeys    = 50 // of one user
)

// NewSSHKey is a key to be added.
type NewSSHKey struct {
	Line     string        // as it stands in a .pub file
	Name     string        // empty: from the key's comment
	Lifetime time.Duration // 0 means a year, or what is allowed if that is less
}

// AddSSHKey adds a key to the actor's account. Invalid when it cannot be one or
// is too weak, Conflict when it is in use (by whomever) or the name is taken,
// OverQuota when there are too many. A key that is added with an API token does
// not outlive the token: whoever steals one for a day gets in for a day.
func (s *Service) AddSSHKey(ctx context.Context, actor bailey.Actor, n NewSSHKey) (bailey.SSHKey, error) {
	if err := s.allowSSHKey(ctx, actor); err != nil {
		return bailey.SSHKey{}, err
	}
	if err := s.Fresh(actor); err != nil {
		return bailey.SSHKey{}, err
	}
	key, err := sshkey.ParseLine(n.Line)
	if err != nil {
		return bailey.SSHKey{}, err
	}
	row, err := s.newSSHKey(ctx, actor, key, n.Name, n.Lifetime)
	if err != nil {
		return bailey.SSHKey{}, err
	}
	err = s.recorded(ctx, sshKeyEvent(actor, audit.SSHKeyAdd, row), func() error { return s.cfg.Store.CreateSSHKey(ctx, row) })
	if err != nil {
		return bailey.SSHKey{}, err
	}
	return row, nil
}

func sshKeyEvent(actor bailey.Actor, action audit.Action, k bailey.SSHKey) audit.Event {
	return audit.Event{
		Actor: audit.By(actor), Action: action, Target: audit.Target{Kind: "sshkey", ID: k.ID, Name: clean(k.Name, 64)},
		Outcome: audit.Success, Attrs: audit.Attrs{Key: k.Fingerprint},
	}
}

// allowSSHKey refuses who may add no key to their account: a key is good from
// everywhere, so a token that is not must not make one.
func (s *Service) allowSSHKey(ctx context.Context, actor bailey.Actor) error {
	if err := s.allowSSH(ctx, actor, policy.SSHKeyAdd, actor.UserID); err != nil {
		return err
	}
	if len(actor.Networks) > 0 {
		return &bailey.Error{
			Kind: bailey.Denied, Msg: "a token that is good from some networks alone cannot add SSH keys, which are good from everywhere",
			Hint: "get a certificate with it, which is bound to the same networks: bailey ssh login",
		}
	}
	return nil
}

// allowSSH refuses what policy refuses about the SSH keys of a user.
func (s *Service) allowSSH(ctx context.Context, actor bailey.Actor, action policy.Action, ownerID string) error {
	if actor.UserID == "" {
		return errSignedOut()
	}
	if policy.Decide(actor, action, policy.Thing{OwnerID: ownerID}) {
		return nil
	}
	s.note(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.AccessDenied, Target: audit.Target{Kind: "sshkey"}, Outcome: audit.Refused, Reason: audit.NotAllowed,
	})
	if ownerID == actor.UserID {
		return errScope(bailey.ScopeSSH)
	}
	return &bailey.Error{Kind: bailey.Denied, Msg: "you may not manage SSH keys of others", Hint: "ask an administrator"}
}

// newSSHKey checks what can be checked before the store decides, and returns
// the row.
func (s *Service) newSSHKey(ctx context.Context, actor bailey.Actor, key sshkey.Key, name string, lifetime time.Duration) (bailey.SSHKey, error) {
	have, err := s.cfg.Store.SSHKeys(ctx, actor.UserID)
	if err != nil {
		return bailey.SSHKey{}, err
	}
	if len(have) >= maxSSHKeys {
		return bailey.SSHKey{}, &bailey.Error{
			Kind: bailey.OverQuota, Msg: fmt.Sprintf("you have %d SSH keys already", len(have)), Hint: "remove those that you no longer use",
		}
	}
	if i := slices.IndexFunc(have, func(k bailey.SSHKey) bool { return k.Fingerprint == key.Fingerprint }); i >= 0 {
		return bailey.SSHKey{}, &bailey.Error{
			Kind: bailey.Conflict, Msg: "you have this key already: it is called " + have[i].Name,
			Hint: "to give it a later end, remove it and add it again; better, make a new one",
		}
	}
	expires, err := s.sshKeyEnd(ctx, actor, lifetime)
	if err != nil {
		return bailey.SSHKey{}, err
	}
	if name, err = sshKeyName(have, name, key.Comment); err != nil {
		return bailey.SSHKey{}, err
	}
	return bailey.SSHKey{
		ID: bailey.NewID(), UserID: actor.UserID, Name: name, Type: key.Type, Fingerprint: key.Fingerprint, Wire: key.Wire,
		Comment: key.Comment, CreatedAt: s.cfg.Now(), ExpiresAt: expires,
	}, nil
}

// sshKeyEnd returns when a new key ends.
func (s *Service) sshKeyEnd(ctx context.Context, actor bailey.Actor, lifetime time.Duration) (time.Time, error) {
	asked := lifetime != 0
	switch {
	case !asked:
		lifetime = min(sshKeyDefault, s.cfg.SSHKeyLifetime)
	case lifetime < 0, lifetime > s.cfg.SSHKeyLifetime:
		days := int(s.cfg.SSHKeyLifetime / (24 * time.Hour))
		return time.Time{}, &bailey.Error{
			Kind: bailey.Invalid, Msg: "an SSH key lives for " + count(days, "day") + " at most here", Hint: fmt.Sprintf("ask for 1 to %d days", days),
		}
	}
	expires := s.cfg.Now().Add(lifetime)
	limit, err := s.tokenEnd(ctx, actor)
	switch {
	case err != nil:
		return expires, err
	case limit.IsZero(), !limit.Before(expires):
		return expires, nil
	case asked:
		return expires, &bailey.Error{
			Kind: bailey.Denied, Msg: "a key that is added with an API token cannot outlive it: this one ends " + limit.UTC().Format(time.DateTime) + " UTC",
			Hint: "ask for fewer days, or add the key on the account page",
		}
	}
	return limit, nil
}

// tokenEnd returns when the token ends that the actor came with; zero for
// whoever came without.
func (s *Service) tokenEnd(ctx context.Context, actor bailey.Actor) (time.Time, error) {
	if actor.Method != "token" {
		return time.Time{}, nil
	}
	token, _, user, err := s.cfg.Store.TokenByID(ctx, actor.Session)
	switch {
	case err != nil && bailey.KindOf(err) != bailey.NotFound:
		return time.Time{}, err
	case err != nil, user.ID != actor.UserID:
		return time.Time{}, errTokenWrong()
	}
	return token.ExpiresAt, nil
}

// sshKeyName returns the name for a new key: the one that was asked for, or one
// that is free.
func sshKeyName(have []bailey.SSHKey, asked, comment string) (string, error) {
	taken := func(name string) bool {
		return slices.ContainsFunc(have, func(k bailey.SSHKey) bool { return k.Name == name })
	}
	if asked != "" {
		name := clean(asked, 64)
		switch {
		case name == "":
			return "", &bailey.Error{Kind: bailey.Invalid, Msg: "the name of the key has no letters in it", Hint: "call it after the machine that it is on"}
		case taken(name):
			return "", &bailey.Error{Kind: bailey.Conflict, Msg: "you have a key called " + name + " already", Hint: "choose another name, or remove that key first"}
		}
		return name, nil
	}
	base := cmp.Or(clean(comment, 56), "key")
	for n, name := 2, base; ; n++ {
		if !taken(name) {
			return name, nil
		}
		name = fmt.Sprintf("%s %d", base, n)
	}
}

// SSHKeys lists the keys of the user of that name; an empty name is the actor's
// own. Denied for other people's, but for administrators and auditors.
func (s *Service) SSHKeys(ctx context.Context, actor bailey.Actor, owner string) ([]bailey.SSHKey, error) {
	userID, err := s.sshOwner(ctx, actor, owner, policy.SSHKeyView)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.SSHKeys(ctx, userID)
}

// sshOwner returns the id of the user whose keys are meant, if the actor may.
func (s *Service) sshOwner(ctx context.Context, actor bailey.Actor, owner string, action policy.Action) (string, error) {
	if owner == "" || owner == actor.Name {
		return actor.UserID, s.allowSSH(ctx, actor, action, actor.UserID)
	}
	// Asked before it is known whether there is such a user: whoever may not
	// learns nothing of it.
	if err := s.allowSSH(ctx, actor, action, "another"); err != nil {
		return "", err
	}
	u, err := s.byName(ctx, owner)
	return u.ID, err
}

// RenameSSHKey gives one of the actor's keys another name.
func (s *Service) RenameSSHKey(ctx context.Context, actor bailey.Actor, id, name string) (bailey.SSHKey, error) {
	k, err := s.oneSSHKey(ctx, actor, "", id, policy.SSHKeyAdd)
	if err != nil {
		return bailey.SSHKey{}, err
	}
	if name = clean(name, 64); name == "" {
		return bailey.SSHKey{}, &bailey.Error{Kind: bailey.Invalid, Msg: "the name of the key has no letters in it", Hint: "call it after the machine that it is on"}
	}
	if name == k.Name {
		return k, nil
	}
	k.Name = name
	return k, s.recorded(ctx, sshKeyEvent(actor, audit.SSHKeyRename, k), func() error {
		return s.cfg.Store.RenameSSHKey(ctx, k.UserID, k.ID, name)
	})
}

// RemoveSSHKey removes a key of the user of that name (empty: the actor's own)
// and ends the connections that were made with it. Like every ending of access
// it is done before it is recorded.
func (s *Service) RemoveSSHKey(ctx context.Context, actor bailey.Actor, owner, id string) error {
	k, err := s.oneSSHKey(ctx, actor, owner, id, policy.SSHKeyRemove)
	if err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteSSHKey(ctx, k.UserID, k.ID); err != nil {
		return err
	}
	s.end(k.ID)
	event := sshKeyEvent(actor, audit.SSHKeyRemove, k)
	event.Reason = audit.ByUser
	if k.UserID != actor.UserID {
		event.Reason = audit.ByAdmin
	}
	s.note(ctx, event)
	return nil
}

// oneSSHKey finds a key of a user by its id.
func (s *Service) oneSSHKey(ctx context.Context, actor bailey.Actor, owner, id string, action policy.Action) (bailey.SSHKey, error) {
	userID, err := s.sshOwner(ctx, actor, owner, action)
	if err != nil {
		return bailey.SSHKey{}, err
	}
	all, err := s.cfg.Store.SSHKeys(ctx, userID)
	if err != nil {
		return bailey.SSHKey{}, err
	}
	i := slices.IndexFunc(all, func(k bailey.SSHKey) bool { return k.ID == id })
	if i < 0 {
		return bailey.SSHKey{}, &bailey.Error{Kind: bailey.NotFound, Msg: "there is no such SSH key", Hint: "list the keys to see their names"}
	}
	return all[i], nil
}

// SSHReminder says that a key will end soon or has ended; empty when there is
// nothing to say yet.
func SSHReminder(k bailey.SSHKey, now time.Time) string {
	left := k.ExpiresAt.Sub(now)
	switch {
	case k.ExpiresAt.IsZero(), left > SSHKeyWarning:
		return ""
	case left <= 0:
		return "has expired: add a new key and remove this one"
	case left < 48*time.Hour:
		return "expires in " + count(max(1, int(left/time.Hour)), "hour") + ": add a new key"
	}
	return "expires in " + count(int(left/(24*time.Hour)), "day") + ": add a new key"
}

// RemindSSH records, once for each, the keys that end within [SSHKeyWarning],
// so that alerts can be made of it. It is called from time to time.
func (s *Service) RemindSSH(ctx context.Context) error {
	now := s.cfg.Now()
	soon, err := s.cfg.Store.ExpiringSSHKeys(ctx, now.Add(SSHKeyWarning))
	if err != nil {
		return err
	}
	for _, k := range soon {
		owner, err := s.cfg.Store.UserByID(ctx, k.UserID)
		if err != nil {
			continue // deleted meanwhile
		}
		first, err := s.cfg.Store.RemindSSHKey(ctx, k.ID, now)
		if err != nil {
			return err
		}
		if !first {
			continue
		}
		event := sshKeyEvent(bailey.System(), audit.SSHKeyExpiring, k)
		event.Target.Name = clean(owner.Name+"/"+k.Name, 64)
		event.Attrs.Count = int64(k.ExpiresAt.Sub(now) / (24 * time.Hour)) // days
		if err := s.record(ctx, event); err != nil {
			return err
		}
	}
	return nil
}

// RunSSH reminds every hour until ctx ends.
func (s *Service) RunSSH(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := s.RemindSSH(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.WarnContext(ctx, "ends of SSH keys were not announced", slog.String("error", err.Error()))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// fingerprintMatches reports whether somebody typed this fingerprint: whole, or
// its last characters, six at least.
func fingerprintMatches(fingerprint, typed string) bool {
	typed = strings.TrimSpace(typed)
	if typed == fingerprint {
		return true
	}
	return len(typed) >= 6 && len(typed) <= len(fingerprint) && strings.HasSuffix(fingerprint, typed)
}
