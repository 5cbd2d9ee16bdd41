//! Parts of several statements.

/// Those of the endpoint `q.endpoint` that wait or run and have a deadline between two times.
macro_rules! deadlines {
    ($columns:literal, $from:literal, $to:literal, $order:literal) => {
        concat!(
            deadlines!(
                $columns,
                $from,
                $to,
                $order,
                "j.lease_until IS NULL AND j.ended_at IS NULL"
            ),
            " UNION ALL ",
            deadlines!($columns, $from, $to, $order, "j.lease_until IS NOT NULL")
        )
    };
    ($columns:literal, $from:literal, $to:literal, $order:literal, $state:literal) => {
        concat!(
            "(SELECT ",
            $columns,
            " FROM lazyfox.jobs j
              WHERE j.endpoint COLLATE \"POSIX\" = q.endpoint AND ",
            $state,
            " AND j.deadline >= ",
            $from,
            " AND j.deadline <= ",
            $to,
            " ORDER BY ",
            $order,
            ")"
        )
    };
}
