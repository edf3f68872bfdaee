package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/secret"
)

// A program that has no browser gets a token by RFC 8628: it asks for two
// codes, shows the short one to a person and polls with the long one; the
// person, signed in at the console, types the short code, sees who is asking
// for what, and answers. The token is the person's, once.
//
// The danger is the person who is talked into typing somebody else's code. So
// the page says what is asked for and from where, nothing is approved by a link
// alone, and codes live for ten minutes.

const (
	deviceLife     = 10 * time.Minute
	deviceInterval = 5 * time.Second // between polls; each that comes early adds as much
	deviceToken    = tokenDefault

	codeLetters = "BCDFGHJKLMNPQRSTVWXZ" // no vowels, so no words; nothing that looks like something else
	codeLength  = 8
)

// Devices keeps device authorizations, by the hashes of their codes.
type Devices interface {
	// CreateDevice stores a pending one. Conflict when a code is taken, TooMany
	// when there are too many.
	CreateDevice(ctx context.Context, d bailey.Device, deviceHash, codeHash string) error
	// DeviceByCode returns one that has not expired.
	DeviceByCode(ctx context.Context, codeHash string) (bailey.Device, error)
	// AnswerDevice answers one that is pending; NotFound otherwise.
	AnswerDevice(ctx context.Context, id, userID string, answer bailey.DeviceState) error
	// PollDevice notes a poll and says whether it came too early.
	PollDevice(ctx context.Context, deviceHash string, slower time.Duration) (d bailey.Device, early bool, err error)
	// TakeDevice removes an approved one; NotFound when somebody was faster.
	TakeDevice(ctx context.Context, id string) error
	// DeleteDevices removes those that the user answered.
	DeleteDevices(ctx context.Context, userID string) error
}

// A DeviceCode is what a program gets to begin with.
type DeviceCode struct {
	Device   secret.Value  // the program's own, to poll with
	User     string        // the person's, "ABCD-EFGH"
	Life     time.Duration // from now
	Interval time.Duration // between polls
}

// A DeviceError is the Cause of a poll's error: a code of RFC 8628 or RFC 6749.
type DeviceError string

// The answers to a poll that gives no token.
const (
	DevicePending DeviceError = "authorization_pending" //nolint:errname // the words of RFC 8628
	DeviceSlower  DeviceError = "slow_down"             //nolint:errname // the words of RFC 8628
	DeviceDenied  DeviceError = "access_denied"         //nolint:errname // the words of RFC 8628
	DeviceExpired DeviceError = "expired_token"         //nolint:errname // the words of RFC 8628
	DeviceUnknown DeviceError = "invalid_grant"         //nolint:errname // the words of RFC 8628
)

// Error implements error.
func (e DeviceError) Error() string { return string(e) }

// BeginDevice starts a device authorization. Anybody may, so an address gets
// only so many: TooMany. Invalid for scopes that do not exist.
func (s *Service) BeginDevice(ctx context.Context, note, ip string, scopes []bailey.Scope) (DeviceCode, error) {
	scopes, err := checkScopes(scopes)
	if err != nil {
		return DeviceCode{}, err
	}
	if len(scopes) == 0 {
		scopes = []bailey.Scope{bailey.ScopeAll}
	}
	// The limits of unknown tokens are those of strangers who make us work.
	prefix := guard.Prefix(ip)
	if v := s.cfg.Guard.Lookup(prefix, deviceAsks); !v.Allowed {
		return DeviceCode{}, errLimited(v.RetryAfter)
	}
	s.cfg.Guard.Miss(prefix)
	now := s.cfg.Now()
	d := bailey.Device{
		State: bailey.DevicePending, Note: clean(note, 64), Scopes: scopes, IP: cleanIP(ip),
		CreatedAt: now, ExpiresAt: now.Add(deviceLife), Interval: deviceInterval,
	}
	for range 4 {
		d.ID = bailey.NewID()
		code, device := newUserCode(), secret.Random(32)
		err = s.cfg.Store.CreateDevice(ctx, d, device.Hash(), codeHash(code))
		if err == nil {
			return DeviceCode{Device: device, User: code[:4] + "-" + code[4:], Life: deviceLife, Interval: deviceInterval}, nil
		}
		if bailey.KindOf(err) != bailey.Conflict {
			break
		}
	}
	return DeviceCode{}, err
}

// deviceAsks is the subject under which guard counts those who ask for codes.
const deviceAsks = "device codes"

// newUserCode returns 8 letters, each as likely as any other.
func newUserCode() string {
	var code [codeLength]byte
	for i := 0; i < codeLength; {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails since Go 1.24
		for _, c := range b {
			if int(c) < 256-256%len(codeLetters) && i < codeLength {
				code[i] = codeLetters[int(c)%len(codeLetters)]
				i++
			}
		}
	}
	return string(code[:])
}

