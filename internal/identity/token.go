package identity

import (
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/secret"
)

const (
	tokenDefault = 90 * 24 * time.Hour
	tokenMax     = 366 * 24 * time.Hour // a year, also a leap year

	tokenPrefix = "bly_"
	idLength    = 26 // of bailey.NewID
	sumLength   = 8
	tokenLength = len(tokenPrefix) + idLength + len("_") + cookieLength + sumLength
)

// newToken returns the text of a token: "bly_<id>_<secret><sum>". The prefix
// lets scanners of code find it, the sum lets them and us tell it from what
// only looks like it, without a look into the database.
func newToken(id string) secret.Value {
	body := tokenPrefix + id + "_" + secret.Random(32).Reveal()
	return secret.New(body + tokenSum(body))
}

func tokenSum(body string) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(body))) }

// parseToken returns the id in a token's text, and whether the text could be a
// token at all.
func parseToken(text string) (id string, ok bool) {
	if len(text) != tokenLength || !strings.HasPrefix(text, tokenPrefix) {
		return "", false
	}
	body, sum := text[:tokenLength-sumLength], text[tokenLength-sumLength:]
	id, key, found := strings.Cut(body[len(tokenPrefix):], "_")
	if !found || len(id) != idLength || !isBase64URL(key) || tokenSum(body) != sum {
		return "", false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return "", false
		}
	}
	return id, true
}

// ByToken returns the actor behind "bly_<id>_<secret>", like BySession. What
// cannot be a token is refused without a look into the store, and a prefix that
// shows too many wrong ones is slowed (TooMany).
func (s *Service) ByToken(ctx context.Context, token secret.Value, ip string) (bailey.Actor, error) {
	id, ok := parseToken(token.Reveal())
	if !ok {
		return bailey.Actor{}, s.missed(ctx, ip, "", bailey.User{}, audit.BadCredentials)
	}
	hash := token.Hash()
	if c, ok := s.live.find(hash, s.cfg.Now()); ok {
		return s.admit(c, ip, errTokenWrong)
	}
	prefix := guard.Prefix(ip)
	if v := s.cfg.Guard.Lookup(prefix, id); !v.Allowed {
		if v.Report > 0 {
			s.note(ctx, tokenEvent(ip, id, bailey.User{}, audit.Refused, audit.LockedOut, v.Report))
		}
		return bailey.Actor{}, errLimited(v.RetryAfter)
	}
	why, whose := audit.BadCredentials, bailey.User{}
	c, err := s.load(ctx, errTokenWrong, func() (credential, error) {
		row, stored, user, err := s.cfg.Store.TokenByID(ctx, id)
		if err != nil {
			return credential{}, err
		}
		if !secret.New(stored).Equal(secret.New(hash)) {
			return credential{}, errTokenWrong()
		}
		if whose = user; user.Disabled {
			why = audit.AccountDisabled
		}
		user.Groups = slices.Clip(user.Groups)
		return credential{
			id: row.ID, hash: hash, method: "token", user: user, seen: row.UsedAt, expires: row.ExpiresAt,
			auth: row.AuthAt, methods: strings.Fields(row.Methods),
		}, nil
	})
	if bailey.KindOf(err) == bailey.Unauthenticated && err != nil {
		return bailey.Actor{}, s.missed(ctx, ip, id, whose, why)
	}
	if err != nil {
		return bailey.Actor{}, err
	}
	s.cfg.Guard.Hit(prefix, id)
	return s.admit(c, ip, errTokenWrong)
}

// missed counts a wrong token, records it at most once a minute for each
// prefix, and returns what its bearer reads.
func (s *Service) missed(ctx context.Context, ip, id string, whose bailey.User, why audit.Reason) error {
	if n := s.cfg.Guard.Miss(guard.Prefix(ip)); n > 0 {
		s.note(ctx, tokenEvent(ip, id, whose, audit.Failure, why, n))
	}
	return errTokenWrong()
}

func tokenEvent(ip, id string, whose bailey.User, outcome audit.Outcome, why audit.Reason, n int) audit.Event {
	return audit.Event{
		Actor:  audit.Actor{ID: whose.ID, Name: whose.Name, Method: "token", IP: cleanIP(ip)},
		Action: audit.SignIn, Target: audit.Target{Kind: "token", ID: id},
		Outcome: outcome, Reason: why, Attrs: audit.Attrs{Count: int64(n)},
	}
}

