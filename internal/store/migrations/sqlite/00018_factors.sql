-- +goose Up
-- Second factors, the browsers that people are known by, sign-ins that are not
-- finished, and what owners of accounts are told. migrations/postgres says the
-- same in its dialect.

-- When the password was set; 0 for passwords from before this was kept.
ALTER TABLE users ADD COLUMN password_at INTEGER NOT NULL DEFAULT 0;

-- Wrong codes in a row, and when the last was tried.
ALTER TABLE users ADD COLUMN factor_fails INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN factor_failed_at INTEGER NOT NULL DEFAULT 0;

-- When its owner last proved who they are, and by what.
ALTER TABLE sessions ADD COLUMN auth_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN methods TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN auth_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN methods TEXT NOT NULL DEFAULT '';

-- sealed is the secret of an app or the public half of a passkey. handle is a
-- passkey's own id, '' for an app.
CREATE TABLE factors (
    id         TEXT    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind       TEXT    NOT NULL CHECK (kind IN ('totp', 'passkey')),
    name       TEXT    NOT NULL,
    sealed     TEXT    NOT NULL,
    handle     TEXT    NOT NULL,
    last_step  INTEGER NOT NULL, -- of an app: no code up to here counts again
    cloned     INTEGER NOT NULL CHECK (cloned IN (0, 1)),
    created_at INTEGER NOT NULL,
    used_at    INTEGER NOT NULL
) STRICT;

CREATE INDEX factors_user_id ON factors (user_id);

-- One authenticator's key belongs to one account.
CREATE UNIQUE INDEX factors_handle ON factors (handle) WHERE handle <> '';

CREATE TABLE recovery_codes (
    user_id TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash    TEXT    NOT NULL,
    used_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, hash)
) STRICT;

CREATE TABLE known_browsers (
    id          TEXT    NOT NULL PRIMARY KEY,
    user_id     TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    secret_hash TEXT    NOT NULL UNIQUE,
    ip          TEXT    NOT NULL,
    user_agent  TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX known_browsers_user_id ON known_browsers (user_id);

CREATE TABLE pending_sign_ins (
    id             TEXT    NOT NULL PRIMARY KEY,
    secret_hash    TEXT    NOT NULL UNIQUE,
    user_id        TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    stored         TEXT    NOT NULL,
    methods        TEXT    NOT NULL,
    begun_by       TEXT    NOT NULL,
    external_id    TEXT    NOT NULL,
    sid            TEXT    NOT NULL,
    refresh_sealed TEXT    NOT NULL,
    tries          INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL
) STRICT;

CREATE INDEX pending_sign_ins_user_id ON pending_sign_ins (user_id);

CREATE TABLE notices (
    id      TEXT    NOT NULL PRIMARY KEY,
    user_id TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    what    TEXT    NOT NULL,
    detail  TEXT    NOT NULL,
    at      INTEGER NOT NULL
) STRICT;

CREATE INDEX notices_user_id ON notices (user_id);
