//! The statements. The first parameter of each is the endpoint, unless it says for which it is.
//!
//! Rows that are joined to arrays get the endpoint from there, behind `OFFSET 0`: the database then begins
//! with the arrays and looks each row up by its key, whatever it thinks of the size of the tables. Arrays are
//! sorted where rows are locked, so that groups wait for each other in one order.
//!
//! What goes by an order and not by a key says `COLLATE "POSIX"`: the schema tells why.

macro_rules! columns {
    () => {
        "j.seq, j.id, j.endpoint, j.status, j.created_at, j.queued_at, j.expires_at, \
         j.expiry_is_hard, j.awaited, j.retries, j.barred, j.worker, j.started_at, j.ended_at, \
         j.error, j.forget_at, j.execution_timeout, j.ttl, j.ttl_given, j.low_priority, \
         j.retries_max, j.retention, j.retention_sync, j.ttl_expiry_forgets, \
         j.webhook IS NOT NULL, j.webhook_on_cancel, j.begun, j.deaths, j.poison_after, \
         j.lease_until, j.has_secrets, j.has_output"
    };
}

pub(super) use columns;

/// The parameter `$2`, an array of what a key has beside the endpoint.
macro_rules! keys {
    ($key:literal, $kind:literal) => {
        concat!(
            "(SELECT $1::text AS endpoint, ",
            $key,
            " FROM unnest($2::",
            $kind,
            "[]) AS a(",
            $key,
            ") OFFSET 0) AS u"
        )
    };
}

macro_rules! forget {
    ($table:literal) => {
        concat!(
            "DELETE FROM lazyfox.",
            $table,
            " t USING ",
            keys!("id", "uuid"),
            " WHERE t.endpoint = u.endpoint AND t.id = u.id"
        )
    };
}

/// How many columns a job is read from.
pub(super) const JOB_COLUMNS: usize = 32;

/// How many columns a delivery is read from.
pub(super) const DELIVERY_COLUMNS: usize = 13;

macro_rules! delivery_columns {
    () => {
        "d.number, d.endpoint, d.host, d.bytes, d.id, d.n, d.state, d.created_at, d.due_at, \
         d.tries, d.round, d.keep_until, \
         (SELECT j.seq FROM lazyfox.jobs j WHERE j.endpoint = d.endpoint AND j.id = d.id)"
    };
}

pub(super) use delivery_columns;

mod idempotency;

pub(super) use self::idempotency::{FORGET_KEYS, INSERT_KEYS, KEYS};

pub(super) const JOBS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM ",
    keys!("id", "uuid"),
    " CROSS JOIN LATERAL (SELECT * FROM lazyfox.jobs k
                           WHERE k.endpoint = u.endpoint AND k.id = u.id FOR UPDATE) AS j"
);

/// On these endpoints.
pub(super) const HELD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM lazyfox.jobs j
      WHERE j.endpoint COLLATE \"POSIX\" = ANY($1) AND j.worker = ANY($2) AND j.status = 'IN_PROGRESS'
      FOR UPDATE"
);

pub(super) const WAITING: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM lazyfox.jobs j
      WHERE j.endpoint COLLATE \"POSIX\" = $1 AND j.status = 'IN_QUEUE' AND j.seq <= $2
      ORDER BY j.low_priority, j.seq LIMIT $3 FOR UPDATE"
);

/// With inputs, up to a size of all together.
pub(super) const HEADS: &str = concat!(
    "WITH j AS MATERIALIZED (
         SELECT * FROM lazyfox.jobs
         WHERE endpoint COLLATE \"POSIX\" = $1 AND status = 'IN_QUEUE'
         ORDER BY low_priority, seq LIMIT $2 FOR UPDATE SKIP LOCKED)
     SELECT ",
    columns!(),
    ", CASE WHEN sum(octet_length(i.body)) OVER (ORDER BY j.low_priority, j.seq)
                 - octet_length(i.body) <= $3 THEN i.body END, i.secrets
     FROM j JOIN lazyfox.inputs i ON i.endpoint = j.endpoint AND i.id = j.id
     ORDER BY j.low_priority, j.seq"
);

