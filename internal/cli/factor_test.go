package cli_test

import (
	"bytes"
	"context"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/app/apptest"
	"github.com/baileyhq/bailey/internal/cli"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/totp"
)

// A phone is an authenticator app beside a terminal: it reads the letters off
// the screen and types the code.
type phone struct {
	screen bytes.Buffer
	key    secret.Value
	next   int64
	typed  *strings.Reader
}

var lettersRE = regexp.MustCompile(`(?m)^ +([A-Z2-7]{32})$`)

func (p *phone) Write(b []byte) (int, error) { return p.screen.Write(b) }

func (p *phone) Read(b []byte) (int, error) {
	if p.typed == nil {
		m := lettersRE.FindStringSubmatch(p.screen.String())
		if m == nil {
			return 0, io.EOF
		}
		p.key = secret.New(m[1])
		p.typed = strings.NewReader(p.code() + "\n")
	}
	return p.typed.Read(b)
}

// code is one that counts now and was not used: of this step or of the next. One
// of the step before might not count any more when the server looks at it.
func (p *phone) code() string {
	p.next = max(p.next, totp.Step(time.Now()))
	p.next++
	return totp.Code(p.key, p.next-1)
}

// Alice sets an app up in her terminal. From then on the password alone gives no
// token there, a code does once, and removing the app takes a proof. Bob cannot
// look at hers; an administrator can, and resets it by a proof of their own.
func TestSecondFactorsOnTheCommandLine(t *testing.T) {
	w := serveSSH(t)
	alice, bob, root := deskOf(t, w, apptest.Alice), deskOf(t, w, apptest.Bob), deskOf(t, w, apptest.Admin)
	alice.write("password", apptest.Password+"\n")
	root.write("password", apptest.Password+"\n")

	t.Setenv("HOME", alice.home)
	t.Setenv("BAILEY_PROFILE", alice.path("profile.json"))
	app, out := &phone{}, &bytes.Buffer{}
	if code := cli.Run(context.Background(), []string{"factor", "add", "--name", "phone", "--password-file", alice.path("password")}, app, out, app); code != 0 {
		t.Fatalf("factor add exited %d: %s", code, app.screen.String())
	}
	codes := strings.Fields(out.String())
	if len(codes) != 10 {
		t.Fatalf("recovery codes: %q", out.String())
	}
	if got, _ := alice.bailey(0, "factor", "ls"); !strings.Contains(got, "phone") || !strings.Contains(got, "totp") || strings.Contains(got, app.key.Reveal()) {
		t.Errorf("factor ls:\n%s", got)
	}

	login := func(want int, more ...string) string {
		t.Helper()
		d := &desk{t: t, home: t.TempDir()}
		_, errs := d.piped(apptest.Password, want, append([]string{"login", w.URL, "--user", "alice", "--password-file", "-", "--fingerprint", certificateOf(t, w)}, more...)...)
		return errs
	}
	if errs := login(4); !strings.Contains(errs, "a second factor is needed") || !strings.Contains(errs, "--otp") || !strings.Contains(errs, "without --user") {
		t.Errorf("the password alone: %q; want to be told of --otp and of the browser", errs)
	}
	login(4, "--otp", "000000")
	used := app.code()
	login(0, "--otp", used)
	login(4, "--otp", used)
	login(0, "--otp", codes[0])
	login(4, "--otp", codes[0])

	// Her own token does not change the factor by itself, once the proof is old;
	// it is fresh here, so bob's and the administrator's show it.
	bob.bailey(6, "admin", "user", "factors", "ls", "alice")
	if got, _ := root.bailey(0, "admin", "user", "factors", "ls", "alice", "-o", "json"); !strings.Contains(got, "phone") || strings.Contains(got, app.key.Reveal()) {
		t.Errorf("the administrator sees %s", got)
	}
	_, errs := root.bailey(2, "admin", "user", "factors", "reset", "alice", "--yes")
	if !strings.Contains(errs, "fresh proof") {
		t.Errorf("a reset without a proof: %q", errs)
	}
	bob.bailey(6, "admin", "user", "factors", "reset", "alice", "--yes")
	root.bailey(0, "admin", "user", "factors", "reset", "alice", "--yes", "--password-file", root.path("password"))
	alice.bailey(4, "factor", "ls") // her tokens are void
	login(0)
}
