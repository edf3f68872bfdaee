package edge

import (
	"encoding/json"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/baileyhq/bailey"
)

// A Problem is an error as a client reads it (RFC 9457, application/problem+json).
type Problem struct {
	Type      string `json:"type"`             // always "about:blank": Code is what programs look at
	Title     string `json:"title"`            // the status in words
	Status    int    `json:"status"`           // the HTTP status
	Detail    string `json:"detail,omitempty"` // what happened and why
	Code      string `json:"code"`             // bailey.Kind's stable code
	Hint      string `json:"hint,omitempty"`   // the next thing to do
	RequestID string `json:"request_id,omitempty"`
}

// Handle makes a handler of h. An error that h returns becomes the answer, by
// [WriteError]; h must then not have written anything.
func Handle(log *slog.Logger, h HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			WriteError(w, r, log, err)
		}
	})
}

// WriteJSON writes v with the status. It fails without having written anything
// when v cannot be encoded; an error after that is the client's and nil here.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	writeBody(w, status, "application/json", append(b, '\n'))
	return nil
}

func writeBody(w http.ResponseWriter, status int, kind string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error here is the client's own going away
}

// WriteError answers with err: a person who navigates gets a page, a program a
// [Problem]. Only the words of a *bailey.Error go out. Anything else is
// "internal error" outside, and whole in the log under the same request id.
func WriteError(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	p := ProblemOf(r, log, err)
	switch p.Status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="bailey"`)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "5")
	}
	if WantsPage(r) {
		WritePage(w, Page{Status: p.Status, Title: p.Title, Detail: p.Detail, Hint: p.Hint, RequestID: p.RequestID})
		return
	}
	WriteProblem(w, p)
}

// WriteProblem writes p with its status.
func WriteProblem(w http.ResponseWriter, p Problem) {
	b, err := json.Marshal(p)
	if err != nil {
		b = []byte(`{"status":500,"code":"internal"}`)
	}
	writeBody(w, p.Status, "application/problem+json", append(b, '\n'))
}

// ProblemOf returns what may be shown of err, and logs what may not: an error
// that is no *bailey.Error, or one of kind Internal, unless the client just
// went away.
func ProblemOf(r *http.Request, log *slog.Logger, err error) Problem {
	p := Problem{Type: "about:blank", RequestID: RequestID(r)}
	e, ok := errors.AsType[*bailey.Error](err)
	kind := bailey.Internal
	if ok {
		kind = e.Kind
	}
	if tooLarge, isLimit := errors.AsType[*http.MaxBytesError](err); isLimit {
		ok, kind = true, bailey.Invalid
		e = bailey.Errorf(kind, "the request body is larger than %d bytes", tooLarge.Limit)
	}
	p.Code, p.Status = kind.String(), Status(kind)
	p.Title = http.StatusText(p.Status)
	if ok && kind != bailey.Internal {
		p.Detail, p.Hint = e.Msg, e.Hint
		return p
	}
	p.Detail = "internal error"
	p.Hint = "tell an administrator the request id; the server's log has the cause"
	if r.Context().Err() == nil {
		log.ErrorContext(r.Context(), "request failed",
			slog.String("request_id", p.RequestID),
			slog.String("method", r.Method),
			slog.String("path", Printable(r.URL.EscapedPath(), 256)),
			slog.String("error", err.Error()))
	}
	return p
}

// A Page is one message to a person, with at most one thing to do next.
type Page struct {
	Status    int
	Title     string
	Detail    string
	Hint      string
	Link      string // an address of ours, never a stranger's; empty: none
	LinkText  string
	RequestID string
}

// WritePage writes p as a small page that needs nothing else: no script, no
// picture, no style sheet, and that may not be framed.
func WritePage(w http.ResponseWriter, p Page) {
	nonce := freshID()
	h := w.Header()
	h.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'nonce-"+nonce+"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	var b strings.Builder
	// Writing to a strings.Builder cannot fail, and the template has no
	// functions that can.
	_ = pageTemplate.Execute(&b, struct {
		Page
		Nonce string
	}{p, nonce})
	writeBody(w, p.Status, "text/html; charset=utf-8", []byte(b.String()))
}

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}} · bailey</title>
<style nonce="{{.Nonce}}">
:root{color-scheme:light dark}
body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}
h1{font-size:1.4rem}
a{display:inline-block;margin-top:1rem}
.dim{opacity:.7;font-size:.85rem;margin-top:2rem}
</style>
</head>
<body>
<main>
<h1>{{.Title}}</h1>
<p>{{.Detail}}</p>
{{with .Hint}}<p>{{.}}</p>{{end}}
{{if .Link}}<p><a href="{{.Link}}">{{.LinkText}}</a></p>{{end}}
{{with .RequestID}}<p class="dim">Request {{.}}</p>{{end}}
</main>
</body>
</html>
`))
