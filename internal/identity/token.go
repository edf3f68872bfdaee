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
	"github.com/baileyhq/bailey/internal/policy"
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
		return s.admit(ctx, c, ip, errTokenWrong)
	}
	prefix := guard.Prefix(ip)
	if v := s.cfg.Guard.Lookup(prefix, id); !v.Allowed {
		if v.Report > 0 {
			s.note(ctx, tokenEvent(ip, id, bailey.User{}, audit.Refused, audit.LockedOut, v.Report))
		}
		return bailey.Actor{}, errLimited(v.RetryAfter)
	}
	why, whose := audit.BadCredentials, bailey.User{}
	c, err := s.load(ctx, ip, errTokenWrong, func() (credential, error) {
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
			id: row.ID, hash: hash, method: "token", user: user, token: limitsOf(row), usedIP: row.UsedIP,
			seen: row.UsedAt, expires: row.ExpiresAt, auth: row.AuthAt, methods: strings.Fields(row.Methods),
		}, nil
	})
	if bailey.KindOf(err) == bailey.Unauthenticated && err != nil {
		return bailey.Actor{}, s.missed(ctx, ip, id, whose, why)
	}
	if err != nil {
		return bailey.Actor{}, err
	}
	s.cfg.Guard.Hit(prefix, id)
	return s.admit(ctx, c, ip, errTokenWrong)
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

// A TokenRequest says what a token shall be good for. Zero fields mean: as much
// as may be, which is what the creator's own credential is good for.
type TokenRequest struct {
	Note       string
	Lifetime   time.Duration  // at most a year; 0 means 90 days, or as long as the token that makes it
	Scopes     []bailey.Scope // none: all, or those of the token that makes it
	Workspaces []string       // ids of the only workspaces it is for
	Networks   []string       // CIDRs or addresses it may be used from
}

// CreateToken makes an API token for the actor; its secret is shown once. A
// token that is made with a token is nowhere wider than that one and does not
// outlive it: whoever steals one for a day has it for a day. Invalid for what
// cannot be, Denied for what would be wider, StepUp for a session whose owner
// proved too long ago who they are.
func (s *Service) CreateToken(ctx context.Context, actor bailey.Actor, r TokenRequest) (Grant[bailey.Token], error) {
	none := Grant[bailey.Token]{}
	userID, err := person(actor)
	if err == nil {
		err = s.Fresh(actor)
	}
	if err != nil {
		return none, err
	}
	user, err := s.cfg.Store.UserByID(ctx, userID)
	if err != nil {
		return none, err
	}
	return s.createToken(ctx, actor, user, r)
}

func (s *Service) createToken(ctx context.Context, actor bailey.Actor, user bailey.User, r TokenRequest) (Grant[bailey.Token], error) {
	none := Grant[bailey.Token]{}
	lifetime, err := tokenLifetime(r.Lifetime)
	if err != nil {
		return none, err
	}
	row := bailey.Token{
		UserID: user.ID, Note: r.Note, Scopes: r.Scopes, Workspaces: r.Workspaces, Networks: r.Networks,
		ExpiresAt: s.cfg.Now().Add(lifetime),
	}
	if actor.UserID != user.ID {
		row.CreatedBy = actor.UserID
	}
	if err := checkLimits(&row); err != nil {
		return none, err
	}
	if actor.Method == "token" {
		parent, _, owner, err := s.cfg.Store.TokenByID(ctx, actor.Session)
		switch {
		case err != nil && bailey.KindOf(err) != bailey.NotFound:
			return none, err
		case err != nil, owner.ID != actor.UserID:
			return none, errTokenWrong()
		}
		if err := narrow(&row, parent, r.Lifetime != 0); err != nil {
			return none, err
		}
	}
	if len(row.Scopes) == 0 {
		row.Scopes = []bailey.Scope{bailey.ScopeAll}
	}
	for _, scope := range row.Scopes {
		if !policy.Fits(user, scope) {
			return none, errUnfit(user, scope)
		}
	}
	return s.issueToken(ctx, actor, row)
}

