// Package identity knows who is asking: local accounts with argon2id
// passwords, browser sessions, API tokens, the one-time set-up link, and the
// limits on failed sign-ins (through guard). It answers with a bailey.Actor;
// what that actor may do is policy's question.
package identity

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

// A Store keeps accounts, sessions and tokens. Methods return a *bailey.Error
// of kind NotFound or Conflict where that is the case. All may be called
// concurrently.
type Store interface { //nolint:interfacebloat // one room keeps all of it, one service uses all of it
	Devices
	// ChangeGroup changes what one user is to one group, and returns the user.
	ChangeGroup(ctx context.Context, userID, group string, c bailey.GroupChange) (bailey.User, error)
	SSHStore
	FactorStore

	// CreateUser stores the user with a free UID from 20000–59999 that was
	// never given out before, and sets ID, UID and CreatedAt. Conflict when
	// the name is taken.
	CreateUser(ctx context.Context, u bailey.User, passwordHash string) (bailey.User, error)
	UserByID(ctx context.Context, id string) (bailey.User, error)
	UserByName(ctx context.Context, name string) (bailey.User, error)
	Users(ctx context.Context) ([]bailey.User, error)
	CountUsers(ctx context.Context) (int, error)
	// UpdateUser stores Role, Groups and Disabled. Conflict when it would leave
	// no enabled administrator who is a person.
	UpdateUser(ctx context.Context, u bailey.User) error
	// DeleteUser removes the account with its sessions and tokens. Conflict
	// while it has workspaces or volumes, or is the last enabled administrator.
	DeleteUser(ctx context.Context, id string) error
	PasswordHash(ctx context.Context, userID string) (string, error)
	SetPasswordHash(ctx context.Context, userID, hash string) error
	// PasswordHashesUnlike returns every stored hash that does not begin with
	// prefix, each text once.
	PasswordHashesUnlike(ctx context.Context, prefix string) ([]string, error)

	CreateSession(ctx context.Context, s bailey.Session, secretHash string) error
	// SessionByHash returns the session and its user; NotFound when there is
	// none or it is past ExpiresAt.
	SessionByHash(ctx context.Context, secretHash string) (bailey.Session, bailey.User, error)
	TouchSession(ctx context.Context, id string, seen time.Time) error
	Sessions(ctx context.Context, userID string) ([]bailey.Session, error)
	DeleteSession(ctx context.Context, userID, id string) error
	// DeleteSessions ends all sessions of the user but except (may be empty).
	DeleteSessions(ctx context.Context, userID, except string) error

	CreateToken(ctx context.Context, t bailey.Token, secretHash string) error
	TokenByID(ctx context.Context, id string) (t bailey.Token, secretHash string, u bailey.User, err error)
	TouchToken(ctx context.Context, id string, used time.Time, ip string) error
	Tokens(ctx context.Context, userID string) ([]bailey.Token, error)
	DeleteToken(ctx context.Context, userID, id string) error

	// Setup is the one-time set-up secret: its hash and expiry; NotFound when none is pending.
	SetSetup(ctx context.Context, hash string, expires time.Time) error
	Setup(ctx context.Context) (hash string, expires time.Time, err error)
	// FinishSetup consumes the pending set-up and creates the first
	// administrator in one transaction; Conflict when it was consumed or any
	// user exists.
	FinishSetup(ctx context.Context, hash string, u bailey.User, passwordHash string) (bailey.User, error)

	ExternalStore
}

// A Grant is a fresh credential: the row that was stored and the secret, which
// is shown or set as a cookie once and never stored.
type Grant[T any] struct {
	Row     T
	Secret  secret.Value
	Browser secret.Value // for a browser to keep, see [BrowserCookie]; empty: none, or it has one
}

// SignInRequest is one attempt with name and password.
type SignInRequest struct {
	Name      string
	Password  secret.Value
	Factor    FactorAnswer // for programs, which have one step; browsers answer when they are asked
	IP        string       // the caller's address as edge determined it
	UserAgent string
	Cookies   bool           // as in [Where]
	Known     []secret.Value // as in [Where]
}

func (r SignInRequest) where() Where {
	return Where{IP: r.IP, UserAgent: r.UserAgent, Cookies: r.Cookies, Known: r.Known}
}
