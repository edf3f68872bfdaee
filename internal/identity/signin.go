package identity

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/password"
	"github.com/baileyhq/bailey/internal/secret"
)

const (
	maxSessions = 50  // of one user at a time; the one used longest ago makes room
	maxTokens   = 100 // of one user at a time
)

// SignIn checks name and password and makes a session. Whatever is wrong, the
// stranger reads the same words in the same time; limits are checked before
// hashing and unknown names are counted too. TooMany when limited,
// Unauthenticated when wrong, Unavailable when the hashing queue is full.
// Success is in the audit journal before the session exists. When the password
// is right and not enough, the error's Cause is a [StepError] with the ticket for
// the next step.
func (s *Service) SignIn(ctx context.Context, r SignInRequest) (Grant[bailey.Session], bailey.User, error) {
	w := r.where()
	p, err := s.prove(ctx, s.attempt(ctx, r.Name, w), r.Password)
	if err != nil {
		return Grant[bailey.Session]{}, bailey.User{}, err
	}
	return s.enter(ctx, s.rehash(ctx, p), byPassword, w, entry{by: cmp.Or(p.method, "password")})
}

// SignInForToken is SignIn for programs: the grant is an API token, for
// everything unless scopes are given. It asks for no less than SignIn: the
// second factor comes in the same request, and what takes a person (setting one
// up, a new password) is done in the browser first.
func (s *Service) SignInForToken(ctx context.Context, r SignInRequest, note string, lifetime time.Duration, scopes ...bailey.Scope) (Grant[bailey.Token], bailey.User, error) {
	fail := func(err error) (Grant[bailey.Token], bailey.User, error) {
		return Grant[bailey.Token]{}, bailey.User{}, err
	}
	lifetime, err := tokenLifetime(lifetime)
	if err != nil {
		return fail(err)
	}
	if len(scopes) == 0 {
		scopes = []bailey.Scope{bailey.ScopeAll}
	}
	p, err := s.prove(ctx, s.attempt(ctx, r.Name, r.where()), r.Password)
	if err != nil {
		return fail(err)
	}
	p = s.rehash(ctx, p)
	methods, err := s.atOnce(ctx, p, r.Factor)
	if err != nil {
		return fail(err)
	}
	actor := bailey.Actor{UserID: p.user.ID, Name: p.user.Name, Method: cmp.Or(p.method, "password"), IP: p.ip}
	err = s.record(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.SignIn, Target: audit.Target{Kind: "user", ID: p.user.ID, Name: p.user.Name}, Outcome: audit.Success,
		Attrs: audit.Attrs{Methods: methods, Browser: p.browser},
	})
	if err != nil {
		return fail(err)
	}
	actor.AuthTime, actor.Methods = s.cfg.Now(), strings.Fields(methods)
	grant, err := s.issueToken(ctx, actor, bailey.Token{
		UserID: p.user.ID, Note: note, Scopes: scopes, ExpiresAt: s.cfg.Now().Add(lifetime),
		AuthAt: actor.AuthTime, Methods: methods,
	})
	if err == nil {
		err = s.stillRight(ctx, p, actor, grant.Row.ID, func(ctx context.Context) error {
			return s.cfg.Store.DeleteToken(ctx, p.user.ID, grant.Row.ID)
		})
	}
	if err != nil {
		return fail(err)
	}
	return grant, p.user, nil
}

// atOnce asks for all steps of a sign-in in one request. It tells guard how it
// ended.
func (s *Service) atOnce(ctx context.Context, p proof, f FactorAnswer) (methods string, err error) {
	methods = byPassword
	step, err := s.nextStep(ctx, p.user, methods, p.stored)
	if err == nil && step == StepFactor && f.empty() {
		err = firstOf(s.recordStep(ctx, p.attempt, p.user, step, methods), errStep(step, secret.Value{}, p.user.Name))
	}
	if err != nil || step == StepFactor {
		s.release(p.attempt)
	}
	if err != nil {
		return "", err
	}
	if step == StepFactor {
		added, err := s.factorAttempt(ctx, p.attempt, p.user, FactorAnswer{Code: f.Code, Recovery: f.Recovery}, "")
		if err != nil {
			return "", err
		}
		methods += " " + added
		if step, err = s.nextStep(ctx, p.user, methods, p.stored); err != nil {
			return "", err
		}
	}
	if step != "" {
		s.release(p.attempt)
		return "", firstOf(s.recordStep(ctx, p.attempt, p.user, step, methods), errStep(step, secret.Value{}, p.user.Name))
	}
	s.succeed(p.attempt)
	return methods, nil
}

