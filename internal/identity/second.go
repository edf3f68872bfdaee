package identity

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/secret"
)

// A Where is the other end of a request, as its door determined it.
type Where struct {
	IP        string
	UserAgent string
	Browser   bool           // keeps cookies: may be remembered as a device
	Devices   []secret.Value // what its cookie says; see [DeviceSecrets]
}

// A Step is what a sign-in still needs before there is a session.
type Step string

// The steps, in their order.
const (
	StepFactor   Step = "factor"   // a second factor, of those that were set up
	StepEnrol    Step = "enrol"    // a second factor has to be set up now
	StepPassword Step = "password" // the password is too old and has to be changed
)

// A StepError is the Cause of the error of a sign-in that is right so far. There
// is no session yet; Ticket opens the next step and nothing else, for ten
// minutes and five tries.
type StepError struct {
	Step   Step
	Ticket secret.Value // empty where there is no way to go on
	Name   string
}

// Error implements error.
func (e *StepError) Error() string {
	return "sign-in of " + e.Name + " needs the step " + string(e.Step)
}

const (
	pendingFor = 10 * time.Minute
	maxTries   = 5 // codes for one ticket
)

// The methods of authentication, as RFC 8176 calls them.
const (
	byPassword = "pwd"
	byCode     = "otp"
	byPasskey  = "hwk"
	byUser     = "user" // the authenticator saw its holder
	byTwo      = "mfa"
)

// nextStep returns what is missing after the methods, or nothing.
func (s *Service) nextStep(ctx context.Context, u bailey.User, methods string) (Step, error) {
	proved, rules := strings.Fields(methods), s.rules()
	if !slices.Contains(proved, byTwo) {
		have, err := s.cfg.Store.Factors(ctx, u.ID)
		switch {
		case err != nil:
			return "", err
		case len(have) > 0:
			return StepFactor, nil
		case rules.needsFactor(u):
			return StepEnrol, nil
		}
	}
	if rules.MaxAge > 0 && slices.Contains(proved, byPassword) {
		at, err := s.cfg.Store.PasswordSetAt(ctx, u.ID)
		if err != nil {
			return "", err
		}
		if s.cfg.Now().Sub(at) > rules.MaxAge {
			return StepPassword, nil
		}
	}
	return "", nil
}

// enter makes the session of an attempt that proved the methods, or says what
// is missing. Every way to sign in ends here: there is no other way to a
// session but the set-up link. Guard has not been told yet.
func (s *Service) enter(ctx context.Context, p proof, methods string, w Where, begin string) (Grant[bailey.Session], bailey.User, error) {
	step, err := s.nextStep(ctx, p.user, methods)
	if err != nil || step != "" {
		// Neither a failure nor a success: whoever has the password only does
		// not become known here by that.
		s.cfg.Guard.Release(p.prefix, p.key)
	}
	if err != nil {
		return Grant[bailey.Session]{}, bailey.User{}, err
	}
	if step != "" {
		return Grant[bailey.Session]{}, bailey.User{}, s.pend(ctx, p, methods, begin, step)
	}
	s.cfg.Guard.Succeed(p.prefix, p.key)
	grant, err := s.startSession(ctx, p, methods, w, begin)
	if err != nil {
		return Grant[bailey.Session]{}, bailey.User{}, err
	}
	return grant, p.user, nil
}

// pend keeps an unfinished sign-in and returns the error that carries its
// ticket.
func (s *Service) pend(ctx context.Context, p proof, methods, begin string, step Step) error {
	now := s.cfg.Now()
	ticket := secret.Random(32)
	row := bailey.PendingSignIn{
		ID: bailey.NewID(), UserID: p.user.ID, Stored: p.stored, Methods: methods, Begin: begin,
		CreatedAt: now, ExpiresAt: now.Add(pendingFor),
	}
	if err := s.recordStep(ctx, p.attempt, p.user, step, methods); err != nil {
		return err
	}
	if err := s.cfg.Store.CreatePending(ctx, row, ticket.Hash()); err != nil {
		return err
	}
	return errStep(step, ticket, p.user.Name)
}

// recordStep puts into the journal that somebody has the password and not all.
func (s *Service) recordStep(ctx context.Context, a attempt, u bailey.User, step Step, methods string) error {
	e := audit.Event{
		Actor: s.who(a, u), Action: audit.FactorAsk, Target: audit.Target{Kind: "user", ID: u.ID, Name: u.Name},
		Outcome: audit.Success, Attrs: audit.Attrs{Methods: methods, Device: a.device},
	}
	if step == StepPassword {
		e.Action = audit.PasswordExpire
	}
	return s.record(ctx, e)
}

