//! Statements about deliveries.

/// How many columns a delivery is read from.
pub(in crate::postgres) const DELIVERY_COLUMNS: usize = 13;

macro_rules! delivery_columns {
    () => {
        "d.number, d.endpoint, d.host, d.bytes, d.id, d.n, d.state, d.created_at, d.due_at, \
         d.tries, d.round, d.keep_until, \
         (SELECT j.seq FROM lazyfox.jobs j WHERE j.endpoint = d.endpoint AND j.id = d.id)"
    };
}

pub(in crate::postgres) use delivery_columns;

pub(in crate::postgres) const DELIVERIES_OF: &str = concat!(
    "SELECT ",
    delivery_columns!(),
    " FROM ",
    keys!("id", "uuid"),
    " CROSS JOIN LATERAL (SELECT * FROM lazyfox.deliveries k
                           WHERE k.endpoint COLLATE \"POSIX\" = u.endpoint AND k.id = u.id
                               AND k.n > 0
                           FOR UPDATE) AS d"
);

pub(in crate::postgres) const DELIVERIES: &str = concat!(
    "SELECT ",
    delivery_columns!(),
    " FROM ",
    keys!("number", "int8"),
    " CROSS JOIN LATERAL (SELECT * FROM lazyfox.deliveries k
                           WHERE k.endpoint = u.endpoint AND k.number = u.number FOR UPDATE) AS d"
);

/// The count, the host and the size of what they carry are read from what is there by now.
pub(in crate::postgres) const INSERT_DELIVERIES: &str = "
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

pub(in crate::postgres) const UPDATE_DELIVERIES: &str = "
     UPDATE lazyfox.deliveries d SET state = u.state, due_at = u.due_at, tries = u.tries,
         round = u.round, keep_until = u.keep_until, claimed_until = 0
     FROM (SELECT $1::text AS endpoint, *
           FROM unnest($2::int8[], $3::text[], $4::int8[], $5::int4[], $6::int4[], $7::int8[])
               AS u(number, state, due_at, tries, round, keep_until)
           OFFSET 0) AS u
     WHERE d.endpoint = u.endpoint AND d.number = u.number";

pub(in crate::postgres) const INSERT_TRIES: &str = "
     INSERT INTO lazyfox.tries (endpoint, number, try, at, duration, status, answer, error)
    SELECT $1, * FROM unnest($2::int8[], $3::int4[], $4::int8[], $5::int8[], $6::int4[], $7::text[],
         $8::text[])";

pub(in crate::postgres) const FORGET_DELIVERIES: [&str; 2] = [
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

/// Of all endpoints and hosts: the first of what is open and not another server's ($2) at the moment.
pub(in crate::postgres) const OPEN_DELIVERIES: &str = "
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
pub(in crate::postgres) const CLAIM: &str = concat!(
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
pub(in crate::postgres) const OUTGOING: &str = concat!(
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
pub(in crate::postgres) const LIST_DELIVERIES: &str = concat!(
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
pub(in crate::postgres) const LIST_DELIVERIES_END: &str = "
     SELECT number FROM lazyfox.deliveries
     WHERE endpoint = $1 AND number < $2 AND ($4::uuid IS NULL OR id = $4)
     ORDER BY number DESC OFFSET $3 LIMIT 1";

pub(in crate::postgres) const TRIES: &str = concat!(
    "SELECT t.number, t.at, t.duration, t.status, t.answer, t.error FROM ",
    keys!("number", "int8"),
    " CROSS JOIN LATERAL (SELECT * FROM lazyfox.tries k
                           WHERE k.endpoint = u.endpoint AND k.number = u.number
                           ORDER BY k.try OFFSET 0) AS t"
);
