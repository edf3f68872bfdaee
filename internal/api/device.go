package api

import (
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
)

// The endpoints of RFC 8628. They are not in the document: their form is the
// RFC's, form-encoded in, and errors of RFC 6749 out, so that clients of OAuth
// need no words of ours.
const (
	deviceCodePath  = "/api/oauth/device_authorization"
	deviceTokenPath = "/api/oauth/token"
	deviceGrant     = "urn:ietf:params:oauth:grant-type:device_code"
	deviceClient    = "bailey"
)

func (a *API) deviceRoutes() {
	a.mux.HandleFunc("POST "+deviceCodePath, a.deviceCode)
	a.mux.HandleFunc("POST "+deviceTokenPath, a.deviceToken)
}

// oauthForm reads a request's parameters; each may be given once (RFC 6749,
// 3.2). The query is no place for a code: it is logged by whoever is between.
func oauthForm(r *http.Request) (url.Values, bool) {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(kind), "application/x-www-form-urlencoded") || r.URL.RawQuery != "" {
		return nil, false
	}
	if r.ParseForm() != nil {
		return nil, false
	}
	for _, values := range r.PostForm {
		if len(values) != 1 {
			return nil, false
		}
	}
	return r.PostForm, true
}

func (a *API) deviceCode(w http.ResponseWriter, r *http.Request) {
	f, ok := oauthForm(r)
	if !ok {
		oauthError(w, http.StatusBadRequest, "invalid_request", "send client_id and scope as a form, each once")
		return
	}
	if f.Get("client_id") != deviceClient {
		oauthError(w, http.StatusBadRequest, "invalid_client", "the client_id is \""+deviceClient+"\"")
		return
	}
	scopes := all(strings.Fields(f.Get("scope")), func(s string) bailey.Scope { return bailey.Scope(s) })
	// device_name is ours: what the program calls itself.
	code, err := a.cfg.Identity.BeginDevice(r.Context(), f.Get("device_name"), edge.ClientIP(r), scopes)
	if err != nil {
		a.oauthFailure(w, r, err, "invalid_scope")
		return
	}
	page := a.cfg.Origins.Console() + "/device"
	writeOAuth(w, http.StatusOK, map[string]any{
		"device_code": code.Device.Reveal(), "user_code": code.User, "verification_uri": page,
		"verification_uri_complete": page + "?user_code=" + code.User,
		"expires_in":                int(code.Life.Seconds()), "interval": int(code.Interval.Seconds()),
	})
}

func (a *API) deviceToken(w http.ResponseWriter, r *http.Request) {
	f, ok := oauthForm(r)
	if !ok || f.Get("device_code") == "" {
		oauthError(w, http.StatusBadRequest, "invalid_request", "send grant_type, device_code and client_id as a form, each once")
		return
	}
	if f.Get("grant_type") != deviceGrant {
		oauthError(w, http.StatusBadRequest, "unsupported_grant_type", "the grant_type is "+deviceGrant)
		return
	}
	if f.Get("client_id") != deviceClient {
		oauthError(w, http.StatusBadRequest, "invalid_client", "the client_id is \""+deviceClient+"\"")
		return
	}
	grant, user, err := a.cfg.Identity.PollDevice(r.Context(), secret.New(f.Get("device_code")), edge.ClientIP(r))
	if err != nil {
		a.oauthFailure(w, r, err, "invalid_request")
		return
	}
	writeOAuth(w, http.StatusOK, map[string]any{
		"access_token": grant.Secret.Reveal(), "token_type": "Bearer",
		"expires_in": int(grant.Row.ExpiresAt.Sub(grant.Row.CreatedAt).Seconds()),
		"scope":      strings.Join(namesOf(grant.Row.Scopes), " "),
		"user":       user.Name, "expires_at": grant.Row.ExpiresAt,
	})
}

// oauthFailure answers with the code of a poll, or with otherwise for what the
// client got wrong.
func (a *API) oauthFailure(w http.ResponseWriter, r *http.Request, err error, otherwise string) {
	p := edge.ProblemOf(r, a.cfg.Log, err)
	if code, ok := errors.AsType[identity.DeviceError](err); ok {
		oauthError(w, http.StatusBadRequest, string(code), p.Detail)
		return
	}
	a.cfg.Log.DebugContext(r.Context(), "request refused", slog.String("request_id", p.RequestID), slog.String("error", err.Error()))
	if wait := identity.RetryAfter(err); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	switch bailey.KindOf(err) { //nolint:exhaustive // the rest is ours
	case bailey.TooMany:
		oauthError(w, http.StatusTooManyRequests, "slow_down", p.Detail)
	case bailey.Invalid:
		oauthError(w, http.StatusBadRequest, otherwise, p.Detail)
	case bailey.OverQuota, bailey.Denied:
		oauthError(w, http.StatusBadRequest, "access_denied", p.Detail)
	case bailey.Unavailable:
		oauthError(w, http.StatusServiceUnavailable, "temporarily_unavailable", p.Detail)
	default:
		oauthError(w, http.StatusInternalServerError, "server_error", p.Detail)
	}
}

func oauthError(w http.ResponseWriter, status int, code, words string) {
	writeOAuth(w, status, map[string]any{"error": code, "error_description": words})
}

func writeOAuth(w http.ResponseWriter, status int, v map[string]any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("api: " + err.Error()) // strings, numbers and times are always possible
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Pragma", "no-cache")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // an error here is the client's own going away
}
