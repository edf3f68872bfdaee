// Package passkeytest is an authenticator in software, with the browser around
// it: it makes keys and signs as a person's device does, and as an attacker's.
package passkeytest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"
	"testing"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
)

// An Authenticator is one device with its browser. Its fields may be changed
// between uses, to what no honest one says.
type Authenticator struct {
	Origin  string // of the page that asks
	RPID    string // what the browser takes for the page's host
	Verify  bool   // its holder shows a finger, a face or a PIN
	Counter uint32 // of signatures
	Step    uint32 // by which the counter grows; synced passkeys stay at 0
	Handle  []byte // the user's, as it answers; nil: what it was told
	Type    string // of the ceremony, in place of the right one; empty: the right one

	tb   testing.TB
	keys []key
}

type key struct {
	id, user []byte
	private  *ecdsa.PrivateKey
}

// New returns an authenticator that visits the origin.
func New(tb testing.TB, origin, rpID string) *Authenticator {
	tb.Helper()
	return &Authenticator{Origin: origin, RPID: rpID, Verify: true, Step: 1, tb: tb}
}

type options struct {
	Challenge string `json:"challenge"`
	User      struct {
		ID string `json:"id"`
	} `json:"user"`
	Allow   []descriptor `json:"allowCredentials"`
	Exclude []descriptor `json:"excludeCredentials"`
}

type descriptor struct {
	ID string `json:"id"`
}

func (a *Authenticator) options(text []byte) options {
	a.tb.Helper()
	var o options
	if err := json.Unmarshal(text, &o); err != nil {
		a.tb.Fatalf("passkeytest: what the page asks: %v", err)
	}
	return o
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (a *Authenticator) bytes(text string) []byte {
	a.tb.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		a.tb.Fatalf("passkeytest: %v", err)
	}
	return b
}

// clientData is what the browser says of the page.
func (a *Authenticator) clientData(kind, challenge string) []byte {
	if a.Type != "" {
		kind = a.Type
	}
	b, _ := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": a.Origin, "crossOrigin": false}) // strings alone
	return b
}

const (
	flagPresent  = 0x01
	flagVerified = 0x04
	flagKey      = 0x40
)

func (a *Authenticator) data(flags byte, rest []byte) []byte {
	host := sha256.Sum256([]byte(a.RPID))
	flags |= flagPresent
	if a.Verify {
		flags |= flagVerified
	}
	a.Counter += a.Step
	b := append(host[:], flags)
	b = binary.BigEndian.AppendUint32(b, a.Counter)
	return append(b, rest...)
}

// Create is navigator.credentials.create: it makes a key and answers as the page
// sends it. ok is false when it has one already that it should not make twice.
func (a *Authenticator) Create(asked []byte) (answer []byte, ok bool) {
	a.tb.Helper()
	o := a.options(asked)
	for _, x := range o.Exclude {
		for _, k := range a.keys {
			if b64(k.id) == x.ID {
				return nil, false
			}
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.tb.Fatal(err)
	}
	k := key{id: make([]byte, 32), user: a.bytes(o.User.ID), private: private}
	_, _ = rand.Read(k.id) // never fails
	point, err := private.PublicKey.Bytes()
	if err != nil {
		a.tb.Fatal(err)
	}
	public, err := webauthncbor.Marshal(webauthncose.EC2PublicKeyData{
		PublicKeyData: webauthncose.PublicKeyData{KeyType: int64(webauthncose.EllipticKey), Algorithm: int64(webauthncose.AlgES256)},
		Curve:         int64(webauthncose.P256), XCoord: point[1:33], YCoord: point[33:],
	})
	if err != nil {
		a.tb.Fatal(err)
	}
	rest := make([]byte, 16, 256)                                 // no model
	rest = binary.BigEndian.AppendUint16(rest, uint16(len(k.id))) //nolint:gosec // 32
	rest = append(append(rest, k.id...), public...)
	object, err := webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": a.data(flagKey, rest)})
	if err != nil {
		a.tb.Fatal(err)
	}
	a.keys = append(a.keys, k)
	return a.answer(k, map[string]any{
		"clientDataJSON": b64(a.clientData("webauthn.create", o.Challenge)), "attestationObject": b64(object), "transports": []string{"internal"},
	}), true
}

// Get is navigator.credentials.get: it signs with a key that is asked for, or
// with the newest when none is.
func (a *Authenticator) Get(asked []byte) []byte {
	a.tb.Helper()
	o := a.options(asked)
	for _, k := range slices.Backward(a.keys) {
		wanted := len(o.Allow) == 0
		for _, x := range o.Allow {
			wanted = wanted || bytes.Equal(a.bytes(x.ID), k.id)
		}
		if wanted {
			return a.sign(k, o.Challenge)
		}
	}
	a.tb.Fatal("passkeytest: none of the keys that are asked for is here")
	return nil
}

// GetAny signs with the newest key, whatever the page asks for.
func (a *Authenticator) GetAny(asked []byte) []byte {
	a.tb.Helper()
	return a.sign(a.keys[len(a.keys)-1], a.options(asked).Challenge)
}

// Rename makes the newest key claim to be another one.
func (a *Authenticator) Rename(id []byte) { a.keys[len(a.keys)-1].id = id }

// ID returns the newest key's own id.
func (a *Authenticator) ID() []byte { return a.keys[len(a.keys)-1].id }

func (a *Authenticator) sign(k key, challenge string) []byte {
	a.tb.Helper()
	client, data := a.clientData("webauthn.get", challenge), a.data(0, nil)
	sum := sha256.Sum256(client)
	digest := sha256.Sum256(append(bytes.Clone(data), sum[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, digest[:])
	if err != nil {
		a.tb.Fatal(err)
	}
	user := k.user
	if a.Handle != nil {
		user = a.Handle
	}
	return a.answer(k, map[string]any{
		"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(signature), "userHandle": b64(user),
	})
}

func (a *Authenticator) answer(k key, response map[string]any) []byte {
	a.tb.Helper()
	b, err := json.Marshal(map[string]any{
		"id": b64(k.id), "rawId": b64(k.id), "type": "public-key", "clientExtensionResults": map[string]any{}, "response": response,
	})
	if err != nil {
		a.tb.Fatal(err)
	}
	return b
}
