package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/baileyhq/bailey"
)

// RefInput is a workspace in the path.
type RefInput struct {
	Ref string `path:"ref" maxLength:"96" doc:"Id, name, or owner.name of a workspace"`
}

type workspaceOutput struct{ Body Workspace }

type workspacesOutput struct {
	Body struct {
		Workspaces []Workspace `json:"workspaces" nullable:"false"`
	}
}

func (a *API) workspaceRoutes() {
	register(a, op(http.MethodGet, "/classes", "listClasses", "The classes you may launch", "workspaces"), a.listClasses)
	register(a, op(http.MethodGet, "/workspaces", "listWorkspaces", "Your workspaces, or everybody's", "workspaces"), a.listWorkspaces)
	register(a, withStatus(op(http.MethodPost, "/workspaces", "launchWorkspace", "Make a workspace and start it", "workspaces"), http.StatusAccepted), a.launchWorkspace)
	register(a, op(http.MethodGet, "/workspaces/{ref}", "getWorkspace", "One workspace", "workspaces"), a.getWorkspace)
	register(a, withStatus(op(http.MethodPost, "/workspaces/{ref}/start", "startWorkspace", "Start a stopped workspace", "workspaces"), http.StatusAccepted), a.startWorkspace)
	register(a, op(http.MethodPost, "/workspaces/{ref}/stop", "stopWorkspace", "Stop it; files stay", "workspaces"), a.stopWorkspace)
	register(a, withStatus(op(http.MethodDelete, "/workspaces/{ref}", "deleteWorkspace", "Delete it; its volume stays", "workspaces"), http.StatusNoContent), a.deleteWorkspace)
	register(a, withText(op(http.MethodGet, "/workspaces/{ref}/logs", "workspaceLogs", "The newest lines of its output", "workspaces"), "text/plain", "What it wrote, as it is"), a.workspaceLogs)
	register(a, op(http.MethodGet, "/workspaces/{ref}/stages", "workspaceStages", "The stages of its launches", "workspaces"), a.workspaceStages)
	register(a, withText(op(http.MethodGet, "/workspaces/{ref}/events", "followWorkspace", "Stages as they happen (server-sent events)", "workspaces"),
		"text/event-stream", "Events named stage: id is the stage's seq, data a Stage"), a.followWorkspace)
}

// withText says that an operation's answer is text, and what stands in it.
func withText(o huma.Operation, kind, what string) huma.Operation {
	o.Responses = map[string]*huma.Response{"200": {
		Description: what,
		Content:     map[string]*huma.MediaType{kind: {Schema: &huma.Schema{Type: huma.TypeString}}},
	}}
	return o
}

type classesOutput struct {
	Body struct {
		Classes []Class `json:"classes" nullable:"false"`
	}
}

func (a *API) listClasses(ctx context.Context, actor bailey.Actor, _ *none) (*classesOutput, error) {
	classes, err := a.cfg.Workspaces.Classes(ctx, actor)
	if err != nil {
		return nil, err
	}
	out := &classesOutput{}
	out.Body.Classes = all(classes, classOf)
	return out, nil
}

type listInput struct {
	All bool `query:"all" doc:"Everybody's; for administrators and auditors"`
}

func (a *API) listWorkspaces(ctx context.Context, actor bailey.Actor, in *listInput) (*workspacesOutput, error) {
	list, err := a.cfg.Workspaces.List(ctx, actor, in.All)
	if err != nil {
		return nil, err
	}
	out := &workspacesOutput{}
	out.Body.Workspaces = all(list, a.workspace)
	return out, nil
}

type launchInput struct {
	Body struct {
		Name  string `json:"name,omitempty" maxLength:"30" doc:"Default: the class's name"`
		Class string `json:"class,omitempty" maxLength:"30" doc:"Default: the first class you may use"`
	}
}

func (a *API) launchWorkspace(ctx context.Context, actor bailey.Actor, in *launchInput) (*workspaceOutput, error) {
	w, err := a.cfg.Workspaces.Launch(ctx, actor, in.Body.Name, in.Body.Class)
	if err != nil {
		return nil, err
	}
	return &workspaceOutput{Body: a.workspace(w)}, nil
}

func (a *API) getWorkspace(ctx context.Context, actor bailey.Actor, in *RefInput) (*workspaceOutput, error) {
	w, err := a.cfg.Workspaces.Get(ctx, actor, in.Ref)
	if err != nil {
		return nil, err
	}
	return &workspaceOutput{Body: a.workspace(w)}, nil
}

func (a *API) startWorkspace(ctx context.Context, actor bailey.Actor, in *RefInput) (*workspaceOutput, error) {
	w, err := a.cfg.Workspaces.Get(ctx, actor, in.Ref)
	if err != nil {
		return nil, err
	}
	if w, err = a.cfg.Workspaces.Start(ctx, actor, w.ID); err != nil {
		return nil, err
	}
	return &workspaceOutput{Body: a.workspace(w)}, nil
}

func (a *API) stopWorkspace(ctx context.Context, actor bailey.Actor, in *RefInput) (*workspaceOutput, error) {
	w, err := a.cfg.Workspaces.Get(ctx, actor, in.Ref)
	if err != nil {
		return nil, err
	}
	if w, err = a.cfg.Workspaces.Stop(ctx, actor, w.ID); err != nil {
		return nil, err
	}
	return &workspaceOutput{Body: a.workspace(w)}, nil
}

func (a *API) deleteWorkspace(ctx context.Context, actor bailey.Actor, in *RefInput) (*none, error) {
	w, err := a.cfg.Workspaces.Get(ctx, actor, in.Ref)
	if err != nil {
		return nil, err
	}
	if err := a.cfg.Workspaces.Delete(ctx, actor, w.ID); err != nil {
		return nil, err
	}
	a.cfg.Origins.Release(w.Slug)
	return nil, nil //nolint:nilnil // 204: there is nothing to say
}

type logsInput struct {
	RefInput
	Tail int `query:"tail" minimum:"1" maximum:"10000" default:"200" doc:"How many lines"`
}

type logsOutput struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (a *API) workspaceLogs(ctx context.Context, actor bailey.Actor, in *logsInput) (*logsOutput, error) {
	w, err := a.cfg.Workspaces.Get(ctx, actor, in.Ref)
	if err != nil {
		return nil, err
	}
	b, err := a.cfg.Workspaces.Logs(ctx, actor, w.ID, in.Tail)
	if err != nil {
		return nil, err
	}
	return &logsOutput{ContentType: "text/plain; charset=utf-8", Body: b}, nil
}

// StagesInput asks for stages after a seq.
type StagesInput struct {
	RefInput
	After int64 `query:"after" minimum:"0" doc:"Only stages with a greater seq"`
}

type stagesOutput struct {
	Body struct {
		Stages []Stage `json:"stages" nullable:"false"`
	}
}

func (a *API) workspaceStages(ctx context.Context, actor bailey.Actor, in *StagesInput) (*stagesOutput, error) {
	w, err := a.cfg.Workspaces.Get(ctx, actor, in.Ref)
	if err != nil {
		return nil, err
	}
	stages, err := a.cfg.Workspaces.Stages(ctx, actor, w.ID, in.After)
	if err != nil {
		return nil, err
	}
	out := &stagesOutput{}
	out.Body.Stages = all(stages, stageOf)
	return out, nil
}
