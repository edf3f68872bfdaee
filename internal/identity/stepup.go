package identity

import (
	"context"
	"slices"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/mutant"
	"github.com/baileyhq/bailey/internal/secret"
)

// Fresh returns nil when the actor proved who they are a short time ago, and
// otherwise an error of kind StepUp that says how to do it. Services and doors
// ask it before what a stolen session must not do: make tokens and keys, approve
// devices, link and manage accounts.
//
// API tokens are not asked: they hold scopes, which a person gave them after
// such a proof, and what is made with a token ends with it. A program has nobody
// who could prove anything.
func (s *Service) Fresh(actor bailey.Actor) error {
	if actor.Method == "system" || actor.Method == "token" || s.proofIsFresh(actor) {
		return nil
	}
	return errStepUp()
}

// freshProof is Fresh for what takes a person whatever the credential: changing
// second factors. A token may stand for one who proved it with [Service.StepUp].
func (s *Service) freshProof(actor bailey.Actor) error {
	if s.proofIsFresh(actor) {
		return nil
	}
	return errStepUp()
}

func (s *Service) proofIsFresh(actor bailey.Actor) bool {
	if mutant.StepUp {
		return true
	}
	age := s.cfg.Now().Sub(actor.AuthTime)
	return !actor.AuthTime.IsZero() && age >= 0 && age <= s.rules().StepUp
}

func errStepUp() error {
	return &bailey.Error{
		Kind: bailey.StepUp, Msg: "this takes a fresh proof of who you are",
		Hint: "confirm it with your second factor or password, then do it again",
	}
}

// A StepUpAnswer is how somebody who is signed in proves again who they are:
// with a second factor or, when they have none, with the password.
type StepUpAnswer struct {
	FactorAnswer

	Password secret.Value
}

// StepUp proves again who the actor is, within the limits of signing in. It
// makes their session or token fresh for [Rules.StepUp]. Unauthenticated when
// the answer is wrong, SecondFactor when a password is given and not enough.
func (s *Service) StepUp(ctx context.Context, actor bailey.Actor, answer StepUpAnswer, w Where) error {
	if actor.UserID == "" || actor.Session == "" {
		return errSignedOut()
	}
	user, err := s.cfg.Store.UserByID(ctx, actor.UserID)
	if err != nil {
		return err
	}
	if user.Service {
		return &bailey.Error{
			Kind: bailey.Denied, Msg: "a service account has nobody who could prove anything: its tokens hold scopes",
			Hint: "do this as a person",
		}
	}
	a := s.attempt(ctx, user.Name, w)
	have, err := s.cfg.Store.Factors(ctx, user.ID)
	if err != nil {
		return err
	}
	methods := ""
	switch {
	case !answer.empty():
		methods, err = s.factorAttempt(ctx, a, user, answer.FactorAnswer, "step-up "+actor.Session)
	case len(have) > 0:
		err = &bailey.Error{
			Kind: bailey.SecondFactor, Msg: "your account has a second factor, so that is what is asked for",
			Hint: "give a code of your authenticator app or a recovery code; passkeys work in the browser",
		}
	default:
		methods, err = byPassword, s.passwordAgain(ctx, a, user, answer.Password)
	}
	if err != nil {
		return err
	}
	s.succeed(a)
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.StepUp, Target: audit.Target{Kind: "user", ID: user.ID, Name: user.Name},
		Outcome: audit.Success, Attrs: audit.Attrs{Methods: methods, Browser: a.browser},
	}
	if err := s.record(ctx, event); err != nil {
		return err
	}
	return s.proved(ctx, actor, methods)
}

// StepUpExternal is StepUp for an account that an identity provider vouches for,
// which has just asked its owner anew. Denied when that was somebody else;
// SecondFactor when the account has one here, which a provider is no way around.
func (s *Service) StepUpExternal(ctx context.Context, actor bailey.Actor, p external.Person) error {
	if actor.UserID == "" || actor.Session == "" || actor.Method == "token" {
		return errSignedOut()
	}
	user, err := s.cfg.Store.UserByID(ctx, actor.UserID)
	if err != nil {
		return err
	}
	have, err := s.cfg.Store.Factors(ctx, user.ID)
	if err != nil {
		return err
	}
	if len(have) > 0 {
		return &bailey.Error{Kind: bailey.SecondFactor, Msg: "your account has a second factor, so that is what is asked for", Hint: "give a code or use your passkey"}
	}
	ties, err := s.cfg.Store.Externals(ctx, user.ID)
	if err != nil {
		return err
	}
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.StepUp, Target: audit.Target{Kind: "user", ID: user.ID, Name: user.Name},
		Outcome: audit.Success, Attrs: audit.Attrs{Source: p.Source, Methods: byPassword},
	}
	if !slices.ContainsFunc(ties, func(t bailey.External) bool {
		return t.Source == p.Source && t.Issuer == p.Issuer && t.Subject == p.Subject
	}) {
		event.Outcome, event.Reason = audit.Failure, audit.BadCredentials
		if err := s.record(ctx, event); err != nil {
			return err
		}
		return &bailey.Error{Kind: bailey.Denied, Msg: "that is another account than the one you are signed in with", Hint: "sign in there as yourself"}
	}
	if err := s.record(ctx, event); err != nil {
		return err
	}
	return s.proved(ctx, actor, byPassword)
}

