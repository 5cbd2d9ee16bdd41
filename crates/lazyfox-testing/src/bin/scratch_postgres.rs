//! A throw-away PostgreSQL to try things on: it is there until the input of this program ends.

use std::io::{Read as _, Result, sink, stdin};

fn main() -> Result<()> {
    let postgres = lazyfox_testing::shared();
    println!("url {}", postgres.database());
    println!("directory {}", postgres.directory().display());
    println!("process {}", postgres.pid());
    std::io::copy(&mut stdin().by_ref(), &mut sink())?;
    Ok(())
}