// plainCode is a code as a person typed it, in its one form: case, blanks and
// dashes do not matter. ok is false for what cannot be one.
func plainCode(typed string) (code string, ok bool) {
	if len(typed) > 40 {
		return "", false
	}
	code = strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' || r == '\t' {
			return -1
		}
		return r
	}, strings.ToUpper(typed))
	if len(code) != codeLength || strings.Trim(code, codeLetters) != "" {
		return "", false
	}
	return code, true
}

func codeHash(code string) string {
	sum := sha256.Sum256([]byte("device code " + code))
	return hex.EncodeToString(sum[:])
}

// Device returns the pending device authorization whose code a signed-in person
// typed. NotFound when there is none; after five of those the person waits
// (TooMany).
func (s *Service) Device(ctx context.Context, actor bailey.Actor, typed string) (bailey.Device, error) {
	if err := s.mayAnswer(actor); err != nil {
		return bailey.Device{}, err
	}
	// The counters of passwords, under a subject that no account's name can be.
	prefix, subject := guard.Prefix(actor.IP), "device code by "+actor.UserID
	v := s.cfg.Guard.Check(prefix, subject)
	if !v.Allowed {
		if v.Report > 0 {
			s.note(ctx, deviceMiss(actor, audit.Refused, audit.LockedOut, v.Report))
		}
		return bailey.Device{}, &bailey.Error{
			Kind: bailey.TooMany, Msg: "too many wrong codes", Hint: "wait, then ask the program for a new code", Cause: &RetryError{After: v.RetryAfter},
		}
	}
	var d bailey.Device
	err := error(errNoDevice)
	if code, ok := plainCode(typed); ok {
		d, err = s.cfg.Store.DeviceByCode(ctx, codeHash(code))
	}
	if err == nil && d.State != bailey.DevicePending {
		err = errNoDevice // answered already: as good as none
	}
	switch {
	case err == nil:
		// Neither a failure nor a success: a right code must not clear the
		// failures before it, or whoever has one could guess for ever.
		s.cfg.Guard.Release(prefix, subject)
		return d, nil
	case bailey.KindOf(err) == bailey.NotFound:
		s.cfg.Guard.Fail(prefix, subject, false)
		s.note(ctx, deviceMiss(actor, audit.Failure, audit.BadCredentials, 1))
		return bailey.Device{}, errNoDevice
	}
	s.cfg.Guard.Release(prefix, subject)
	return bailey.Device{}, err
}

var errNoDevice = &bailey.Error{
	Kind: bailey.NotFound, Msg: "this code is wrong, was used, or is older than ten minutes",
	Hint: "compare it with what the program shows, or start the program again for a new one",
}

func deviceMiss(actor bailey.Actor, outcome audit.Outcome, why audit.Reason, n int) audit.Event {
	return audit.Event{
		Actor: audit.By(actor), Action: audit.DeviceApprove, Target: audit.Target{Kind: "device"},
		Outcome: outcome, Reason: why, Attrs: audit.Attrs{Count: int64(n)},
	}
}

// mayAnswer refuses whoever is no person at a browser: a token that could
// approve a device would make tokens wider than itself.
func (s *Service) mayAnswer(actor bailey.Actor) error {
	if _, err := person(actor); err != nil {
		return err
	}
	if actor.Method == "token" {
		return &bailey.Error{Kind: bailey.Denied, Msg: "a device is approved by a person, not by a token", Hint: "sign in at the console"}
	}
	return nil
}

// AnswerDevice approves or denies what [Service.Device] returns for the code.
// It is durable in the journal before the program can fetch its token. Denied
// when the program asks for scopes that the person cannot give, StepUp when they
// proved too long ago who they are.
func (s *Service) AnswerDevice(ctx context.Context, actor bailey.Actor, typed string, approve bool) (bailey.Device, error) {
	d, err := s.Device(ctx, actor, typed)
	if err != nil {
		return d, err
	}
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.DeviceDeny, Target: audit.Target{Kind: "device", ID: d.ID},
		Outcome: audit.Success, Attrs: audit.Attrs{Scopes: scopeNames(d.Scopes)},
	}
	answer := bailey.DeviceDenied
	if approve {
		if err := s.Fresh(actor); err != nil {
			return d, err
		}
		event.Action, answer = audit.DeviceApprove, bailey.DeviceApproved
		user, err := s.cfg.Store.UserByID(ctx, actor.UserID)
		if err != nil {
			return d, err
		}
		for _, scope := range d.Scopes {
			if !policy.Fits(user, scope) {
				return d, errUnfit(user, scope)
			}
		}
	}
	err = s.recorded(ctx, event, func() error {
		err := s.cfg.Store.AnswerDevice(ctx, d.ID, actor.UserID, answer)
		if err == nil && approve {
			// What ended everything of this person meanwhile did not see it.
			if err = s.stillIn(ctx, actor); err != nil {
				_ = s.cfg.Store.TakeDevice(context.WithoutCancel(ctx), d.ID) // or it went with the rest
			}
		}
		return err
	})
	if bailey.KindOf(err) == bailey.NotFound && err != nil {
		err = errNoDevice
	}
	return d, err
}

