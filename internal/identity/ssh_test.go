package identity_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
	"github.com/baileyhq/bailey/internal/secret"
)

const away = "203.0.113.77"

// pair makes a key pair.
func pair(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func lineOf(key ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(key)) }

// addKey adds a fresh key to the account.
func addKey(t *testing.T, s *identity.Service, actor bailey.Actor) (ssh.PublicKey, bailey.SSHKey) {
	t.Helper()
	pub := pair(t).PublicKey()
	row, err := s.AddSSHKey(t.Context(), actor, identity.NewSSHKey{Line: lineOf(pub)})
	if err != nil {
		t.Fatalf("AddSSHKey: %v", err)
	}
	return pub, row
}

// certify gets a certificate for a fresh key.
func certify(t *testing.T, s *identity.Service, actor bailey.Actor) (*ssh.Certificate, bailey.SSHCertificate) {
	t.Helper()
	line, row, err := s.IssueSSHCertificate(t.Context(), actor, identity.NewSSHCertificate{Line: lineOf(pair(t).PublicKey())})
	if err != nil {
		t.Fatalf("IssueSSHCertificate: %v", err)
	}
	return parseCertificate(t, line), row
}

func parseCertificate(t *testing.T, line string) *ssh.Certificate {
	t.Helper()
	pub, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)) //nolint:dogsled // the library's
	if err != nil {
		t.Fatal(err)
	}
	cert, ok := pub.(*ssh.Certificate)
	if !ok {
		t.Fatalf("%q is no certificate", line)
	}
	return cert
}

func byKey(name string, key ssh.PublicKey) identity.SSHSignIn {
	return identity.SSHSignIn{Name: name, Key: key, IP: home, Client: "SSH-2.0-test"}
}

func byCertificate(name string, cert *ssh.Certificate) identity.SSHSignIn {
	return identity.SSHSignIn{Name: name, Key: cert.Key, Certificate: cert, IP: home, Client: "SSH-2.0-test"}
}

func TestAKeySignsItsOwnerIn(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	_, bob := identitytest.SignIn(t, w.Service, "bob")
	pub, row := addKey(t, w.Service, alice)
	bobs, _ := addKey(t, w.Service, bob)

	if err := w.OfferSSHKey(t.Context(), "alice", pub, home); err != nil {
		t.Errorf("OfferSSHKey = %v", err)
	}
	actor, grant, err := w.SignInSSH(t.Context(), byKey("alice", pub))
	if err != nil || actor.UserID != alice.UserID || actor.Name != "alice" || actor.Method != identity.MethodSSHKey || actor.Session != row.ID || actor.IP != home {
		t.Errorf("SignInSSH = %+v, %v; want alice by her key", actor, err)
	}
	if grant.Fingerprint != ssh.FingerprintSHA256(pub) || grant.Certificate || grant.NoPTY || grant.NoForwarding || grant.NoAgentForwarding || grant.ForceCommand != "" || !grant.Expires.Equal(row.ExpiresAt.Truncate(time.Microsecond)) {
		t.Errorf("grant = %+v, want all that a key allows", grant)
	}
	keys, err := w.SSHKeys(t.Context(), alice, "")
	if err != nil || len(keys) != 1 || keys[0].UsedFrom != home || keys[0].UsedAt.IsZero() {
		t.Errorf("SSHKeys = %+v, %v; want the one, used from %s", keys, err, home)
	}
	for name, in := range map[string]identity.SSHSignIn{
		"bob with alice's key":    byKey("bob", pub),
		"alice with bob's key":    byKey("alice", bobs),
		"an unknown key":          byKey("alice", pair(t).PublicKey()),
		"nobody":                  byKey("nobody", pub),
		"an empty name":           byKey("", pub),
		"another case":            byKey("Alice", pub),
		"a name with a workspace": byKey("alice+ws", pub),
		"a broken name":           byKey("alice\x00", pub),
		"no key":                  byKey("alice", nil),
	} {
		_, _, err := w.SignInSSH(t.Context(), in)
		wantKind(t, name, err, bailey.Unauthenticated)
		if in.Key != nil {
			wantKind(t, name+", offered", w.OfferSSHKey(t.Context(), in.Name, in.Key, home), bailey.Unauthenticated)
		}
	}
}

