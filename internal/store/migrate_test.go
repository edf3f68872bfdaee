package store_test

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/store"
)

// TestSchemasAreInStep migrates both databases and compares what came out.
func TestSchemasAreInStep(t *testing.T) {
	pg := newSchema(t)
	open(t, store.Config{URL: pg})
	lite := open(t, store.Config{Path: filepath.Join(t.TempDir(), "bailey.db")})
	got := postgresSchema(t, openPostgres(t, withoutPool(t, pg)))
	want := sqliteSchema(t, lite.Write())
	if len(want) < 40 {
		t.Fatalf("read only %d facts of the schema:\n%s", len(want), strings.Join(want, "\n"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the schemas differ (-sqlite +postgres):\n%s", diff)
	}
}

// withoutPool takes out what only Open understands.
func withoutPool(t *testing.T, u string) string {
	t.Helper()
	parsed, err := url.Parse(u)
	if err != nil {
		t.Fatal(err)
	}
	q := parsed.Query()
	q.Del("pool_max_conns")
	parsed.RawQuery = q.Encode()
	return parsed.String()
}

// facts runs a query that returns one text per row.
func facts(t *testing.T, db *sql.DB, query string, args ...any) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer func() { _ = rows.Close() }()
	var all []string
	for rows.Next() {
		var fact string
		if err := rows.Scan(&fact); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		all = append(all, fact)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}

// sqliteSchema returns columns, keys, indexes and references as sorted lines.
func sqliteSchema(t *testing.T, db *sql.DB) []string {
	t.Helper()
	const tables = ` FROM sqlite_schema t `
	const where = ` WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name <> ?`
	var all []string
	for _, query := range []string{
		`SELECT 'column ' || t.name || '.' || c.name || ' ' || c.type || ' notnull=' || c."notnull" || ' pk=' || c.pk` +
			tables + `, pragma_table_info(t.name) c` + where,
		`SELECT 'index ' || t.name || ' (' || (SELECT string_agg(n.name, ',' ORDER BY n.seqno) FROM pragma_index_info(i.name) n) ||
			') unique=' || i."unique" || COALESCE(' where ' || (SELECT trim(substr(x.sql, instr(x.sql, 'WHERE') + 5))
				FROM sqlite_schema x WHERE x.name = i.name AND i.partial), '')` +
			tables + `, pragma_index_list(t.name) i` + where + ` AND i.origin <> 'pk'`,
		`SELECT 'reference ' || t.name || '.' || f."from" || ' ' || f."table" || '.' || f."to" || ' ' || lower(f.on_delete)` +
			tables + `, pragma_foreign_key_list(t.name) f` + where,
	} {
		all = append(all, facts(t, db, query, store.VersionTable)...)
	}
	slices.Sort(all)
	return all
}

func postgresSchema(t *testing.T, db *sql.DB) []string {
	t.Helper()
	const where = ` WHERE t.relnamespace = current_schema()::regnamespace AND t.relkind = 'r' AND t.relname <> $1`
	var all []string
	for _, query := range []string{
		`SELECT 'column ' || t.relname || '.' || a.attname || ' ' ||
				CASE format_type(a.atttypid, a.atttypmod) WHEN 'bigint' THEN 'INTEGER' WHEN 'text' THEN 'TEXT' WHEN 'bytea' THEN 'BLOB'
					ELSE format_type(a.atttypid, a.atttypmod) END ||
				CASE WHEN a.atttypid = 'text'::regtype AND a.attcollation <> '"C"'::regcollation THEN ' not collated C' ELSE '' END ||
				' notnull=' || a.attnotnull::int || ' pk=' || COALESCE(array_position(p.indkey::int[], a.attnum::int) + 1, 0)
			FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
			LEFT JOIN pg_index p ON p.indrelid = t.oid AND p.indisprimary` + where,
		`SELECT 'index ' || t.relname || ' (' || (SELECT string_agg(a.attname, ',' ORDER BY k.n)
				FROM unnest(i.indkey) WITH ORDINALITY k (num, n) JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.num) ||
				') unique=' || i.indisunique::int || COALESCE(' where ' || replace(trim('()' FROM pg_get_expr(i.indpred, i.indrelid)), '::text', ''), '')
			FROM pg_class t JOIN pg_index i ON i.indrelid = t.oid AND NOT i.indisprimary` + where,
		`SELECT 'reference ' || t.relname || '.' || a.attname || ' ' || c.confrelid::regclass || '.' || b.attname || ' ' ||
				CASE c.confdeltype WHEN 'a' THEN 'no action' WHEN 'c' THEN 'cascade' ELSE c.confdeltype::text END
			FROM pg_class t JOIN pg_constraint c ON c.conrelid = t.oid AND c.contype = 'f' AND array_length(c.conkey, 1) = 1
			JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
			JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = c.confkey[1]` + where,
	} {
		all = append(all, facts(t, db, query, store.VersionTable)...)
	}
	slices.Sort(all)
	return all
}

// TestTheSchemaItselfRefuses what no code of ours should ask for.
func TestTheSchemaItselfRefuses(t *testing.T) {
	check := func(t *testing.T, db *sql.DB) {
		t.Helper()
		run := func(query string) error {
			_, err := db.ExecContext(t.Context(), query)
			return err
		}
		user := func(id, role string, uid, disabled int) string {
			return fmt.Sprintf(`INSERT INTO users (id, name, role, member_of, uid, disabled, password_hash, created_at) VALUES ('%s', '%s', '%s', '[]', %d, %d, 'h', 0)`, id, id, role, uid, disabled)
		}
		ws := func(id, owner, volume, state, wanted string) string {
			return fmt.Sprintf(`INSERT INTO workspaces VALUES ('%s', '%s', '%s', 'c', '%s', '%s', '%s', '%s', '', '', '', 0, 0, 0, 0)`,
				id, owner, id, id, volume, state, wanted)
		}
		runRow := func(id string, ended int) string {
			return fmt.Sprintf(`INSERT INTO runs VALUES ('%s', 'w1', 'u1', 20000, 'v1', '{}', 0, 0, 0, '[]', '', '', '', 0, 0, %d, '', '')`, id, ended)
		}
		for _, tt := range []struct {
			query string
			ok    bool
		}{
			{user("u1", "admin", 20000, 0), true},
			{user("u2", "root", 20001, 0), false},
			{user("u2", "user", 19999, 0), false},
			{user("u2", "user", 60000, 0), false},
			{user("u2", "user", 20000, 0), false},
			{user("u2", "user", 20001, 2), false},
			{`INSERT INTO volumes VALUES ('v1', 'u1', 'v1', 20000, 0)`, true},
			{`INSERT INTO volumes VALUES ('v2', 'nobody', 'v2', 20000, 0)`, false},
			{`INSERT INTO volumes VALUES ('v3', 'u1', 'v3', 20000, 0)`, true},
			{ws("w1", "u1", "v1", "starting", "running"), true},
			{ws("w2", "u1", "v1", "stopped", "stopped"), false}, // v1 is in w1
			{ws("w2", "u1", "v3", "asleep", "stopped"), false},
			{ws("w2", "u1", "v3", "stopped", "failed"), false},
			{runRow("r1", 0), true},
			{runRow("r2", 0), false}, // w1 has an open run
			{runRow("r2", 1), true},
			{`INSERT INTO leases VALUES ('g1', 'r1', 'w1', 'u1', 0)`, true},
			{`INSERT INTO leases VALUES ('g1', 'r2', 'w1', 'u1', 0)`, false},
			{`INSERT INTO leases VALUES ('g2', 'nothing', 'w1', 'u1', 0)`, false},
			{`DELETE FROM workspaces WHERE id = 'w1'`, false}, // its run holds g1
			{`DELETE FROM volumes WHERE id = 'v1'`, false},
			{`DELETE FROM users WHERE id = 'u1'`, false},
			{`INSERT INTO setup VALUES (1, 'h', 0)`, true},
			{`INSERT INTO setup VALUES (2, 'h', 0)`, false},
			{`INSERT INTO users (id, name) VALUES ('u2', 'u2')`, false},
		} {
			if err := run(tt.query); (err == nil) != tt.ok {
				t.Errorf("%s: error = %v, want success %v", tt.query, err, tt.ok)
			}
		}
	}
	t.Run("sqlite", func(t *testing.T) {
		s := open(t, store.Config{Path: filepath.Join(t.TempDir(), "bailey.db")})
		check(t, s.Write())
		if _, err := s.Write().ExecContext(t.Context(), `UPDATE counters SET value = 'text'`); err == nil {
			t.Error("a text was stored in an INTEGER column: the tables are not STRICT")
		}
	})
	t.Run("postgres", func(t *testing.T) { check(t, open(t, store.Config{URL: newSchema(t)}).Write()) })
}

func TestANewerDatabaseIsRefused(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			where := freshDatabase(t, kind)
			s := open(t, store.Config{URL: where})
			_, err := s.Write().ExecContext(t.Context(),
				`INSERT INTO `+store.VersionTable+` (version_id, is_applied) VALUES (999, true)`)
			if err != nil {
				t.Fatal(err)
			}
			_, err = store.Open(t.Context(), store.Config{URL: where, Key: testKey})
			wantError(t, err, bailey.Conflict, "newer bailey", "999", "restore the backup")
		})
	}
}

