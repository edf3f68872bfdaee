package identity

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/allow"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/passkey"
	"github.com/baileyhq/bailey/internal/password"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/ticket"
)

// Config is what a Service needs; Store, Guard, Audit are required.
type Config struct {
	Store Store
	Guard *guard.Guard
	Audit audit.Appender
	Log   *slog.Logger
	Now   func() time.Time // nil means time.Now

	SessionIdle     time.Duration // 0 means 8 h
	SessionLifetime time.Duration // 0 means 24 h
	SetupLifetime   time.Duration // 0 means 30 min
	Rules           func() Rules  // what holds now; nil means the defaults
	Host            string        // of the console: no word for a password, and what an authenticator app shows
	Origin          string        // of the console, for passkeys; empty: none
	Key             []byte        // 32 bytes, seals what browsers carry for us; empty: a random one
	UnknownKey      []byte        // keys the hash under which unknown names are audited; empty: a random one

	// SSHLink returns the address of the console's page for a code of
	// [Service.FirstContact]. nil: there is no such page, and no such link.
	SSHLink        func(code string) string
	SSHKeyLifetime time.Duration // how long an SSH key may live; 0 means 2 years

	Places func() *allow.Lists // from where people may come, asked each time; nil: from everywhere

	Directories []Directory               // asked about whom there is no password here
	External    map[string]external.Rules // what each source gives, by its name
}

// A Service signs people in. Methods may be called concurrently.
type Service struct {
	cfg     Config
	queue   *password.Queue
	classes classes
	live    *live
	waits   *waits
	strays  *audit.Denials // tokens used from outside their networks
	ssh     sshState
	notes   *ticket.Sealer

	party      *passkey.Party // nil: passkeys are not possible here
	noPasskeys error

	passwordMu sync.Mutex // held while a stored hash is compared and replaced: making one anew must not undo a change
}

// New checks cfg and returns a Service.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Guard == nil || cfg.Audit == nil {
		return nil, errors.New("identity: Store, Guard and Audit are required")
	}
	if cfg.SessionIdle < 0 || cfg.SessionLifetime < 0 || cfg.SetupLifetime < 0 || cfg.SSHKeyLifetime < 0 {
		return nil, errors.New("identity: negative lifetime")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.SessionIdle = cmp.Or(cfg.SessionIdle, 8*time.Hour)
	cfg.SessionLifetime = cmp.Or(cfg.SessionLifetime, 24*time.Hour)
	cfg.SetupLifetime = cmp.Or(cfg.SetupLifetime, 30*time.Minute)
	cfg.SSHKeyLifetime = cmp.Or(cfg.SSHKeyLifetime, 2*365*24*time.Hour)
	if len(cfg.UnknownKey) == 0 {
		cfg.UnknownKey = make([]byte, 32)
		_, _ = rand.Read(cfg.UnknownKey) // never fails since Go 1.24: the program aborts instead
	}
	s := &Service{cfg: cfg, queue: password.NewQueue(0), live: newLive(), strays: audit.NewDenials(cfg.Audit, cfg.Log)}
	s.waits = newWaits(cfg.Now, cfg.SessionIdle)
	if len(cfg.Key) == 0 {
		cfg.Key = make([]byte, 32)
		_, _ = rand.Read(cfg.Key) // see above
	}
	var err error
	if s.notes, err = ticket.New(cfg.Key); err != nil {
		return nil, err
	}
	s.noPasskeys = errNoPasskeys(passkey.ErrNoName)
	if cfg.Origin != "" {
		if s.party, err = passkey.New(cfg.Origin, s.notes); err != nil && !errors.Is(err, passkey.ErrNoName) {
			return nil, err
		}
	}
	return s, nil
}

// A RetryError is the Cause of errors of kind TooMany and Unavailable that go
// away by themselves.
type RetryError struct{ After time.Duration }

// Error says how long to wait.
func (e *RetryError) Error() string { return "try again after " + e.After.String() }

