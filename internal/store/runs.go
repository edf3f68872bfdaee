package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/baileyhq/bailey"
)

// keepRuns is how many ended runs of a workspace are kept.
const keepRuns = 100

const runColumns = `SELECT r.id, r.workspace_id, r.owner_id, r.uid, r.volume_id, r.class, r.digest, r.container_id,
		r.token_sealed, r.gpus, r.created_at, r.ready_at, r.ended_at, r.end_reason, r.receipt
	FROM runs r `

// sealedRun is a run whose token has not been opened.
type sealedRun struct {
	bailey.Run
	sealed string
}

func scanRun(row scanner) (run sealedRun, err error) {
	var class, gpus, receipt string
	var created, ready, ended int64
	err = row.Scan(&run.ID, &run.WorkspaceID, &run.OwnerID, &run.UID, &run.VolumeID, &class, &run.Digest, &run.ContainerID,
		&run.sealed, &gpus, &created, &ready, &ended, &run.EndReason, &receipt)
	if err != nil {
		return run, err
	}
	run.CreatedAt, run.ReadyAt, run.EndedAt = fromMicros(created), fromMicros(ready), fromMicros(ended)
	if run.Class, err = fromJSON[bailey.Class](class); err != nil {
		return run, err
	}
	if run.Receipt, err = receiptOf(receipt); err != nil {
		return run, err
	}
	run.GPUs, err = fromJSON[[]string](gpus)
	return run, err
}

// tokenPlace binds a sealed token to its run: copied to another row, it does
// not open.
func tokenPlace(runID string) string { return "run token " + runID }

func (s *Store) unseal(r sealedRun) (bailey.Run, error) {
	token, err := s.openText(r.sealed, tokenPlace(r.ID))
	if err != nil {
		return bailey.Run{}, fmt.Errorf("token of run %s: %w", r.ID, err)
	}
	r.Token = token
	return r.Run, nil
}

// BeginRun begins a run, all or nothing, in one transaction that no other
// decision runs beside on any server: the workspace must be stopped or failed
// (else Conflict; NotFound when there is none) and its owner's account enabled
// (else Denied); what the owner and their groups have starting, running or
// stopping, plus this, must be within the quotas; and as many GPUs as the class
// asks for, the first of rq.GPUs that no run holds, are leased (else OverQuota,
// saying which limit, how much of it is used and by what). The workspace is
// Starting and wanted Running afterwards, and active from now on.
func (s *Store) BeginRun(ctx context.Context, rq bailey.RunRequest) (bailey.Run, error) {
	class := rq.Run.Class
	if rq.Run.ID == "" || class.GPUs < 0 || class.CPUMillis < 0 || class.MemoryBytes < 0 {
		return bailey.Run{}, bailey.Errorf(bailey.Invalid, "a run needs an id and limits that are not negative")
	}
	classJSON, err := toJSON(class)
	if err != nil {
		return bailey.Run{}, fail("begin run", err)
	}
	var run bailey.Run
	err = s.decide(ctx, "begin run", func(ctx context.Context, r runner) error {
		w, err := one(ctx, r, scanWorkspace, workspaceColumns+`WHERE w.id = ?`, rq.WorkspaceID)
		if err != nil {
			return found("workspace", err)
		}
		owner, err := one(ctx, r, scanUser, userColumns+`WHERE u.id = ?`, w.OwnerID)
		if err != nil {
			return err
		}
		if err := mayBegin(w, owner); err != nil {
			return err
		}
		want := need{cpuMillis: class.CPUMillis, memoryBytes: class.MemoryBytes, gpus: int64(class.GPUs)}
		if err := checkQuotas(ctx, r, owner, rq, want); err != nil {
			return err
		}
		gpus, err := pickGPUs(ctx, r, rq, class.GPUs)
		if err != nil {
			return err
		}
		run = bailey.Run{
			ID: rq.Run.ID, WorkspaceID: w.ID, OwnerID: owner.ID, UID: owner.UID, VolumeID: w.VolumeID, Class: class,
			Digest: rq.Run.Digest, Receipt: rq.Run.Receipt, Token: rq.Run.Token, GPUs: gpus, CreatedAt: s.clock(),
		}
		return s.insertRun(ctx, r, run, classJSON)
	})
	if err != nil {
		return bailey.Run{}, err
	}
	return run, nil
}

func mayBegin(w bailey.Workspace, owner bailey.User) error {
	if !isDown(w.State) {
		e := bailey.Errorf(bailey.Conflict, "the workspace %s is %s", w.Name, w.State)
		if w.State == bailey.Stopping {
			e.Hint = "wait until it has stopped, then start it"
		}
		return e
	}
	if owner.Disabled {
		return bailey.Errorf(bailey.Denied, "the account of user %s is disabled", owner.Name)
	}
	return nil
}

