package identity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/mutant"
	"github.com/baileyhq/bailey/internal/secret"
)

// A Where is the other end of a request, as its door determined it.
type Where struct {
	IP        string
	UserAgent string
	Cookies   bool           // keeps cookies: may be remembered as a device
	Known     []secret.Value // what its cookie says; see [BrowserSecrets]
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
	bySource   = "sso" // an identity provider's word; RFC 8176 has none for it
)

// An entry is how a sign-in began, and what a session of it needs besides.
type entry struct {
	by string // "password", "passkey", "setup", or the source

	// Of a session that an identity provider vouches for.
	external     string // the tie's id
	sid, refresh string
	at           time.Time
}

func entryOf(p bailey.PendingSignIn) entry {
	return entry{by: p.Begin, external: p.ExternalID, sid: p.SID, refresh: p.Refresh, at: p.CreatedAt}
}

// nextStep returns what is missing after the methods, or nothing. stored is the
// hash that a password here was compared with, or empty.
func (s *Service) nextStep(ctx context.Context, u bailey.User, methods, stored string) (Step, error) {
	proved, rules := strings.Fields(methods), s.rules()
	if !slices.Contains(proved, byTwo) && !mutant.SecondFactor {
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
	if rules.MaxAge > 0 && stored != "" {
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
// is missing. Every way to sign in ends here, whatever it began with. Guard has
// not been told yet.
func (s *Service) enter(ctx context.Context, p proof, methods string, w Where, e entry) (Grant[bailey.Session], bailey.User, error) {
	step, err := s.nextStep(ctx, p.user, methods, p.stored)
	if err != nil || step != "" {
		// Neither a failure nor a success: whoever has the password only does
		// not become known here by that.
		s.release(p.attempt)
	}
	if err != nil {
		return Grant[bailey.Session]{}, bailey.User{}, err
	}
	if step != "" {
		return Grant[bailey.Session]{}, bailey.User{}, s.pend(ctx, p, methods, e, step)
	}
	s.succeed(p.attempt)
	grant, err := s.startSession(ctx, p, methods, w, e)
	if err != nil {
		return Grant[bailey.Session]{}, bailey.User{}, err
	}
	return grant, p.user, nil
}

// pend keeps an unfinished sign-in and returns the error that carries its
// ticket.
func (s *Service) pend(ctx context.Context, p proof, methods string, e entry, step Step) error {
	now := s.cfg.Now()
	ticket := secret.Random(32)
	row := bailey.PendingSignIn{
		ID: bailey.NewID(), UserID: p.user.ID, Stored: p.stored, Methods: methods,
		Begin: e.by, ExternalID: e.external, SID: e.sid, Refresh: e.refresh,
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
		Outcome: audit.Success, Attrs: audit.Attrs{Methods: methods, Browser: a.browser},
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
// account was disabled or the password changed since, it is over; from where its
// owner may not come it does not go on.
func (s *Service) unfinished(ctx context.Context, ticket secret.Value, w Where, find func(hash string) (bailey.PendingSignIn, error)) (bailey.PendingSignIn, bailey.User, error) {
	if err := s.elsewhere(ctx, newAttempt("", w.IP)); err != nil {
		return bailey.PendingSignIn{}, bailey.User{}, err
	}
	if text := ticket.Reveal(); len(text) != cookieLength || !isBase64URL(text) {
		return bailey.PendingSignIn{}, bailey.User{}, errBegin()
	}
	row, err := find(ticket.Hash())
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
	if err := s.Permitted(user, w.IP); err != nil {
		s.note(ctx, audit.Event{
			Actor: s.who(newAttempt(user.Name, w.IP), user), Action: audit.SignIn, Target: audit.Target{Kind: "user", ID: user.ID, Name: user.Name},
			Outcome: audit.Refused, Reason: audit.WrongPlace,
		})
		return row, user, err
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

// pending looks a ticket up; trying counts the try before it is made, so that
// tries at the same moment are five together.
func (s *Service) pending(ctx context.Context) func(hash string) (bailey.PendingSignIn, error) {
	return func(hash string) (bailey.PendingSignIn, error) { return s.cfg.Store.Pending(ctx, hash) }
}

func (s *Service) trying(ctx context.Context) func(hash string) (bailey.PendingSignIn, error) {
	return func(hash string) (bailey.PendingSignIn, error) { return s.cfg.Store.TryPending(ctx, hash, maxTries) }
}

// NextStep says what the ticket of an unfinished sign-in opens, for a page.
func (s *Service) NextStep(ctx context.Context, ticket secret.Value, w Where) (StepInfo, error) {
	row, user, err := s.unfinished(ctx, ticket, w, s.pending(ctx))
	if err != nil {
		return StepInfo{}, err
	}
	info := StepInfo{Name: user.Name}
	if info.Step, err = s.nextStep(ctx, user, row.Methods, row.Stored); err != nil {
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
	row, user, err := s.unfinished(ctx, ticket, w, s.trying(ctx))
	if err != nil {
		return fail(err)
	}
	if step, err := s.nextStep(ctx, user, row.Methods, row.Stored); err != nil || step != StepFactor {
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
	step, err := s.nextStep(ctx, p.user, methods, p.stored)
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
	s.succeed(p.attempt)
	grant, err := s.startSession(ctx, p, methods, w, entryOf(row))
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
	row, user, err := s.unfinished(ctx, ticket, w, s.pending(ctx))
	if err != nil {
		return fail(err)
	}
	if step, err := s.nextStep(ctx, user, row.Methods, row.Stored); err != nil || step != StepPassword {
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
		_, err = s.cfg.Store.RevokeSSHCertificates(ctx, user.ID, 0, "", s.cfg.Now())
		return errors.Join(err, s.cfg.Store.DeleteSessions(ctx, user.ID, ""))
	})
	if err != nil {
		return fail(err)
	}
	if err := s.cfg.Store.AdvancePending(ctx, ticket.Hash(), row.Methods, row.Methods, hash); err != nil {
		return fail(overIfGone(err))
	}
	return s.goOn(ctx, ticket, row, row.Methods, proof{attempt: a, user: user, stored: hash}, w)
}
