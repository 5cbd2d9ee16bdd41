//! The statements behind charges. Times are the database's, which is the only clock that all servers have.

/// $1 server, $2 endpoints, $3 whom it succeeds or NULL, $4 length of a charge, $5 how long something is free
/// before it is anybody's, $6 machine, $7 URL, $8 version, $9 how long workers may go on without their
/// server.
///
/// `steady`: a server that was silent past its time takes nothing with its first word. After a failure of the
/// database everybody was, and each gets back what it had. `share`: how much it may take that is not yet
/// anybody's. What others have in hand at this moment is passed over (SKIP LOCKED), nobody waits.
pub(super) const BEAT: &str = "
WITH clock AS MATERIALIZED (SELECT (extract(epoch FROM now()) * 1000)::int8 AS at),
past AS MATERIALIZED (
    SELECT coalesce((SELECT s.seen_until > clock.at FROM lazyfox.servers s
                     WHERE s.server = $1), true) AS steady,
           (SELECT count(*) FROM lazyfox.servers s
            WHERE s.server <> $1 AND s.server IS DISTINCT FROM $3::text
                AND s.seen_until > clock.at AND s.takes) + 1 AS servers,
           (SELECT count(*) FROM lazyfox.charges c
            WHERE (c.server = $1 OR c.server = $3::text) AND c.endpoint = ANY($2::text[])) AS held
    FROM clock),
share AS MATERIALIZED (
    SELECT CASE WHEN steady THEN
        greatest(0, (cardinality($2::text[]) + servers - 1) / servers - held) ELSE 0 END AS n
    FROM past),
seen AS (
    INSERT INTO lazyfox.servers
        (server, machine, url, version, started_at, seen_until, goes_on_ms, takes)
    SELECT $1, $6, $7, $8, at, at + $4::int8, $9::int8, cardinality($2::text[]) > 0 FROM clock
    ON CONFLICT (server) DO UPDATE SET seen_until = excluded.seen_until, takes = excluded.takes),
succeeded AS (DELETE FROM lazyfox.servers s WHERE s.server = $3::text),
inherited AS (UPDATE lazyfox.workers w SET server = $1 WHERE w.server = $3::text),
kept AS (
    UPDATE lazyfox.charges c
    SET server = $1, term = c.term + (c.server <> $1)::int,
        until = CASE WHEN c.endpoint = ANY($2::text[]) THEN at + $4::int8 ELSE at END
    FROM clock
    WHERE (c.server = $1 OR c.server = $3::text)
        AND (c.endpoint = ANY($2::text[]) OR c.until > at)
    RETURNING c.endpoint, c.term),
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
    term AS number FROM kept WHERE endpoint = ANY($2::text[])
UNION ALL SELECT 'taken', endpoint, '', '', '', '', term FROM taken
UNION ALL SELECT 'taken', endpoint, '', '', '', '', term FROM made WHERE server = $1
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
    AND w.server NOT IN (SELECT server FROM gone)";

/// Workers of other servers than $1 on the endpoints $2.
pub(super) const WORKERS: &str = "
SELECT 'worker', w.endpoint, w.worker, w.server, s.machine, s.url, w.started_at
FROM lazyfox.workers w JOIN lazyfox.servers s ON s.server = w.server
WHERE w.endpoint = ANY($2::text[]) AND w.server <> $1";

/// The charge's row is held until the worker is there: who takes the charge sees it. The clock is read
/// after the row was waited for.
pub(super) const ENLIST: &str = "
WITH held AS MATERIALIZED (
    SELECT 1 FROM lazyfox.charges
    WHERE endpoint = $1 AND server = $3 AND term = $4
        AND until > extract(epoch FROM clock_timestamp()) * 1000
    FOR UPDATE)
INSERT INTO lazyfox.workers (endpoint, worker, server, term, started_at)
SELECT $1, $2, $3, $4, (extract(epoch FROM clock_timestamp()) * 1000)::int8 FROM held
ON CONFLICT (endpoint, worker) DO UPDATE SET server = excluded.server, term = excluded.term";

/// Where it is noted with its term already, it keeps that.
pub(super) const NOTE: &str = "
INSERT INTO lazyfox.workers (endpoint, worker, server, term, started_at)
VALUES ($1, $2, $3, 0, (extract(epoch FROM clock_timestamp()) * 1000)::int8)
ON CONFLICT (endpoint, worker) DO UPDATE SET server = excluded.server";

pub(super) const UNLIST: &str = "
DELETE FROM lazyfox.workers WHERE endpoint = $1 AND worker = $2 AND server = $3";

pub(super) const LEAVE: &str = "
WITH clock AS MATERIALIZED (SELECT (extract(epoch FROM now()) * 1000)::int8 AS at),
free AS (
    UPDATE lazyfox.charges c SET until = at FROM clock WHERE c.server = $1 AND c.until > at),
gone AS (
    DELETE FROM lazyfox.servers s
    WHERE s.server = $1
        AND NOT EXISTS (SELECT 1 FROM lazyfox.workers w WHERE w.server = $1))
UPDATE lazyfox.servers s SET takes = false, seen_until = least(s.seen_until, at)
FROM clock
WHERE s.server = $1 AND EXISTS (SELECT 1 FROM lazyfox.workers w WHERE w.server = $1)";
