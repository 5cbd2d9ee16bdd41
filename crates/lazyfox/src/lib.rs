//! Lazyfox does here.

pub mod providers;
pub mod python_env;
