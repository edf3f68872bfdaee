package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/baileyhq/bailey"
)

// migrations hold the schema's history, one folder per dialect, in step. There
// is no way down: the way back is a backup.
//
//go:embed migrations
var migrations embed.FS

const versionTable = "schema_version"

// migrate brings the schema up to date, or refuses a database that a newer
// program has written.
func (s *Store) migrate(ctx context.Context) error {
	unlock, err := s.lockMigration(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	err = s.migrateLocked(ctx)
	return errors.Join(err, unlock())
}

func (s *Store) migrateLocked(ctx context.Context) error {
	dialect, folder := goose.DialectSQLite3, "migrations/sqlite"
	if s.pg {
		dialect, folder = goose.DialectPostgres, "migrations/postgres"
	}
	files, err := fs.Sub(migrations, folder)
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect, s.write, files,
		goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true), goose.WithSlog(s.log))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	for before := int64(-1); ; {
		have, know, err := p.GetVersions(ctx)
		if err != nil {
			return fmt.Errorf("migrate: read the schema's version: %w", err)
		}
		if have > know {
			return &bailey.Error{
				Kind: bailey.Conflict,
				Msg: fmt.Sprintf("the database was written by a newer bailey: its schema is %d, and this program (%s) knows %d",
					have, bailey.Version, know),
				Hint: "start the newer program again, or restore the backup that was made before the upgrade",
			}
		}
		results, err := p.Up(ctx)
		var took time.Duration
		for _, r := range results {
			s.log.DebugContext(ctx, "schema step", slog.Int64("version", r.Source.Version), slog.Duration("took", r.Duration))
			took += r.Duration
		}
		if err == nil {
			if len(results) > 0 {
				s.log.InfoContext(ctx, "schema migrated", slog.Int64("from", have), slog.Int64("to", know), slog.Duration("took", took))
			}
			return nil
		}
		// On SQLite, which has no such lock, another process may have done this
		// step meanwhile: go on as long as there is progress.
		if s.pg || have <= before {
			return fmt.Errorf("migrate from schema %d to %d: %w", have, know, err)
		}
		before = have
	}
}

// lockMigration keeps two servers that start at once from migrating one
// PostgreSQL together. The lock lives in a transaction of its own: it ends with
// the process, and holds behind a pooler that shares connections between
// transactions, where a session's lock would not.
func (s *Store) lockMigration(ctx context.Context) (unlock func() error, err error) {
	if !s.pg {
		return func() error { return nil }, nil
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('bailey migrate ' || current_schema(), 0))`)
	if err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return tx.Rollback, nil
}
