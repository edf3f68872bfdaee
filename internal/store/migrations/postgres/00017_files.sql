-- +goose Up
-- Certificates, their keys and the account with the authority that issues them,
-- sealed. Keys have components like paths: "certificates/authority/name".
CREATE TABLE files (
    name        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    sealed      TEXT COLLATE "C" NOT NULL,
    bytes       BIGINT NOT NULL,
    modified_at BIGINT NOT NULL
);
