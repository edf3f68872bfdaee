package identity

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/mutant"
	"github.com/baileyhq/bailey/internal/passkey"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/totp"
)

const (
	maxFactors = 10
	maxApps    = 2 // authenticator apps: each makes guessing that much easier

	// After so many wrong codes in a row, whoever is not on a known browser may
	// try one in half an hour: a code has a million values and three are right.
	freeTries = 10
	slowTry   = 30 * time.Minute
)

func errFactorWrong() error {
	return &bailey.Error{
		Kind: bailey.Unauthenticated, Msg: "that was not right",
		Hint: "a code counts once and for half a minute: wait for the next one; check that the clock of your phone is right",
	}
}

// factorAttempt checks a second factor within the limits of signing in, counts
// and records it. It returns the methods that it proved. purpose is what a
// passkey was asked for.
func (s *Service) factorAttempt(ctx context.Context, a attempt, u bailey.User, f FactorAnswer, purpose string) (string, error) {
	v := s.cfg.Guard.Check(a.prefix, a.key)
	if !v.Allowed {
		return "", s.refused(ctx, a, v)
	}
	event := audit.Event{
		Actor: s.who(a, u), Action: audit.FactorUse, Target: audit.Target{Kind: "user", ID: u.ID, Name: u.Name},
		Attrs: audit.Attrs{Factor: f.kind(), Browser: a.browser},
	}
	methods, why, err := s.checkFactor(ctx, a, u, f, purpose)
	if err != nil {
		s.cfg.Guard.Release(a.prefix, a.key)
		return "", err
	}
	if methods == "" {
		s.cfg.Guard.Fail(a.prefix, a.key, true)
		event.Outcome, event.Reason = audit.Failure, why
		if err := s.record(ctx, event); err != nil {
			return "", err
		}
		if v.Masked {
			return "", errLimited(v.RetryAfter)
		}
		return "", errFactorWrong()
	}
	s.cfg.Guard.Release(a.prefix, a.key) // it succeeds when all of the sign-in does
	event.Outcome, event.Reason, event.Attrs.Methods = audit.Success, why, methods
	if err := s.record(ctx, event); err != nil {
		return "", err
	}
	if err := s.cfg.Store.ClearFactorTries(ctx, u.ID); err != nil {
		return "", err
	}
	return methods, nil
}

// checkFactor returns the methods that the answer proves, or none and why.
func (s *Service) checkFactor(ctx context.Context, a attempt, u bailey.User, f FactorAnswer, purpose string) (methods string, why audit.Reason, err error) {
	switch {
	case len(f.Passkey) > 0:
		return s.checkPasskey(ctx, u, f.Passkey, purpose)
	case !f.Recovery.Empty():
		hash, ok := totp.RecoveryHash(f.Recovery.Reveal())
		if !ok {
			return "", audit.BadCredentials, nil
		}
		first, err := s.cfg.Store.UseRecoveryCode(ctx, u.ID, hash, s.cfg.Now())
		if err != nil || !first {
			return "", audit.BadCredentials, err
		}
		s.tell(ctx, u.ID, "recovery_used", cleanIP(a.ip))
		return byCode + " " + byTwo, "", nil
	}
	return s.checkCode(ctx, a, u, f.Code)
}

func (s *Service) checkCode(ctx context.Context, a attempt, u bailey.User, code secret.Value) (methods string, why audit.Reason, err error) {
	now, free := s.cfg.Now(), freeTries
	if a.browser != "" {
		free = math.MaxInt32 // held to its own failures by guard
	}
	allowed, err := s.cfg.Store.TryFactor(ctx, u.ID, free, now.Add(-slowTry), now)
	if err != nil {
		return "", "", err
	}
	if !allowed {
		return "", "", &bailey.Error{
			Kind: bailey.TooMany, Msg: "too many wrong codes were tried for this account",
			Hint: "use a passkey, a recovery code, or a browser you signed in with before; or try a code again in half an hour", Cause: &RetryError{After: slowTry},
		}
	}
	have, err := s.cfg.Store.Factors(ctx, u.ID)
	if err != nil {
		return "", "", err
	}
	why = audit.BadCredentials
	for _, f := range have {
		if f.Kind != bailey.FactorTOTP {
			continue
		}
		key, err := s.cfg.Store.FactorSecret(ctx, u.ID, f.ID)
		if err != nil {
			return "", "", err
		}
		step, ok := totp.Check(secret.New(key), code.Reveal(), now)
		if !ok {
			continue
		}
		first, err := s.cfg.Store.UseStep(ctx, u.ID, f.ID, step, now)
		if err != nil {
			return "", "", err
		}
		if first || mutant.CodeOnce {
			return byCode + " " + byTwo, "", nil
		}
		why = audit.Replayed
	}
	return "", why, nil
}

