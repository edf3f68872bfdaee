package console

import (
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/company"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
)

const (
	stepCookie    = "step"  // of a sign-in that is not finished
	browserCookie = "known" // by which this browser is known
	stepAge       = 600
	browserAge    = 180 * 24 * 3600
)

// cookie returns the full name of one of our cookies.
func (c *Console) cookie(kind string) string { return c.cfg.Origins.Cookie(kind) }

func setCookie(w http.ResponseWriter, name, value string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: age, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// onlyCookie returns the value of a cookie that was sent once: of two, somebody
// planted one.
func onlyCookie(r *http.Request, name string) string {
	if cookies := r.CookiesNamed(name); len(cookies) == 1 {
		return cookies[0].Value
	}
	return ""
}

func (c *Console) browsersOf(r *http.Request) []secret.Value {
	return identity.BrowserSecrets(onlyCookie(r, c.cookie(browserCookie)))
}

func (c *Console) where(r *http.Request) identity.Where {
	return identity.Where{IP: edge.ClientIP(r), UserAgent: r.UserAgent(), Cookies: true, Known: c.browsersOf(r)}
}

// welcome sets the cookies of a fresh session.
func (c *Console) welcome(w http.ResponseWriter, r *http.Request, g identity.Grant[bailey.Session]) {
	c.setSession(w, g.Secret)
	if onlyCookie(r, c.cookie(stepCookie)) != "" {
		setCookie(w, c.cookie(stepCookie), "", -1)
	}
	if !g.Browser.Empty() {
		setCookie(w, c.cookie(browserCookie), identity.BrowserCookie(append([]secret.Value{g.Browser}, c.browsersOf(r)...)), browserAge)
	}
}

// nextStep sends a browser whose sign-in is right so far to what is next. It
// reports whether it did.
func (c *Console) nextStep(w http.ResponseWriter, r *http.Request, err error, form signInForm) bool {
	step, ok := errors.AsType[*identity.StepError](err)
	if !ok || step.Ticket.Empty() {
		return false
	}
	setCookie(w, c.cookie(stepCookie), step.Ticket.Reveal(), stepAge)
	to := "/signin/step"
	if form.Open != "" {
		to += "?" + url.Values{"open": {form.Open}, "n": {form.N}}.Encode()
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return true
}

// A stepData is a page between the password and the session.
type stepData struct {
	identity.StepInfo

	Form  signInForm
	Offer *offerData
}

type offerData struct {
	identity.Offer

	Picture template.HTML
	Action  string
	Cancel  string
	Called  string // what the app was called in a form that did not do
}

func newOffer(r *http.Request, o identity.Offer, action, cancel string) *offerData {
	return &offerData{Offer: o, Called: edge.Printable(r.PostFormValue("name"), 64), Picture: template.HTML(o.Picture), Action: action, Cancel: cancel} //nolint:gosec // drawn by totp, of squares
}

func (c *Console) stepOf(r *http.Request) secret.Value {
	return secret.New(onlyCookie(r, c.cookie(stepCookie)))
}

func (c *Console) step(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	return c.showStep(w, r, signInForm{Open: q.Get("open"), N: q.Get("n")}, "")
}

// showStep shows what is next of an unfinished sign-in. When that is over, the
// sign-in page says so. note is of an offer that was made before, or empty.
func (c *Console) showStep(w http.ResponseWriter, r *http.Request, form signInForm, note string) error {
	d := stepData{Form: form}
	var err error
	if d.StepInfo, err = c.cfg.Identity.NextStep(r.Context(), c.stepOf(r), c.where(r)); err != nil {
		return c.over(w, r, err, form)
	}
	switch d.Step {
	case identity.StepFactor:
		return c.show(w, r, "second", "Second step", d)
	case identity.StepEnrol:
		o, err := c.cfg.Identity.OfferFactorAt(r.Context(), c.stepOf(r), note, c.where(r))
		if err != nil {
			return c.over(w, r, err, form)
		}
		d.Offer = newOffer(r, o, "/signin/enrol", "/signin")
		return c.show(w, r, "enrol", "Set up a second factor", d)
	case identity.StepPassword:
		return c.show(w, r, "newpassword", "Choose a new password", d)
	}
	return c.over(w, r, &bailey.Error{Kind: bailey.Unauthenticated, Msg: "this sign-in is over", Hint: "sign in again"}, form)
}

// over goes back to the beginning when a sign-in cannot go on.
func (c *Console) over(w http.ResponseWriter, r *http.Request, err error, form signInForm) error {
	if bailey.KindOf(err) != bailey.Unauthenticated {
		return err
	}
	setCookie(w, c.cookie(stepCookie), "", -1)
	c.refuse(w, r, err)
	return c.showSignIn(w, r, form)
}

// arrived finishes a step: with a session, the next step, or what was wrong.
func (c *Console) arrived(w http.ResponseWriter, r *http.Request, grant identity.Grant[bailey.Session], err error, form signInForm, note string) error {
	if step, ok := errors.AsType[*identity.StepError](err); ok && !step.Ticket.Empty() {
		return c.showStep(w, r, form, note)
	}
	if err != nil {
		c.refuse(w, r, err)
		if _, gone := c.cfg.Identity.NextStep(r.Context(), c.stepOf(r), c.where(r)); gone != nil {
			return c.over(w, r, err, form)
		}
		return c.showStep(w, r, form, note)
	}
	c.welcome(w, r, grant)
	http.Redirect(w, r, form.next(), http.StatusSeeOther)
	return nil
}

func (c *Console) answerFactor(w http.ResponseWriter, r *http.Request) error {
	f, err := formOf(r)
	if err != nil {
		return err
	}
	form := signInForm{Open: f.Get("open"), N: f.Get("n")}
	grant, _, err := c.cfg.Identity.AnswerFactor(r.Context(), c.stepOf(r), answerOf(f), c.where(r))
	return c.arrived(w, r, grant, err, form, "")
}

// answerOf reads a second factor. In the one field for codes, six digits are an
// app's and anything else is a recovery code.
func answerOf(f url.Values) identity.FactorAnswer {
	if key := f.Get("passkey"); key != "" {
		return identity.FactorAnswer{Passkey: []byte(key)}
	}
	code := strings.TrimSpace(f.Get("code"))
	if digits := strings.ReplaceAll(code, " ", ""); len(digits) > 8 {
		return identity.FactorAnswer{Recovery: secret.New(code)}
	}
	if code == "" {
		code = "-" // a try like any other, and wrong
	}
	return identity.FactorAnswer{Code: secret.New(code)}
}

func (c *Console) signInPasskey(w http.ResponseWriter, r *http.Request) error {
	f, err := formOf(r)
	if err != nil {
		return err
	}
	form := signInForm{Open: f.Get("open"), N: f.Get("n")}
	grant, _, err := c.cfg.Identity.SignInWithPasskey(r.Context(), []byte(f.Get("passkey")), c.where(r))
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

func newFactorOf(f url.Values) identity.NewFactor {
	return identity.NewFactor{
		Name: f.Get("name"), Note: f.Get("note"), Code: secret.New(strings.TrimSpace(f.Get("code"))), Passkey: []byte(f.Get("passkey")),
	}
}

// codesData is the page with fresh recovery codes, shown once.
type codesData struct {
	Codes []string
	Next  string
}

func (c *Console) showCodes(w http.ResponseWriter, r *http.Request, codes []secret.Value, next string) error {
	d := codesData{Next: next}
	for _, code := range codes {
		d.Codes = append(d.Codes, code.Reveal())
	}
	return c.show(w, r, "codes", "Recovery codes", d)
}

func (c *Console) answerEnrol(w http.ResponseWriter, r *http.Request) error {
	f, err := formOf(r)
	if err != nil {
		return err
	}
	form := signInForm{Open: f.Get("open"), N: f.Get("n")}
	grant, codes, err := c.cfg.Identity.AddFactorAt(r.Context(), c.stepOf(r), newFactorOf(f), c.where(r))
	if err != nil || len(codes) == 0 {
		return c.arrived(w, r, grant, err, form, f.Get("note"))
	}
	c.welcome(w, r, grant)
	return c.showCodes(w, r, codes, form.next())
}

func (c *Console) answerPassword(w http.ResponseWriter, r *http.Request) error {
	f, err := formOf(r)
	if err != nil {
		return err
	}
	form := signInForm{Open: f.Get("open"), N: f.Get("n")}
	if f.Get("new") != f.Get("again") {
		c.refuse(w, r, errDiffer)
		return c.showStep(w, r, form, "")
	}
	grant, _, err := c.cfg.Identity.AnswerPassword(r.Context(), c.stepOf(r), secret.New(f.Get("new")), c.where(r))
	return c.arrived(w, r, grant, err, form, "")
}

// asksAgain reports whether an error asks for a fresh proof; fail leads to it.
func asksAgain(err error) bool { return err != nil && bailey.KindOf(err) == bailey.StepUp }

// A wayBack is where a proof of identity leads back to: the name of a page and,
// of some, a code of ours. It is never an address that somebody else wrote.
type wayBack struct {
	To, Code string
	Held     string // the form that waits; empty: none
}

// wayBackTo names the page that a refused request belongs to.
func wayBackTo(r *http.Request) wayBack {
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, "/admin"):
		return wayBack{To: "admin"}
	case path == "/account/factors":
		return wayBack{To: "factors"}
	case strings.HasPrefix(path, "/account/company"), path == "/account/link":
		return wayBack{To: "company"}
	case strings.HasPrefix(path, "/groups"):
		return wayBack{To: "groups"}
	case strings.HasPrefix(path, "/images"):
		return wayBack{To: "images"}
	case strings.HasPrefix(path, "/network"):
		return wayBack{To: "network"}
	case strings.HasPrefix(path, "/device"):
		return wayBack{To: "device", Code: codeIn(r.FormValue("user_code"))}
	case strings.HasPrefix(path, "/ssh/"):
		return wayBack{To: "ssh", Code: codeIn(r.PathValue("code"))}
	}
	return wayBack{To: "account"}
}

// codeIn returns a code of ours: letters, digits and a dash, or nothing.
func codeIn(text string) string {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-"
	if len(text) > 9 || strings.Trim(text, letters) != "" {
		return ""
	}
	return text
}

func wayBackIn(q url.Values) wayBack {
	b := wayBack{To: q.Get("to"), Code: codeIn(q.Get("code_for"))}
	if id := q.Get("held"); isHeld(id) {
		b.Held = id
	}
	return b
}

// path is the address of the page: always one of ours.
func (b wayBack) path() string {
	switch b.To {
	case "admin", "groups", "device", "images", "network":
		if b.To == "device" && b.Code != "" {
			return "/device?" + url.Values{"user_code": {b.Code}}.Encode()
		}
		return "/" + b.To
	case "factors", "company":
		return "/account/" + b.To
	case "ssh":
		if b.Code != "" {
			return "/ssh/" + b.Code
		}
	}
	return "/account"
}

func (b wayBack) query() string {
	q := url.Values{"to": {b.To}, "code_for": {b.Code}}
	if b.Held != "" {
		q.Set("held", b.Held)
	}
	return q.Encode()
}

type stepUpData struct {
	identity.StepUpInfo

	Back    wayBack
	Company []company.Choice // providers where they can prove it
}

func (c *Console) stepUpPage(w http.ResponseWriter, r *http.Request) error {
	return c.showStepUp(w, r, wayBackIn(r.URL.Query()))
}

func (c *Console) showStepUp(w http.ResponseWriter, r *http.Request, back wayBack) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	d := stepUpData{Back: back}
	if d.StepUpInfo, err = c.cfg.Identity.StepUpQuestion(r.Context(), actor); err != nil {
		return err
	}
	for _, p := range c.cfg.Company.Providers() {
		if slices.Contains(d.Sources, "oidc:"+p.Name) {
			d.Company = append(d.Company, p)
		}
	}
	return c.show(w, r, "stepup", "Confirm that it is you", d)
}

func (c *Console) stepUp(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	answer := identity.StepUpAnswer{Password: secret.New(f.Get("password"))}
	if f.Get("passkey") != "" || f.Has("code") {
		answer.FactorAnswer = answerOf(f)
	}
	if err := c.cfg.Identity.StepUp(r.Context(), actor, answer, c.where(r)); err != nil {
		c.refuse(w, r, err)
		return c.showStepUp(w, r, wayBackIn(f))
	}
	return c.proved(w, r, actor.Session, wayBackIn(f))
}

// stepUpAtProvider sends the browser to the identity provider that knows the
// actor, to be asked there who they are, whatever session there is.
func (c *Console) stepUpAtProvider(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	back := wayBackIn(r.URL.Query())
	return c.depart(w, r, company.Trip{StepUp: actor.Session, To: back.To, Code: back.Code, Held: back.Held})
}
