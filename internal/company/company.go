// Package company signs people in with the account that their company gave
// them: at an identity provider in their browser, or by the company's directory.
// It ties what comes back from a provider to the browser that asked, asks
// providers and directories again and again whether they still vouch for whom
// they sent, and ends what they no longer do. Who may come in and as what is
// identity's to decide.
package company

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/ldap"
	"github.com/baileyhq/bailey/internal/oidc"
)

// flowFor is how long somebody may take at their provider.
const flowFor = 15 * time.Minute

// A Provider is one identity provider and what its button says.
type Provider struct {
	*oidc.Provider

	Name, Title string
}

// A Directory is one directory and what it is called.
type Directory struct {
	*ldap.Directory

	Name, Title string
}

// Config is what a Service stands on; Identity and a Key of 32 bytes are
// required.
type Config struct {
	Identity    *identity.Service
	Providers   []Provider
	Directories []Directory
	Key         []byte // seals what a browser keeps while it is at a provider

	Recheck    time.Duration // how often it is asked whether people are still there; 0 means 5 min
	StaleAfter time.Duration // after this long without a yes, an account is closed; 0 means never
	Now        func() time.Time
	Log        *slog.Logger
}

// A Service may be used concurrently.
type Service struct {
	cfg  Config
	seal cipher.AEAD
}

