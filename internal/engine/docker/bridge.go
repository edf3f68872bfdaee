package docker

import (
	"context"
	"fmt"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/baileyhq/bailey/internal/engine"
)

// bridgeName is the Docker network of this installation's workspaces of network
// mode bridge.
func (e *Engine) bridgeName() string { return "bailey-" + e.cfg.Instance }

// noNeighbours is the option that keeps containers on one bridge apart. The
// host, and whatever the host routes to, can be reached from it all the same:
// that is what the mode means.
const noNeighbours = "com.docker.network.bridge.enable_icc"

// ensureBridge makes the network if it is not there. A network of that name that
// lets workspaces reach each other is refused.
func (e *Engine) ensureBridge(ctx context.Context) error {
	name := e.bridgeName()
	found, err := e.api.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		_, err = e.api.NetworkCreate(ctx, name, client.NetworkCreateOptions{
			Driver: "bridge", Options: map[string]string{noNeighbours: "false"},
			Labels: map[string]string{labelInstance: e.cfg.Instance},
		})
		if err == nil || cerrdefs.IsConflict(err) { // somebody else was faster
			found, err = e.api.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
		}
	}
	if err != nil {
		return wrap("make network "+name, err)
	}
	n := found.Network
	if n.Driver != "bridge" || n.Options[noNeighbours] != "false" || n.Labels[labelInstance] != e.cfg.Instance {
		return fmt.Errorf("network %s was made by somebody else, or lets workspaces reach each other: %w", name, engine.ErrConflict)
	}
	return nil
}
