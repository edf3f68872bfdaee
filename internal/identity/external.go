package identity

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/secret"
)

// An ExternalStore keeps who accounts are elsewhere. The kinds of error are
// those of the store's methods.
type ExternalStore interface { //nolint:interfacebloat // one room keeps all of it, one service uses all of it
	CreateExternalUser(ctx context.Context, u bailey.User, e bailey.External) (bailey.User, bailey.External, error)
	LinkExternal(ctx context.Context, e bailey.External) (bailey.External, error)
	ExternalBySubject(ctx context.Context, issuer, subject string) (bailey.External, error)
	Externals(ctx context.Context, userID string) ([]bailey.External, error)
	ExternalsDue(ctx context.Context, source string, before time.Time, limit int) ([]bailey.External, error)
	UpdateExternal(ctx context.Context, e bailey.External) error
	DeleteExternal(ctx context.Context, userID, id string) error

	CreateExternalSession(ctx context.Context, x bailey.ExternalSession) error
	ExternalSessionsDue(ctx context.Context, source string, before time.Time, limit int) ([]bailey.ExternalSession, error)
	ExternalSessionsOf(ctx context.Context, externalID string) ([]bailey.ExternalSession, error)
	ExternalSessionsBySID(ctx context.Context, issuer, sid string) ([]bailey.ExternalSession, error)
	UpdateExternalSession(ctx context.Context, x bailey.ExternalSession) error
	SeenOnce(ctx context.Context, kind, id string, until time.Time) (first bool, err error)
}

// A Directory knows people with passwords that are not kept here. An error
// means that it could not tell, which is no answer.
type Directory interface {
	Source() string // "ldap:NAME"
	// Find looks up who signs in as login; ok is false when that is nobody.
	Find(ctx context.Context, login string) (e external.Entry, ok bool, err error)
	// Check reports whether the password is theirs.
	Check(ctx context.Context, e external.Entry, password secret.Value) (right bool, err error)
	// Decoy costs what Check costs.
	Decoy(ctx context.Context) error
}

// proveOutside goes on with an attempt that no password here was right for. A
// name with a password here is never asked about with that password elsewhere;
// what is asked instead costs as much, so that the time does not say which names
// those are.
func (s *Service) proveOutside(ctx context.Context, a attempt, v guard.Verdict, local bailey.User, password secret.Value) (proof, error) {
	if local.ID != "" {
		for _, d := range s.cfg.Directories {
			_, _, _ = d.Find(ctx, a.name) // what comes of it does not matter,
			_ = d.Decoy(ctx)              // nor that it fails
		}
		return proof{}, s.failed(ctx, a, v, local, audit.BadCredentials)
	}
	dir, e, err := s.findOutside(ctx, a.name)
	if err != nil {
		return proof{}, &undecided{err}
	}
	if dir == nil {
		if err := s.cfg.Directories[0].Decoy(ctx); err != nil {
			return proof{}, &undecided{err}
		}
		return proof{}, s.failed(ctx, a, v, bailey.User{}, audit.BadCredentials)
	}
	a.method = dir.Source()
	user := bailey.User{}
	tie, err := s.cfg.Store.ExternalBySubject(ctx, e.Issuer, e.Subject)
	if err == nil {
		user, err = s.cfg.Store.UserByID(ctx, tie.UserID)
	}
	if err != nil && bailey.KindOf(err) != bailey.NotFound {
		return proof{}, &undecided{err}
	}
	// Directories know people under several names. They are one person's
	// attempts, whichever was typed.
	second := guardKey(e.Login)
	if second != "" && second != a.key {
		if v := s.cfg.Guard.Check(a.prefix, second); !v.Allowed {
			return proof{}, &undecided{s.refused(ctx, a, v)}
		}
	} else {
		second = ""
	}
	right, err := dir.Check(ctx, e, password)
	if err != nil {
		if second != "" {
			s.cfg.Guard.Release(a.prefix, second)
		}
		return proof{}, &undecided{err}
	}
	if !right || e.Locked {
		if second != "" {
			s.cfg.Guard.Fail(a.prefix, second, user.ID != "")
		}
		why := audit.BadCredentials
		if right {
			why = audit.DisabledThere
		}
		return proof{}, s.failed(ctx, a, v, user, why)
	}
	release := func() {
		if second != "" {
			s.cfg.Guard.Release(a.prefix, second)
		}
	}
	if user, _, err = s.comes(ctx, e.Person, a); err != nil {
		release()
		return proof{}, &undecided{err} // right, and yet not in: neither a success nor a guess
	}
	switch {
	case s.Permitted(user, a.ip) != nil:
		if second != "" {
			s.cfg.Guard.Fail(a.prefix, second, true)
		}
		return proof{}, s.failed(ctx, a, v, user, audit.WrongPlace)
	case v.Pressed && !s.proves(ctx, user):
		release()
		return proof{}, &undecided{s.pressed(ctx, a, user)}
	}
	a.second = second
	if err := ctx.Err(); err != nil {
		s.release(a)
		return proof{}, err
	}
	return proof{attempt: a, user: user}, nil
}

