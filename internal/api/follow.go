package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/baileyhq/bailey"
)

const (
	beatEach     = 20 * time.Second // so that nothing in between takes a quiet stream for a dead one
	maxFollowers = 64               // streams of one person at a time: each asks the store every few seconds
)

type followInput struct {
	StagesInput
	LastEventID int64 `header:"Last-Event-ID" minimum:"0" doc:"As browsers send it when they come back"`
}

// followWorkspace streams stages as server-sent events, until the workspace is
// deleted or the credential ends. What can be refused is refused before the
// first byte. A slow reader loses nothing, it is fed from the store; one that
// takes nothing is cut off by edge, and comes back with Last-Event-ID.
func (a *API) followWorkspace(ctx context.Context, actor bailey.Actor, in *followInput) (*huma.StreamResponse, error) {
	w, err := a.cfg.Workspaces.Get(ctx, actor, in.Ref)
	if err != nil {
		return nil, err
	}
	leave, err := a.followers.enter(actor.UserID)
	if err != nil {
		return nil, err
	}
	stages, err := a.cfg.Workspaces.Follow(ctx, actor, w.ID, max(in.After, in.LastEventID))
	if err != nil {
		leave()
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer leave()
		r, w := humago.Unwrap(hc)
		ended, release := a.over(w, actor)
		defer release()
		beat := time.NewTicker(beatEach)
		defer beat.Stop()
		stream(w, r, stages, ended, beat.C)
	}}, nil
}

// over is closed when an actor's stream must end: their credential has ended, or
// they may not come from there any more. A write that waits for a client who
// reads nothing is cut off then.
func (a *API) over(w http.ResponseWriter, actor bailey.Actor) (over <-chan struct{}, release func()) {
	over, leave := a.cfg.Identity.Over(actor)
	stop, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-stop:
		case <-over:
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now())
		}
	}()
	return over, func() {
		close(stop)
		<-gone
		leave()
	}
}

// stream writes stages until there are no more, the credential has ended, or
// the client has gone away.
func stream(w http.ResponseWriter, r *http.Request, stages <-chan bailey.Stage, ended <-chan struct{}, beat <-chan time.Time) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // an nginx in front must not collect
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	rc := http.NewResponseController(w)
	send := func(event string) bool {
		_, err := w.Write([]byte(event))
		return err == nil && rc.Flush() == nil
	}
	// The first bytes at once: the client learns that it is connected.
	if !send("retry: 2000\n\n") {
		return
	}
	for {
		event := ": still here\n\n"
		select {
		case s, ok := <-stages:
			if !ok {
				return
			}
			data, err := json.Marshal(stageOf(s))
			if err != nil {
				panic("api: " + err.Error()) // strings, numbers and times are always possible
			}
			event = fmt.Sprintf("id: %d\nevent: stage\ndata: %s\n\n", s.Seq, data)
		case <-beat:
		case <-ended:
			return
		case <-r.Context().Done():
			return
		}
		if !send(event) {
			return
		}
	}
}

// followers counts the open streams of each person.
type followers struct {
	mu   sync.Mutex // guards open
	open map[string]int
}

// enter counts one more, until leave.
func (f *followers) enter(userID string) (leave func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[userID] >= maxFollowers {
		return nil, &bailey.Error{
			Kind: bailey.TooMany, Msg: fmt.Sprintf("you follow %d launches already", maxFollowers),
			Hint: "close some of the pages or programs that do",
		}
	}
	f.open[userID]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.open[userID]--; f.open[userID] == 0 {
			delete(f.open, userID)
		}
	}, nil
}
