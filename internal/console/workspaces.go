package console

import (
	"cmp"
	"log/slog"
	"net/http"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/policy"
)

type workspacesData struct {
	Workspaces []bailey.Workspace
	Classes    []bailey.Class
	Class      string // the preselected class
	Name       string // as typed in a form that was refused
}

func (c *Console) workspaces(w http.ResponseWriter, r *http.Request) error {
	return c.workspacesWith(w, r, "", "")
}

// workspacesWith shows the list and the launch form, filled in.
func (c *Console) workspacesWith(w http.ResponseWriter, r *http.Request, name, class string) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	d := workspacesData{Name: name}
	if d.Workspaces, err = c.cfg.Workspaces.List(r.Context(), actor, false); err != nil {
		return err
	}
	for i, ws := range d.Workspaces {
		d.Workspaces[i].URL = c.urlOf(ws)
	}
	if d.Classes, err = c.cfg.Workspaces.Classes(r.Context(), actor); err != nil {
		return err
	}
	d.Class = preselect(d.Classes, class)
	return c.show(w, r, "workspaces", "Workspaces", d)
}

// preselect names the class that was asked for, or else the one that most
// people want: PyTorch without a GPU, or the first that can start.
func preselect(classes []bailey.Class, asked string) string {
	first, torch := "", ""
	for _, class := range classes {
		switch {
		case class.Digest == "":
		case class.Name == asked:
			return asked
		case torch == "" && class.SelfCheck == "torch" && class.GPUs == 0:
			torch = class.Name
		case first == "":
			first = class.Name
		}
	}
	return cmp.Or(torch, first)
}

// urlOf is where a browser opens a workspace; empty when there is no origin
// left for it.
func (c *Console) urlOf(ws bailey.Workspace) string {
	if origin := c.cfg.Origins.Workspace(ws.Slug); origin != "" {
		return origin + "/"
	}
	return ""
}

func (c *Console) launch(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	ws, err := c.cfg.Workspaces.Launch(r.Context(), actor, f.Get("name"), f.Get("class"))
	if err != nil {
		c.refuse(w, r, err)
		return c.workspacesWith(w, r, f.Get("name"), f.Get("class"))
	}
	http.Redirect(w, r, "/workspaces/"+ws.ID, http.StatusSeeOther)
	return nil
}

type workspaceData struct {
	W       bailey.Workspace
	Mine    bool           // may open it, start it, read its output
	MayStop bool           // and delete it
	Stages  []bailey.Stage // newest state of each stage of the current run
	LastSeq int64
	Log     string
	Refused []bailey.EgressRequest // what it tried to reach in vain last
	Connect *sshConnect            // how to reach it with ssh; nil: not at all
}

func (c *Console) workspace(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	ws, err := c.cfg.Workspaces.Get(ctx, actor, r.PathValue("id"))
	if err != nil {
		return err
	}
	ws.URL = c.urlOf(ws)
	thing := c.cfg.Workspaces.Thing(ctx, actor, ws)
	d := workspaceData{
		W: ws, Mine: policy.Decide(actor, policy.WorkspaceOpen, thing), MayStop: policy.Decide(actor, policy.WorkspaceStop, thing),
	}
	if d.Mine {
		d.Connect = c.connectTo(actor, ws)
	}
	stages, err := c.cfg.Workspaces.Stages(ctx, actor, ws.ID, 0)
	if err != nil {
		return err
	}
	d.Stages, d.LastSeq = latest(stages, ws.RunID)
	if d.Mine && ws.State != bailey.Stopped {
		log, err := c.cfg.Workspaces.Logs(ctx, actor, ws.ID, 100)
		if err != nil && bailey.KindOf(err) != bailey.Conflict {
			// The page is as good without it; what went wrong is in the log.
			c.cfg.Log.WarnContext(ctx, "page without a workspace's output", slog.String("workspace", ws.ID), slog.String("error", err.Error()))
		}
		d.Log = string(log)
	}
	if policy.Decide(actor, policy.EgressView, thing) {
		if d.Refused, err = c.refused(ctx, actor, ws); err != nil {
			return err
		}
	}
	if ws.State == bailey.Starting || ws.State == bailey.Stopping {
		viewOf(ctx).Refresh = 2
	}
	viewOf(ctx).Section = "workspaces"
	return c.show(w, r, "workspace", ws.Name, d)
}

// latest folds the stages of one run to the newest state of each, in the order
// in which they began.
func latest(stages []bailey.Stage, run string) (out []bailey.Stage, last int64) {
	at := map[string]int{}
	for _, s := range stages {
		last = max(last, s.Seq)
		if s.Run != run {
			continue
		}
		if i, ok := at[s.Name]; ok {
			out[i] = s
			continue
		}
		at[s.Name] = len(out)
		out = append(out, s)
	}
	return out, last
}

func (c *Console) start(w http.ResponseWriter, r *http.Request) error {
	return c.change(w, r, func(actor bailey.Actor, ws bailey.Workspace) error {
		_, err := c.cfg.Workspaces.Start(r.Context(), actor, ws.ID)
		return err
	}, "")
}

func (c *Console) stop(w http.ResponseWriter, r *http.Request) error {
	return c.change(w, r, func(actor bailey.Actor, ws bailey.Workspace) error {
		_, err := c.cfg.Workspaces.Stop(r.Context(), actor, ws.ID)
		return err
	}, "")
}

func (c *Console) remove(w http.ResponseWriter, r *http.Request) error {
	return c.change(w, r, func(actor bailey.Actor, ws bailey.Workspace) error {
		if err := c.cfg.Workspaces.Delete(r.Context(), actor, ws.ID); err != nil {
			return err
		}
		c.cfg.Origins.Release(ws.Slug)
		return nil
	}, "/workspaces")
}

// change does something to a workspace and goes to a page of ours: next, or the
// workspace's own.
func (c *Console) change(w http.ResponseWriter, r *http.Request, do func(actor bailey.Actor, ws bailey.Workspace) error, next string) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	ws, err := c.cfg.Workspaces.Get(r.Context(), actor, r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := do(actor, ws); err != nil {
		return err
	}
	http.Redirect(w, r, cmp.Or(next, "/workspaces/"+ws.ID), http.StatusSeeOther)
	return nil
}

func (c *Console) volumes(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	list, err := c.cfg.Workspaces.Volumes(r.Context(), actor, false)
	if err != nil {
		return err
	}
	return c.show(w, r, "volumes", "Volumes", list)
}

func (c *Console) deleteVolume(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	if err := c.cfg.Workspaces.DeleteVolume(r.Context(), actor, r.PathValue("id"), f.Get("confirm")); err != nil {
		c.refuse(w, r, err)
		return c.volumes(w, r)
	}
	http.Redirect(w, r, "/volumes", http.StatusSeeOther)
	return nil
}
