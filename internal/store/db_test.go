package store_test

import (
	"context"
	"errors"
	"iter"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/store"
)

// errorsIn yields the *bailey.Error in err's chain.
func errorsIn(err error) iter.Seq[*bailey.Error] {
	return func(yield func(*bailey.Error) bool) {
		if e, ok := errors.AsType[*bailey.Error](err); ok {
			yield(e)
		}
	}
}

func TestPragmas(t *testing.T) {
	s := open(t, store.Config{Path: filepath.Join(t.TempDir(), "bailey.db")})
	for _, pragmas := range [][][2]string{store.Pragmas(false), store.Pragmas(true)} {
		for i := range pragmas {
			db := s.Write()
			if pragmas[len(pragmas)-1] == [2]string{"query_only", "1"} {
				db = s.Read()
			}
			if err := store.AssertPragmas(t.Context(), db, pragmas); err != nil {
				t.Fatalf("the settings did not take: %v", err)
			}
			// The assertion can fail, for each of them.
			changed := append([][2]string{}, pragmas...)
			changed[i][1] += "x"
			err := store.AssertPragmas(t.Context(), db, changed)
			wantError(t, err, bailey.Unavailable, pragmas[i][0], "local disk")
		}
	}
	// Every connection of the reading pool is read-only, not just the first.
	for range 8 {
		conn, err := s.Read().Conn(t.Context())
		if err != nil {
			break // the pool is empty
		}
		defer func() { _ = conn.Close() }()
		if _, err := conn.ExecContext(t.Context(), `DELETE FROM counters`); err == nil {
			t.Error("a reading connection wrote")
		}
		if s.Read().Stats().InUse == s.Read().Stats().MaxOpenConnections {
			break
		}
	}
	for _, query := range []string{`ATTACH ':memory:' AS x`, `PRAGMA writable_schema = ON`} {
		_, _ = s.Write().ExecContext(t.Context(), query)
	}
	if _, err := s.Write().ExecContext(t.Context(), `UPDATE sqlite_schema SET sql = ''`); err == nil {
		t.Error("the schema can be written to by hand: _defensive did not take")
	}
}

// TestAFullDiskLosesNothing fills the database up to its limit of pages: SQLite
// then answers as on a full disk.
func TestAFullDiskLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bailey.db")
	s := open(t, store.Config{Path: path})
	ctx := t.Context()
	alice, err := s.CreateUser(ctx, bailey.User{Name: "alice", Role: bailey.RoleAdmin}, "h")
	if err != nil {
		t.Fatal(err)
	}
	ws, err := s.CreateWorkspace(ctx, bailey.Workspace{OwnerID: alice.ID, Name: "nb"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write().ExecContext(ctx, `PRAGMA max_page_count = 1`); err != nil { // means: no more than now
		t.Fatal(err)
	}
	var full error
	stages := 0
	for full == nil && stages < 10000 {
		if _, full = s.AppendStage(ctx, bailey.Stage{Workspace: ws.ID, Detail: strings.Repeat("x", 2000)}); full == nil {
			stages++
		}
	}
	wantError(t, full, bailey.Unavailable, "disk is full", "frees space")

	// What was stored is there, and what failed left nothing behind.
	got, err := s.Stages(ctx, ws.ID, 0)
	if err != nil || len(got) != stages {
		t.Errorf("%d stages, %v; want %d", len(got), err, stages)
	}
	if _, err := s.UserByName(ctx, "alice"); err != nil {
		t.Errorf("reading on a full disk: %v", err)
	}
	// With room again it goes on where it was.
	if _, err := s.Write().ExecContext(ctx, `PRAGMA max_page_count = 1000000`); err != nil {
		t.Fatal(err)
	}
	st, err := s.AppendStage(ctx, bailey.Stage{Workspace: ws.ID})
	if err != nil || st.Seq != int64(stages)+1 {
		t.Errorf("AppendStage after the disk had room again = seq %d, %v; want %d", st.Seq, err, stages+1)
	}
}

func TestAReadOnlyFileIsSaidSo(t *testing.T) {
	s := open(t, store.Config{Path: filepath.Join(t.TempDir(), "bailey.db")})
	if _, err := s.Write().ExecContext(t.Context(), `PRAGMA query_only = 1`); err != nil {
		t.Fatal(err)
	}
	_, err := s.CreateUser(t.Context(), bailey.User{Name: "alice", Role: bailey.RoleAdmin}, "h")
	wantError(t, err, bailey.Unavailable, "read-only", "writable")
	if n, err := s.CountUsers(t.Context()); err != nil || n != 0 {
		t.Errorf("CountUsers = %d, %v; want 0", n, err)
	}
}

func TestABusyFileIsSaidSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bailey.db")
	s, other := open(t, store.Config{Path: path}), open(t, store.Config{Path: path})
	tx, err := other.Write().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write().ExecContext(t.Context(), `PRAGMA busy_timeout = 1`); err != nil {
		t.Fatal(err)
	}
	_, err = s.CreateUser(t.Context(), bailey.User{Name: "alice", Role: bailey.RoleAdmin}, "h")
	wantError(t, err, bailey.Unavailable, "in use by another program")
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err = s.CreateUser(t.Context(), bailey.User{Name: "alice", Role: bailey.RoleAdmin}, "h"); err != nil {
		t.Errorf("CreateUser after the other program ended: %v", err)
	}
}

