package console

import (
	"net/http"
	"net/url"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/company"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/secret"
)

// ticketCookie holds, sealed, what ties a provider's answer to this browser. It
// is Lax, not Strict: the provider's page leads back here.
const ticketCookie = "oidc"

// ticketAge is how many seconds a browser keeps it.
const ticketAge = 900

// toProvider sends the browser to an identity provider, to sign in.
func (c *Console) toProvider(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	form := signInForm{Open: q.Get("open"), N: q.Get("n")}
	if _, err := c.signedIn(r); err == nil { // in another tab, perhaps
		http.Redirect(w, r, form.next(), http.StatusSeeOther)
		return nil
	}
	if form.next() == "/workspaces" { // it names no workspace: nothing to carry along
		form = signInForm{}
	}
	return c.depart(w, r, company.Trip{Open: form.Open, N: form.N})
}

// linkProvider sends the browser to an identity provider, to link the account
// that it is signed in to.
func (c *Console) linkProvider(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err == nil {
		err = c.cfg.Identity.Fresh(actor)
	}
	if err != nil {
		return err
	}
	return c.depart(w, r, company.Trip{Link: actor.Session})
}

func (c *Console) depart(w http.ResponseWriter, r *http.Request, trip company.Trip) error {
	// A picture or a frame of somebody's page is no place to begin from.
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" {
		return &bailey.Error{Kind: bailey.Denied, Msg: "a sign-in begins on the sign-in page", Hint: "open " + c.cfg.Origins.Console() + "/signin"}
	}
	to, ticket, err := c.cfg.Company.Begin(r.Context(), r.PathValue("name"), edge.ClientIP(r), trip)
	if err != nil {
		return err
	}
	http.SetCookie(w, &http.Cookie{
		Name: c.cookie(ticketCookie), Value: ticket, Path: "/", MaxAge: ticketAge, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	// Without a body: no page of ours has a link that leads elsewhere.
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// fromProvider is where an identity provider sends the browser back to.
func (c *Console) fromProvider(w http.ResponseWriter, r *http.Request) error {
	ticket := ""
	if cookies := r.CookiesNamed(c.cookie(ticketCookie)); len(cookies) == 1 { // of two, somebody planted one
		ticket = cookies[0].Value
	}
	http.SetCookie(w, &http.Cookie{Name: c.cookie(ticketCookie), Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(r.URL.RawQuery) > 16<<10 {
		return &bailey.Error{Kind: bailey.Invalid, Msg: "the identity provider's answer cannot be read", Hint: "sign in again"}
	}
	actor, _ := edge.ActorFrom(r.Context())
	arrival, err := c.cfg.Company.Finish(r.Context(), r.PathValue("name"), ticket, query, actor, c.where(r))
	form := signInForm{Open: arrival.Trip.Open, N: arrival.Trip.N}
	if asksAgain(err) {
		return err
	}
	if c.nextStep(w, r, err, form) {
		return nil
	}
	if err != nil {
		c.refuse(w, r, err)
		if t := arrival.Trip; t.StepUp != "" && actor.Name != "" {
			return c.showStepUp(w, r, wayBackIn(url.Values{"to": {t.To}, "code_for": {t.Code}, "held": {t.Held}}))
		}
		if actor.Name != "" {
			return c.companyAccount(w, r)
		}
		return c.showSignIn(w, r, form)
	}
	if arrival.Proved {
		t := arrival.Trip
		return c.proved(w, r, actor.Session, wayBackIn(url.Values{"to": {t.To}, "code_for": {t.Code}, "held": {t.Held}}))
	}
	if arrival.Linked {
		http.Redirect(w, r, "/account/company", http.StatusSeeOther)
		return nil
	}
	c.welcome(w, r, arrival.Session)
	http.Redirect(w, r, form.next(), http.StatusSeeOther)
	return nil
}

// providerLogout takes an identity provider's word that sessions ended. It
// carries no cookie and comes from no page: what counts is the signature.
func (c *Console) providerLogout(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	r.Body = http.MaxBytesReader(w, r.Body, 128<<10)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "the form cannot be read", http.StatusBadRequest)
		return
	}
	err := c.cfg.Company.Logout(r.Context(), r.PathValue("name"), r.PostForm.Get("logout_token"), edge.ClientIP(r))
	if err != nil {
		p := c.problem(w, r, err)
		status := http.StatusBadRequest // the standard knows no other
		if p.Status == http.StatusTooManyRequests || p.Status >= http.StatusInternalServerError || p.Status == http.StatusNotFound {
			status = p.Status
		}
		http.Error(w, p.Detail, status)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// companyPage is what the page about company accounts shows.
type companyPage struct {
	Ties                   []bailey.External
	Providers, Directories []company.Choice
	HasPassword            bool
}

func (c *Console) companyAccount(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	ties, err := c.cfg.Identity.Externals(r.Context(), actor, actor.Name)
	if err != nil {
		return err
	}
	viewOf(r.Context()).Section = "account"
	return c.show(w, r, "company", "Company account", companyPage{
		Ties: ties, Providers: c.cfg.Company.Providers(), Directories: c.cfg.Company.Directories(), HasPassword: len(ties) == 0,
	})
}

// linkDirectory links the account by a directory's name and password.
func (c *Console) linkDirectory(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	if _, err := c.cfg.Identity.LinkByPassword(r.Context(), actor, f.Get("login"), secret.New(f.Get("password"))); asksAgain(err) {
		return err
	} else if err != nil {
		c.refuse(w, r, err)
		return c.companyAccount(w, r)
	}
	http.Redirect(w, r, "/account/company", http.StatusSeeOther)
	return nil
}

// signInPageData is what the sign-in page shows.
type signInPageData struct {
	signInForm

	Providers, Directories []company.Choice
	Query                  string // carries the way to a workspace along
	Passkey                string // what an authenticator is asked; empty where passkeys are not possible
}

func (c *Console) signInData(f signInForm) signInPageData {
	q := url.Values{}
	if f.Open != "" {
		q.Set("open", f.Open)
	}
	if f.N != "" {
		q.Set("n", f.N)
	}
	data := signInPageData{signInForm: f, Providers: c.cfg.Company.Providers(), Directories: c.cfg.Company.Directories()}
	if len(q) > 0 {
		data.Query = "?" + q.Encode()
	}
	return data
}
