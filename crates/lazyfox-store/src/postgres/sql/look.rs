//! The look once a second, and what a server says about itself: two statements that are one where both
//! are due, because an idle server has one question a second.

/// What is watched and has happened: jobs that ended or stream (by their number), queues that have a job
/// (from a place on), and the next place to be given; the next things to do on all endpoints, from some
/// time each until another; and tables that have grown since the planner heard that they were empty.
macro_rules! pulse {
    ($on:literal, $ids:literal, $queues:literal, $from:literal, $deadline:literal,
     $forget:literal, $until:literal) => {
        concat!(
    "SELECT p.what, p.endpoint, '', '', '', '', p.number FROM (
     SELECT 'job' AS what, u.endpoint, u.place AS number
     FROM (SELECT * FROM unnest(", $on, "::text[], ", $ids, "::uuid[]) WITH ORDINALITY
               AS u(endpoint, id, place) OFFSET 0) AS u
     JOIN lazyfox.jobs j ON j.endpoint = u.endpoint AND j.id = u.id
     WHERE j.ended_at IS NOT NULL
         OR EXISTS (SELECT 1 FROM lazyfox.chunks c WHERE c.endpoint = u.endpoint AND c.id = u.id)
     UNION ALL
     SELECT 'queue', u.endpoint, CASE WHEN w.low_priority THEN NULL ELSE w.seq END
     FROM unnest(", $queues, "::text[], ", $from, "::int8[]) AS u(endpoint, seq)
     CROSS JOIN LATERAL (
         SELECT j.low_priority, j.seq FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = u.endpoint AND j.status = 'IN_QUEUE'
             AND (j.low_priority, j.seq) >= (false, u.seq)
         ORDER BY j.low_priority, j.seq LIMIT 1) AS w
     UNION ALL
     SELECT 'place', NULL, last_value + CASE WHEN is_called THEN 1 ELSE 0 END
     FROM lazyfox.jobs_seq
     UNION ALL
     SELECT 'deadline', NULL, min(d.deadline)
     FROM lazyfox.queues q CROSS JOIN LATERAL (",
    deadlines!("j.deadline", $deadline, $until, "j.deadline LIMIT 1"),
    ") AS d
     UNION ALL
     SELECT 'forget', NULL, min(d.forget_at)
     FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT j.forget_at FROM lazyfox.jobs j
         WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND j.ended_at IS NOT NULL
             AND j.forget_at >= ", $forget, " AND j.forget_at <= ", $until, "
         ORDER BY j.forget_at LIMIT 1) AS d
     UNION ALL
     SELECT 'open', NULL, NULL FROM lazyfox.queues q CROSS JOIN LATERAL (
         SELECT 1 FROM lazyfox.deliveries d
         WHERE d.endpoint COLLATE \"POSIX\" = q.endpoint AND d.due_at IS NOT NULL LIMIT 1) AS o
     UNION ALL
     SELECT 'grown', c.relname, NULL
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'lazyfox' AND c.relkind = 'r' AND c.reltuples = 0
         AND pg_catalog.pg_relation_size(c.oid) > 65536) AS p"
        )
    };
}

