package gateway_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/inspect"
)

// Every header that reaches the browser could carry a secret out: on pages, on
// files of the image, and on the answer to a WebSocket that is none.
func TestHeadersAreLookedAt(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), map[string][]string{
			"Set-Cookie":              {"theme=dark; Path=/", "t=" + aJWT + "; Path=/", "u=" + strings.ReplaceAll(aJWT, ".", "%2E")},
			"Content-Security-Policy": {"default-src 'self'; report-uri /r?t=" + aJWT},
			"Location":                {"/next?t=" + aJWT},
			"Content-Disposition":     {"attachment; filename=\"" + aJWT + ".txt\""},
			"X-Anything":              {"a", aJWT, "%0d%0aX-More: " + aJWT},
		})
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "see "+aJWT+" here")
	})
	for _, path := range []string{"/proxy/1/x", "/static/main.8d5afbb02e6c.js", "/api/kernels/1/channels"} {
		for _, mode := range []inspect.Mode{inspect.Unset, inspect.Alert, inspect.Block} {
			w, found := inspectedWorld(t, h, filter.Settings{Mode: mode})
			var res *http.Response
			var body string
			if strings.HasSuffix(path, "/channels") {
				c, r, err := w.socket(adaSlug, path)
				if err == nil {
					_ = c.CloseNow()
					t.Fatal("a WebSocket is opened")
				}
				if res = r; res == nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(res.Body)
				body = string(b)
			} else {
				res, body = w.ask(http.MethodGet, w.origin(adaSlug)+path, nil, adaToken)
			}
			all := fmt.Sprint(res.StatusCode, res.Header)
			switch mode { //nolint:exhaustive // those of the loop
			case inspect.Unset:
				if strings.Contains(all, aJWT[40:]) || strings.Contains(all, "%2E") || res.StatusCode != http.StatusAccepted {
					t.Errorf("%s: the header is %s", path, all)
				}
				if got := res.Header["Set-Cookie"]; len(got) != 1 || !strings.HasPrefix(got[0], "theme=dark") {
					t.Errorf("%s: cookies %q, want the theme alone", path, got)
				}
				if got := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'self'; report-uri /r?t=[REDACTED:") {
					t.Errorf("%s: policy %q", path, got)
				}
				if res.Header.Get("X-More") != "" {
					t.Errorf("%s: a header of a header: %s", path, all)
				}
				if !strings.HasPrefix(path, "/static/") && body != "see [REDACTED:jwt] here" {
					t.Errorf("%s: body %q", path, body)
				}
			case inspect.Alert:
				if !strings.Contains(all, aJWT) || len(res.Header["Set-Cookie"]) != 3 {
					t.Errorf("%s, alert: the header is %s", path, all)
				}
			case inspect.Block:
				if strings.Contains(all+body, aJWT[40:]) || res.StatusCode != http.StatusForbidden {
					t.Errorf("%s, block: %s %q", path, all, body)
				}
			}
			if !slices.Contains(found.rules(), "jwt") {
				t.Errorf("%s, mode %v: findings %v", path, mode, found.rules())
			}
		}
	}
}

// What Jupyter itself sets is no secret to the filter: its cookie against
// cross-site requests, and the one that knows the browser.
func TestJupytersCookiesPass(t *testing.T) {
	random := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		return b
	}
	user := base64.StdEncoding.EncodeToString([]byte(`{"username": "` + hex.EncodeToString(random(16)) + `", "name": "Anonymous Io", "display_name": "Anonymous Io", "initials": "AI", "color": null}`))
	for range 40 {
		cookies := []string{
			fmt.Sprintf("_xsrf=2|%x|%x|1764314000; expires=Mon, 28 Dec 2026 07:00:00 GMT; Path=/", random(4), random(16)),
			fmt.Sprintf(`username-127-0-0-1-8888="2|1:0|10:1764314000|23:username-127-0-0-1-8888|%d:%s|%x"; expires=Mon, 28 Dec 2026 07:00:00 GMT; HttpOnly; Path=/`, len(user), user, random(32)),
		}
		w, found := inspectedWorld(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Set-Cookie"] = slices.Clone(cookies)
			w.Header().Set("Content-Security-Policy", "frame-ancestors 'self'; report-uri /api/security/csp-report")
			_, _ = io.WriteString(w, "ok")
		}), filter.Settings{})
		res, _ := w.ask(http.MethodGet, w.origin(adaSlug)+"/lab", nil, adaToken)
		if got := res.Header["Set-Cookie"]; len(got) != 2 || !strings.HasPrefix(got[0], cookies[0]) || !strings.HasPrefix(got[1], cookies[1]) || len(found.rules()) > 0 {
			t.Fatalf("cookies\n%q became\n%q, found %v", cookies, got, found.rules())
		}
	}
}
