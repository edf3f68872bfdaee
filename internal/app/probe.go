package app

import (
	"context"
	"log/slog"
	"os"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/engine/docker"
)

// Probe asks the Docker Engine at host what it can do, without touching any
// state: for doctor.
func Probe(ctx context.Context, host string, log *slog.Logger) (engine.Capabilities, error) {
	dir, err := os.MkdirTemp("", "bailey-probe-")
	if err != nil {
		return engine.Capabilities{}, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // an empty folder
	me, err := os.Executable()
	if err != nil {
		return engine.Capabilities{}, err
	}
	e, err := docker.New(docker.Config{Host: host, Instance: bailey.NewID(), Root: dir, AgentPath: me, Log: log})
	if err != nil {
		return engine.Capabilities{}, err
	}
	defer e.Close() //nolint:errcheck // nothing was opened but a client
	return e.Probe(ctx)
}
