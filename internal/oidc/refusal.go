package oidc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/baileyhq/bailey"
)

// ErrEnded is wrapped by [Provider.Again] when the provider no longer vouches
// for somebody.
var ErrEnded = errors.New("the provider does not vouch for this session any more")

// A Reason says why an answer was refused, from a closed set.
type Reason string

// The reasons.
const (
	BadState      Reason = "bad_state"  // not begun in this browser, or too long ago
	BadIssuer     Reason = "bad_issuer" // another provider's answer
	BadNonce      Reason = "bad_nonce"  // made for another sign-in
	BadToken      Reason = "bad_token"  // signature, audience, form
	BadAnswer     Reason = "bad_answer"
	BadClock      Reason = "bad_clock" // too old, or from the future
	BadClient     Reason = "bad_client"
	ProviderError Reason = "provider_refused"
	TooManyGroups Reason = "too_many_groups"
	NotAsked      Reason = "not_asked_anew" // it vouches by an old sign-in
)

// A Refusal is an answer that is not believed. Its text is for the log; people
// read [Refusal.Words].
type Refusal struct { //nolint:errname // callers ask for a refusal, not for an error
	Reason Reason
	msg    string // for people, when there is more to say than the reason
	hint   string
	err    error
}

func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.err.Error() }

func (r *Refusal) Unwrap() error { return r.err }

func refuse(why Reason, detail string) *Refusal {
	return &Refusal{Reason: why, err: errors.New(detail)}
}

// Words returns what the person in front of the browser reads.
func (r *Refusal) Words() error {
	e := &bailey.Error{Kind: bailey.Unauthenticated, Cause: r, Msg: r.msg, Hint: r.hint}
	if e.Msg != "" {
		return e
	}
	e.Hint = "sign in again; if it happens again, an administrator finds the reason in the server's log"
	switch r.Reason { //nolint:exhaustive // the others have the same words
	case BadState:
		e.Msg, e.Hint = "this sign-in was not begun in this browser, or it took too long", "begin again on the sign-in page; cookies must be allowed for this server"
	case NotAsked:
		e.Msg, e.Hint = "the identity provider did not ask you again who you are", "try again and sign in there; an administrator finds in its manual how it obeys prompt=login and says auth_time"
	case TooManyGroups:
		e.Msg, e.Hint = "your company account is in more groups than the identity provider tells", "tell an administrator: the identity provider must send only the groups of this application"
	default:
		e.Msg = "the answer of the identity provider could not be trusted"
	}
	return e
}

// clockRefusal is about times that do not fit, and says how far the clocks are
// apart when that is known.
func (p *Provider) clockRefusal(detail string, err error) *Refusal {
	apart, known := p.clock.apart()
	words := "the clocks of this server and of the identity provider differ"
	if known && apart.Abs() > skew {
		words += " by " + apart.Abs().Round(time.Second).String()
	} else {
		words = "the identity provider's answer is too old, or from the future"
	}
	return &Refusal{
		Reason: BadClock, msg: words,
		hint: "tell an administrator: both clocks are to be set by NTP (timedatectl on this server)",
		err:  errors.Join(errors.New(detail), err),
	}
}

// providerRefused gives words to the error code of an answer. The text that
// comes with it is anybody's, so it is not shown.
func providerRefused(name, code string) *Refusal {
	r := &Refusal{Reason: ProviderError, err: fmt.Errorf("the provider %s answers %q", name, clean(code))}
	switch code {
	case "access_denied":
		r.msg, r.hint = "the identity provider did not let you in", "did you cancel? Else ask whoever runs it whether your account may use this server"
	case "login_required", "interaction_required", "consent_required", "account_selection_required":
		r.msg, r.hint = "the identity provider wants you to do something first", "sign in again and follow its pages"
	case "temporarily_unavailable", "server_error":
		r.msg, r.hint = "the identity provider has a problem of its own", "try again in a few minutes"
	case "invalid_scope", "unauthorized_client", "invalid_request", "unsupported_response_type":
		r.msg, r.hint = "the identity provider refuses what this server asks it for ("+code+")", "tell an administrator: bailey admin sign-in test oidc "+name
	default:
		r.msg, r.hint = "the identity provider refused the sign-in", "try again; an administrator finds the reason in the server's log"
	}
	return r
}

// exchangeError gives words to an error of the token endpoint.
func (p *Provider) exchangeError(err error) error {
	e, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return p.unavailable(err)
	}
	switch {
	case e.ErrorCode == "invalid_client" || e.ErrorCode == "unauthorized_client" || e.Response != nil && e.Response.StatusCode == 401:
		return &Refusal{
			Reason: BadClient, err: fmt.Errorf("the token endpoint answers %q", clean(e.ErrorCode)),
			msg: "the identity provider does not accept this server", hint: "tell an administrator: client_id or client_secret is wrong; bailey admin sign-in test oidc " + p.cfg.Name,
		}
	case e.ErrorCode != "":
		return &Refusal{Reason: BadAnswer, err: fmt.Errorf("the token endpoint answers %q", clean(e.ErrorCode))}
	}
	return p.unavailable(fmt.Errorf("the token endpoint answers %d", e.Response.StatusCode))
}

// unavailable is what a stranger reads when the provider could not be asked.
func (p *Provider) unavailable(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &bailey.Error{
		Kind: bailey.Unavailable, Msg: "the identity provider cannot be asked now",
		Hint:  "try again in a moment; if it lasts, an administrator runs: bailey admin sign-in test oidc " + p.cfg.Name,
		Cause: err,
	}
}

// clean keeps a code that strangers wrote short and harmless.
func clean(code string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.' {
			return r
		}
		return -1
	}, code[:min(len(code), 60)])
}
