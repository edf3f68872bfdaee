package console

import (
	"net/http"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/gateway"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
)

func (c *Console) home(w http.ResponseWriter, r *http.Request) error {
	if _, err := c.signedIn(r); err == nil {
		http.Redirect(w, r, "/workspaces", http.StatusSeeOther)
		return nil
	}
	pending, err := c.cfg.Identity.SetupPending(r.Context())
	if err != nil {
		return err
	}
	if pending {
		return c.show(w, r, "waiting", "Not set up yet", nil)
	}
	return errSignIn
}

// signInForm is what the sign-in page keeps between attempts. Open and N name
// the workspace to go to afterwards: a slug and a nonce's hash, never a URL.
type signInForm struct{ Name, Open, N string }

// next is where to go after a sign-in: always a path of ours.
func (f signInForm) next() string {
	if path, ok := gateway.OpenPath(f.Open, f.N); ok {
		return path
	}
	return "/workspaces"
}

func (c *Console) signInPage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	form := signInForm{Open: q.Get("open"), N: q.Get("n")}
	if _, err := c.signedIn(r); err == nil { // in another tab, perhaps
		http.Redirect(w, r, form.next(), http.StatusSeeOther)
		return nil
	}
	return c.showSignIn(w, r, form)
}

func (c *Console) showSignIn(w http.ResponseWriter, r *http.Request, form signInForm) error {
	ask, err := c.cfg.Identity.PasskeyQuestion()
	if err != nil {
		return err
	}
	data := c.signInData(form)
	data.Passkey = string(ask)
	return c.show(w, r, "signin", "Sign in", data)
}

func (c *Console) signIn(w http.ResponseWriter, r *http.Request) error {
	f, err := formOf(r)
	if err != nil {
		return err
	}
	form := signInForm{Name: f.Get("name"), Open: f.Get("open"), N: f.Get("n")}
	grant, _, err := c.cfg.Identity.SignIn(r.Context(), identity.SignInRequest{
		Name: form.Name, Password: secret.New(f.Get("password")),
		IP: edge.ClientIP(r), UserAgent: r.UserAgent(), Cookies: true, Known: c.browsersOf(r),
	})
	if c.nextStep(w, r, err, form) {
		return nil
	}
	if err != nil {
		c.refuse(w, r, err)
		return c.showSignIn(w, r, form)
	}
	c.welcome(w, r, grant)
	http.Redirect(w, r, form.next(), http.StatusSeeOther)
	return nil
}

// setSession sets the console's cookie. It lasts as long as the browser is
// open; the server ends it sooner.
func (c *Console) setSession(w http.ResponseWriter, s secret.Value) {
	http.SetCookie(w, &http.Cookie{
		Name: c.cookie(""), Value: s.Reveal(), Path: "/",
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

func (c *Console) signOut(w http.ResponseWriter, r *http.Request) error {
	if actor, ok := edge.ActorFrom(r.Context()); ok {
		if err := c.cfg.Identity.SignOut(r.Context(), actor); err != nil {
			return err
		}
	}
	http.SetCookie(w, &http.Cookie{
		Name: c.cookie(""), Path: "/", MaxAge: -1,
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	w.Header().Set("Clear-Site-Data", `"cache", "storage"`)
	http.Redirect(w, r, "/signin", http.StatusSeeOther)
	return nil
}

type setupForm struct{ Code, Name string }

func (c *Console) setupPage(w http.ResponseWriter, r *http.Request) error {
	pending, err := c.cfg.Identity.SetupPending(r.Context())
	if err != nil {
		return err
	}
	if !pending {
		return &bailey.Error{Kind: bailey.Conflict, Msg: "this server is set up already", Hint: "sign in, or ask an administrator for an account"}
	}
	return c.show(w, r, "setup", "Set up", setupForm{Name: "admin"})
}

func (c *Console) setup(w http.ResponseWriter, r *http.Request) error {
	f, err := formOf(r)
	if err != nil {
		return err
	}
	form := setupForm{Code: f.Get("code"), Name: f.Get("name")}
	if f.Get("password") != f.Get("again") {
		c.refuse(w, r, errDiffer)
		return c.show(w, r, "setup", "Set up", form)
	}
	grant, _, err := c.cfg.Identity.FinishSetup(r.Context(), secret.New(form.Code), form.Name,
		secret.New(f.Get("password")), edge.ClientIP(r), r.UserAgent())
	if bailey.KindOf(err) == bailey.Conflict && err != nil {
		return err // somebody was faster; there is nothing to fill in again
	}
	if c.nextStep(w, r, err, signInForm{}) {
		return nil
	}
	if err != nil {
		c.refuse(w, r, err)
		return c.show(w, r, "setup", "Set up", form)
	}
	c.welcome(w, r, grant)
	http.Redirect(w, r, "/workspaces", http.StatusSeeOther)
	return nil
}

var errDiffer = &bailey.Error{Kind: bailey.Invalid, Msg: "the two passwords differ", Hint: "type the new one twice, the same"}
