package identity

import (
	"cmp"
	"context"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
)

// A service account is a user that is a program. It is made, listed, disabled
// and deleted like a person's account, but has no password, no session and no
// way to the console: administrators make its tokens. A person answers for it.

func errNoPassword(name string) error {
	return &bailey.Error{
		Kind: bailey.Invalid, Msg: name + " is a service account: it has no password and does not sign in",
		Hint: "an administrator makes tokens for it: bailey admin token create " + name,
	}
}

// answerable returns the id of who answers for a new service account.
func (s *Service) answerable(ctx context.Context, actor bailey.Actor, n NewUser) (string, error) {
	if !n.Password.Empty() || !n.Hash.Empty() {
		return "", errNoPassword(n.Name)
	}
	owner, err := s.byName(ctx, cmp.Or(n.Owner, actor.Name))
	if err != nil {
		return "", err
	}
	if owner.Service {
		return "", &bailey.Error{Kind: bailey.Invalid, Msg: owner.Name + " is a service account and cannot answer for another", Hint: "name a person"}
	}
	return owner.ID, nil
}

// serviceAccount returns the service account of that name to whoever may manage
// it. Of a person the answer is that there is no such service account: nobody
// makes tokens in a person's name.
func (s *Service) serviceAccount(ctx context.Context, actor bailey.Actor, name string) (bailey.User, error) {
	if err := s.allow(ctx, actor, policy.ServiceManage, audit.Target{Kind: "user", Name: clean(name, 64)}); err != nil {
		return bailey.User{}, err
	}
	u, err := s.byName(ctx, name)
	if err != nil {
		return u, err
	}
	if !u.Service {
		return bailey.User{}, &bailey.Error{
			Kind: bailey.NotFound, Msg: name + " is a person, not a service account",
			Hint: "people make their own tokens: bailey token create",
		}
	}
	return u, nil
}

// CreateServiceToken is [Service.CreateToken] for a service account, by an
// administrator.
func (s *Service) CreateServiceToken(ctx context.Context, actor bailey.Actor, name string, r TokenRequest) (Grant[bailey.Token], error) {
	u, err := s.serviceAccount(ctx, actor, name)
	if err != nil {
		return Grant[bailey.Token]{}, err
	}
	if err := s.Fresh(actor); err != nil {
		return Grant[bailey.Token]{}, err
	}
	if u.Disabled {
		return Grant[bailey.Token]{}, &bailey.Error{Kind: bailey.Conflict, Msg: name + " is disabled", Hint: "enable it first"}
	}
	return s.createToken(ctx, actor, u, r)
}

// ServiceTokens lists a service account's tokens.
func (s *Service) ServiceTokens(ctx context.Context, actor bailey.Actor, name string) ([]bailey.Token, error) {
	u, err := s.serviceAccount(ctx, actor, name)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.Tokens(ctx, u.ID)
}

// RevokeServiceToken is [Service.RevokeToken] for a service account.
func (s *Service) RevokeServiceToken(ctx context.Context, actor bailey.Actor, name, id string) error {
	u, err := s.serviceAccount(ctx, actor, name)
	if err != nil {
		return err
	}
	return s.voidToken(ctx, actor, u.ID, id)
}
