-- +goose Up
-- Who may sign in over SSH. migrations/postgres says the same in its dialect.

CREATE TABLE ssh_keys (
    id          TEXT NOT NULL PRIMARY KEY,
    user_id     TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    kind        TEXT NOT NULL,
    fingerprint TEXT NOT NULL UNIQUE, -- one key is one person's
    wire        BLOB NOT NULL,
    comment     TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL, -- 0: never
    used_at     INTEGER NOT NULL,
    used_from   TEXT NOT NULL,
    reminded_at INTEGER NOT NULL,
    UNIQUE (user_id, name)
) STRICT;

CREATE INDEX ssh_keys_expires_at ON ssh_keys (expires_at);

-- What signs certificates; the secret halves are sealed.
CREATE TABLE ssh_authorities (
    kind       TEXT NOT NULL PRIMARY KEY CHECK (kind IN ('user', 'host')),
    sealed     TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Every certificate that was issued and has not expired long ago.
CREATE TABLE ssh_certificates (
    serial      INTEGER NOT NULL PRIMARY KEY CHECK (serial > 0),
    id          TEXT NOT NULL UNIQUE,
    user_id     TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    fingerprint TEXT NOT NULL,
    made_by     TEXT NOT NULL,
    made_from   TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    used_at     INTEGER NOT NULL,
    used_from   TEXT NOT NULL,
    revoked_at  INTEGER NOT NULL -- 0: not revoked
) STRICT;

CREATE INDEX ssh_certificates_user_id ON ssh_certificates (user_id);

-- Keys that wait for their owner's word, under the hash of a code.
CREATE TABLE ssh_pending (
    code_hash   TEXT NOT NULL PRIMARY KEY,
    name        TEXT NOT NULL, -- of the account that was claimed; there may be none
    kind        TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    wire        BLOB NOT NULL,
    ip          TEXT NOT NULL,
    client      TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX ssh_pending_fingerprint ON ssh_pending (fingerprint);
