package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/policy"
)

func (a *API) externalRoutes() {
	register(a, op(http.MethodGet, "/users/{name}/links", "listLinks", "The company accounts that an account is tied to", "admin"), a.listLinks)
	register(a, withStatus(op(http.MethodPost, "/users/{name}/links", "linkUser", "Tie an account to a company account; removes its password", "admin"), http.StatusCreated), a.linkUser)
	register(a, withStatus(op(http.MethodDelete, "/users/{name}/links/{id}", "unlinkUser", "Take a tie away; ends everything the account can do", "admin"), http.StatusNoContent), a.unlinkUser)
}

// Link is the tie of an account to a company account.
type Link struct {
	ID         string     `json:"id"`
	Source     string     `json:"source" doc:"oidc:NAME or ldap:NAME, by the name in the configuration"`
	Issuer     string     `json:"issuer"`
	Subject    string     `json:"subject" doc:"What the issuer never gives to anybody else"`
	Login      string     `json:"login,omitempty" doc:"What they are called there"`
	Role       string     `json:"role" enum:"user,auditor,admin" doc:"What the source gave last"`
	Groups     []string   `json:"groups" nullable:"false"`
	Closed     string     `json:"closed,omitempty" doc:"Why the source closed the account"`
	CreatedAt  time.Time  `json:"created_at"`
	SignedInAt *time.Time `json:"signed_in_at,omitempty"`
	CheckedAt  *time.Time `json:"checked_at,omitempty" doc:"When the source last vouched for them"`
}

func linkOf(e bailey.External) Link {
	return Link{
		ID: e.ID, Source: e.Source, Issuer: e.Issuer, Subject: e.Subject, Login: e.Login, Role: string(e.Role), Groups: notNil(e.Groups), Closed: e.Gone,
		CreatedAt: e.CreatedAt, SignedInAt: optional(e.SignedInAt), CheckedAt: optional(e.CheckedAt),
	}
}

type linksOutput struct {
	Body struct {
		Links []Link `json:"links" nullable:"false"`
	}
}

func (a *API) listLinks(ctx context.Context, actor bailey.Actor, in *NameInput) (*linksOutput, error) {
	list, err := a.cfg.Identity.Externals(ctx, actor, in.Name)
	if err != nil {
		return nil, err
	}
	out := &linksOutput{}
	out.Body.Links = all(list, linkOf)
	return out, nil
}

type linkUserInput struct {
	NameInput
	Body struct {
		Source  string `json:"source" maxLength:"64" doc:"oidc:NAME or ldap:NAME"`
		Login   string `json:"login,omitempty" maxLength:"256" doc:"For a directory: who to look up"`
		Subject string `json:"subject,omitempty" maxLength:"255" doc:"For a provider: the claim sub"`
	}
}

type linkOutput struct{ Body Link }

func (a *API) linkUser(ctx context.Context, actor bailey.Actor, in *linkUserInput) (*linkOutput, error) {
	var p external.Person
	// Who may not link is refused below, and does not find out here who is in
	// the directory.
	if policy.Decide(actor, policy.UserManage, policy.Thing{}) {
		var err error
		if strings.HasPrefix(in.Body.Source, "ldap:") {
			p, err = a.cfg.Company.Person(ctx, in.Body.Source, in.Body.Login)
		} else {
			p, err = a.cfg.Company.Subject(in.Body.Source, in.Body.Subject)
		}
		if err != nil {
			return nil, err
		}
	}
	tie, err := a.cfg.Identity.LinkUser(ctx, actor, in.Name, p)
	if err != nil {
		return nil, err
	}
	return &linkOutput{Body: linkOf(tie)}, nil
}

type unlinkInput struct {
	NameInput
	IDInput
}

func (a *API) unlinkUser(ctx context.Context, actor bailey.Actor, in *unlinkInput) (*none, error) {
	return nil, a.cfg.Identity.Unlink(ctx, actor, in.Name, in.ID)
}