/// What waits of each, and as many bodies as are wanted of any.
pub(super) const CHUNKS: &str = concat!(
    "SELECT u.id, c.waiting, c.n, CASE WHEN $3::bigint > 0 THEN c.body END
     FROM ",
    keys!("id", "uuid"),
    " CROSS JOIN LATERAL (
         SELECT n, body, sum(octet_length(body)) OVER () AS waiting,
                sum(octet_length(body)) OVER (ORDER BY n) - octet_length(body) AS before
         FROM lazyfox.chunks k WHERE k.endpoint = u.endpoint AND k.id = u.id) AS c
     WHERE c.before <= $3"
);

pub(super) const OVER: &str = concat!(
    "SELECT j.id, j.seq, j.webhook IS NOT NULL, j.idempotency_key FROM ",
    keys!("id", "uuid"),
    " CROSS JOIN LATERAL (SELECT * FROM lazyfox.jobs k
                           WHERE k.endpoint = u.endpoint AND k.id = u.id AND k.forget_at <= $3
                           FOR UPDATE SKIP LOCKED) AS j"
);

pub(super) const DELIVERIES_OF: &str = concat!(
    "SELECT ",
    delivery_columns!(),
    " FROM ",
    keys!("id", "uuid"),
    " CROSS JOIN LATERAL (SELECT * FROM lazyfox.deliveries k
                           WHERE k.endpoint COLLATE \"POSIX\" = u.endpoint AND k.id = u.id
                               AND k.n > 0
                           FOR UPDATE) AS d"
);

pub(super) const DELIVERIES: &str = concat!(
    "SELECT ",
    delivery_columns!(),
    " FROM ",
    keys!("number", "int8"),
    " CROSS JOIN LATERAL (SELECT * FROM lazyfox.deliveries k
                           WHERE k.endpoint = u.endpoint AND k.number = u.number FOR UPDATE) AS d"
);

pub(super) const INSERT_QUEUE: &str =
    "INSERT INTO lazyfox.queues (endpoint) VALUES ($1) ON CONFLICT DO NOTHING";

/// What changes in a job's life first, in the order of [`UPDATE_JOBS`].
pub(super) const INSERT_JOBS: &str = "
     INSERT INTO lazyfox.jobs (endpoint, id, status, queued_at, expires_at, expiry_is_hard, awaited,
         retries, barred, deaths, worker, started_at, lease_until, begun, ended_at, error,
         forget_at, deadline, has_secrets, has_output, low_priority, created_at,
         execution_timeout, ttl, ttl_given, retries_max, retention, retention_sync,
         ttl_expiry_forgets, webhook_on_cancel, poison_after, webhook, webhook_host,
         idempotency_key)
     SELECT $1, * FROM unnest($2::uuid[], $3::text[], $4::int8[], $5::int8[], $6::bool[],
         $7::bool[], $8::int4[], $9::text[], $10::text[], $11::text[], $12::int8[], $13::int8[],
         $14::bool[], $15::int8[], $16::text[], $17::int8[], $18::int8[], $19::bool[], $20::bool[],
         $21::bool[], $22::int8[], $23::int8[], $24::int8[], $25::bool[], $26::int4[], $27::int8[],
         $28::int8[], $29::bool[], $30::bool[], $31::int4[], $32::text[], $33::text[],
         $34::text[])";

pub(super) const INSERT_INPUTS: &str = "
     INSERT INTO lazyfox.inputs (endpoint, id, body, secrets)
     SELECT $1, * FROM unnest($2::uuid[], $3::bytea[], $4::bytea[])";

pub(super) const UPDATE_JOBS: &str = "
    UPDATE lazyfox.jobs j SET status = u.status, queued_at = u.queued_at, expires_at = u.expires_at,
         expiry_is_hard = u.expiry_is_hard, awaited = u.awaited, retries = u.retries,
         barred = u.barred, deaths = u.deaths, worker = u.worker, started_at = u.started_at,
         lease_until = u.lease_until, begun = u.begun, ended_at = u.ended_at, error = u.error,
         forget_at = u.forget_at, deadline = u.deadline, has_secrets = u.has_secrets,
         has_output = u.has_output
    FROM (SELECT $1::text AS endpoint, * FROM unnest($2::uuid[], $3::text[], $4::int8[], $5::int8[],
         $6::bool[], $7::bool[], $8::int4[], $9::text[], $10::text[], $11::text[], $12::int8[],
         $13::int8[], $14::bool[], $15::int8[], $16::text[], $17::int8[], $18::int8[], $19::bool[],
         $20::bool[])
         AS u(id, status, queued_at, expires_at, expiry_is_hard, awaited, retries, barred, deaths,
              worker, started_at, lease_until, begun, ended_at, error, forget_at, deadline,
              has_secrets, has_output)
         OFFSET 0) AS u
     WHERE j.endpoint = u.endpoint AND j.id = u.id";

