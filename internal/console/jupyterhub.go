package console

import (
	"net/http"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge"
)

// jupyterhubHome sends JupyterHub's own pages to ours.
func (c *Console) jupyterhubHome(w http.ResponseWriter, r *http.Request) error {
	http.Redirect(w, r, "/workspaces", http.StatusSeeOther)
	return nil
}

// jupyterhubServer serves /user/NAME/…: to programs what they ask for, to
// people the way to the workspace's own origin.
func (c *Console) jupyterhubServer() http.Handler {
	pages := c.page(c.jupyterhubUser)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		program := r.Header.Get("Authorization") != "" || r.Header.Get("Upgrade") != "" || !edge.WantsPage(r)
		if c.cfg.Alias != nil && program {
			c.cfg.Alias.ServeHTTP(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			c.page(noPage).ServeHTTP(w, r)
			return
		}
		pages.ServeHTTP(w, r)
	})
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
