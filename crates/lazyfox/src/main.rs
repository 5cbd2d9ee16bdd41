//! The program. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Beside every server one of them waits, and needs no threads for that.
    lazyfox::guard::main().unwrap_or_else(run)
}

#[tokio::main]
async fn run() -> ExitCode {
    lazyfox::cli::main().await
}
