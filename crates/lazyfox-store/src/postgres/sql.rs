//! The statements. The first parameter of each is the endpoint, unless it says for which it is.
//!
//! Rows that are joined to arrays get the endpoint from there, behind `OFFSET 0`: the database then
//! begins with the arrays and looks each row up by its key, whatever it thinks of the size of the tables.
//! Arrays are sorted where rows are locked, so that groups wait for each other in one order.
//!
//! What goes by an order and not by a key says `COLLATE "POSIX"`: the schema tells why.

#[macro_use]
mod shapes;
mod look;

pub(super) use self::look::{BEAT, BEAT_AND_PULSE, PULSE};

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

mod deliveries;
mod idempotency;

pub(super) use self::deliveries::{
    CLAIM, DELIVERIES, DELIVERIES_OF, DELIVERY_COLUMNS, FORGET_DELIVERIES, INSERT_DELIVERIES,
    INSERT_TRIES, LIST_DELIVERIES, LIST_DELIVERIES_END, OPEN_DELIVERIES, OUTGOING, TRIES,
    UPDATE_DELIVERIES, delivery_columns,
};
pub(super) use self::idempotency::{FORGET_KEYS, INSERT_KEYS, KEYS};

pub(super) const JOBS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM ",
    keys!("id", "uuid"),
    " CROSS JOIN LATERAL (SELECT * FROM lazyfox.jobs k
                           WHERE k.endpoint = u.endpoint AND k.id = u.id FOR UPDATE) AS j"
);

/// On the endpoints $1: what the workers $2 took since $3.
pub(super) const HELD: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM unnest($2::text[], $3::int8[]) AS w(worker, since)
      CROSS JOIN unnest($1::text[]) AS e(endpoint)
      CROSS JOIN LATERAL (SELECT * FROM lazyfox.jobs k
                          WHERE k.endpoint COLLATE \"POSIX\" = e.endpoint AND k.worker = w.worker
                              AND k.started_at >= w.since AND k.status = 'IN_PROGRESS'
                          FOR UPDATE) AS j"
);

/// What the workers $2 took at the times $3, with inputs.
pub(super) const TAKEN: &str = concat!(
    "SELECT ",
    columns!(),
    ", i.body, i.secrets
      FROM unnest($2::text[], $3::int8[]) AS w(worker, at)
      CROSS JOIN LATERAL (SELECT * FROM lazyfox.jobs k
                          WHERE k.endpoint COLLATE \"POSIX\" = $1 AND k.worker = w.worker
                              AND k.started_at = w.at AND k.status = 'IN_PROGRESS'
                          FOR UPDATE) AS j
      JOIN lazyfox.inputs i ON i.endpoint = j.endpoint AND i.id = j.id"
);

pub(super) const WAITING: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM lazyfox.jobs j
      WHERE j.endpoint COLLATE \"POSIX\" = $1 AND j.status = 'IN_QUEUE' AND j.seq <= $2
      ORDER BY j.low_priority, j.seq LIMIT $3 FOR UPDATE"
);

/// From a place of the normal lane on; with inputs, up to a size of all together.
pub(super) const HEADS: &str = concat!(
    "WITH j AS MATERIALIZED (
         SELECT * FROM lazyfox.jobs
         WHERE endpoint COLLATE \"POSIX\" = $1 AND status = 'IN_QUEUE'
             AND (low_priority, seq) >= (false, $4)
         ORDER BY low_priority, seq LIMIT $2 FOR UPDATE SKIP LOCKED)
     SELECT ",
    columns!(),
    ", CASE WHEN sum(octet_length(i.body)) OVER (ORDER BY j.low_priority, j.seq)
                 - octet_length(i.body) <= $3 THEN i.body END, i.secrets
     FROM j JOIN lazyfox.inputs i ON i.endpoint = j.endpoint AND i.id = j.id
     ORDER BY j.low_priority, j.seq"
);

/// The inputs of jobs that are locked.
pub(super) const INPUTS: &str = concat!(
    "SELECT u.id, i.body, i.secrets FROM ",
    keys!("id", "uuid"),
    " CROSS JOIN LATERAL (SELECT * FROM lazyfox.inputs k
                           WHERE k.endpoint = u.endpoint AND k.id = u.id OFFSET 0) AS i"
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

pub(super) const INSERT_QUEUE: &str =
    "INSERT INTO lazyfox.queues (endpoint) VALUES ($1) ON CONFLICT DO NOTHING";

/// What changes in a job's life first, in the order of [`UPDATE_JOBS`]. Gives the first place.
pub(super) const INSERT_JOBS: &str = "
     WITH new AS (INSERT INTO lazyfox.jobs (endpoint, id, status, queued_at, expires_at,
         expiry_is_hard, awaited,
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
         $34::text[])
     RETURNING seq) SELECT min(seq) FROM new";

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
     SELECT $1, * FROM unnest($2::uuid[], $3::bytea[])";

pub(super) const REPLACE_OUTPUTS: &str = "
     UPDATE lazyfox.outputs o SET body = u.body
     FROM (SELECT $1::text AS endpoint, * FROM unnest($2::uuid[], $3::bytea[]) AS u(id, body)
           OFFSET 0) AS u
     WHERE o.endpoint = u.endpoint AND o.id = u.id";

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

