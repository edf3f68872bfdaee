package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/baileyhq/bailey"
)

// conn is where a statement can run: a pool or a transaction.
type conn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// A runner runs statements written with "?" on either database.
type runner struct {
	conn conn
	pg   bool
}

func (s *Store) on(c conn) runner { return runner{conn: c, pg: s.pg} }

// reads returns the runner for single queries.
func (s *Store) reads() runner { return s.on(s.read) }

// exec runs a statement and returns how many rows it touched.
func (r runner) exec(ctx context.Context, query string, args ...any) (int64, error) {
	args, err := bind(args)
	if err != nil {
		return 0, err
	}
	res, err := r.conn.ExecContext(ctx, r.text(query), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// text rewrites "?" to "$1", "$2" … for PostgreSQL. Our statements have no "?"
// in texts or names.
func (r runner) text(query string) string {
	if !r.pg {
		return query
	}
	var b strings.Builder
	b.Grow(len(query) + 16)
	for n := 1; ; n++ {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(n))
		query = after
	}
}

// A scanner fills its arguments from a row.
type scanner interface{ Scan(dest ...any) error }

// one returns the only row of a query, or sql.ErrNoRows.
func one[T any](ctx context.Context, r runner, scan func(scanner) (T, error), query string, args ...any) (T, error) {
	all, err := list(ctx, r, scan, query, args...)
	if err == nil && len(all) == 0 {
		err = sql.ErrNoRows
	}
	if err != nil {
		var zero T
		return zero, err
	}
	return all[0], nil
}

// list returns every row of a query; no rows are an empty list, never nil.
func list[T any](ctx context.Context, r runner, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	all := []T{}
	args, err := bind(args)
	if errors.Is(err, errUnstorable) {
		return all, nil // what cannot be stored is not there
	}
	if err != nil {
		return nil, err
	}
	rows, err := r.conn.QueryContext(ctx, r.text(query), args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // what matters of it is in rows.Err
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

func scanInt(row scanner) (n int64, err error)   { return n, row.Scan(&n) }
func scanText(row scanner) (t string, err error) { return t, row.Scan(&t) }

// errUnstorable is given for text with a NUL or broken UTF-8 in it: PostgreSQL
// stores neither, so neither database is asked.
var errUnstorable = &bailey.Error{
	Kind: bailey.Invalid,
	Msg:  "the text is not valid: it has a zero byte or broken UTF-8 in it",
	Hint: "remove the characters that cannot be shown",
}

// bind turns Go's values into what both databases store: times into
// microseconds, truth into 0 and 1, named texts into text.
func bind(args []any) ([]any, error) {
	out := make([]any, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case string:
			if strings.IndexByte(v, 0) >= 0 || !utf8.ValidString(v) {
				return nil, errUnstorable
			}
			out[i] = v
		case bailey.State:
			out[i] = string(v)
		case bailey.Role:
			out[i] = string(v)
		case time.Time:
			out[i] = micros(v)
		case bool:
			out[i] = int64(0)
			if v {
				out[i] = int64(1)
			}
		case int:
			out[i] = int64(v)
		case int64:
			out[i] = v
		case []byte:
			out[i] = v
		default:
			return nil, fmt.Errorf("store: cannot bind a %T", a)
		}
	}
	return out, nil
}

// micros returns the time as it is stored; the zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// fromMicros is the inverse of micros.
func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// clock returns the time now, as it will be read back.
func (s *Store) clock() time.Time { return fromMicros(micros(s.now())) }

// clean makes free text storable and short: bytes that are not UTF-8 and zero
// bytes become U+FFFD, and what is longer than limit bytes is cut.
func clean(text string, limit int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) <= limit {
		return text
	}
	cut := limit - len("…")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// How much of a free text is kept, in bytes.
const (
	shortText = 512
	longText  = 4096
)

// toJSON encodes what is stored as one text. A nil list is stored as [].
func toJSON(v any) (string, error) {
	if l, ok := v.([]string); ok && l == nil {
		return "[]", nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}

func fromJSON[T any](text string) (v T, err error) {
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return v, fmt.Errorf("stored JSON: %w", err)
	}
	return v, nil
}

// decide runs fn in one transaction that no other decide runs beside, on any
// server: what fn reads is true until it commits. fn may run several times and
// must set, not add to, what it gives to its caller.
//
// SQLite has one writer anyway. PostgreSQL is asked for SERIALIZABLE, and fn
// waits its turn for a table lock first: LOCK TABLE takes no snapshot, so fn
// sees what its predecessor committed and a crowd of launches does not spend
// its time on repeating itself.
func (s *Store) decide(ctx context.Context, doing string, fn func(context.Context, runner) error) error {
	return s.transact(ctx, doing, sql.LevelSerializable, fn)
}

// change runs fn in one transaction without waiting for the decisions of others.
// It is for rows that no decision depends on.
func (s *Store) change(ctx context.Context, doing string, fn func(context.Context, runner) error) error {
	level := sql.LevelReadCommitted
	if s.fence != nil {
		level = sql.LevelSerializable // the fence must not fall between looking and writing
	}
	return s.transact(ctx, doing, level, fn)
}

// update runs one statement that must touch a row of thing; NotFound otherwise.
func (s *Store) update(ctx context.Context, doing, thing, query string, args ...any) error {
	return s.change(ctx, doing, func(ctx context.Context, r runner) error {
		n, err := r.exec(ctx, query, args...)
		if err == nil && n == 0 {
			err = found(thing, sql.ErrNoRows)
		}
		if errors.Is(err, errUnstorable) {
			err = found(thing, sql.ErrNoRows)
		}
		return err
	})
}

// Patience of PostgreSQL transactions: how often one that lost against another
// is repeated, how long one waits for its turn, and after which silence of a
// stalled server its transaction is ended so that the others go on.
const (
	maxTries  = 12
	patience  = `SET LOCAL lock_timeout = '20s'; SET LOCAL idle_in_transaction_session_timeout = '20s'`
	takeTurns = `; LOCK TABLE counters IN SHARE ROW EXCLUSIVE MODE`
)

func (s *Store) transact(ctx context.Context, doing string, level sql.IsolationLevel, fn func(context.Context, runner) error) error {
	for try := 1; ; try++ {
		err := s.transactOnce(ctx, level, fn)
		if err == nil || !isLost(err) {
			return fail(doing, err)
		}
		if try == maxTries {
			return &bailey.Error{
				Kind:  bailey.Unavailable,
				Msg:   "the database is too busy: others changed the same things at the same time",
				Hint:  "try again in a moment",
				Cause: fmt.Errorf("store: %s, %d times: %w", doing, try, err),
			}
		}
		// 1–2 ms, 2–4 ms … 128–256 ms.
		pause := time.Millisecond << min(try-1, 7)
		pause += rand.N(pause) //nolint:gosec // jitter, not a secret
		select {
		case <-ctx.Done():
			return fmt.Errorf("store: %s: %w", doing, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

func (s *Store) transactOnce(ctx context.Context, level sql.IsolationLevel, fn func(context.Context, runner) error) (err error) {
	opts := &sql.TxOptions{}
	if s.pg {
		opts.Isolation = level
	}
	tx, err := s.write.BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// A transaction that ended by itself needs no rollback.
			if rerr := tx.Rollback(); rerr != nil && !errors.Is(rerr, sql.ErrTxDone) {
				err = errors.Join(err, rerr)
			}
		}
	}()
	if s.pg {
		settings := patience
		if level == sql.LevelSerializable {
			settings += takeTurns
		}
		if _, err := tx.ExecContext(ctx, settings, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	}
	r := s.on(tx)
	if err := s.checkFence(ctx, r); err != nil {
		return err
	}
	if err := fn(ctx, r); err != nil {
		return err
	}
	err = tx.Commit()
	if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
		// database/sql rolled back by itself before Commit could look: what
		// happened is the cancelling, not somebody's second Commit.
		return context.Cause(ctx)
	}
	return err
}