// TestOfferingLeavesNoTrace is CVE-2024-45337 as identity sees it: a client
// offers alice's key, which anybody has, and then proves bob's. Who it is comes
// from the proof, and the offer was never there.
func TestOfferingLeavesNoTrace(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	_, bob := identitytest.SignIn(t, w.Service, "bob")
	alices, row := addKey(t, w.Service, alice)
	bobs, _ := addKey(t, w.Service, bob)
	events, touches := len(w.Journal.Events()), w.Store.Touches()
	for range 100 {
		if err := w.OfferSSHKey(t.Context(), "alice", alices, away); err != nil {
			t.Fatal(err)
		}
		_ = w.OfferSSHKey(t.Context(), "alice", bobs, away)
	}
	if n := len(w.Journal.Events()); n != events || w.Store.Touches() != touches || w.Guard.Len() != 0 && len(w.Guard.Bans()) != 0 {
		t.Errorf("200 offers left %d events, %d touches, bans %v", n-events, w.Store.Touches()-touches, w.Guard.Bans())
	}
	if keys, _ := w.SSHKeys(t.Context(), alice, ""); !keys[0].UsedAt.IsZero() {
		t.Error("an offer counts as a use")
	}
	// The proof of bob's key in alice's name is nothing, in bob's it is bob.
	_, _, err := w.SignInSSH(t.Context(), byKey("alice", bobs))
	wantKind(t, "alice with bob's proof", err, bailey.Unauthenticated)
	actor, _, err := w.SignInSSH(t.Context(), byKey("bob", bobs))
	if err != nil || actor.Name != "bob" || actor.Session == row.ID {
		t.Errorf("bob = %+v, %v", actor, err)
	}
}

// A name that is no account makes the same work as one that is.
func TestOffersSayNothingOfNames(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	addKey(t, w.Service, alice)
	key := pair(t).PublicKey()
	var texts []string
	var reads []int
	for _, name := range []string{"alice", "bob", "nobody", "no body", strings.Repeat("x", 70000)} {
		before := w.Store.Reads()
		err := w.OfferSSHKey(t.Context(), name, key, home)
		texts, reads = append(texts, err.Error()), append(reads, w.Store.Reads()-before)
	}
	if len(slices.Compact(texts)) != 1 || len(slices.Compact(reads)) != 1 {
		t.Errorf("answers %q after %v reads: they differ by name", texts, reads)
	}
}

func TestOneKeyIsOnePersons(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	_, bob := identitytest.SignIn(t, w.Service, "bob")
	pub, row := addKey(t, w.Service, alice)
	_, err := w.AddSSHKey(t.Context(), bob, identity.NewSSHKey{Line: lineOf(pub)})
	wantKind(t, "bob adds alice's key", err, bailey.Conflict)
	if err != nil && strings.Contains(err.Error(), "alice") {
		t.Errorf("the refusal says whose it is: %v", err)
	}
	_, err = w.AddSSHKey(t.Context(), alice, identity.NewSSHKey{Line: lineOf(pub)})
	wantKind(t, "alice adds it again", err, bailey.Conflict)

	// Bob sees, renames and removes none of hers.
	if keys, err := w.SSHKeys(t.Context(), bob, ""); err != nil || len(keys) != 0 {
		t.Errorf("bob sees %v, %v", keys, err)
	}
	_, err = w.SSHKeys(t.Context(), bob, "alice")
	wantKind(t, "bob lists alice's", err, bailey.Denied)
	_, err = w.SSHKeys(t.Context(), bob, "nobody")
	wantKind(t, "bob lists nobody's", err, bailey.Denied)
	_, err = w.RenameSSHKey(t.Context(), bob, row.ID, "mine")
	wantKind(t, "bob renames", err, bailey.NotFound)
	wantKind(t, "bob removes", w.RemoveSSHKey(t.Context(), bob, "", row.ID), bailey.NotFound)
	wantKind(t, "bob removes, by name", w.RemoveSSHKey(t.Context(), bob, "alice", row.ID), bailey.Denied)

	// An administrator sees and removes, but adds none: that would be a way in.
	admin := adminOf(t, w)
	if keys, err := w.SSHKeys(t.Context(), admin, "alice"); err != nil || len(keys) != 1 {
		t.Errorf("the administrator sees %v, %v; want the one", keys, err)
	}
	_, err = w.RenameSSHKey(t.Context(), admin, row.ID, "x")
	wantKind(t, "the administrator renames", err, bailey.NotFound)
	if err := w.RemoveSSHKey(t.Context(), admin, "alice", row.ID); err != nil {
		t.Errorf("the administrator removes: %v", err)
	}
	wantKind(t, "it is gone", w.OfferSSHKey(t.Context(), "alice", pub, home), bailey.Unauthenticated)
	last := w.Journal.Events()[len(w.Journal.Events())-1]
	if last.Action != audit.SSHKeyRemove || last.Reason != audit.ByAdmin || last.Attrs.Key != row.Fingerprint {
		t.Errorf("the journal says %+v", last)
	}
	if _, err := w.AddSSHKey(t.Context(), bob, identity.NewSSHKey{Line: lineOf(pub)}); err != nil {
		t.Errorf("bob adds the key that is nobody's now: %v", err)
	}
}

