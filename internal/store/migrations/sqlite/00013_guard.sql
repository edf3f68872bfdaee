-- +goose Up
-- What guard remembers over a restart and shares with other servers: bans, the
-- failures of the last hour, and who has signed in from where.
-- migrations/postgres says the same in its dialect.

-- One row: the number of the last change. Whoever changes something takes the
-- next number in the same transaction, so that numbers appear in their order.
CREATE TABLE guard_state (
    id  INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    rev INTEGER NOT NULL
) STRICT;

INSERT INTO guard_state (id, rev) VALUES (1, 0);

CREATE TABLE guard_bans (
    id         TEXT    NOT NULL PRIMARY KEY,
    kind       TEXT    NOT NULL,
    prefix     TEXT    NOT NULL,
    subject    TEXT    NOT NULL, -- '' but for accounts
    pair       INTEGER NOT NULL,
    slowed     INTEGER NOT NULL,
    imposed_by TEXT    NOT NULL, -- '' when nobody did
    until_at   INTEGER NOT NULL,
    repeated   INTEGER NOT NULL, -- 0: lifted
    rev        INTEGER NOT NULL
) STRICT;

CREATE INDEX guard_bans_rev ON guard_bans (rev);
CREATE INDEX guard_bans_until_at ON guard_bans (until_at);

CREATE TABLE guard_failures (
    rev       INTEGER NOT NULL,
    server    TEXT    NOT NULL,
    prefix    TEXT    NOT NULL,
    subject   INTEGER NOT NULL, -- a keyed hash
    name      TEXT    NOT NULL, -- '' but for accounts
    failed_at INTEGER NOT NULL
) STRICT;

CREATE INDEX guard_failures_rev ON guard_failures (rev);
CREATE INDEX guard_failures_failed_at ON guard_failures (failed_at);

CREATE TABLE guard_knowns (
    prefix   TEXT    NOT NULL,
    subject  INTEGER NOT NULL, -- a keyed hash
    until_at INTEGER NOT NULL,
    rev      INTEGER NOT NULL,
    PRIMARY KEY (prefix, subject)
) STRICT;

CREATE INDEX guard_knowns_rev ON guard_knowns (rev);
CREATE INDEX guard_knowns_until_at ON guard_knowns (until_at);
