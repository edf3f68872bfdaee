// Package passkey judges what authenticators say (WebAuthn): it asks for new
// keys and for signatures, and checks the answers against the console's own
// host. Challenges are sealed notes, so nothing has to be remembered between
// question and answer; that an answer counts once is the caller's to keep.
package passkey

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/baileyhq/bailey/internal/ticket"
)

const (
	goodFor   = 5 * time.Minute // how long a question may wait for its answer
	maxAnswer = 64 << 10
)

// ErrNoName is returned by [New] for a console without a host name: browsers
// bind passkeys to names, and an IP address is none.
var ErrNoName = errors.New("passkeys need a host name: browsers do not make them for an IP address")

// ErrRefused is wrapped when an answer is not what it should be. The cause is
// for the log.
var ErrRefused = errors.New("the passkey's answer is not valid")

// A Party is the console as authenticators see it. It may be used concurrently.
type Party struct {
	web   *webauthn.WebAuthn
	notes *ticket.Sealer
}

// New returns the Party of a console's origin ("https://hub.example.org:8443").
func New(origin string, notes *ticket.Sealer) (*Party, error) {
	u, err := url.Parse(origin)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" {
		return nil, fmt.Errorf("passkey: %q is no origin", origin)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return nil, ErrNoName
	}
	w, err := webauthn.New(&webauthn.Config{
		RPID: u.Hostname(), RPDisplayName: "bailey", RPOrigins: []string{origin},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationPreferred,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("passkey: %w", err)
	}
	return &Party{web: w, notes: notes}, nil
}

// A Key is a stored passkey.
type Key struct {
	Handle     string // the credential's id, base64url: no two keys have the same
	Credential string // what is stored of it, JSON
}

// person is a user as the library wants one.
type person struct {
	id, name string
	keys     []webauthn.Credential
}

func (p person) WebAuthnID() []byte                         { return []byte(p.id) }
func (p person) WebAuthnName() string                       { return p.name }
func (p person) WebAuthnDisplayName() string                { return p.name }
func (p person) WebAuthnCredentials() []webauthn.Credential { return p.keys }

func personOf(id, name string, keys []Key) (person, error) {
	p := person{id: id, name: name}
	for _, k := range keys {
		var c webauthn.Credential
		if err := json.Unmarshal([]byte(k.Credential), &c); err != nil {
			return p, fmt.Errorf("passkey: a stored key is unreadable: %w", err)
		}
		p.keys = append(p.keys, c)
	}
	return p, nil
}

func (p *Party) challenge(purpose string, now time.Time) []byte {
	note, _ := base64.RawURLEncoding.DecodeString(p.notes.Seal("passkey "+purpose, nil, now.Add(goodFor))) // it was just encoded
	return note
}

func (p *Party) ours(purpose, challenge string, now time.Time) error {
	if _, err := p.notes.Open("passkey "+purpose, challenge, now); err != nil {
		return fmt.Errorf("%w: the question was not ours, or is too old", ErrRefused)
	}
	return nil
}