// insertRun writes down what BeginRun decided.
func (s *Store) insertRun(ctx context.Context, r runner, run bailey.Run, classJSON string) error {
	gpusJSON, err := toJSON(run.GPUs)
	if err != nil {
		return err
	}
	receipt, err := receiptJSON(run.Receipt)
	if err != nil {
		return err
	}
	_, err = r.exec(ctx, `INSERT INTO runs (id, workspace_id, owner_id, uid, volume_id, class, cpu_millis, memory_bytes,
			gpu_count, gpus, digest, container_id, token_sealed, created_at, ready_at, ended_at, end_reason, receipt)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?, ?, 0, 0, '', ?)`,
		run.ID, run.WorkspaceID, run.OwnerID, run.UID, run.VolumeID, classJSON, run.Class.CPUMillis, run.Class.MemoryBytes,
		run.Class.GPUs, gpusJSON, run.Digest, s.sealText(run.Token, tokenPlace(run.ID)), run.CreatedAt, receipt)
	if isDuplicate(err) {
		return bailey.Errorf(bailey.Conflict, "there is such a run already")
	}
	if err != nil {
		return err
	}
	for _, gpu := range run.GPUs {
		_, err := r.exec(ctx, `INSERT INTO leases (gpu, run_id, workspace_id, owner_id, since) VALUES (?, ?, ?, ?, ?)`,
			gpu, run.ID, run.WorkspaceID, run.OwnerID, run.CreatedAt)
		if err != nil {
			return err
		}
	}
	_, err = r.exec(ctx, `UPDATE workspaces SET state = 'starting', wanted = 'running', reason = '', run_id = ?,
		self_check = '', started_at = ?, active_at = ? WHERE id = ?`, run.ID, run.CreatedAt, run.CreatedAt, run.WorkspaceID)
	if err != nil {
		return err
	}
	_, err = r.exec(ctx, `DELETE FROM runs WHERE workspace_id = ? AND ended_at <> 0 AND id NOT IN (
			SELECT id FROM runs WHERE workspace_id = ? AND ended_at <> 0 ORDER BY created_at DESC, id DESC LIMIT ?)`,
		run.WorkspaceID, run.WorkspaceID, keepRuns)
	return err
}

// Run returns the run; NotFound when there is none.
func (s *Store) Run(ctx context.Context, id string) (bailey.Run, error) {
	sealed, err := one(ctx, s.reads(), scanRun, runColumns+`WHERE r.id = ?`, id)
	if err != nil {
		return bailey.Run{}, fail("run", found("run", err))
	}
	run, err := s.unseal(sealed)
	return run, fail("run", err)
}

// OpenRuns lists the runs that have not ended, oldest first. A run whose token
// does not open is listed without it, so that one damaged row does not hide the
// others from the reconciler; nobody is let into it.
func (s *Store) OpenRuns(ctx context.Context) ([]bailey.Run, error) {
	all, err := list(ctx, s.reads(), scanRun, runColumns+`WHERE r.ended_at = 0 ORDER BY r.created_at, r.id`)
	if err != nil {
		return nil, fail("list open runs", err)
	}
	open := make([]bailey.Run, 0, len(all))
	for _, sealed := range all {
		run, err := s.unseal(sealed)
		if err != nil {
			s.log.ErrorContext(ctx, "run's token does not open", slog.String("run", sealed.ID), slog.Any("error", err))
			run = sealed.Run
		}
		open = append(open, run)
	}
	return open, nil
}

// currentRun returns the run with the state of its workspace, for the methods
// that change both.
type currentRun struct {
	workspaceID   string
	current       bool // it is its workspace's current or last run
	ended         bool
	state, wanted bailey.State
}

func readCurrent(ctx context.Context, r runner, runID string) (currentRun, error) {
	scan := func(row scanner) (c currentRun, err error) {
		var ended int64
		var current string
		err = row.Scan(&c.workspaceID, &current, &ended, (*string)(&c.state), (*string)(&c.wanted))
		c.current, c.ended = current == runID, ended != 0
		return c, err
	}
	c, err := one(ctx, r, scan, `SELECT w.id, w.run_id, r.ended_at, w.state, w.wanted
		FROM runs r JOIN workspaces w ON w.id = r.workspace_id WHERE r.id = ?`, runID)
	return c, found("run", err)
}

