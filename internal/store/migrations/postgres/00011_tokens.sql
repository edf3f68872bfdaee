-- +goose Up
-- What a token is for, service accounts, who manages a group, and device
-- authorizations. migrations/sqlite says the same in its dialect.

-- Tokens from before there were scopes may what they always might.
ALTER TABLE tokens ADD COLUMN scopes     TEXT COLLATE "C" NOT NULL DEFAULT '["all"]'; -- a JSON array
ALTER TABLE tokens ADD COLUMN workspaces TEXT COLLATE "C" NOT NULL DEFAULT '[]';      -- ids; none: all
ALTER TABLE tokens ADD COLUMN networks   TEXT COLLATE "C" NOT NULL DEFAULT '[]';      -- CIDRs; none: everywhere
ALTER TABLE tokens ADD COLUMN parent_id  TEXT COLLATE "C" NOT NULL DEFAULT '';        -- the token that made it
ALTER TABLE tokens ADD COLUMN created_by TEXT COLLATE "C" NOT NULL DEFAULT '';        -- '' for its user
ALTER TABLE tokens ADD COLUMN used_ip    TEXT COLLATE "C" NOT NULL DEFAULT '';

ALTER TABLE users ADD COLUMN manages  TEXT COLLATE "C" NOT NULL DEFAULT '[]'; -- group names, a JSON array
ALTER TABLE users ADD COLUMN service  BIGINT NOT NULL DEFAULT 0 CHECK (service IN (0, 1));
ALTER TABLE users ADD COLUMN owner_id TEXT COLLATE "C" NOT NULL DEFAULT '';   -- of a service account

-- Requests of RFC 8628, from when a program asks until it has fetched its token.
CREATE TABLE devices (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    device_hash   TEXT COLLATE "C" NOT NULL UNIQUE, -- of what the program holds
    code_hash     TEXT COLLATE "C" NOT NULL UNIQUE, -- of what the person types
    state         TEXT COLLATE "C" NOT NULL CHECK (state IN ('pending', 'approved', 'denied')),
    note          TEXT COLLATE "C" NOT NULL,
    scopes        TEXT COLLATE "C" NOT NULL, -- a JSON array
    ip            TEXT COLLATE "C" NOT NULL,
    user_id       TEXT COLLATE "C" NOT NULL, -- who answered; '' before
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    polled_at     BIGINT NOT NULL,
    poll_interval BIGINT NOT NULL  -- microseconds
);

CREATE INDEX devices_user_id ON devices (user_id);
CREATE INDEX devices_expires_at ON devices (expires_at);
