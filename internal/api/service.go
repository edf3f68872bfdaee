package api

import (
	"context"
	"net/http"

	"github.com/baileyhq/bailey"
)

func (a *API) serviceRoutes() {
	register(a, op(http.MethodGet, "/users/{name}/tokens", "listServiceTokens", "A service account's tokens", "admin"), a.listServiceTokens)
	register(a, op(http.MethodPost, "/users/{name}/tokens", "createServiceToken", "Make a token for a service account", "admin"), a.createServiceToken)
	register(a, withStatus(op(http.MethodDelete, "/users/{name}/tokens/{id}", "revokeServiceToken", "Void a service account's token", "admin"), http.StatusNoContent), a.revokeServiceToken)
	register(a, withStatus(op(http.MethodPost, "/users/{name}/end", "endUser", "End all access of somebody: sessions, tokens, open connections", "admin"), http.StatusNoContent), a.endUser)
}

func (a *API) listServiceTokens(ctx context.Context, actor bailey.Actor, in *NameInput) (*tokensOutput, error) {
	list, err := a.cfg.Identity.ServiceTokens(ctx, actor, in.Name)
	if err != nil {
		return nil, err
	}
	out := &tokensOutput{}
	out.Body.Tokens = all(list, tokenOf)
	return out, nil
}

type createServiceTokenInput struct {
	NameInput
	createTokenInput
}

func (a *API) createServiceToken(ctx context.Context, actor bailey.Actor, in *createServiceTokenInput) (*newTokenOutput, error) {
	grant, err := a.cfg.Identity.CreateServiceToken(ctx, actor, in.Name, in.request())
	if err != nil {
		return nil, err
	}
	return &newTokenOutput{Body: newToken(grant, in.Name)}, nil
}

type serviceTokenInput struct {
	NameInput
	IDInput
}

func (a *API) revokeServiceToken(ctx context.Context, actor bailey.Actor, in *serviceTokenInput) (*none, error) {
	return nil, a.cfg.Identity.RevokeServiceToken(ctx, actor, in.Name, in.ID)
}

func (a *API) endUser(ctx context.Context, actor bailey.Actor, in *NameInput) (*none, error) {
	return nil, a.cfg.Identity.EndEverythingOf(ctx, actor, in.Name)
}
