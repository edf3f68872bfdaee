package api

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
)

// Factor is a second factor without its secret.
type Factor struct {
	ID        string     `json:"id"`
	Kind      string     `json:"kind" enum:"totp,passkey"`
	Name      string     `json:"name"`
	CreatedAt time.Time  `json:"created_at"`
	UsedAt    *time.Time `json:"used_at,omitempty"`
	Cloned    bool       `json:"cloned,omitempty" doc:"A passkey's counter went back: there may be a copy of it"`
}

// Browser is one that somebody is known by.
type Browser struct {
	ID        string    `json:"id"`
	IP        string    `json:"ip" doc:"Of the last sign-in"`
	UserAgent string    `json:"user_agent"`
	CreatedAt time.Time `json:"created_at"`
	SeenAt    time.Time `json:"seen_at"`
}

type factorsOutput struct {
	Body struct {
		Factors       []Factor  `json:"factors" nullable:"false"`
		RecoveryCodes int       `json:"recovery_codes" doc:"How many are left"`
		Required      bool      `json:"required" doc:"Your account may not be without one"`
		Browsers      []Browser `json:"browsers" nullable:"false" doc:"Those that you are known by: strangers who try your name do not lock you out of them"`
	}
}

func factorOf(f bailey.Factor) Factor {
	return Factor{ID: f.ID, Kind: f.Kind, Name: f.Name, CreatedAt: f.CreatedAt, UsedAt: optional(f.UsedAt), Cloned: f.Cloned}
}

func (a *API) listFactors(ctx context.Context, actor bailey.Actor, _ *none) (*factorsOutput, error) {
	v, err := a.cfg.Identity.Factors(ctx, actor)
	if err != nil {
		return nil, err
	}
	browsers, err := a.cfg.Identity.Browsers(ctx, actor)
	if err != nil {
		return nil, err
	}
	out := &factorsOutput{}
	out.Body.Factors = all(v.Factors, factorOf)
	out.Body.Browsers = all(browsers, func(b bailey.Browser) Browser {
		return Browser{ID: b.ID, IP: b.IP, UserAgent: b.UserAgent, CreatedAt: b.CreatedAt, SeenAt: b.SeenAt}
	})
	out.Body.RecoveryCodes, out.Body.Required = v.Codes, v.Required
	return out, nil
}

type offerOutput struct {
	Body struct {
		Secret string `json:"secret" doc:"For typing into an app"`
		URI    string `json:"uri" doc:"The same, for a picture to scan (otpauth)"`
		Note   string `json:"note" doc:"Comes back with the first code, within ten minutes"`
	}
}

func (a *API) offerFactor(ctx context.Context, actor bailey.Actor, _ *none) (*offerOutput, error) {
	o, err := a.cfg.Identity.OfferFactor(ctx, actor, "")
	if err != nil {
		return nil, err
	}
	out := &offerOutput{}
	out.Body.Secret, out.Body.URI, out.Body.Note = o.Secret.Reveal(), o.URI, o.Note
	return out, nil
}

type addFactorInput struct {
	Body struct {
		Name string `json:"name,omitempty" maxLength:"64"`
		Note string `json:"note" maxLength:"1024" doc:"Of the offer"`
		Code string `json:"code" maxLength:"16" doc:"That the app shows now"`
	}
}

type codesOutput struct {
	Body struct {
		RecoveryCodes []string `json:"recovery_codes" nullable:"false" doc:"Shown this once. With the first factor there are ten"`
	}
}

func codesOf(codes []secret.Value) *codesOutput {
	out := &codesOutput{}
	out.Body.RecoveryCodes = all(codes, secret.Value.Reveal)
	return out
}

func (a *API) addFactor(ctx context.Context, actor bailey.Actor, in *addFactorInput) (*codesOutput, error) {
	codes, err := a.cfg.Identity.AddFactor(ctx, actor, identity.NewFactor{Name: in.Body.Name, Note: in.Body.Note, Code: secret.New(in.Body.Code)})
	if err != nil {
		return nil, err
	}
	return codesOf(codes), nil
}

func (a *API) newRecoveryCodes(ctx context.Context, actor bailey.Actor, _ *none) (*codesOutput, error) {
	codes, err := a.cfg.Identity.NewRecoveryCodes(ctx, actor)
	if err != nil {
		return nil, err
	}
	return codesOf(codes), nil
}

func (a *API) removeFactor(ctx context.Context, actor bailey.Actor, in *IDInput) (*none, error) {
	return nil, a.cfg.Identity.RemoveFactor(ctx, actor, in.ID)
}

func (a *API) forgetBrowser(ctx context.Context, actor bailey.Actor, in *IDInput) (*none, error) {
	return nil, a.cfg.Identity.ForgetBrowser(ctx, actor, in.ID)
}

type stepUpInput struct {
	Body struct {
		Password string `json:"password,omitempty" maxLength:"4096" doc:"For accounts without a second factor"`
		TOTP     string `json:"totp,omitempty" maxLength:"16" doc:"Code of an authenticator app"`
		Recovery string `json:"recovery_code,omitempty" maxLength:"64"`
	}
}

func (a *API) stepUp(ctx context.Context, actor bailey.Actor, in *stepUpInput) (*none, error) {
	r := requestOf(ctx)
	return nil, a.cfg.Identity.StepUp(ctx, actor, identity.StepUpAnswer{
		FactorAnswer: identity.FactorAnswer{Code: secret.New(in.Body.TOTP), Recovery: secret.New(in.Body.Recovery)},
		Password:     secret.New(in.Body.Password),
	}, identity.Where{IP: edge.ClientIP(r), UserAgent: r.UserAgent()})
}

type userFactorsOutput struct {
	Body struct {
		Factors       []Factor `json:"factors" nullable:"false"`
		RecoveryCodes int      `json:"recovery_codes" doc:"How many are left"`
		Required      bool     `json:"required" doc:"The account may not be without one"`
	}
}

func (a *API) listUserFactors(ctx context.Context, actor bailey.Actor, in *NameInput) (*userFactorsOutput, error) {
	v, err := a.cfg.Identity.FactorsOf(ctx, actor, in.Name)
	if err != nil {
		return nil, err
	}
	out := &userFactorsOutput{}
	out.Body.Factors, out.Body.RecoveryCodes, out.Body.Required = all(v.Factors, factorOf), v.Codes, v.Required
	return out, nil
}

func (a *API) resetFactors(ctx context.Context, actor bailey.Actor, in *NameInput) (*none, error) {
	return nil, a.cfg.Identity.ResetFactors(ctx, actor, in.Name)
}
