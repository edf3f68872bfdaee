package identity

import (
	"context"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/secret"
)

// BeginSetup makes a new one-time set-up secret when there is no user yet, and
// returns it; an empty secret when set-up is done. A former one is void.
func (s *Service) BeginSetup(ctx context.Context) (secret.Value, error) {
	pending, err := s.SetupPending(ctx)
	if err != nil || !pending {
		return secret.Value{}, err
	}
	setup := secret.Random(32)
	if err := s.cfg.Store.SetSetup(ctx, setup.Hash(), s.cfg.Now().Add(s.cfg.SetupLifetime)); err != nil {
		return secret.Value{}, err
	}
	return setup, nil
}

// SetupPending reports whether there is no account yet.
func (s *Service) SetupPending(ctx context.Context) (bool, error) {
	n, err := s.cfg.Store.CountUsers(ctx)
	return err == nil && n == 0, err
}

// FinishSetup consumes the set-up secret and makes the first administrator.
// Conflict when set-up is done, Unauthenticated when the secret is wrong, was
// used or has expired, TooMany when that was tried too often, Invalid when name
// or password cannot be; the secret is not consumed then.
func (s *Service) FinishSetup(ctx context.Context, setup secret.Value, name string, password secret.Value, ip, userAgent string) (Grant[bailey.Session], bailey.User, error) {
	fail := func(err error) (Grant[bailey.Session], bailey.User, error) {
		return Grant[bailey.Session]{}, bailey.User{}, err
	}
	if pending, err := s.SetupPending(ctx); err != nil {
		return fail(err)
	} else if !pending {
		return fail(errSetUp())
	}
	a := newAttempt(name, ip)
	right, err := s.checkSetup(ctx, a, setup)
	if err != nil {
		return fail(err)
	}
	if !right {
		return fail(errSetupWrong())
	}
	user, err := s.firstAdmin(ctx, setup, name, password, audit.Event{
		Actor: audit.Actor{Name: clean(name, 64), Method: "setup", IP: a.ip}, Action: audit.SetupDone,
	})
	if err != nil {
		return fail(err)
	}
	return s.enter(ctx, proof{attempt: a, user: user, password: password}, byPassword, Where{IP: ip, UserAgent: userAgent, Cookies: true}, entry{by: "setup"})
}

// checkSetup compares the secret with the pending one. Nobody can guess it, so
// whoever tries is slowed and recorded, not banned, and strangers who try from
// elsewhere do not use up what the person with the link may try.
func (s *Service) checkSetup(ctx context.Context, a attempt, setup secret.Value) (bool, error) {
	if v := s.cfg.Guard.Lookup(a.prefix, "set-up"); !v.Allowed {
		return false, errLimited(v.RetryAfter)
	}
	hash, expires, err := s.cfg.Store.Setup(ctx)
	if err != nil && bailey.KindOf(err) != bailey.NotFound {
		return false, err
	}
	if err == nil && secret.New(hash).Equal(secret.New(setup.Hash())) && s.cfg.Now().Before(expires) {
		return true, nil
	}
	if n := s.cfg.Guard.Miss(a.prefix); n > 0 {
		s.note(ctx, audit.Event{
			Actor:  audit.Actor{Method: "setup", IP: a.ip},
			Action: audit.SetupDone, Outcome: audit.Failure, Reason: audit.BadCredentials, Attrs: audit.Attrs{Count: int64(n)},
		})
	}
	return false, nil
}

// firstAdmin makes the first administrator with a set-up secret that is
// pending. The store decides in one transaction that it is the first.
func (s *Service) firstAdmin(ctx context.Context, setup secret.Value, name string, password secret.Value, event audit.Event) (bailey.User, error) {
	if err := checkNewName(name); err != nil {
		return bailey.User{}, err
	}
	if err := s.checkPassword(name, password); err != nil {
		return bailey.User{}, err
	}
	hash, err := s.hash(ctx, password)
	if err != nil {
		return bailey.User{}, err
	}
	event.Target = audit.Target{Kind: "user", Name: name}
	event.Attrs.Role, event.Outcome = string(bailey.RoleAdmin), audit.Success
	if err := s.record(ctx, event); err != nil {
		return bailey.User{}, err
	}
	user, err := s.cfg.Store.FinishSetup(ctx, setup.Hash(), bailey.User{Name: name, Role: bailey.RoleAdmin, Groups: []string{}}, hash)
	if err != nil {
		event.Outcome = audit.Failure
		s.note(ctx, event)
		return bailey.User{}, err
	}
	return user, nil
}

// EnsureAdmin makes the first administrator with this password, or, when there
// is an account already, does nothing: for automation (--admin-password-file).
// It never changes a password and never brings back an administrator who was
// deleted, so the file may stay where it is. Invalid when name or password
// cannot be.
func (s *Service) EnsureAdmin(ctx context.Context, name string, password secret.Value) error {
	pending, err := s.SetupPending(ctx)
	if err != nil || !pending {
		return err
	}
	// The same way as a person with the link, so that only one of them can be
	// the first.
	setup, err := s.BeginSetup(ctx)
	if err != nil || setup.Empty() {
		return err
	}
	_, err = s.firstAdmin(ctx, setup, name, password, audit.Event{Actor: audit.By(bailey.System()), Action: audit.UserCreate})
	if err != nil && bailey.KindOf(err) == bailey.Conflict {
		if pending, again := s.SetupPending(ctx); again == nil && !pending {
			return nil // somebody with the link was faster
		}
	}
	return err
}

func errSetUp() error {
	return &bailey.Error{
		Kind: bailey.Conflict, Msg: "this server is set up already",
		Hint: "sign in, or ask an administrator for an account",
	}
}

func errSetupWrong() error {
	return &bailey.Error{
		Kind: bailey.Unauthenticated, Msg: "this set-up link is not valid: it was used, replaced, or has expired",
		Hint: "restart bailey on the server: it prints a fresh link",
	}
}

// checkNewName is [bailey.CheckName] without the names that stand for bailey
// itself in the audit log.
func checkNewName(name string) error {
	if err := bailey.CheckName("user", name); err != nil {
		return err
	}
	if name == bailey.System().Name || name == "system" {
		return &bailey.Error{
			Kind: bailey.Invalid, Msg: "the user name " + name + " is reserved: it stands for the server itself in the audit journal",
			Hint: "choose another name",
		}
	}
	return nil
}