func tokenLifetime(d time.Duration) (time.Duration, error) {
	switch {
	case d == 0:
		return tokenDefault, nil
	case d < 0 || d > tokenMax:
		return 0, &bailey.Error{Kind: bailey.Invalid, Msg: "an API token lives for a year at most", Hint: "ask for 1 to 365 days"}
	}
	return d, nil
}

// CreateToken makes an API token; its secret is shown once. lifetime is at most
// a year, 0 means 90 days. A token that is made with a token does not outlive
// it: whoever steals one for a day has it for a day. It takes a fresh proof of
// who the actor is (StepUp).
func (s *Service) CreateToken(ctx context.Context, actor bailey.Actor, note string, lifetime time.Duration) (Grant[bailey.Token], error) {
	none := Grant[bailey.Token]{}
	userID, err := person(actor)
	if err == nil {
		err = s.Fresh(actor)
	}
	if err != nil {
		return none, err
	}
	asked := lifetime
	if lifetime, err = tokenLifetime(lifetime); err != nil {
		return none, err
	}
	expires := s.cfg.Now().Add(lifetime)
	if actor.Method == "token" {
		parent, _, user, err := s.cfg.Store.TokenByID(ctx, actor.Session)
		switch {
		case err != nil && bailey.KindOf(err) != bailey.NotFound:
			return none, err
		case err != nil, user.ID != userID:
			return none, errTokenWrong()
		}
		if parent.ExpiresAt.Before(expires) {
			if asked != 0 {
				return none, &bailey.Error{
					Kind: bailey.Denied, Msg: "a token made with a token cannot outlive it: this one ends " + parent.ExpiresAt.UTC().Format(time.DateTime) + " UTC",
					Hint: "ask for fewer days, or make the token on the account page",
				}
			}
			expires = parent.ExpiresAt
		}
	}
	return s.issueToken(ctx, actor, note, expires)
}

// issueToken makes room, records and stores a token.
func (s *Service) issueToken(ctx context.Context, actor bailey.Actor, note string, expires time.Time) (Grant[bailey.Token], error) {
	none := Grant[bailey.Token]{}
	if err := s.roomForToken(ctx, actor.UserID); err != nil {
		return none, err
	}
	row := bailey.Token{ID: bailey.NewID(), UserID: actor.UserID, Note: clean(note, 64), CreatedAt: s.cfg.Now(), ExpiresAt: expires, AuthAt: actor.AuthTime, Methods: strings.Join(actor.Methods, " ")}
	grant := Grant[bailey.Token]{Row: row, Secret: newToken(row.ID)}
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.TokenCreate, Target: audit.Target{Kind: "token", ID: row.ID}, Outcome: audit.Success,
	}
	if err := s.record(ctx, event); err != nil {
		return none, err
	}
	if err := s.cfg.Store.CreateToken(ctx, row, grant.Secret.Hash()); err != nil {
		event.Outcome = audit.Failure
		s.note(ctx, event)
		return none, err
	}
	return grant, nil
}

// roomForToken removes the user's expired tokens and refuses when there are
// too many even so: a program that signs in anew each time would fill the
// store.
func (s *Service) roomForToken(ctx context.Context, userID string) error {
	all, err := s.cfg.Store.Tokens(ctx, userID)
	if err != nil {
		return err
	}
	now, valid := s.cfg.Now(), 0
	for _, t := range all {
		if now.Before(t.ExpiresAt) {
			valid++
			continue
		}
		if len(all) < maxTokens {
			continue // their owner may want to see why a script stopped working
		}
		if err := s.cfg.Store.DeleteToken(ctx, userID, t.ID); err != nil && bailey.KindOf(err) != bailey.NotFound {
			return err
		}
	}
	if valid >= maxTokens {
		return &bailey.Error{
			Kind: bailey.OverQuota, Msg: fmt.Sprintf("you have %d API tokens already", valid),
			Hint: "revoke some on the account page; let programs keep their token instead of signing in each time",
		}
	}
	return nil
}

// Tokens lists the actor's tokens.
func (s *Service) Tokens(ctx context.Context, actor bailey.Actor) ([]bailey.Token, error) {
	userID, err := person(actor)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.Tokens(ctx, userID)
}

// RevokeToken voids one of the actor's tokens. It is done before it is
// recorded, like [Service.EndSession].
func (s *Service) RevokeToken(ctx context.Context, actor bailey.Actor, id string) error {
	userID, err := person(actor)
	if err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteToken(ctx, userID, id); err != nil {
		return err
	}
	s.end(id)
	s.note(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.TokenRevoke, Target: audit.Target{Kind: "token", ID: id}, Outcome: audit.Success,
	})
	return nil
}
