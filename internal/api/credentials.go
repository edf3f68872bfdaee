package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/secret"
)

// authenticate returns who is asking. ok is false when the request carries no
// credential at all, or a cookie that no longer means anything. A token that is
// given must be good: there is no falling back to a cookie.
func (a *API) authenticate(r *http.Request) (actor bailey.Actor, ok bool, err error) {
	ip := edge.ClientIP(r)
	switch given := r.Header["Authorization"]; len(given) {
	case 0:
	case 1:
		scheme, rest, _ := strings.Cut(given[0], " ")
		if !strings.EqualFold(scheme, "bearer") && !strings.EqualFold(scheme, "token") {
			return actor, false, &bailey.Error{Kind: bailey.Unauthenticated, Msg: "this kind of Authorization is not accepted", Hint: tokenHint}
		}
		actor, err = a.cfg.Identity.ByToken(r.Context(), secret.New(strings.TrimSpace(rest)), ip)
		return actor, err == nil, err
	default:
		return actor, false, &bailey.Error{Kind: bailey.Unauthenticated, Msg: "there is more than one Authorization header", Hint: tokenHint}
	}
	cookies := r.CookiesNamed(a.cookie)
	if len(cookies) != 1 { // of two, somebody planted one
		return actor, false, nil
	}
	actor, err = a.cfg.Identity.BySession(r.Context(), secret.New(cookies[0].Value), ip)
	switch {
	case err == nil:
		if err = a.sameOrigin(r); err != nil {
			a.denials.Note(r.Context(), audit.By(actor), audit.Target{Kind: "server", Name: "api"}, audit.ForeignOrigin)
		}
		return actor, true, err
	case bailey.KindOf(err) == bailey.Unauthenticated:
		// A browser's stale cookie must not keep it from signing in again;
		// operations that need an actor refuse.
		return bailey.Actor{}, false, nil
	}
	return bailey.Actor{}, false, err
}

// sameOrigin refuses what a page of another origin caused with our cookie.
// SameSite does not do it: workspaces are the same site. Such a page could not
// read an answer, but it could change things, and make us work.
func (a *API) sameOrigin(r *http.Request) error {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin":
		return nil
	case "none": // typed into the address bar
		if read {
			return nil
		}
	case "": // a client that does not say
		if read || r.Header.Get("Origin") == a.cfg.Origins.Console() {
			return nil
		}
	}
	return &bailey.Error{
		Kind: bailey.Denied,
		Msg:  "this request came from another origin",
		Hint: "programs send an API token instead of the console's cookie",
	}
}

const tokenHint = `send "Authorization: Bearer bly_…"; "bailey login" makes a token`

// need returns the actor, or an error of kind Unauthenticated.
func need(ctx context.Context) (bailey.Actor, error) {
	if a, ok := edge.ActorFrom(ctx); ok {
		return a, nil
	}
	return bailey.Actor{}, &bailey.Error{Kind: bailey.Unauthenticated, Msg: "sign-in needed", Hint: tokenHint}
}
