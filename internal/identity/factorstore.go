package identity

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
)

// A FactorStore keeps second factors, the browsers that people are known by,
// and sign-ins that are not finished. What must be true once, for any number of
// people at the same moment, it decides: whether a step of time, a recovery
// code, a try is the first. The kinds of error are those of [Store].
type FactorStore interface { //nolint:interfacebloat // see Store
	Factors(ctx context.Context, userID string) ([]bailey.Factor, error)
	FactorByHandle(ctx context.Context, handle string) (bailey.Factor, error)
	FactorSecret(ctx context.Context, userID, id string) (string, error)
	// AddFactor: Conflict when another factor has the handle, OverQuota when
	// the user has most already.
	AddFactor(ctx context.Context, f bailey.Factor, secret, handle string, step int64, most int) error
	UseStep(ctx context.Context, userID, id string, step int64, at time.Time) (first bool, err error)
	UsePasskey(ctx context.Context, userID, id, credential string, cloned bool, at time.Time) error
	RenameFactor(ctx context.Context, userID, id, name string) error
	DeleteFactor(ctx context.Context, userID, id string) error
	DeleteFactors(ctx context.Context, userID string) error
	TryFactor(ctx context.Context, userID string, free int, since, at time.Time) (allowed bool, err error)
	ClearFactorTries(ctx context.Context, userID string) error
	SetRecoveryCodes(ctx context.Context, userID string, hashes []string) error
	UseRecoveryCode(ctx context.Context, userID, hash string, at time.Time) (first bool, err error)
	RecoveryCodesLeft(ctx context.Context, userID string) (int, error)

	CreatePending(ctx context.Context, p bailey.PendingSignIn, secretHash string) error
	Pending(ctx context.Context, secretHash string) (bailey.PendingSignIn, error)
	TryPending(ctx context.Context, secretHash string, most int) (bailey.PendingSignIn, error)
	AdvancePending(ctx context.Context, secretHash, from, methods, stored string) error
	FinishPending(ctx context.Context, secretHash string) error
	DeletePending(ctx context.Context, userID string) error
	DeletePendingBySID(ctx context.Context, issuer, sid string) error

	CreateBrowser(ctx context.Context, d bailey.Browser, secretHash string) error
	BrowserByHash(ctx context.Context, secretHash string) (bailey.Browser, error)
	TouchBrowser(ctx context.Context, id, ip string, seen, expires time.Time) error
	Browsers(ctx context.Context, userID string) ([]bailey.Browser, error)
	DeleteBrowser(ctx context.Context, userID, id string) error

	PasswordSetAt(ctx context.Context, userID string) (time.Time, error)
	RenewPasswordHash(ctx context.Context, userID, old, fresh string) (bool, error)
	ProveSession(ctx context.Context, userID, id, methods string, at time.Time) error
	ProveToken(ctx context.Context, userID, id, methods string, at time.Time) error

	AddNotice(ctx context.Context, n bailey.Notice) error
	Notices(ctx context.Context, userID string) ([]bailey.Notice, error)
	DeleteNotices(ctx context.Context, userID string) error
}
