-- +goose Up
-- What workspaces were refused to reach, and what they are allowed beyond the
-- configuration. migrations/postgres says the same in its dialect.

-- One row per user, class and destination: trying again counts up.
CREATE TABLE egress_requests (
    id             TEXT    NOT NULL PRIMARY KEY,
    user_id        TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    workspace_id   TEXT    NOT NULL, -- that tried last; it may be gone
    workspace_name TEXT    NOT NULL,
    class          TEXT    NOT NULL,
    host           TEXT    NOT NULL,
    port           INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    method         TEXT    NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('open', 'allowed', 'denied')),
    tries          INTEGER NOT NULL,
    first_at       INTEGER NOT NULL,
    last_at        INTEGER NOT NULL,
    decided_by     TEXT    NOT NULL,
    decided_at     INTEGER NOT NULL,
    UNIQUE (user_id, class, host, port)
) STRICT;

CREATE INDEX egress_requests_last_at ON egress_requests (state, last_at);

CREATE TABLE egress_grants (
    id           TEXT    NOT NULL PRIMARY KEY,
    request_id   TEXT    NOT NULL, -- '' when nobody asked
    scope        TEXT    NOT NULL CHECK (scope IN ('once', 'day', 'class')),
    user_id      TEXT    NOT NULL, -- '' for everybody in the class
    workspace_id TEXT    NOT NULL, -- '' but for once
    class        TEXT    NOT NULL,
    host         TEXT    NOT NULL,
    port         INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    created_by   TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    used_at      INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT;

CREATE INDEX egress_grants_expires_at ON egress_grants (expires_at);
