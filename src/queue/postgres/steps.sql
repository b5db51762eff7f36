-- From an older schema to this one. A step is taken once or many times with the same result, locks nothing but the table that it changes,
-- and leaves alone what the release before it does not know.

-- 2: what was asked of reports, and who is still to be told that it takes long.
ALTER TABLE message ADD COLUMN IF NOT EXISTS dsn text, ADD COLUMN IF NOT EXISTS tell_late boolean NOT NULL DEFAULT false;
CREATE INDEX IF NOT EXISTS message_late ON message (accepted) WHERE tell_late;
UPDATE schema SET version = 2 WHERE version < 2;
