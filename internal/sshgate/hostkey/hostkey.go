// Package hostkey keeps the keys by which clients recognise the server, and
// proves to them that it holds those that it announces.
package hostkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/crypto/ssh"
)

// The kinds of host keys, by what their files are called.
const (
	Ed25519 = "ed25519"
	ECDSA   = "ecdsa"
)

// Load reads the server's keys from a directory, in the order of kinds,
// and makes those that are missing. NAME.next beside a key is the one that will
// follow it: clients learn it before they need it. The files are for the server
// alone to read.
func Load(dir string, kinds []string) (keys, next []ssh.Signer, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("host keys: %w", err)
	}
	for _, kind := range kinds {
		path := filepath.Join(dir, "host_"+kind)
		key, err := load(path)
		if errors.Is(err, fs.ErrNotExist) {
			key, err = generate(path, kind)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("host key %s: %w", path, err)
		}
		keys = append(keys, key)
		switch key, err := load(path + ".next"); {
		case err == nil:
			next = append(next, key)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, nil, fmt.Errorf("host key %s.next: %w", path, err)
		}
	}
	return keys, next, nil
}

func load(path string) (ssh.Signer, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others may read it; run: chmod 600 %s", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ssh.ParsePrivateKey(data)
}

// generate makes a key. It is whole under its name, or not there at all.
func generate(path, kind string) (ssh.Signer, error) {
	var key crypto.PrivateKey
	var err error
	switch kind {
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case ECDSA:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		return nil, fmt.Errorf("unknown kind %q", kind)
	}
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "bailey")
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := pem.Encode(&text, block); err != nil {
		return nil, err
	}
	fresh := path + ".new"
	if err := os.WriteFile(fresh, text.Bytes(), 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(fresh, path); err != nil {
		return nil, err
	}
	return ssh.ParsePrivateKey(text.Bytes())
}

// Announcement is what hostkeys-00@openssh.com carries: all keys, those that
// will follow included.
func Announcement(keys []ssh.Signer) (payload []byte) {
	for _, key := range keys {
		payload = appendString(payload, key.PublicKey().Marshal())
	}
	return payload
}

// maxProofs bounds the signatures that one question costs.
const maxProofs = 8

// Prove answers hostkeys-prove-00@openssh.com: it signs for each key that is
// asked about. A question about any other key is refused whole.
func Prove(keys []ssh.Signer, session, payload []byte) (ok bool, answer []byte) {
	for proofs := 0; len(payload) > 0; proofs++ {
		blob, rest, whole := cutString(payload)
		if !whole || proofs > maxProofs {
			return false, nil
		}
		payload = rest
		i := slices.IndexFunc(keys, func(k ssh.Signer) bool { return bytes.Equal(k.PublicKey().Marshal(), blob) })
		if i < 0 {
			return false, nil
		}
		data := appendString(nil, []byte("hostkeys-prove-00@openssh.com"))
		data = appendString(data, session)
		data = appendString(data, blob)
		sig, err := keys[i].Sign(rand.Reader, data)
		if err != nil {
			return false, nil
		}
		answer = appendString(answer, ssh.Marshal(sig))
	}
	return true, answer
}

func appendString(dst, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(s))), s...) //nolint:gosec // far below 2^32
}

func cutString(in []byte) (s, rest []byte, ok bool) {
	if len(in) < 4 {
		return nil, nil, false
	}
	n := uint64(binary.BigEndian.Uint32(in))
	if n > uint64(len(in)-4) { //nolint:gosec // not negative
		return nil, nil, false
	}
	return in[4 : 4+n], in[4+n:], true
}