func TestKeysAreNamed(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	_, bob := identitytest.SignIn(t, w.Service, "bob")
	add := func(actor bailey.Actor, name, comment string) (bailey.SSHKey, error) {
		return w.AddSSHKey(t.Context(), actor, identity.NewSSHKey{Line: strings.TrimSpace(lineOf(pair(t).PublicKey())) + " " + comment, Name: name})
	}
	for _, want := range []string{"me@laptop", "me@laptop 2", "me@laptop 3"} {
		if k, err := add(alice, "", "me@laptop"); err != nil || k.Name != want {
			t.Errorf("name = %q, %v; want %q", k.Name, err, want)
		}
	}
	if k, err := add(bob, "", "me@laptop"); err != nil || k.Name != "me@laptop" {
		t.Errorf("bob's name = %q, %v", k.Name, err)
	}
	if k, err := add(alice, "", ""); err != nil || k.Name != "key" {
		t.Errorf("name without a comment = %q, %v", k.Name, err)
	}
	_, err := add(alice, "me@laptop", "")
	wantKind(t, "a name that is taken", err, bailey.Conflict)
	_, err = add(alice, "\x1b\x07", "")
	wantKind(t, "a name without letters", err, bailey.Invalid)
	k, err := add(alice, "evil \x1b[31m\u202ename", "")
	if err != nil || k.Name != "evil [31mname" {
		t.Errorf("name = %q, %v; want it clean", k.Name, err)
	}
	if k, err := w.RenameSSHKey(t.Context(), alice, k.ID, "work"); err != nil || k.Name != "work" {
		t.Errorf("rename: %+v, %v", k, err)
	}
	_, err = w.RenameSSHKey(t.Context(), alice, k.ID, "me@laptop")
	wantKind(t, "rename to a name that is taken", err, bailey.Conflict)
}

