// Package storetest is the conformance suite of the store: what identity and
// workspace rely on, told as stories with two people in them. It runs on every
// database that the store speaks to.
package storetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/store"
	"github.com/baileyhq/bailey/internal/witness"
	"github.com/baileyhq/bailey/internal/workspace"
)

// A Store is what the suite tests: everything that services ask of a store.
type Store interface {
	identity.Store
	workspace.Store
	books
	Locker
	Ping(ctx context.Context) error
	Close() error
}

// books are what administrators keep.
type books interface {
	Secrets
	Catalogue
	egress.Store
	Guards
	witness.Store
	Files
}

// Secrets keeps what administrators registered.
type Secrets interface {
	SetSecret(ctx context.Context, k bailey.KnownSecret, value secret.Value) (bailey.KnownSecret, error)
	Secrets(ctx context.Context) ([]bailey.KnownSecret, error)
	SecretValues(ctx context.Context) (map[string]secret.Value, error)
	DeleteSecret(ctx context.Context, name string) error
}

// A Locker hands out named locks.
type Locker interface {
	AcquireLock(ctx context.Context, name, holder string, ttl time.Duration) (store.Lock, error)
	RenewLock(ctx context.Context, l store.Lock, ttl time.Duration) (store.Lock, error)
	ReleaseLock(ctx context.Context, l store.Lock) error
	Fenced(l store.Lock) *store.Store
}

// An Open opens one database, which may be open already, as a second server
// would. What it opens is closed when the test ends, unless that was done.
type Open func(t *testing.T, now func() time.Time) Store

// Run runs the suite. fresh makes a new, empty database for each story.
func Run(t *testing.T, fresh func(t *testing.T) Open) {
	t.Helper()
	for _, stories := range [][]story{people(), credentials(), sshAccess(), workspaces(), runs(), knownSecrets(), crowds(), asking(), images(), sshSessions(), fromOutside(), guards(), files(), factors()} {
		for _, s := range stories {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				open := fresh(t)
				c := &clock{now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
				s.tell(&world{T: t, Store: open(t, c.Now), clock: c, open: open})
			})
		}
	}
}

// A story is one test, with two people in it where it is about theirs.
type story struct {
	name string
	tell func(*world)
}

// A world is a fresh database, a clock, and words to tell a story with.
type world struct {
	*testing.T
	Store
	clock *clock
	open  Open
}

// Run reads a run: the store's method, not that of testing.T.
func (w *world) Run(ctx context.Context, id string) (bailey.Run, error) { return w.Store.Run(ctx, id) }

// A clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return c.now
}

// must ends the story when something that has to work does not.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("unexpected error: %v", err)
	}
}

// refused reports an error that is not of the kind, or does not say the words.
func (w *world) refused(err error, kind bailey.Kind, words ...string) {
	w.Helper()
	if got := bailey.KindOf(err); err == nil || got != kind {
		w.Errorf("error = %v (%v), want one of kind %v", err, got, kind)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			w.Errorf("error %q does not say %q", err, word)
		}
	}
}

// user makes a user of the role.
func (w *world) user(name string, role bailey.Role, groups ...string) bailey.User {
	w.Helper()
	u, err := w.CreateUser(w.Context(), bailey.User{Name: name, Role: role, Groups: groups}, "hash of "+name)
	w.must(err)
	return u
}

// workspace makes a workspace of the user.
func (w *world) workspace(owner bailey.User, name string) bailey.Workspace {
	w.Helper()
	ws, err := w.CreateWorkspace(w.Context(), bailey.Workspace{OwnerID: owner.ID, Name: name, Class: "small"})
	w.must(err)
	return ws
}

// get reads a workspace again.
func (w *world) get(ws bailey.Workspace) bailey.Workspace {
	w.Helper()
	ws, err := w.Workspace(w.Context(), ws.ID)
	w.must(err)
	return ws
}

// small is a class with half a core, 1 GiB and as many GPUs as given.
func small(gpus int) bailey.Class {
	return bailey.Class{
		Name: "small", Title: "Small", Image: "notebook", Digest: "sha256:abc", CPUMillis: 500, MemoryBytes: 1 << 30,
		GPUs: gpus, IdleStop: time.Hour, Groups: []string{"vision"},
	}
}

// request asks for a run of the workspace, without limits.
func request(ws bailey.Workspace, class bailey.Class) bailey.RunRequest {
	return bailey.RunRequest{
		WorkspaceID: ws.ID,
		Run:         bailey.Run{ID: bailey.NewID(), Class: class, Digest: class.Digest, Token: "token of " + ws.ID},
		GPUs:        cards(8),
	}
}

// begin begins a run without limits.
func (w *world) begin(ws bailey.Workspace, gpus int) bailey.Run {
	w.Helper()
	run, err := w.BeginRun(w.Context(), request(ws, small(gpus)))
	w.must(err)
	return run
}

// end ends a run.
func (w *world) end(run bailey.Run) {
	w.Helper()
	w.must(w.EndRun(w.Context(), run.ID, false, "stopped by its owner", w.clock.Now()))
}

// cards returns n GPU UUIDs.
func cards(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("GPU-%08d-0000-4000-8000-000000000000", i)
	}
	return all
}

// together runs do n times at once and returns the errors.
func together(n int, do func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	gate := make(chan struct{}) // closed when all stand ready
	for i := range n {
		wg.Go(func() {
			<-gate
			errs[i] = do(i)
		})
	}
	close(gate)
	wg.Wait()
	return errs
}

// succeeded counts the successes among errs, and reports failures that are not
// of one of the kinds.
func (w *world) succeeded(errs []error, kinds ...bailey.Kind) int {
	w.Helper()
	n := 0
	for _, err := range errs {
		switch {
		case err == nil:
			n++
		case !slices.Contains(kinds, bailey.KindOf(err)):
			w.Errorf("error = %v (%v), want success or one of %v", err, bailey.KindOf(err), kinds)
		}
	}
	return n
}