// undecided is why an attempt could not be judged: it was no guess.
type undecided struct{ error }

func (u *undecided) Unwrap() error { return u.error }

// findOutside returns the directory that knows the login. "NAME\login" asks one
// directory alone.
func (s *Service) findOutside(ctx context.Context, login string) (Directory, external.Entry, error) {
	var down error
	name, rest, one := strings.Cut(login, `\`)
	for _, d := range s.cfg.Directories {
		ask := login
		if one && d.Source() == "ldap:"+strings.ToLower(name) {
			ask = rest
		} else if one && slices.ContainsFunc(s.cfg.Directories, func(o Directory) bool { return o.Source() == "ldap:"+strings.ToLower(name) }) {
			continue
		}
		e, ok, err := d.Find(ctx, ask)
		if err != nil {
			down = err
			continue
		}
		if ok {
			return d, e, nil
		}
	}
	return nil, external.Entry{}, down // one that is down may be the one that knows them
}

// guardKey is a name as guard counts it: directories fold case.
func guardKey(name string) string { return strings.ToLower(name[:min(len(name), 64)]) }

// comes returns the account of somebody whom a source vouches for now, made if
// there is none and the rules say so, and changed to what the source gives now.
// Whom the rules do not let in reads why: they have proved who they are.
func (s *Service) comes(ctx context.Context, p external.Person, a attempt) (bailey.User, bailey.External, error) {
	grant := s.cfg.External[p.Source].Decide(p.Groups)
	tie, err := s.cfg.Store.ExternalBySubject(ctx, p.Issuer, p.Subject)
	known := err == nil
	if err != nil && bailey.KindOf(err) != bailey.NotFound {
		return bailey.User{}, tie, err
	}
	if !grant.Allowed {
		if known {
			s.gone(ctx, tie, audit.NotAdmitted)
		}
		s.note(ctx, s.refusal(ctx, p, tie, a, audit.NotAdmitted))
		return bailey.User{}, tie, &bailey.Error{
			Kind: bailey.Denied, Msg: "your company account is not in a group that may use this server",
			Hint: "ask an administrator of this server, or whoever puts people into groups at your company",
		}
	}
	if !known {
		return s.arrive(ctx, p, grant, a)
	}
	user, err := s.cfg.Store.UserByID(ctx, tie.UserID)
	if err != nil {
		return user, tie, err
	}
	if user.Disabled {
		if user, tie, err = s.lift(ctx, user, tie); err != nil {
			return user, tie, err
		}
	}
	if user.Disabled {
		s.note(ctx, s.refusal(ctx, p, tie, a, audit.AccountDisabled))
		return bailey.User{}, tie, &bailey.Error{
			Kind: bailey.Denied, Msg: "your account on this server is disabled", Hint: "ask an administrator of this server",
		}
	}
	return s.vouched(ctx, user, tie, p, grant, true)
}

func (s *Service) refusal(ctx context.Context, p external.Person, tie bailey.External, a attempt, why audit.Reason) audit.Event {
	who := audit.Actor{ID: tie.UserID, Method: p.Source, IP: a.ip}
	if user, err := s.cfg.Store.UserByID(ctx, tie.UserID); err == nil {
		who.Name = user.Name
	} else {
		who.Unknown = s.unknown(p.Issuer + " " + p.Subject)
	}
	return audit.Event{
		Actor: who, Action: audit.SignIn, Target: audit.Target{Kind: "user", ID: who.ID, Name: who.Name}, Outcome: audit.Failure, Reason: why,
	}
}

// arrive makes an account for somebody who has none. An account that exists is
// never taken for theirs, whatever it is called.
func (s *Service) arrive(ctx context.Context, p external.Person, grant external.Grant, a attempt) (bailey.User, bailey.External, error) {
	if !s.cfg.External[p.Source].Create {
		s.note(ctx, s.refusal(ctx, p, bailey.External{}, a, audit.NoAccount))
		return bailey.User{}, bailey.External{}, &bailey.Error{
			Kind: bailey.Denied, Msg: "your company account has no account on this server yet",
			Hint: "ask an administrator to make one and link it (bailey admin user link)",
		}
	}
	now := s.cfg.Now()
	var taken error
	for _, name := range external.Names(p) {
		if err := checkNewName(name); err != nil {
			continue
		}
		if _, err := s.cfg.Store.UserByName(ctx, name); err == nil {
			taken = &bailey.Error{Kind: bailey.Conflict, Msg: "every user name that your company account could have here is taken", Hint: "ask an administrator to make an account and link it"}
			continue
		} else if bailey.KindOf(err) != bailey.NotFound {
			return bailey.User{}, bailey.External{}, err
		}
		event := audit.Event{
			Actor: audit.Actor{Name: name, Method: p.Source, IP: a.ip}, Action: audit.UserCreate, Target: audit.Target{Kind: "user", Name: name},
			Outcome: audit.Success, Attrs: audit.Attrs{Role: string(grant.Role)},
		}
		var user bailey.User
		var tie bailey.External
		err := s.recorded(ctx, event, func() (err error) {
			user, tie, err = s.cfg.Store.CreateExternalUser(ctx, bailey.User{Name: name, Role: grant.Role, Groups: grant.Groups}, bailey.External{
				Source: p.Source, Issuer: p.Issuer, Subject: p.Subject, Login: clean(p.Login, 128), Role: grant.Role, Groups: grant.Groups, SignedInAt: now, CheckedAt: now,
			})
			return err
		})
		if err != nil && bailey.KindOf(err) == bailey.Conflict {
			// Somebody was faster: with the name, or they themselves in another tab.
			if tie, again := s.cfg.Store.ExternalBySubject(ctx, p.Issuer, p.Subject); again == nil {
				user, err := s.cfg.Store.UserByID(ctx, tie.UserID)
				return user, tie, err
			}
			taken = err
			continue
		}
		return user, tie, err
	}
	return bailey.User{}, bailey.External{}, taken
}

// lift enables an account that its source alone had disabled.
func (s *Service) lift(ctx context.Context, user bailey.User, tie bailey.External) (bailey.User, bailey.External, error) {
	ties, err := s.cfg.Store.Externals(ctx, user.ID)
	if err != nil {
		return user, tie, err
	}
	for _, other := range ties {
		if other.ID == tie.ID && other.Gone == "" || other.ID != tie.ID && other.Gone != "" {
			return user, tie, nil // an administrator did, or another source
		}
	}
	enabled := user
	enabled.Disabled = false
	err = s.recorded(ctx, s.bySource(tie, user, audit.Success, audit.NoReason), func() error { return s.cfg.Store.UpdateUser(ctx, enabled) })
	if err != nil {
		return user, tie, err
	}
	tie.Gone = ""
	if err := s.cfg.Store.UpdateExternal(ctx, tie); err != nil {
		return user, tie, err
	}
	s.live.forgetUser(user.ID)
	return enabled, tie, nil
}

// bySource is an event about an account that its source changed.
func (s *Service) bySource(tie bailey.External, u bailey.User, outcome audit.Outcome, why audit.Reason) audit.Event {
	actor := audit.By(bailey.System())
	actor.Method = tie.Source
	return audit.Event{
		Actor: actor, Action: audit.UserUpdate, Target: audit.Target{Kind: "user", ID: u.ID, Name: u.Name},
		Outcome: outcome, Reason: why, Attrs: audit.Attrs{Role: string(u.Role)},
	}
}

// vouched brings an account to what its source gives now.
func (s *Service) vouched(ctx context.Context, user bailey.User, tie bailey.External, p external.Person, grant external.Grant, signIn bool) (bailey.User, bailey.External, error) {
	next := user
	next.Role = external.MergeRole(user.Role, tie.Role, grant.Role)
	next.Groups = external.Merge(user.Groups, tie.Groups, grant.Groups)
	next.Groups = next.Groups[:min(len(next.Groups), maxGroups)]
	if next.Role != user.Role || !slices.Equal(next.Groups, user.Groups) {
		err := s.recorded(ctx, s.bySource(tie, next, audit.Success, audit.NoReason), func() error { return s.cfg.Store.UpdateUser(ctx, next) })
		switch {
		case err != nil && bailey.KindOf(err) == bailey.Conflict:
			// The store keeps the last enabled administrator, whom the directory
			// would demote: nobody could mend anything any more.
			s.cfg.Log.WarnContext(ctx, "the directory takes the role from the last enabled administrator, who keeps it until there is another one",
				slog.String("user", user.Name), slog.String("account_source", tie.Source))
			next, grant.Role = user, tie.Role
		case err != nil:
			return user, tie, err
		default:
			s.live.forgetUser(user.ID) // the next request sees the new rights
		}
	}
	now := s.cfg.Now()
	tie.Source, tie.Role, tie.Groups, tie.CheckedAt = p.Source, grant.Role, grant.Groups, now
	if login := clean(p.Login, 128); login != "" {
		tie.Login = login
	}
	if signIn {
		tie.SignedInAt = now
	}
	return next, tie, s.cfg.Store.UpdateExternal(ctx, tie)
}

// gone ends all that an account can do because its source no longer vouches for
// it: sessions, tokens, and whatever else looks whether the account is enabled.
// A sign-in by which the source vouches for it again lifts that. It is done
// before it is recorded: ending access must not wait for a journal.
func (s *Service) gone(ctx context.Context, tie bailey.External, why audit.Reason) {
	ctx = context.WithoutCancel(ctx)
	user, err := s.cfg.Store.UserByID(ctx, tie.UserID)
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "account of somebody who is gone cannot be read", slog.String("user", tie.UserID), slog.String("error", err.Error()))
		return
	}
	if !user.Disabled {
		tie.Gone = string(why)
		err = s.cfg.Store.UpdateExternal(ctx, tie)
		disabled := user
		disabled.Disabled = true
		if err == nil {
			err = s.cfg.Store.UpdateUser(ctx, disabled)
		}
		if err != nil && bailey.KindOf(err) == bailey.Conflict { // the last administrator: out, but not locked out
			tie.Gone = ""
			err = s.cfg.Store.UpdateExternal(ctx, tie)
		}
	}
	err = errors.Join(err, s.dropCredentials(ctx, user.ID))
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "access of somebody who is gone was not ended", slog.String("user", user.Name), slog.String("error", err.Error()))
	}
	if !user.Disabled {
		s.note(ctx, s.bySource(tie, user, audit.Success, why))
	}
}

// An ExternalSignIn is somebody whom an identity provider vouched for just now.
type ExternalSignIn struct {
	Person        external.Person
	SID, Refresh  string // of the provider
	IP, UserAgent string
	Known         []secret.Value // as in [Where]
}

// SignInExternal makes a session for somebody whom a provider vouched for just
// now. Denied, with the reason in words, when the rules do not let them in. When
// that is not enough, because the provider says nothing of a second factor and
// the account has one here or must, the error is that of [Service.SignIn].
func (s *Service) SignInExternal(ctx context.Context, r ExternalSignIn) (Grant[bailey.Session], bailey.User, error) {
	none := Grant[bailey.Session]{}
	a := newAttempt("", r.IP)
	a.method = r.Person.Source
	if err := s.elsewhere(ctx, a); err != nil {
		return none, bailey.User{}, err
	}
	user, tie, err := s.comes(ctx, r.Person, a)
	if err == nil {
		if err = s.Permitted(user, a.ip); err != nil {
			s.note(ctx, s.refusal(ctx, r.Person, tie, a, audit.WrongPlace))
		}
	}
	if err != nil {
		return none, bailey.User{}, err
	}
	methods := bySource
	if r.Person.Factors {
		methods += " " + byTwo
	}
	w := Where{IP: r.IP, UserAgent: r.UserAgent, Cookies: true, Known: r.Known}
	a.name, a.key = user.Name, guardKey(user.Name)
	a = s.known(ctx, a, user.ID, w)
	return s.enter(ctx, proof{attempt: a, user: user}, methods, w, entry{
		by: r.Person.Source, external: tie.ID, sid: clean(r.SID, 255), refresh: r.Refresh, at: s.cfg.Now(),
	})
}

// RefusedExternal counts and records an answer of a provider that was not
// believed. LimitExternal refuses addresses that bring too many of them.
func (s *Service) RefusedExternal(ctx context.Context, source, ip string, why audit.Reason) {
	a := newAttempt("", ip)
	if n := s.cfg.Guard.Miss(a.prefix); n > 0 {
		s.note(ctx, audit.Event{
			Actor: audit.Actor{Method: source, IP: a.ip}, Action: audit.SignIn, Target: audit.Target{Kind: "user"},
			Outcome: audit.Failure, Reason: why, Attrs: audit.Attrs{Count: int64(n)},
		})
	}
}

// LimitExternal returns TooMany when the address brought too many answers that
// were not believed.
func (s *Service) LimitExternal(source, ip string) error {
	if v := s.cfg.Guard.Lookup(guard.Prefix(ip), source); !v.Allowed {
		return errLimited(v.RetryAfter)
	}
	return nil
}

// Once reports whether something that may be used once is used for the first
// time; an error counts as a second.
func (s *Service) Once(ctx context.Context, kind, id string, until time.Time) (bool, error) {
	return s.cfg.Store.SeenOnce(ctx, kind, id, until)
}

// DueExternals and DueSessions list what a source vouched for before a time.
func (s *Service) DueExternals(ctx context.Context, source string, before time.Time, limit int) ([]bailey.External, error) {
	return s.cfg.Store.ExternalsDue(ctx, source, before, limit)
}

// DueSessions lists the sessions that a source vouched for before a time.
func (s *Service) DueSessions(ctx context.Context, source string, before time.Time, limit int) ([]bailey.ExternalSession, error) {
	return s.cfg.Store.ExternalSessionsDue(ctx, source, before, limit)
}

// ExternalOf returns the tie that a session came by.
func (s *Service) ExternalOf(ctx context.Context, x bailey.ExternalSession) (bailey.External, error) {
	ties, err := s.cfg.Store.Externals(ctx, x.UserID)
	if err != nil {
		return bailey.External{}, err
	}
	if i := slices.IndexFunc(ties, func(e bailey.External) bool { return e.ID == x.ExternalID }); i >= 0 {
		return ties[i], nil
	}
	return bailey.External{}, bailey.Errorf(bailey.NotFound, "there is no such identity")
}

// StillThere is told that a source vouches for somebody now, with these groups.
// If those no longer let them in, everything of theirs ends.
func (s *Service) StillThere(ctx context.Context, tie bailey.External, p external.Person) error {
	grant := s.cfg.External[p.Source].Decide(p.Groups)
	if !grant.Allowed {
		s.gone(ctx, tie, audit.NotAdmitted)
		return nil
	}
	user, err := s.cfg.Store.UserByID(ctx, tie.UserID)
	if err != nil {
		return err
	}
	_, _, err = s.vouched(ctx, user, tie, p, grant, false)
	return err
}

// StillVouched is [Service.StillThere] for a source that did not say which
// groups they are in now: those that it gave stay.
func (s *Service) StillVouched(ctx context.Context, tie bailey.External) error {
	tie.CheckedAt = s.cfg.Now()
	return s.cfg.Store.UpdateExternal(ctx, tie)
}

// Gone is told that a source no longer vouches for somebody; everything of
// theirs ends until it does again.
func (s *Service) Gone(ctx context.Context, tie bailey.External, why audit.Reason) {
	s.gone(ctx, tie, why)
}

// Rechecked keeps what a provider gave for asking again.
func (s *Service) Rechecked(ctx context.Context, x bailey.ExternalSession) error {
	return s.cfg.Store.UpdateExternalSession(ctx, x)
}

// EndExternalSession ends one session because its provider ended it. It is done
// before it is recorded.
func (s *Service) EndExternalSession(ctx context.Context, x bailey.ExternalSession, why audit.Reason) error {
	err := s.cfg.Store.DeleteSession(ctx, x.UserID, x.SessionID)
	s.end(x.SessionID)
	if err != nil && bailey.KindOf(err) == bailey.NotFound {
		return nil // it had ended
	}
	if err != nil {
		return err
	}
	actor := audit.By(bailey.System())
	actor.Method = x.Source
	target := audit.Target{Kind: "session", ID: x.SessionID}
	s.note(ctx, audit.Event{Actor: actor, Action: audit.SignOut, Target: target, Outcome: audit.Success, Reason: why})
	return nil
}

// SignOutExternal ends the sessions that a provider ended: those that it calls
// by this name, or all of a subject's. With both, a session must fit both.
func (s *Service) SignOutExternal(ctx context.Context, issuer, subject, sid string) (ended int, err error) {
	var sessions []bailey.ExternalSession
	tie, err := s.cfg.Store.ExternalBySubject(ctx, issuer, subject)
	switch {
	case err == nil && sid == "":
		sessions, err = s.cfg.Store.ExternalSessionsOf(ctx, tie.ID)
	case err == nil || subject == "" && bailey.KindOf(err) == bailey.NotFound:
		sessions, err = s.cfg.Store.ExternalSessionsBySID(ctx, issuer, sid)
		if subject != "" {
			sessions = slices.DeleteFunc(sessions, func(x bailey.ExternalSession) bool { return x.ExternalID != tie.ID })
		}
	case bailey.KindOf(err) == bailey.NotFound:
		return 0, nil // nobody here is that
	}
	if err != nil {
		return 0, err
	}
	// Whoever is between the provider and the second factor begins again.
	if subject != "" {
		err = s.cfg.Store.DeletePending(ctx, tie.UserID)
	} else {
		err = s.cfg.Store.DeletePendingBySID(ctx, issuer, sid)
	}
	for _, x := range sessions {
		err = errors.Join(err, s.EndExternalSession(ctx, x, audit.EndedThere))
	}
	return len(sessions), err
}

// Externals lists who an account is elsewhere: one's own, or an administrator
// anybody's.
func (s *Service) Externals(ctx context.Context, actor bailey.Actor, name string) ([]bailey.External, error) {
	userID, err := person(actor)
	if err != nil {
		return nil, err
	}
	if name != actor.Name {
		if err := s.allow(ctx, actor, policy.UserManage, audit.Target{Kind: "user", Name: clean(name, 64)}); err != nil {
			return nil, err
		}
		u, err := s.byName(ctx, name)
		if err != nil {
			return nil, err
		}
		userID = u.ID
	}
	return s.cfg.Store.Externals(ctx, userID)
}

// LinkOwn ties the actor's own account to who they just proved to be elsewhere.
// It is a browser's: a token may be somebody else's copy.
func (s *Service) LinkOwn(ctx context.Context, actor bailey.Actor, p external.Person) (bailey.External, error) {
	userID, err := person(actor)
	if err != nil {
		return bailey.External{}, err
	}
	if err := s.Fresh(actor); err != nil {
		return bailey.External{}, err
	}
	if actor.Method == "token" {
		return bailey.External{}, &bailey.Error{Kind: bailey.Denied, Msg: "an API token cannot link accounts", Hint: "do it on the account page"}
	}
	user, err := s.cfg.Store.UserByID(ctx, userID)
	if err != nil {
		return bailey.External{}, err
	}
	return s.link(ctx, actor, user, p)
}

// LinkUser ties an account to who its owner is elsewhere; for administrators.
func (s *Service) LinkUser(ctx context.Context, actor bailey.Actor, name string, p external.Person) (bailey.External, error) {
	if err := s.allow(ctx, actor, policy.UserManage, audit.Target{Kind: "user", Name: clean(name, 64)}); err != nil {
		return bailey.External{}, err
	}
	if err := s.Fresh(actor); err != nil {
		return bailey.External{}, err
	}
	user, err := s.byName(ctx, name)
	if err != nil {
		return bailey.External{}, err
	}
	return s.link(ctx, actor, user, p)
}

// link records and stores the tie. The account's password goes, so whatever was
// made with it goes too, but for the browser that does this.
func (s *Service) link(ctx context.Context, actor bailey.Actor, user bailey.User, p external.Person) (bailey.External, error) {
	rules, ok := s.cfg.External[p.Source]
	if !ok || p.Issuer == "" || p.Subject == "" || len(p.Subject) > 255 || clean(p.Subject, 255) != p.Subject {
		return bailey.External{}, bailey.Errorf(bailey.Invalid, "there is no such company account")
	}
	grant := rules.Decide(p.Groups)
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.UserLink, Target: audit.Target{Kind: "user", ID: user.ID, Name: user.Name}, Outcome: audit.Success,
		Attrs: audit.Attrs{Source: p.Source},
	}
	var tie bailey.External
	err := s.recorded(ctx, event, func() (err error) {
		// What the account has stays as it is until the next sign-in: given by
		// hand, as far as the source is concerned.
		tie, err = s.cfg.Store.LinkExternal(ctx, bailey.External{
			UserID: user.ID, Source: p.Source, Issuer: p.Issuer, Subject: p.Subject, Login: clean(p.Login, 128),
			Role: grant.Role, Groups: []string{}, CheckedAt: s.cfg.Now(),
		})
		if err != nil {
			return err
		}
		except := ""
		if actor.UserID == user.ID {
			except = actor.Session
		}
		defer s.endUser(user.ID, except)
		return s.cfg.Store.DeleteSessions(ctx, user.ID, except)
	})
	return tie, err
}

// LinkByPassword is [Service.LinkOwn] with a directory's login and password,
// which count like those of a sign-in.
func (s *Service) LinkByPassword(ctx context.Context, actor bailey.Actor, login string, password secret.Value) (bailey.External, error) {
	if len(s.cfg.Directories) == 0 {
		return bailey.External{}, bailey.Errorf(bailey.Invalid, "there is no directory in the configuration")
	}
	if err := s.Fresh(actor); err != nil {
		return bailey.External{}, err
	}
	a := newAttempt(login, actor.IP)
	v := s.cfg.Guard.Check(a.prefix, a.key)
	if !v.Allowed {
		return bailey.External{}, s.refused(ctx, a, v)
	}
	dir, e, err := s.findOutside(ctx, login)
	right := false
	if err == nil && dir != nil {
		a.method = dir.Source()
		right, err = dir.Check(ctx, e, password)
	}
	if err != nil {
		s.cfg.Guard.Release(a.prefix, a.key)
		return bailey.External{}, err
	}
	if !right || e.Locked {
		err := s.failed(ctx, a, v, bailey.User{}, audit.BadCredentials)
		if bailey.KindOf(err) == bailey.Unauthenticated { // they are signed in, only not there
			err = &bailey.Error{Kind: bailey.Denied, Msg: "the company's name or password is wrong", Hint: "check both and try again"}
		}
		return bailey.External{}, err
	}
	s.cfg.Guard.Succeed(a.prefix, a.key)
	return s.LinkOwn(ctx, actor, e.Person)
}

// Unlink takes a tie away; for administrators. Everything that the account can
// do ends: it has no way in until an administrator gives it a password or
// another tie.
func (s *Service) Unlink(ctx context.Context, actor bailey.Actor, name, id string) error {
	if err := s.allow(ctx, actor, policy.UserManage, audit.Target{Kind: "user", Name: clean(name, 64)}); err != nil {
		return err
	}
	if err := s.Fresh(actor); err != nil {
		return err
	}
	user, err := s.byName(ctx, name)
	if err != nil {
		return err
	}
	ties, err := s.cfg.Store.Externals(ctx, user.ID)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ties, func(e bailey.External) bool { return e.ID == id })
	if i < 0 {
		return &bailey.Error{Kind: bailey.NotFound, Msg: "this account has no such link", Hint: "bailey admin user links " + user.Name + " lists them"}
	}
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.UserUnlink, Target: audit.Target{Kind: "user", ID: user.ID, Name: user.Name}, Outcome: audit.Success,
		Attrs: audit.Attrs{Source: ties[i].Source},
	}
	return s.recorded(ctx, event, func() error {
		if err := s.cfg.Store.DeleteExternal(ctx, user.ID, id); err != nil {
			return err
		}
		return s.dropCredentials(ctx, user.ID)
	})
}

// decidedByHand takes an administrator's enabling or disabling for the last
// word: a source that had disabled the account does not enable it again.
func (s *Service) decidedByHand(ctx context.Context, userID string) error {
	ties, err := s.cfg.Store.Externals(ctx, userID)
	if err != nil {
		return err
	}
	for _, tie := range ties {
		if tie.Gone == "" {
			continue
		}
		tie.Gone = ""
		if err := s.cfg.Store.UpdateExternal(ctx, tie); err != nil && bailey.KindOf(err) != bailey.NotFound {
			return err
		}
	}
	return nil
}

// passwordElsewhere refuses to set a password for an account whose company
// decides: it would be a way in that the company cannot close.
func (s *Service) passwordElsewhere(ctx context.Context, userID string) error {
	ties, err := s.cfg.Store.Externals(ctx, userID)
	if err != nil || len(ties) == 0 {
		return err
	}
	return &bailey.Error{
		Kind: bailey.Conflict, Msg: "this account signs in with its company account (" + ties[0].Source + ") and has no password here",
		Hint: "change the password at the company; an administrator unlinks the account before giving it one (bailey admin user unlink)",
	}
}
