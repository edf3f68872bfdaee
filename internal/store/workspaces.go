package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
)

// workspaceColumns reads workspaces with their owner's name and, while the
// current run has not ended, the GPUs leased to it.
const workspaceColumns = `SELECT w.id, w.owner_id, u.name, w.name, w.class, w.slug, w.volume_id, w.state, w.wanted,
		w.reason, w.run_id, w.self_check, w.created_at, w.started_at, w.active_at, COALESCE(r.gpus, '[]')
	FROM workspaces w
	JOIN users u ON u.id = w.owner_id
	LEFT JOIN runs r ON r.id = w.run_id AND r.ended_at = 0 `

func scanWorkspace(row scanner) (w bailey.Workspace, err error) {
	var created, started, active int64
	var gpus string
	err = row.Scan(&w.ID, &w.OwnerID, &w.Owner, &w.Name, &w.Class, &w.Slug, &w.VolumeID, (*string)(&w.State), (*string)(&w.Wanted),
		&w.Reason, &w.RunID, &w.SelfCheck, &created, &started, &active, &gpus)
	if err != nil {
		return w, err
	}
	w.CreatedAt, w.StartedAt, w.ActiveAt = fromMicros(created), fromMicros(started), fromMicros(active)
	w.GPUs, err = fromJSON[[]string](gpus)
	return w, err
}

