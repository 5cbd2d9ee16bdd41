-- Deliveries with a history: every try is kept, and what was settled can be sent again.

-- Where a job's webhook goes, without the path: what deliveries are bounded and ordered by. Empty for jobs
-- of the first format, whose deliveries share one place in line.
ALTER TABLE jobs ADD COLUMN webhook_host TEXT NOT NULL DEFAULT '';
-- Whether the webhook hears of a job that was cancelled or purged.
ALTER TABLE jobs ADD COLUMN webhook_on_cancel INTEGER NOT NULL DEFAULT 0
    CHECK (webhook_on_cancel IN (0, 1));

ALTER TABLE deliveries RENAME TO deliveries_1;
DROP INDEX deliveries_due;
DROP INDEX deliveries_of;

-- number is the order in which jobs ended; n counts the deliveries of one job, and with the job's id it is
-- the delivery's id. tries are all, round those since the last redelivery. due_at is of pending ones.
CREATE TABLE deliveries (
    number     INTEGER PRIMARY KEY,
    seq        INTEGER NOT NULL,
    job        BLOB    NOT NULL CHECK (length(job) = 17),
    n          INTEGER NOT NULL,
    endpoint   TEXT    NOT NULL,
    host       TEXT    NOT NULL,
    bytes      INTEGER NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'failed', 'withdrawn')),
    created_at INTEGER NOT NULL,
    due_at     INTEGER,
    tries      INTEGER NOT NULL DEFAULT 0,
    round      INTEGER NOT NULL DEFAULT 0,
    keep_until INTEGER NOT NULL,
    UNIQUE (seq, n),
    CHECK ((state = 'pending') = (due_at IS NOT NULL)),
    CHECK (round <= tries)
);
INSERT INTO deliveries (number, seq, job, n, endpoint, host, bytes, state, created_at, due_at, tries,
                        round, keep_until)
SELECT d.id, d.seq, j.id, row_number() OVER (PARTITION BY d.seq ORDER BY d.id), j.endpoint, '',
       coalesce((SELECT length(body) FROM inputs AS i WHERE i.seq = d.seq), 0)
           + coalesce((SELECT length(body) FROM outputs AS o WHERE o.seq = d.seq), 0),
       CASE WHEN d.due_at IS NOT NULL THEN 'pending' WHEN d.delivered THEN 'delivered'
            WHEN d.last LIKE 'withdrawn%' THEN 'withdrawn' ELSE 'failed' END,
       coalesce(j.ended_at, j.created_at), d.due_at, d.tries, d.tries,
       CASE WHEN d.due_at IS NOT NULL THEN 9223372036854775807 ELSE 0 END
FROM deliveries_1 AS d JOIN jobs AS j USING (seq);
CREATE INDEX deliveries_open ON deliveries (number) WHERE due_at IS NOT NULL;

-- Each try, the first is 1. status is that of the answer, answer its first bytes, error why it was no success.
CREATE TABLE tries (
    number   INTEGER NOT NULL,
    try      INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    status   INTEGER,
    answer   TEXT,
    error    TEXT,
    PRIMARY KEY (number, try)
) WITHOUT ROWID;
-- Of the first format only what the last try came to was kept, and not when it was; nor that, where the
-- delivery was withdrawn later.
INSERT INTO tries (number, try, at, duration, status, error)
SELECT id, tries, 0, 0,
       CASE WHEN last GLOB 'answered [0-9][0-9][0-9]' THEN CAST(substr(last, 10) AS INTEGER) END,
       CASE WHEN NOT delivered THEN last END
FROM deliveries_1 WHERE tries > 0 AND last IS NOT NULL AND last NOT LIKE 'withdrawn%'
    AND id IN (SELECT number FROM deliveries);
DROP TABLE deliveries_1;

-- What deliveries are signed with. secret is sealed by the server; valid_until is NULL for the newest.
CREATE TABLE webhook_secrets (
    id          TEXT PRIMARY KEY,
    endpoint    TEXT    NOT NULL,
    secret      BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    valid_until INTEGER
);
CREATE UNIQUE INDEX webhook_secrets_newest ON webhook_secrets (endpoint) WHERE valid_until IS NULL;

-- For people: deliveries by their ids.
CREATE VIEW deliveries_readable AS
SELECT number, jobs_readable.job || '_' || n AS delivery, deliveries.endpoint, host, state, tries,
       strftime('%Y-%m-%d %H:%M:%f', created_at / 1000.0, 'unixepoch') AS created,
       strftime('%Y-%m-%d %H:%M:%f', due_at / 1000.0, 'unixepoch') AS due,
       (SELECT coalesce(error, 'answered ' || status) FROM tries
        WHERE tries.number = deliveries.number ORDER BY try DESC LIMIT 1) AS last
FROM deliveries JOIN jobs_readable USING (seq);