/// $1 server, $2 endpoints, $3 whom it succeeds or NULL, $4 length of a charge, $5 how long something is
/// free before it is anybody's, $6 machine, $7 URL, $8 version, $9 how long workers may go on without
/// their server.
///
/// `steady`: a server that was silent past its time takes nothing with its first word. After a failure of
/// the database everybody was, and each gets back what it had. `share`: how much it may take that is not
/// yet anybody's. `spare`: how many it gives up, because it has more than its share and others, who have
/// not what is theirs, would take them; those without workers only, and none for a while after one that
/// nobody took: the others may not know them. What others have in hand at this moment is passed over
/// (SKIP LOCKED), nobody waits.
macro_rules! beat {
    () => {
        "WITH clock AS MATERIALIZED (SELECT (extract(epoch FROM now()) * 1000)::int8 AS at),
past AS MATERIALIZED (
    SELECT coalesce((SELECT s.seen_until > clock.at FROM lazyfox.servers s
                     WHERE s.server = $1), true) AS steady,
           (SELECT count(*) FROM lazyfox.servers s
            WHERE s.server <> $1 AND s.server IS DISTINCT FROM $3::text
                AND s.seen_until > clock.at AND s.wants > 0) + 1 AS servers,
           (SELECT count(*) FROM lazyfox.charges c
            WHERE (c.server = $1 OR c.server = $3::text) AND c.endpoint = ANY($2::text[])) AS held
    FROM clock),
share AS MATERIALIZED (
    SELECT CASE WHEN steady THEN greatest(0, fair - held) ELSE 0 END AS n,
           CASE WHEN steady THEN greatest(0, least(held - fair, (
               SELECT coalesce(sum(greatest(0, (s.wants + servers - 1) / servers
                                       - (SELECT count(*) FROM lazyfox.charges c
                                          WHERE c.server = s.server AND c.until > clock.at))), 0)
               FROM lazyfox.servers s
               WHERE s.server <> $1 AND s.server IS DISTINCT FROM $3::text
                   AND s.seen_until > clock.at)))::int8 ELSE 0 END AS spare
    FROM clock, past,
         LATERAL (SELECT (cardinality($2::text[]) + servers - 1) / servers AS fair) AS f),
seen AS (
    INSERT INTO lazyfox.servers
        (server, machine, url, version, started_at, seen_until, goes_on_ms, wants)
    SELECT $1, $6, $7, $8, at, at + $4::int8, $9::int8, cardinality($2::text[]) FROM clock
    ON CONFLICT (server) DO UPDATE SET seen_until = excluded.seen_until, wants = excluded.wants),
succeeded AS (DELETE FROM lazyfox.servers s WHERE s.server = $3::text),
inherited AS (UPDATE lazyfox.workers w SET server = $1 WHERE w.server = $3::text),
spare AS MATERIALIZED (
    SELECT c.endpoint FROM lazyfox.charges c, clock
    WHERE c.server = $1 AND c.endpoint = ANY($2::text[]) AND c.until > at
        AND NOT EXISTS (SELECT 1 FROM lazyfox.charges g
                        WHERE g.server = $1 AND g.shared_at > at - 600000)
        AND NOT EXISTS (SELECT 1 FROM lazyfox.workers w
                        WHERE w.endpoint = c.endpoint AND w.server = $1)
    ORDER BY c.endpoint LIMIT (SELECT spare FROM share)),
kept AS (
    UPDATE lazyfox.charges c
    SET server = $1, term = c.term + (c.server <> $1)::int,
        until = CASE WHEN c.endpoint = ANY($2::text[])
                         AND c.endpoint NOT IN (SELECT s.endpoint FROM spare s)
                     THEN at + $4::int8 ELSE at END,
        shared_at = CASE WHEN c.endpoint IN (SELECT s.endpoint FROM spare s)
                         THEN at ELSE c.shared_at END
    FROM clock
    WHERE (c.server = $1 OR c.server = $3::text)
        AND (c.endpoint = ANY($2::text[]) OR c.until > at)
    RETURNING c.endpoint, c.term, c.until > at AS stays),
stale AS (
    SELECT c.endpoint FROM lazyfox.charges c, clock
    WHERE c.endpoint = ANY($2::text[]) AND c.server <> $1 AND c.server IS DISTINCT FROM $3::text
        AND c.until <= at - $5::int8 AND (SELECT steady FROM past)
    FOR UPDATE OF c SKIP LOCKED),
fresh AS (
    SELECT c.endpoint FROM lazyfox.charges c, clock
    WHERE c.endpoint = ANY($2::text[]) AND c.server <> $1 AND c.server IS DISTINCT FROM $3::text
        AND c.until <= at AND c.until > at - $5::int8
    ORDER BY c.endpoint LIMIT (SELECT n FROM share)
    FOR UPDATE OF c SKIP LOCKED),
taken AS (
    UPDATE lazyfox.charges c SET server = $1, term = c.term + 1, until = at + $4::int8
    FROM (SELECT endpoint FROM stale UNION ALL SELECT endpoint FROM fresh) free, clock
    WHERE c.endpoint = free.endpoint
    RETURNING c.endpoint, c.term),
made AS (
    INSERT INTO lazyfox.charges (endpoint, server, term, until)
    SELECT new.endpoint, CASE WHEN mine THEN $1 ELSE '' END, mine::int,
           CASE WHEN mine THEN at + $4::int8 ELSE at END
    FROM (SELECT asked.endpoint, row_number() OVER (ORDER BY asked.endpoint)
                     <= (SELECT n FROM share) - (SELECT count(*) FROM fresh) AS mine
          FROM unnest($2::text[]) AS asked (endpoint)
          WHERE NOT EXISTS (SELECT 1 FROM lazyfox.charges c
                            WHERE c.endpoint = asked.endpoint)) new, clock
    ORDER BY new.endpoint
    ON CONFLICT (endpoint) DO NOTHING
    RETURNING endpoint, server, term),
gone AS (
    DELETE FROM lazyfox.servers s USING clock
    WHERE s.server <> $1 AND s.server IS DISTINCT FROM $3::text
        AND s.seen_until + s.goes_on_ms <= at
    RETURNING s.server),
forgotten AS (
    DELETE FROM lazyfox.workers w
    WHERE w.server <> $1 AND w.server IS DISTINCT FROM $3::text
        AND (w.server IN (SELECT server FROM gone)
             OR NOT EXISTS (SELECT 1 FROM lazyfox.servers s WHERE s.server = w.server)))
SELECT 'kept' AS kind, endpoint, '' AS worker, '' AS server, '' AS machine, '' AS url,
    term AS number FROM kept WHERE stays
UNION ALL SELECT 'taken', endpoint, '', '', '', '', term FROM taken
UNION ALL SELECT 'taken', endpoint, '', '', '', '', term FROM made WHERE server = $1
UNION ALL SELECT 'clock', '', '', '', '', '', at FROM clock
UNION ALL
SELECT 'there', c.endpoint, '', c.server, coalesce(s.machine, ''), coalesce(s.url, ''), c.until - at
FROM clock, lazyfox.charges c LEFT JOIN lazyfox.servers s ON s.server = c.server
WHERE c.endpoint = ANY($2::text[]) AND c.server <> $1 AND c.server IS DISTINCT FROM $3::text
UNION ALL
SELECT 'own', w.endpoint, w.worker, '', '', '', 0 FROM lazyfox.workers w
WHERE w.server = $1 OR w.server = $3::text
UNION ALL
SELECT 'worker', w.endpoint, w.worker, w.server, s.machine, s.url, w.started_at
FROM lazyfox.workers w JOIN lazyfox.servers s ON s.server = w.server
WHERE w.endpoint = ANY($2::text[]) AND w.server <> $1 AND w.server IS DISTINCT FROM $3::text
    AND w.server NOT IN (SELECT server FROM gone)"
    };
}

/// A look.
pub(in crate::postgres) const PULSE: &str = pulse!("$1", "$2", "$3", "$4", "$5", "$6", "$7");

/// A word about the server.
pub(in crate::postgres) const BEAT: &str = beat!();

/// Both.
pub(in crate::postgres) const BEAT_AND_PULSE: &str = concat!(
    beat!(),
    " UNION ALL ",
    pulse!("$10", "$11", "$12", "$13", "$14", "$15", "$16")
);