func errStep(step Step, ticket secret.Value, name string) error {
	e := &bailey.Error{Kind: bailey.SecondFactor, Cause: &StepError{Step: step, Ticket: ticket, Name: name}}
	switch step {
	case StepFactor:
		e.Msg, e.Hint = "a second factor is needed", "give a code of your authenticator app or a recovery code; passkeys work in the browser"
	case StepEnrol:
		e.Kind = bailey.Denied
		e.Msg, e.Hint = "this account must have a second factor and has none", "sign in to the console in a browser and set one up"
	case StepPassword:
		e.Kind = bailey.Denied
		e.Msg, e.Hint = "the password is too old and has to be changed", "sign in to the console in a browser and choose a new one"
	}
	return e
}

func errBegin() error {
	return &bailey.Error{Kind: bailey.Unauthenticated, Msg: "this sign-in is over: it took too long, was tried too often, or was finished elsewhere", Hint: "sign in again"}
}

// A FactorAnswer is a second factor as it was given; one of the fields.
type FactorAnswer struct {
	Code     secret.Value // of an authenticator app
	Recovery secret.Value
	Passkey  []byte // JSON of what navigator.credentials.get returned
}

func (f FactorAnswer) empty() bool {
	return f.Code.Empty() && f.Recovery.Empty() && len(f.Passkey) == 0
}

// kind is what the answer is, for the journal.
func (f FactorAnswer) kind() string {
	switch {
	case len(f.Passkey) > 0:
		return bailey.FactorPasskey
	case !f.Recovery.Empty():
		return "recovery"
	}
	return bailey.FactorTOTP
}

// unfinished returns the pending sign-in of a ticket with its user. When the
// account was disabled or the password changed since, it is over.
func (s *Service) unfinished(ctx context.Context, row bailey.PendingSignIn, err error) (bailey.PendingSignIn, bailey.User, error) {
	if err != nil {
		if bailey.KindOf(err) == bailey.NotFound {
			err = errBegin()
		}
		return row, bailey.User{}, err
	}
	user, err := s.cfg.Store.UserByID(ctx, row.UserID)
	if err != nil {
		if bailey.KindOf(err) == bailey.NotFound {
			err = errBegin()
		}
		return row, user, err
	}
	if user.Disabled {
		return row, user, errBegin()
	}
	if row.Stored != "" {
		now, err := s.cfg.Store.PasswordHash(ctx, user.ID)
		if err != nil {
			return row, user, err
		}
		if now != row.Stored {
			return row, user, errBegin()
		}
	}
	return row, user, nil
}

// NextStep says what the ticket of an unfinished sign-in opens, for a page.
func (s *Service) NextStep(ctx context.Context, ticket secret.Value) (StepInfo, error) {
	row, err := s.cfg.Store.Pending(ctx, ticket.Hash())
	row, user, err := s.unfinished(ctx, row, err)
	if err != nil {
		return StepInfo{}, err
	}
	info := StepInfo{Name: user.Name}
	if info.Step, err = s.nextStep(ctx, user, row.Methods); err != nil {
		return info, err
	}
	have, err := s.cfg.Store.Factors(ctx, user.ID)
	if err != nil {
		return info, err
	}
	for _, f := range have {
		info.App = info.App || f.Kind == bailey.FactorTOTP
		info.Passkey = info.Passkey || f.Kind == bailey.FactorPasskey
	}
	if info.Passkey = info.Passkey && s.party != nil; info.Passkey && info.Step == StepFactor {
		info.Ask, err = s.askPasskey(ctx, "second "+row.ID, user.ID, have)
	}
	return info, err
}

// A StepInfo is what a page needs to show a step.
type StepInfo struct {
	Step         Step
	Name         string
	App, Passkey bool   // which kinds of factor there are
	Ask          []byte // for navigator.credentials.get; empty without a passkey
}

