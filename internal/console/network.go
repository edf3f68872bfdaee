package console

import (
	"context"
	"net/http"
	"slices"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/policy"
)

type networkData struct {
	Classes  []bailey.Class
	Mine     []bailey.EgressRequest // of the reader's own workspaces
	Granted  []bailey.EgressGrant   // to the reader, beyond the rules
	Everyone []bailey.EgressRequest // for staff: everybody's, the open ones first
	Grants   []bailey.EgressGrant   // for staff
	Open     int                    // how many of Everyone wait for an answer
}

// network shows what the reader's workspaces can reach, what they were refused
// and what became of it; to staff, everybody's, and to administrators the
// buttons to answer.
func (c *Console) network(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	var d networkData
	if d.Classes, err = c.cfg.Workspaces.Classes(ctx, actor); err != nil {
		return err
	}
	if d.Mine, err = c.cfg.Egress.Requests(ctx, actor, actor.UserID); err != nil {
		return err
	}
	if d.Granted, err = c.cfg.Egress.Grants(ctx, actor, actor.UserID); err != nil {
		return err
	}
	if policy.Decide(actor, policy.EgressView, policy.Thing{}) {
		if d.Everyone, err = c.cfg.Egress.Requests(ctx, actor, ""); err != nil {
			return err
		}
		if d.Grants, err = c.cfg.Egress.Grants(ctx, actor, ""); err != nil {
			return err
		}
		for _, q := range d.Everyone {
			if q.State == bailey.AskOpen {
				d.Open++
			}
		}
		slices.SortStableFunc(d.Everyone, func(a, b bailey.EgressRequest) int { return order(a) - order(b) })
	}
	return c.show(w, r, "network", "Network", d)
}

// order puts what waits for an answer first.
func order(q bailey.EgressRequest) int {
	if q.State == bailey.AskOpen {
		return 0
	}
	return 1
}

func (c *Console) allowRequest(w http.ResponseWriter, r *http.Request) error {
	f, err := formOf(r)
	if err != nil {
		return err
	}
	return c.answer(w, r, func(ctx context.Context, actor bailey.Actor) error {
		_, err := c.cfg.Egress.Allow(ctx, actor, egress.Answer{Request: r.PathValue("id"), Scope: bailey.GrantScope(f.Get("scope"))})
		return err
	})
}

func (c *Console) denyRequest(w http.ResponseWriter, r *http.Request) error {
	return c.answer(w, r, func(ctx context.Context, actor bailey.Actor) error {
		_, err := c.cfg.Egress.Deny(ctx, actor, r.PathValue("id"))
		return err
	})
}

func (c *Console) revokeGrant(w http.ResponseWriter, r *http.Request) error {
	return c.answer(w, r, func(ctx context.Context, actor bailey.Actor) error {
		return c.cfg.Egress.Revoke(ctx, actor, r.PathValue("id"))
	})
}

// answer does what an administrator pressed, and shows the page again.
func (c *Console) answer(w http.ResponseWriter, r *http.Request, do func(context.Context, bailey.Actor) error) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	if err := do(r.Context(), actor); err != nil {
		return err
	}
	http.Redirect(w, r, "/network", http.StatusSeeOther)
	return nil
}

// refused returns what a workspace of the reader's was refused last.
func (c *Console) refused(ctx context.Context, actor bailey.Actor, ws bailey.Workspace) ([]bailey.EgressRequest, error) {
	all, err := c.cfg.Egress.Requests(ctx, actor, ws.OwnerID)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(q bailey.EgressRequest) bool { return q.WorkspaceID != ws.ID })
	const most = 10
	return all[:min(len(all), most)], nil
}
