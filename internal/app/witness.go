package app

import (
	"context"
	"time"

	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/recording"
	"github.com/baileyhq/bailey/internal/sshlive"
	"github.com/baileyhq/bailey/internal/witness"
)

// openWitness makes what sees SSH sessions: the living ones, their index and
// their recordings.
func (a *App) openWitness(ctx context.Context, f *config.Config) error {
	key, err := f.RecordingsKey()
	if err != nil {
		return err
	}
	if key == nil {
		key = a.st.key("recordings")
	}
	exec := int64(f.Recordings.Exec)
	if exec == 0 {
		exec = -1 // none
	}
	recorder, err := recording.New(recording.Config{
		Dir: a.st.path("recordings"), Key: key, Max: int64(f.Recordings.Max), Exec: exec, Log: a.log,
	})
	if err != nil {
		return err
	}
	limits := witness.Limits{Keep: time.Duration(f.Recordings.Keep), Size: int64(f.Recordings.Size), Input: bool(f.Recordings.Input)}
	a.sshLive = &sshlive.Registry{}
	a.witness, err = witness.New(ctx, witness.Config{
		Store: a.store, Recorder: recorder, Live: a.sshLive, Audit: a.journal, Server: a.st.instance,
		Limits: func() witness.Limits { return limits }, Log: a.log,
	})
	return err
}
