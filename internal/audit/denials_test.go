package audit_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey/internal/audit"
)

// paper is a journal in memory, or one without room.
type paper struct {
	mu     sync.Mutex // guards the rest
	full   bool
	events []audit.Event
}

func (p *paper) Append(ctx context.Context, e audit.Event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full || ctx.Err() != nil {
		return audit.ErrUnwritable
	}
	p.events = append(p.events, e)
	return nil
}

// Knocking all the time is recorded once in a while; another person, thing or
// reason is recorded at once.
func TestDenials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &paper{}
		d := audit.NewDenials(p, nil)
		bob, alice := audit.Actor{ID: "b", Name: "bob"}, audit.Actor{ID: "a", Name: "alice"}
		door, window := audit.Target{Kind: "server", Name: "door"}, audit.Target{Kind: "server", Name: "window"}
		gone, cancel := context.WithCancel(t.Context())
		cancel() // whoever knocks may run away
		for range 100 {
			d.Note(gone, bob, door, audit.NotAllowed)
		}
		d.Note(t.Context(), alice, door, audit.NotAllowed)
		d.Note(t.Context(), bob, window, audit.NotAllowed)
		d.Note(t.Context(), bob, door, audit.ForeignOrigin)
		if got := len(p.events); got != 4 {
			t.Fatalf("%d events, want 4: %+v", got, p.events)
		}
		if e := p.events[0]; e.Action != audit.AccessDenied || e.Outcome != audit.Refused || e.Reason != audit.NotAllowed || e.Actor != bob || e.Target != door {
			t.Errorf("recorded %+v", e)
		}
		time.Sleep(11 * time.Second)
		d.Note(t.Context(), bob, door, audit.NotAllowed)
		if got := len(p.events); got != 5 {
			t.Errorf("%d events after 11 s, want 5", got)
		}
	})
}

// A crowd takes no more memory than is set aside, and a journal without room
// leaves a line in the log.
func TestDenialsOfACrowd(t *testing.T) {
	p, log := &paper{}, &strings.Builder{}
	d := audit.NewDenials(p, slog.New(slog.NewTextHandler(log, nil)))
	for i := range 10_000 {
		d.Note(t.Context(), audit.Actor{ID: fmt.Sprint(i)}, audit.Target{}, audit.NotAllowed)
	}
	if got := len(p.events); got != 10_000 {
		t.Errorf("%d events, want one each", got)
	}
	p.full = true
	d.Note(t.Context(), audit.Actor{ID: "last"}, audit.Target{}, audit.NotAllowed)
	if !strings.Contains(log.String(), "refusal not in the audit journal") {
		t.Errorf("log: %q", log)
	}
}
