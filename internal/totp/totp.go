// Package totp judges one-time codes of authenticator apps (RFC 6238: SHA-1,
// six digits, 30 seconds, which is what all apps know), draws what an app scans,
// and makes recovery codes. It says which step of time a code belongs to; that
// each step counts once is the caller's to keep.
package totp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // what RFC 6238 means by default, and apps know nothing else
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"time"

	"rsc.io/qr"

	"github.com/baileyhq/bailey/internal/secret"
)

const (
	digits      = 6
	modulus     = 1_000_000
	period      = 30 // seconds
	skew        = 1  // steps before and after now: clocks differ, people type slowly
	secretBytes = 20
)

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// NewSecret returns a fresh secret, as people type it: 32 letters of base32.
func NewSecret() secret.Value {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails since Go 1.24: the program aborts instead
	return secret.New(encoding.EncodeToString(b))
}

// Step returns the step of time that t is in.
func Step(t time.Time) int64 { return t.Unix() / period }

// Code returns the code of a step; empty when the secret is none of ours.
func Code(key secret.Value, step int64) string {
	raw, err := encoding.DecodeString(key.Reveal())
	if err != nil || len(raw) < 16 {
		return ""
	}
	mac := hmac.New(sha1.New, raw)
	_ = binary.Write(mac, binary.BigEndian, step) // hashes do not fail
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%0*d", digits, binary.BigEndian.Uint32(sum[at:at+4])&0x7fffffff%modulus)
}

// Check returns the step that the code belongs to, of those around now. Spaces
// in the code do not count: apps show "123 456".
func Check(key secret.Value, code string, now time.Time) (step int64, ok bool) {
	code = strings.ReplaceAll(code, " ", "")
	if len(code) != digits {
		return 0, false
	}
	middle := Step(now)
	for s := middle - skew; s <= middle+skew; s++ { // all of them, whichever fits
		want := Code(key, s)
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 && want != "" {
			step, ok = s, true
		}
	}
	return step, ok
}

// URI returns what an app scans. issuer and account are what it shows.
func URI(issuer, account string, key secret.Value) string {
	q := url.Values{"secret": {key.Reveal()}, "issuer": {issuer}, "algorithm": {"SHA1"}, "digits": {"6"}, "period": {"30"}}
	u := url.URL{Scheme: "otpauth", Host: "totp", Path: "/" + issuer + ":" + account, RawQuery: strings.ReplaceAll(q.Encode(), "+", "%20")}
	return u.String()
}

// Picture draws text as a QR code: an SVG of black on white, in any colour
// scheme, because cameras need it so.
func Picture(text string) (string, error) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return "", fmt.Errorf("draw the code: %w", err)
	}
	const quiet = 4
	size := code.Size + 2*quiet
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="240" height="240" role="img" aria-label="QR code for an authenticator app" shape-rendering="crispEdges"><rect width="100%%" height="100%%" fill="#fff"/><path fill="#000" d="`, size, size)
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			from := x
			for x < code.Size && code.Black(x, y) {
				x++
			}
			if x > from {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", from+quiet, y+quiet, x-from, x-from)
			}
		}
	}
	b.WriteString(`"/></svg>`)
	return b.String(), nil
}

// RecoveryCodes is how many recovery codes a person has.
const RecoveryCodes = 10

const recoveryLength = 16 // letters of base32: 80 bits, so a plain hash of them is safe

// NewRecoveryCodes returns fresh codes as people write them down, in groups of
// four.
func NewRecoveryCodes() []secret.Value {
	codes := make([]secret.Value, RecoveryCodes)
	for i := range codes {
		b := make([]byte, recoveryLength*5/8)
		_, _ = rand.Read(b) // see NewSecret
		text := strings.ToLower(encoding.EncodeToString(b))
		codes[i] = secret.New(text[:4] + "-" + text[4:8] + "-" + text[8:12] + "-" + text[12:])
	}
	return codes
}

// RecoveryHash returns what is stored of a recovery code, however it was typed:
// in capitals, with or without dashes and spaces. ok is false for what cannot
// be one.
func RecoveryHash(code string) (hash string, ok bool) {
	if len(code) > 64 {
		return "", false
	}
	text := strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(code))
	if len(text) != recoveryLength {
		return "", false
	}
	if _, err := encoding.DecodeString(text); err != nil {
		return "", false
	}
	return secret.New(text).Hash(), true
}
