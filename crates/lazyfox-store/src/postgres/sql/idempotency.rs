//! The statements about idempotency keys, which are in a table beside the jobs.

/// The jobs that came with these.
pub(in crate::postgres) const KEYS: &str = concat!(
    "SELECT ",
    columns!(),
    ", u.key, i.fingerprint FROM ",
    keys!("key", "text"),
    " CROSS JOIN LATERAL (SELECT k.endpoint, k.id, k.fingerprint FROM lazyfox.idempotency k
                           WHERE k.endpoint = u.endpoint AND k.key = u.key OFFSET 0) AS i
      JOIN lazyfox.jobs j ON j.endpoint = i.endpoint AND j.id = i.id"
);

/// In the order of the keys: groups that bring the same ones wait for each other in one order.
pub(in crate::postgres) const INSERT_KEYS: &str = "
     INSERT INTO lazyfox.idempotency (endpoint, key, id, fingerprint)
     SELECT $1, * FROM unnest($2::text[], $3::uuid[], $4::bytea[]) AS u(key, id, fingerprint)
     ORDER BY u.key";

/// The idempotency keys of forgotten jobs.
pub(in crate::postgres) const FORGET_KEYS: &str = "
     DELETE FROM lazyfox.idempotency t
     USING (SELECT $1::text AS endpoint, * FROM unnest($2::text[], $3::uuid[]) AS u(key, id)
            OFFSET 0) AS u
     WHERE t.endpoint = u.endpoint AND t.key = u.key AND t.id = u.id";
