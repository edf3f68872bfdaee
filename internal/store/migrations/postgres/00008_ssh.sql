-- +goose Up
-- Who may sign in over SSH. migrations/sqlite says the same in its dialect.

CREATE TABLE ssh_keys (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id     TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name        TEXT COLLATE "C" NOT NULL,
    kind        TEXT COLLATE "C" NOT NULL,
    fingerprint TEXT COLLATE "C" NOT NULL UNIQUE, -- one key is one person's
    wire        BYTEA NOT NULL,
    comment     TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL, -- 0: never
    used_at     BIGINT NOT NULL,
    used_from   TEXT COLLATE "C" NOT NULL,
    reminded_at BIGINT NOT NULL,
    UNIQUE (user_id, name)
);

CREATE INDEX ssh_keys_expires_at ON ssh_keys (expires_at);

-- What signs certificates; the secret halves are sealed.
CREATE TABLE ssh_authorities (
    kind       TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (kind IN ('user', 'host')),
    sealed     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL
);

-- Every certificate that was issued and has not expired long ago.
CREATE TABLE ssh_certificates (
    serial      BIGINT NOT NULL PRIMARY KEY CHECK (serial > 0),
    id          TEXT COLLATE "C" NOT NULL UNIQUE,
    user_id     TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    fingerprint TEXT COLLATE "C" NOT NULL,
    made_by     TEXT COLLATE "C" NOT NULL,
    made_from   TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL,
    used_at     BIGINT NOT NULL,
    used_from   TEXT COLLATE "C" NOT NULL,
    revoked_at  BIGINT NOT NULL -- 0: not revoked
);

CREATE INDEX ssh_certificates_user_id ON ssh_certificates (user_id);

-- Keys that wait for their owner's word, under the hash of a code.
CREATE TABLE ssh_pending (
    code_hash   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name        TEXT COLLATE "C" NOT NULL, -- of the account that was claimed; there may be none
    kind        TEXT COLLATE "C" NOT NULL,
    fingerprint TEXT COLLATE "C" NOT NULL,
    wire        BYTEA NOT NULL,
    ip          TEXT COLLATE "C" NOT NULL,
    client      TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);

CREATE INDEX ssh_pending_fingerprint ON ssh_pending (fingerprint);
