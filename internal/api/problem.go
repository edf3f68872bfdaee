package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/identity"
)

// A Problem is how every failure reads (RFC 9457, with our code and hint).
type Problem struct { //nolint:errname // what RFC 9457 calls it, and the document's name for it
	Type      string         `json:"type" doc:"about:blank"`
	Title     string         `json:"title" doc:"The status in words"`
	Status    int            `json:"status" doc:"HTTP status"`
	Detail    string         `json:"detail" doc:"What happened and why"`
	Code      string         `json:"code" doc:"Stable code: internal, invalid, unauthenticated, denied, not_found, conflict, quota, too_many, second_factor, step_up, unavailable"`
	Hint      string         `json:"hint,omitempty" doc:"What to do next"`
	RequestID string         `json:"request_id,omitempty" doc:"Under which the server's log has more"`
	Errors    []FieldProblem `json:"errors,omitempty" doc:"What does not fit, field by field"`

	headers http.Header
}

// A FieldProblem is one thing in a request that does not fit. It never repeats
// the value: that may be a password.
type FieldProblem struct {
	Location string `json:"location" doc:"Where, such as body.name or query.limit"`
	Message  string `json:"message" doc:"What is wrong with it"`
}

var problemType = reflect.TypeFor[Problem]()

// Error implements error.
func (p *Problem) Error() string { return p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header { return p.headers }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

var errTooLarge = errors.New("request body too large")

// problem turns a service's error into an answer: the words of a bailey.Error,
// or "internal error" and the cause in the log.
func (a *API) problem(ctx context.Context, err error) *Problem {
	from := edge.ProblemOf(requestOf(ctx), a.cfg.Log, err)
	p := &Problem{
		Type: from.Type, Title: from.Title, Status: from.Status, Detail: from.Detail,
		Code: from.Code, Hint: from.Hint, RequestID: from.RequestID, headers: http.Header{},
	}
	if errors.Is(err, errTooLarge) {
		p.Status, p.Title = http.StatusRequestEntityTooLarge, http.StatusText(http.StatusRequestEntityTooLarge)
	}
	if p.Status < http.StatusInternalServerError || p.Status == http.StatusServiceUnavailable {
		a.cfg.Log.DebugContext(ctx, "request refused", slog.String("request_id", p.RequestID), slog.String("error", err.Error()))
	}
	if wait := identity.RetryAfter(err); wait > 0 {
		p.headers.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	} else if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		p.headers.Set("Retry-After", strconv.Itoa(int(retryIn/time.Second)))
	}
	if p.Status == http.StatusUnauthorized {
		p.headers.Set("WWW-Authenticate", `Bearer realm="bailey"`)
	}
	return p
}

// retryIn is for what passes by itself but does not say when.
const retryIn = 5 * time.Second

// write answers with p where huma does not do it.
func (p *Problem) write(w http.ResponseWriter) {
	b, err := json.Marshal(p)
	if err != nil {
		panic("api: " + err.Error()) // strings and numbers are always possible
	}
	maps.Copy(w.Header(), p.headers)
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n')) // an error here is the client's own going away
}

// The bounds of what of a stranger's text is repeated to him.
const (
	maxFieldProblems = 16
	maxLocation      = 96
	maxMessage       = 200
)

// reword gives huma's own refusals (of requests that do not fit the document)
// the form and the words of all others. What huma echoes of the request is left
// out: a body may hold a password.
func (a *API) reword(ctx huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	e := &bailey.Error{Kind: bailey.Invalid, Hint: "GET /api/openapi.json describes what fits"}
	switch m.Status {
	case http.StatusUnsupportedMediaType:
		e.Msg, e.Hint = "the request body must be JSON", `send "Content-Type: application/json"`
	case http.StatusBadRequest:
		e.Msg = "the request body is missing or is not JSON"
	case http.StatusUnprocessableEntity:
		e.Msg = "the request has something that does not fit this operation"
	default:
		// None that we know of; whatever it is, its words are not for strangers.
		p := a.problem(ctx.Context(), m)
		p.Status, p.Title = m.Status, http.StatusText(m.Status)
		return p, nil
	}
	p := a.problem(ctx.Context(), e)
	p.Status, p.Title = m.Status, http.StatusText(m.Status)
	for _, d := range m.Errors {
		if d == nil || len(p.Errors) == maxFieldProblems {
			continue
		}
		p.Errors = append(p.Errors, FieldProblem{Location: edge.Printable(d.Location, maxLocation), Message: plain(d.Message)})
	}
	return p, nil
}

// plain is huma's message without the insides of our program.
func plain(message string) string {
	if strings.HasPrefix(message, "json: ") {
		return "has a value of a kind that does not fit"
	}
	return edge.Printable(message, maxMessage)
}

// describeErrors puts Problem into the document as the answer to every failure.
func (a *API) describeErrors(o *huma.Operation) {
	if o.Responses == nil {
		o.Responses = map[string]*huma.Response{}
	}
	schema := a.huma.OpenAPI().Components.Schemas.Schema(problemType, true, "")
	o.Responses["default"] = &huma.Response{
		Description: "What went wrong, why, and what to do next",
		Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: schema}},
	}
}
