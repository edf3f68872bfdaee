package docker

import (
	"context"
	"log/slog"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/baileyhq/bailey/internal/engine"
)

// Resync is the action of an event that says that others may have been lost.
const resync = "resync"

// Watch implements [engine.Engine]. The first event is a "resync" too: from
// then on nothing is missed, so that whoever lists after it knows everything.
func (e *Engine) Watch(ctx context.Context) <-chan engine.Event {
	out := make(chan engine.Event)
	go func() {
		defer close(out)
		const first, most = 100 * time.Millisecond, 5 * time.Second
		pause := first
		for ctx.Err() == nil {
			if e.watchOnce(ctx, out) {
				pause = first
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
				pause = min(2*pause, most)
			}
		}
	}()
	return out
}

// watchOnce passes on events until the stream breaks. It reports whether the
// daemon had answered.
func (e *Engine) watchOnce(ctx context.Context, out chan<- engine.Event) (connected bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := e.api.Ping(ctx, client.PingOptions{}); err != nil {
		e.log.DebugContext(ctx, "docker does not answer", slog.Any("error", err))
		return false
	}
	// The client returns when the daemon has answered, or refused.
	stream := e.api.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.
		Add("type", string(events.ContainerEventType)).
		Add("label", labelInstance+"="+e.cfg.Instance).
		Add("event", string(events.ActionStart), string(events.ActionDie), string(events.ActionOOM), string(events.ActionDestroy))})
	if !send(ctx, out, engine.Event{Action: resync}) {
		return true
	}
	for {
		select {
		case <-ctx.Done():
			return true
		case err := <-stream.Err:
			if ctx.Err() == nil {
				e.log.WarnContext(ctx, "docker events ended", slog.Any("error", err))
			}
			return true
		case m := <-stream.Messages:
			labels := m.Actor.Attributes // labels and, under "name", the container's
			if !e.oursBy(m.Actor.ID, labels["name"], labels) {
				continue
			}
			if !send(ctx, out, engine.Event{Run: labels[labelRun], ID: m.Actor.ID, Action: string(m.Action)}) {
				return true
			}
		}
	}
}

func send(ctx context.Context, out chan<- engine.Event, ev engine.Event) bool {
	select {
	case out <- ev:
		return true
	case <-ctx.Done():
		return false
	}
}
