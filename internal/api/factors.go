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

// Device is a browser that somebody is known by.
type Device struct {
	ID        string    `json:"id"`
	IP        string    `json:"ip" doc:"Of the last sign-in"`
	UserAgent string    `json:"user_agent"`
	CreatedAt time.Time `json:"created_at"`
	SeenAt    time.Time `json:"seen_at"`
}

type factorsOutput struct {
	Body struct {
		Factors       []Factor `json:"factors" nullable:"false"`
		RecoveryCodes int      `json:"recovery_codes" doc:"How many are left"`
		Required      bool     `json:"required" doc:"Your account may not be without one"`
		Devices       []Device `json:"devices" nullable:"false"`
	}
}

func (a *API) listFactors(ctx context.Context, actor bailey.Actor, _ *none) (*factorsOutput, error) {
	v, err := a.cfg.Identity.Factors(ctx, actor)
	if err != nil {
		return nil, err
	}
	devices, err := a.cfg.Identity.Devices(ctx, actor)
	if err != nil {
		return nil, err
	}
	out := &factorsOutput{}
	out.Body.Factors = all(v.Factors, func(f bailey.Factor) Factor {
		return Factor{ID: f.ID, Kind: f.Kind, Name: f.Name, CreatedAt: f.CreatedAt, UsedAt: optional(f.UsedAt), Cloned: f.Cloned}
	})
	out.Body.Devices = all(devices, func(d bailey.Device) Device {
		return Device{ID: d.ID, IP: d.IP, UserAgent: d.UserAgent, CreatedAt: d.CreatedAt, SeenAt: d.SeenAt}
	})
	out.Body.RecoveryCodes, out.Body.Required = v.Codes, v.Required
	return out, nil
}

func (a *API) removeFactor(ctx context.Context, actor bailey.Actor, in *IDInput) (*none, error) {
	return nil, a.cfg.Identity.RemoveFactor(ctx, actor, in.ID)
}

func (a *API) forgetDevice(ctx context.Context, actor bailey.Actor, in *IDInput) (*none, error) {
	return nil, a.cfg.Identity.ForgetDevice(ctx, actor, in.ID)
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

func (a *API) resetFactors(ctx context.Context, actor bailey.Actor, in *NameInput) (*none, error) {
	return nil, a.cfg.Identity.ResetFactors(ctx, actor, in.Name)
}
