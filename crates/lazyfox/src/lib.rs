//! Lazyfox does here.
