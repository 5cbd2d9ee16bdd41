-- The first format. Times are milliseconds since 1970 (UTC); durations are milliseconds.
-- Look inside with:  sqlite3 lazyfox.db "SELECT * FROM jobs_readable ORDER BY seq DESC LIMIT 10"

-- One row per job, without its payloads: this table is written at every step of a job's life.
-- seq is the order of submission and the order of the queue.
CREATE TABLE jobs (
    seq                  INTEGER PRIMARY KEY,
    id                   BLOB    NOT NULL UNIQUE CHECK (length(id) = 17),
    endpoint             TEXT    NOT NULL,
    status               TEXT    NOT NULL CHECK (status IN
                         ('IN_QUEUE', 'IN_PROGRESS', 'COMPLETED', 'FAILED', 'CANCELLED', 'TIMED_OUT')),
    created_at           INTEGER NOT NULL,
    queued_at            INTEGER NOT NULL,
    expires_at           INTEGER NOT NULL,
    expiry_is_hard       INTEGER NOT NULL CHECK (expiry_is_hard IN (0, 1)),
    awaited              INTEGER NOT NULL CHECK (awaited IN (0, 1)),
    retries              INTEGER NOT NULL CHECK (retries BETWEEN 0 AND 10),
    barred               TEXT,
    worker               TEXT,
    started_at           INTEGER,
    ended_at             INTEGER,
    error                TEXT,
    forget_at            INTEGER,
    execution_timeout    INTEGER,
    ttl                  INTEGER NOT NULL,
    ttl_given            INTEGER NOT NULL CHECK (ttl_given IN (0, 1)),
    low_priority         INTEGER NOT NULL CHECK (low_priority IN (0, 1)),
    retries_max          INTEGER NOT NULL,
    retention            INTEGER NOT NULL,
    retention_sync       INTEGER NOT NULL,
    ttl_expiry_forgets   INTEGER NOT NULL CHECK (ttl_expiry_forgets IN (0, 1)),
    webhook              TEXT,
    idempotency_key      TEXT,
    fingerprint          BLOB,
    CHECK ((status IN ('IN_QUEUE', 'IN_PROGRESS')) = (ended_at IS NULL)),
    CHECK ((ended_at IS NULL) = (forget_at IS NULL)),
    CHECK (status <> 'IN_QUEUE' OR worker IS NULL),
    CHECK (status <> 'IN_PROGRESS' OR worker IS NOT NULL),
    CHECK ((worker IS NULL) = (started_at IS NULL)),
    CHECK (status NOT IN ('FAILED', 'TIMED_OUT') OR error IS NOT NULL),
    CHECK ((idempotency_key IS NULL) = (fingerprint IS NULL))
);

CREATE INDEX jobs_to_forget ON jobs (forget_at) WHERE forget_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_idempotency ON jobs (endpoint, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- Payloads, apart from the row that changes often. The input stays until the record goes (a
-- failed job can be retried); secrets are sealed by the server and wiped when they cannot be needed again.
CREATE TABLE inputs (
    seq     INTEGER PRIMARY KEY,
    body    BLOB NOT NULL,
    secrets BLOB
);
CREATE TABLE outputs (
    seq  INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);
-- Chunks of a stream that no reader has taken yet.
CREATE TABLE chunks (
    seq  INTEGER NOT NULL,
    n    INTEGER NOT NULL,
    body BLOB    NOT NULL,
    PRIMARY KEY (seq, n)
) WITHOUT ROWID;

-- Webhooks to deliver, written in the same commit as the terminal state. due_at is NULL when settled.
CREATE TABLE deliveries (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    seq       INTEGER NOT NULL,
    due_at    INTEGER,
    tries     INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0 CHECK (delivered IN (0, 1)),
    last      TEXT
);
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_of ON deliveries (seq);

-- What /health counts over the life of an endpoint.
CREATE TABLE counters (
    endpoint TEXT    NOT NULL,
    counter  TEXT    NOT NULL,
    value    INTEGER NOT NULL,
    PRIMARY KEY (endpoint, counter)
) WITHOUT ROWID;

-- API keys. Only the SHA-256 of a key is here. endpoints is NULL for all, else names with spaces between.
CREATE TABLE keys (
    id         TEXT PRIMARY KEY,
    label      TEXT    NOT NULL,
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    access     TEXT    NOT NULL CHECK (access IN ('admin', 'read-write', 'read-only')),
    endpoints  TEXT,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
);

-- For people: ids and times in their usual spelling.
CREATE VIEW jobs_readable AS
SELECT seq,
       CASE substr(id, 17) WHEN x'01' THEN 'sync-' ELSE '' END
           || lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-'
           || substr(hex(id), 13, 4) || '-' || substr(hex(id), 17, 4) || '-'
           || substr(hex(id), 21, 12)) AS job,
       endpoint, status, retries, worker, error,
       strftime('%Y-%m-%d %H:%M:%f', created_at / 1000.0, 'unixepoch') AS created,
       strftime('%Y-%m-%d %H:%M:%f', started_at / 1000.0, 'unixepoch') AS started,
       strftime('%Y-%m-%d %H:%M:%f', ended_at / 1000.0, 'unixepoch') AS ended,
       webhook
FROM jobs;
