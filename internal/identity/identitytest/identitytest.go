// Package identitytest lets tests sign people in: a store in memory that
// behaves like the real one, a journal that remembers or refuses, and a Service
// with alice, bob and the administrator root-admin.
package identitytest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
)

// IP is where [World.SignIn] signs people in from.
const IP = "192.0.2.10"

// A World is a Service with all it stands on.
type World struct {
	*identity.Service
	Store   *MemStore
	Journal *Journal
	Guard   *guard.Guard
}

// New returns a Service that knows alice and bob, who are users, and
// root-admin, an administrator; see [Password].
func New(tb testing.TB) *identity.Service {
	tb.Helper()
	return NewWorld(tb).Service
}

// NewWorld is [New] with what the Service stands on. Each change is applied to
// the configuration before the Service is made.
func NewWorld(tb testing.TB, changes ...func(*identity.Config)) *World {
	tb.Helper()
	w := NewEmptyWorld(tb, changes...)
	for _, u := range []struct {
		name string
		role bailey.Role
		hash string
	}{
		{"alice", bailey.RoleUser, "$argon2id$v=19$m=19456,t=2,p=1$NBtUCaDVE+KwstR1v7RtTQ$LBhbgrmSvd/0avFTRl2Ig0lmQjTCbJqekDTgkJGIpvI"},
		{"bob", bailey.RoleUser, "$argon2id$v=19$m=19456,t=2,p=1$oNNndLhiVe21JoObjoPbeA$aomNTw+wL/bfjRyPcw1i7BQz7Pt1nGFAnrtN5j/yMaQ"},
		{"root-admin", bailey.RoleAdmin, "$argon2id$v=19$m=19456,t=2,p=1$mwyr6Lw0xh0eWL0TbBHW3Q$6CulZKYtWd4aFygtOcIPwsfGf43McWp0FF/QW0m/YiA"},
	} {
		if _, err := w.Store.CreateUser(tb.Context(), bailey.User{Name: u.name, Role: u.role}, u.hash); err != nil {
			tb.Fatalf("create %s: %v", u.name, err)
		}
	}
	return w
}

// NewEmptyWorld is [NewWorld] before set-up: without any account.
func NewEmptyWorld(tb testing.TB, changes ...func(*identity.Config)) *World {
	tb.Helper()
	w := &World{Store: NewMemStore(), Journal: &Journal{}}
	cfg := identity.Config{Store: w.Store, Audit: w.Journal, Log: slog.New(slog.DiscardHandler), UnknownKey: []byte("identitytest")}
	for _, change := range changes {
		change(&cfg)
	}
	if cfg.Now != nil {
		w.Store.Now = cfg.Now
	}
	if cfg.Guard == nil {
		g, err := guard.New(guard.Config{Now: cfg.Now})
		if err != nil {
			tb.Fatal(err)
		}
		cfg.Guard = g
	}
	w.Guard = cfg.Guard
	s, err := identity.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	w.Service = s
	return w
}

// Password is the password of alice, bob or root-admin.
func Password(name string) secret.Value {
	return secret.New("violet harbour " + name + " 62 lanterns")
}

// SignIn signs somebody in from [IP] and returns the cookie and the actor
// behind it.
func SignIn(tb testing.TB, s *identity.Service, name string) (secret.Value, bailey.Actor) {
	tb.Helper()
	grant, _, err := s.SignIn(tb.Context(), identity.SignInRequest{
		Name: name, Password: Password(name), IP: IP, UserAgent: "identitytest",
	})
	if err != nil {
		tb.Fatalf("sign in as %s: %v", name, err)
	}
	actor, err := s.BySession(tb.Context(), grant.Secret, IP)
	if err != nil {
		tb.Fatalf("session of %s: %v", name, err)
	}
	return grant.Secret, actor
}

// A Journal is an audit log in memory. It may be used concurrently.
type Journal struct {
	mu     sync.Mutex // guards all below
	events []audit.Event
	broken bool
	before func(audit.Event)
}

// Append implements [audit.Appender].
func (j *Journal) Append(_ context.Context, e audit.Event) error {
	j.mu.Lock()
	before := j.before
	j.mu.Unlock()
	if before != nil {
		before(e)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken {
		return fmt.Errorf("append: %w", audit.ErrUnwritable)
	}
	j.events = append(j.events, e)
	return nil
}

// Break makes Append fail, as on a full disk, until it is called with false.
func (j *Journal) Break(broken bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.broken = broken
}

// Before has f called with each event before it is written, so that a test can
// look at the world at that moment.
func (j *Journal) Before(f func(audit.Event)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.before = f
}

// Events returns what was written so far.
func (j *Journal) Events() []audit.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.events)
}
