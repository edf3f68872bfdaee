-- +goose Up
-- What guard remembers over a restart and shares with other servers: bans, the
-- failures of the last hour, and who has signed in from where.
-- migrations/sqlite says the same in its dialect.

-- One row: the number of the last change. Whoever changes something takes the
-- next number in the same transaction, so that numbers appear in their order.
CREATE TABLE guard_state (
    id  BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    rev BIGINT NOT NULL
);

INSERT INTO guard_state (id, rev) VALUES (1, 0);

CREATE TABLE guard_bans (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind       TEXT COLLATE "C" NOT NULL,
    prefix     TEXT COLLATE "C" NOT NULL,
    subject    TEXT COLLATE "C" NOT NULL, -- '' but for accounts
    pair       BIGINT NOT NULL,
    slowed     BIGINT NOT NULL,
    imposed_by TEXT COLLATE "C" NOT NULL, -- '' when nobody did
    until_at   BIGINT NOT NULL,
    repeated   BIGINT NOT NULL, -- 0: lifted
    rev        BIGINT NOT NULL
);

CREATE INDEX guard_bans_rev ON guard_bans (rev);
CREATE INDEX guard_bans_until_at ON guard_bans (until_at);

CREATE TABLE guard_failures (
    rev       BIGINT NOT NULL,
    server    TEXT COLLATE "C" NOT NULL,
    prefix    TEXT COLLATE "C" NOT NULL,
    subject   BIGINT NOT NULL, -- a keyed hash
    name      TEXT COLLATE "C" NOT NULL, -- '' but for accounts
    failed_at BIGINT NOT NULL
);

CREATE INDEX guard_failures_rev ON guard_failures (rev);
CREATE INDEX guard_failures_failed_at ON guard_failures (failed_at);

CREATE TABLE guard_knowns (
    prefix   TEXT COLLATE "C" NOT NULL,
    subject  BIGINT NOT NULL, -- a keyed hash
    until_at BIGINT NOT NULL,
    rev      BIGINT NOT NULL,
    PRIMARY KEY (prefix, subject)
);

CREATE INDEX guard_knowns_rev ON guard_knowns (rev);
CREATE INDEX guard_knowns_until_at ON guard_knowns (until_at);