// AnswerFactor goes on with an unfinished sign-in by a second factor. It returns
// a session, or an error: with another [StepError], Unauthenticated when the
// answer is wrong or the sign-in is over, TooMany when limited.
func (s *Service) AnswerFactor(ctx context.Context, ticket secret.Value, f FactorAnswer, w Where) (Grant[bailey.Session], bailey.User, error) {
	fail := func(err error) (Grant[bailey.Session], bailey.User, error) {
		return Grant[bailey.Session]{}, bailey.User{}, err
	}
	// The try is counted before it is made, so that tries at the same moment
	// are five together.
	row, err := s.cfg.Store.TryPending(ctx, ticket.Hash(), maxTries)
	row, user, err := s.unfinished(ctx, row, err)
	if err != nil {
		return fail(err)
	}
	if step, err := s.nextStep(ctx, user, row.Methods); err != nil || step != StepFactor {
		return fail(firstOf(err, errBegin()))
	}
	a := s.attempt(ctx, user.Name, w)
	added, err := s.factorAttempt(ctx, a, user, f, "second "+row.ID)
	if err != nil {
		return fail(err)
	}
	methods := row.Methods + " " + added
	if err := s.cfg.Store.AdvancePending(ctx, ticket.Hash(), row.Methods, methods, row.Stored); err != nil {
		return fail(overIfGone(err))
	}
	return s.goOn(ctx, ticket, row, methods, proof{attempt: a, user: user, stored: row.Stored}, w)
}

// goOn finishes a sign-in whose step was taken, or says what is next.
func (s *Service) goOn(ctx context.Context, ticket secret.Value, row bailey.PendingSignIn, methods string, p proof, w Where) (Grant[bailey.Session], bailey.User, error) {
	fail := func(err error) (Grant[bailey.Session], bailey.User, error) {
		return Grant[bailey.Session]{}, bailey.User{}, err
	}
	step, err := s.nextStep(ctx, p.user, methods)
	if err != nil {
		return fail(err)
	}
	if step != "" {
		if err := s.recordStep(ctx, p.attempt, p.user, step, methods); err != nil {
			return fail(err)
		}
		return fail(errStep(step, ticket, p.user.Name))
	}
	// Of two tabs that finish at once, one makes a session.
	if err := s.cfg.Store.FinishPending(ctx, ticket.Hash()); err != nil {
		return fail(overIfGone(err))
	}
	s.cfg.Guard.Succeed(p.prefix, p.key)
	grant, err := s.startSession(ctx, p, methods, w, row.Begin)
	if err != nil {
		return fail(err)
	}
	return grant, p.user, nil
}

func firstOf(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

func overIfGone(err error) error {
	if bailey.KindOf(err) == bailey.NotFound {
		return errBegin()
	}
	return err
}

// AnswerPassword goes on with an unfinished sign-in by a new password in place
// of one that is too old.
func (s *Service) AnswerPassword(ctx context.Context, ticket, fresh secret.Value, w Where) (Grant[bailey.Session], bailey.User, error) {
	fail := func(err error) (Grant[bailey.Session], bailey.User, error) {
		return Grant[bailey.Session]{}, bailey.User{}, err
	}
	row, err := s.cfg.Store.Pending(ctx, ticket.Hash())
	row, user, err := s.unfinished(ctx, row, err)
	if err != nil {
		return fail(err)
	}
	if step, err := s.nextStep(ctx, user, row.Methods); err != nil || step != StepPassword {
		return fail(firstOf(err, errBegin()))
	}
	if err := s.checkPassword(user.Name, fresh); err != nil {
		return fail(err)
	}
	same, err := s.matches(ctx, row.Stored, fresh)
	if err != nil {
		return fail(err)
	}
	if same {
		return fail(&bailey.Error{Kind: bailey.Invalid, Msg: "the new password is the old one", Hint: "choose another one"})
	}
	hash, err := s.hash(ctx, fresh)
	if err != nil {
		return fail(err)
	}
	a := s.attempt(ctx, user.Name, w)
	err = s.recorded(ctx, audit.Event{
		Actor: s.who(a, user), Action: audit.PasswordChange, Target: audit.Target{Kind: "user", ID: user.ID, Name: user.Name},
		Outcome: audit.Success, Reason: audit.ByUser,
	}, func() error {
		swapped, err := s.swapHash(ctx, user.ID, row.Stored, hash)
		if err != nil || !swapped {
			return firstOf(err, errBegin())
		}
		defer s.endUser(user.ID, "")
		return s.cfg.Store.DeleteSessions(ctx, user.ID, "")
	})
	if err != nil {
		return fail(err)
	}
	if err := s.cfg.Store.AdvancePending(ctx, ticket.Hash(), row.Methods, row.Methods, hash); err != nil {
		return fail(overIfGone(err))
	}
	return s.goOn(ctx, ticket, row, row.Methods, proof{attempt: a, user: user, stored: hash}, w)
}
