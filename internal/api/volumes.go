package api

import (
	"context"
	"net/http"

	"github.com/baileyhq/bailey"
)

func (a *API) volumeRoutes() {
	register(a, op(http.MethodGet, "/volumes", "listVolumes", "Your volumes, or everybody's", "volumes"), a.listVolumes)
	register(a, withStatus(op(http.MethodDelete, "/volumes/{id}", "deleteVolume", "Delete a volume and all files in it, for good", "volumes"), http.StatusNoContent), a.deleteVolume)
}

type volumesOutput struct {
	Body struct {
		Volumes []Volume `json:"volumes" nullable:"false"`
	}
}

func (a *API) listVolumes(ctx context.Context, actor bailey.Actor, in *listInput) (*volumesOutput, error) {
	list, err := a.cfg.Workspaces.Volumes(ctx, actor, in.All)
	if err != nil {
		return nil, err
	}
	out := &volumesOutput{}
	out.Body.Volumes = all(list, volumeOf)
	return out, nil
}

type deleteVolumeInput struct {
	IDInput
	Confirm string `query:"confirm" required:"true" maxLength:"64" doc:"The volume's name, typed again"`
}

func (a *API) deleteVolume(ctx context.Context, actor bailey.Actor, in *deleteVolumeInput) (*none, error) {
	return nil, a.cfg.Workspaces.DeleteVolume(ctx, actor, in.ID, in.Confirm)
}
