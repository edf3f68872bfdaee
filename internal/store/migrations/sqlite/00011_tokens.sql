-- +goose Up
-- What a token is for, service accounts, who manages a group, and device
-- authorizations. migrations/postgres says the same in its dialect.

-- Tokens from before there were scopes may what they always might.
ALTER TABLE tokens ADD COLUMN scopes     TEXT NOT NULL DEFAULT '["all"]'; -- a JSON array
ALTER TABLE tokens ADD COLUMN workspaces TEXT NOT NULL DEFAULT '[]';      -- ids; none: all
ALTER TABLE tokens ADD COLUMN networks   TEXT NOT NULL DEFAULT '[]';      -- CIDRs; none: everywhere
ALTER TABLE tokens ADD COLUMN parent_id  TEXT NOT NULL DEFAULT '';        -- the token that made it
ALTER TABLE tokens ADD COLUMN created_by TEXT NOT NULL DEFAULT '';        -- '' for its user
ALTER TABLE tokens ADD COLUMN used_ip    TEXT NOT NULL DEFAULT '';

ALTER TABLE users ADD COLUMN manages  TEXT    NOT NULL DEFAULT '[]'; -- group names, a JSON array
ALTER TABLE users ADD COLUMN service  INTEGER NOT NULL DEFAULT 0 CHECK (service IN (0, 1));
ALTER TABLE users ADD COLUMN owner_id TEXT    NOT NULL DEFAULT '';   -- of a service account

-- Requests of RFC 8628, from when a program asks until it has fetched its token.
CREATE TABLE devices (
    id            TEXT    NOT NULL PRIMARY KEY,
    device_hash   TEXT    NOT NULL UNIQUE, -- of what the program holds
    code_hash     TEXT    NOT NULL UNIQUE, -- of what the person types
    state         TEXT    NOT NULL CHECK (state IN ('pending', 'approved', 'denied')),
    note          TEXT    NOT NULL,
    scopes        TEXT    NOT NULL, -- a JSON array
    ip            TEXT    NOT NULL,
    user_id       TEXT    NOT NULL, -- who answered; '' before
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    polled_at     INTEGER NOT NULL,
    poll_interval INTEGER NOT NULL  -- microseconds
) STRICT;

CREATE INDEX devices_user_id ON devices (user_id);
CREATE INDEX devices_expires_at ON devices (expires_at);
