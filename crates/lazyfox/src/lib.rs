//! Lazyfox does here: HTTP, background passes, workers, webhooks, the command line.
//!
//! [`server::Server`] is the whole server as a value: given a configuration and a listener it serves until
//! it is stopped, and any number of them fit into one process. [`app::App`] is what its parts share;
//! [`api`] and [`passes`] both use it and never name each other.

#![warn(clippy::print_stdout)]

pub mod cli;

pub mod config;
pub mod dev;
pub mod guard;
pub mod serve;
pub mod server;

pub mod api;
pub mod app;
pub mod changes;
pub mod charge;
pub mod decisions;
pub mod elsewhere;
pub mod endpoints;
pub mod passes;
pub mod release;
pub mod reload;

pub mod fleet;
pub mod keyring;
pub mod listeners;
pub mod logs;
pub mod name;
pub mod signing;
pub mod wake;

pub mod providers;
pub mod webhooks;
pub mod worker_env;

pub mod client;
pub mod clock;
pub mod python_env;
pub mod secrets;
pub mod worker;

mod events;
#[cfg(test)]
mod failing;
mod heard;
mod json;
mod signals;
mod views;
mod when;