// Register returns what navigator.credentials.create is asked, as JSON. The
// answer must be given for the same purpose, within five minutes. Keys the user
// has already are not made twice.
func (p *Party) Register(purpose, userID, name string, have []Key, now time.Time) ([]byte, error) {
	who, err := personOf(userID, name, have)
	if err != nil {
		return nil, err
	}
	challenge := p.challenge(purpose, now)
	creation, _, err := p.web.BeginRegistration(who, func(o *protocol.PublicKeyCredentialCreationOptions) error {
		o.Challenge = challenge
		for i := range who.keys {
			o.CredentialExcludeList = append(o.CredentialExcludeList, who.keys[i].Descriptor())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("passkey: ask for a new key: %w", err)
	}
	return json.Marshal(creation.Response)
}

// Registered checks the answer to [Party.Register] and returns the new key.
func (p *Party) Registered(purpose, userID string, answer []byte, now time.Time) (Key, error) {
	if len(answer) > maxAnswer {
		return Key{}, fmt.Errorf("%w: %d bytes", ErrRefused, len(answer))
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return Key{}, refused(err)
	}
	challenge := parsed.Response.CollectedClientData.Challenge
	if err := p.ours(purpose, challenge, now); err != nil {
		return Key{}, err
	}
	c, err := p.web.CreateCredential(person{id: userID}, webauthn.SessionData{
		Challenge: challenge, RelyingPartyID: p.web.Config.RPID, UserID: []byte(userID),
		UserVerification: protocol.VerificationPreferred, CredParams: webauthn.CredentialParametersDefault(),
	}, parsed)
	if err != nil {
		return Key{}, refused(err)
	}
	return keyOf(c)
}

func keyOf(c *webauthn.Credential) (Key, error) {
	c.Attestation = webauthn.CredentialAttestation{} // not asked for, not believed, not kept
	b, err := json.Marshal(c)
	if err != nil {
		return Key{}, fmt.Errorf("passkey: %w", err)
	}
	return Key{Handle: base64.RawURLEncoding.EncodeToString(c.ID), Credential: string(b)}, nil
}

// Ask returns what navigator.credentials.get is asked, as JSON: for one of the
// keys of somebody who has given a password, or, without keys, for any key that
// the authenticator has for this host, with its holder verified.
func (p *Party) Ask(purpose string, keys []Key, now time.Time) ([]byte, error) {
	verify := protocol.VerificationPreferred
	if len(keys) == 0 {
		verify = protocol.VerificationRequired
	}
	who, err := personOf("", "", keys)
	if err != nil {
		return nil, err
	}
	allowed := make([]protocol.CredentialDescriptor, 0, len(keys))
	for i := range who.keys {
		allowed = append(allowed, who.keys[i].Descriptor())
	}
	asked, _, err := p.web.BeginDiscoverableLogin(webauthn.WithChallenge(p.challenge(purpose, now)),
		webauthn.WithUserVerification(verify), webauthn.WithAllowedCredentials(allowed))
	if err != nil {
		return nil, fmt.Errorf("passkey: ask for a signature: %w", err)
	}
	return json.Marshal(asked.Response)
}

// An Answer is what a browser sent, read but not yet believed.
type Answer struct {
	Handle    string // of the key that claims to have signed
	Challenge string // the note in it: whoever takes each only once is safe from replay
	parsed    *protocol.ParsedCredentialAssertionData
}

// Read reads the answer to [Party.Ask].
func Read(answer []byte) (Answer, error) {
	if len(answer) > maxAnswer {
		return Answer{}, fmt.Errorf("%w: %d bytes", ErrRefused, len(answer))
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return Answer{}, refused(err)
	}
	return Answer{
		Handle:    base64.RawURLEncoding.EncodeToString(parsed.RawID),
		Challenge: parsed.Response.CollectedClientData.Challenge, parsed: parsed,
	}, nil
}

// A Proof is what an answer proved.
type Proof struct {
	Key      Key  // as it is now to be stored: its counter has moved
	Verified bool // the authenticator saw its holder's finger, face or PIN
	Cloned   bool // the counter went back: somebody may have a copy of the key
}

// Answered checks an answer by the stored key that it claims. alone says that
// there is no password beside it: then the user must have been verified, and
// the answer must name the same user itself.
func (p *Party) Answered(purpose, userID string, key Key, a Answer, alone bool, now time.Time) (Proof, error) {
	if err := p.ours(purpose, a.Challenge, now); err != nil {
		return Proof{}, err
	}
	who, err := personOf(userID, "", []Key{key})
	if err != nil {
		return Proof{}, err
	}
	session := webauthn.SessionData{Challenge: a.Challenge, RelyingPartyID: p.web.Config.RPID, UserVerification: protocol.VerificationPreferred}
	var c *webauthn.Credential
	if alone {
		session.UserVerification = protocol.VerificationRequired
		c, err = p.web.ValidateDiscoverableLogin(func(rawID, handle []byte) (webauthn.User, error) {
			if !bytes.Equal(handle, []byte(userID)) || !slices.ContainsFunc(who.keys, func(c webauthn.Credential) bool { return bytes.Equal(c.ID, rawID) }) {
				return nil, errors.New("the key is another user's")
			}
			return who, nil
		}, session, a.parsed)
	} else {
		session.UserID = []byte(userID)
		c, err = p.web.ValidateLogin(who, session, a.parsed)
	}
	if err != nil {
		return Proof{}, refused(err)
	}
	next, err := keyOf(c)
	return Proof{
		Key: next, Verified: a.parsed.Response.AuthenticatorData.Flags.HasUserVerified(), Cloned: c.Authenticator.CloneWarning,
	}, err
}

// refused keeps the library's reason, which it hides from Error, for the log.
func refused(err error) error {
	if e, ok := errors.AsType[*protocol.Error](err); ok && e.DevInfo != "" {
		return fmt.Errorf("%w: %s: %s", ErrRefused, e.Details, e.DevInfo)
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}