// PollDevice is how a program asks for its token. Until there is one the error
// has a [DeviceError] in its chain. The token is given once.
func (s *Service) PollDevice(ctx context.Context, device secret.Value, ip string) (Grant[bailey.Token], bailey.User, error) {
	fail := func(err error) (Grant[bailey.Token], bailey.User, error) {
		return Grant[bailey.Token]{}, bailey.User{}, err
	}
	if text := device.Reveal(); len(text) != cookieLength || !isBase64URL(text) {
		return fail(s.unknownDevice(ip))
	}
	prefix := guard.Prefix(ip)
	if v := s.cfg.Guard.Lookup(prefix, deviceAsks); !v.Allowed {
		return fail(errLimited(v.RetryAfter))
	}
	d, early, err := s.cfg.Store.PollDevice(ctx, device.Hash(), deviceInterval)
	switch {
	case bailey.KindOf(err) == bailey.NotFound && err != nil:
		return fail(s.unknownDevice(ip))
	case err != nil:
		return fail(err)
	case early:
		s.cfg.Guard.Miss(prefix) // a flood ends by being slowed
		return fail(errDevice(DeviceSlower, "asked too soon", "ask less often"))
	case !s.cfg.Now().Before(d.ExpiresAt):
		return fail(errDevice(DeviceExpired, "the code is too old", "start again for a new one"))
	case d.State == bailey.DevicePending:
		return fail(errDevice(DevicePending, "nobody has answered yet", "keep asking"))
	case d.State != bailey.DeviceApproved:
		return fail(errDevice(DeviceDenied, "the person said no", ""))
	}
	return s.collect(ctx, d, ip)
}

// unknownDevice counts a code that nobody has, as an unknown token.
func (s *Service) unknownDevice(ip string) error {
	s.cfg.Guard.Miss(guard.Prefix(ip))
	return errDevice(DeviceUnknown, "there is no such code, or its token was fetched already", "start again for a new one")
}

func errDevice(code DeviceError, msg, hint string) error {
	return &bailey.Error{Kind: bailey.Invalid, Msg: msg, Hint: hint, Cause: code}
}

// collect makes the token of an approved device authorization. The token is
// there before the authorization is taken, and goes again when that was gone:
// then somebody else fetched it, or everything of the user was ended.
func (s *Service) collect(ctx context.Context, d bailey.Device, ip string) (Grant[bailey.Token], bailey.User, error) {
	fail := func(err error) (Grant[bailey.Token], bailey.User, error) {
		return Grant[bailey.Token]{}, bailey.User{}, err
	}
	user, err := s.cfg.Store.UserByID(ctx, d.UserID)
	if err != nil && bailey.KindOf(err) != bailey.NotFound {
		return fail(err)
	}
	if err != nil || user.Disabled || user.Service {
		return fail(errDevice(DeviceDenied, "the person's account is closed", ""))
	}
	for _, scope := range d.Scopes {
		if !policy.Fits(user, scope) { // the role changed since
			return fail(errDevice(DeviceDenied, "the person may not give this any more", ""))
		}
	}
	actor := bailey.Actor{UserID: user.ID, Name: user.Name, Role: user.Role, Groups: user.Groups, Manages: user.Manages, Method: "device", IP: cleanIP(ip)}
	note := d.Note
	if note == "" {
		note = "device"
	}
	grant, err := s.issueToken(ctx, actor, bailey.Token{
		UserID: user.ID, Note: note, Scopes: d.Scopes, ExpiresAt: s.cfg.Now().Add(deviceToken),
	})
	if err != nil {
		return fail(err)
	}
	if err := s.cfg.Store.TakeDevice(ctx, d.ID); err != nil {
		undo := s.cfg.Store.DeleteToken(context.WithoutCancel(ctx), user.ID, grant.Row.ID)
		s.end(grant.Row.ID)
		s.note(ctx, audit.Event{
			Actor: audit.By(actor), Action: audit.TokenRevoke, Target: audit.Target{Kind: "token", ID: grant.Row.ID}, Outcome: audit.Success, Reason: audit.ByDevice,
		})
		if undo != nil && bailey.KindOf(undo) != bailey.NotFound {
			return fail(undo)
		}
		if bailey.KindOf(err) == bailey.NotFound {
			return fail(s.unknownDevice(ip))
		}
		return fail(err)
	}
	return grant, user, nil
}
