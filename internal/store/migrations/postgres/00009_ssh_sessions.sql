-- +goose Up
-- Who was in which workspace over SSH, from when to when. What they did is in
-- the recordings, sealed, in the state directory. migrations/sqlite says the
-- same in its dialect.

CREATE TABLE ssh_sessions (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    connection     TEXT COLLATE "C" NOT NULL,
    server         TEXT COLLATE "C" NOT NULL,
    user_id        TEXT COLLATE "C" NOT NULL, -- no reference: what somebody did outlives the account
    user_name      TEXT COLLATE "C" NOT NULL,
    workspace_id   TEXT COLLATE "C" NOT NULL,
    workspace_name TEXT COLLATE "C" NOT NULL,
    class          TEXT COLLATE "C" NOT NULL,
    run            TEXT COLLATE "C" NOT NULL,
    kind           TEXT COLLATE "C" NOT NULL CHECK (kind IN ('shell', 'exec', 'sftp', 'forward', 'remote', 'agent', 'connection')),
    target         TEXT COLLATE "C" NOT NULL,
    client         TEXT COLLATE "C" NOT NULL,
    client_version TEXT COLLATE "C" NOT NULL,
    key_print      TEXT COLLATE "C" NOT NULL,
    began_at       BIGINT NOT NULL,
    ended_at       BIGINT NOT NULL, -- 0: it lives
    bytes_in       BIGINT NOT NULL,
    bytes_out      BIGINT NOT NULL,
    exit_code      BIGINT NOT NULL, -- -1: none
    end_reason     TEXT COLLATE "C" NOT NULL,
    recording      TEXT COLLATE "C" NOT NULL CHECK (recording IN ('none', 'open', 'whole', 'cut', 'deleted')),
    size           BIGINT NOT NULL,
    digest         TEXT COLLATE "C" NOT NULL
);

CREATE INDEX ssh_sessions_began_at ON ssh_sessions (began_at, id);
CREATE INDEX ssh_sessions_ended_at ON ssh_sessions (ended_at);