func TestWeakKeysAreRefused(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // that is the point
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(&weak.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.AddSSHKey(t.Context(), alice, identity.NewSSHKey{Line: lineOf(pub)})
	wantKind(t, "RSA of 1024 bits", err, bailey.Invalid)
	_, _, err = w.IssueSSHCertificate(t.Context(), alice, identity.NewSSHCertificate{Line: lineOf(pub)})
	wantKind(t, "a certificate for it", err, bailey.Invalid)
	if n := len(w.Journal.Events()); n != 1 {
		t.Errorf("the journal has %d events, want the sign-in alone", n)
	}
}

func TestKeysEndAndAreAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		pub := pair(t).PublicKey()
		row, err := w.AddSSHKey(t.Context(), alice, identity.NewSSHKey{Line: lineOf(pub), Name: "laptop", Lifetime: 30 * 24 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.AddSSHKey(t.Context(), alice, identity.NewSSHKey{Line: lineOf(pair(t).PublicKey()), Lifetime: 1000 * 24 * time.Hour})
		wantKind(t, "a key for longer than is allowed", err, bailey.Invalid)
		_, err = w.AddSSHKey(t.Context(), alice, identity.NewSSHKey{Line: lineOf(pair(t).PublicKey()), Lifetime: -1})
		wantKind(t, "a key that has ended", err, bailey.Invalid)
		announced := func() (n int) {
			t.Helper()
			if err := w.RemindSSH(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, e := range w.Journal.Events() {
				if e.Action == audit.SSHKeyExpiring {
					n++
					if e.Attrs.Key != row.Fingerprint || e.Target.Name != "alice/laptop" {
						t.Errorf("event = %+v", e)
					}
				}
			}
			return n
		}
		if n := announced(); n != 0 || identity.SSHReminder(row, time.Now()) != "" {
			t.Errorf("announced %d times 30 days ahead", n)
		}
		time.Sleep(16*24*time.Hour + time.Hour)
		if n, again := announced(), announced(); n != 1 || again != 1 {
			t.Errorf("announced %d, then %d times, want once", n, again)
		}
		if got := identity.SSHReminder(row, time.Now()); got != "expires in 13 days: add a new key" {
			t.Errorf("SSHReminder = %q", got)
		}
		actor, _, err := w.SignInSSH(t.Context(), byKey("alice", pub))
		if err != nil {
			t.Fatal(err)
		}
		ended, release := w.Ended(actor)
		defer release()
		time.Sleep(14*24*time.Hour - time.Hour - time.Millisecond)
		synctest.Wait()
		if closed(ended) {
			t.Error("the connection ended before its key")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if !closed(ended) {
			t.Error("the connection outlives its key")
		}
		wantKind(t, "an expired key", w.OfferSSHKey(t.Context(), "alice", pub, home), bailey.Unauthenticated)
		if got := identity.SSHReminder(row, time.Now()); !strings.HasPrefix(got, "has expired") {
			t.Errorf("SSHReminder = %q", got)
		}
	})
}

// TestLiveSSHEndsAtOnce: whatever takes the access away ends what is open.
func TestLiveSSHEndsAtOnce(t *testing.T) {
	off, fresh := true, secret.New("amber windmill 77")
	type people struct{ alice, admin bailey.Actor }
	for name, tt := range map[string]struct {
		end       func(w *identitytest.World, p people, key bailey.SSHKey, cert bailey.SSHCertificate) error
		key, cert bool // which of them end
	}{
		"the key is removed": {func(w *identitytest.World, p people, key bailey.SSHKey, _ bailey.SSHCertificate) error {
			return w.RemoveSSHKey(t.Context(), p.alice, "", key.ID)
		}, true, false},
		"an administrator removes it": {func(w *identitytest.World, p people, key bailey.SSHKey, _ bailey.SSHCertificate) error {
			return w.RemoveSSHKey(t.Context(), p.admin, "alice", key.ID)
		}, true, false},
		"the certificate is revoked": {func(w *identitytest.World, p people, _ bailey.SSHKey, cert bailey.SSHCertificate) error {
			_, err := w.RevokeSSHCertificates(t.Context(), p.alice, "", cert.Serial)
			return err
		}, false, true},
		"an administrator revokes all": {func(w *identitytest.World, p people, _ bailey.SSHKey, _ bailey.SSHCertificate) error {
			n, err := w.RevokeSSHCertificates(t.Context(), p.admin, "alice", 0)
			if err == nil && n != 1 {
				err = fmt.Errorf("%d revoked", n)
			}
			return err
		}, false, true},
		"the session that asked for it ends": {func(w *identitytest.World, p people, _ bailey.SSHKey, _ bailey.SSHCertificate) error {
			return w.SignOut(t.Context(), p.alice)
		}, false, true},
		"the account is disabled": {func(w *identitytest.World, p people, _ bailey.SSHKey, _ bailey.SSHCertificate) error {
			_, err := w.UpdateUser(t.Context(), p.admin, "alice", identity.UserUpdate{Disabled: &off})
			return err
		}, true, true},
		"the password is reset": {func(w *identitytest.World, p people, _ bailey.SSHKey, _ bailey.SSHCertificate) error {
			_, err := w.UpdateUser(t.Context(), p.admin, "alice", identity.UserUpdate{Password: &fresh})
			return err
		}, true, true},
		"the account is deleted": {func(w *identitytest.World, p people, _ bailey.SSHKey, _ bailey.SSHCertificate) error {
			return w.DeleteUser(t.Context(), p.admin, "alice")
		}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := identitytest.NewWorld(t)
			_, alice := identitytest.SignIn(t, w.Service, "alice")
			_, bob := identitytest.SignIn(t, w.Service, "bob")
			pub, key := addKey(t, w.Service, alice)
			cert, row := certify(t, w.Service, alice)
			bobs, _ := addKey(t, w.Service, bob)
			var ended []<-chan struct{}
			for _, in := range []identity.SSHSignIn{byKey("alice", pub), byCertificate("alice", cert), byKey("bob", bobs)} {
				actor, _, err := w.SignInSSH(t.Context(), in)
				if err != nil {
					t.Fatalf("SignInSSH(%s): %v", in.Name, err)
				}
				ch, release := w.Ended(actor)
				defer release()
				if _, err := w.SSHActor(t.Context(), actor); err != nil || closed(ch) {
					t.Fatalf("%s is not in: %v", in.Name, err)
				}
				ended = append(ended, ch)
			}
			if err := tt.end(w, people{alice, adminOf(t, w)}, key, row); err != nil {
				t.Fatal(err)
			}
			if closed(ended[0]) != tt.key || closed(ended[1]) != tt.cert || closed(ended[2]) {
				t.Errorf("ended: key %v, certificate %v, bob's %v; want %v, %v, false", closed(ended[0]), closed(ended[1]), closed(ended[2]), tt.key, tt.cert)
			}
			if err := w.OfferSSHKey(t.Context(), "alice", pub, home); (err != nil) != tt.key {
				t.Errorf("the key afterwards: %v", err)
			}
			if err := w.OfferSSHKey(t.Context(), "alice", cert, home); (err != nil) != tt.cert {
				t.Errorf("the certificate afterwards: %v", err)
			}
		})
	}
}

// A disabled account that is enabled again has its keys, but neither its
// certificates nor what was open.
func TestEnablingBringsKeysBackAndNoCertificates(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	pub, _ := addKey(t, w.Service, alice)
	cert, _ := certify(t, w.Service, alice)
	admin := adminOf(t, w)
	for _, disabled := range []bool{true, false} {
		if _, err := w.UpdateUser(t.Context(), admin, "alice", identity.UserUpdate{Disabled: &disabled}); err != nil {
			t.Fatal(err)
		}
		if err := w.OfferSSHKey(t.Context(), "alice", pub, home); (err != nil) != disabled {
			t.Errorf("disabled %v: the key: %v", disabled, err)
		}
		wantKind(t, "the certificate", w.OfferSSHKey(t.Context(), "alice", cert, home), bailey.Unauthenticated)
	}
}

// Groups and role of an open connection are those that the account has now.
func TestSSHActorIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		pub, key := addKey(t, w.Service, alice)
		actor, _, err := w.SignInSSH(t.Context(), byKey("alice", pub))
		if err != nil {
			t.Fatal(err)
		}
		groups := []string{"vision"}
		if _, err := w.UpdateUser(t.Context(), adminOf(t, w), "alice", identity.UserUpdate{Groups: &groups}); err != nil {
			t.Fatal(err)
		}
		now, err := w.SSHActor(t.Context(), actor)
		if err != nil || !slices.Equal(now.Groups, groups) || now.Session != actor.Session || now.IP != home {
			t.Errorf("SSHActor = %+v, %v; want the new groups", now, err)
		}
		forged := actor
		forged.UserID = adminOf(t, w).UserID
		_, err = w.SSHActor(t.Context(), forged)
		wantKind(t, "another user with her key", err, bailey.Unauthenticated)
		if err := w.RemoveSSHKey(t.Context(), alice, "", key.ID); err != nil {
			t.Fatal(err)
		}
		_, err = w.SSHActor(t.Context(), actor)
		wantKind(t, "after the key was removed", err, bailey.Unauthenticated)
	})
}

func TestCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		_, bob := identitytest.SignIn(t, w.Service, "bob")
		wantKind(t, "before there is an authority", w.OfferSSHKey(t.Context(), "alice", forged(t, "alice"), home), bailey.Unauthenticated)
		cert, row := certify(t, w.Service, alice)
		if d := time.Unix(int64(cert.ValidBefore), 0).Sub(time.Unix(int64(cert.ValidAfter), 0)); d != 12*time.Hour || row.Serial != cert.Serial { //nolint:gosec // small
			t.Errorf("certificate for %v, serial %d in the row and %d in it; want 12h", d, row.Serial, cert.Serial)
		}
		actor, grant, err := w.SignInSSH(t.Context(), byCertificate("alice", cert))
		if err != nil || actor.Method != identity.MethodSSHCertificate || actor.UserID != alice.UserID || !grant.Certificate || grant.NoPTY || !grant.Expires.Equal(row.ExpiresAt) {
			t.Errorf("SignInSSH = %+v, %+v, %v", actor, grant, err)
		}
		last := w.Journal.Events()[len(w.Journal.Events())-1]
		if last.Action != audit.SignIn || last.Outcome != audit.Success || last.Attrs.Serial != cert.Serial || last.Actor.Method != identity.MethodSSHCertificate {
			t.Errorf("the journal says %+v", last)
		}
		other := byCertificate("alice", cert)
		other.Key = pair(t).PublicKey()
		for name, in := range map[string]identity.SSHSignIn{
			"in bob's name":              byCertificate("bob", cert),
			"signed by another key":      other,
			"of another authority":       byCertificate("alice", forged(t, "alice")),
			"the key without it":         byKey("alice", cert.Key),
			"the certificate as a key":   {Name: "alice", Key: cert, IP: home},
			"of the root administrator":  byCertificate("root-admin", cert),
			"with a comma in the name":   byCertificate("alice,bob", cert),
			"with nothing for the name":  byCertificate("", cert),
			"with the name's upper case": byCertificate("ALICE", cert),
		} {
			_, _, err := w.SignInSSH(t.Context(), in)
			wantKind(t, name, err, bailey.Unauthenticated)
		}
		for _, lifetime := range []time.Duration{-time.Hour, time.Second, 24*time.Hour + time.Second} {
			_, _, err := w.IssueSSHCertificate(t.Context(), alice, identity.NewSSHCertificate{Line: lineOf(pair(t).PublicKey()), Lifetime: lifetime})
			wantKind(t, lifetime.String(), err, bailey.Invalid)
		}
		_, err = w.RevokeSSHCertificates(t.Context(), bob, "", cert.Serial)
		wantKind(t, "bob revokes alice's", err, bailey.NotFound)
		_, err = w.SSHCertificates(t.Context(), bob, "alice")
		wantKind(t, "bob lists alice's", err, bailey.Denied)
		time.Sleep(12 * time.Hour)
		_, _, err = w.SignInSSH(t.Context(), byCertificate("alice", cert))
		wantKind(t, "after 12 hours", err, bailey.Unauthenticated)
	})
}

