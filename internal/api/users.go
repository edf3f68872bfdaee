package api

import (
	"context"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
)

type usersOutput struct {
	Body struct {
		Users []User `json:"users" nullable:"false"`
	}
}

func (a *API) listUsers(ctx context.Context, actor bailey.Actor, _ *none) (*usersOutput, error) {
	list, err := a.cfg.Identity.Users(ctx, actor)
	if err != nil {
		return nil, err
	}
	out := &usersOutput{}
	out.Body.Users = all(list, userOf)
	return out, nil
}

type createUserInput struct {
	Body struct {
		Name     string   `json:"name" maxLength:"64"`
		Password string   `json:"password,omitempty" maxLength:"4096" doc:"The first one; a service account has none"`
		Hash     string   `json:"password_hash,omitempty" maxLength:"512" doc:"In place of password: a hash made by another program (argon2, bcrypt, scrypt, Jupyter's). It is made anew when the user signs in"`
		Role     string   `json:"role,omitempty" enum:"user,auditor,admin" default:"user"`
		Groups   []string `json:"groups,omitempty" nullable:"false" maxItems:"64"`
		Service  bool     `json:"service,omitempty" doc:"Make a service account: no password, tokens only"`
		Owner    string   `json:"owner,omitempty" maxLength:"64" doc:"Name of the person who answers for a service account; empty: you"`
	}
}

func (a *API) createUser(ctx context.Context, actor bailey.Actor, in *createUserInput) (*userOutput, error) {
	u, err := a.cfg.Identity.CreateUser(ctx, actor, identity.NewUser{
		Name: in.Body.Name, Password: secret.New(in.Body.Password), Hash: secret.New(in.Body.Hash),
		Role: bailey.Role(in.Body.Role), Groups: in.Body.Groups, Service: in.Body.Service, Owner: in.Body.Owner,
	})
	if err != nil {
		return nil, err
	}
	return &userOutput{Body: userOf(u)}, nil
}

// NameInput is an account in the path.
type NameInput struct {
	Name string `path:"name" maxLength:"64"`
}

type updateUserInput struct {
	NameInput
	Body struct {
		Role     *string   `json:"role,omitempty" enum:"user,auditor,admin"`
		Groups   *[]string `json:"groups,omitempty" nullable:"false"`
		Disabled *bool     `json:"disabled,omitempty"`
		Password *string   `json:"password,omitempty" maxLength:"4096" doc:"Reset; ends the user's sessions"`
	}
}

func (a *API) updateUser(ctx context.Context, actor bailey.Actor, in *updateUserInput) (*userOutput, error) {
	upd := identity.UserUpdate{Groups: in.Body.Groups, Disabled: in.Body.Disabled}
	if in.Body.Role != nil {
		upd.Role = new(bailey.Role(*in.Body.Role))
	}
	if in.Body.Password != nil {
		upd.Password = new(secret.New(*in.Body.Password))
	}
	u, err := a.cfg.Identity.UpdateUser(ctx, actor, in.Name, upd)
	if err != nil {
		return nil, err
	}
	return &userOutput{Body: userOf(u)}, nil
}

func (a *API) deleteUser(ctx context.Context, actor bailey.Actor, in *NameInput) (*none, error) {
	return nil, a.cfg.Identity.DeleteUser(ctx, actor, in.Name)
}
