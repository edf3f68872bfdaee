package sshgate

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/workspace"
)

// startWait is how long a connection waits for its workspace to start.
const startWait = 5 * time.Minute

// find returns the workspace that a person comes for, and the way into it. One
// that was named is that one; otherwise it is the one that is running, or the
// only one there is.
func (g *Gate) find(ctx context.Context, actor bailey.Actor, want string) (bailey.Workspace, workspace.Route, error) {
	ws, err := g.choose(ctx, actor, want)
	if err != nil {
		return ws, workspace.Route{}, err
	}
	route, err := g.cfg.Workspaces.Route(ctx, actor, ws.Slug)
	if err == nil {
		return route.Workspace, route, nil
	}
	stopped := ws.State == bailey.Stopped || ws.State == bailey.Failed
	if kind := bailey.KindOf(err); kind != bailey.Conflict && kind != bailey.Unavailable || stopped && !g.cfg.Policy(ws.Class).StartOnConnect {
		return ws, workspace.Route{}, err
	}
	if stopped {
		if ws, err = g.cfg.Workspaces.Start(ctx, actor, ws.ID); err != nil {
			return ws, workspace.Route{}, err
		}
	}
	return g.await(ctx, actor, ws)
}

// choose picks one of a person's own workspaces.
func (g *Gate) choose(ctx context.Context, actor bailey.Actor, want string) (bailey.Workspace, error) {
	mine, err := g.cfg.Workspaces.List(ctx, actor, false)
	if err != nil {
		return bailey.Workspace{}, err
	}
	up := slices.DeleteFunc(slices.Clone(mine), func(ws bailey.Workspace) bool {
		return ws.State != bailey.Running && ws.State != bailey.Starting
	})
	var names []string
	for _, ws := range mine {
		if ws.Name == want {
			return ws, nil
		}
		names = append(names, ws.Name)
	}
	slices.Sort(names)
	switch {
	case want != "" && len(mine) > 0:
		return bailey.Workspace{}, &bailey.Error{
			Kind: bailey.NotFound, Msg: "you have no workspace " + want, Hint: "yours are: " + strings.Join(names, ", "),
		}
	case len(mine) == 0:
		return bailey.Workspace{}, &bailey.Error{
			Kind: bailey.NotFound, Msg: "you have no workspace yet", Hint: "make one in the console, or with: bailey run",
		}
	case len(up) == 1:
		return up[0], nil
	case len(up) > 1:
		names = names[:0]
		for _, ws := range up {
			names = append(names, actor.Name+"+"+ws.Name)
		}
		return bailey.Workspace{}, &bailey.Error{
			Kind: bailey.Conflict, Msg: "several of your workspaces are running", Hint: "choose one by the user name: " + strings.Join(names, ", "),
		}
	case len(mine) == 1:
		return mine[0], nil
	}
	return bailey.Workspace{}, &bailey.Error{
		Kind: bailey.Conflict, Msg: "none of your workspaces is running",
		Hint: "start one, or choose one by the user name, such as " + actor.Name + "+" + names[0],
	}
}

// await waits until a workspace that is being started can be entered.
func (g *Gate) await(ctx context.Context, actor bailey.Actor, ws bailey.Workspace) (bailey.Workspace, workspace.Route, error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	news, err := g.cfg.Workspaces.Follow(ctx, actor, ws.ID, 0)
	if err != nil {
		return ws, workspace.Route{}, err
	}
	again := time.NewTicker(time.Second) // what is not told as a stage
	defer again.Stop()
	for {
		route, err := g.cfg.Workspaces.Route(ctx, actor, ws.Slug)
		if err == nil {
			return route.Workspace, route, nil
		}
		now, gone := g.cfg.Workspaces.Get(ctx, actor, ws.ID)
		switch {
		case gone != nil:
			return ws, workspace.Route{}, gone
		case now.State == bailey.Failed, now.State == bailey.Stopped, now.State == bailey.Stopping:
			return ws, workspace.Route{}, err
		}
		select {
		case <-ctx.Done():
			return ws, workspace.Route{}, err
		case _, open := <-news:
			if !open {
				news = nil
			}
		case <-again.C:
		}
	}
}
