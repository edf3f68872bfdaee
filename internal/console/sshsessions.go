package console

import (
	"context"
	"net/http"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/witness"
)

type sshSessionsData struct {
	Living, Ended []witness.Session
	Everybody     bool
	More          string // id of the last of Ended, when there are more
}

// pageOfSessions is how many are on a page.
const pageOfSessions = 100

// sshSessions shows the reader's SSH sessions, and to staff everybody's.
func (c *Console) sshSessions(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	d := sshSessionsData{Everybody: policy.Decide(actor, policy.SSHView, policy.Thing{})}
	all, err := c.cfg.SSH.List(r.Context(), actor, d.Everybody, bailey.SSHFilter{Before: r.URL.Query().Get("before"), Limit: pageOfSessions})
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Living() {
			d.Living = append(d.Living, s)
		} else {
			d.Ended = append(d.Ended, s)
		}
	}
	if len(all) == pageOfSessions {
		d.More = all[len(all)-1].ID
	}
	return c.show(w, r, "sessions", "SSH sessions", d)
}

func (c *Console) killSSHSession(w http.ResponseWriter, r *http.Request) error {
	return c.changeSession(w, r, c.cfg.SSH.Kill)
}

func (c *Console) deleteRecording(w http.ResponseWriter, r *http.Request) error {
	return c.changeSession(w, r, c.cfg.SSH.Delete)
}

func (c *Console) changeSession(w http.ResponseWriter, r *http.Request, do func(context.Context, bailey.Actor, string) error) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	if err := do(r.Context(), actor, r.PathValue("id")); err != nil {
		return err
	}
	http.Redirect(w, r, "/sessions", http.StatusSeeOther)
	return nil
}