// passwordAgain checks the password of somebody who is signed in, within the
// limits of signing in: a stolen cookie is no place to guess from.
func (s *Service) passwordAgain(ctx context.Context, a attempt, user bailey.User, given secret.Value) error {
	v := s.cfg.Guard.Check(a.prefix, a.key)
	if !v.Allowed {
		return s.refused(ctx, a, v)
	}
	right, err := s.passwordOf(ctx, user, given)
	if err != nil || right {
		s.cfg.Guard.Release(a.prefix, a.key)
		return err
	}
	s.cfg.Guard.Fail(a.prefix, a.key, true)
	err = s.record(ctx, audit.Event{
		Actor: s.who(a, user), Action: audit.StepUp, Target: audit.Target{Kind: "user", ID: user.ID, Name: user.Name},
		Outcome: audit.Failure, Reason: audit.BadCredentials,
	})
	if err != nil {
		return err
	}
	return &bailey.Error{Kind: bailey.Unauthenticated, Msg: "the password is wrong", Hint: "check it and try again"}
}

// passwordOf compares the password with what is stored here or, for an account
// of a directory, has the directory do it.
func (s *Service) passwordOf(ctx context.Context, user bailey.User, given secret.Value) (bool, error) {
	stored, err := s.cfg.Store.PasswordHash(ctx, user.ID)
	if err != nil && bailey.KindOf(err) != bailey.NotFound {
		return false, err
	}
	if err == nil && stored != "" {
		return s.matches(ctx, stored, given)
	}
	dir, tie, err := s.directoryOf(ctx, user.ID)
	if err != nil {
		return false, err
	}
	if dir == nil {
		return false, &bailey.Error{
			Kind: bailey.Denied, Msg: "your account has no password that could be asked for here",
			Hint: "sign out and in again: that is a fresh proof; or set up a second factor on the account page",
		}
	}
	e, ok, err := dir.Find(ctx, tie.Login)
	if err != nil {
		return false, err
	}
	if !ok || e.Issuer != tie.Issuer || e.Subject != tie.Subject {
		return false, nil
	}
	right, err := dir.Check(ctx, e, given)
	return right && err == nil && !e.Locked, err
}

// directoryOf returns the directory that has the user's password; nil when none
// does.
func (s *Service) directoryOf(ctx context.Context, userID string) (Directory, bailey.External, error) {
	if len(s.cfg.Directories) == 0 {
		return nil, bailey.External{}, nil
	}
	ties, err := s.cfg.Store.Externals(ctx, userID)
	if err != nil {
		return nil, bailey.External{}, err
	}
	for _, tie := range ties {
		for _, d := range s.cfg.Directories {
			if d.Source() == tie.Source {
				return d, tie, nil
			}
		}
	}
	return nil, bailey.External{}, nil
}

// proved notes that the actor proved who they are just now.
func (s *Service) proved(ctx context.Context, actor bailey.Actor, methods string) error {
	store := s.cfg.Store.ProveSession
	if actor.Method == "token" {
		store = s.cfg.Store.ProveToken
	}
	if err := store(ctx, actor.UserID, actor.Session, strings.TrimSpace(methods), s.cfg.Now()); err != nil {
		if bailey.KindOf(err) == bailey.NotFound {
			err = errSignedOut()
		}
		return err
	}
	s.live.forget(actor.Session) // the next request reads it anew
	return nil
}

// StepUpInfo is what a page needs to ask for the proof.
type StepUpInfo struct {
	App, Passkey bool   // which kinds of factor there are; neither: the password
	Password     bool   // whether there is one to ask for
	Ask          []byte // for navigator.credentials.get

	// Sources are where else they have an account, "oidc:corp": with neither
	// factor nor password, a provider among them can vouch.
	Sources []string
}

// StepUpQuestion says how the actor can prove who they are.
func (s *Service) StepUpQuestion(ctx context.Context, actor bailey.Actor) (StepUpInfo, error) {
	info := StepUpInfo{}
	if actor.UserID == "" {
		return info, errSignedOut()
	}
	have, err := s.cfg.Store.Factors(ctx, actor.UserID)
	if err != nil {
		return info, err
	}
	for _, f := range have {
		info.App = info.App || f.Kind == bailey.FactorTOTP
		info.Passkey = info.Passkey || f.Kind == bailey.FactorPasskey
	}
	if len(have) == 0 {
		stored, err := s.cfg.Store.PasswordHash(ctx, actor.UserID)
		if err != nil && bailey.KindOf(err) != bailey.NotFound {
			return info, err
		}
		dir, _, err := s.directoryOf(ctx, actor.UserID)
		if err != nil {
			return info, err
		}
		info.Password = stored != "" || dir != nil
		if !info.Password {
			ties, err := s.cfg.Store.Externals(ctx, actor.UserID)
			if err != nil {
				return info, err
			}
			for _, tie := range ties {
				info.Sources = append(info.Sources, tie.Source)
			}
		}
	}
	if info.Passkey && s.party != nil {
		info.Ask, err = s.askPasskey(ctx, "step-up "+actor.Session, actor.UserID, have)
	}
	return info, err
}
