-- +goose Up
-- Second factors, the browsers that people are known by, sign-ins that are not
-- finished, and what owners of accounts are told. migrations/sqlite says the
-- same in its dialect.

-- When the password was set; 0 for passwords from before this was kept.
ALTER TABLE users ADD COLUMN password_at BIGINT NOT NULL DEFAULT 0;

-- Wrong codes in a row, and when the last was tried.
ALTER TABLE users ADD COLUMN factor_fails BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN factor_failed_at BIGINT NOT NULL DEFAULT 0;

-- When its owner last proved who they are, and by what.
ALTER TABLE sessions ADD COLUMN auth_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN methods TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN auth_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN methods TEXT COLLATE "C" NOT NULL DEFAULT '';

-- sealed is the secret of an app or the public half of a passkey. handle is a
-- passkey's own id, '' for an app.
CREATE TABLE factors (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind       TEXT COLLATE "C" NOT NULL CHECK (kind IN ('totp', 'passkey')),
    name       TEXT COLLATE "C" NOT NULL,
    sealed     TEXT COLLATE "C" NOT NULL,
    handle     TEXT COLLATE "C" NOT NULL,
    last_step  BIGINT NOT NULL, -- of an app: no code up to here counts again
    cloned     BIGINT NOT NULL CHECK (cloned IN (0, 1)),
    created_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL
);

CREATE INDEX factors_user_id ON factors (user_id);

-- One authenticator's key belongs to one account.
CREATE UNIQUE INDEX factors_handle ON factors (handle) WHERE handle <> '';

CREATE TABLE recovery_codes (
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash    TEXT COLLATE "C" NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, hash)
);

CREATE TABLE known_browsers (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id     TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    secret_hash TEXT COLLATE "C" NOT NULL UNIQUE,
    ip          TEXT COLLATE "C" NOT NULL,
    user_agent  TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    seen_at     BIGINT NOT NULL,
    expires_at  BIGINT NOT NULL
);

CREATE INDEX known_browsers_user_id ON known_browsers (user_id);

CREATE TABLE pending_sign_ins (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    secret_hash    TEXT COLLATE "C" NOT NULL UNIQUE,
    user_id        TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    stored         TEXT COLLATE "C" NOT NULL,
    methods        TEXT COLLATE "C" NOT NULL,
    begun_by       TEXT COLLATE "C" NOT NULL,
    external_id    TEXT COLLATE "C" NOT NULL,
    sid            TEXT COLLATE "C" NOT NULL,
    refresh_sealed TEXT COLLATE "C" NOT NULL,
    tries          BIGINT NOT NULL,
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL
);

CREATE INDEX pending_sign_ins_user_id ON pending_sign_ins (user_id);

CREATE TABLE notices (
    id      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    what    TEXT COLLATE "C" NOT NULL,
    detail  TEXT COLLATE "C" NOT NULL,
    at      BIGINT NOT NULL
);

CREATE INDEX notices_user_id ON notices (user_id);
