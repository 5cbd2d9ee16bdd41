//! A value that knows how often somebody had it in hand to change it.

use std::ops::{Deref, DerefMut};

/// Counts mutable borrows, so that no way to change the value can be forgotten; one that then changes
/// nothing counts too.
pub(crate) struct Tracked<T> {
    value: T,
    changes: u64,
}

impl<T> Tracked<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value, changes: 0 }
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }
}

impl<T> Deref for Tracked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Tracked<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.changes += 1;
        &mut self.value
    }
}