/// Of all endpoints: whose deadline is due, the earliest first. There is none before $3.
pub(super) const DUE: &str = concat!(
    "SELECT d.endpoint, d.id FROM lazyfox.queues q CROSS JOIN LATERAL (",
    deadlines!(
        "j.endpoint, j.id, j.seq, j.deadline",
        "$3",
        "$1",
        "j.deadline, j.seq LIMIT $2"
    ),
    ") AS d
     ORDER BY d.deadline, d.seq LIMIT $2"
);

/// Of all endpoints: the next deadline between two times.
pub(super) const NEXT_DEADLINE: &str = concat!(
    "SELECT min(d.deadline) FROM lazyfox.queues q CROSS JOIN LATERAL (",
    deadlines!("j.deadline", "$1", "$2", "j.deadline LIMIT 1"),
    ") AS d"
);

/// Of all endpoints: ended jobs whose retention is over, the earliest first. There is none before $3.
pub(super) const FORGETTABLE: &str = "
     SELECT d.endpoint, d.id, d.seq, d.has_webhook FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT j.endpoint, j.id, j.seq, j.forget_at, j.webhook IS NOT NULL AS has_webhook
         FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.ended_at IS NOT NULL
             AND j.forget_at >= $3 AND j.forget_at <= $1
         ORDER BY j.forget_at, j.seq LIMIT $2) AS d
     ORDER BY d.forget_at, d.seq LIMIT $2";

/// Of all endpoints: what waits and runs. Of those in $1 nothing waits before $2, and nothing that runs
/// has its deadline before $3.
pub(super) const DEMAND: &str = "
     SELECT q.endpoint, w.queued, w.queued_low,
            (SELECT count(*) FROM lazyfox.jobs j
             WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.lease_until IS NOT NULL
                 AND j.deadline >= $3),
            (SELECT j.queued_at FROM lazyfox.jobs j
             WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.status = 'IN_QUEUE'
                 AND NOT j.low_priority AND j.seq >= q.from_seq
             ORDER BY j.low_priority, j.seq LIMIT 1)
     FROM (SELECT k.endpoint, coalesce(f.seq, 0) AS from_seq
           FROM lazyfox.queues k
           LEFT JOIN unnest($1::text[], $2::int8[]) AS f(endpoint, seq)
               ON f.endpoint = k.endpoint
           OFFSET 0) AS q
     CROSS JOIN LATERAL (
         SELECT count(*) FILTER (WHERE NOT low_priority) AS queued,
                count(*) FILTER (WHERE low_priority) AS queued_low
         FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.status = 'IN_QUEUE'
             AND (j.low_priority, j.seq) >= (false, q.from_seq)) AS w
     ORDER BY q.endpoint";

/// Of all endpoints: who holds how many jobs. None has its deadline before $1.
pub(super) const HOLDERS: &str = "
     SELECT q.endpoint, h.worker, h.jobs FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT j.worker, count(*) AS jobs FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.lease_until IS NOT NULL
             AND j.deadline >= $1
         GROUP BY j.worker ORDER BY j.worker) AS h
     ORDER BY q.endpoint, h.worker";

/// Of all endpoints. A row that was committed late is older than where rows begin, but by less than a
/// transaction can last.
pub(super) const COUNTS: &str = "
     SELECT q.endpoint, sum(c.completed)::int8, sum(c.failed)::int8, sum(c.cancelled)::int8,
            sum(c.timed_out)::int8, sum(c.retried)::int8
     FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT * FROM lazyfox.counts k
         WHERE k.endpoint = q.endpoint AND k.at >= q.counted_from - 30000 OFFSET 0) AS c
     GROUP BY q.endpoint";

/// Makes one row of those that are not of this moment. What another server has in hand it does.
pub(super) const FOLD_COUNTS: &str = "
     WITH clock AS MATERIALIZED (SELECT (extract(epoch FROM now()) * 1000)::int8 - 2000 AS at),
     q AS MATERIALIZED (SELECT endpoint, counted_from FROM lazyfox.queues
                        WHERE endpoint = $1 FOR UPDATE SKIP LOCKED),
     gone AS (DELETE FROM lazyfox.counts c USING q, clock
              WHERE c.endpoint = $1 AND c.at >= q.counted_from - 30000 AND c.at < clock.at
              RETURNING c.*),
     kept AS (INSERT INTO lazyfox.counts
                  (endpoint, at, completed, failed, cancelled, timed_out, retried)
              SELECT $1, clock.at, sum(completed), sum(failed), sum(cancelled), sum(timed_out),
                     sum(retried)
              FROM gone, clock GROUP BY clock.at
              RETURNING at)
     UPDATE lazyfox.queues q SET counted_from = kept.at FROM kept WHERE q.endpoint = $1";

pub(super) const PLACE: &str = "
     SELECT j.low_priority,
            (SELECT count(*) FROM (
                 SELECT 1 FROM lazyfox.jobs w
                 WHERE w.endpoint COLLATE \"POSIX\" = $1 AND w.status = 'IN_QUEUE'
                     AND (w.low_priority, w.seq) >= (false, $4)
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
