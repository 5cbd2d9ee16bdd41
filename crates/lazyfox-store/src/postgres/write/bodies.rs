//! Outputs and chunks of streams.

use super::super::row::{Id, Raw};
use super::super::set::{Entry, Output};
use super::super::sql;
use super::Write;
use crate::engine::Seq;

pub(super) fn payloads(writes: &mut Vec<Write>, entries: &[(Seq, &Entry)]) {
    // Most jobs have one output in their life; to look for another costs more than to write it.
    let (mut first, mut again) = (
        <(Vec<Id>, Vec<_>)>::default(),
        <(Vec<Id>, Vec<_>)>::default(),
    );
    let (mut cleared, mut wiped) = (Vec::<Id>::new(), Vec::<Id>::new());
    for (_, entry) in entries {
        match &entry.output {
            Output::Kept(body) => {
                let (ids, bodies) = if entry.had_output() {
                    &mut again
                } else {
                    &mut first
                };
                ids.push(entry.job.id.into());
                bodies.push(Raw(body.clone()));
            }
            Output::Cleared if entry.had_output() => cleared.push(entry.job.id.into()),
            Output::Cleared | Output::Untouched => {}
        }
        if entry.kept.is_some() && entry.wiped && entry.has_secrets {
            wiped.push(entry.job.id.into());
        }
    }
    for (sql, (ids, bodies)) in [(sql::INSERT_OUTPUTS, first), (sql::REPLACE_OUTPUTS, again)] {
        if !ids.is_empty() {
            writes.push(Write {
                sql,
                params: params![ids, bodies],
            });
        }
    }
    for (sql, ids) in [(sql::DELETE_OUTPUTS, cleared), (sql::WIPE_SECRETS, wiped)] {
        if !ids.is_empty() {
            writes.push(Write {
                sql,
                params: params![ids],
            });
        }
    }
}

pub(super) fn chunks(writes: &mut Vec<Write>, entries: &[(Seq, &Entry)]) {
    let (mut gone, mut through) = (Vec::<Id>::new(), Vec::new());
    let (mut ids, mut numbers, mut bodies) = (Vec::<Id>::new(), Vec::new(), Vec::new());
    for (_, entry) in entries {
        let id = Id::from(entry.job.id);
        if entry.chunks.cleared {
            gone.push(id);
            through.push(i64::MAX);
        } else if let Some(n) = entry.chunks.taken_through {
            gone.push(id);
            through.push(n);
        }
        for (n, body) in (1_i64..).zip(&entry.chunks.appended) {
            ids.push(id);
            numbers.push(n);
            bodies.push(Raw(body.clone()));
        }
    }
    if !gone.is_empty() {
        writes.push(Write {
            sql: sql::DELETE_CHUNKS,
            params: params![gone, through],
        });
    }
    if !ids.is_empty() {
        writes.push(Write {
            sql: sql::INSERT_CHUNKS,
            params: params![ids, numbers, bodies],
        });
    }
}