pub(super) const WIPE_SECRETS: &str = concat!(
    "UPDATE lazyfox.inputs i SET secrets = NULL FROM ",
    keys!("id", "uuid"),
    " WHERE i.endpoint = u.endpoint AND i.id = u.id"
);

pub(super) const INSERT_OUTPUTS: &str = "
     INSERT INTO lazyfox.outputs (endpoint, id, body)
     SELECT $1, * FROM unnest($2::uuid[], $3::bytea[])
     ON CONFLICT (endpoint, id) DO UPDATE SET body = excluded.body";

pub(super) const DELETE_OUTPUTS: &str = forget!("outputs");

/// Up to a number of each.
pub(super) const DELETE_CHUNKS: &str = "
     DELETE FROM lazyfox.chunks c USING (
       SELECT $1::text AS endpoint, * FROM unnest($2::uuid[], $3::int8[]) AS u(id, through) OFFSET 0
     ) AS u
     WHERE c.endpoint = u.endpoint AND c.id = u.id AND c.n <= u.through";

/// Behind what is there.
pub(super) const INSERT_CHUNKS: &str = "
     INSERT INTO lazyfox.chunks (endpoint, id, n, body)
     SELECT $1, u.id, u.n + coalesce((SELECT max(c.n) FROM lazyfox.chunks c
                                      WHERE c.endpoint = $1 AND c.id = u.id), 0), u.body
     FROM unnest($2::uuid[], $3::int8[], $4::bytea[]) AS u(id, n, body)";

/// The count, the host and the size of what they carry are read from what is there by now.
pub(super) const INSERT_DELIVERIES: &str = "
     INSERT INTO lazyfox.deliveries (endpoint, id, n, host, bytes, state, created_at, due_at, tries,
         round, keep_until)
     SELECT $1, u.id,
         u.nth + (SELECT count(*) FROM lazyfox.deliveries d WHERE d.endpoint COLLATE \"POSIX\" = $1 AND d.id = u.id
                      AND d.n > 0),
         j.webhook_host,
         coalesce((SELECT octet_length(body) FROM lazyfox.inputs i
                   WHERE i.endpoint = $1 AND i.id = u.id), 0)
             + coalesce((SELECT octet_length(body) FROM lazyfox.outputs o
                         WHERE o.endpoint = $1 AND o.id = u.id), 0),
         u.state, u.created_at, u.due_at, u.tries, u.round, u.keep_until
     FROM (SELECT $1::text AS endpoint, *
           FROM unnest($2::uuid[], $3::int4[], $4::text[], $5::int8[], $6::int8[], $7::int4[],
               $8::int4[], $9::int8[]) WITH ORDINALITY
               AS u(id, nth, state, created_at, due_at, tries, round, keep_until, place)
           OFFSET 0) AS u
     JOIN lazyfox.jobs j ON j.endpoint = u.endpoint AND j.id = u.id
     ORDER BY u.place";

pub(super) const UPDATE_DELIVERIES: &str = "
     UPDATE lazyfox.deliveries d SET state = u.state, due_at = u.due_at, tries = u.tries,
         round = u.round, keep_until = u.keep_until, claimed_until = 0
     FROM (SELECT $1::text AS endpoint, *
           FROM unnest($2::int8[], $3::text[], $4::int8[], $5::int4[], $6::int4[], $7::int8[])
               AS u(number, state, due_at, tries, round, keep_until)
           OFFSET 0) AS u
     WHERE d.endpoint = u.endpoint AND d.number = u.number";

pub(super) const INSERT_TRIES: &str = "
     INSERT INTO lazyfox.tries (endpoint, number, try, at, duration, status, answer, error)
    SELECT $1, * FROM unnest($2::int8[], $3::int4[], $4::int8[], $5::int8[], $6::int4[], $7::text[],
         $8::text[])";

pub(super) const INSERT_COUNTS: &str = "
     INSERT INTO lazyfox.counts (endpoint, completed, failed, cancelled, timed_out, retried)
     VALUES ($1, $2, $3, $4, $5, $6)";

