//! Billing periods and proration.
