package store_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/store"
)

// inhabited is a database of 50 users with a workspace and a session each, 8 of
// them running.
func inhabited(b *testing.B, where string) (*store.Store, []bailey.Workspace) {
	b.Helper()
	s, err := store.Open(b.Context(), store.Config{URL: where, Key: testKey})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	var all []bailey.Workspace
	for i := range 50 {
		u, err := s.CreateUser(b.Context(), bailey.User{Name: fmt.Sprintf("user%d", i), Role: bailey.RoleUser, Groups: []string{"vision"}}, "h")
		if err != nil {
			b.Fatal(err)
		}
		ws, err := s.CreateWorkspace(b.Context(), bailey.Workspace{OwnerID: u.ID, Name: "nb", Class: "small"})
		if err != nil {
			b.Fatal(err)
		}
		err = s.CreateSession(b.Context(), bailey.Session{ID: bailey.NewID(), UserID: u.ID, ExpiresAt: time.Now().Add(time.Hour)}, fmt.Sprintf("hash%d", i))
		if err != nil {
			b.Fatal(err)
		}
		if i < 8 {
			if _, err := s.BeginRun(b.Context(), benchRequest(ws, 0)); err != nil {
				b.Fatal(err)
			}
		}
		all = append(all, ws)
	}
	return s, all
}

func benchRequest(ws bailey.Workspace, gpus int) bailey.RunRequest {
	return bailey.RunRequest{
		WorkspaceID: ws.ID,
		Run:         bailey.Run{ID: bailey.NewID(), Class: bailey.Class{Name: "small", CPUMillis: 500, MemoryBytes: 1 << 30, GPUs: gpus}, Token: "t"},
		UserQuota:   bailey.Quota{Workspaces: 10},
		GroupQuotas: map[string]bailey.Quota{"vision": {Workspaces: 1000}},
		GPUs:        []string{"g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7"},
	}
}

func benchBeginRun(b *testing.B, where string) {
	b.Helper()
	s, all := inhabited(b, where)
	ws := all[len(all)-1]
	for b.Loop() {
		run, err := s.BeginRun(b.Context(), benchRequest(ws, 1))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.EndRun(b.Context(), run.ID, false, "", time.Now()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "starts/s")
}

func BenchmarkSQLiteBeginRun(b *testing.B) {
	benchBeginRun(b, filepath.Join(b.TempDir(), "bailey.db"))
}

func BenchmarkPostgresBeginRun(b *testing.B) { benchBeginRun(b, newSchema(b)) }

func BenchmarkSQLiteTouchActive(b *testing.B) {
	s, all := inhabited(b, filepath.Join(b.TempDir(), "bailey.db"))
	for b.Loop() {
		if err := s.TouchActive(b.Context(), all[0].ID, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSQLiteRead(b *testing.B) {
	s, all := inhabited(b, filepath.Join(b.TempDir(), "bailey.db"))
	b.Run("SessionByHash", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := s.SessionByHash(b.Context(), "hash7"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("WorkspaceBySlug", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.WorkspaceBySlug(b.Context(), all[3].Slug); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("WorkspaceBySlug/parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.WorkspaceBySlug(b.Context(), all[3].Slug); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("Workspaces", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Workspaces(b.Context(), ""); err != nil {
				b.Fatal(err)
			}
		}
	})
}
