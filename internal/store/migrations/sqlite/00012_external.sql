-- +goose Up
-- Who accounts are elsewhere: at an identity provider, in a directory. Numbers
-- between the last schema's and this one belong to others.

CREATE TABLE external_identities (
    id           TEXT    NOT NULL PRIMARY KEY,
    user_id      TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    source       TEXT    NOT NULL,
    issuer       TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    login        TEXT    NOT NULL,
    given_role   TEXT    NOT NULL,
    given_groups TEXT    NOT NULL, -- a JSON array
    gone         TEXT    NOT NULL, -- why it disabled the account; '' when it did not
    created_at   INTEGER NOT NULL,
    signed_in_at INTEGER NOT NULL,
    checked_at   INTEGER NOT NULL,
    UNIQUE (issuer, subject)
) STRICT;

CREATE INDEX external_identities_user_id ON external_identities (user_id);
CREATE INDEX external_identities_checked ON external_identities (source, checked_at);

-- What is known about a session that began there.
CREATE TABLE external_sessions (
    session_id     TEXT    NOT NULL PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    external_id    TEXT    NOT NULL REFERENCES external_identities (id) ON DELETE CASCADE,
    sid            TEXT    NOT NULL,
    refresh_sealed TEXT    NOT NULL, -- '' for none
    checked_at     INTEGER NOT NULL
) STRICT;

CREATE INDEX external_sessions_external_id ON external_sessions (external_id);

-- What may be used once: ids of logout tokens, states of sign-ins.
CREATE TABLE external_seen (
    kind       TEXT    NOT NULL,
    id         TEXT    NOT NULL, -- a hash
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;
