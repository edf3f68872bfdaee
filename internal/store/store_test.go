package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/store"
	"github.com/baileyhq/bailey/internal/store/storetest"
	"github.com/baileyhq/bailey/internal/workspace"
)

var (
	_ identity.Store  = (*store.Store)(nil)
	_ workspace.Store = (*store.Store)(nil)
	_ storetest.Store = (*store.Store)(nil)
)

var testKey = bytes.Repeat([]byte{7}, 32)

// open opens a database of the test and closes it when the test ends.
func open(t *testing.T, cfg store.Config) *store.Store {
	t.Helper()
	if cfg.Key == nil {
		cfg.Key = testKey
	}
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Open {
		t.Helper()
		path := filepath.Join(t.TempDir(), "bailey.db")
		return func(t *testing.T, now func() time.Time) storetest.Store {
			t.Helper()
			return open(t, store.Config{Path: path, Now: now})
		}
	})
}

func TestPostgres(t *testing.T) {
	postgresURL(t)
	storetest.Run(t, func(t *testing.T) storetest.Open {
		t.Helper()
		schema := newSchema(t)
		return func(t *testing.T, now func() time.Time) storetest.Store {
			t.Helper()
			return open(t, store.Config{URL: schema, Now: now})
		}
	})
}

// freshDatabase returns where an empty database of the kind can be opened.
func freshDatabase(t *testing.T, kind string) string {
	t.Helper()
	if kind == "postgres" {
		return newSchema(t)
	}
	return filepath.Join(t.TempDir(), "bailey.db")
}

// postgresURL returns the server to test on, or skips.
func postgresURL(t testing.TB) string {
	t.Helper()
	u := os.Getenv("BAILEY_TEST_POSTGRES")
	if u == "" {
		t.Skip("BAILEY_TEST_POSTGRES is not set: see scripts/postgres.sh")
	}
	return u
}

// newSchema makes a schema of the test's own and returns a URL that leads there.
func newSchema(t testing.TB) string {
	t.Helper()
	u, err := url.Parse(postgresURL(t))
	if err != nil {
		t.Fatalf("BAILEY_TEST_POSTGRES: %v", err)
	}
	db := openPostgres(t, u.String())
	schema := "bailey_test_" + bailey.NewID()
	run := func(ctx context.Context, query string) {
		if _, err := db.ExecContext(ctx, query); err != nil {
			t.Errorf("%s: %v", query, err)
		}
	}
	run(t.Context(), `CREATE SCHEMA `+schema)
	t.Cleanup(func() { run(context.WithoutCancel(t.Context()), `DROP SCHEMA `+schema+` CASCADE`) })
	q := u.Query()
	q.Set("search_path", schema)
	q.Set("pool_max_conns", "4") // of the server's 200, for many tests at once
	u.RawQuery = q.Encode()
	return u.String()
}

