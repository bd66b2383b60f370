//! Tests on a live server: the PostgreSQL named by PG_BILLING_TEST_PG (18 or 15).

mod alerts;
mod bad_input;
mod batches;
mod catalog;
mod cluster;
mod comments;
mod concurrency;
mod durability;
mod identity;
mod immutability;
mod ingest;
mod invoices;
mod invoicing_concurrency;
mod kept;
mod price_amount;
mod recording;
mod refusal;
mod roles;
mod roll_up;
mod standby;
mod status;
mod stopped;
mod types;
mod update;
mod usage;
mod worker;
