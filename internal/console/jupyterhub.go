package console

import (
	"net/http"
	"strings"

	"github.com/baileyhq/bailey"
)

// jupyterhubHome sends JupyterHub's own pages to ours.
func (c *Console) jupyterhubHome(w http.ResponseWriter, r *http.Request) error {
	http.Redirect(w, r, "/workspaces", http.StatusSeeOther)
	return nil
}

// jupyterhubUser sends JupyterHub's /user/NAME/SERVER/… to a running
// workspace's own origin: to the one of that name, or else the first. What
// follows in the path is left out: whoever makes such a link knows a name, and
// must not choose what is asked of a workspace whose address he cannot guess.
func (c *Console) jupyterhubUser(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	if r.PathValue("name") != actor.Name {
		return bailey.Errorf(bailey.NotFound, "there is no such page")
	}
	list, err := c.cfg.Workspaces.List(r.Context(), actor, false)
	if err != nil {
		return err
	}
	server, _, _ := strings.Cut(r.PathValue("rest"), "/")
	to := ""
	for _, ws := range list {
		if ws.State == bailey.Running && (to == "" || ws.Name == server) {
			to = c.urlOf(ws)
		}
	}
	if to == "" {
		to = "/workspaces"
	}
	http.Redirect(w, r, to, http.StatusSeeOther) //nolint:gosec // an origin of ours: the request only chose which of one's own
	return nil
}
