//! Lazyfox does here.

pub mod client;
