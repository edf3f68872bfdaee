package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/baileyhq/bailey/internal/engine"
)

// idRE is what a container's id may look like; it becomes part of a URL.
var idRE = regexp.MustCompile(`^[0-9a-f]{12,64}$`)

// Create implements [engine.Engine].
func (e *Engine) Create(ctx context.Context, s engine.Spec) (string, error) {
	s = s.Defaulted()
	if err := s.Check(); err != nil {
		return "", fmt.Errorf("create container: %w", err)
	}
	id, err := e.create(ctx, s)
	if err != nil {
		return "", fmt.Errorf("create container of run %s: %w", s.Run, err)
	}
	return id, nil
}

func (e *Engine) create(ctx context.Context, s engine.Spec) (string, error) {
	defer e.lockRun(s.Run)()
	if id, err := e.existing(ctx, s); !errors.Is(err, engine.ErrNotFound) {
		return id, err
	}
	img, err := e.resolve(ctx, s.Image)
	if err != nil {
		return "", err
	}
	if err := img.fit(s.Image); err != nil {
		return "", err
	}
	f, err := e.factsFor(ctx, s, img)
	if err != nil {
		return "", err
	}
	if err := e.EnsureVolume(ctx, s.VolumeID, s.UID); err != nil {
		return "", err
	}
	if err := e.makeRunDir(ctx, s); err != nil {
		return "", fmt.Errorf("write run directory: %w", err)
	}
	id, err := e.createWith(ctx, s, f)
	if err != nil {
		// The directory is of no use without its container; ctx may be over.
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return "", errors.Join(err, removeTree(cleanup, e.runs, s.Run))
	}
	return id, nil
}

// createWith asks the daemon for the container and makes sure that what it
// stored is of the image that was approved.
func (e *Engine) createWith(ctx context.Context, s engine.Spec, f facts) (string, error) {
	if s.Network == engine.NetworkBridge {
		if err := e.ensureBridge(ctx); err != nil {
			return "", err
		}
	}
	c := compileDocker(s, f)
	made, err := e.api.ContainerCreate(ctx, client.ContainerCreateOptions{Config: &c.Config, HostConfig: &c.Host, Name: c.Name})
	if cerrdefs.IsConflict(err) { // another process on this daemon was faster
		return "", fmt.Errorf("container %s exists: %w", c.Name, engine.ErrConflict)
	}
	if cerrdefs.IsNotFound(err) {
		return "", fmt.Errorf("%w: %w", engine.ErrNoImage, err)
	}
	if err != nil {
		return "", wrap("ask docker", err)
	}
	for _, w := range made.Warnings {
		e.log.WarnContext(ctx, "docker warns about a container", slog.String("run", s.Run), slog.String("warning", w))
	}
	stored, err := e.api.ContainerInspect(ctx, made.ID, client.ContainerInspectOptions{})
	if err == nil && stored.Container.Image != f.ImageID {
		err = fmt.Errorf("docker made it of image %s instead of %s", stored.Container.Image, f.ImageID)
	}
	if err == nil {
		err = e.noteContainer(s.Run, made.ID)
	}
	if err != nil {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, rmErr := e.api.ContainerRemove(cleanup, made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		return "", errors.Join(wrap("check what docker made", err), rmErr)
	}
	return made.ID, nil
}

// existing returns the id of the run's container if there is one that was made
// from the same Spec by us.
func (e *Engine) existing(ctx context.Context, s engine.Spec) (string, error) {
	name := containerName(s.Name, s.Run)
	found, err := e.api.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		// Under another name, it is a run of another specification.
		if other := e.noted(s.Run); other != "" {
			if _, err := e.own(ctx, other); err == nil {
				return "", fmt.Errorf("run %s has container %s: %w", s.Run, other, engine.ErrConflict)
			}
		}
	}
	if err != nil {
		return "", wrap("look for container "+name, err)
	}
	c := found.Container
	if !e.ours(c) {
		return "", fmt.Errorf("container %s belongs to somebody else: %w", name, engine.ErrConflict)
	}
	if got := c.Config.Labels[labelSpec]; got != s.Hash() {
		return "", fmt.Errorf("container %s was made from another specification: %w", name, engine.ErrConflict)
	}
	return c.ID, nil
}

// ours reports whether a container was made by this installation.
func (e *Engine) ours(c container.InspectResponse) bool {
	return c.Config != nil && c.HostConfig != nil && c.State != nil && e.oursBy(c.ID, c.Name, c.Config.Labels)
}

// oursBy is ours on what events tell too. A label alone proves nothing, because
// labels can come with an image that somebody else started; so the name must
// fit as well, or, should somebody have renamed the container, our own note of
// its id.
func (e *Engine) oursBy(id, name string, labels map[string]string) bool {
	if labels[labelInstance] != e.cfg.Instance {
		return false
	}
	run := labels[labelRun]
	return strings.TrimPrefix(name, "/") == containerName(labels[labelName], run) || e.noted(run) == id
}

