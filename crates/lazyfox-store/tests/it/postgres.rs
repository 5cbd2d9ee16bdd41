//! What only several servers can show, on one PostgreSQL.

mod charges;
mod connections;
mod groups;
mod migrations;
mod partitions;