// slugRE is what may be the first label of a workspace's host name.
var slugRE = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$`)

// newSlug returns the name, cut, and 60 random bits: a label of 40 characters
// at most that cannot be guessed from the name.
func newSlug(name string) string {
	return strings.TrimRight(name[:min(len(name), 27)], "-") + "-" + strings.ToLower(rand.Text()[:12])
}

// CreateWorkspace stores w, stopped, together with its volume: the owner's
// volume of that name if it is there, else a new one. It uses OwnerID, Name,
// Class and Slug of w, makes a slug if that is empty, and sets everything else.
// NotFound when there is no such owner, Conflict when the owner has a workspace
// of that name or the slug is taken, Invalid when the name or the slug cannot
// be one.
func (s *Store) CreateWorkspace(ctx context.Context, w bailey.Workspace) (bailey.Workspace, error) {
	if err := bailey.CheckName("workspace", w.Name); err != nil {
		return bailey.Workspace{}, err
	}
	if w.Slug == "" {
		w.Slug = newSlug(w.Name)
	}
	if !slugRE.MatchString(w.Slug) {
		return bailey.Workspace{}, bailey.Errorf(bailey.Invalid, "the slug is not a DNS label of at most 40 characters")
	}
	var made bailey.Workspace
	err := s.decide(ctx, "create workspace", func(ctx context.Context, r runner) error {
		owner, err := one(ctx, r, scanUser, userColumns+`WHERE u.id = ?`, w.OwnerID)
		if err != nil {
			return found("user", err)
		}
		if err := checkFree(ctx, r, w); err != nil {
			return err
		}
		now := s.clock()
		made = bailey.Workspace{
			ID: bailey.NewID(), OwnerID: owner.ID, Owner: owner.Name, Name: w.Name, Class: w.Class, Slug: w.Slug,
			State: bailey.Stopped, Wanted: bailey.Stopped, CreatedAt: now, GPUs: []string{},
		}
		if made.VolumeID, err = s.volumeFor(ctx, r, owner, w.Name); err != nil {
			return err
		}
		_, err = r.exec(ctx, `INSERT INTO workspaces (id, owner_id, name, class, slug, volume_id, state, wanted, reason,
				run_id, self_check, stage_seq, created_at, started_at, active_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, '', '', '', 0, ?, 0, 0)`,
			made.ID, made.OwnerID, made.Name, made.Class, made.Slug, made.VolumeID, made.State, made.Wanted, now)
		return err
	})
	if err != nil {
		return bailey.Workspace{}, err
	}
	return made, nil
}

// checkFree refuses a name that the owner has used and a slug that anybody has.
func checkFree(ctx context.Context, r runner, w bailey.Workspace) error {
	n, err := one(ctx, r, scanInt, `SELECT COUNT(*) FROM workspaces WHERE owner_id = ? AND name = ?`, w.OwnerID, w.Name)
	if err != nil {
		return err
	}
	if n > 0 {
		return &bailey.Error{
			Kind: bailey.Conflict,
			Msg:  "there is a workspace " + w.Name + " already",
			Hint: "start that one, or choose another name",
		}
	}
	n, err = one(ctx, r, scanInt, `SELECT COUNT(*) FROM workspaces WHERE slug = ?`, w.Slug)
	if err == nil && n > 0 {
		err = bailey.Errorf(bailey.Conflict, "the slug is taken")
	}
	return err
}

// volumeFor returns the id of the owner's volume of that name, which may hold
// the files of a deleted workspace, or of a new one.
func (s *Store) volumeFor(ctx context.Context, r runner, owner bailey.User, name string) (string, error) {
	v, err := one(ctx, r, scanVolume, volumeColumns+`WHERE v.owner_id = ? AND v.name = ?`, owner.ID, name)
	if err == nil {
		if v.InUseBy != "" {
			return "", bailey.Errorf(bailey.Conflict, "the volume %s belongs to another workspace", name)
		}
		return v.ID, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return "", err
	}
	id := bailey.NewID()
	_, err = r.exec(ctx, `INSERT INTO volumes (id, owner_id, name, uid, created_at) VALUES (?, ?, ?, ?, ?)`,
		id, owner.ID, name, owner.UID, s.clock())
	return id, err
}

// Workspace returns the workspace; NotFound when there is none.
func (s *Store) Workspace(ctx context.Context, id string) (bailey.Workspace, error) {
	w, err := one(ctx, s.reads(), scanWorkspace, workspaceColumns+`WHERE w.id = ?`, id)
	return w, fail("workspace", found("workspace", err))
}

// WorkspaceBySlug returns the workspace; NotFound when there is none.
func (s *Store) WorkspaceBySlug(ctx context.Context, slug string) (bailey.Workspace, error) {
	w, err := one(ctx, s.reads(), scanWorkspace, workspaceColumns+`WHERE w.slug = ?`, slug)
	return w, fail("workspace by slug", found("workspace", err))
}

// WorkspaceByName returns the owner's workspace of that name; NotFound when
// there is none.
func (s *Store) WorkspaceByName(ctx context.Context, ownerID, name string) (bailey.Workspace, error) {
	w, err := one(ctx, s.reads(), scanWorkspace, workspaceColumns+`WHERE w.owner_id = ? AND w.name = ?`, ownerID, name)
	return w, fail("workspace by name", found("workspace", err))
}

// Workspaces lists those of the owner, or all when ownerID is empty, by the
// owner's name and their own.
func (s *Store) Workspaces(ctx context.Context, ownerID string) ([]bailey.Workspace, error) {
	query, args := ownedBy(ownerID, "w.owner_id")
	all, err := list(ctx, s.reads(), scanWorkspace, workspaceColumns+query+`ORDER BY u.name, w.name`, args...)
	return all, fail("list workspaces", err)
}

// ownedBy returns the condition that column is the owner; none for no owner.
func ownedBy(ownerID, column string) (where string, args []any) {
	if ownerID == "" {
		return "", nil
	}
	return "WHERE " + column + " = ? ", []any{ownerID}
}

// DeleteWorkspace removes a stopped or failed workspace with the record of its
// runs and stages; its volume stays. NotFound when there is none, Conflict in
// any other state.
func (s *Store) DeleteWorkspace(ctx context.Context, id string) error {
	return s.decide(ctx, "delete workspace", func(ctx context.Context, r runner) error {
		w, err := one(ctx, r, scanWorkspace, workspaceColumns+`WHERE w.id = ?`, id)
		if err != nil {
			return found("workspace", err)
		}
		if !isDown(w.State) {
			return &bailey.Error{
				Kind: bailey.Conflict,
				Msg:  "the workspace " + w.Name + " is " + string(w.State),
				Hint: "stop it first",
			}
		}
		_, err = r.exec(ctx, `DELETE FROM workspaces WHERE id = ?`, id)
		return err
	})
}

// isDown reports whether a workspace in this state has no run that counts.
func isDown(s bailey.State) bool { return s == bailey.Stopped || s == bailey.Failed }

// TouchActive moves ActiveAt forward to at, or to now if at lies ahead; it never
// moves it back. NotFound when there is no such workspace.
func (s *Store) TouchActive(ctx context.Context, workspaceID string, at time.Time) error {
	// A time from before a clock was put right would keep the workspace awake
	// for ever.
	if now := s.clock(); at.After(now) {
		at = now
	}
	return s.update(ctx, "touch workspace", "workspace",
		`UPDATE workspaces SET active_at = CASE WHEN active_at < ? THEN ? ELSE active_at END WHERE id = ?`, at, at, workspaceID)
}

const volumeColumns = `SELECT v.id, v.owner_id, u.name, v.name, v.uid, v.created_at, COALESCE(w.id, '')
	FROM volumes v
	JOIN users u ON u.id = v.owner_id
	LEFT JOIN workspaces w ON w.volume_id = v.id `

func scanVolume(row scanner) (v bailey.Volume, err error) {
	var created int64
	err = row.Scan(&v.ID, &v.OwnerID, &v.Owner, &v.Name, &v.UID, &created, &v.InUseBy)
	v.CreatedAt = fromMicros(created)
	return v, err
}

// Volumes lists those of the owner, or all when ownerID is empty, by the
// owner's name and their own.
func (s *Store) Volumes(ctx context.Context, ownerID string) ([]bailey.Volume, error) {
	query, args := ownedBy(ownerID, "v.owner_id")
	all, err := list(ctx, s.reads(), scanVolume, volumeColumns+query+`ORDER BY u.name, v.name`, args...)
	return all, fail("list volumes", err)
}

// Volume returns the volume; NotFound when there is none.
func (s *Store) Volume(ctx context.Context, id string) (bailey.Volume, error) {
	v, err := one(ctx, s.reads(), scanVolume, volumeColumns+`WHERE v.id = ?`, id)
	return v, fail("volume", found("volume", err))
}

// DeleteVolume removes the row of a volume. NotFound when there is none,
// Conflict while a workspace has it.
func (s *Store) DeleteVolume(ctx context.Context, id string) error {
	return s.decide(ctx, "delete volume", func(ctx context.Context, r runner) error {
		v, err := one(ctx, r, scanVolume, volumeColumns+`WHERE v.id = ?`, id)
		if err != nil {
			return found("volume", err)
		}
		if v.InUseBy != "" {
			return &bailey.Error{
				Kind: bailey.Conflict,
				Msg:  "the volume " + v.Name + " belongs to a workspace",
				Hint: "delete the workspace first; its volume stays until you delete it too",
			}
		}
		_, err = r.exec(ctx, `DELETE FROM volumes WHERE id = ?`, id)
		return err
	})
}

func scanLease(row scanner) (l bailey.Lease, err error) {
	var since int64
	err = row.Scan(&l.GPU, &l.RunID, &l.WorkspaceID, &l.OwnerID, &since)
	l.Since = fromMicros(since)
	return l, err
}

// Leases lists who holds which GPU, by GPU.
func (s *Store) Leases(ctx context.Context) ([]bailey.Lease, error) {
	all, err := list(ctx, s.reads(), scanLease, `SELECT gpu, run_id, workspace_id, owner_id, since FROM leases ORDER BY gpu`)
	return all, fail("list leases", err)
}

// keepStages is how many stages of a workspace are kept.
const keepStages = 200

// AppendStage stores a stage and returns it with its Seq: one more than that of
// the workspace's newest, without gaps, and seen by readers in that order. At
// is now if it is zero. NotFound when there is no such workspace.
func (s *Store) AppendStage(ctx context.Context, st bailey.Stage) (bailey.Stage, error) {
	st.Detail = clean(st.Detail, longText)
	if st.At.IsZero() {
		st.At = s.now()
	}
	st.At = fromMicros(micros(st.At))
	err := s.change(ctx, "append stage", func(ctx context.Context, r runner) (err error) {
		// The row stays locked until the commit, so the next stage is numbered
		// after this one is visible.
		st.Seq, err = one(ctx, r, scanInt, `UPDATE workspaces SET stage_seq = stage_seq + 1 WHERE id = ? RETURNING stage_seq`, st.Workspace)
		if err != nil {
			return found("workspace", err)
		}
		_, err = r.exec(ctx, `INSERT INTO stages (workspace_id, seq, run_id, name, status, detail, at, took) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			st.Workspace, st.Seq, st.Run, st.Name, st.Status, st.Detail, st.At, int64(st.Took))
		if err != nil {
			return err
		}
		_, err = r.exec(ctx, `DELETE FROM stages WHERE workspace_id = ? AND seq <= ?`, st.Workspace, st.Seq-keepStages)
		return err
	})
	if err != nil {
		return bailey.Stage{}, err
	}
	return st, nil
}

func scanStage(row scanner) (st bailey.Stage, err error) {
	var at, took int64
	err = row.Scan(&st.Workspace, &st.Seq, &st.Run, &st.Name, &st.Status, &st.Detail, &at, &took)
	st.At, st.Took = fromMicros(at), time.Duration(took)
	return st, err
}

// Stages lists the workspace's stages after seq, oldest first; none when there
// is no such workspace. The newest 200 are kept.
func (s *Store) Stages(ctx context.Context, workspaceID string, after int64) ([]bailey.Stage, error) {
	all, err := list(ctx, s.reads(), scanStage, `SELECT workspace_id, seq, run_id, name, status, detail, at, took
		FROM stages WHERE workspace_id = ? AND seq > ? ORDER BY seq`, workspaceID, after)
	return all, fail("list stages", err)
}
