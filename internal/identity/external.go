package identity

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
)

// An ExternalStore keeps who accounts are elsewhere. The kinds of error are
// those of the store's methods.
type ExternalStore interface {
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
