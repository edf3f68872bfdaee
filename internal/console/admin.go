package console

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/rulebook"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/workspace"
)

// A newUserForm is what the page keeps of a form that was refused.
type newUserForm struct{ Name, Role, Groups string }

// What the page shows of the filter's findings; the API has all.
const (
	findingsFor = 7 * 24 * time.Hour
	maxFindings = 200
)

// A gpuRow is a card, and "owner/workspace" of who holds it.
type gpuRow struct{ UUID, Model, Holder string }

type adminData struct {
	Form       newUserForm
	Users      []bailey.User
	Workspaces []bailey.Workspace
	GPUs       []gpuRow
	Orphans    []workspace.Orphan
	Findings   []rulebook.Finding
	Filter     *rulebook.Status
	Secrets    []bailey.KnownSecret
	EngineDown bool // so the orphans are not known
}

func (c *Console) admin(w http.ResponseWriter, r *http.Request) error {
	return c.adminWith(w, r, newUserForm{Role: string(bailey.RoleUser)})
}

// adminWith shows the page with the form for a new user filled in. For whoever
// may not see it, there is none.
func (c *Console) adminWith(w http.ResponseWriter, r *http.Request, form newUserForm) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	d := adminData{Form: form}
	if d.Workspaces, err = c.cfg.Workspaces.List(ctx, actor, true); err != nil {
		if bailey.KindOf(err) == bailey.Denied {
			return noPage(w, r)
		}
		return err
	}
	if d.Users, err = c.cfg.Identity.Users(ctx, actor); err != nil {
		return err
	}
	if d.GPUs, err = c.gpuRows(ctx, actor, d.Workspaces); err != nil {
		return err
	}
	d.Orphans, err = c.cfg.Workspaces.Orphans(ctx, actor)
	if d.EngineDown = bailey.KindOf(err) == bailey.Unavailable; err != nil && !d.EngineDown {
		return err
	}
	if c.cfg.Rules != nil {
		if d.Findings, err = c.cfg.Rules.Findings(ctx, actor, time.Now().Add(-findingsFor)); err != nil {
			return err
		}
		if len(d.Findings) > maxFindings {
			d.Findings = d.Findings[:maxFindings]
		}
		status, err := c.cfg.Rules.Status(actor)
		if err != nil {
			return err
		}
		d.Filter = &status
	}
	if c.cfg.Vault != nil {
		if d.Secrets, err = c.cfg.Vault.List(ctx, actor); err != nil {
			return err
		}
	}
	return c.show(w, r, "admin", "Administration", d)
}

// gpuRows says of every card who holds it.
func (c *Console) gpuRows(ctx context.Context, actor bailey.Actor, known []bailey.Workspace) ([]gpuRow, error) {
	gpus, leases, err := c.cfg.Workspaces.GPUs(ctx, actor)
	if err != nil {
		return nil, err
	}
	rows := make([]gpuRow, 0, len(gpus))
	for _, g := range gpus {
		row := gpuRow{UUID: g.UUID, Model: g.Model}
		for _, l := range leases {
			if l.GPU != g.UUID {
				continue
			}
			row.Holder = cmp.Or(l.WorkspaceID, "somebody")
			if i := slices.IndexFunc(known, func(ws bailey.Workspace) bool { return ws.ID == l.WorkspaceID }); i >= 0 {
				row.Holder = known[i].Owner + "/" + known[i].Name
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (c *Console) createUser(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	form := newUserForm{Name: f.Get("name"), Role: f.Get("role"), Groups: f.Get("groups")}
	_, err = c.cfg.Identity.CreateUser(r.Context(), actor, identity.NewUser{
		Name: form.Name, Password: secret.New(f.Get("password")),
		Role: bailey.Role(form.Role), Groups: strings.Fields(form.Groups),
	})
	switch {
	case err == nil:
		http.Redirect(w, r, "/admin", http.StatusSeeOther)
		return nil
	case bailey.KindOf(err) == bailey.Denied, asksAgain(err):
		return err
	}
	c.refuse(w, r, err)
	return c.adminWith(w, r, form)
}

// endUser ends all access of somebody.
func (c *Console) endUser(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	if err := c.cfg.Identity.EndEverythingOf(r.Context(), actor, r.PathValue("name")); err != nil {
		return err
	}
	http.Redirect(w, r, "/admin", http.StatusSeeOther)
	return nil
}

func (c *Console) setDisabled(disabled bool) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		actor, err := c.signedIn(r)
		if err != nil {
			return err
		}
		if _, err := c.cfg.Identity.UpdateUser(r.Context(), actor, r.PathValue("name"), identity.UserUpdate{Disabled: &disabled}); err != nil {
			return err
		}
		http.Redirect(w, r, "/admin", http.StatusSeeOther)
		return nil
	}
}
