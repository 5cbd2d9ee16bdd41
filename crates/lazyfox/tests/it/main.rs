//! The real server in this process, over real HTTP, with a clock that only moves when a test moves it.
//!
//! Endpoints have no command: the test plays the workers, and where it must, their faults. Nothing here
//! sleeps; real time only bounds a wait that would otherwise never end.

#[macro_use]
mod server;
mod events;
mod http;
mod receiver;
mod worker;

mod auth;
mod bad_input;
mod bodies;
mod fleet;
mod fuzz;
mod golden;
mod inputs;
mod job_api;
mod lists;
mod logs;
mod queue;
mod runs;
mod s3_config;
mod several;
mod shutdown;
mod webhooks;
mod worker_env;
mod worker_protocol;
