//! The public SDKs, unchanged, against the real server: workers of five Python versions, the
//! Python and JavaScript clients, workers that die, and receivers of webhooks that verify them.
//!
//! `cargo xtask test` installs the SDKs and runs this. Nothing here sleeps: handlers wait at a gate
//! until the test lets them go on, and the test waits through the API's own long polls.

mod gate;
mod http;
mod port;
mod process;
mod sdk;
mod server;

mod clients;
mod dev;
mod faults;
mod fleet;
mod webhooks;
mod workers;

/// The same checks for each version, so that a failing test names the version first.
macro_rules! every_version {
    ($($module:ident => $version:literal,)*) => {$(
        mod $module {
            use crate::{faults, workers};

            #[test]
            fn results_arrive_as_the_handler_returned_them() {
                workers::results_arrive_as_returned($version);
            }

            #[test]
            fn errors_of_the_handler_fail_the_job() {
                workers::handler_errors_fail_the_job($version);
            }

            #[test]
            fn s3_config_reaches_the_handler_only() {
                workers::s3_config_reaches_the_handler_only($version);
            }

            #[test]
            fn progress_is_seen_while_the_job_runs() {
                workers::progress_is_seen_while_the_job_runs($version);
            }

            #[test]
            fn refreshed_worker_gets_no_further_job() {
                workers::refreshed_worker_gets_no_further_job($version);
            }

            #[test]
            fn four_slots_run_four_jobs_at_once() {
                workers::four_slots_run_four_jobs_at_once($version);
            }

            #[test]
            fn chunks_stream_in_order_while_the_job_runs() {
                workers::chunks_stream_in_order($version);
            }

            #[test]
            fn aggregated_chunks_are_the_output() {
                workers::aggregated_chunks_are_the_output($version);
            }

            #[test]
            fn job_of_a_killed_worker_completes_on_another() {
                faults::killed_once_completes($version);
            }
        }
    )*};
}

// xtask/src/python.rs installs these: change both.
every_version! {
    v1_6_2 => "1.6.2",
    v1_7_13 => "1.7.13",
    v1_10_1 => "1.10.1",
    v1_12_0 => "1.12.0",
    v2_0_0rc2 => "2.0.0rc2",
}
