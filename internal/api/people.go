package api

import (
	"context"
	"net/http"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
)

func (a *API) sessionRoutes() {
	registerPublic(a, op(http.MethodGet, "/info", "info", "What this server is", "session"), a.info)
	registerPublic(a, op(http.MethodPost, "/tokens/signin", "signInForToken", "Name and password for an API token", "session"), a.signInForToken)
	register(a, withStatus(op(http.MethodPost, "/me/stepup", "stepUp", "Prove again who you are, for what takes a fresh proof", "session"), http.StatusNoContent), a.stepUp)
	register(a, op(http.MethodGet, "/me/factors", "listFactors", "Your second factors and known browsers", "session"), a.listFactors)
	register(a, op(http.MethodPost, "/me/factors/offer", "offerFactor", "Begin to set up an authenticator app", "session"), a.offerFactor)
	register(a, withStatus(op(http.MethodPost, "/me/factors", "addFactor", "Set up the app that was offered, by its first code; ends your other sessions", "session"), http.StatusCreated), a.addFactor)
	register(a, op(http.MethodPost, "/me/recovery-codes", "newRecoveryCodes", "Make recovery codes anew; the old ones are void", "session"), a.newRecoveryCodes)
	register(a, withStatus(op(http.MethodDelete, "/me/factors/{id}", "removeFactor", "Remove one of your second factors; ends your other sessions", "session"), http.StatusNoContent), a.removeFactor)
	register(a, withStatus(op(http.MethodDelete, "/me/browsers/{id}", "forgetBrowser", "Make a browser a stranger again", "session"), http.StatusNoContent), a.forgetBrowser)
	register(a, op(http.MethodGet, "/me", "me", "Your account", "session"), a.me)
	register(a, withStatus(op(http.MethodPost, "/me/password", "changePassword", "Change your password; ends your other sessions", "session"), http.StatusNoContent), a.changePassword)
	register(a, op(http.MethodGet, "/me/sessions", "listSessions", "Your browsers", "session"), a.listSessions)
	register(a, withStatus(op(http.MethodDelete, "/me/sessions/{id}", "endSession", "Sign one of your browsers out", "session"), http.StatusNoContent), a.endSession)
	register(a, withStatus(op(http.MethodPost, "/me/end", "endEverything", "End all of your access: sessions, tokens, open connections", "session"), http.StatusNoContent), a.endEverything)
	register(a, op(http.MethodGet, "/me/events", "myEvents", "What was done by you and to what is yours", "session"), a.myEvents)
	register(a, op(http.MethodGet, "/me/tokens", "listTokens", "Your API tokens", "session"), a.listTokens)
	register(a, op(http.MethodPost, "/me/tokens", "createToken", "Make an API token", "session"), a.createToken)
	register(a, withStatus(op(http.MethodDelete, "/me/tokens/{id}", "revokeToken", "Void an API token", "session"), http.StatusNoContent), a.revokeToken)
}

type infoOutput struct {
	Body struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Console string `json:"console" doc:"The console's origin"`
	}
}

func (a *API) info(context.Context, *none) (*infoOutput, error) {
	out := &infoOutput{}
	out.Body.Name, out.Body.Version, out.Body.Console = "bailey", bailey.Version, a.cfg.Origins.Console()
	return out, nil
}

type signInInput struct {
	Body struct {
		User     string `json:"user" maxLength:"256"`
		Password string `json:"password" maxLength:"4096"`
		TOTP     string `json:"totp,omitempty" maxLength:"16" doc:"Code of an authenticator app, for accounts that have a second factor"`
		Recovery string `json:"recovery_code,omitempty" maxLength:"64" doc:"A recovery code in place of totp"`
		Note     string `json:"note,omitempty" maxLength:"64" doc:"What the token is for"`
		Days     int    `json:"days,omitempty" minimum:"0" maximum:"365" doc:"Lifetime; 0 means 90"`

		Scopes []string `json:"scopes,omitempty" nullable:"false" maxItems:"16" doc:"What the token is for; none: everything"`
	}
}

type newTokenOutput struct{ Body NewToken }

func (a *API) signInForToken(ctx context.Context, in *signInInput) (*newTokenOutput, error) {
	r := requestOf(ctx)
	grant, user, err := a.cfg.Identity.SignInForToken(ctx, identity.SignInRequest{
		Name: in.Body.User, Password: secret.New(in.Body.Password), IP: edge.ClientIP(r), UserAgent: r.UserAgent(),
		Factor: identity.FactorAnswer{Code: secret.New(in.Body.TOTP), Recovery: secret.New(in.Body.Recovery)},
	}, in.Body.Note, time.Duration(in.Body.Days)*24*time.Hour, scopesOf(in.Body.Scopes)...)
	if err != nil {
		return nil, err
	}
	return &newTokenOutput{Body: newToken(grant, user.Name)}, nil
}

