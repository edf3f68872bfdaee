package identity_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/identity/identitytest"
	"github.com/baileyhq/bailey/internal/secret"
)

// imported is bcrypt, as htpasswd makes it, of a password that carol knows.
const (
	imported     = "$2b$06$ffCayrBISrUhScTz6GgyneELRNVJ7KKW0ZOdSPkMG5F8mp859rk7m"
	importedText = "violet harbour 62 lanterns"
)

// An administrator brings carol's hash along; nobody else does, and nothing is
// taken that is no hash, costs too much to verify, or comes with a password. She
// signs in with her old password, and then the hash is one of ours.
func TestAnAccountBringsItsHashAlong(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	_, admin := identitytest.SignIn(t, w.Service, "root-admin")
	_, bob := identitytest.SignIn(t, w.Service, "bob")
	carol := identity.NewUser{Name: "carol", Hash: secret.New(imported)}
	_, err := w.CreateUser(t.Context(), bob, carol)
	wantKind(t, "bob imports", err, bailey.Denied)
	for what, n := range map[string]identity.NewUser{
		"a hash that takes a month":    {Name: "dora", Hash: secret.New(strings.Replace(imported, "$06$", "$31$", 1))},
		"what is no hash":              {Name: "dora", Hash: secret.New("plain")},
		"a hash and a password":        {Name: "dora", Hash: secret.New(imported), Password: secret.New(importedText)},
		"a service account's password": {Name: "dora", Hash: secret.New(imported), Service: true},
	} {
		_, err := w.CreateUser(t.Context(), admin, n)
		wantKind(t, what, err, bailey.Invalid)
		if err != nil && strings.Contains(err.Error(), imported[8:20]) {
			t.Errorf("%s: the error %q repeats the hash", what, err)
		}
	}
	user, err := w.CreateUser(t.Context(), admin, carol)
	if err != nil {
		t.Fatal(err)
	}
	events := w.Journal.Events()
	if last := events[len(events)-1]; last.Action != audit.PasswordImport || last.Target.Name != "carol" || last.Attrs.Rule != "bcrypt" {
		t.Errorf("the journal's last event is %+v", last)
	}
	if _, err := try(t, w.Service, "carol", "violet harbour 62 lantern", office); err == nil {
		t.Error("carol with another password: in")
	}
	for range 2 {
		if _, err := try(t, w.Service, "carol", importedText, office); err != nil {
			t.Fatalf("carol with her old password: %v", err)
		}
		if stored, err := w.Store.PasswordHash(t.Context(), user.ID); err != nil || !identity.IsCurrent(stored) {
			t.Errorf("her hash was not made anew (%v)", err)
		}
	}
}

// Attack 14, for imported accounts: their hash takes another time than ours, so
// everybody's attempt does the same work until the last of them is made anew.
func TestImportedHashesDoNotShowInTheWork(t *testing.T) {
	w := identitytest.NewWorld(t, patient)
	_, admin := identitytest.SignIn(t, w.Service, "root-admin")
	if _, err := w.CreateUser(t.Context(), admin, identity.NewUser{Name: "carol", Hash: secret.New(imported)}); err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, name := range []string{"alice", "carol", "mallory"} {
		got := fmt.Sprint(identity.Work(t.Context(), w.Service, name))
		if want == "" {
			want = got
		}
		if got != want || !strings.Contains(got, "bcrypt 6") || !strings.Contains(got, "argon2id") {
			t.Errorf("an attempt on %s does the work %s, on alice %s", name, got, want)
		}
	}
	if _, err := try(t, w.Service, "carol", importedText, office); err != nil {
		t.Fatalf("carol with her old password: %v", err)
	}
	if got := fmt.Sprint(identity.Work(t.Context(), w.Service, "mallory")); strings.Contains(got, "bcrypt") {
		t.Errorf("after she signed in, the work is still %s", got)
	}
}
