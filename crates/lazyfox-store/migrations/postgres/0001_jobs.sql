-- The first format. Times are milliseconds since 1970 (UTC), durations milliseconds. Every key begins with the
-- endpoint, so that the tables can be distributed by it. Texts hold no zero byte: where one came, there is U+FFFF.
-- Two families of indexes: rows are found by key with the endpoint as it is, and in an order, or by who holds them,
-- with the endpoint COLLATE "POSIX". It is the same order under another name, and a statement that says it can use
-- those indexes only; which of them, its conditions say, as all of them are partial. Otherwise, while the tables are
-- empty, the planner finds every index that begins with the endpoint equally good, and keeps the plan made then.
-- Look inside with:  SELECT * FROM lazyfox.jobs_readable ORDER BY seq DESC LIMIT 10

-- seq is the order of submission and the order of the queue; from one sequence, so that it holds over servers.
CREATE SEQUENCE lazyfox.jobs_seq;

-- One row per job, without its payloads: this table is written at every step of a job's life. The uuid of a job
-- that came through /runsync has its two variant bits set, and the name sync- in front. deadline is when the
-- clock has something to do next. has_secrets and has_output spare a look where there is nothing. The constraints
-- are few because every statement that writes reads them anew, before its first row: thirteen small ones, one for
-- each rule, took a fifth of the time of an UPDATE of ten rows.
CREATE TABLE lazyfox.jobs (
    endpoint             text    COLLATE "C" NOT NULL,
    id                   uuid    NOT NULL,
    seq                  bigint  NOT NULL DEFAULT nextval('lazyfox.jobs_seq'),
    status               text    COLLATE "C" NOT NULL,
    low_priority         boolean NOT NULL,
    created_at           bigint  NOT NULL,
    queued_at            bigint  NOT NULL,
    expires_at           bigint  NOT NULL,
    expiry_is_hard       boolean NOT NULL,
    awaited              boolean NOT NULL,
    retries              integer NOT NULL,
    barred               text,
    deaths               text,
    worker               text    COLLATE "C",
    started_at           bigint,
    lease_until          bigint,
    begun                boolean NOT NULL DEFAULT true,
    ended_at             bigint,
    error                text,
    forget_at            bigint,
    deadline             bigint,
    has_secrets          boolean NOT NULL,
    has_output           boolean NOT NULL DEFAULT false,
    execution_timeout    bigint,
    ttl                  bigint  NOT NULL,
    ttl_given            boolean NOT NULL,
    retries_max          integer NOT NULL,
    retention            bigint  NOT NULL,
    retention_sync       bigint  NOT NULL,
    ttl_expiry_forgets   boolean NOT NULL,
    webhook_on_cancel    boolean NOT NULL,
    poison_after         integer NOT NULL,
    webhook              text,
    webhook_host         text    NOT NULL DEFAULT '',
    idempotency_key      text,
    PRIMARY KEY (endpoint, id),
    CONSTRAINT jobs_state CHECK (CASE status
        WHEN 'IN_QUEUE' THEN num_nonnulls(worker, started_at, lease_until, ended_at, forget_at) = 0
            AND deadline IS NOT NULL AND begun
        WHEN 'IN_PROGRESS' THEN num_nulls(worker, started_at, lease_until, deadline) = 0
            AND num_nonnulls(ended_at, forget_at) = 0
        ELSE (status IN ('COMPLETED', 'CANCELLED') OR status IN ('FAILED', 'TIMED_OUT') AND error IS NOT NULL)
            AND num_nulls(ended_at, forget_at) = 0 AND num_nonnulls(lease_until, deadline) = 0
            AND num_nulls(worker, started_at) <> 1 AND begun END),
    CONSTRAINT jobs_numbers CHECK (retries BETWEEN 0 AND 10 AND poison_after BETWEEN 0 AND 10 AND deaths <> '')
) PARTITION BY RANGE (id);
-- The queue: the normal lane, then the low one, each in order.
CREATE INDEX jobs_waiting ON lazyfox.jobs (endpoint COLLATE "POSIX", low_priority, seq) WHERE status = 'IN_QUEUE';
CREATE INDEX jobs_held ON lazyfox.jobs (endpoint COLLATE "POSIX", worker, started_at) WHERE status = 'IN_PROGRESS';
-- What the clock has to do next, with those that wait and with those that run.
CREATE INDEX jobs_expiring ON lazyfox.jobs (endpoint COLLATE "POSIX", deadline)
    WHERE lease_until IS NULL AND ended_at IS NULL;
