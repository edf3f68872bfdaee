// Package edge is where bytes from outside first arrive: listeners, TLS from
// an own CA or from files, the caller's true address, and the habits every
// door shares: which origin a request is for, handlers that return errors,
// answers that leak nothing. It authenticates nobody.
package edge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/baileyhq/bailey"
)

// ConsoleCookie is the name of the console's session cookie: __Host- keeps it
// on the console's own host, so no workspace origin can set or read it. Where
// workspaces share that host it has another, see [Origins.Cookie].
const ConsoleCookie = "__Host-bailey"

const sharedConsoleCookie = "__Host-Http-bailey"

// A HandlerFunc answers a request or returns an error; [Handle] turns the error
// into an answer.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

type actorKey struct{}

// WithActor returns a context that carries who is asking.
func WithActor(ctx context.Context, a bailey.Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorFrom returns who is asking; ok is false when nobody signed in.
func ActorFrom(ctx context.Context) (bailey.Actor, bool) {
	a, ok := ctx.Value(actorKey{}).(bailey.Actor)
	return a, ok
}

// Status returns the HTTP status for a kind of failure.
func Status(k bailey.Kind) int {
	switch k {
	case bailey.Invalid:
		return http.StatusUnprocessableEntity
	case bailey.Unauthenticated:
		return http.StatusUnauthorized
	case bailey.Denied:
		return http.StatusForbidden
	case bailey.NotFound:
		return http.StatusNotFound
	case bailey.Conflict:
		return http.StatusConflict
	case bailey.OverQuota:
		return http.StatusForbidden
	case bailey.TooMany:
		return http.StatusTooManyRequests
	case bailey.SecondFactor:
		return http.StatusUnauthorized
	case bailey.StepUp:
		return http.StatusForbidden
	case bailey.Unavailable:
		return http.StatusServiceUnavailable
	case bailey.Internal:
		return http.StatusInternalServerError
	}
	return http.StatusInternalServerError
}

// ClientIP returns the caller's address without port or zone, and an IPv4
// address as such even on an IPv6 socket. It is the socket's, or what a trusted
// proxy said: the [Server] has decided that before any handler runs, and taken
// the headers away that say otherwise. It is empty when there is no socket, as
// in a test.
func ClientIP(r *http.Request) string {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return ap.Addr().Unmap().WithZone("").String()
}

// RequestID returns the id under which a request stands in the log and in the
// problem that its sender reads. It is made when first asked for.
func RequestID(r *http.Request) string {
	if e, ok := r.Context().Value(exchangeKey{}).(*exchange); ok {
		return e.requestID()
	}
	return freshID()
}

func freshID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24: the program aborts instead
	return hex.EncodeToString(b[:])
}

// WantsPage reports whether a person is looking: a browser navigates, or a
// client without fetch metadata asks for HTML. Everybody else reads JSON.
func WantsPage(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// Printable returns a stranger's text fit for a log or a terminal: what is not
// a printable character becomes "?", and there are at most limit bytes, plus
// "…" when some were cut.
func Printable(text string, limit int) string {
	cut := len(text) > limit
	if cut {
		text = text[:limit]
	}
	plain := true
	for i := 0; i < len(text) && plain; i++ {
		plain = text[i] >= 0x20 && text[i] < 0x7f
	}
	if !plain {
		text = strings.Map(func(c rune) rune {
			if c == utf8.RuneError || !unicode.IsPrint(c) {
				return '?'
			}
			return c
		}, text)
	}
	if cut {
		return text + "…"
	}
	return text
}

type exchangeKey struct{}

// An exchange is what the server knows of one request beside the request
// itself. The id is made once, whoever asks first.
type exchange struct {
	origins *Origins
	once    sync.Once
	id      string
}

func (e *exchange) requestID() string {
	e.once.Do(func() { e.id = freshID() })
	return e.id
}
