-- +goose Up
-- The catalogue of images, the evidence about them, and what a run was started
-- from. Numbers between the first schema's and this one belong to others.

-- doc is the whole entry as JSON; the other columns repeat what is asked for.
CREATE TABLE images (
    id       TEXT    NOT NULL PRIMARY KEY,
    name     TEXT    NOT NULL,
    digest   TEXT    NOT NULL,
    state    TEXT    NOT NULL CHECK (state IN ('candidate', 'verified', 'approved', 'retired')),
    doc      TEXT    NOT NULL,
    added_at INTEGER NOT NULL,
    UNIQUE (name, digest)
) STRICT;

-- One digest of a name is the one that starts.
CREATE UNIQUE INDEX images_one_approved ON images (name) WHERE state = 'approved';

-- What was found about an image in a repository. record names blobs.
CREATE TABLE evidence (
    repository   TEXT    NOT NULL,
    digest       TEXT    NOT NULL,
    collected_at INTEGER NOT NULL,
    record       TEXT    NOT NULL,
    PRIMARY KEY (repository, digest)
) STRICT;

CREATE TABLE evidence_blobs (
    digest TEXT NOT NULL PRIMARY KEY,
    data   BLOB NOT NULL
) STRICT;

-- Which record needs which blob.
CREATE TABLE evidence_items (
    repository TEXT NOT NULL,
    digest     TEXT NOT NULL,
    blob       TEXT NOT NULL REFERENCES evidence_blobs (digest),
    PRIMARY KEY (repository, digest, blob)
) STRICT;

CREATE INDEX evidence_items_blob ON evidence_items (blob);

-- JSON; '' for runs from before there was one.
ALTER TABLE runs ADD COLUMN receipt TEXT NOT NULL DEFAULT '';
