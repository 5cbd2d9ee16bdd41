//! How the stores in tables spell what has a spelling of its own.

use lazyfox_core::id::{EndpointId, WorkerId};

use crate::engine::Result;
use crate::{Access, StoreError};

pub(crate) fn access_name(access: Access) -> &'static str {
    match access {
        Access::Admin => "admin",
        Access::ReadWrite => "read-write",
        Access::ReadOnly => "read-only",
    }
}

pub(crate) fn access_of(name: &str) -> Result<Access> {
    let all = [Access::Admin, Access::ReadWrite, Access::ReadOnly];
    let found = all.into_iter().find(|it| access_name(*it) == name);
    found.ok_or_else(|| StoreError::Corrupt(format!("unknown name {name}")))
}

pub(crate) fn endpoint_of(name: &str) -> Result<EndpointId> {
    name.parse()
        .map_err(|_| StoreError::Corrupt(format!("{name} is not an endpoint's name")))
}

/// Names with spaces between.
pub(crate) fn endpoint_names(endpoints: &[EndpointId]) -> String {
    let names: Vec<&str> = endpoints.iter().map(EndpointId::as_str).collect();
    names.join(" ")
}

/// The reverse of [`endpoint_names`].
pub(crate) fn endpoints_of(names: &str) -> Result<Vec<EndpointId>> {
    names.split_whitespace().map(endpoint_of).collect()
}

/// Names with spaces between; `None` where there are none.
pub(crate) fn worker_names(workers: &[WorkerId]) -> Option<String> {
    let names: Vec<&str> = workers.iter().map(WorkerId::as_str).collect();
    (!names.is_empty()).then(|| names.join(" "))
}
