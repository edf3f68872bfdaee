package console

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey/internal/secret"
)

// A form that asks for a fresh proof of identity is kept while its sender gives
// one, and then done: nobody types it twice. It stays in memory, of this server,
// for the session that sent it, and counts once.

const (
	heldFor        = 15 * time.Minute
	heldPerSession = 8
	heldInAll      = 1024
)

type heldForm struct {
	session, path string
	form          url.Values
	until         time.Time
}

// held keeps forms by an id that nobody guesses.
type held struct {
	mu   sync.Mutex // guards byID
	byID map[string]heldForm
}

// add keeps what a session sent and returns its id. When there are too many,
// the session's oldest goes, or nothing is kept and the id is empty.
func (h *held) add(session, path string, form url.Values) string {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	own, oldest := 0, ""
	for id, f := range h.byID {
		if now.After(f.until) {
			delete(h.byID, id)
			continue
		}
		if f.session == session {
			if own++; oldest == "" || f.until.Before(h.byID[oldest].until) {
				oldest = id
			}
		}
	}
	if own >= heldPerSession {
		delete(h.byID, oldest)
	}
	if len(h.byID) >= heldInAll {
		return ""
	}
	if h.byID == nil {
		h.byID = map[string]heldForm{}
	}
	id := secret.Random(16).Reveal()
	h.byID[id] = heldForm{session, path, form, now.Add(heldFor)}
	return id
}

// take returns what is kept under the id, to the session that sent it and once.
func (h *held) take(session, id string) (heldForm, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f, ok := h.byID[id]
	if !ok || f.session != session {
		return heldForm{}, false
	}
	delete(h.byID, id)
	return f, time.Now().Before(f.until)
}

// isHeld reports whether text has the form of an id.
func isHeld(text string) bool {
	return len(text) == 22 && strings.Trim(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_") == ""
}

// hold keeps the form of a request that was refused for want of a proof.
func (c *Console) hold(r *http.Request, session string) string {
	if r.Method != http.MethodPost || strings.HasPrefix(r.URL.Path, "/stepup") {
		return ""
	}
	form, err := formOf(r)
	if err != nil {
		return ""
	}
	return c.held.add(session, r.URL.EscapedPath(), form)
}

// again does what was kept, as if it was sent now: it is authenticated and
// looked at anew.
func (c *Console) again(w http.ResponseWriter, r *http.Request, f heldForm) error {
	u, err := url.ParseRequestURI(f.path)
	if err != nil {
		return err
	}
	text := f.form.Encode()
	in := viewOf(r.Context()).request.Clone(viewOf(r.Context()).request.Context())
	in.Method, in.URL, in.RequestURI, in.Form, in.PostForm, in.Pattern = http.MethodPost, u, f.path, nil, nil, ""
	in.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	in.Header.Set("Sec-Fetch-Site", "same-origin") // it was when it was kept
	in.Body, in.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	c.mux.ServeHTTP(w, in)
	return nil
}

// proved goes on after a proof of identity: with the form that was kept, or to
// the page where it was asked for.
func (c *Console) proved(w http.ResponseWriter, r *http.Request, session string, back wayBack) error {
	if f, ok := c.held.take(session, back.Held); ok {
		return c.again(w, r, f)
	}
	http.Redirect(w, r, back.path(), http.StatusSeeOther) //nolint:gosec // always a path of ours, see there
	return nil
}
