package console

import (
	"net/http"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
)

type accountData struct {
	Factors  identity.FactorView
	Devices  []bailey.Device
	Notices  []bailey.Notice
	User     bailey.User
	Sessions []bailey.Session
	Tokens   []bailey.Token
	NewToken string // shown this once
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
	if d.Factors, err = c.cfg.Identity.Factors(r.Context(), actor); err != nil {
		return err
	}
	if d.Devices, err = c.cfg.Identity.Devices(r.Context(), actor); err != nil {
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
	grant, err := c.cfg.Identity.CreateToken(r.Context(), actor, f.Get("note"), 0)
	if bailey.KindOf(err) == bailey.StepUp && err != nil {
		return err
	}
	if err != nil {
		c.refuse(w, r, err)
		return c.account(w, r)
	}
	return c.accountWith(w, r, grant.Secret.Reveal())
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
