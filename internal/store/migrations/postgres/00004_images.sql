-- +goose Up
-- The catalogue of images, the evidence about them, and what a run was started
-- from. Numbers between the first schema's and this one belong to others.

-- doc is the whole entry as JSON; the other columns repeat what is asked for.
CREATE TABLE images (
    id       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name     TEXT COLLATE "C" NOT NULL,
    digest   TEXT COLLATE "C" NOT NULL,
    state    TEXT COLLATE "C" NOT NULL CHECK (state IN ('candidate', 'verified', 'approved', 'retired')),
    doc      TEXT COLLATE "C" NOT NULL,
    added_at BIGINT NOT NULL,
    UNIQUE (name, digest)
);

-- One digest of a name is the one that starts.
CREATE UNIQUE INDEX images_one_approved ON images (name) WHERE state = 'approved';

-- What was found about an image in a repository. record names blobs.
CREATE TABLE evidence (
    repository   TEXT COLLATE "C" NOT NULL,
    digest       TEXT COLLATE "C" NOT NULL,
    collected_at BIGINT NOT NULL,
    record       TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (repository, digest)
);

CREATE TABLE evidence_blobs (
    digest TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    data   BYTEA NOT NULL
);

-- Which record needs which blob.
CREATE TABLE evidence_items (
    repository TEXT COLLATE "C" NOT NULL,
    digest     TEXT COLLATE "C" NOT NULL,
    blob       TEXT COLLATE "C" NOT NULL REFERENCES evidence_blobs (digest),
    PRIMARY KEY (repository, digest, blob)
);

CREATE INDEX evidence_items_blob ON evidence_items (blob);

-- JSON; '' for runs from before there was one.
ALTER TABLE runs ADD COLUMN receipt TEXT COLLATE "C" NOT NULL DEFAULT '';
