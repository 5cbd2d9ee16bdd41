//! Lazyfox decides here. No I/O, no clock, no randomness, no async, no dependencies: `now` and every
//! roll of the dice are arguments, and what should happen is returned as data.
//!
//! The modules stand in reading order. The invariants that they keep:
//!
//! - A terminal state is final; only [`job::Event::Retry`] leaves FAILED or TIMED_OUT.
//! - Only the worker that holds the lease can end an attempt, and a job whose attempt ended without
//!   a report of that worker never goes to that worker again ([`job::Job::barred`]).
//! - [`scale::plan`] never asks for more workers than the maximum, but by the surge while there are outdated
//!   ones, and zero demand converges to the minimum and stays there.

#![deny(clippy::wildcard_enum_match_arm, clippy::indexing_slicing)]

pub mod id;
pub mod time;

pub mod limits;
pub mod policy;

pub mod job;
pub mod prefetch;
pub mod sdk;

pub mod delivery;
pub mod reach;
pub mod scale;
pub mod simulate;
pub mod traffic;
pub mod why;