// forged is a certificate by somebody else's authority.
func forged(t *testing.T, name string) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{
		Key: pair(t).PublicKey(), Serial: 1, CertType: ssh.UserCert, ValidPrincipals: []string{name},
		ValidAfter: uint64(time.Now().Add(-time.Hour).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()), //nolint:gosec // after 1970
	}
	if err := cert.SignCert(rand.Reader, pair(t)); err != nil {
		t.Fatal(err)
	}
	return cert
}

// A certificate that our authority signed but nobody noted is not accepted: a
// stolen authority alone opens nothing.
func TestACertificateThatWasNotIssuedIsRefused(t *testing.T) {
	w, thief := identitytest.NewWorld(t), identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	cert, _ := certify(t, w.Service, alice)
	seed, err := w.Store.SSHAuthority(t.Context(), "user", secret.Value{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := thief.Store.SSHAuthority(t.Context(), "user", seed); err != nil {
		t.Fatal(err)
	}
	_, alsoAlice := identitytest.SignIn(t, thief.Service, "alice")
	stolen, _ := certify(t, thief.Service, alsoAlice)
	if !slices.Equal(stolen.SignatureKey.Marshal(), cert.SignatureKey.Marshal()) {
		t.Fatal("the thief has another authority")
	}
	_, _, err = w.SignInSSH(t.Context(), byCertificate("alice", stolen))
	wantKind(t, "a certificate that nobody issued", err, bailey.Unauthenticated)
}

func TestSourceAddresses(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	line, _, err := w.IssueSSHCertificate(t.Context(), alice, identity.NewSSHCertificate{Line: lineOf(pair(t).PublicKey()), Sources: []string{home}})
	if err != nil {
		t.Fatal(err)
	}
	in := byCertificate("alice", parseCertificate(t, line))
	if _, _, err := w.SignInSSH(t.Context(), in); err != nil {
		t.Errorf("from %s: %v", home, err)
	}
	for _, ip := range []string{away, "", "junk", "::1"} {
		in.IP = ip
		_, _, err := w.SignInSSH(t.Context(), in)
		wantKind(t, "from "+ip, err, bailey.Unauthenticated)
	}
	_, _, err = w.IssueSSHCertificate(t.Context(), alice, identity.NewSSHCertificate{Line: lineOf(pair(t).PublicKey()), Sources: []string{"everywhere"}})
	wantKind(t, "a source that is none", err, bailey.Invalid)
}

// What is made with a token does not outlive it.
func TestATokensKeysAndCertificatesEndWithIt(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	grant := mustToken(t, w.Service, alice, "cli", 2*time.Hour)
	byToken, err := w.ByToken(t.Context(), grant.Secret, home)
	if err != nil {
		t.Fatal(err)
	}
	_, key := addKey(t, w.Service, byToken)
	if !key.ExpiresAt.Equal(grant.Row.ExpiresAt.Truncate(time.Microsecond)) {
		t.Errorf("the key ends %v, the token %v", key.ExpiresAt, grant.Row.ExpiresAt)
	}
	_, err = w.AddSSHKey(t.Context(), byToken, identity.NewSSHKey{Line: lineOf(pair(t).PublicKey()), Lifetime: 48 * time.Hour})
	wantKind(t, "a key for longer than the token", err, bailey.Denied)
	cert, row := certify(t, w.Service, byToken)
	if row.ExpiresAt.After(grant.Row.ExpiresAt) {
		t.Errorf("the certificate ends %v, the token %v", row.ExpiresAt, grant.Row.ExpiresAt)
	}
	kept, _ := certify(t, w.Service, alice)
	if err := w.RevokeToken(t.Context(), alice, grant.Row.ID); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "the token's certificate", w.OfferSSHKey(t.Context(), "alice", cert, home), bailey.Unauthenticated)
	if err := w.OfferSSHKey(t.Context(), "alice", kept, home); err != nil {
		t.Errorf("the session's certificate: %v", err)
	}
}

// In doubt we stay shut: without a journal nobody gets in and no key is added.
func TestSSHWithoutAJournalIsShut(t *testing.T) {
	w := identitytest.NewWorld(t)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	pub, row := addKey(t, w.Service, alice)
	w.Journal.Break(true)
	_, _, err := w.SignInSSH(t.Context(), byKey("alice", pub))
	wantKind(t, "SignInSSH", err, bailey.Unavailable)
	_, err = w.AddSSHKey(t.Context(), alice, identity.NewSSHKey{Line: lineOf(pair(t).PublicKey())})
	wantKind(t, "AddSSHKey", err, bailey.Unavailable)
	_, _, err = w.IssueSSHCertificate(t.Context(), alice, identity.NewSSHCertificate{Line: lineOf(pair(t).PublicKey())})
	wantKind(t, "IssueSSHCertificate", err, bailey.Unavailable)
	if keys, err := w.SSHKeys(t.Context(), alice, ""); err != nil || len(keys) != 1 {
		t.Errorf("keys = %v, %v; want the old one alone", keys, err)
	}
	if certs, err := w.SSHCertificates(t.Context(), alice, ""); err != nil || len(certs) != 0 {
		t.Errorf("certificates = %v, %v; want none", certs, err)
	}
	// Taking access away does not wait for it.
	if err := w.RemoveSSHKey(t.Context(), alice, "", row.ID); err != nil {
		t.Errorf("RemoveSSHKey: %v", err)
	}
}

// Failed connections are counted once each and with wrong passwords; a ban made
// at one door holds at the other, and not for those who proved themselves.
func TestSSHAndTheWebCountTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		pub, _ := addKey(t, w.Service, alice)
		const office, elsewhere = "198.51.100.7", "203.0.113.9"
		in := byKey("alice", pub)
		in.IP = office
		if _, _, err := w.SignInSSH(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		for n := 0; w.AllowSSH(t.Context(), elsewhere) == nil; n++ {
			if n > 100 {
				t.Fatal("100 failed connections over five names are no ban")
			}
			for _, ip := range []string{office, elsewhere} {
				w.FailedSSH(t.Context(), fmt.Sprintf("name-%d", n%5), ip, 6)
			}
			time.Sleep(7 * time.Second)
		}
		wantKind(t, "a stranger from there", w.AllowSSH(t.Context(), elsewhere), bailey.TooMany)
		in.IP = elsewhere
		_, _, err := w.SignInSSH(t.Context(), in)
		wantKind(t, "alice from where she never was", err, bailey.TooMany)
		_, _, err = w.SignIn(t.Context(), identity.SignInRequest{Name: "bob", Password: identitytest.Password("bob"), IP: elsewhere})
		wantKind(t, "bob with his password from there", err, bailey.TooMany)
		if identity.RetryAfter(err) == 0 {
			t.Error("the refusal does not say how long")
		}
		in.IP = office
		if _, _, err := w.SignInSSH(t.Context(), in); err != nil || w.AllowSSH(t.Context(), office) != nil {
			t.Errorf("alice from the office, which strangers had banned: %v", err)
		}
		failures, names := 0, 0
		for _, e := range w.Journal.Events() {
			if e.Action == audit.SignIn && e.Outcome == audit.Failure {
				failures++
				if e.Attrs.Count != 6 || e.Actor.Unknown == "" {
					t.Errorf("event = %+v, want six keys offered by an unknown name", e)
				}
			}
			if strings.Contains(fmt.Sprint(e), "name-") {
				names++
			}
		}
		if failures < 20 || names != 0 {
			t.Errorf("%d failures in the journal, %d with the name that was typed", failures, names)
		}
	})
}