pub(super) const POSTPONE: &str = "
     UPDATE lazyfox.jobs j SET forget_at = greatest(j.forget_at, u.until)
     FROM (SELECT $1::text AS endpoint, * FROM unnest($2::uuid[], $3::int8[]) AS u(id, until)
           OFFSET 0) AS u
     WHERE j.endpoint = u.endpoint AND j.id = u.id";

pub(super) const FORGET: [&str; 4] = [
    forget!("jobs"),
    forget!("inputs"),
    DELETE_OUTPUTS,
    forget!("chunks"),
];

pub(super) const FORGET_DELIVERIES: [&str; 2] = [
    concat!(
        "DELETE FROM lazyfox.tries t USING (
             SELECT d.endpoint, d.number FROM ",
        keys!("id", "uuid"),
        " CROSS JOIN LATERAL (SELECT k.endpoint, k.number FROM lazyfox.deliveries k
                               WHERE k.endpoint COLLATE \"POSIX\" = u.endpoint AND k.id = u.id
                                   AND k.n > 0 OFFSET 0) AS d
             OFFSET 0) AS d
         WHERE t.endpoint = d.endpoint AND t.number = d.number"
    ),
    concat!(
        "DELETE FROM lazyfox.deliveries t USING ",
        keys!("id", "uuid"),
        " WHERE t.endpoint COLLATE \"POSIX\" = u.endpoint AND t.id = u.id AND t.n > 0"
    ),
];

/// Of all endpoints: whose deadline is due, the earliest first.
pub(super) const DUE: &str = "
     SELECT d.endpoint, d.id FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT j.endpoint, j.id, j.seq, j.deadline FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.ended_at IS NULL AND j.deadline <= $1
         ORDER BY j.deadline, j.seq LIMIT $2) AS d
     ORDER BY d.deadline, d.seq LIMIT $2";

/// Of all endpoints: the next deadline.
pub(super) const NEXT_DEADLINE: &str = "
     SELECT min(d.deadline) FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT j.deadline FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.ended_at IS NULL ORDER BY j.deadline LIMIT 1) AS d";

/// Of all endpoints: ended jobs whose retention is over, the earliest first.
pub(super) const FORGETTABLE: &str = "
     SELECT d.endpoint, d.id, d.seq, d.has_webhook FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT j.endpoint, j.id, j.seq, j.forget_at, j.webhook IS NOT NULL AS has_webhook
         FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.ended_at IS NOT NULL AND j.forget_at <= $1
         ORDER BY j.forget_at, j.seq LIMIT $2) AS d
     ORDER BY d.forget_at, d.seq LIMIT $2";

/// Of all endpoints: what waits and runs.
pub(super) const DEMAND: &str = "
     SELECT q.endpoint, c.queued, c.queued_low, c.running,
            (SELECT j.queued_at FROM lazyfox.jobs j
             WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.status = 'IN_QUEUE'
                 AND NOT j.low_priority
             ORDER BY j.seq LIMIT 1)
     FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT count(*) FILTER (WHERE status = 'IN_QUEUE' AND NOT low_priority) AS queued,
                count(*) FILTER (WHERE status = 'IN_QUEUE' AND low_priority) AS queued_low,
                count(*) FILTER (WHERE status = 'IN_PROGRESS') AS running
         FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.ended_at IS NULL) AS c
     ORDER BY q.endpoint";

/// Of all endpoints: who holds how many jobs.
pub(super) const HOLDERS: &str = "
     SELECT q.endpoint, h.worker, h.jobs FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT j.worker, count(*) AS jobs FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.status = 'IN_PROGRESS'
         GROUP BY j.worker ORDER BY j.worker) AS h
     ORDER BY q.endpoint, h.worker";

/// Of all endpoints.
pub(super) const COUNTS: &str = "
     SELECT endpoint, sum(completed)::int8, sum(failed)::int8, sum(cancelled)::int8,
            sum(timed_out)::int8, sum(retried)::int8
     FROM lazyfox.counts GROUP BY endpoint";

pub(super) const PLACE: &str = "
     SELECT j.low_priority,
            (SELECT count(*) FROM (
                 SELECT 1 FROM lazyfox.jobs w
                 WHERE w.endpoint COLLATE \"POSIX\" = $1 AND w.status = 'IN_QUEUE'
                     AND (w.low_priority, w.seq) < (j.low_priority, j.seq)
                 LIMIT $3) AS ahead)
     FROM (SELECT * FROM lazyfox.jobs WHERE endpoint = $1 AND id = $2 OFFSET 0) AS j
     WHERE j.status = 'IN_QUEUE'";

