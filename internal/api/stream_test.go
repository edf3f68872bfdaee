package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey"
)

// A quiet stream says at once that it is open, then beats, and ends with the
// credential, with the workspace, or with the client.
func TestStreamBeatsAndEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(stages chan bailey.Stage, ended chan struct{}, gone context.CancelFunc)
	}{
		{"the credential ends", func(_ chan bailey.Stage, ended chan struct{}, _ context.CancelFunc) { close(ended) }},
		{"the workspace is deleted", func(stages chan bailey.Stage, _ chan struct{}, _ context.CancelFunc) { close(stages) }},
		{"the client is gone", func(_ chan bailey.Stage, _ chan struct{}, gone context.CancelFunc) { gone() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stages, ended := make(chan bailey.Stage), make(chan struct{})
				ctx, gone := context.WithCancel(t.Context())
				defer gone()
				beat := time.NewTicker(beatEach)
				defer beat.Stop()
				w := httptest.NewRecorder()
				over := make(chan struct{})
				go func() {
					defer close(over)
					stream(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", http.NoBody), stages, ended, beat.C)
				}()
				synctest.Wait()
				if got := w.Body.String(); got != "retry: 2000\n\n" || !w.Flushed || w.Code != http.StatusOK {
					t.Errorf("at first %d %q, flushed: %v", w.Code, got, w.Flushed)
				}
				stages <- bailey.Stage{Seq: 7, Run: "r", Name: "image", Status: "done", Detail: "line\nend\u2028"}
				time.Sleep(2*beatEach + time.Second)
				synctest.Wait()
				got := w.Body.String()
				if strings.Count(got, ": still here\n\n") != 2 || !strings.Contains(got, "\n\nid: 7\nevent: stage\ndata: {\"seq\":7,") {
					t.Errorf("after two beats: %q", got)
				}
				for line := range strings.Lines(got) {
					if line != "\n" && !strings.HasPrefix(line, "id: ") && !strings.HasPrefix(line, "event: ") &&
						!strings.HasPrefix(line, "data: ") && !strings.HasPrefix(line, ": ") && !strings.HasPrefix(line, "retry: ") {
						t.Errorf("a stage's words made a line of their own: %q", line)
					}
				}
				tt.end(stages, ended, gone)
				synctest.Wait()
				select {
				case <-over:
				default:
					t.Error("the stream goes on")
					gone()
					<-over
				}
			})
		})
	}
}

// A client that takes nothing is not written to again.
func TestStreamGivesUpOnABrokenClient(t *testing.T) {
	stages := make(chan bailey.Stage, 2)
	stages <- bailey.Stage{Seq: 1}
	stages <- bailey.Stage{Seq: 2}
	w := &broken{ResponseRecorder: httptest.NewRecorder(), left: 2}
	stream(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody), stages, nil, nil)
	if left := len(stages); left != 1 {
		t.Errorf("%d stages left, want 1: it wrote on", left)
	}
}

type broken struct {
	*httptest.ResponseRecorder

	left int // writes that work
}

func (b *broken) Write(p []byte) (int, error) {
	if b.left--; b.left < 1 {
		return 0, errors.New("the client takes nothing")
	}
	return b.ResponseRecorder.Write(p)
}

// One person's streams are limited, and nobody else's by that.
func TestFollowersAreLimited(t *testing.T) {
	f := followers{open: map[string]int{}}
	var leave []func()
	for i := range maxFollowers {
		l, err := f.enter("alice")
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		leave = append(leave, l)
	}
	if _, err := f.enter("alice"); bailey.KindOf(err) != bailey.TooMany {
		t.Errorf("one too many: %v, want TooMany", err)
	}
	bob, err := f.enter("bob")
	if err != nil {
		t.Errorf("bob: %v", err)
	}
	leave[0]()
	again, err := f.enter("alice")
	if err != nil {
		t.Errorf("after one left: %v", err)
	}
	for _, l := range append(leave[1:], bob, again) {
		l()
	}
	if len(f.open) != 0 {
		t.Errorf("everybody left, and there are %v", f.open)
	}
}
