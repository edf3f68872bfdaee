package identity

import (
	"context"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/secret"
)

// Fresh returns nil when the actor proved who they are a short time ago, and
// otherwise an error of kind StepUp that says how to do it. Services and doors
// ask it before what a stolen session must not do: make tokens and keys, share,
// manage accounts and factors.
func (s *Service) Fresh(actor bailey.Actor) error {
	if actor.Method == "system" {
		return nil
	}
	age := s.cfg.Now().Sub(actor.AuthTime)
	if !actor.AuthTime.IsZero() && age <= s.rules().StepUp {
		return nil
	}
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
	s.cfg.Guard.Succeed(a.prefix, a.key)
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.StepUp, Target: audit.Target{Kind: "user", ID: user.ID, Name: user.Name},
		Outcome: audit.Success, Attrs: audit.Attrs{Methods: methods, Device: a.device},
	}
	if err := s.record(ctx, event); err != nil {
		return err
	}
	return s.proved(ctx, actor, methods)
}

// passwordAgain checks the password of somebody who is signed in, within the
// limits of signing in: a stolen cookie is no place to guess from.
func (s *Service) passwordAgain(ctx context.Context, a attempt, user bailey.User, given secret.Value) error {
	v := s.cfg.Guard.Check(a.prefix, a.key)
	if !v.Allowed {
		return s.refused(ctx, a, v)
	}
	stored, err := s.cfg.Store.PasswordHash(ctx, user.ID)
	right := false
	if err == nil {
		right, err = s.matches(ctx, stored, given)
	}
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
	Ask          []byte // for navigator.credentials.get
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
	if info.Passkey && s.party != nil {
		info.Ask, err = s.askPasskey(ctx, "step-up "+actor.Session, actor.UserID, have)
	}
	return info, err
}
