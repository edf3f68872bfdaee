package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/baileyhq/bailey"
)

// sealPrefix names the form of a sealed text, so that it can change one day.
const sealPrefix = "v1."

// errSeal is given for a text that was sealed with another key, for another
// place, or not at all.
var errSeal = errors.New("store: the sealed text does not open: another key sealed it, or it was changed")

// newSeal returns AES-256-GCM under the key.
func newSeal(key []byte) (cipher.AEAD, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("store: Config.Key has %d bytes and needs 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// sealText returns the text sealed for a place. Who can write to the database
// but does not have the key can neither read it nor move it elsewhere: place is
// authenticated with it.
func (s *Store) sealText(text, place string) string {
	sealed := s.seal.Seal(nil, nil, []byte(text), []byte(place)) //nolint:gosec // the cipher makes a random nonce of its own
	return sealPrefix + base64.RawURLEncoding.EncodeToString(sealed)
}

// openText is the inverse of sealText; it fails with errSeal.
func (s *Store) openText(sealed, place string) (string, error) {
	body, ok := strings.CutPrefix(sealed, sealPrefix)
	if !ok {
		return "", errSeal
	}
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return "", errSeal
	}
	text, err := s.seal.Open(nil, nil, raw, []byte(place))
	if err != nil {
		return "", errSeal
	}
	return string(text), nil
}

// checkKey compares the key with the one that the database was first opened
// with, so that a wrong key is found at the start and not when a running
// workspace is opened.
func (s *Store) checkKey(ctx context.Context, r runner) error {
	const name = "key_check"
	sealed, err := one(ctx, r, scanText, `SELECT value FROM meta WHERE name = ?`, name)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = r.exec(ctx, `INSERT INTO meta (name, value) VALUES (?, ?)`, name, s.sealText(rand.Text(), name))
		return err
	}
	if err != nil {
		return err
	}
	if _, err := s.openText(sealed, name); err != nil {
		return &bailey.Error{
			Kind:  bailey.Conflict,
			Msg:   "the key does not fit this database: its secrets were sealed with another one",
			Hint:  "put back the key file that belongs to this database (it is in the backup of the state directory); several servers on one database share one key",
			Cause: err,
		}
	}
	return nil
}
