package console

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/secret"
)

type accountData struct {
	Factors  identity.FactorView
	Browsers []bailey.Browser
	Notices  []bailey.Notice
	User     bailey.User
	Sessions []bailey.Session
	Tokens   []bailey.Token
	SSH      sshData
	NewToken string         // shown this once
	Scopes   []bailey.Scope // those that a token of this user can have
	Events   []audit.Event
}

// maxMine is how many events about oneself the page shows; the API has all.
const maxMine = 20

// An auditReader answers questions about the journal; the one of a server does.
type auditReader interface {
	Search(ctx context.Context, f audit.Filter) ([]audit.Event, error)
}

// mine returns the newest events about the actor and their workspaces.
func (c *Console) mine(ctx context.Context, actor bailey.Actor) ([]audit.Event, error) {
	log, ok := c.cfg.Audit.(auditReader)
	if !ok {
		return nil, nil
	}
	about := []string{actor.UserID}
	list, err := c.cfg.Workspaces.List(ctx, actor, false)
	if err != nil {
		return nil, err
	}
	for _, ws := range list {
		about = append(about, ws.ID)
	}
	events, err := log.Search(ctx, audit.Filter{About: about, Limit: maxMine})
	slices.Reverse(events)
	for i := range events {
		events[i] = audit.ForOwner(events[i], actor.UserID)
	}
	return events, err
}

func (c *Console) account(w http.ResponseWriter, r *http.Request) error {
	return c.accountWith(w, r, "")
}

func (c *Console) accountWith(w http.ResponseWriter, r *http.Request, newToken string) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	d := accountData{NewToken: newToken}
	if d.User, err = c.cfg.Identity.Me(r.Context(), actor); err != nil {
		return err
	}
	for _, scope := range bailey.Scopes() {
		if policy.Fits(d.User, scope) {
			d.Scopes = append(d.Scopes, scope)
		}
	}
	if d.Factors, err = c.cfg.Identity.Factors(r.Context(), actor); err != nil {
		return err
	}
	if d.Browsers, err = c.cfg.Identity.Browsers(r.Context(), actor); err != nil {
		return err
	}
	if d.Notices, err = c.cfg.Identity.Notices(r.Context(), actor); err != nil {
		return err
	}
	if d.Sessions, err = c.cfg.Identity.Sessions(r.Context(), actor); err != nil {
		return err
	}
	if d.Tokens, err = c.cfg.Identity.Tokens(r.Context(), actor); err != nil {
		return err
	}
	if d.Events, err = c.mine(r.Context(), actor); err != nil {
		return err
	}
	if d.SSH, err = c.sshDataOf(r.Context(), actor); err != nil {
		return err
	}
	return c.show(w, r, "account", "Account", d)
}

func (c *Console) password(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	if f.Get("new") != f.Get("again") {
		c.refuse(w, r, errDiffer)
		return c.account(w, r)
	}
	err = c.cfg.Identity.ChangePassword(r.Context(), actor, secret.New(f.Get("old")), secret.New(f.Get("new")))
	if err != nil {
		c.refuse(w, r, err)
		return c.account(w, r)
	}
	viewOf(r.Context()).Notice = "Your password is changed. Your other browsers are signed out."
	return c.account(w, r)
}

func (c *Console) endSession(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	if err := c.cfg.Identity.EndSession(r.Context(), actor, r.PathValue("id")); err != nil {
		return err
	}
	http.Redirect(w, r, "/account", http.StatusSeeOther)
	return nil
}

func (c *Console) newToken(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	grant, err := c.cfg.Identity.CreateToken(r.Context(), actor, identity.TokenRequest{
		Note: f.Get("note"), Lifetime: days(f.Get("days")), Scopes: scopesOf(f["scope"]), Networks: strings.Fields(f.Get("networks")),
	})
	if asksAgain(err) {
		return err
	}
	if err != nil {
		c.refuse(w, r, err)
		return c.account(w, r)
	}
	return c.accountWith(w, r, grant.Secret.Reveal())
}

// days reads a number of days; what is none is left to identity to refuse.
func days(text string) time.Duration {
	n, err := strconv.Atoi(text)
	if text != "" && (err != nil || n < 1 || n > 400) {
		return -1
	}
	return time.Duration(n) * 24 * time.Hour
}

func scopesOf(names []string) (scopes []bailey.Scope) {
	for _, n := range names {
		scopes = append(scopes, bailey.Scope(n))
	}
	return scopes
}

// endEverything ends all access of who asks, this browser included.
func (c *Console) endEverything(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	if err := c.cfg.Identity.EndEverything(r.Context(), actor); err != nil {
		return err
	}
	http.Redirect(w, r, "/signin", http.StatusSeeOther)
	return nil
}

func (c *Console) revokeToken(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	if err := c.cfg.Identity.RevokeToken(r.Context(), actor, r.PathValue("id")); err != nil {
		return err
	}
	http.Redirect(w, r, "/account", http.StatusSeeOther)
	return nil
}
