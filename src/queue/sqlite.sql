-- The queue in one file. Times are microseconds since 1970 (UTC). Schema 7.

CREATE TABLE message (
    key       INTEGER PRIMARY KEY,
    id        BLOB NOT NULL,               -- the 16 octets of the message id; found by `message_id`
    accepted  INTEGER NOT NULL,
    sender    TEXT,                        -- NULL is <>
    eight_bit INTEGER NOT NULL,
    origin    TEXT NOT NULL,               -- JSON
    size      INTEGER NOT NULL,            -- header, empty line, body
    body_len  INTEGER NOT NULL,
    kept      INTEGER NOT NULL,            -- 0: content deleted; 1: body in `content`; 2: body in spool/ID
    ended     INTEGER,                     -- when the last of its jobs was finished or given up
    dsn       TEXT,                        -- what was asked of reports (JSON); NULL: nothing
    tell_late INTEGER NOT NULL DEFAULT 0   -- 1: who asked is still to be told when it takes long
) STRICT;
-- What failed and is kept. What was delivered is never in it, and so does not cost a page of it.
CREATE INDEX message_failed ON message (ended) WHERE ended IS NOT NULL AND kept > 0;

-- Whoever is to be told that it takes long: few asked.
CREATE INDEX message_late ON message (accepted) WHERE tell_late = 1;

-- The messages by their ids, but for the newest, which are few enough to look through: sixteen are written at once, so that
-- not every message costs a page of it.
CREATE TABLE message_id (
    id      BLOB PRIMARY KEY,
    message INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Apart from `message`, so that a change of state does not write the body again.
CREATE TABLE content (
    message INTEGER PRIMARY KEY,
    header  BLOB NOT NULL,
    body    BLOB                           -- NULL: in a file
) STRICT;

-- What is not finished, and what failed as long as its message is kept. Nothing is left of a job that is done but its route and
-- attempts, in the rows of its recipients.
CREATE TABLE job (
    id       INTEGER PRIMARY KEY,          -- message * 1048576 + a number within it: those of a message stand together
    message  INTEGER NOT NULL,
    route    TEXT NOT NULL,
    pinned   TEXT NOT NULL,                -- '': any connector of the route
    lane     TEXT NOT NULL DEFAULT '',     -- connector/mailbox whose turn it waits for; '': of none; `quota NAME`: that holds it, or held it too long
    state    INTEGER NOT NULL,             -- 0 sending, 1 held, 2 waiting, 3 failed; + 8: on its way into another store
    due      INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    wishes   TEXT,                         -- an operator's verbs since it was leased, a line each
    client   INTEGER NOT NULL DEFAULT 0,   -- whose turn it waits for, and of which of its senders: numbers made of their names
    sender   INTEGER NOT NULL DEFAULT 0,
    CHECK (id >> 20 = message)
) STRICT;
CREATE INDEX job_due ON job (route, pinned, lane, client, sender, due) WHERE state = 2;

CREATE TABLE recipient (
    message  INTEGER NOT NULL,
    position INTEGER NOT NULL,             -- in the order of the envelope
    job      INTEGER NOT NULL,
    address  TEXT NOT NULL,
    state    INTEGER NOT NULL,             -- 0 waiting, 1 in doubt, 2 failed, 3 done, 4 dropped
    reply    TEXT,
    at       INTEGER,                      -- when it was delivered, and how: its line in the life of the message
    said     TEXT,
    route    TEXT,                         -- of its job, once that is gone
    attempts INTEGER,
    PRIMARY KEY (message, position)
) STRICT, WITHOUT ROWID;

-- The life of a message, but for what its own row (accepted) and those of its recipients (delivered) say.
CREATE TABLE event (
    id         INTEGER PRIMARY KEY,
    message    INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    recipients TEXT NOT NULL,              -- a line each
    text       TEXT NOT NULL
) STRICT;
CREATE INDEX event_message ON event (message);

CREATE TABLE lane (
    lane  TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    why   TEXT NOT NULL,
    probe INTEGER,
    -- Raised by each write, so that nobody writes over what he has not seen.
    version INTEGER NOT NULL DEFAULT 1
) STRICT, WITHOUT ROWID;

CREATE TABLE note (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