func openPostgres(t testing.TB, u string) *sql.DB {
	t.Helper()
	cfg, err := pgx.ParseConfig(u)
	if err != nil {
		t.Fatalf("ParseConfig: %v", err)
	}
	db := stdlib.OpenDB(*cfg)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

// wantError reports an error that is not of the kind or does not say the words,
// in its message or its hint.
func wantError(t *testing.T, err error, kind bailey.Kind, words ...string) {
	t.Helper()
	if err == nil || bailey.KindOf(err) != kind {
		t.Fatalf("error = %v (%v), want one of kind %v", err, bailey.KindOf(err), kind)
	}
	text := err.Error()
	for e := range errorsIn(err) {
		text += "\n" + e.Hint
		if e.Hint == "" {
			t.Errorf("error %q has no hint", err)
		}
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("error does not say %q:\n%s", word, text)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("not a database\n"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	open777 := filepath.Join(dir, "open")
	if err := os.Mkdir(open777, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open777, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		cfg   store.Config
		kind  bailey.Kind
		words []string
	}{
		{"a directory", store.Config{Path: dir}, bailey.Invalid, []string{"not a plain file"}},
		{"garbage", store.Config{Path: garbage}, bailey.Unavailable, []string{"not an SQLite database", "move away"}},
		{"a directory open to all", store.Config{Path: filepath.Join(open777, "b.db")}, bailey.Invalid, []string{"chmod 700 " + open777}},
		{"a path below a file", store.Config{Path: filepath.Join(garbage, "b.db")}, bailey.Unavailable, []string{"cannot be made"}},
		{"another database", store.Config{URL: "mysql://root:hunter2@db/x"}, bailey.Invalid, []string{`"mysql://"`, "postgres://"}},     // bailey:allow
		{"a broken URL", store.Config{URL: "postgres://bailey:hunter2%zz@db:notaport/x"}, bailey.Invalid, []string{"%XX"}},              // bailey:allow
		{"a broken pool", store.Config{URL: "postgres://bailey:hunter2@db/x?pool_max_conns=1"}, bailey.Invalid, []string{"2 to 1000"}},  // bailey:allow
		{"nobody there", store.Config{URL: "postgres://bailey:hunter2@127.0.0.1:1/x"}, bailey.Unavailable, []string{"does not answer"}}, // bailey:allow
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Key = testKey
			s, err := store.Open(t.Context(), tt.cfg)
			if s != nil {
				t.Fatalf("Open succeeded")
			}
			wantError(t, err, tt.kind, tt.words...)
			if strings.Contains(fmt.Sprintf("%v %+v", err, err), "hunter2") {
				t.Errorf("error shows the password: %v", err)
			}
		})
	}
	for _, key := range [][]byte{nil, testKey[:31], append(testKey, 1)} {
		if _, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "k.db"), Key: key}); err == nil ||
			!strings.Contains(err.Error(), "needs 32") {
			t.Errorf("Open with a key of %d bytes: error = %v, want one that says 32", len(key), err)
		}
	}
	if _, err := store.Open(t.Context(), store.Config{Key: testKey}); err == nil {
		t.Error("Open without a path succeeded")
	}
}

func TestFilesArePrivate(t *testing.T) {
	// A path that a URL would misread.
	path := filepath.Join(t.TempDir(), "state of bailey", "50%?mode=memory#x.db")
	s := open(t, store.Config{Path: path})
	if _, err := s.CreateUser(t.Context(), bailey.User{Name: "alice", Role: bailey.RoleAdmin}, "h"); err != nil {
		t.Fatal(err)
	}
	want := map[string]os.FileMode{
		filepath.Dir(path): 0o700 | os.ModeDir, path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600,
	}
	for name, mode := range want {
		info, err := os.Stat(name)
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 3 {
		t.Errorf("the directory has %v, %v; want the file and its two journals", entries, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + "-wal"); err == nil {
		t.Error("the journal is still there after Close: it was not folded back")
	}

	// A file that was opened to others is closed again.
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	s = open(t, store.Config{URL: path})
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode = %v, %v; want 0600", info.Mode(), err)
	}
	if n, err := s.CountUsers(t.Context()); err != nil || n != 1 || s.Kind() != "sqlite" {
		t.Errorf("CountUsers = %d, %v in %s; want 1 in sqlite", n, err, s.Kind())
	}
}

func TestADamagedFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bailey.db")
	s := open(t, store.Config{Path: path})
	for i := range 300 {
		_, err := s.CreateUser(t.Context(), bailey.User{Name: fmt.Sprintf("user%d", i), Role: bailey.RoleUser}, strings.Repeat("h", 200))
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(data) / 2; i < len(data)/2+8192; i++ {
		data[i] ^= 0x55
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = store.Open(t.Context(), store.Config{Path: path, Key: testKey})
	wantError(t, err, bailey.Unavailable, "damaged", "backup")
}

func TestAWrongKeyIsRefused(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			where := freshDatabase(t, kind)
			open(t, store.Config{URL: where})
			wrong := bytes.Repeat([]byte{8}, 32)
			_, err := store.Open(t.Context(), store.Config{URL: where, Key: wrong})
			wantError(t, err, bailey.Conflict, "key does not fit", "put back the key file")
			open(t, store.Config{URL: where})
		})
	}
}

