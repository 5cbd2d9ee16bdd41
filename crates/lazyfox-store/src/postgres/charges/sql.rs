//! The other statements behind charges. Times are the database's, which is the only clock that all
//! servers have.

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
UPDATE lazyfox.servers s SET wants = 0, seen_until = least(s.seen_until, at)
FROM clock
WHERE s.server = $1 AND EXISTS (SELECT 1 FROM lazyfox.workers w WHERE w.server = $1)";