CREATE INDEX jobs_running ON lazyfox.jobs (endpoint COLLATE "POSIX", deadline) WHERE lease_until IS NOT NULL;
CREATE INDEX jobs_to_forget ON lazyfox.jobs (endpoint COLLATE "POSIX", forget_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobs_listed ON lazyfox.jobs (endpoint COLLATE "POSIX", seq) WHERE seq > 0;

-- What each idempotency key was used for, until that job is forgotten. The key stands in the job too, so that its
-- end finds the row here. Not an index of jobs: a partitioned table has no unique index without the id.
CREATE TABLE lazyfox.idempotency (
    endpoint    text  COLLATE "C" NOT NULL,
    key         text  COLLATE "C" NOT NULL,
    id          uuid  NOT NULL,
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    PRIMARY KEY (endpoint, key)
);

-- Payloads, apart from the row that changes often. The input stays until the record goes (a failed job can be
-- retried); secrets are sealed by the server and wiped when they cannot be needed again.
CREATE TABLE lazyfox.inputs (
    endpoint text  COLLATE "C" NOT NULL,
    id       uuid  NOT NULL,
    body     bytea NOT NULL,
    secrets  bytea,
    PRIMARY KEY (endpoint, id)
) PARTITION BY RANGE (id);
CREATE TABLE lazyfox.outputs (
    endpoint text  COLLATE "C" NOT NULL,
    id       uuid  NOT NULL,
    body     bytea NOT NULL,
    PRIMARY KEY (endpoint, id)
) PARTITION BY RANGE (id);
-- Chunks of a stream that no reader has taken yet.
CREATE TABLE lazyfox.chunks (
    endpoint text   COLLATE "C" NOT NULL,
    id       uuid   NOT NULL,
    n        bigint NOT NULL,
    body     bytea  NOT NULL,
    PRIMARY KEY (endpoint, id, n)
) PARTITION BY RANGE (id);
-- Bodies are kept as they came: to compress them costs more time than it saves, and their length can be told
-- without reading them.
ALTER TABLE lazyfox.inputs ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE lazyfox.outputs ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE lazyfox.chunks ALTER COLUMN body SET STORAGE EXTERNAL;
-- Jobs and what belongs to them are in partitions, by the time at which the id was made. Servers make those ahead
-- of time and drop them when their jobs are forgotten: dead rows go with them, also while some old snapshot keeps
-- the vacuum from its work. What has no partition of its time is here.
CREATE TABLE lazyfox.jobs_default PARTITION OF lazyfox.jobs DEFAULT;
CREATE TABLE lazyfox.inputs_default PARTITION OF lazyfox.inputs DEFAULT;
CREATE TABLE lazyfox.outputs_default PARTITION OF lazyfox.outputs DEFAULT;
CREATE TABLE lazyfox.chunks_default PARTITION OF lazyfox.chunks DEFAULT;

-- Webhooks to deliver, written in the same commit as the terminal state. number is the order in which jobs
-- ended; n counts the deliveries of one job, and with the job's id it is the delivery's id. tries are all, round
-- those since the last redelivery. due_at is of pending ones. Until claimed_until, by
-- the database's clock, the server claimed_by sends it.
CREATE SEQUENCE lazyfox.deliveries_number;
CREATE TABLE lazyfox.deliveries (
    endpoint      text    COLLATE "C" NOT NULL,
    number        bigint  NOT NULL DEFAULT nextval('lazyfox.deliveries_number'),
    id            uuid    NOT NULL,
    n             integer NOT NULL,
    host          text    COLLATE "C" NOT NULL,
    bytes         bigint  NOT NULL,
    state         text    NOT NULL CHECK (state IN ('pending', 'delivered', 'failed', 'withdrawn')),
    created_at    bigint  NOT NULL,
    due_at        bigint,
    tries         integer NOT NULL DEFAULT 0,
    round         integer NOT NULL DEFAULT 0,
    keep_until    bigint  NOT NULL,
    claimed_by    text    COLLATE "C" NOT NULL DEFAULT '',
    claimed_until bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (endpoint, number),
    CHECK ((state = 'pending') = (due_at IS NOT NULL)),
    CHECK (round <= tries)
);
CREATE UNIQUE INDEX deliveries_of ON lazyfox.deliveries (endpoint COLLATE "POSIX", id, n)
    WHERE n > 0;
CREATE INDEX deliveries_open ON lazyfox.deliveries (endpoint COLLATE "POSIX", host, due_at, number)
    WHERE due_at IS NOT NULL;
-- Each try, the first is 1. status is that of the answer, answer its first bytes, error why it was no success.
CREATE TABLE lazyfox.tries (
    endpoint text     COLLATE "C" NOT NULL,
    number   bigint   NOT NULL,
    try      integer  NOT NULL,
    at       bigint   NOT NULL,
    duration bigint   NOT NULL,
    status   integer,
    answer   text,
    error    text,
    PRIMARY KEY (endpoint, number, try)
);
-- What deliveries are signed with. secret is sealed by the server; valid_until is NULL for the newest.
CREATE TABLE lazyfox.webhook_secrets (
    endpoint    text   COLLATE "C" NOT NULL,
    id          text   COLLATE "C" NOT NULL,
    secret      bytea  NOT NULL,
    created_at  bigint NOT NULL,
    valid_until bigint,
    PRIMARY KEY (endpoint, id)
);
CREATE UNIQUE INDEX webhook_secrets_newest ON lazyfox.webhook_secrets (endpoint)
    WHERE valid_until IS NULL;

-- The endpoints that ever had a job. Rows of counts begin at counted_from.
CREATE TABLE lazyfox.queues (
    endpoint     text COLLATE "C" PRIMARY KEY,
    counted_from bigint NOT NULL DEFAULT 0
);
-- What /health counts over the life of an endpoint: the sum of the rows of each counter. Rows are added, because
-- one that everybody changes would be waited for; now and then older ones are made one. at is by the database's
-- clock, which is when its transaction began.
CREATE TABLE lazyfox.counts (
    endpoint  text   COLLATE "C" NOT NULL,
    at        bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000),
    completed bigint NOT NULL DEFAULT 0,
    failed    bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0,
    timed_out bigint NOT NULL DEFAULT 0,
    retried   bigint NOT NULL DEFAULT 0
);
CREATE INDEX counts_of ON lazyfox.counts (endpoint, at);

