package workspace

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
)

// volumeKey is the lock of an owner's volume of a name.
func volumeKey(ownerID, name string) string { return "volume " + ownerID + "/" + name }

// Volumes lists the actor's volumes, or everybody's (all).
func (s *Service) Volumes(ctx context.Context, actor bailey.Actor, all bool) ([]bailey.Volume, error) {
	ownerID := actor.UserID
	if all {
		if err := s.fleet(ctx, actor, "volumes"); err != nil {
			return nil, err
		}
		ownerID = ""
	} else if ownerID == "" {
		return []bailey.Volume{}, nil // an empty owner would mean everybody
	} else if !policy.Decide(actor, policy.VolumeView, policy.Thing{OwnerID: ownerID}) {
		return []bailey.Volume{}, nil // the credential is not for it
	}
	return s.cfg.Store.Volumes(ctx, ownerID)
}

// DeleteVolume deletes a volume for good. confirm must be its name. Conflict
// while a workspace has it.
func (s *Service) DeleteVolume(ctx context.Context, actor bailey.Actor, id, confirm string) error {
	v, err := s.volume(ctx, actor, id)
	if err != nil {
		return err
	}
	if confirm != v.Name {
		return &bailey.Error{
			Kind: bailey.Invalid,
			Msg:  "the volume was not deleted: its name was not repeated",
			Hint: "to delete all that is in it for good, type its name: " + v.Name,
		}
	}
	// From here to the end no workspace of that name can be made, which would
	// take the volume over while its files go.
	unlock, err := s.locks.lock(ctx, volumeKey(v.OwnerID, v.Name))
	if err != nil {
		return err
	}
	defer unlock()
	if v, err = s.volume(ctx, actor, id); err != nil {
		return err
	}
	if v.InUseBy != "" {
		return &bailey.Error{
			Kind: bailey.Conflict,
			Msg:  "the volume " + v.Name + " belongs to a workspace",
			Hint: "delete the workspace first; its volume stays until you delete it too",
		}
	}
	code := audit.ByUser
	if actor.UserID != v.OwnerID {
		code = audit.ByAdmin
	}
	// Not the caller's patience but that of the disk: there may be millions of files.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
	defer cancel()
	if err := s.cfg.Audit.Append(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.VolumeDelete, Outcome: audit.Success, Reason: code,
		Target: audit.Target{Kind: "volume", ID: v.ID, Name: v.Name},
	}); err != nil {
		return unwritable("the volume was not deleted", err)
	}
	// Files first: a row without files can be deleted again, files without a
	// row would stay on the disk for ever, unseen.
	if err := s.cfg.Engine.RemoveVolume(ctx, v.ID); err != nil {
		return fromEngine(fmt.Sprintf("remove volume %s", v.ID), err)
	}
	if err := s.cfg.Store.DeleteVolume(ctx, v.ID); err != nil {
		return hidden(err, noVolume())
	}
	s.log.InfoContext(ctx, "volume deleted", slog.String("volume", v.ID), slog.String("owner", v.OwnerID),
		slog.String("by", actor.UserID))
	return nil
}

// volume returns a volume that the actor may delete.
func (s *Service) volume(ctx context.Context, actor bailey.Actor, id string) (bailey.Volume, error) {
	v, err := s.cfg.Store.Volume(ctx, id)
	if err != nil {
		return bailey.Volume{}, hidden(err, noVolume())
	}
	thing := policy.Thing{OwnerID: v.OwnerID}
	if policy.Decide(actor, policy.VolumeDelete, thing) {
		return v, nil
	}
	s.denied(ctx, actor, audit.Target{Kind: "volume", ID: v.ID, Name: v.Name})
	if policy.Decide(actor, policy.VolumeView, thing) {
		return bailey.Volume{}, bailey.Errorf(bailey.Denied, "you may not delete this volume")
	}
	return bailey.Volume{}, noVolume()
}
