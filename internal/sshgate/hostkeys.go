package sshgate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

// The kinds of host keys, by what their files are called.
const (
	Ed25519 = "ed25519"
	ECDSA   = "ecdsa"
)

// LoadHostKeys reads the server's keys from a directory, in the order of kinds,
// and makes those that are missing. NAME.next beside a key is the one that will
// follow it: clients learn it before they need it. The files are for the server
// alone to read.
func LoadHostKeys(dir string, kinds []string) (keys, next []ssh.Signer, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("host keys: %w", err)
	}
	for _, kind := range kinds {
		path := filepath.Join(dir, "host_"+kind)
		key, err := loadHostKey(path)
		if errors.Is(err, fs.ErrNotExist) {
			key, err = makeHostKey(path, kind)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("host key %s: %w", path, err)
		}
		keys = append(keys, key)
		switch key, err := loadHostKey(path + ".next"); {
		case err == nil:
			next = append(next, key)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, nil, fmt.Errorf("host key %s.next: %w", path, err)
		}
	}
	return keys, next, nil
}

func loadHostKey(path string) (ssh.Signer, error) {
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

// makeHostKey makes a key. It is whole under its name, or not there at all.
func makeHostKey(path, kind string) (ssh.Signer, error) {
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
