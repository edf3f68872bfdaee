-- +goose Up
-- The first schema. Times are microseconds since 1970 UTC, 0 for none; ids are
-- ULIDs; lists and classes are JSON. migrations/postgres says the same in its
-- dialect, and a test compares the two.

-- What is decided once for the whole installation. "uid" is the next numeric
-- uid to give out: it only grows, so a deleted user's uid is never reused.
CREATE TABLE counters (
    name  TEXT    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;

INSERT INTO counters (name, value) VALUES ('uid', 20000);

-- Facts about this database itself, such as the check of the sealing key.
CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE users (
    id            TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    role          TEXT    NOT NULL CHECK (role IN ('user', 'auditor', 'admin')),
    member_of     TEXT    NOT NULL, -- group names, a JSON array
    uid           INTEGER NOT NULL UNIQUE CHECK (uid BETWEEN 20000 AND 59999),
    disabled      INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    password_hash TEXT    NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id          TEXT    NOT NULL PRIMARY KEY,
    user_id     TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    secret_hash TEXT    NOT NULL UNIQUE,
    ip          TEXT    NOT NULL,
    user_agent  TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX sessions_user_id ON sessions (user_id);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

CREATE TABLE tokens (
    id          TEXT    NOT NULL PRIMARY KEY,
    user_id     TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    secret_hash TEXT    NOT NULL UNIQUE,
    note        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    used_at     INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX tokens_user_id ON tokens (user_id);

-- The one-time set-up link, while it is pending.
CREATE TABLE setup (
    id          INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    secret_hash TEXT    NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE volumes (
    id         TEXT    NOT NULL PRIMARY KEY,
    owner_id   TEXT    NOT NULL REFERENCES users (id),
    name       TEXT    NOT NULL,
    uid        INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (owner_id, name)
) STRICT;

-- A volume is in one workspace at most: volume_id is unique.
CREATE TABLE workspaces (
    id         TEXT    NOT NULL PRIMARY KEY,
    owner_id   TEXT    NOT NULL REFERENCES users (id),
    name       TEXT    NOT NULL,
    class      TEXT    NOT NULL,
    slug       TEXT    NOT NULL UNIQUE,
    volume_id  TEXT    NOT NULL UNIQUE REFERENCES volumes (id),
    state      TEXT    NOT NULL CHECK (state IN ('stopped', 'starting', 'running', 'stopping', 'failed')),
    wanted     TEXT    NOT NULL CHECK (wanted IN ('stopped', 'running')),
    reason     TEXT    NOT NULL,
    run_id     TEXT    NOT NULL, -- the current or the last run; '' before the first
    self_check TEXT    NOT NULL,
    stage_seq  INTEGER NOT NULL, -- seq of the newest stage
    created_at INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    active_at  INTEGER NOT NULL,
    UNIQUE (owner_id, name)
) STRICT;

-- cpu_millis, memory_bytes and gpu_count repeat what class says, for sums.
CREATE TABLE runs (
    id           TEXT    NOT NULL PRIMARY KEY,
    workspace_id TEXT    NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    owner_id     TEXT    NOT NULL,
    uid          INTEGER NOT NULL,
    volume_id    TEXT    NOT NULL,
    class        TEXT    NOT NULL, -- the class as it was at the start, JSON
    cpu_millis   INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL,
    gpu_count    INTEGER NOT NULL,
    gpus         TEXT    NOT NULL, -- UUIDs, a JSON array; who holds them now is in leases
    digest       TEXT    NOT NULL,
    container_id TEXT    NOT NULL,
    token_sealed TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    ready_at     INTEGER NOT NULL,
    ended_at     INTEGER NOT NULL,
    end_reason   TEXT    NOT NULL
) STRICT;

CREATE INDEX runs_workspace_id ON runs (workspace_id);

-- A workspace has one run at most that has not ended.
CREATE UNIQUE INDEX runs_one_open ON runs (workspace_id) WHERE ended_at = 0;

-- One row per GPU: two holders cannot be written down.
CREATE TABLE leases (
    gpu          TEXT    NOT NULL PRIMARY KEY,
    run_id       TEXT    NOT NULL REFERENCES runs (id),
    workspace_id TEXT    NOT NULL,
    owner_id     TEXT    NOT NULL,
    since        INTEGER NOT NULL
) STRICT;

CREATE INDEX leases_run_id ON leases (run_id);

CREATE TABLE stages (
    workspace_id TEXT    NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    seq          INTEGER NOT NULL,
    run_id       TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    status       TEXT    NOT NULL,
    detail       TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    took         INTEGER NOT NULL,
    PRIMARY KEY (workspace_id, seq)
) STRICT;

-- Who does what only one server may do. epoch grows with every change of hands.
CREATE TABLE locks (
    name       TEXT    NOT NULL PRIMARY KEY,
    holder     TEXT    NOT NULL,
    epoch      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