// succeed and release tell guard how an attempt ended that was right: that it
// was all that is asked, or that it was not.
func (s *Service) succeed(a attempt) {
	if a.second != "" {
		s.cfg.Guard.Succeed(a.prefix, a.second)
	}
	s.cfg.Guard.Succeed(a.prefix, a.key)
}

func (s *Service) release(a attempt) {
	if a.second != "" {
		s.cfg.Guard.Release(a.prefix, a.second)
	}
	s.cfg.Guard.Release(a.prefix, a.key)
}

// An attempt is somebody who claims a name.
type attempt struct {
	name   string // as typed
	ip     string
	prefix string // for guard
	key    string // the name for guard, cut
	method string // the source that knows them; empty: they have a password here

	second  string // another name that the source knows them by, for guard; empty: none
	browser string // id of a known browser of the account that is named; empty: none
}

func newAttempt(name, ip string) attempt {
	return attempt{name: name, ip: cleanIP(ip), prefix: guard.Prefix(ip), key: guardKey(name)}
}

// A proof is an attempt whose password was right.
type proof struct {
	attempt
	user     bailey.User
	password secret.Value
	stored   string // the hash that it was compared with
}

// prove decides whether the attempt is who it says. When it is, guard waits to
// be told how the rest of the sign-in ended. All that can be wrong gives
// the same error after the same work: an unknown name, a name that cannot be
// one, a wrong password, a disabled account.
//
// What the limits say reveals nothing either: guard counts names that are no
// account like those that are, so "too many attempts" is what both of them get
// at the same point. The one exception it makes, for names that signed in from
// the same prefix before, is masked below.
func (s *Service) prove(ctx context.Context, a attempt, given secret.Value) (proof, error) {
	if err := s.elsewhere(ctx, a); err != nil {
		return proof{}, err
	}
	v := s.cfg.Guard.Check(a.prefix, a.key)
	if !v.Allowed {
		return proof{}, s.refused(ctx, a, v)
	}
	judged := false
	defer func() {
		if !judged {
			s.cfg.Guard.Release(a.prefix, a.key) // we could not tell, so it was no guess
		}
	}()
	user, stored, known, err := s.account(ctx, a.name)
	if err != nil {
		return proof{}, err
	}
	right, err := s.guess(ctx, stored, given, v.Known)
	if err != nil {
		return proof{}, err
	}
	// A guess was made: from here on it counts, even if the caller hung up.
	judged = true
	if len(s.cfg.Directories) > 0 && (!known || !right) {
		p, err := s.proveOutside(ctx, a, v, user, given)
		if open, ok := errors.AsType[*undecided](err); ok {
			judged, err = false, open.error
		}
		return p, err
	}
	switch {
	case !known, !right:
		return proof{}, s.failed(ctx, a, v, user, audit.BadCredentials)
	case user.Disabled:
		return proof{}, s.failed(ctx, a, v, user, audit.AccountDisabled)
	case s.Permitted(user, a.ip) != nil:
		// The words are those for a wrong password: who may not come from here
		// learns nothing of it here either.
		return proof{}, s.failed(ctx, a, v, user, audit.WrongPlace)
	case v.Pressed && !s.proves(ctx, user):
		judged = false // right, and still not enough: neither a success nor a guess
		return proof{}, s.pressed(ctx, a, user)
	}
	if err := ctx.Err(); err != nil {
		s.release(a)
		return proof{}, err
	}
	return proof{attempt: a, user: user, password: given, stored: stored}, nil
}

// account looks the name up and returns what to compare the password with. For
// a name that is no account that is a hash nobody has the password of, after as
// many queries.
func (s *Service) account(ctx context.Context, name string) (u bailey.User, stored string, known bool, err error) {
	lookup := name
	if bailey.CheckName("user", name) != nil {
		lookup = "" // nobody's; what a stranger typed does not reach the database
	}
	u, err = s.cfg.Store.UserByName(ctx, lookup)
	known = err == nil && u.Name == name && !u.Service // a service account has no password, and no name here
	if err != nil && bailey.KindOf(err) != bailey.NotFound {
		return u, "", false, err
	}
	if !known {
		u = bailey.User{}
	}
	stored, err = s.cfg.Store.PasswordHash(ctx, u.ID)
	switch {
	case err == nil && stored != "":
	case err == nil, bailey.KindOf(err) == bailey.NotFound: // without a password here, nobody signs in by one
		known, u, stored, err = false, bailey.User{}, password.Decoy(s.rules().Params).String(), nil
	default:
		return u, "", false, err
	}
	return u, stored, known, err
}