-- number counts the releases of an endpoint's workers from 1, fingerprint is that of the latest one, released_at
-- its beginning. settings is a JSON text of what somebody changed while a server ran.
CREATE TABLE lazyfox.endpoints (
    endpoint    text   COLLATE "C" PRIMARY KEY,
    number      bigint CHECK (number BETWEEN 1 AND 4294967295),
    fingerprint bytea  CHECK (length(fingerprint) = 32),
    released_at bigint,
    settings    text,
    CHECK ((number IS NULL) = (fingerprint IS NULL)),
    CHECK ((number IS NULL) = (released_at IS NULL))
);

-- The servers that share the database, each under a new name at each start. All times here and in the two tables
-- below are by the database's clock. seen_until is until when others count on a server, unless it says something
-- again; goes_on_ms how much longer its workers may go on; wants is of how many endpoints it would start the workers.
CREATE TABLE lazyfox.servers (
    server     text    COLLATE "C" PRIMARY KEY CHECK (server <> ''),
    machine    text    NOT NULL,
    url        text    NOT NULL,
    version    text    NOT NULL,
    started_at bigint  NOT NULL,
    seen_until bigint  NOT NULL,
    goes_on_ms bigint  NOT NULL,
    wants      integer NOT NULL
);
-- Which server starts the workers of an endpoint, until when. term goes up whenever that changes. What nobody had
-- yet is under no name, and until is since when. shared_at is when it was last given up for others to take.
CREATE TABLE lazyfox.charges (
    endpoint  text   COLLATE "C" PRIMARY KEY,
    server    text   COLLATE "C" NOT NULL,
    term      bigint NOT NULL CHECK (term >= 0),
    until     bigint NOT NULL,
    shared_at bigint NOT NULL DEFAULT 0,
    CHECK ((server = '') = (term = 0))
);
-- Workers that servers have started or are about to start. term is that of the charge, 0 where a server found a
-- worker that is not noted.
CREATE TABLE lazyfox.workers (
    endpoint   text   COLLATE "C" NOT NULL,
    worker     text   COLLATE "C" NOT NULL,
    server     text   COLLATE "C" NOT NULL,
    term       bigint NOT NULL,
    started_at bigint NOT NULL,
    PRIMARY KEY (endpoint, worker)
);
CREATE INDEX workers_of ON lazyfox.workers (server);