// New checks cfg. It asks nobody yet.
func New(cfg Config) (*Service, error) {
	if cfg.Identity == nil {
		return nil, errors.New("company: Identity is required")
	}
	block, err := aes.NewCipher(cfg.Key)
	if err != nil || len(cfg.Key) != 32 {
		return nil, errors.New("company: Key has 32 bytes")
	}
	s := &Service{cfg: cfg}
	if s.seal, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return nil, err
	}
	s.cfg.Recheck = cmp.Or(cfg.Recheck, 5*time.Minute)
	if s.cfg.Now == nil {
		s.cfg.Now = time.Now
	}
	if s.cfg.Log == nil {
		s.cfg.Log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// A Choice is one way to sign in that a page offers.
type Choice struct{ Name, Title string }

// Providers lists the identity providers, in the configuration's order. A nil
// Service has none.
func (s *Service) Providers() []Choice {
	if s == nil {
		return nil
	}
	var out []Choice
	for _, p := range s.cfg.Providers {
		out = append(out, Choice{p.Name, p.Title})
	}
	return out
}

// Directories lists the directories whose passwords the sign-in form takes.
func (s *Service) Directories() []Choice {
	if s == nil {
		return nil
	}
	var out []Choice
	for _, d := range s.cfg.Directories {
		out = append(out, Choice{d.Name, d.Title})
	}
	return out
}

func (s *Service) provider(name string) (Provider, error) {
	if s != nil {
		for _, p := range s.cfg.Providers {
			if p.Name == name {
				return p, nil
			}
		}
	}
	return Provider{}, &bailey.Error{Kind: bailey.NotFound, Msg: "there is no such way to sign in", Hint: "choose one on the sign-in page"}
}

// A Trip is what is remembered while a browser is at a provider. Open and N
// lead to a workspace afterwards; they are a slug and a hash, never an address.
type Trip struct {
	Open, N string
	Link    string // the session that wants to link its account; empty: to sign in

	// StepUp is the session that wants to prove who it is; the others lead back
	// to where that was asked for.
	StepUp, To, Code, Held string
}

// ticket is a Trip as the browser keeps it, sealed.
type ticket struct {
	Provider string    `json:"p"`
	Flow     oidc.Flow `json:"f"`
	Open     string    `json:"o,omitempty"`
	N        string    `json:"n,omitempty"`
	Link     string    `json:"l,omitempty"`
	StepUp   string    `json:"u1,omitempty"`
	To       string    `json:"u2,omitempty"`
	Code     string    `json:"u3,omitempty"`
	Held     string    `json:"u4,omitempty"`
	Until    int64     `json:"u"`
}

const ticketPlace = "bailey oidc ticket v1"

// Begin returns the address of the provider to send the browser to, and the
// ticket to put into a cookie of this browser.
func (s *Service) Begin(ctx context.Context, name, ip string, trip Trip) (to, cookie string, err error) {
	p, err := s.provider(name)
	if err != nil {
		return "", "", err
	}
	if err := s.cfg.Identity.LimitExternal(p.Source(), ip); err != nil {
		return "", "", err
	}
	begin := p.Begin
	if trip.StepUp != "" {
		begin = p.BeginAgain
	}
	to, flow, err := begin(ctx)
	if err != nil {
		s.cfg.Log.WarnContext(ctx, "identity provider cannot be asked", slog.String("provider", name), slog.String("error", err.Error()))
		return "", "", err
	}
	b, err := json.Marshal(ticket{Provider: name, Flow: flow, Open: trip.Open, N: trip.N, Link: trip.Link, StepUp: trip.StepUp, To: trip.To, Code: trip.Code, Held: trip.Held, Until: s.cfg.Now().Add(flowFor).Unix()})
	if err != nil {
		return "", "", err
	}
	sealed := s.seal.Seal(nil, nil, b, []byte(ticketPlace)) //nolint:gosec // the cipher makes a random nonce of its own
	return to, base64.RawURLEncoding.EncodeToString(sealed), nil
}

// open reads a ticket. What does not open, is for another provider or is too
// old is no ticket.
func (s *Service) open(cookie, name string) (ticket, bool) {
	var t ticket
	if len(cookie) > 4096 {
		return t, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil {
		return t, false
	}
	b, err := s.seal.Open(nil, nil, raw, []byte(ticketPlace))
	if err != nil || json.Unmarshal(b, &t) != nil {
		return ticket{}, false
	}
	return t, t.Provider == name && s.cfg.Now().Unix() < t.Until
}

// An Arrival is what came of a browser's trip.
type Arrival struct {
	Trip    Trip
	Session identity.Grant[bailey.Session] // unless the trip was to link
	Linked  bool
	Proved  bool // who is signed in here already proved it
}

// Finish judges what a browser brought back from a provider, with the ticket
// that it has, and signs it in or links the account that it is signed in to.
// Each ticket is good once.
func (s *Service) Finish(ctx context.Context, name, cookie string, query url.Values, actor bailey.Actor, w identity.Where) (Arrival, error) {
	ip := w.IP
	p, err := s.provider(name)
	if err != nil {
		return Arrival{}, err
	}
	if err := s.cfg.Identity.LimitExternal(p.Source(), ip); err != nil {
		return Arrival{}, err
	}
	t, ok := s.open(cookie, name)
	if !ok {
		t.Flow = oidc.Flow{} // whatever comes back fits none
	}
	if t.Flow.State != "" && query.Get("state") == t.Flow.State {
		first, err := s.cfg.Identity.Once(ctx, "oidc state", hash(t.Flow.State), time.Unix(t.Until, 0))
		if err != nil {
			return Arrival{}, err
		}
		if !first {
			t.Flow = oidc.Flow{}
		}
	}
	arrival := Arrival{Trip: Trip{Open: t.Open, N: t.N, Link: t.Link, StepUp: t.StepUp, To: t.To, Code: t.Code, Held: t.Held}}
	login, err := p.Finish(ctx, t.Flow, query)
	if err != nil {
		return arrival, s.refused(ctx, p.Source(), ip, err)
	}
	if t.StepUp != "" {
		if actor.Session != t.StepUp {
			return arrival, &bailey.Error{Kind: bailey.Denied, Msg: "you are not signed in as when you were asked who you are", Hint: "sign in, and do it again"}
		}
		arrival.Proved = true
		return arrival, s.cfg.Identity.StepUpExternal(ctx, actor, login.Person)
	}
	if t.Link != "" {
		if actor.Session != t.Link {
			return Arrival{}, &bailey.Error{Kind: bailey.Denied, Msg: "you are not signed in as when you began to link your account", Hint: "sign in, and begin again on the account page"}
		}
		arrival.Linked = true
		_, err := s.cfg.Identity.LinkOwn(ctx, actor, login.Person)
		return arrival, err
	}
	arrival.Session, _, err = s.cfg.Identity.SignInExternal(ctx, identity.ExternalSignIn{
		Person: login.Person, SID: login.SID, Refresh: login.Refresh, IP: ip, UserAgent: w.UserAgent, Known: w.Known,
	})
	return arrival, err
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// refused counts, records and logs an answer that was not believed, and returns
// what the stranger reads.
func (s *Service) refused(ctx context.Context, source, ip string, err error) error {
	r, ok := errors.AsType[*oidc.Refusal](err)
	if !ok {
		if ctx.Err() == nil {
			s.cfg.Log.WarnContext(ctx, "identity provider cannot be asked", slog.String("account_source", source), slog.String("error", err.Error()))
		}
		return err
	}
	s.cfg.Identity.RefusedExternal(ctx, source, ip, audit.Reason(r.Reason))
	s.cfg.Log.WarnContext(ctx, "answer of an identity provider refused", slog.String("account_source", source), slog.String("ip", ip), slog.String("error", r.Error()))
	return r.Words()
}

// Logout takes a provider's word that somebody's sessions ended there. Anybody
// can call it, so what is not signed is worth nothing and too much of it is not
// looked at.
func (s *Service) Logout(ctx context.Context, name, token, ip string) error {
	p, err := s.provider(name)
	if err != nil {
		return err
	}
	if err := s.cfg.Identity.LimitExternal(p.Source(), ip); err != nil {
		return err
	}
	out, err := p.Logout(ctx, token)
	if err != nil {
		return s.refused(ctx, p.Source(), ip, err)
	}
	first, err := s.cfg.Identity.Once(ctx, "oidc logout", out.ID, out.Until)
	if err != nil {
		return err
	}
	if !first {
		return &bailey.Error{Kind: bailey.Invalid, Msg: "this logout token was used before", Hint: "each one counts once"}
	}
	n, err := s.cfg.Identity.SignOutExternal(ctx, p.Issuer(), out.Subject, out.SID)
	if err == nil {
		s.cfg.Log.InfoContext(ctx, "identity provider ended sessions", slog.String("provider", name), slog.Int("sessions", n))
	}
	return err
}

// Person looks somebody up in a directory, for an administrator who links an
// account; source is "ldap:NAME".
func (s *Service) Person(ctx context.Context, source, login string) (external.Person, error) {
	if s != nil {
		for _, d := range s.cfg.Directories {
			if d.Source() != source {
				continue
			}
			e, ok, err := d.Find(ctx, login)
			if err == nil && !ok {
				err = &bailey.Error{Kind: bailey.NotFound, Msg: "the directory knows nobody by this login, or more than one", Hint: "bailey admin sign-in test ldap " + d.Name + " --user LOGIN shows what is asked"}
			}
			return e.Person, err
		}
	}
	return external.Person{}, bailey.Errorf(bailey.NotFound, "there is no directory by this name in the configuration")
}

// Subject is [Service.Person] for a provider, which cannot be asked about
// somebody who is not there: the administrator knows the subject.
func (s *Service) Subject(source, subject string) (external.Person, error) {
	if s != nil {
		for _, p := range s.cfg.Providers {
			if p.Source() == source {
				return external.Person{Source: source, Issuer: p.Issuer(), Subject: subject}, nil
			}
		}
	}
	return external.Person{}, bailey.Errorf(bailey.NotFound, "there is no identity provider by this name in the configuration")
}