// who is the audit actor of an attempt on the account u, which is zero for a
// name that is none.
func (s *Service) who(a attempt, u bailey.User) audit.Actor {
	who := audit.Actor{ID: u.ID, Name: u.Name, Method: cmp.Or(a.method, "password"), IP: a.ip}
	if u.ID == "" {
		who.Unknown = s.unknown(a.name)
	}
	return who
}

// failed counts and records a wrong attempt and returns what the stranger
// reads. Without a journal that is the same as for a right one.
func (s *Service) failed(ctx context.Context, a attempt, v guard.Verdict, u bailey.User, why audit.Reason) error {
	s.cfg.Guard.Fail(a.prefix, a.key, u.ID != "")
	err := s.record(ctx, audit.Event{
		Actor: s.who(a, u), Action: audit.SignIn, Target: audit.Target{Kind: "user", ID: u.ID, Name: u.Name},
		Outcome: audit.Failure, Reason: why,
	})
	switch {
	case err != nil:
		return err
	case v.Masked:
		return errLimited(v.RetryAfter)
	case v.Pressed:
		return errPressed()
	}
	return &bailey.Error{
		Kind: bailey.Unauthenticated, Msg: "the name or the password is wrong",
		Hint: "check both and try again; after several wrong attempts you have to wait",
	}
}

// refused records a limited attempt, one line a minute for each limit, and
// returns what the stranger reads.
func (s *Service) refused(ctx context.Context, a attempt, v guard.Verdict) error {
	if v.Report > 0 {
		u, _, _, err := s.account(ctx, a.name)
		if err != nil {
			u = bailey.User{} // the refusal stands without the name
		}
		s.note(ctx, audit.Event{
			Actor: s.who(a, u), Action: audit.SignIn, Target: audit.Target{Kind: "user", ID: u.ID, Name: u.Name},
			Outcome: audit.Refused, Reason: audit.LockedOut, Attrs: audit.Attrs{Count: int64(v.Report)},
		})
		if v.Why == guard.SharedAddress {
			s.cfg.Log.WarnContext(ctx, "a private address would be banned and is slowed instead; if it is a proxy or a container bridge, it hides who is signing in",
				slog.String("prefix", a.prefix), slog.Int("refused", v.Report))
		}
	}
	return errLimited(v.RetryAfter)
}

// startSession makes a new session, always: a cookie that was there before, set
// by whomever, means nothing afterwards.
func (s *Service) startSession(ctx context.Context, p proof, methods string, w Where, e entry) (Grant[bailey.Session], error) {
	if p.user.Service {
		return Grant[bailey.Session]{}, errNoPassword(p.user.Name) // by whatever way it came here
	}
	now := s.cfg.Now()
	row := bailey.Session{
		ID: bailey.NewID(), UserID: p.user.ID, IP: p.ip, UserAgent: clean(w.UserAgent, 256),
		CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(s.cfg.SessionLifetime), AuthAt: now, Methods: methods,
	}
	grant := Grant[bailey.Session]{Row: row, Secret: secret.Random(32)}
	actor := bailey.Actor{UserID: p.user.ID, Name: p.user.Name, Method: e.by, Session: row.ID, IP: p.ip}
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.SignIn, Target: audit.Target{Kind: "user", ID: p.user.ID, Name: p.user.Name}, Outcome: audit.Success,
		Attrs: audit.Attrs{Methods: methods, Browser: p.browser},
	}
	if err := s.record(ctx, event); err != nil {
		return Grant[bailey.Session]{}, err
	}
	if err := s.cfg.Store.CreateSession(ctx, row, grant.Secret.Hash()); err != nil {
		event.Outcome = audit.Failure
		s.note(ctx, event)
		return Grant[bailey.Session]{}, err
	}
	if e.external != "" {
		err := s.cfg.Store.CreateExternalSession(ctx, bailey.ExternalSession{
			SessionID: row.ID, ExternalID: e.external, SID: e.sid, Refresh: e.refresh, CheckedAt: e.at,
		})
		if err != nil {
			// A session that the provider could not end is none.
			_ = s.cfg.Store.DeleteSession(context.WithoutCancel(ctx), p.user.ID, row.ID)
			s.end(row.ID)
			return Grant[bailey.Session]{}, err
		}
	}
	err := s.stillRight(ctx, p, actor, row.ID, func(ctx context.Context) error {
		return s.cfg.Store.DeleteSession(ctx, p.user.ID, row.ID)
	})
	if err != nil {
		return Grant[bailey.Session]{}, err
	}
	s.capSessions(ctx, p.user.ID)
	grant.Browser = s.remember(ctx, p.attempt, p.user, w)
	return grant, nil
}