// RetryAfter returns how long to wait before err is worth another try, for a
// Retry-After header; zero when err does not say.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*RetryError](err); ok {
		return e.After
	}
	return 0
}

func errLimited(after time.Duration) error {
	after = max(after, time.Second)
	shown := "a minute"
	switch m := int((after + time.Minute - 1) / time.Minute); {
	case m > 120:
		shown = count((m+59)/60, "hour")
	case m > 1:
		shown = count(m, "minute")
	}
	return &bailey.Error{
		Kind: bailey.TooMany, Msg: "too many attempts to sign in",
		Hint: "wait " + shown + ", then try again", Cause: &RetryError{After: after},
	}
}

// The words for whoever is not signed in.
func errSignedOut() error {
	return &bailey.Error{Kind: bailey.Unauthenticated, Msg: "you are not signed in, or your session has ended", Hint: "sign in again"}
}

func errTokenWrong() error {
	return &bailey.Error{
		Kind: bailey.Unauthenticated, Msg: "the API token is not valid: it was revoked, has expired, ended with its account, or never existed",
		Hint: "run \"bailey login\", or make a new token on the account page; a company account that nobody vouched for in a long time opens with the next sign-in, and needs new tokens",
	}
}

// record makes the event durable. When it cannot, the caller must not do what
// the event says. The cause is logged here because a door shows an Unavailable
// to its reader and logs nothing.
func (s *Service) record(ctx context.Context, e audit.Event) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := s.cfg.Audit.Append(ctx, e)
	if err == nil {
		return nil
	}
	s.cfg.Log.ErrorContext(ctx, "audit event lost, action refused",
		slog.String("action", string(e.Action)), slog.String("error", err.Error()))
	return &bailey.Error{
		Kind: bailey.Unavailable, Msg: "this is not possible now: the audit journal cannot be written",
		Hint: "an administrator checks the disk of the state directory; nothing was lost", Cause: err,
	}
}

// note records what has already been refused or ended; that stays so even when
// the journal cannot be written.
func (s *Service) note(ctx context.Context, e audit.Event) {
	_ = s.record(ctx, e) // logged there
}

// allow refuses what policy refuses, and records the refusal.
func (s *Service) allow(ctx context.Context, actor bailey.Actor, action policy.Action, target audit.Target) error {
	if policy.Decide(actor, action, policy.Thing{}) {
		return nil
	}
	s.note(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.AccessDenied, Target: target, Outcome: audit.Refused, Reason: audit.NotAllowed,
	})
	return &bailey.Error{Kind: bailey.Denied, Msg: "you may not manage accounts", Hint: "ask an administrator"}
}

// person returns the actor's own user id, or refuses actors that are nobody,
// and tokens that were not made for their owner's account.
func person(actor bailey.Actor) (string, error) {
	if actor.UserID == "" {
		return "", errSignedOut()
	}
	if !policy.Decide(actor, policy.AccountManage, policy.Thing{OwnerID: actor.UserID}) {
		return "", errScope(bailey.ScopeAccount)
	}
	return actor.UserID, nil
}

// errScope is for tokens that were not made for what they are used for.
func errScope(s bailey.Scope) error {
	return &bailey.Error{
		Kind: bailey.Denied, Msg: "this API token was not made for that",
		Hint: "make one with the scope " + string(s) + ", or use the console",
	}
}

// unknown is how a name that is no account stands in the audit log: people
// type passwords there, and the same name must still be recognisable.
func (s *Service) unknown(name string) string {
	mac := hmac.New(sha256.New, s.cfg.UnknownKey)
	mac.Write([]byte(name))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// cleanIP returns the address in its one written form, or nothing.
func cleanIP(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return ""
	}
	return a.Unmap().WithZone("").String()
}

// clean cuts a stranger's text to n bytes and takes out what could act on a
// terminal or break a line.
func clean(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text[:min(len(text), 4*n)])
	for len(text) > n {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return strings.TrimSpace(text)
}
