//! What the tests and benchmarks of Lazyfox run against: a real PostgreSQL of their own, and a
//! network that breaks when it is told to.
//!
//! Nothing here is part of a release. What cannot be set up is a panic that says why: there is
//! nobody who could go on without it.
//!
//! ```ignore
//! let postgres = lazyfox_testing::shared();
//! let url = postgres.database();
//!
//! let proxy = Proxy::start(postgres.address());
//! let store = PostgresStore::open(&proxy.through(&url));
//! proxy.cut();
//! ```

pub use authority::Authority;
pub use postgres::{Mode, Options, Postgres, shared};
pub use proxy::Proxy;

mod authority;
mod port;
mod postgres;
mod proxy;
