package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/baileyhq/bailey"
)

// oldestPostgres is the oldest server_version_num that is served: 13.
const oldestPostgres = 130000

// openPostgres opens a pool on the URL. The URL may carry libpq's and pgx's
// parameters: sslmode, search_path, pool_max_conns,
// default_query_exec_mode=exec for a pooler that shares connections between
// transactions.
func (s *Store) openPostgres(ctx context.Context, url string) error {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		// pgx takes passwords out of the text it quotes, but only where it finds
		// them: the text stays in the log.
		return &bailey.Error{
			Kind:  bailey.Invalid,
			Msg:   "the database URL cannot be read",
			Hint:  "use postgres://USER:PASSWORD@HOST:PORT/DATABASE; write special characters of the password as %XX",
			Cause: errors.New("store: " + withoutURL(err, url)),
		}
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "bailey"
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	conns, err := poolSize(cfg.RuntimeParams)
	if err != nil {
		return err
	}
	s.warnPlaintext(ctx, cfg)

	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(time.Hour) // a moved or rebalanced server is found again
	s.read, s.write = db, db

	text, err := one(ctx, s.on(db), scanText, `SHOW server_version_num`)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL at %s: %w", net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))), err)
	}
	version, err := strconv.Atoi(text)
	if err != nil || version < oldestPostgres {
		return &bailey.Error{
			Kind: bailey.Invalid,
			Msg:  fmt.Sprintf("PostgreSQL %d is too old", version/10000),
			Hint: fmt.Sprintf("use PostgreSQL %d or newer", oldestPostgres/10000),
		}
	}
	return nil
}

// poolSize takes pool_max_conns out of the URL's parameters, where the server
// would not know it: how many connections this process opens at most.
func poolSize(params map[string]string) (int, error) {
	text, ok := params["pool_max_conns"]
	if !ok {
		return 16, nil
	}
	delete(params, "pool_max_conns")
	n, err := strconv.Atoi(text)
	if err != nil || n < 2 || n > 1000 { // migrating takes two
		return 0, &bailey.Error{
			Kind: bailey.Invalid,
			Msg:  fmt.Sprintf("pool_max_conns in the database URL is %q", clean(text, 40)),
			Hint: "use a number from 2 to 1000, or leave it out for 16",
		}
	}
	return n, nil
}

// warnPlaintext says when the connection to another host may go unencrypted:
// pgx's default, "prefer", lets anybody on the path ask for plain text.
func (s *Store) warnPlaintext(ctx context.Context, cfg *pgx.ConnConfig) {
	local := func(host string) bool {
		ip := net.ParseIP(host)
		return strings.HasPrefix(host, "/") || host == "localhost" || ip != nil && ip.IsLoopback()
	}
	plain := cfg.TLSConfig == nil && !local(cfg.Host)
	for _, f := range cfg.Fallbacks {
		plain = plain || f.TLSConfig == nil && !local(f.Host)
	}
	if plain {
		s.log.WarnContext(ctx, "connection to PostgreSQL may be unencrypted: add sslmode=verify-full to its URL",
			slog.String("host", cfg.Host))
	}
}

// withoutURL returns the error's text without the URL, should it be quoted.
func withoutURL(err error, url string) string {
	return strings.ReplaceAll(err.Error(), url, "[the URL]")
}
