package console

import (
	"net/http"

	"github.com/baileyhq/bailey"
)

func (c *Console) newFactorPage(w http.ResponseWriter, r *http.Request) error {
	return c.showNewFactor(w, r, "")
}

// showNewFactor shows what an app is to be given; with a note, the same again.
func (c *Console) showNewFactor(w http.ResponseWriter, r *http.Request, note string) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	o, err := c.cfg.Identity.OfferFactor(r.Context(), actor, note)
	if err != nil {
		return err
	}
	viewOf(r.Context()).Section = "account"
	return c.show(w, r, "enrol", "Set up a second factor", stepData{Offer: newOffer(r, o, "/account/factors", "/account")})
}

func (c *Console) newFactor(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	codes, err := c.cfg.Identity.AddFactor(r.Context(), actor, newFactorOf(f))
	switch {
	case asksAgain(err):
		return err
	case err != nil:
		c.refuse(w, r, err)
		return c.showNewFactor(w, r, f.Get("note"))
	case len(codes) > 0:
		viewOf(r.Context()).Section = "account"
		return c.showCodes(w, r, codes, "/account")
	}
	http.Redirect(w, r, "/account", http.StatusSeeOther)
	return nil
}

// changeAccount does one thing to the actor's account and goes back to its page.
func (c *Console) changeAccount(w http.ResponseWriter, r *http.Request, do func(actor bailey.Actor) error) error {
	actor, err := c.signedIn(r)
	if err == nil {
		err = do(actor)
	}
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/account", http.StatusSeeOther)
	return nil
}

func (c *Console) renameFactor(w http.ResponseWriter, r *http.Request) error {
	f, err := formOf(r)
	if err != nil {
		return err
	}
	return c.changeAccount(w, r, func(a bailey.Actor) error {
		return c.cfg.Identity.RenameFactor(r.Context(), a, r.PathValue("id"), f.Get("name"))
	})
}

func (c *Console) removeFactor(w http.ResponseWriter, r *http.Request) error {
	return c.changeAccount(w, r, func(a bailey.Actor) error { return c.cfg.Identity.RemoveFactor(r.Context(), a, r.PathValue("id")) })
}

func (c *Console) forgetBrowser(w http.ResponseWriter, r *http.Request) error {
	return c.changeAccount(w, r, func(a bailey.Actor) error { return c.cfg.Identity.ForgetBrowser(r.Context(), a, r.PathValue("id")) })
}

func (c *Console) putAwayNotices(w http.ResponseWriter, r *http.Request) error {
	return c.changeAccount(w, r, func(a bailey.Actor) error { return c.cfg.Identity.PutAwayNotices(r.Context(), a) })
}

func (c *Console) newCodes(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	codes, err := c.cfg.Identity.NewRecoveryCodes(r.Context(), actor)
	if err != nil {
		return err
	}
	viewOf(r.Context()).Section = "account"
	return c.showCodes(w, r, codes, "/account")
}

func (c *Console) resetFactors(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	if err := c.cfg.Identity.ResetFactors(r.Context(), actor, r.PathValue("name")); err != nil {
		return err
	}
	http.Redirect(w, r, "/admin", http.StatusSeeOther)
	return nil
}

// noticeWords says in words what the owner of an account is told.
func noticeWords(n bailey.Notice) string {
	switch n.What {
	case "factor_added":
		return "The second factor “" + n.Detail + "” was added."
	case "factor_removed":
		return "The second factor “" + n.Detail + "” was removed."
	case "factors_reset":
		return "The administrator " + n.Detail + " removed all your second factors, and signed you out everywhere."
	case "recovery_used":
		return "A recovery code was used from " + n.Detail + "."
	case "passkey_cloned":
		return "The counter of the passkey “" + n.Detail + "” went back: there may be a copy of it. Remove it if you cannot explain that."
	case "password_reset":
		return "The administrator " + n.Detail + " set a new password for you."
	}
	return n.What
}
