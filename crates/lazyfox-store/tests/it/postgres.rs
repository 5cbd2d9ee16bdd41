//! What only several servers can show, on one PostgreSQL.

mod charges;
mod connections;
mod crossed;
mod groups;
mod migrations;
mod partitions;
