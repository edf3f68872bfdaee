package catalogue

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/trust/sign"
)

// A Key is the installation's own: it signs what is built here, and what an
// administrator vouches for. It may be used concurrently.
type Key struct {
	signer crypto.Signer
	public []byte // PEM
}

// maxKey bounds a key file.
const maxKey = 64 << 10

// ReadKey reads a private key in PEM form, without a passphrase, from a file
// that its owner alone may read. The error is fs.ErrNotExist when there is
// none.
func ReadKey(path string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 || !info.Mode().IsRegular() {
		return nil, &bailey.Error{
			Kind: bailey.Invalid, Msg: "others may read or change the signing key " + path,
			Hint: "chmod 600 " + path + ", and make a new one if others could read it",
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	signer, err := sign.ParseKey(text)
	if err != nil {
		return nil, &bailey.Error{
			Kind: bailey.Invalid, Msg: path + " does not hold a signing key",
			Hint:  "it holds one PEM block PRIVATE KEY without a passphrase; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 makes one",
			Cause: err,
		}
	}
	public, err := sign.PublicKey(signer)
	if err != nil {
		return nil, err
	}
	return &Key{signer: signer, public: public}, nil
}

// PublicPath returns where the public half of the key at path lies: beside it.
func PublicPath(path string) string { return strings.TrimSuffix(path, ".key") + ".pub" }

// EnsureKey reads the key at path, and makes it and its public half first if it
// is not there. Several programs may do so at once: one key comes out.
func EnsureKey(path string) (*Key, error) {
	key, err := ReadKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeKey(path); err != nil {
			return nil, &bailey.Error{
				Kind: bailey.Unavailable, Msg: "the key that signs images cannot be made at " + path,
				Hint: "run as root, or name another place with trust.key in the configuration", Cause: err,
			}
		}
		key, err = ReadKey(path)
	}
	if err != nil {
		return nil, err
	}
	if err := place(PublicPath(path), key.public, 0o644); err != nil {
		return nil, fmt.Errorf("write the public key: %w", err)
	}
	return key, nil
}

func makeKey(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // the public half is for everybody; the private one is 0600
		return err
	}
	private, _, err := sign.GenerateKey()
	if err != nil {
		return err
	}
	return place(path, private, 0o600)
}

// place puts a whole file where none is; one that is there stays.
func place(path string, data []byte, mode fs.FileMode) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	// A link fails where a rename would replace what somebody else has made.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// name tells one key from another.
func (k *Key) name() string {
	sum := sha256.Sum256(k.public)
	return hex.EncodeToString(sum[:])
}

func (k *Key) bundle(repository, digest string) ([]byte, error) {
	return sign.Bundle(k.signer, repository, digest, time.Now())
}

// SignLayout signs the image of an OCI layout and writes the signature beside
// it, unless what is there is by that key and of that image. It returns the
// image's digest and whether it wrote.
func SignLayout(key *Key, layout string) (digest string, wrote bool, err error) {
	repository := localPrefix + strings.TrimSuffix(filepath.Base(filepath.Clean(layout)), ".oci")
	ev, _, err := readLayout(layout, repository)
	if err != nil {
		return "", false, err
	}
	mark, seal := ev.Digest+" "+key.name()+"\n", BundlePath(layout)+".of"
	if old, err := readSmall(seal, 4096); err == nil && len(ev.Items) == 2 && string(old) == mark {
		return ev.Digest, false, nil
	}
	bundle, err := key.bundle(repository, ev.Digest)
	if err != nil {
		return "", false, err
	}
	if err := writeWhole(BundlePath(layout), bundle); err != nil {
		return "", false, fmt.Errorf("write the signature: %w", err)
	}
	return ev.Digest, true, writeWhole(seal, []byte(mark))
}