func TestServersStartingTogetherMigrateOnce(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			where := freshDatabase(t, kind)
			stores := make([]*store.Store, 6)
			errs := make([]error, len(stores))
			gate := make(chan struct{}) // closed when all stand ready
			var wg sync.WaitGroup
			for i := range stores {
				wg.Go(func() {
					<-gate
					stores[i], errs[i] = store.Open(t.Context(), store.Config{URL: where, Key: testKey})
				})
			}
			close(gate)
			wg.Wait()
			for i, s := range stores {
				if errs[i] != nil {
					t.Errorf("server %d: %v", i, errs[i])
					continue
				}
				defer func() { _ = s.Close() }()
				versions := facts(t, s.Write(), `SELECT CAST(version_id AS TEXT) FROM `+store.VersionTable+` ORDER BY id`)
				if want := migrations(t, kind); !slices.Equal(versions, want) {
					t.Errorf("server %d sees the versions %v, want %v: each migration once", i, versions, want)
				}
			}
		})
	}
}

// migrations lists the versions that the folder of a database has, and the 0
// that goose begins with.
func migrations(t *testing.T, kind string) []string {
	t.Helper()
	files, err := os.ReadDir(filepath.Join("migrations", kind))
	if err != nil {
		t.Fatal(err)
	}
	versions := []string{"0"}
	for _, f := range files {
		number, _, _ := strings.Cut(f.Name(), "_")
		versions = append(versions, strings.TrimLeft(number, "0"))
	}
	return versions
}