// A container bridge is never banned: everybody may be behind it.
func TestSSHDoesNotBanPrivateAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		pub, _ := addKey(t, w.Service, alice)
		for n := range 60 {
			w.FailedSSH(t.Context(), fmt.Sprintf("name-%d", n%5), "172.17.0.1", 1)
			time.Sleep(7 * time.Second)
		}
		in := byKey("alice", pub)
		in.IP = "172.17.0.1"
		if _, _, err := w.SignInSSH(t.Context(), in); err != nil || w.AllowSSH(t.Context(), in.IP) != nil {
			t.Errorf("alice from the bridge: %v", err)
		}
	})
}

func linked(cfg *identity.Config) {
	cfg.SSHLink = func(code string) string { return "https://hub.example.org/ssh/" + code }
}

func codeOf(t *testing.T, link string) string {
	t.Helper()
	code, ok := strings.CutPrefix(link, "https://hub.example.org/ssh/")
	if !ok || len(code) != 9 {
		t.Fatalf("link = %q", link)
	}
	return code
}

func TestFirstContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, linked)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		_, bob := identitytest.SignIn(t, w.Service, "bob")
		key := pair(t).PublicKey()
		link, err := w.FirstContact(t.Context(), "alice", key, away)
		if err != nil {
			t.Fatal(err)
		}
		code, fingerprint := codeOf(t, link), ssh.FingerprintSHA256(key)
		p, err := w.Contact(t.Context(), alice, strings.ToLower(code))
		if err != nil || p.Fingerprint != fingerprint || p.IP != away || p.Type != ssh.KeyAlgoED25519 {
			t.Errorf("Contact = %+v, %v", p, err)
		}
		// Bob has the link and the fingerprint, and nothing for it.
		_, err = w.Contact(t.Context(), bob, code)
		wantKind(t, "bob looks", err, bailey.NotFound)
		_, err = w.BindContact(t.Context(), bob, code, fingerprint, true)
		wantKind(t, "bob binds", err, bailey.NotFound)
		wantKind(t, "bob refuses", w.RefuseContact(t.Context(), bob, code), bailey.NotFound)
		_, err = w.Contact(t.Context(), adminOf(t, w), code)
		wantKind(t, "an administrator looks", err, bailey.NotFound)
		// Alice has to have compared.
		for _, typed := range []string{"", fingerprint[len(fingerprint)-5:], "SHA256:", ssh.FingerprintSHA256(pair(t).PublicKey()), "x" + fingerprint} {
			_, err = w.BindContact(t.Context(), alice, code, typed, false)
			wantKind(t, "typed "+typed, err, bailey.Invalid)
		}
		row, err := w.BindContact(t.Context(), alice, code, " "+fingerprint[len(fingerprint)-6:]+"\n", false)
		if err != nil || !row.ExpiresAt.Equal(time.Now().Add(24*time.Hour)) || row.UserID != alice.UserID {
			t.Fatalf("BindContact = %+v, %v; want it bound for a day", row, err)
		}
		_, err = w.BindContact(t.Context(), alice, code, fingerprint, true)
		wantKind(t, "a second time", err, bailey.NotFound)
		in := byKey("alice", key)
		in.IP = away
		if _, _, err := w.SignInSSH(t.Context(), in); err != nil {
			t.Errorf("with the bound key: %v", err)
		}
		time.Sleep(24 * time.Hour)
		wantKind(t, "a day later", w.OfferSSHKey(t.Context(), "alice", key, away), bailey.Unauthenticated)
	})
}

func TestFirstContactLinksEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := identitytest.NewWorld(t, linked)
		_, alice := identitytest.SignIn(t, w.Service, "alice")
		key := pair(t).PublicKey()
		offer := func() string {
			t.Helper()
			link, err := w.FirstContact(t.Context(), "alice", key, away)
			if err != nil {
				t.Fatal(err)
			}
			return codeOf(t, link)
		}
		old, code := offer(), offer()
		_, err := w.Contact(t.Context(), alice, old)
		wantKind(t, "the link before the last", err, bailey.NotFound)
		if err := w.RefuseContact(t.Context(), alice, code); err != nil {
			t.Fatal(err)
		}
		_, err = w.BindContact(t.Context(), alice, code, ssh.FingerprintSHA256(key), true)
		wantKind(t, "a refused one", err, bailey.NotFound)
		code = offer()
		time.Sleep(10 * time.Minute)
		_, err = w.BindContact(t.Context(), alice, code, ssh.FingerprintSHA256(key), true)
		wantKind(t, "after ten minutes", err, bailey.NotFound)
		for _, junk := range []string{"", "ABCD", "ABCD-EFG!", strings.Repeat("A", 1<<16), "ABCD-EFGH"} {
			_, err = w.Contact(t.Context(), alice, junk)
			wantKind(t, "junk", err, bailey.NotFound)
		}
	})
}

// What a stranger is offered says neither who has an account nor whose a key
// is, and cannot be asked for without end.
func TestFirstContactSaysNothing(t *testing.T) {
	w := identitytest.NewWorld(t, linked)
	_, alice := identitytest.SignIn(t, w.Service, "alice")
	_, bob := identitytest.SignIn(t, w.Service, "bob")
	alices, _ := addKey(t, w.Service, alice)
	for name, key := range map[string]ssh.PublicKey{"nobody": pair(t).PublicKey(), "bob": alices, "alice": alices} {
		if link, err := w.FirstContact(t.Context(), name, key, away); err != nil || link == "" {
			t.Errorf("FirstContact(%s) = %q, %v; want a link", name, link, err)
		}
	}
	link, err := w.FirstContact(t.Context(), "bob", alices, away)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.BindContact(t.Context(), bob, codeOf(t, link), ssh.FingerprintSHA256(alices), true)
	wantKind(t, "bob binds alice's key", err, bailey.Conflict)
	if err != nil && strings.Contains(err.Error(), "alice") {
		t.Errorf("the refusal says whose it is: %v", err)
	}
	if link, err := w.FirstContact(t.Context(), "not a name", pair(t).PublicKey(), away); err != nil || link != "" {
		t.Errorf("for no name: %q, %v", link, err)
	}
	got := 0
	for range 500 {
		if link, err := w.FirstContact(t.Context(), "alice", pair(t).PublicKey(), away); err == nil && link != "" {
			got++
		}
	}
	if got == 0 || got > 100 {
		t.Errorf("one address got %d links of 500 in a moment", got)
	}
	if link, err := identitytest.NewWorld(t).FirstContact(t.Context(), "alice", pair(t).PublicKey(), away); err != nil || link != "" {
		t.Errorf("without a page: %q, %v", link, err)
	}
}
