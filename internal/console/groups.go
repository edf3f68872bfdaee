package console

import (
	"net/http"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity"
)

type groupsData struct {
	Groups     []identity.Group
	Workspaces []bailey.Workspace // of those groups' members
}

// groups shows the groups that the actor may look into, and the workspaces of
// their members: that they are there, not what is in them.
func (c *Console) groups(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	var d groupsData
	if d.Groups, err = c.cfg.Identity.Groups(r.Context(), actor); err != nil {
		return err
	}
	if len(d.Groups) == 0 && !viewOf(r.Context()).Manager {
		return noPage(w, r)
	}
	if len(actor.Manages) > 0 {
		if d.Workspaces, err = c.cfg.Workspaces.List(r.Context(), actor, true); err != nil {
			return err
		}
	}
	return c.show(w, r, "groups", "Groups", d)
}

// changeGroup adds or removes a member or a manager. What the form may say is a
// list; who may do it is identity's to decide.
func (c *Console) changeGroup(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	change := bailey.GroupChange(f.Get("change"))
	switch change {
	case bailey.GroupJoin, bailey.GroupLeave, bailey.GroupAppoint, bailey.GroupDismiss:
	default:
		return bailey.Errorf(bailey.Invalid, "there is no such change of a group")
	}
	if _, err := c.cfg.Identity.ChangeGroup(r.Context(), actor, r.PathValue("name"), f.Get("user"), change); asksAgain(err) {
		return err
	} else if err != nil {
		c.refuse(w, r, err)
		return c.groups(w, r)
	}
	http.Redirect(w, r, "/groups", http.StatusSeeOther)
	return nil
}
