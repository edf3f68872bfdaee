package api

import (
	"context"
	"net/http"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity"
)

func (a *API) groupRoutes() {
	register(a, op(http.MethodGet, "/groups", "listGroups", "The groups that you may look into", "groups"), a.listGroups)
	register(a, op(http.MethodGet, "/groups/{name}", "getGroup", "Who is in a group, and who manages it", "groups"), a.getGroup)
	register(a, op(http.MethodPut, "/groups/{name}/members/{user}", "addMember", "Add somebody to a group", "groups"), a.changeGroup(bailey.GroupJoin))
	register(a, op(http.MethodDelete, "/groups/{name}/members/{user}", "removeMember", "Take somebody out of a group", "groups"), a.changeGroup(bailey.GroupLeave))
	register(a, op(http.MethodPut, "/groups/{name}/managers/{user}", "appointManager", "Let somebody manage a group", "groups"), a.changeGroup(bailey.GroupAppoint))
	register(a, op(http.MethodDelete, "/groups/{name}/managers/{user}", "dismissManager", "Let somebody manage a group no more", "groups"), a.changeGroup(bailey.GroupDismiss))
}

// Group is a group as the API shows it.
type Group struct {
	Name     string   `json:"name"`
	Members  []string `json:"members" nullable:"false"`
	Managers []string `json:"managers" nullable:"false" doc:"Who may add and remove members, see and stop their workspaces"`
}

func groupOf(g identity.Group) Group {
	return Group{Name: g.Name, Members: notNil(g.Members), Managers: notNil(g.Managers)}
}

type groupsOutput struct {
	Body struct {
		Groups []Group `json:"groups" nullable:"false"`
	}
}

func (a *API) listGroups(ctx context.Context, actor bailey.Actor, _ *none) (*groupsOutput, error) {
	list, err := a.cfg.Identity.Groups(ctx, actor)
	if err != nil {
		return nil, err
	}
	out := &groupsOutput{}
	out.Body.Groups = all(list, groupOf)
	return out, nil
}

type groupInput struct {
	Name string `path:"name" maxLength:"64"`
}

type groupOutput struct{ Body Group }

func (a *API) getGroup(ctx context.Context, actor bailey.Actor, in *groupInput) (*groupOutput, error) {
	g, err := a.cfg.Identity.Group(ctx, actor, in.Name)
	if err != nil {
		return nil, err
	}
	return &groupOutput{Body: groupOf(g)}, nil
}

type memberInput struct {
	Name string `path:"name" maxLength:"64"`
	User string `path:"user" maxLength:"64"`
}

type membership struct {
	Group   string `json:"group"`
	User    string `json:"user"`
	Member  bool   `json:"member"`
	Manager bool   `json:"manager"`
}

type membershipOutput struct{ Body membership }

// changeGroup answers with what the user is to the group now, and with nothing
// else of theirs: a group's manager does not read accounts.
func (a *API) changeGroup(c bailey.GroupChange) func(context.Context, bailey.Actor, *memberInput) (*membershipOutput, error) {
	return func(ctx context.Context, actor bailey.Actor, in *memberInput) (*membershipOutput, error) {
		u, err := a.cfg.Identity.ChangeGroup(ctx, actor, in.Name, in.User, c)
		if err != nil {
			return nil, err
		}
		out := &membershipOutput{Body: membership{Group: in.Name, User: u.Name}}
		for _, g := range u.Groups {
			out.Body.Member = out.Body.Member || g == in.Name
		}
		for _, g := range u.Manages {
			out.Body.Manager = out.Body.Manager || g == in.Name
		}
		return out, nil
	}
}
