-- +goose Up
-- Certificates, their keys and the account with the authority that issues them,
-- sealed. Keys have components like paths: "certificates/authority/name".
-- migrations/postgres says the same in its dialect.
CREATE TABLE files (
    name        TEXT    NOT NULL PRIMARY KEY,
    sealed      TEXT    NOT NULL,
    bytes       INTEGER NOT NULL,
    modified_at INTEGER NOT NULL
) STRICT;
