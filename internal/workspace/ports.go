package workspace

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
)

// A Store keeps workspaces, volumes, runs and leases. Methods return a
// *bailey.Error of kind NotFound, Conflict or OverQuota where that is the case.
// All may be called concurrently, also by several servers on one PostgreSQL.
//
//nolint:interfacebloat // what one service needs of one database, with one conformance suite
type Store interface {
	// CreateWorkspace stores w in state Stopped together with a volume of the
	// same name: the owner's existing volume of that name when no workspace
	// has it, else a new one. It sets ID, Slug (if empty), VolumeID,
	// CreatedAt, Owner. Conflict when the owner has a workspace of that name.
	CreateWorkspace(ctx context.Context, w bailey.Workspace) (bailey.Workspace, error)
	Workspace(ctx context.Context, id string) (bailey.Workspace, error)
	WorkspaceBySlug(ctx context.Context, slug string) (bailey.Workspace, error)
	WorkspaceByName(ctx context.Context, ownerID, name string) (bailey.Workspace, error)
	// Workspaces lists those of ownerID, or all when it is empty, by owner and name.
	Workspaces(ctx context.Context, ownerID string) ([]bailey.Workspace, error)
	// DeleteWorkspace removes a stopped or failed workspace; its volume stays.
	// Conflict in any other state.
	DeleteWorkspace(ctx context.Context, id string) error

	// BeginRun checks that the workspace is stopped or failed, checks the
	// quotas of its owner and their groups against everything starting,
	// running or stopping, leases GPUs that no run holds, stores the run and
	// sets the workspace Starting and wanted Running: all or nothing, in one
	// serialisable transaction. OverQuota says which limit, how much of it is
	// used and by what; for GPUs how many are free.
	BeginRun(ctx context.Context, r bailey.RunRequest) (bailey.Run, error)
	Run(ctx context.Context, id string) (bailey.Run, error)
	// OpenRuns lists runs that have not ended, whatever their workspace's state.
	OpenRuns(ctx context.Context) ([]bailey.Run, error)
	// SetContainer records the engine's id of a run.
	SetContainer(ctx context.Context, runID, containerID string) error
	// MarkReady sets the workspace Running, if the run is still its current,
	// un-ended one and it is wanted Running; Conflict otherwise.
	MarkReady(ctx context.Context, runID string, at time.Time) error
	// MarkStopping sets Stopping and wanted Stopped, with the reason.
	MarkStopping(ctx context.Context, workspaceID, reason string) error
	// EndRun ends the run, frees its leases and sets the workspace Stopped, or
	// Failed when failed, with the reason. Idempotent: a second call changes nothing.
	EndRun(ctx context.Context, runID string, failed bool, reason string, at time.Time) error
	SetSelfCheck(ctx context.Context, runID, result string) error
	// TouchActive moves ActiveAt forward; it never moves it back.
	TouchActive(ctx context.Context, workspaceID string, at time.Time) error

	Volumes(ctx context.Context, ownerID string) ([]bailey.Volume, error)
	Volume(ctx context.Context, id string) (bailey.Volume, error)
	// DeleteVolume removes the row of a volume that no workspace has; Conflict otherwise.
	DeleteVolume(ctx context.Context, id string) error
	Leases(ctx context.Context) ([]bailey.Lease, error)

	// AppendStage stores a launch stage and sets its Seq; Stages lists those of
	// a workspace after a Seq, oldest first. The newest 200 per workspace are kept.
	AppendStage(ctx context.Context, s bailey.Stage) (bailey.Stage, error)
	Stages(ctx context.Context, workspaceID string, after int64) ([]bailey.Stage, error)

	// User returns the owner's account, for uid, name, groups and disabled.
	UserByID(ctx context.Context, id string) (bailey.User, error)
}

// GPUs tells which cards there are. The list may change while the server runs.
type GPUs interface {
	Inventory(ctx context.Context) ([]bailey.GPU, error)
}

// A Verifier decides whether an image may start, and brings the very image that
// was decided on to the engine.
type Verifier interface {
	// Verify decides anew at every call, and records what it decided. name is
	// what a class calls the image; digest is "" or what it was pinned to. The
	// receipt's Started is what the engine is to start. What may not start is
	// an error that its asker may read: Denied, or Unavailable when it could
	// not be found out or there is no such image.
	Verify(ctx context.Context, by audit.Actor, name, digest string) (bailey.Receipt, error)
	// Fetch brings what a receipt names to the engine, which does not have it.
	// progress is told in percent, never less than before. Unavailable when
	// there is nowhere to fetch it from.
	Fetch(ctx context.Context, r bailey.Receipt, progress func(percent int)) error
}

// Settings is the part of the configuration that is data: it may change while
// the server runs, and what is read holds for the decision at hand.
type Settings interface {
	Classes() []bailey.Class // resolved, by name
	Class(name string) (bailey.Class, bool)
	QuotaFor(user bailey.User) bailey.Quota
	GroupQuotas(user bailey.User) map[string]bailey.Quota
}
