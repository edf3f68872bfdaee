package cli_test

import (
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/app/apptest"
)

// An administrator takes over the accounts of a program that is to go: two from
// an htpasswd file, one whose hash bailey made. They sign in with the passwords
// they had. Bob cannot import anybody, and no hash is ever printed.
func TestAccountsAreImportedWithTheirHashes(t *testing.T) {
	w := serveSSH(t)
	root, bob := deskOf(t, w, apptest.Admin), deskOf(t, w, apptest.Bob)

	hash, errs := root.piped("lantern quarry 81 swing\n", 0, "hash-password")
	if !strings.HasPrefix(hash, "$argon2id$") || strings.Contains(errs, "lantern") {
		t.Fatalf("hash-password: %q, %q", hash, errs)
	}
	if _, errs := root.bailey(2, "hash-password", "on-the-command-line"); strings.Contains(errs, "on-the-command-line") {
		t.Errorf("hash-password repeats its argument: %q", errs)
	}
	if _, errs := root.piped("password\n", 2, "hash-password"); !strings.Contains(errs, "first that somebody would try") {
		t.Errorf("hash-password of a common password: %q", errs)
	}

	const bcrypt = "$2b$06$ffCayrBISrUhScTz6GgyneELRNVJ7KKW0ZOdSPkMG5F8mp859rk7m" // of "violet harbour 62 lanterns"
	root.write("accounts", "# old notebook server\ncarol:"+bcrypt+"\n"+
		`{"name":"erin","hash":"`+strings.TrimSpace(hash)+`","role":"auditor","groups":["vision"]}`+"\n")
	bob.write("accounts", root.read("accounts"))
	bob.bailey(6, "admin", "user", "import", bob.path("accounts"))

	root.write("bad", "frank:"+bcrypt+"\nmalformed\nfrank:"+bcrypt+"\ngina:"+strings.Replace(bcrypt, "$06$", "$31$", 1)+"\n")
	_, errs = root.bailey(2, "admin", "user", "import", root.path("bad"))
	for _, want := range []string{"bad:2:", "bad:3:", "bad:4:", "nothing was imported"} {
		if !strings.Contains(errs, want) {
			t.Errorf("a bad file: %q does not say %q", errs, want)
		}
	}
	if strings.Contains(errs, bcrypt[8:20]) {
		t.Errorf("a bad file: %q repeats a hash", errs)
	}

	out, errs := root.bailey(0, "admin", "user", "import", root.path("accounts"))
	if out != "carol\nerin\n" || !strings.Contains(errs, "Made 2 accounts, left 0") {
		t.Errorf("import: %q, %q", out, errs)
	}
	out, errs = root.piped(root.read("accounts"), 0, "admin", "user", "import", "-")
	if out != "" || !strings.Contains(errs, "left 2") {
		t.Errorf("once more: %q, %q; want both left as they are", out, errs)
	}
	list, _ := root.bailey(0, "admin", "user", "ls")
	if strings.Contains(list, "frank") || !strings.Contains(list, "erin") || strings.Contains(list, "$") {
		t.Errorf("accounts:\n%s", list)
	}
	for name, password := range map[string]string{"carol": "violet harbour 62 lanterns", "erin": "lantern quarry 81 swing"} {
		d := &desk{t: t, home: t.TempDir()}
		d.piped(password, 0, "login", w.URL, "--user", name, "--password-file", "-", "--fingerprint", certificateOf(t, w))
		if out, _ := d.bailey(0, "ls", "-o", "name"); out != "" {
			t.Errorf("%s sees %q", name, out)
		}
	}
}
