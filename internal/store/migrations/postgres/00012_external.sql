-- +goose Up
-- Who accounts are elsewhere: at an identity provider, in a directory. Numbers
-- between the last schema's and this one belong to others. migrations/sqlite says
-- the same in its dialect.

CREATE TABLE external_identities (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    source       TEXT COLLATE "C" NOT NULL,
    issuer       TEXT COLLATE "C" NOT NULL,
    subject      TEXT COLLATE "C" NOT NULL,
    login        TEXT COLLATE "C" NOT NULL,
    given_role   TEXT COLLATE "C" NOT NULL,
    given_groups TEXT COLLATE "C" NOT NULL, -- a JSON array
    gone         TEXT COLLATE "C" NOT NULL, -- why it disabled the account; '' when it did not
    created_at   BIGINT NOT NULL,
    signed_in_at BIGINT NOT NULL,
    checked_at   BIGINT NOT NULL,
    UNIQUE (issuer, subject)
);

CREATE INDEX external_identities_user_id ON external_identities (user_id);
CREATE INDEX external_identities_checked ON external_identities (source, checked_at);

-- What is known about a session that began there.
CREATE TABLE external_sessions (
    session_id     TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    external_id    TEXT COLLATE "C" NOT NULL REFERENCES external_identities (id) ON DELETE CASCADE,
    sid            TEXT COLLATE "C" NOT NULL,
    refresh_sealed TEXT COLLATE "C" NOT NULL, -- '' for none
    checked_at     BIGINT NOT NULL
);

CREATE INDEX external_sessions_external_id ON external_sessions (external_id);

-- What may be used once: ids of logout tokens, states of sign-ins.
CREATE TABLE external_seen (
    kind       TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL, -- a hash
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
