-- +goose Up
-- Values that administrators registered, sealed. A secret of class '' is of
-- every class.
CREATE TABLE secrets (
    name       TEXT    NOT NULL PRIMARY KEY,
    class      TEXT    NOT NULL,
    sealed     TEXT    NOT NULL,
    bytes      INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