func errUnfit(u bailey.User, scope bailey.Scope) error {
	return &bailey.Error{
		Kind: bailey.Denied, Msg: "the scope " + string(scope) + " is not for " + u.Name + ", whose role is " + string(u.Role),
		Hint: "leave it out, or ask an administrator",
	}
}

// issueToken makes room, records and stores a token, and looks once more
// whether who made it is still signed in: what ends everything of somebody ends
// their sessions first and then the tokens that it finds.
func (s *Service) issueToken(ctx context.Context, actor bailey.Actor, row bailey.Token) (Grant[bailey.Token], error) {
	none := Grant[bailey.Token]{}
	if err := s.roomForToken(ctx, row.UserID); err != nil {
		return none, err
	}
	row.ID, row.Note, row.CreatedAt = bailey.NewID(), clean(row.Note, 64), s.cfg.Now()
	grant := Grant[bailey.Token]{Row: row, Secret: newToken(row.ID)}
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.TokenCreate, Target: audit.Target{Kind: "token", ID: row.ID}, Outcome: audit.Success,
		Attrs: audit.Attrs{Scopes: scopeNames(row.Scopes), Owner: row.UserID},
	}
	if err := s.record(ctx, event); err != nil {
		return none, err
	}
	err := s.cfg.Store.CreateToken(ctx, row, grant.Secret.Hash())
	if err == nil {
		if err = s.stillIn(ctx, actor); err != nil {
			_ = s.cfg.Store.DeleteToken(context.WithoutCancel(ctx), row.UserID, row.ID) // or what ended the actor has
			s.end(row.ID)
		}
	}
	if err != nil {
		event.Outcome = audit.Failure
		s.note(ctx, event)
		return none, err
	}
	return grant, nil
}

// stillIn returns an error when the actor's session or token is there no more.
func (s *Service) stillIn(ctx context.Context, actor bailey.Actor) error {
	if actor.Session == "" {
		return nil // a sign-in that makes a token has no session; see stillRight
	}
	refuse, read := errSignedOut, func() error {
		_, err := s.sessionByID(ctx, actor.UserID, actor.Session)
		return err
	}
	if actor.Method == "token" {
		refuse, read = errTokenWrong, func() error {
			_, _, _, err := s.cfg.Store.TokenByID(ctx, actor.Session)
			return err
		}
	}
	err := read()
	if err != nil && bailey.KindOf(err) == bailey.NotFound {
		return refuse()
	}
	return err
}

func scopeNames(scopes []bailey.Scope) []string {
	names := make([]string, len(scopes))
	for i, s := range scopes {
		names[i] = string(s)
	}
	return names
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

// RevokeToken voids one of the actor's tokens, and those that were made with
// it. It is done before it is recorded, like [Service.EndSession].
func (s *Service) RevokeToken(ctx context.Context, actor bailey.Actor, id string) error {
	if actor.Method == "token" && id == actor.Session && id != "" {
		return s.voidToken(ctx, actor, actor.UserID, id) // every token may end itself
	}
	userID, err := person(actor)
	if err != nil {
		return err
	}
	return s.voidToken(ctx, actor, userID, id)
}

// voidToken voids a token of the user, then its descendants. The token goes
// first: what it makes from then on, issueToken takes back.
func (s *Service) voidToken(ctx context.Context, actor bailey.Actor, userID, id string) error {
	if err := s.cfg.Store.DeleteToken(ctx, userID, id); err != nil {
		return err
	}
	s.end(id)
	gone := []string{id}
	all, err := s.cfg.Store.Tokens(ctx, userID)
	for i := 0; err == nil && i < len(gone); i++ {
		for _, t := range all {
			if t.ParentID != gone[i] {
				continue
			}
			gone = append(gone, t.ID)
			if derr := s.cfg.Store.DeleteToken(ctx, userID, t.ID); derr != nil && bailey.KindOf(derr) != bailey.NotFound {
				err = derr
				break
			}
			s.end(t.ID)
		}
	}
	for _, id := range gone {
		s.endCertificatesOf(ctx, userID, id)
		s.note(ctx, audit.Event{
			Actor: audit.By(actor), Action: audit.TokenRevoke, Target: audit.Target{Kind: "token", ID: id}, Outcome: audit.Success,
			Attrs: audit.Attrs{Owner: userID},
		})
	}
	return err
}
