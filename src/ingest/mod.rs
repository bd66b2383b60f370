//! From a client's event to a row of `meter_events` and what it adds to `usage_pending`.
//!
//! submitted (what the client sent) → check (what it means, or why it is refused) → identity (once, for ever) → pending.

mod batch;
mod cancel;
mod check;
mod filters;
mod functions;
mod identity;
mod meters;
pub mod partitions;
pub mod pending;
mod rejection;
mod stripe_event;
mod submitted;
