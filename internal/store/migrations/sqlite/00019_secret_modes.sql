-- +goose Up
-- What the filter does about a registered secret; '' says nothing of its own.
ALTER TABLE secrets ADD COLUMN mode TEXT NOT NULL DEFAULT '' CHECK (mode IN ('', 'block', 'mask', 'alert', 'log_only'));
