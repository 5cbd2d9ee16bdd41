//! Lazyfox does here.

pub mod providers;