var errRunOver = &bailey.Error{Kind: bailey.Conflict, Msg: "the run is over"}

// SetContainer records the engine's id of a run. NotFound when there is no such
// run, Conflict when it has ended: what was created for it is to be removed.
func (s *Store) SetContainer(ctx context.Context, runID, containerID string) error {
	return s.decide(ctx, "set container", func(ctx context.Context, r runner) error {
		c, err := readCurrent(ctx, r, runID)
		if err != nil {
			return err
		}
		if c.ended {
			return errRunOver
		}
		_, err = r.exec(ctx, `UPDATE runs SET container_id = ? WHERE id = ?`, containerID, runID)
		return err
	})
}

// MarkReady sets the workspace Running, if the run is its current, un-ended one
// and it is wanted Running; Conflict otherwise, so that a stop that came during
// the launch is not forgotten. A second call changes nothing.
func (s *Store) MarkReady(ctx context.Context, runID string, at time.Time) error {
	return s.decide(ctx, "mark run ready", func(ctx context.Context, r runner) error {
		c, err := readCurrent(ctx, r, runID)
		if err != nil {
			return err
		}
		switch {
		case c.ended || !c.current:
			return errRunOver
		case c.wanted != bailey.Running || c.state == bailey.Stopping:
			return bailey.Errorf(bailey.Conflict, "the workspace is being stopped")
		case c.state == bailey.Running:
			return nil
		}
		if at.IsZero() {
			at = s.now()
		}
		if _, err := r.exec(ctx, `UPDATE runs SET ready_at = ? WHERE id = ?`, at, runID); err != nil {
			return err
		}
		_, err = r.exec(ctx, `UPDATE workspaces SET state = 'running',
			active_at = CASE WHEN active_at < ? THEN ? ELSE active_at END WHERE id = ?`, at, at, c.workspaceID)
		return err
	})
}

// MarkStopping sets a starting, running or stopping workspace Stopping and
// wanted Stopped, with the reason. A workspace that is down already stays as it
// is. NotFound when there is none.
func (s *Store) MarkStopping(ctx context.Context, workspaceID, reason string) error {
	return s.decide(ctx, "mark workspace stopping", func(ctx context.Context, r runner) error {
		w, err := one(ctx, r, scanWorkspace, workspaceColumns+`WHERE w.id = ?`, workspaceID)
		if err != nil {
			return found("workspace", err)
		}
		if isDown(w.State) {
			return nil // Stopping without a run would never end
		}
		_, err = r.exec(ctx, `UPDATE workspaces SET state = 'stopping', wanted = 'stopped', reason = ? WHERE id = ?`,
			clean(reason, longText), workspaceID)
		return err
	})
}

// EndRun ends the run, frees its leases and sets the workspace Stopped, or
// Failed when failed, with the reason, and wanted Stopped: what runs next is a
// new decision. A second call changes nothing. NotFound when there is no such
// run.
func (s *Store) EndRun(ctx context.Context, runID string, failed bool, reason string, at time.Time) error {
	return s.decide(ctx, "end run", func(ctx context.Context, r runner) error {
		c, err := readCurrent(ctx, r, runID)
		if err != nil || c.ended {
			return err
		}
		if micros(at) == 0 {
			at = s.now()
		}
		reason := clean(reason, longText)
		if _, err := r.exec(ctx, `UPDATE runs SET ended_at = ?, end_reason = ? WHERE id = ?`, at, reason, runID); err != nil {
			return err
		}
		if _, err := r.exec(ctx, `DELETE FROM leases WHERE run_id = ?`, runID); err != nil {
			return err
		}
		state := bailey.Stopped
		if failed {
			state = bailey.Failed
		}
		n, err := r.exec(ctx, `UPDATE workspaces SET state = ?, wanted = 'stopped', reason = ?, started_at = 0 WHERE id = ? AND run_id = ?`,
			state, reason, c.workspaceID, runID)
		if err == nil && n != 1 {
			err = errors.New("an open run is not its workspace's current one")
		}
		return err
	})
}

// SetSelfCheck records the result of the self-check of a run on its workspace.
// NotFound when there is no such run, Conflict when another has taken its place.
func (s *Store) SetSelfCheck(ctx context.Context, runID, result string) error {
	return s.decide(ctx, "set self-check", func(ctx context.Context, r runner) error {
		c, err := readCurrent(ctx, r, runID)
		if err != nil {
			return err
		}
		if !c.current {
			return errRunOver
		}
		_, err = r.exec(ctx, `UPDATE workspaces SET self_check = ? WHERE id = ?`, clean(result, longText), c.workspaceID)
		return err
	})
}