// stillRight looks once more after a credential was made from a password:
// while it was being hashed, the password may have been changed or the account
// disabled, and the credentials ended that existed then. If so, undo removes
// the new one too. Of the two orders in which this and such a change can meet,
// each leaves no credential behind.
func (s *Service) stillRight(ctx context.Context, p proof, actor bailey.Actor, id string, undo func(context.Context) error) error {
	user, err := s.cfg.Store.UserByID(ctx, p.user.ID)
	stored := ""
	if err == nil {
		stored, err = s.cfg.Store.PasswordHash(ctx, p.user.ID)
	}
	right := err == nil && !user.Disabled && (p.stored == "" || stored == p.stored)
	if err == nil && !user.Disabled && !right {
		// Changed, perhaps only made anew at another cost.
		right, err = s.matches(ctx, stored, p.password)
	}
	if right {
		return nil
	}
	undoErr := undo(context.WithoutCancel(ctx))
	s.end(id)
	if bailey.KindOf(undoErr) == bailey.NotFound {
		undoErr = nil
	}
	s.note(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.SignIn, Target: audit.Target{Kind: "user", ID: p.user.ID, Name: p.user.Name},
		Outcome: audit.Failure, Reason: audit.BadCredentials,
	})
	if err != nil && bailey.KindOf(err) != bailey.NotFound {
		return errors.Join(err, undoErr)
	}
	return errors.Join(&bailey.Error{
		Kind: bailey.Unauthenticated, Msg: "the account was changed while you signed in", Hint: "sign in again",
	}, undoErr)
}

// capSessions ends the sessions that are over the limit.
func (s *Service) capSessions(ctx context.Context, userID string) {
	all, err := s.cfg.Store.Sessions(ctx, userID)
	if err != nil || len(all) <= maxSessions {
		return // the next sign-in will do it
	}
	slices.SortFunc(all, func(a, b bailey.Session) int {
		return cmp.Or(b.SeenAt.Compare(a.SeenAt), b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
	})
	for _, old := range all[maxSessions:] {
		if err := s.cfg.Store.DeleteSession(ctx, userID, old.ID); err == nil {
			s.end(old.ID)
		}
	}
}

// rehash makes the stored hash anew when it was made by another program or at
// another cost: now is when we have the password. It returns the proof with the
// hash that is stored then.
func (s *Service) rehash(ctx context.Context, p proof) proof {
	old, err := password.Parse(p.stored)
	if err != nil || old.Current(s.rules().Params) {
		return p
	}
	fresh, err := s.hash(ctx, p.password)
	swapped := false
	if err == nil {
		s.classes.forget()
		swapped, err = s.cfg.Store.RenewPasswordHash(ctx, p.user.ID, p.stored, fresh)
	}
	if err != nil {
		s.cfg.Log.WarnContext(ctx, "password hash was not renewed", slog.String("user", p.user.ID), slog.String("error", err.Error()))
	}
	if swapped {
		p.stored = fresh
		s.note(ctx, audit.Event{
			Actor: s.who(p.attempt, p.user), Action: audit.PasswordRehash, Target: audit.Target{Kind: "user", ID: p.user.ID, Name: p.user.Name},
			Outcome: audit.Success, Attrs: audit.Attrs{Rule: string(old.Kind())},
		})
	}
	return p
}

// swapHash replaces the stored hash if it is still old; an empty old replaces
// any.
func (s *Service) swapHash(ctx context.Context, userID, old, fresh string) (swapped bool, err error) {
	s.passwordMu.Lock()
	defer s.passwordMu.Unlock()
	if old != "" {
		now, err := s.cfg.Store.PasswordHash(ctx, userID)
		if err != nil || now != old {
			return false, err
		}
	}
	s.classes.forget()
	return true, s.cfg.Store.SetPasswordHash(ctx, userID, fresh)
}

// count puts a number before a noun.
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}