-- By what the servers' common key (server.key) is known: a hash made from it, of the first server that came. A server
-- with another key is refused. When the key is lost for good, delete this row.
CREATE TABLE lazyfox.server_key (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    hash bytea   NOT NULL CHECK (length(hash) = 32)
);

-- API keys. Only the SHA-256 of a key is here. endpoints is NULL for all, else names with spaces between.
CREATE TABLE lazyfox.keys (
    id         text   COLLATE "C" PRIMARY KEY,
    label      text   NOT NULL,
    hash       bytea  NOT NULL UNIQUE CHECK (length(hash) = 32),
    access     text   NOT NULL CHECK (access IN ('admin', 'read-write', 'read-only')),
    endpoints  text,
    created_at bigint NOT NULL,
    revoked_at bigint
);

-- For people: ids and times in their usual spelling.
CREATE VIEW lazyfox.jobs_readable AS
SELECT j.seq,
       CASE WHEN get_byte(uuid_send(j.id), 8) >= 192 THEN 'sync-' || overlay(j.id::text PLACING
                to_hex((get_byte(uuid_send(j.id), 8) & 63 | 128) >> 4) FROM 20 FOR 1)
            ELSE j.id::text END AS job,
       j.endpoint, j.status, j.retries, j.worker, j.error,
       to_timestamp(j.created_at / 1000.0) AS created,
       to_timestamp(j.started_at / 1000.0) AS started,
       to_timestamp(j.ended_at / 1000.0) AS ended,
       j.webhook
FROM lazyfox.jobs j;
CREATE VIEW lazyfox.deliveries_readable AS
SELECT d.number, j.job || '_' || d.n AS delivery, d.endpoint, d.host, d.state, d.tries,
       to_timestamp(d.created_at / 1000.0) AS created, to_timestamp(d.due_at / 1000.0) AS due,
       (SELECT coalesce(t.error, 'answered ' || t.status) FROM lazyfox.tries t
        WHERE t.endpoint = d.endpoint AND t.number = d.number ORDER BY t.try DESC LIMIT 1) AS last
FROM lazyfox.deliveries d JOIN lazyfox.jobs k ON k.endpoint = d.endpoint AND k.id = d.id
     JOIN lazyfox.jobs_readable j ON j.seq = k.seq;
