-- The queue of several gateways. Times are microseconds since 1970 (UTC) by the clock of this database. Schema 2.

CREATE TABLE schema (
    version     int NOT NULL,
    readable_by int NOT NULL               -- the oldest program schema that may work on it
);

-- A row is a start of a gateway.
CREATE TABLE node (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    token       text NOT NULL,             -- of its data_dir
    version     text NOT NULL,
    config_hash text NOT NULL,
    started     bigint NOT NULL,
    seen        bigint NOT NULL,           -- when the last beat came; moves with each
    dead_after  bigint NOT NULL,           -- microseconds
    knew        int NOT NULL,
    draining    boolean NOT NULL,
    apart       boolean NOT NULL,
    gone        bigint                     -- when it left, or was taken over
) WITH (fillfactor = 50);
CREATE INDEX node_at_work ON node (id) WHERE gone IS NULL;

CREATE TABLE message (
    id        bytea PRIMARY KEY,           -- the 16 octets of the message id
    place     bigint GENERATED ALWAYS AS IDENTITY,  -- in lists
    accepted  bigint NOT NULL,
    node      bigint NOT NULL,             -- that took it in; 0: nobody knows
    sender    text,                        -- NULL is <>
    eight_bit boolean NOT NULL,
    origin    jsonb NOT NULL,
    size      bigint NOT NULL,             -- header, empty line, body
    ended     bigint,                      -- when the last of its jobs was finished or given up
    dsn       text,                        -- what was asked of reports (JSON); NULL: nothing
    tell_late boolean NOT NULL DEFAULT false   -- who asked is still to be told when it takes long
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX message_place ON message (place);
CREATE INDEX message_ended ON message (ended) WHERE ended IS NOT NULL;
CREATE INDEX message_late ON message (accepted) WHERE tell_late;

-- Apart from `message`, so that a change of state does not write the body again. What is no longer kept has no row.
CREATE TABLE content (
    message bytea PRIMARY KEY,
    header  bytea NOT NULL,
    body    bytea,                         -- NULL: in `chunk`
    kept    smallint NOT NULL              -- 1: here; 2: in `chunk`
);
-- Mail is packed already, or not worth the time.
ALTER TABLE content ALTER COLUMN header SET STORAGE EXTERNAL, ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE chunk (
    message bytea,
    seq     int,
    octets  bytea NOT NULL,
    PRIMARY KEY (message, seq)
);
ALTER TABLE chunk ALTER COLUMN octets SET STORAGE EXTERNAL;

-- What is not finished, and what failed as long as its message is kept. Nothing is left of a job that is done but its route, attempts
-- and claim, in the rows of its recipients.
CREATE TABLE job (
    message   bytea,
    nr        int,                         -- a number within the message
    route     text COLLATE "C" NOT NULL,
    pinned    text COLLATE "C" NOT NULL,   -- '': any connector of the route
    lane      text COLLATE "C" NOT NULL,   -- connector/mailbox whose turn it waits for; '': of none; `quota NAME`: that holds it, or held it too long
    client    smallint NOT NULL,           -- whose turn it waits for, and of which of its senders: numbers made of their names
    sender    smallint NOT NULL,
    state     smallint NOT NULL,           -- 0 sending, 1 held, 2 waiting, 3 failed
    due       bigint NOT NULL,
    attempts  int NOT NULL,
    node      bigint,                      -- whose claim it is; of one that was taken over, whose it was
    claim     int NOT NULL,                -- how often it was claimed
    connector text,                        -- whose permit it was claimed for
    wishes    text,                        -- an operator's verbs since it was leased, a line each
    PRIMARY KEY (message, nr)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX job_due ON job (route, pinned, lane, client, sender, due) WHERE state = 2;
CREATE INDEX job_sending ON job (node) WHERE state = 0;

CREATE TABLE recipient (
    message  bytea,
    position int,                          -- in the order of the envelope
    job      int NOT NULL,
    address  text NOT NULL,
    state    smallint NOT NULL,            -- 0 waiting, 1 in doubt, 2 failed, 3 done, 4 dropped
    reply    text,
    at       bigint,                       -- when it was delivered, and how: its line in the life of the message
    said     text,
    node     bigint,                       -- by whom
    route    text COLLATE "C",             -- of its job, once that is gone; so are
    attempts int,
    claim    int,                          -- the claim that ended it
    PRIMARY KEY (message, position)
) WITH (fillfactor = 70);

-- The life of a message, but for what its own row (accepted) and those of its recipients (delivered) say.
CREATE TABLE event (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message    bytea NOT NULL,
    at         bigint NOT NULL,
    kind       text NOT NULL,
    recipients text NOT NULL,              -- a line each
    text       text NOT NULL,
    node       bigint NOT NULL             -- whose doing it was; 0: of a command
);
CREATE INDEX event_message ON event (message);

CREATE TABLE lane (
    lane      text COLLATE "C",
    node      bigint,                      -- 0: for all
    state     text,                        -- NULL: it was never anything but open
    since     bigint,
    why       text,
    probe     bigint,
    learned   text,
    early_off boolean NOT NULL DEFAULT false,
    version   bigint NOT NULL DEFAULT 0,   -- raised by each write, so that nobody writes over what he has not seen
    holder    bigint,                      -- who sends from it, where its limits hold for all together
    used      jsonb,                       -- of its limits, as the last holder said; NULL: nobody can say
    PRIMARY KEY (lane, node)
);
CREATE INDEX lane_holder ON lane (holder) WHERE holder IS NOT NULL;

CREATE TABLE note (
    key   text PRIMARY KEY,
    value text NOT NULL,
    node  bigint NOT NULL
);

-- Raised by verbs and by the states of lanes, never by mail.
CREATE TABLE change (
    counter bigint NOT NULL
);
INSERT INTO change VALUES (0);
INSERT INTO schema VALUES (2, 1);
