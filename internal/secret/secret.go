// Package secret holds values that must not be shown: however a [Value] is
// printed, logged or encoded, it reads "[secret]".
package secret

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
)

// A Value is a secret in memory. The zero Value is the empty secret. Values
// are immutable and may be used concurrently.
type Value struct {
	// text is a pointer because fmt does not call the methods of a value that
	// sits in someone's unexported field: it would print a string there, but
	// prints only the address of a pointer.
	text *string
}

// New returns text as a secret.
func New(text string) Value { return Value{text: &text} }

// Random returns a fresh secret of n random bytes in unpadded URL-safe base64.
func Random(n int) Value {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails since Go 1.24: the program aborts instead
	return New(base64.RawURLEncoding.EncodeToString(b))
}

// Reveal returns the text. It is the only way to it; callers hand it to the
// outside thing that needs it and to nobody else.
func (v Value) Reveal() string {
	if v.text == nil {
		return ""
	}
	return *v.text
}

// Empty reports whether the secret is the empty text.
func (v Value) Empty() bool { return v.text == nil || *v.text == "" }

// Hash returns the lower-case hex SHA-256 of the text: what is stored of random
// secrets. It is not fit for passwords.
func (v Value) Hash() string {
	sum := sha256.Sum256([]byte(v.Reveal()))
	return hex.EncodeToString(sum[:])
}

// Equal compares two secrets in time that depends only on their lengths.
func (v Value) Equal(w Value) bool {
	return subtle.ConstantTimeCompare([]byte(v.Reveal()), []byte(w.Reveal())) == 1
}

// Format implements [fmt.Formatter] for every verb.
func (Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }

// LogValue implements [slog.LogValuer].
func (Value) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText implements [encoding.TextMarshaler], hence JSON and YAML too.
func (Value) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }
