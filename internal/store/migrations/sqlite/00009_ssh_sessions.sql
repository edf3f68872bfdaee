-- +goose Up
-- Who was in which workspace over SSH, from when to when. What they did is in
-- the recordings, sealed, in the state directory. migrations/postgres says the
-- same in its dialect.

CREATE TABLE ssh_sessions (
    id             TEXT    NOT NULL PRIMARY KEY,
    connection     TEXT    NOT NULL,
    server         TEXT    NOT NULL,
    user_id        TEXT    NOT NULL, -- no reference: what somebody did outlives the account
    user_name      TEXT    NOT NULL,
    workspace_id   TEXT    NOT NULL,
    workspace_name TEXT    NOT NULL,
    class          TEXT    NOT NULL,
    run            TEXT    NOT NULL,
    kind           TEXT    NOT NULL CHECK (kind IN ('shell', 'exec', 'sftp', 'forward', 'remote', 'agent', 'connection')),
    target         TEXT    NOT NULL,
    client         TEXT    NOT NULL,
    client_version TEXT    NOT NULL,
    key_print      TEXT    NOT NULL,
    began_at       INTEGER NOT NULL,
    ended_at       INTEGER NOT NULL, -- 0: it lives
    bytes_in       INTEGER NOT NULL,
    bytes_out      INTEGER NOT NULL,
    exit_code      INTEGER NOT NULL, -- -1: none
    end_reason     TEXT    NOT NULL,
    recording      TEXT    NOT NULL CHECK (recording IN ('none', 'open', 'whole', 'cut', 'deleted')),
    size           INTEGER NOT NULL,
    digest         TEXT    NOT NULL
) STRICT;

CREATE INDEX ssh_sessions_began_at ON ssh_sessions (began_at, id);
CREATE INDEX ssh_sessions_ended_at ON ssh_sessions (ended_at);