/// With those parts of each that are asked for, as far as they are not larger than this.
pub(super) const LOAD: &str = concat!(
    "SELECT ",
    columns!(),
    ", u.place, u.output AND octet_length(o.body) > $5,
       CASE WHEN u.output AND octet_length(o.body) <= $5 THEN o.body END,
       CASE WHEN u.input THEN i.body END
     FROM (SELECT $1::text AS endpoint, *
           FROM unnest($2::uuid[], $3::bool[], $4::bool[]) WITH ORDINALITY
               AS u(id, output, input, place)
           OFFSET 0) AS u
     JOIN lazyfox.jobs j ON j.endpoint = u.endpoint AND j.id = u.id
     LEFT JOIN lazyfox.outputs o ON o.endpoint = u.endpoint AND o.id = u.id AND u.output
     LEFT JOIN lazyfox.inputs i ON i.endpoint = u.endpoint AND i.id = u.id AND u.input"
);

/// Those of one status, or all, among so many.
pub(super) const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM (SELECT * FROM lazyfox.jobs WHERE endpoint COLLATE \"POSIX\" = $1 AND seq > 0 AND seq < $2 ORDER BY seq DESC LIMIT $3) j
      WHERE $4::text IS NULL OR j.status = $4 ORDER BY j.seq DESC LIMIT $5"
);

/// The last of so many.
pub(super) const LIST_END: &str = "
     SELECT seq FROM lazyfox.jobs WHERE endpoint COLLATE \"POSIX\" = $1 AND seq > 0 AND seq < $2
     ORDER BY seq DESC OFFSET $3 LIMIT 1";

pub(super) const LAST_SEQ: &str = "SELECT coalesce(max(seq), 0) FROM lazyfox.jobs
     WHERE endpoint COLLATE \"POSIX\" = $1 AND seq > 0";

/// Of all endpoints: where a worker holds jobs.
pub(super) const HELD_ON: &str = "
     SELECT q.endpoint FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT 1 FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.worker = $1
             AND j.status = 'IN_PROGRESS' LIMIT 1) AS h";

/// Of all endpoints and hosts: the first of what is open and not another server's ($2) at the moment.
pub(super) const OPEN_DELIVERIES: &str = "
     WITH RECURSIVE lanes AS (
         SELECT q.endpoint, (SELECT d.host FROM lazyfox.deliveries d
                             WHERE d.endpoint COLLATE \"POSIX\" = q.endpoint AND d.due_at IS NOT NULL
                             ORDER BY d.host LIMIT 1) AS host
         FROM lazyfox.queues q
         UNION ALL
         SELECT l.endpoint, (SELECT d.host FROM lazyfox.deliveries d
                             WHERE d.endpoint COLLATE \"POSIX\" = l.endpoint AND d.due_at IS NOT NULL
                                 AND d.host > l.host
                             ORDER BY d.host LIMIT 1)
         FROM lanes l WHERE l.host IS NOT NULL)
     SELECT l.endpoint, l.host, d.number, d.bytes, d.due_at
     FROM lanes l CROSS JOIN LATERAL (
         SELECT o.number, o.bytes, o.due_at FROM lazyfox.deliveries o
         WHERE o.endpoint COLLATE \"POSIX\" = l.endpoint AND o.host = l.host AND o.due_at IS NOT NULL
             AND (o.claimed_by = $2 OR o.claimed_until < extract(epoch FROM now()) * 1000)
         ORDER BY o.due_at, o.number LIMIT $1) AS d
     WHERE l.host IS NOT NULL";

/// What is still open and not another server's is this server's ($3) for a while ($4).
pub(super) const CLAIM: &str = concat!(
    "UPDATE lazyfox.deliveries d
     SET claimed_by = $3, claimed_until = extract(epoch FROM now()) * 1000 + $4::int8
     FROM (SELECT o.endpoint, o.number FROM ",
    keys!("number", "int8"),
    " CROSS JOIN LATERAL (
             SELECT k.endpoint, k.number FROM lazyfox.deliveries k
             WHERE k.endpoint = u.endpoint AND k.number = u.number AND k.due_at IS NOT NULL
                 AND (k.claimed_by = $3 OR k.claimed_until < extract(epoch FROM now()) * 1000)
             FOR UPDATE SKIP LOCKED) AS o
           OFFSET 0) AS c
     WHERE d.endpoint = c.endpoint AND d.number = c.number
     RETURNING d.number"
);