func TestACancelledWriteChangesNothing(t *testing.T) {
	s := open(t, store.Config{Path: filepath.Join(t.TempDir(), "bailey.db")})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.CreateUser(ctx, bailey.User{Name: "alice", Role: bailey.RoleAdmin}, "h")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want context.Canceled", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	err = s.Decide(ctx, func(context.Context) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error of a commit after cancelling = %v, want context.Canceled", err)
	}
	if _, err := s.CreateUser(t.Context(), bailey.User{Name: "alice", Role: bailey.RoleAdmin}, "h"); err != nil {
		t.Errorf("the next write: %v", err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.Ping(t.Context()), bailey.Unavailable, "does not answer")
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestATransactionThatLostIsRepeated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bailey.db")
	lost := func(code string) error { return &pgconn.PgError{Code: code, Message: "could not serialize access"} }
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(t.Context(), store.Config{Path: path, Key: testKey})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		for _, tt := range []struct {
			name  string
			code  string
			times int // how often it loses
			tries int
			kind  bailey.Kind
		}{
			{"never", "40001", 0, 1, -1},
			{"serialization", "40001", 3, 4, -1},
			{"deadlock", "40P01", 1, 2, -1},
			{"for ever", "40001", 1000, store.MaxTries, bailey.Unavailable},
			{"something else", "23514", 1000, 1, bailey.Internal},
		} {
			tries := 0
			begin := time.Now()
			err := s.Decide(t.Context(), func(context.Context) error {
				tries++
				if tries <= tt.times {
					return lost(tt.code)
				}
				return nil
			})
			if tries != tt.tries || (err == nil) != (tt.kind < 0) || err != nil && bailey.KindOf(err) != tt.kind {
				t.Errorf("%s: %d tries, error %v; want %d tries, kind %v", tt.name, tries, err, tt.tries, tt.kind)
			}
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("%s: took %v, want less than 3 s", tt.name, took)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := s.Decide(ctx, func(context.Context) error { return lost("40001") }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error = %v, want the deadline's", err)
		}
	})
}

func TestRebind(t *testing.T) {
	for query, want := range map[string]string{
		`SELECT 1`: `SELECT 1`, `a = ? AND b = ?`: `a = $1 AND b = $2`, `?`: `$1`,
		strings.Repeat("?", 11): `$1$2$3$4$5$6$7$8$9$10$11`,
	} {
		if got := store.Rebind(query); got != want {
			t.Errorf("Rebind(%q) = %q, want %q", query, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, seed := range []string{"", "plain", "a\x00b\xff", strings.Repeat("é", 300), "日本語"} {
		f.Add(seed, 16)
	}
	f.Fuzz(func(t *testing.T, text string, limit int) {
		if limit < 3 || limit > 1<<16 {
			return
		}
		got := store.Clean(text, limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.ContainsRune(got, 0) {
			t.Errorf("Clean(%q, %d) = %q: too long or not storable", text, limit, got)
		}
		if utf8.ValidString(text) && !strings.ContainsRune(text, 0) && len(text) <= limit && got != text {
			t.Errorf("Clean(%q, %d) = %q, want it unchanged", text, limit, got)
		}
	})
}