// running makes a user with a running workspace.
func running(t *testing.T, s *store.Store, name, token string) bailey.Run {
	t.Helper()
	u, err := s.CreateUser(t.Context(), bailey.User{Name: name, Role: bailey.RoleAdmin}, "h")
	if err != nil {
		t.Fatal(err)
	}
	ws, err := s.CreateWorkspace(t.Context(), bailey.Workspace{OwnerID: u.ID, Name: "nb"})
	if err != nil {
		t.Fatal(err)
	}
	run, err := s.BeginRun(t.Context(), bailey.RunRequest{
		WorkspaceID: ws.ID, Run: bailey.Run{ID: "run-of-" + name, Token: token},
	})
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// TestRunTokensAreSealed reads the file as a thief of a backup would.
func TestRunTokensAreSealed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bailey.db")
	s := open(t, store.Config{Path: path})
	const canary = "hunter2-canary"
	run := running(t, s, "alice", canary)
	if read, err := s.Run(t.Context(), run.ID); err != nil || read.Token != canary {
		t.Errorf("Run token = %q, %v; want it back", read.Token, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil || bytes.Contains(data, []byte(canary)) || !bytes.Contains(data, []byte(run.ID)) {
		t.Errorf("the file of %d bytes (%v) has the token in plain text, or not the run", len(data), err)
	}
}

// TestATokenIsNotMovedToAnotherRun is somebody who can write to the database,
// but has no key: bob's run is given alice's sealed token, in the hope that the
// gateway shows it to bob.
func TestATokenIsNotMovedToAnotherRun(t *testing.T) {
	var logged bytes.Buffer
	s := open(t, store.Config{
		Path: filepath.Join(t.TempDir(), "bailey.db"),
		Log:  slog.New(slog.NewTextHandler(&logged, nil)),
	})
	alice, bob := running(t, s, "alice", "alice-token"), running(t, s, "bob", "bob-token")
	_, err := s.Write().ExecContext(t.Context(), `UPDATE runs SET token_sealed = (SELECT token_sealed FROM runs WHERE id = ?)
		WHERE id = ?`, alice.ID, bob.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Run(t.Context(), bob.ID); !errors.Is(err, store.ErrSeal) || got.Token != "" {
		t.Errorf("Run(bob's) = token %q, %v; want ErrSeal", got.Token, err)
	}
	// The reconciler still sees both runs, and alice's is served.
	all, err := s.OpenRuns(t.Context())
	if err != nil || len(all) != 2 || all[0].Token != "alice-token" || all[1].ID != bob.ID || all[1].Token != "" {
		t.Errorf("OpenRuns = %+v, %v; want both runs, bob's without a token", all, err)
	}
	if !strings.Contains(logged.String(), bob.ID) || strings.Contains(logged.String(), "alice-token") {
		t.Errorf("the log names neither the damaged run nor hides the token: %s", logged.String())
	}
}

// TestAKilledServerLosesNothing copies the files of a server that is running
// and was not asked to close: what a kill or a power cut leaves behind.
func TestAKilledServerLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bailey.db")
	s := open(t, store.Config{Path: path})
	alice, bob := running(t, s, "alice", "alice-token"), running(t, s, "bob", "bob-token")
	if err := s.EndRun(t.Context(), bob.ID, false, "stopped", time.Now()); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "bailey.db")
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := open(t, store.Config{Path: copied})
	all, err := again.OpenRuns(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != alice.ID || all[0].Token != "alice-token" {
		t.Errorf("OpenRuns after a kill = %+v, %v; want alice's", all, err)
	}
}
