package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/e2e/drive"
)

// person makes an account and signs its command line in.
func person(t *testing.T, admin *drive.Person, s *drive.Server, name string) *drive.Person {
	t.Helper()
	ctx := deadline(t, time.Minute)
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(drive.Password()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CLI(ctx, "admin", "user", "add", name, "--password-file", file); err != nil {
		t.Fatal(err)
	}
	p := s.Person(name, file)
	if err := p.Login(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// approved asks for a device code as a program does, approves it in the
// person's browser, and returns the code that fetches the token.
func approved(t *testing.T, s *drive.Server, p *drive.Person) string {
	t.Helper()
	ctx := deadline(t, time.Minute)
	browser, err := p.Browser(ctx)
	if err != nil {
		t.Fatal(err)
	}
	post := func(c *http.Client, path string, form url.Values) string {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s: %.300s", path, resp.Status, b)
		}
		return string(b)
	}
	program, err := s.HTTP(false, false)
	if err != nil {
		t.Fatal(err)
	}
	var grant struct {
		Device string `json:"device_code"`
		User   string `json:"user_code"`
	}
	text := post(program, "/api/oauth/device_authorization", url.Values{"client_id": {"bailey"}, "scope": {"all"}, "device_name": {"a laptop"}})
	if err := json.Unmarshal([]byte(text), &grant); err != nil || grant.Device == "" {
		t.Fatalf("%v in %s", err, text)
	}
	post(browser, "/device", url.Values{"user_code": {grant.User}})
	post(browser, "/device/answer", url.Values{"user_code": {grant.User}, "answer": {"approve"}})
	return grant.Device
}

// Ada leaves the team while everything of hers is open: a kernel's WebSocket, a
// stream of events, a browser, an API token, and a program that she approved and
// that has not fetched its token. One command ends all of it. Bob notices nothing.
func TestOneCommandEndsEverythingOfSomebody(t *testing.T) {
	s, _ := server(t)
	admin := start(t, s)
	ada, bob := person(t, admin, s, "ada"), person(t, admin, s, "bob")
	base := laboratory(t, bob)
	bobs := kernel(t, bob, base)
	ctx := deadline(t, 3*time.Minute)

	if _, err := ada.CLI(ctx, "run", "notebook", "--name", "adas"); err != nil {
		t.Fatal(err)
	}
	out, err := ada.CLI(ctx, "ls", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct{ ID, Name, URL string }
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v in %s", err, out)
	}
	remove(t, admin, list[0].ID)
	adas := kernel(t, ada, strings.TrimSuffix(list[0].URL, "/")+"/")
	if got, err := adas.Run(ctx, "6*7"); err != nil || got != "42" {
		t.Fatalf("ada's kernel says %q, %v", got, err)
	}
	browser, err := ada.Browser(ctx)
	if err != nil {
		t.Fatal(err)
	}
	device := approved(t, s, ada)
	token, err := ada.Token()
	if err != nil {
		t.Fatal(err)
	}
	events := follow(t, s, token)

	if _, err := admin.CLI(ctx, "admin", "user", "end", "ada"); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if got, err := adas.Run(ctx, "print('still here')"); err == nil {
		t.Errorf("ada's kernel still answers %q", got)
	}
	if _, err := io.Copy(io.Discard, events); errors.Is(err, context.DeadlineExceeded) {
		t.Error("ada's stream of events goes on")
	}
	t.Logf("the kernel's WebSocket and the stream of events were closed within %v", time.Since(begin).Round(time.Millisecond))
	if _, err := ada.CLI(ctx, "ls"); drive.ExitCode(err) != 4 {
		t.Errorf("ada's token: %v, want exit code 4", err)
	}
	if resp, _, err := drive.Navigate(ctx, browser, s.URL+"/workspaces"); err != nil || !strings.HasPrefix(resp.Request.URL.Path, "/signin") {
		t.Errorf("ada's browser ends at %v, %v", resp.Request.URL, err)
	}
	if text := fetchToken(t, s, device); strings.Contains(text, "bly_") || !strings.Contains(text, "error") {
		t.Errorf("the program that ada approved gets %.200s", text)
	}
	if got, err := bobs.Run(ctx, "6*7"); err != nil || got != "42" {
		t.Errorf("bob's kernel says %q, %v", got, err)
	}
	if _, err := bob.CLI(ctx, "ls"); err != nil {
		t.Errorf("bob's token: %v", err)
	}
}

// follow opens the stream of the workspace's events.
func follow(t *testing.T, s *drive.Server, token string) io.Reader {
	t.Helper()
	c, err := s.HTTP(false, false)
	if err != nil {
		t.Fatal(err)
	}
	c.Timeout = 0
	r, err := http.NewRequestWithContext(deadline(t, time.Minute), http.MethodGet, s.URL+"/api/v1/workspaces/adas/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("events: %s", resp.Status)
	}
	return resp.Body
}

func fetchToken(t *testing.T, s *drive.Server, device string) string {
	t.Helper()
	c, err := s.HTTP(false, false)
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {"bailey"}, "device_code": {device}}
	r, err := http.NewRequestWithContext(deadline(t, time.Minute), http.MethodPost, s.URL+"/api/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}
