-- +goose Up
-- What workspaces were refused to reach, and what they are allowed beyond the
-- configuration. migrations/sqlite says the same in its dialect.

-- One row per user, class and destination: trying again counts up.
CREATE TABLE egress_requests (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id        TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    workspace_id   TEXT COLLATE "C" NOT NULL, -- that tried last; it may be gone
    workspace_name TEXT COLLATE "C" NOT NULL,
    class          TEXT COLLATE "C" NOT NULL,
    host           TEXT COLLATE "C" NOT NULL,
    port           BIGINT NOT NULL CHECK (port BETWEEN 1 AND 65535),
    method         TEXT COLLATE "C" NOT NULL,
    state          TEXT COLLATE "C" NOT NULL CHECK (state IN ('open', 'allowed', 'denied')),
    tries          BIGINT NOT NULL,
    first_at       BIGINT NOT NULL,
    last_at        BIGINT NOT NULL,
    decided_by     TEXT COLLATE "C" NOT NULL,
    decided_at     BIGINT NOT NULL,
    UNIQUE (user_id, class, host, port)
);

CREATE INDEX egress_requests_last_at ON egress_requests (state, last_at);

CREATE TABLE egress_grants (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    request_id   TEXT COLLATE "C" NOT NULL, -- '' when nobody asked
    scope        TEXT COLLATE "C" NOT NULL CHECK (scope IN ('once', 'day', 'class')),
    user_id      TEXT COLLATE "C" NOT NULL, -- '' for everybody in the class
    workspace_id TEXT COLLATE "C" NOT NULL, -- '' but for once
    class        TEXT COLLATE "C" NOT NULL,
    host         TEXT COLLATE "C" NOT NULL,
    port         BIGINT NOT NULL CHECK (port BETWEEN 1 AND 65535),
    created_by   TEXT COLLATE "C" NOT NULL,
    created_at   BIGINT NOT NULL,
    used_at      BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL
);

CREATE INDEX egress_grants_expires_at ON egress_grants (expires_at);
