//! Lazyfox remembers here.