func (s *Service) checkPasskey(ctx context.Context, u bailey.User, answer []byte, purpose string) (methods string, why audit.Reason, err error) {
	if s.party == nil {
		return "", "", s.noPasskeys
	}
	read, err := passkey.Read(answer)
	if err != nil {
		return "", audit.BadCredentials, nil //nolint:nilerr // whatever it was, it was no answer
	}
	f, err := s.cfg.Store.FactorByHandle(ctx, read.Handle)
	if bailey.KindOf(err) == bailey.NotFound && err != nil {
		f, err = bailey.Factor{}, nil // nobody's
	}
	if err != nil {
		return "", "", err
	}
	if f.UserID == "" || f.UserID != u.ID {
		return "", audit.BadCredentials, nil
	}
	return s.passkeyProof(ctx, f, read, purpose, false)
}

// passkeyProof checks an answer by a stored key. alone says that nothing else
// was given.
func (s *Service) passkeyProof(ctx context.Context, f bailey.Factor, read passkey.Answer, purpose string, alone bool) (methods string, why audit.Reason, err error) {
	text, err := s.cfg.Store.FactorSecret(ctx, f.UserID, f.ID)
	if err != nil {
		return "", "", err
	}
	now := s.cfg.Now()
	proof, err := s.party.Answered(purpose, f.UserID, passkey.Key{Handle: read.Handle, Credential: text}, read, alone, now)
	if errors.Is(err, passkey.ErrRefused) {
		s.cfg.Log.InfoContext(ctx, "passkey refused", slog.String("user", f.UserID), slog.String("error", err.Error()))
		return "", audit.BadCredentials, nil
	}
	if err != nil {
		return "", "", err
	}
	first, err := s.cfg.Store.SeenOnce(ctx, "passkey answer", secret.New(read.Challenge).Hash(), now.Add(time.Hour))
	if err != nil {
		return "", "", err
	}
	if !first {
		return "", audit.Replayed, nil
	}
	if proof.Cloned {
		// Whichever of the two this is, one of them is not its owner.
		s.cfg.Log.WarnContext(ctx, "passkey refused: its counter went back, so there may be a copy of it", slog.String("user", f.UserID), slog.String("factor", f.ID))
		s.tell(ctx, f.UserID, "passkey_cloned", f.Name)
		return "", audit.Cloned, s.cfg.Store.UsePasskey(ctx, f.UserID, f.ID, text, true, now)
	}
	if err := s.cfg.Store.UsePasskey(ctx, f.UserID, f.ID, proof.Key.Credential, false, now); err != nil {
		return "", "", err
	}
	methods = byPasskey
	if proof.Verified {
		methods += " " + byUser
	}
	return methods + " " + byTwo, "", nil
}

// keysOf returns the stored passkeys of a user.
func (s *Service) keysOf(ctx context.Context, userID string, have []bailey.Factor) ([]passkey.Key, error) {
	var keys []passkey.Key
	for _, f := range have {
		if f.Kind != bailey.FactorPasskey {
			continue
		}
		text, err := s.cfg.Store.FactorSecret(ctx, userID, f.ID)
		if err != nil {
			return nil, err
		}
		keys = append(keys, passkey.Key{Credential: text})
	}
	return keys, nil
}

func (s *Service) askPasskey(ctx context.Context, purpose, userID string, have []bailey.Factor) ([]byte, error) {
	keys, err := s.keysOf(ctx, userID, have)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	return s.party.Ask(purpose, keys, s.cfg.Now())
}