func newToken(g identity.Grant[bailey.Token], user string) NewToken {
	return NewToken{
		Token: g.Secret.Reveal(), ID: g.Row.ID, Note: g.Row.Note, Expiry: g.Row.ExpiresAt, User: user,
		Scopes: namesOf(g.Row.Scopes), Workspaces: g.Row.Workspaces, Networks: g.Row.Networks,
	}
}

type userOutput struct{ Body User }

func (a *API) me(ctx context.Context, actor bailey.Actor, _ *none) (*userOutput, error) {
	u, err := a.cfg.Identity.Me(ctx, actor)
	if err != nil {
		return nil, err
	}
	return &userOutput{Body: userOf(u)}, nil
}

type changePasswordInput struct {
	Body struct {
		Old string `json:"old" maxLength:"4096"`
		New string `json:"new" maxLength:"4096"`
	}
}

func (a *API) changePassword(ctx context.Context, actor bailey.Actor, in *changePasswordInput) (*none, error) {
	return nil, a.cfg.Identity.ChangePassword(ctx, actor, secret.New(in.Body.Old), secret.New(in.Body.New))
}

type sessionsOutput struct {
	Body struct {
		Sessions []Session `json:"sessions" nullable:"false"`
	}
}

func (a *API) listSessions(ctx context.Context, actor bailey.Actor, _ *none) (*sessionsOutput, error) {
	list, err := a.cfg.Identity.Sessions(ctx, actor)
	if err != nil {
		return nil, err
	}
	out := &sessionsOutput{}
	out.Body.Sessions = all(list, func(s bailey.Session) Session { return sessionOf(s, actor.Session) })
	return out, nil
}

// IDInput is an id in the path.
type IDInput struct {
	ID string `path:"id" maxLength:"64"`
}

func (a *API) endSession(ctx context.Context, actor bailey.Actor, in *IDInput) (*none, error) {
	return nil, a.cfg.Identity.EndSession(ctx, actor, in.ID)
}

type tokensOutput struct {
	Body struct {
		Tokens []Token `json:"tokens" nullable:"false"`
	}
}

func (a *API) listTokens(ctx context.Context, actor bailey.Actor, _ *none) (*tokensOutput, error) {
	list, err := a.cfg.Identity.Tokens(ctx, actor)
	if err != nil {
		return nil, err
	}
	out := &tokensOutput{}
	out.Body.Tokens = all(list, func(t bailey.Token) Token {
		row := tokenOf(t)
		row.Current = actor.Method == "token" && t.ID == actor.Session
		return row
	})
	return out, nil
}

type createTokenInput struct {
	Body struct {
		Note       string   `json:"note" maxLength:"64"`
		Days       int      `json:"days,omitempty" minimum:"0" maximum:"365" doc:"Lifetime; 0 means 90"`
		Scopes     []string `json:"scopes,omitempty" nullable:"false" maxItems:"16" doc:"What it is for; none: everything, or what the token that makes it is for"`
		Workspaces []string `json:"workspaces,omitempty" nullable:"false" maxItems:"64" doc:"Ids of the only workspaces it is for; none: all"`
		Networks   []string `json:"networks,omitempty" nullable:"false" maxItems:"64" doc:"CIDRs or addresses it may be used from; none: everywhere"`
	}
}

func (in *createTokenInput) request() identity.TokenRequest {
	return identity.TokenRequest{
		Note: in.Body.Note, Lifetime: time.Duration(in.Body.Days) * 24 * time.Hour, Scopes: scopesOf(in.Body.Scopes),
		Workspaces: in.Body.Workspaces, Networks: in.Body.Networks,
	}
}

func scopesOf(names []string) []bailey.Scope {
	return all(names, func(s string) bailey.Scope { return bailey.Scope(s) })
}

func (a *API) createToken(ctx context.Context, actor bailey.Actor, in *createTokenInput) (*newTokenOutput, error) {
	grant, err := a.cfg.Identity.CreateToken(ctx, actor, in.request())
	if err != nil {
		return nil, err
	}
	return &newTokenOutput{Body: newToken(grant, actor.Name)}, nil
}

func (a *API) revokeToken(ctx context.Context, actor bailey.Actor, in *IDInput) (*none, error) {
	return nil, a.cfg.Identity.RevokeToken(ctx, actor, in.ID)
}

func (a *API) endEverything(ctx context.Context, actor bailey.Actor, _ *none) (*none, error) {
	return nil, a.cfg.Identity.EndEverything(ctx, actor)
}