/// What an open delivery sends.
pub(super) const OUTGOING: &str = concat!(
    "SELECT ",
    columns!(),
    ", j.webhook, d.n, d.round,
       CASE WHEN $3 THEN (SELECT body FROM lazyfox.outputs o
                          WHERE o.endpoint = $1 AND o.id = d.id) END,
       CASE WHEN $4 THEN (SELECT body FROM lazyfox.inputs i
                          WHERE i.endpoint = $1 AND i.id = d.id) END
     FROM (SELECT * FROM lazyfox.deliveries WHERE endpoint = $1 AND number = $2 OFFSET 0) AS d
     JOIN lazyfox.jobs j ON j.endpoint = d.endpoint AND j.id = d.id
     WHERE d.due_at IS NOT NULL
         AND (d.claimed_by = $5 OR d.claimed_until < extract(epoch FROM now()) * 1000)"
);

/// Those that are meant, among so many.
pub(super) const LIST_DELIVERIES: &str = concat!(
    "SELECT ",
    delivery_columns!(),
    ", (SELECT k.webhook FROM lazyfox.jobs k WHERE k.endpoint = d.endpoint AND k.id = d.id)
      FROM (SELECT * FROM lazyfox.deliveries
            WHERE endpoint = $1 AND number < $2 AND ($4::uuid IS NULL OR id = $4)
            ORDER BY number DESC LIMIT $3) d
      WHERE ($5::text IS NULL OR d.state = $5) AND d.created_at >= $6 AND d.created_at < $7
      ORDER BY d.number DESC LIMIT $8"
);

/// The last of so many.
pub(super) const LIST_DELIVERIES_END: &str = "
     SELECT number FROM lazyfox.deliveries
     WHERE endpoint = $1 AND number < $2 AND ($4::uuid IS NULL OR id = $4)
     ORDER BY number DESC OFFSET $3 LIMIT 1";

pub(super) const TRIES: &str = concat!(
    "SELECT t.number, t.at, t.duration, t.status, t.answer, t.error FROM ",
    keys!("number", "int8"),
    " CROSS JOIN LATERAL (SELECT * FROM lazyfox.tries k
                           WHERE k.endpoint = u.endpoint AND k.number = u.number
                           ORDER BY k.try OFFSET 0) AS t"
);

/// What is watched and has happened: jobs that ended or stream, queues that have a job; the next things to
/// do on all endpoints; and tables that have grown since the planner heard that they were empty.
pub(super) const PULSE: &str = "
     SELECT 'job' AS what, u.endpoint, u.id, NULL::int8 AS at
     FROM (SELECT * FROM unnest($1::text[], $2::uuid[]) AS u(endpoint, id) OFFSET 0) AS u
     JOIN lazyfox.jobs j ON j.endpoint = u.endpoint AND j.id = u.id
     WHERE j.ended_at IS NOT NULL
         OR EXISTS (SELECT 1 FROM lazyfox.chunks c WHERE c.endpoint = u.endpoint AND c.id = u.id)
     UNION ALL
     SELECT 'queue', u.endpoint, NULL, NULL FROM unnest($3::text[]) AS u(endpoint)
     CROSS JOIN LATERAL (
         SELECT 1 FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = u.endpoint AND j.status = 'IN_QUEUE' LIMIT 1) AS w
     UNION ALL
     SELECT 'deadline', NULL, NULL, min(d.deadline)
     FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT j.deadline FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.ended_at IS NULL ORDER BY j.deadline LIMIT 1) AS d
     UNION ALL
     SELECT 'forget', NULL, NULL, min(d.forget_at)
     FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT j.forget_at FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.ended_at IS NOT NULL ORDER BY j.forget_at LIMIT 1) AS d
     UNION ALL
     SELECT 'open', NULL, NULL, NULL FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT 1 FROM lazyfox.deliveries d
         WHERE d.endpoint COLLATE \"POSIX\" = q.endpoint AND d.due_at IS NOT NULL LIMIT 1) AS o
     UNION ALL
     SELECT 'grown', c.relname, NULL, NULL
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'lazyfox' AND c.relkind = 'r' AND c.reltuples = 0
         AND pg_catalog.pg_relation_size(c.oid) > 65536";
