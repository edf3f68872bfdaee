// Package ticket makes notes that strangers carry for us: sealed under a key of
// ours, good for one purpose and a short time. What a note says they can
// neither read nor change, and we need not remember it. That a note is used
// only once, where that matters, is the caller's to keep.
package ticket

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// maxText is how long a note's text may be.
const maxText = 1024

// ErrBad is returned for what is no note of ours, or one for something else, or
// one whose time is over: a stranger need not know which.
var ErrBad = errors.New("the note is not valid, or not any more")

// A Sealer makes and reads notes. It may be used concurrently.
type Sealer struct{ aead cipher.AEAD }

// New returns a Sealer under a key of 32 bytes.
func New(key []byte) (*Sealer, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("ticket: the key has %d bytes and needs 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &Sealer{aead: aead}, nil
}

// Seal returns a note of data that opens for the same purpose until then. No
// two notes are alike. Its letters are those of base64url.
func (s *Sealer) Seal(purpose string, data []byte, until time.Time) string {
	plain := binary.BigEndian.AppendUint64(nil, uint64(until.Unix()))        //nolint:gosec // after 1970
	sealed := s.aead.Seal(nil, nil, append(plain, data...), []byte(purpose)) //nolint:gosec // the cipher makes a random nonce of its own
	return base64.RawURLEncoding.EncodeToString(sealed)
}

// Open returns the data of a note, or [ErrBad].
func (s *Sealer) Open(purpose, text string, now time.Time) ([]byte, error) {
	if len(text) > maxText || strings.ContainsAny(text, "\r\n") { // the decoder would skip those
		return nil, ErrBad
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, ErrBad
	}
	plain, err := s.aead.Open(nil, nil, sealed, []byte(purpose))
	if err != nil || len(plain) < 8 || now.Unix() >= int64(binary.BigEndian.Uint64(plain)) { //nolint:gosec // we wrote it
		return nil, ErrBad
	}
	return plain[8:], nil
}
