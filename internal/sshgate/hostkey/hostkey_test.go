package hostkey_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey/internal/sshgate/hostkey"
)

// Keys are made once and are the same after a restart; the one that is to follow
// is loaded beside the one that is; and a key that others may read is refused.
func TestKeysAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ssh")
	kinds := []string{hostkey.Ed25519, hostkey.ECDSA}
	keys, next, err := hostkey.Load(dir, kinds)
	if err != nil || len(keys) != 2 || len(next) != 0 {
		t.Fatalf("Load = %d keys, %d to follow, %v", len(keys), len(next), err)
	}
	again, _, err := hostkey.Load(dir, kinds)
	if err != nil || !bytes.Equal(again[0].PublicKey().Marshal(), keys[0].PublicKey().Marshal()) {
		t.Errorf("after a restart the key is another: %v", err)
	}
	name := filepath.Join(dir, "host_ed25519")
	if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", fi, err)
	}
	other, _, err := hostkey.Load(filepath.Join(dir, "other"), kinds[:1])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "other", "host_ed25519"), name+".next"); err != nil {
		t.Fatal(err)
	}
	if _, next, err = hostkey.Load(dir, kinds[:1]); err != nil || len(next) != 1 || !bytes.Equal(next[0].PublicKey().Marshal(), other[0].PublicKey().Marshal()) {
		t.Errorf("the key that follows: %d, %v", len(next), err)
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, err = hostkey.Load(dir, kinds[:1]); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
	if _, _, err = hostkey.Load(dir, []string{"dsa"}); err == nil {
		t.Error("a key of no kind is made")
	}
}

// FuzzProve asks what anybody may: it signs for nothing but its own keys, and for
// no more of them at once than a client asks about.
func FuzzProve(f *testing.F) {
	keys, _, err := hostkey.Load(filepath.Join(f.TempDir(), "ssh"), []string{hostkey.Ed25519})
	if err != nil {
		f.Fatal(err)
	}
	session, own := []byte("session"), hostkey.Announcement(keys)
	f.Add(own)
	f.Add(bytes.Repeat(own, 2))
	f.Add(append(bytes.Clone(own), 0, 0, 0, 9))
	f.Fuzz(func(t *testing.T, payload []byte) {
		ok, answer := hostkey.Prove(keys, session, payload)
		if asked := len(payload) / len(own); ok != (asked <= 9 && bytes.Equal(payload, bytes.Repeat(own, asked))) {
			t.Fatalf("Prove(%x) = %v", payload, ok)
		}
		if !ok && answer != nil {
			t.Fatal("a refusal has signatures")
		}
		if !ok || len(payload) != len(own) {
			return
		}
		var sig ssh.Signature
		if err := ssh.Unmarshal(answer[4:], &sig); err != nil {
			t.Fatal(err)
		}
		signed := append(ssh.Marshal(struct {
			What    string
			Session []byte
		}{"hostkeys-prove-00@openssh.com", session}), own...)
		if err := keys[0].PublicKey().Verify(signed, &sig); err != nil {
			t.Fatal(err)
		}
	})
}