// own inspects a container of ours. Whatever is not ours does not exist.
func (e *Engine) own(ctx context.Context, id string) (container.InspectResponse, error) {
	if !idRE.MatchString(id) {
		return container.InspectResponse{}, fmt.Errorf("container id %q is malformed: %w", id, engine.ErrNotFound)
	}
	found, err := e.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return container.InspectResponse{}, wrap("inspect container "+id, err)
	}
	if !e.ours(found.Container) {
		return container.InspectResponse{}, fmt.Errorf("container %s is not ours: %w", id, engine.ErrNotFound)
	}
	return found.Container, nil
}

// Start implements [engine.Engine]. Starting what runs is no error.
func (e *Engine) Start(ctx context.Context, id string) error {
	c, err := e.own(ctx, id)
	if err != nil {
		return err
	}
	_, err = e.api.ContainerStart(ctx, c.ID, client.ContainerStartOptions{})
	return wrap("start container "+c.ID, err)
}

// Stop implements [engine.Engine].
func (e *Engine) Stop(ctx context.Context, id string) error {
	c, err := e.own(ctx, id)
	if err != nil {
		return err
	}
	// Without a time-out of ours the daemon takes the container's, which is the Spec's.
	_, err = e.api.ContainerStop(ctx, c.ID, client.ContainerStopOptions{})
	return wrap("stop container "+c.ID, err)
}

// Remove implements [engine.Engine].
func (e *Engine) Remove(ctx context.Context, id string) error {
	c, err := e.own(ctx, id)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		// Gone already, or never ours: what it may have left behind is ours.
		return e.removeRunDirOf(ctx, id)
	case err != nil:
		return err
	}
	_, err = e.api.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if cerrdefs.IsConflict(err) { // somebody is removing it right now
		err = e.awaitGone(ctx, c.ID)
	}
	if err != nil && !cerrdefs.IsNotFound(err) {
		return wrap("remove container "+c.ID, err)
	}
	e.closeEgress(c.Config.Labels[labelRun])
	if err := removeTree(ctx, e.runs, c.Config.Labels[labelRun]); err != nil {
		return fmt.Errorf("remove run directory: %w", err)
	}
	return nil
}

func (e *Engine) removeRunDirOf(ctx context.Context, id string) error {
	run, err := e.runOf(id)
	if err == nil && run != "" {
		e.closeEgress(run)
		err = removeTree(ctx, e.runs, run)
	}
	if err != nil {
		return fmt.Errorf("remove run directory: %w", err)
	}
	return nil
}

// awaitGone polls until the daemon no longer knows the container.
func (e *Engine) awaitGone(ctx context.Context, id string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := e.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if cerrdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Inspect implements [engine.Engine].
func (e *Engine) Inspect(ctx context.Context, id string) (engine.Status, error) {
	c, err := e.own(ctx, id)
	if err != nil {
		return engine.Status{}, err
	}
	return statusOf(c), nil
}

// List implements [engine.Engine].
func (e *Engine) List(ctx context.Context) ([]engine.Status, error) {
	list, err := e.api.ContainerList(ctx, client.ContainerListOptions{
		All:     true,
		Filters: client.Filters{}.Add("label", labelInstance+"="+e.cfg.Instance),
	})
	if err != nil {
		return nil, wrap("list containers", err)
	}
	var out []engine.Status
	for _, item := range list.Items {
		c, err := e.own(ctx, item.ID)
		if errors.Is(err, engine.ErrNotFound) {
			continue // removed since, or not ours after all
		}
		if err != nil {
			return nil, err
		}
		out = append(out, statusOf(c))
	}
	slices.SortFunc(out, func(a, b engine.Status) int { return strings.Compare(a.Run, b.Run) })
	return out, nil
}

func statusOf(c container.InspectResponse) engine.Status {
	labels := c.Config.Labels
	return engine.Status{
		ID: c.ID, Run: labels[labelRun], Workspace: labels[labelWorkspace], Owner: labels[labelOwner],
		Class: labels[labelClass], Image: c.Image, SpecHash: labels[labelSpec],
		// A container that is being restarted or paused is not one that serves.
		Running:   c.State.Running && !c.State.Restarting && !c.State.Paused,
		StartedAt: timeOf(c.State.StartedAt), EndedAt: timeOf(c.State.FinishedAt),
		ExitCode: c.State.ExitCode, OOMKilled: c.State.OOMKilled, Error: c.State.Error,
	}
}

// timeOf reads the daemon's time; year 1 is its zero.
func timeOf(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t.UTC()
}
