//! The three value types.