// PasskeyQuestion returns what a browser asks an authenticator for when nobody
// has given a name yet; nothing where passkeys are not possible.
func (s *Service) PasskeyQuestion() ([]byte, error) {
	if s.party == nil {
		return nil, nil
	}
	return s.party.Ask("signin", nil, s.cfg.Now())
}

// SignInWithPasskey signs in with a passkey alone: the authenticator must have
// verified its holder, and says itself whose key it is. The errors are those of
// [Service.SignIn].
func (s *Service) SignInWithPasskey(ctx context.Context, answer []byte, w Where) (Grant[bailey.Session], bailey.User, error) {
	fail := func(err error) (Grant[bailey.Session], bailey.User, error) {
		return Grant[bailey.Session]{}, bailey.User{}, err
	}
	if s.party == nil {
		return fail(s.noPasskeys)
	}
	if err := s.elsewhere(ctx, newAttempt("", w.IP)); err != nil {
		return fail(err)
	}
	read, err := passkey.Read(answer)
	if err != nil {
		return fail(errPasskey())
	}
	f, err := s.cfg.Store.FactorByHandle(ctx, read.Handle)
	known := err == nil
	if err != nil && bailey.KindOf(err) != bailey.NotFound {
		return fail(err)
	}
	var user bailey.User
	name := read.Handle // counted like a name that is no account
	if known {
		if user, err = s.cfg.Store.UserByID(ctx, f.UserID); err != nil {
			return fail(err)
		}
		name = user.Name
	}
	a := s.attempt(ctx, name, w)
	a.method = "passkey"
	v := s.cfg.Guard.Check(a.prefix, a.key)
	if !v.Allowed {
		return fail(s.refused(ctx, a, v))
	}
	methods, why := "", audit.BadCredentials
	if known {
		methods, why, err = s.passkeyProof(ctx, f, read, "signin", true)
		if err != nil {
			s.cfg.Guard.Release(a.prefix, a.key)
			return fail(err)
		}
	}
	switch {
	case methods == "":
		_ = s.failed(ctx, a, v, user, why)
		return fail(errPasskey())
	case user.Disabled:
		_ = s.failed(ctx, a, v, user, audit.AccountDisabled)
		return fail(errPasskey())
	case s.Permitted(user, a.ip) != nil:
		_ = s.failed(ctx, a, v, user, audit.WrongPlace)
		return fail(errPasskey())
	}
	return s.enter(ctx, proof{attempt: a, user: user}, methods, w, entry{by: "passkey"})
}

func errPasskey() error {
	return &bailey.Error{
		Kind: bailey.Unauthenticated, Msg: "this passkey does not sign in here",
		Hint: "try again, or sign in with name and password",
	}
}

// tell leaves a notice for the owner of an account. That it cannot be stored
// stops nothing: the journal has what happened.
func (s *Service) tell(ctx context.Context, userID, what, detail string) {
	n := bailey.Notice{ID: bailey.NewID(), UserID: userID, What: what, Detail: clean(detail, 64), At: s.cfg.Now()}
	if err := s.cfg.Store.AddNotice(context.WithoutCancel(ctx), n); err != nil {
		s.cfg.Log.WarnContext(ctx, "notice lost", slog.String("user", userID), slog.String("what", what), slog.String("error", err.Error()))
	}
}

// Notices lists what the actor was told and has not put away.
func (s *Service) Notices(ctx context.Context, actor bailey.Actor) ([]bailey.Notice, error) {
	userID, err := person(actor)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.Notices(ctx, userID)
}

// PutAwayNotices deletes what the actor was told.
func (s *Service) PutAwayNotices(ctx context.Context, actor bailey.Actor) error {
	userID, err := person(actor)
	if err != nil {
		return err
	}
	return s.cfg.Store.DeleteNotices(ctx, userID)
}

func errNoPasskeys(err error) error {
	return &bailey.Error{
		Kind: bailey.Conflict, Msg: "passkeys are not possible on this server: it has no host name, and browsers do not make passkeys for an IP address",
		Hint: "use an authenticator app; an administrator who gives the server a name makes passkeys possible", Cause: err,
	}
}
