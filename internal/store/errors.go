package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/baileyhq/bailey"
)

const damagedHint = "stop the server, keep a copy of the file and of those beside it, and restore the newest backup"

// fail gives an error the shape callers know: a *bailey.Error stays as it is,
// what is wrong with the database itself becomes one of kind Unavailable, and
// everything else says what we were doing.
func fail(doing string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*bailey.Error](err); ok {
		return e
	}
	err = fmt.Errorf("store: %s: %w", doing, err)
	// A time-out of our own while connecting is the database's fault; any other
	// is the caller's.
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) && !connecting {
		return err
	}
	msg, hint := broken(err)
	if msg == "" {
		return err
	}
	return &bailey.Error{Kind: bailey.Unavailable, Msg: msg, Hint: hint, Cause: err}
}

// broken says in words what is wrong with the database, and what to do about
// it; both are empty when the error is about something else.
func broken(err error) (msg, hint string) {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return brokenSQLite(e.Code())
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return brokenPostgres(e.Code)
	}
	_, refused := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	if refused || network || errors.Is(err, sql.ErrConnDone) {
		return "the database does not answer",
			"an administrator checks that PostgreSQL runs and that its URL is right; nothing was lost"
	}
	return "", ""
}

func brokenSQLite(code int) (msg, hint string) {
	switch code & 0xff { // the low byte is the family, the rest the detail
	case sqlite3.SQLITE_FULL:
		return "the server cannot save its state: the disk is full",
			"an administrator frees space on the disk of the state directory; nothing was lost"
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		return "the server cannot save its state: the state file is read-only",
			"an administrator makes the file, its directory and their disk writable for the user that runs bailey"
	case sqlite3.SQLITE_CANTOPEN:
		return "the state file cannot be opened",
			"an administrator checks that the file and its directory are there and belong to the user that runs bailey"
	case sqlite3.SQLITE_IOERR:
		return "the server cannot save or read its state: the disk reports an error",
			"an administrator checks the disk of the state directory (space, kernel log) before anything else"
	case sqlite3.SQLITE_CORRUPT:
		return "the state file is damaged", damagedHint
	case sqlite3.SQLITE_NOTADB:
		return "the state file is not an SQLite database",
			"choose another path, or move away what is there; " + damagedHint
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return "the state file is in use by another program",
			"end the other program (a second server, a backup, an SQLite shell), then try again"
	}
	return "", ""
}

func brokenPostgres(code string) (msg, hint string) {
	switch code {
	case "53100":
		return "the server cannot save its state: the database's disk is full",
			"an administrator frees space on the disk of PostgreSQL; nothing was lost"
	case "25006":
		return "the server cannot save its state: the database is read-only",
			"an administrator points the database URL at the primary, not at a replica"
	case "55P03", "25P03": // lock_timeout, idle_in_transaction_session_timeout
		return "the database is busy: another server holds what is needed", "try again in a moment"
	case "28000", "28P01":
		return "the database refuses this user or password",
			"an administrator corrects the database URL"
	case "3D000":
		return "the database that the URL names is not there",
			"an administrator creates it (createdb), or corrects the URL"
	case "42501":
		return "the database user lacks a right",
			"an administrator gives the user of the URL all rights on its schema"
	}
	if len(code) == 5 {
		switch code[:2] {
		case "08", "53", "57", "58": // connection, resources, operator, system
			return "the database does not answer as it should",
				"an administrator looks at PostgreSQL's own log; nothing was lost"
		}
	}
	return "", ""
}

// isLost reports whether the transaction lost against another one and may be
// repeated as a whole.
func isLost(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == "40001" || e.Code == "40P01")
}

// isDuplicate reports whether a row with the same key is there already.
func isDuplicate(err error) bool {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "23505"
}

// isDangling reports whether a row refers to one that is not there.
func isDangling(err error) bool {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "23503"
}

// found turns "no rows" into NotFound: there is no such thing.
func found(thing string, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return &bailey.Error{Kind: bailey.NotFound, Msg: "there is no such " + thing}
	}
	return err
}
