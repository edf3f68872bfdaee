package identity

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/secret"
)

// cookieLength is that of [secret.Random](32).
const cookieLength = 43

// BySession returns the actor behind a session cookie's value. It is on the
// path of every request: answers may be up to one second old. Unauthenticated
// when there is no such session, it expired, or the account is disabled.
func (s *Service) BySession(ctx context.Context, cookie secret.Value, ip string) (bailey.Actor, error) {
	if text := cookie.Reveal(); len(text) != cookieLength || !isBase64URL(text) {
		return bailey.Actor{}, errSignedOut()
	}
	hash := cookie.Hash()
	if c, ok := s.live.find(hash, s.cfg.Now()); ok {
		return s.admit(ctx, c, ip, errSignedOut)
	}
	c, err := s.load(ctx, ip, errSignedOut, func() (credential, error) {
		row, user, err := s.cfg.Store.SessionByHash(ctx, hash)
		return sessionCredential(row, user, hash), err
	})
	if err != nil {
		return bailey.Actor{}, err
	}
	return s.admit(ctx, c, ip, errSignedOut)
}

// BySessionID is BySession by the row's id: for credentials derived from a
// session, such as a workspace's cookie, so that they die with it.
func (s *Service) BySessionID(ctx context.Context, userID, id, ip string) (bailey.Actor, error) {
	if userID == "" || id == "" {
		return bailey.Actor{}, errSignedOut()
	}
	c, ok := s.live.findID(id, s.cfg.Now())
	if !ok {
		var err error
		c, err = s.load(ctx, ip, errSignedOut, func() (credential, error) { return s.sessionByID(ctx, userID, id) })
		if err != nil {
			return bailey.Actor{}, err
		}
	}
	if c.user.ID != userID || c.method != "password" {
		return bailey.Actor{}, errSignedOut()
	}
	return s.admit(ctx, c, ip, errSignedOut)
}

// sessionByID finds one of the user's sessions; NotFound when there is none.
func (s *Service) sessionByID(ctx context.Context, userID, id string) (credential, error) {
	rows, err := s.cfg.Store.Sessions(ctx, userID)
	if err != nil {
		return credential{}, err
	}
	i := slices.IndexFunc(rows, func(r bailey.Session) bool { return r.ID == id })
	if i < 0 {
		return credential{}, bailey.Errorf(bailey.NotFound, "there is no such session")
	}
	user, err := s.cfg.Store.UserByID(ctx, userID)
	return sessionCredential(rows[i], user, ""), err
}

func sessionCredential(row bailey.Session, user bailey.User, hash string) credential {
	user.Groups = slices.Clip(user.Groups) // shared by all who ask; nobody appends into it
	return credential{
		id: row.ID, hash: hash, method: "password", user: user, seen: row.SeenAt, expires: row.ExpiresAt,
		auth: row.AuthAt, methods: strings.Fields(row.Methods),
	}
}

// isBase64URL reports whether the text could have come from [secret.Random]:
// what could not is not looked up.
func isBase64URL(text string) bool {
	for _, c := range []byte(text) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// admit gives the actor of a credential that was found, if it is good now.
func (s *Service) admit(ctx context.Context, c credential, ip string, refuse func() error) (bailey.Actor, error) {
	if !c.good(s.cfg.Now(), s.cfg.SessionIdle) {
		return bailey.Actor{}, refuse()
	}
	if err := s.Permitted(c.user, ip); err != nil {
		return bailey.Actor{}, err
	}
	if !c.token.from(ip) {
		who := audit.By(c.actor(cleanIP(ip)))
		s.strays.Note(ctx, who, audit.Target{Kind: "token", ID: c.id}, audit.ForeignNetwork)
		return bailey.Actor{}, &bailey.Error{
			Kind: bailey.Unauthenticated, Msg: "this API token may not be used from this address",
			Hint: "use it from the networks that it was made for, or make another one",
		}
	}
	return c.actor(ip), nil
}

// load reads a credential from the store, keeps it in memory, and notes the
// use. When something ends while it reads, it reads again.
func (s *Service) load(ctx context.Context, ip string, refuse func() error, read func() (credential, error)) (credential, error) {
	const tries = 4
	var c credential
	for range tries {
		begun := s.live.begin()
		var err error
		c, err = read()
		if bailey.KindOf(err) == bailey.NotFound && err != nil {
			return credential{}, refuse()
		}
		if err != nil {
			return credential{}, err
		}
		now := s.cfg.Now()
		if !c.good(now, s.cfg.SessionIdle) {
			return credential{}, refuse()
		}
		c.loaded = now
		if s.live.put(c, begun) {
			break
		}
	}
	if c.token.from(ip) {
		s.touch(ctx, c, ip)
	}
	return c, nil
}

// touch keeps the time of the last use, to the minute. That it cannot be
// stored is no reason to refuse: memory has it.
func (s *Service) touch(ctx context.Context, c credential, ip string) {
	now := s.cfg.Now()
	if !c.idles() && c.method != "token" {
		return // an SSH sign-in notes its own use, with the address
	}
	store := s.cfg.Store.TouchSession
	if ip = cleanIP(ip); c.token == nil {
		ip = ""
	} else {
		store = func(ctx context.Context, id string, used time.Time) error {
			return s.cfg.Store.TouchToken(ctx, id, used, ip)
		}
	}
	if !s.live.touch(c.id, now, ip) {
		return
	}
	s.waits.saw(c.id, now)
	if err := store(ctx, c.id, now); err != nil && ctx.Err() == nil && bailey.KindOf(err) != bailey.NotFound {
		s.cfg.Log.WarnContext(ctx, "last use was not stored", slog.String("session", c.id), slog.String("error", err.Error()))
	}
}

// SignOut ends the session. For an actor with an API token it voids the token.
func (s *Service) SignOut(ctx context.Context, actor bailey.Actor) error {
	if actor.Session == "" {
		return errSignedOut()
	}
	if actor.Method == "token" {
		return s.voidToken(ctx, actor, actor.UserID, actor.Session) // whatever its scopes
	}
	err := s.EndSession(ctx, actor, actor.Session)
	if err != nil && bailey.KindOf(err) == bailey.NotFound {
		return nil // it had ended
	}
	return err
}

// Sessions lists the actor's sessions; EndSession ends one of them.
func (s *Service) Sessions(ctx context.Context, actor bailey.Actor) ([]bailey.Session, error) {
	userID, err := person(actor)
	if err != nil {
		return nil, err
	}
	rows, err := s.cfg.Store.Sessions(ctx, userID)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	return slices.DeleteFunc(rows, func(r bailey.Session) bool {
		return !now.Before(r.ExpiresAt) || now.Sub(s.lastUse(r)) >= s.cfg.SessionIdle
	}), nil
}

// lastUse is when the session was last used, as far as memory knows better
// than the row.
func (s *Service) lastUse(r bailey.Session) time.Time {
	if c, ok := s.live.last(r.ID); ok && c.seen.After(r.SeenAt) {
		return c.seen
	}
	return r.SeenAt
}

// EndSession ends one of the actor's sessions. It is done before it is
// recorded: ending access must not wait for a journal.
func (s *Service) EndSession(ctx context.Context, actor bailey.Actor, id string) error {
	userID, err := person(actor)
	if err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteSession(ctx, userID, id); err != nil {
		return err
	}
	s.end(id)
	s.endCertificatesOf(ctx, userID, id)
	s.note(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.SignOut, Target: audit.Target{Kind: "session", ID: id}, Outcome: audit.Success,
	})
	return nil
}
