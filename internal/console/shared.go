package console

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

// In mode path the pages of workspaces are on the console's origin, so a script
// in one of them is, to a browser, a script of ours. It must still not act here
// with its reader's cookie. Two things hold, because no script can forge them:
//
//   - How a request came about: Sec-Fetch-Mode and -Dest. A page of ours is
//     given to a tab that goes there and to nothing else, neither to fetch nor
//     to a frame, so no script reads one. (A window that a script opens could be
//     read; the gateway lets workspaces open none, and they are in another group
//     of windows.)
//   - A token in each of our forms, made of cookies that no script sees. Without
//     reading a page there is none to be had.

// apart serves what is no page of ours: cookies count there only when a tab
// goes there.
func (c *Console) apart(h http.Handler) http.Handler {
	if !c.cfg.Origins.SharedOrigin() {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead || !inTab(r) {
			r.Header.Del("Cookie")
		}
		h.ServeHTTP(w, r)
	})
}

// inTab reports whether a tab of the browser goes to a page. A client that does
// not say is not believed: a browser that does not would not keep its scripts
// away either.
func inTab(r *http.Request) bool {
	mode, dest := r.Header["Sec-Fetch-Mode"], r.Header["Sec-Fetch-Dest"]
	return len(mode) == 1 && mode[0] == "navigate" && len(dest) == 1 && dest[0] == "document"
}

// formCookie holds what the forms' tokens are made of.
const formCookie = "form"

// formToken puts the token for the page's forms into v. Whoever is no tab is
// refused, before a page with a token can be made for them.
func (c *Console) formToken(w http.ResponseWriter, r *http.Request, v *view) error {
	if !inTab(r) {
		return &bailey.Error{
			Kind: bailey.Denied, Msg: "on this server the console's pages open in a tab of a browser only, and no script can read them",
			Hint: "open it in a browser of 2023 or later; programs use the API with a token",
		}
	}
	name := c.cookie(formCookie)
	key := onlyCookie(r, name)
	if key == "" {
		key = secret.Random(32).Reveal()
		http.SetCookie(w, &http.Cookie{Name: name, Value: key, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(onlyCookie(r, c.cookie("")))) // a token is of one session
	v.FormToken = base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	return nil
}

// ourForm refuses a form without the token, where that is needed.
func (c *Console) ourForm(r *http.Request) error {
	v := viewOf(r.Context())
	if !v.Shared {
		return nil
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	if hmac.Equal([]byte(f.Get("form_token")), []byte(v.FormToken)) {
		return nil
	}
	c.noteForeign(r)
	return &bailey.Error{
		Kind: bailey.Denied, Msg: "this form is not from a page of the console that is open in this browser now",
		Hint: "go back, load the page anew and send it again; the console needs cookies",
	}
}

var formRE = regexp.MustCompile(`<form method="post"[^>]*>`)

// withToken puts the token into every form of a template, so that none is
// forgotten.
func withToken(text string) string {
	return formRE.ReplaceAllString(text, `${0}{{with $$.FormToken}}<input type="hidden" name="form_token" value="{{.}}">{{end}}`)
}
