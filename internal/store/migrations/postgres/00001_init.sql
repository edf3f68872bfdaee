-- +goose Up
-- The first schema. Times are microseconds since 1970 UTC, 0 for none; ids are
-- ULIDs; lists and classes are JSON. migrations/sqlite says the same in its
-- dialect, and a test compares the two. Text is collated "C" to sort as SQLite
-- sorts it, byte by byte.

-- What is decided once for the whole installation. "uid" is the next numeric
-- uid to give out: it only grows, so a deleted user's uid is never reused.
CREATE TABLE counters (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);

INSERT INTO counters (name, value) VALUES ('uid', 20000);

-- Facts about this database itself, such as the check of the sealing key.
CREATE TABLE meta (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);

CREATE TABLE users (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name          TEXT COLLATE "C" NOT NULL UNIQUE,
    role          TEXT COLLATE "C" NOT NULL CHECK (role IN ('user', 'auditor', 'admin')),
    member_of     TEXT COLLATE "C" NOT NULL, -- group names, a JSON array
    uid           BIGINT NOT NULL UNIQUE CHECK (uid BETWEEN 20000 AND 59999),
    disabled      BIGINT NOT NULL CHECK (disabled IN (0, 1)),
    password_hash TEXT COLLATE "C" NOT NULL,
    created_at    BIGINT NOT NULL
);

CREATE TABLE sessions (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id     TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    secret_hash TEXT COLLATE "C" NOT NULL UNIQUE,
    ip          TEXT COLLATE "C" NOT NULL,
    user_agent  TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    seen_at     BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);

CREATE INDEX sessions_user_id ON sessions (user_id);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

CREATE TABLE tokens (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id     TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    secret_hash TEXT COLLATE "C" NOT NULL UNIQUE,
    note        TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    used_at     BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);

CREATE INDEX tokens_user_id ON tokens (user_id);

-- The one-time set-up link, while it is pending.
CREATE TABLE setup (
    id          BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    secret_hash TEXT COLLATE "C" NOT NULL,
    expires_at  BIGINT NOT NULL
);

CREATE TABLE volumes (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    owner_id   TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    name       TEXT COLLATE "C" NOT NULL,
    uid        BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (owner_id, name)
);

-- A volume is in one workspace at most: volume_id is unique.
CREATE TABLE workspaces (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    owner_id   TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    name       TEXT COLLATE "C" NOT NULL,
    class      TEXT COLLATE "C" NOT NULL,
    slug       TEXT COLLATE "C" NOT NULL UNIQUE,
    volume_id  TEXT COLLATE "C" NOT NULL UNIQUE REFERENCES volumes (id),
    state      TEXT COLLATE "C" NOT NULL CHECK (state IN ('stopped', 'starting', 'running', 'stopping', 'failed')),
    wanted     TEXT COLLATE "C" NOT NULL CHECK (wanted IN ('stopped', 'running')),
    reason     TEXT COLLATE "C" NOT NULL,
    run_id     TEXT COLLATE "C" NOT NULL, -- the current or the last run; '' before the first
    self_check TEXT COLLATE "C" NOT NULL,
    stage_seq  BIGINT NOT NULL, -- seq of the newest stage
    created_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    active_at  BIGINT NOT NULL,
    UNIQUE (owner_id, name)
);

-- cpu_millis, memory_bytes and gpu_count repeat what class says, for sums.
CREATE TABLE runs (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    workspace_id TEXT COLLATE "C" NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    owner_id     TEXT COLLATE "C" NOT NULL,
    uid          BIGINT NOT NULL,
    volume_id    TEXT COLLATE "C" NOT NULL,
    class        TEXT COLLATE "C" NOT NULL, -- the class as it was at the start, JSON
    cpu_millis   BIGINT NOT NULL,
    memory_bytes BIGINT NOT NULL,
    gpu_count    BIGINT NOT NULL,
    gpus         TEXT COLLATE "C" NOT NULL, -- UUIDs, a JSON array; who holds them now is in leases
    digest       TEXT COLLATE "C" NOT NULL,
    container_id TEXT COLLATE "C" NOT NULL,
    token_sealed TEXT COLLATE "C" NOT NULL,
    created_at   BIGINT NOT NULL,
    ready_at     BIGINT NOT NULL,
    ended_at     BIGINT NOT NULL,
    end_reason   TEXT COLLATE "C" NOT NULL
);

CREATE INDEX runs_workspace_id ON runs (workspace_id);

-- A workspace has one run at most that has not ended.
CREATE UNIQUE INDEX runs_one_open ON runs (workspace_id) WHERE ended_at = 0;

-- One row per GPU: two holders cannot be written down.
CREATE TABLE leases (
    gpu          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    run_id       TEXT COLLATE "C" NOT NULL REFERENCES runs (id),
    workspace_id TEXT COLLATE "C" NOT NULL,
    owner_id     TEXT COLLATE "C" NOT NULL,
    since        BIGINT NOT NULL
);

CREATE INDEX leases_run_id ON leases (run_id);

CREATE TABLE stages (
    workspace_id TEXT COLLATE "C" NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    seq          BIGINT NOT NULL,
    run_id       TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    status       TEXT COLLATE "C" NOT NULL,
    detail       TEXT COLLATE "C" NOT NULL,
    at           BIGINT NOT NULL,
    took         BIGINT NOT NULL,
    PRIMARY KEY (workspace_id, seq)
);

-- Who does what only one server may do. epoch grows with every change of hands.
CREATE TABLE locks (
    name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    holder     TEXT COLLATE "C" NOT NULL,
    epoch      BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
