package console_test

import (
	"net/http"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/sshkey"
)

// newLine is a fresh public key as it stands in a .pub file.
func newLine(t *testing.T, comment string) string {
	t.Helper()
	_, line, err := sshkey.NewPair(comment)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// Keys and certificates are added, seen and taken away on the account page, by
// their owner alone.
func TestSSHKeysOnTheAccountPage(t *testing.T) {
	s := open(t)
	alice, bob := s.browse(Alice), s.browse(Bob)
	line := newLine(t, "alice@laptop <b>")
	add := func(b *browser, key, name, days string) page {
		t.Helper()
		return b.post("/account/ssh-keys", "key", key, "name", name, "days", days) // a text area is no input to the helper
	}
	added := add(alice, line, "", "5")
	added.wantStatus(t, http.StatusOK, "The key alice@laptop", "is added", "Expires in", "never used")
	if strings.Contains(added.body, "laptop <b>") {
		t.Error("the key's comment is markup")
	}
	look(t, "account with a key", added)
	add(alice, line, "again", "").wantStatus(t, http.StatusConflict, "You have this key already")
	taken := add(bob, line, "mine", "")
	taken.wantStatus(t, http.StatusConflict, "in use already")
	if strings.Contains(taken.body, Alice) {
		t.Error("bob is told whose the key is")
	}
	add(alice, "-----BEGIN OPENSSH PRIVATE KEY-----", "", "").wantStatus(t, 422, "private key")
	add(alice, newLine(t, "x"), "", "soon").wantStatus(t, 422, "no number")

	keys, err := s.Identity.SSHKeys(t.Context(), s.Actor(Alice), "")
	if err != nil || len(keys) != 1 {
		t.Fatalf("keys = %v, %v; want the one", keys, err)
	}
	_, cert, err := s.Identity.IssueSSHCertificate(t.Context(), s.Actor(Alice), identity.NewSSHCertificate{Line: newLine(t, "day")})
	if err != nil {
		t.Fatal(err)
	}
	remove := "/account/ssh-keys/" + keys[0].ID + "/remove"
	bob.post(remove).wantStatus(t, http.StatusNotFound)
	shown := alice.get("/account")
	var revoke string
	for _, f := range shown.forms() {
		if strings.HasPrefix(f.action, "/account/ssh-certificates/") {
			revoke = f.action
		}
	}
	bob.post(revoke).wantStatus(t, http.StatusNotFound)
	alice.post("/account/ssh-certificates/0/revoke").wantStatus(t, http.StatusNotFound)
	alice.submit(shown, revoke).wantRedirect(t, "/account")
	alice.submit(alice.get("/account"), remove).wantRedirect(t, "/account")
	if keys, err := s.Identity.SSHKeys(t.Context(), s.Actor(Alice), ""); err != nil || len(keys) != 0 {
		t.Errorf("keys afterwards = %v, %v", keys, err)
	}
	certs, err := s.Identity.SSHCertificates(t.Context(), s.Actor(Alice), "")
	if err != nil || len(certs) != 1 || certs[0].Serial != cert.Serial || certs[0].RevokedAt.IsZero() {
		t.Errorf("certificates afterwards = %+v, %v; want the one, revoked", certs, err)
	}
}

// A link of a first contact shows its page to the person it names, who has to
// type what their own terminal says.
func TestFirstContactPage(t *testing.T) {
	s := open(t)
	alice, bob, stranger := s.browse(Alice), s.browse(Bob), s.browse(nobody)
	contact := func() (path, fingerprint string) {
		t.Helper()
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(newLine(t, "new"))) //nolint:dogsled // the library's
		if err != nil {
			t.Fatal(err)
		}
		link, err := s.Identity.FirstContact(t.Context(), Alice, key, "203.0.113.9")
		if err != nil || !strings.HasPrefix(link, "/ssh/") {
			t.Fatalf("FirstContact = %q, %v", link, err)
		}
		return link, ssh.FingerprintSHA256(key)
	}
	path, fingerprint := contact()
	stranger.get(path).wantRedirect(t, "/signin")
	stranger.post(path+"/bind", "typed", fingerprint).wantRedirect(t, "/signin")
	bob.get(path).wantStatus(t, http.StatusNotFound)
	bob.post(path+"/bind", "typed", fingerprint).wantStatus(t, http.StatusNotFound)
	bob.post(path+"/refuse").wantStatus(t, http.StatusNotFound)
	shown := alice.get(path)
	shown.wantStatus(t, http.StatusOK, fingerprint, "203.0.113.9", "This browser is at another address")
	look(t, "first contact", shown)
	alice.submit(shown, path+"/bind", "typed", "nothing", "keep", "no").wantStatus(t, 422, "not the fingerprint")
	alice.submit(shown, path+"/bind", "typed", fingerprint[len(fingerprint)-6:], "keep", "yes").wantStatus(t, http.StatusOK, "The key is added")
	alice.get(path).wantStatus(t, http.StatusNotFound)

	path, fingerprint = contact()
	alice.submit(alice.get(path), path+"/refuse").wantStatus(t, http.StatusOK, "The key is refused")
	alice.post(path+"/bind", "typed", fingerprint).wantStatus(t, http.StatusNotFound)
	keys, err := s.Identity.SSHKeys(t.Context(), s.Actor(Alice), "")
	if err != nil || len(keys) != 1 {
		t.Errorf("keys = %v, %v; want the one that was bound", keys, err)
	}
	if keys, err := s.Identity.SSHKeys(t.Context(), s.Actor(Bob), ""); err != nil || len(keys) != 0 {
		t.Errorf("bob's keys = %v, %v", keys, err)
	}
}
