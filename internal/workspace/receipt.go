package workspace

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/policy"
)

// A Receipt says what a run was started from, who vouches for that, and on
// what it runs.
type Receipt struct {
	Workspace string
	Owner     string
	Run       string
	Class     string
	Image     bailey.Receipt
	Engine    string   // "docker 20.10.24", as it is now
	GPUs      []string // UUIDs
	StartedAt time.Time
	ReadyAt   time.Time
	EndedAt   time.Time
}

// Receipt returns the receipt of a workspace's current or last run. NotFound
// when it has had none.
func (s *Service) Receipt(ctx context.Context, actor bailey.Actor, id string) (Receipt, error) {
	ws, err := s.find(ctx, actor, policy.WorkspaceView, id)
	if err != nil {
		return Receipt{}, err
	}
	if ws.RunID == "" {
		return Receipt{}, &bailey.Error{Kind: bailey.NotFound, Msg: "workspace " + ws.Name + " has never run", Hint: "start it first"}
	}
	run, err := s.cfg.Store.Run(ctx, ws.RunID)
	if err != nil {
		return Receipt{}, err
	}
	r := Receipt{
		Workspace: ws.Name, Owner: ws.Owner, Run: run.ID, Class: run.Class.Name, GPUs: slices.Clone(run.GPUs),
		StartedAt: run.CreatedAt, ReadyAt: run.ReadyAt, EndedAt: run.EndedAt,
		Image: bailey.Receipt{Image: run.Class.Image, Started: run.Digest, RekorIndex: -1, Words: "started before images were verified"},
	}
	if run.Receipt != nil {
		r.Image = *run.Receipt
	}
	if can, err := s.cfg.Engine.Probe(ctx); err == nil { // without it the receipt is as true
		r.Engine = fmt.Sprintf("%s %s", can.Kind, can.Version)
	}
	return r, nil
}
