package workspace

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/policy"
)

// lastWords is the stage that keeps what a failed container wrote last. It is
// part of the logs, which are for the owner alone, and never shown as a stage.
const lastWords = "log"

// The status of a stage.
const (
	begun    = "begin"
	finished = "done"
	broken   = "failed"
)

// steps collects the stages of a decision, which is over before any of them
// can be stored.
type steps struct {
	workspace, run string
	now            func() time.Time
	since          time.Time // when the current one began; monotonic
	stages         []bailey.Stage
}

func (t *steps) done(name, detail string) {
	t.stages = append(t.stages, bailey.Stage{
		Workspace: t.workspace, Run: t.run, Name: name, Status: finished, Detail: detail,
		At: t.now(), Took: time.Since(t.since),
	})
	t.since = time.Now()
}

// A stageWriter stores the stages of one run in order, behind its keeper: a
// launch does not wait for the disk to say how far it is.
type stageWriter struct {
	s    *Service
	more chan struct{} // one slot: queue has grown, or closed is set

	mu     sync.Mutex // guards what follows
	queue  []bailey.Stage
	closed bool
}

func newStageWriter(s *Service) *stageWriter {
	return &stageWriter{s: s, more: make(chan struct{}, 1)}
}

// maxQueue bounds what waits for a store that does not answer.
const maxQueue = 256

func (w *stageWriter) put(stages ...bailey.Stage) {
	w.mu.Lock()
	if len(w.queue)+len(stages) <= maxQueue {
		w.queue = append(w.queue, stages...)
	}
	w.mu.Unlock()
	nudge(w.more)
}

// close tells write to return when it has stored what is there.
func (w *stageWriter) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	nudge(w.more)
}

// write stores stages until close. It does not end with ctx: what was reached
// before the server stopped is still written down.
func (w *stageWriter) write(ctx context.Context) {
	for range w.more {
		for {
			w.mu.Lock()
			queue, closed := w.queue, w.closed
			w.queue = nil
			w.mu.Unlock()
			for _, st := range queue {
				w.store(ctx, st)
			}
			if closed {
				return
			}
			if len(queue) == 0 {
				break
			}
		}
	}
}

func (w *stageWriter) store(ctx context.Context, st bailey.Stage) {
	ctx, cancel := settle(ctx)
	defer cancel()
	_, err := w.s.cfg.Store.AppendStage(ctx, st)
	switch {
	case bailey.KindOf(err) == bailey.NotFound: // the workspace was deleted meanwhile
	case err != nil:
		w.s.log.WarnContext(ctx, "stage not stored", slog.String("workspace", st.Workspace), slog.String("stage", st.Name), slog.Any("error", err))
	}
	w.s.news.tell(st.Workspace)
}

// Stages returns the stages of a workspace's launches after seq, oldest first.
func (s *Service) Stages(ctx context.Context, actor bailey.Actor, id string, after int64) ([]bailey.Stage, error) {
	if _, err := s.find(ctx, actor, policy.WorkspaceView, id); err != nil {
		return nil, err
	}
	stages, err := s.cfg.Store.Stages(ctx, id, after)
	if err != nil {
		return nil, err
	}
	shown := make([]bailey.Stage, 0, len(stages))
	for _, st := range stages {
		if st.Name != lastWords {
			shown = append(shown, st)
		}
	}
	return shown, nil
}

// followEach is how often a follower looks without having been told: stages of
// another server's launches arrive unannounced.
const followEach = 2 * time.Second

// Follow streams stages after seq as they happen until ctx ends or the
// workspace is deleted; then the channel is closed. A slow reader loses
// nothing: it is fed from the store, which keeps the newest 200.
func (s *Service) Follow(ctx context.Context, actor bailey.Actor, id string, after int64) (<-chan bailey.Stage, error) {
	if _, err := s.find(ctx, actor, policy.WorkspaceView, id); err != nil {
		return nil, err
	}
	out := make(chan bailey.Stage)
	go func() { // ends with ctx; its reader is its owner and sees it end
		defer close(out)
		for {
			news := s.news.next(id)
			stages, err := s.Stages(ctx, actor, id, after)
			if err != nil && bailey.KindOf(err) != bailey.Unavailable {
				return // gone, no longer the actor's to see, or ctx has ended
			}
			for _, st := range stages {
				select {
				case out <- st:
					after = st.Seq
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-news:
			case <-time.After(followEach):
			case <-s.over:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// withoutToken blots the run's token out of a container's output: Jupyter
// likes to print it.
func withoutToken(out []byte, token string) []byte {
	if token == "" {
		return out
	}
	return bytes.ReplaceAll(out, []byte(token), []byte("[token]"))
}

// lastLines returns the newest lines of out.
func lastLines(out []byte, lines int) []byte {
	end := len(out)
	if end > 0 && out[end-1] == '\n' {
		end--
	}
	for i := end - 1; i >= 0; i-- {
		if out[i] == '\n' {
			if lines--; lines == 0 {
				return out[i+1:]
			}
		}
	}
	return out
}
