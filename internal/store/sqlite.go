package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/baileyhq/bailey"
)

// sqlitePragmas are asserted on every pool when it is opened: a driver that
// overlooks a setting would cost durability or foreign keys without a word.
// mmap stays off: a fault in mapped pages would kill the process.
func sqlitePragmas(readOnly bool) [][2]string {
	pragmas := [][2]string{
		{"journal_mode", "wal"},
		{"synchronous", "2"}, // FULL: a commit is on the disk
		{"foreign_keys", "1"},
		{"busy_timeout", "5000"},
		{"trusted_schema", "0"},
		{"mmap_size", "0"},
		{"query_only", "0"},
	}
	if readOnly {
		pragmas[len(pragmas)-1][1] = "1"
	}
	return pragmas
}

// sqliteDSN returns the connection string for the file. ATTACH is never used:
// SQLite has had corruption bugs in transactions over several files.
func sqliteDSN(path string, readOnly bool) string {
	q := url.Values{}
	q.Set("_txlock", "immediate") // no transaction finds out half-way that it cannot write
	q.Set("_dqs", "0")            // "name" is never silently a text
	q.Set("_defensive", "1")      // no SQL can damage the file on purpose
	q.Set("_busy_timeout", "5000")
	q.Add("_pragma", "synchronous(FULL)")
	q.Add("_pragma", "foreign_keys(1)")
	q.Add("_pragma", "trusted_schema(0)")
	q.Add("_pragma", "mmap_size(0)")
	if readOnly {
		q.Set("mode", "ro")
		q.Add("_pragma", "query_only(1)")
	} else {
		q.Set("mode", "rw") // the file was made by createPrivate
		q.Add("_pragma", "journal_mode(WAL)")
		q.Add("_pragma", "journal_size_limit(67108864)")
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

// openSQLite opens the file at path with one connection for writing and
// several for reading. A missing file is made, and so is its directory.
func (s *Store) openSQLite(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := createPrivate(ctx, path, s.log); err != nil {
		return err
	}
	s.write, err = openPool(ctx, path, false, 1)
	if err != nil {
		return err
	}
	if err := quickCheck(ctx, s.write, path); err != nil {
		return err
	}
	s.read, err = openPool(ctx, path, true, max(4, runtime.GOMAXPROCS(0)))
	return err
}

// openPool opens conns connections at most and proves their settings.
func openPool(ctx context.Context, path string, readOnly bool, conns int) (*sql.DB, error) {
	connector, err := sqlite.NewConnector(sqliteDSN(path, readOnly))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	// Who finds a new file while another switches it to WAL is told "busy" at
	// once: SQLite does not ask its busy handler there.
	for wait := time.Millisecond; ; wait *= 2 {
		err = assertPragmas(ctx, db, path, sqlitePragmas(readOnly))
		if err == nil {
			return db, nil
		}
		if !isBusy(err) || wait > time.Second {
			return nil, errors.Join(err, db.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), db.Close())
		case <-time.After(wait):
		}
	}
}

// isBusy reports whether another connection holds the file.
func isBusy(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlite3.SQLITE_BUSY
}

func assertPragmas(ctx context.Context, db *sql.DB, path string, pragmas [][2]string) error {
	for _, p := range pragmas {
		var got string
		if err := db.QueryRowContext(ctx, "PRAGMA "+p[0]).Scan(&got); err != nil {
			return fmt.Errorf("open %s: read setting %s: %w", path, p[0], err)
		}
		if got != p[1] {
			return &bailey.Error{
				Kind: bailey.Unavailable,
				Msg:  fmt.Sprintf("the state file %s does not work safely: its setting %s is %q and must be %q", path, p[0], got, p[1]),
				Hint: "keep the state on a local disk (ext4, xfs, btrfs, zfs), not on a network file system",
			}
		}
	}
	return nil
}

// quickCheck refuses a damaged file before anything is written to it.
func quickCheck(ctx context.Context, db *sql.DB, path string) error {
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	if verdict != "ok" {
		return &bailey.Error{
			Kind:  bailey.Unavailable,
			Msg:   "the state file " + path + " is damaged",
			Hint:  damagedHint,
			Cause: errors.New(verdict),
		}
	}
	return nil
}

// createPrivate makes sure that path is a file that only this user can read, in
// a directory that only this user can write to: whoever can write there could
// put a database of their own in the place of ours. SQLite gives its journal
// files the mode of the database file.
//
// An existing file is not opened here: closing a second descriptor would drop
// the locks that SQLite holds on it in this process.
func createPrivate(ctx context.Context, path string, log *slog.Logger) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &bailey.Error{
			Kind:  bailey.Unavailable,
			Msg:   "the state directory " + dir + " cannot be made: " + reason(err),
			Hint:  "choose another one with --state, or make it and give it to this user",
			Cause: err,
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return &bailey.Error{
			Kind: bailey.Invalid,
			Msg:  fmt.Sprintf("the state directory %s may be written by others (mode %04o)", dir, info.Mode().Perm()),
			Hint: "run: chmod 700 " + dir,
		}
	}

	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, fs.ErrExist) {
		return cannotOpen(path, err)
	}
	info, err = os.Stat(path)
	if err != nil {
		return cannotOpen(path, err)
	}
	if !info.Mode().IsRegular() {
		return &bailey.Error{
			Kind: bailey.Invalid,
			Msg:  "the state file " + path + " is not a plain file",
			Hint: "choose another path, or move away what is there",
		}
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o600); err != nil {
			return cannotOpen(path, err)
		}
		log.WarnContext(ctx, "state file was readable by others; its mode is 0600 now", slog.String("path", path))
	}
	return nil
}

func cannotOpen(path string, err error) error {
	return &bailey.Error{
		Kind:  bailey.Unavailable,
		Msg:   "the state file " + path + " cannot be opened: " + reason(err),
		Hint:  "make it readable and writable for the user that runs bailey",
		Cause: err,
	}
}

// reason returns the bare cause of a file error, without the path again.
func reason(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return strings.TrimSpace(err.Error())
}
