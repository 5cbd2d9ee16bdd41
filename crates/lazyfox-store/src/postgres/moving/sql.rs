//! The statements that read everything, in an order that is the same each time.

use crate::postgres::sql::{columns, delivery_columns};

/// All jobs in the order of submission, each with what is kept beside it. Bodies are looked up when the
/// order is known, so that they are not sorted.
pub(super) const JOBS: &str = concat!(
    "SELECT ",
    columns!(),
    ", j.webhook, j.webhook_host, j.idempotency_key,
       (SELECT k.fingerprint FROM lazyfox.idempotency k
        WHERE k.endpoint = j.endpoint AND k.key = j.idempotency_key AND k.id = j.id),
       (SELECT i.body FROM lazyfox.inputs i WHERE i.endpoint = j.endpoint AND i.id = j.id),
       (SELECT i.secrets FROM lazyfox.inputs i WHERE i.endpoint = j.endpoint AND i.id = j.id),
       (SELECT o.body FROM lazyfox.outputs o WHERE o.endpoint = j.endpoint AND o.id = j.id),
       (SELECT array_agg(c.body ORDER BY c.n) FROM lazyfox.chunks c
        WHERE c.endpoint = j.endpoint AND c.id = j.id)
     FROM (SELECT * FROM lazyfox.jobs ORDER BY seq OFFSET 0) j ORDER BY j.seq"
);

/// All deliveries in the order in which jobs ended, each with its tries.
pub(super) const DELIVERIES: &str = concat!(
    "SELECT ",
    delivery_columns!(),
    ", t.*
     FROM (SELECT * FROM lazyfox.deliveries ORDER BY number OFFSET 0) d CROSS JOIN LATERAL (
         SELECT array_agg(try ORDER BY try), array_agg(at ORDER BY try),
                array_agg(duration ORDER BY try), array_agg(status ORDER BY try),
                array_agg(answer ORDER BY try), array_agg(error ORDER BY try)
         FROM lazyfox.tries WHERE endpoint = d.endpoint AND number = d.number) t
     ORDER BY d.number"
);

pub(super) const COUNTERS: &str = "
     SELECT endpoint, sum(completed)::int8, sum(failed)::int8, sum(cancelled)::int8,
            sum(timed_out)::int8, sum(retried)::int8
     FROM lazyfox.counts GROUP BY endpoint
     HAVING sum(completed + failed + cancelled + timed_out + retried) > 0 ORDER BY endpoint";

pub(super) const ENDPOINTS: &str = "
     SELECT endpoint, number, released_at, fingerprint, settings FROM lazyfox.endpoints
     WHERE number IS NOT NULL OR settings IS NOT NULL ORDER BY endpoint";

pub(super) const SECRETS: &str = "
     SELECT endpoint, id, secret, created_at, valid_until FROM lazyfox.webhook_secrets
     ORDER BY endpoint, id";

pub(super) const KEYS: &str = "
     SELECT id, label, hash, access, endpoints, created_at, revoked_at
     FROM lazyfox.keys ORDER BY created_at, id";
