//! Every setting, with its reason. Times are whole seconds inside, and take units ('35d', '1h') in SQL.
//!
//! Whatever changes what is billed is SUSET, so that an application role cannot loosen it; install grants SET on those to
//! `billing_admin`.

use std::ffi::CStr;

use pgrx::guc::PostgresGucEnum;
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use crate::pg::error::{Result, error};
use crate::pg::text::Text;
use crate::pg::time::MICROS_PER_SECOND;

/// Setting -1: no limit.
pub const NO_LIMIT: i32 = -1;
const HOUR: i32 = 3600;
const DAY: i32 = 24 * HOUR;
const TEN_YEARS: i32 = 3653 * DAY;

/// What becomes of usage that arrives after its period was invoiced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
#[allow(non_camel_case_types)]
pub enum LateUsage {
    next_invoice,
    ignore,
}

/// Whose sequence the numbers of invoices come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
#[allow(non_camel_case_types)]
pub enum InvoiceNumbering {
    account,
    customer,
}

pub static ROLL_UP_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(1000);
pub static PARTITION_WIDTH: GucSetting<i32> = GucSetting::<i32>::new(DAY);
pub static IDENTIFIER_WINDOW: GucSetting<i32> = GucSetting::<i32>::new(DAY);
pub static MAX_EVENT_AGE: GucSetting<i32> = GucSetting::<i32>::new(35 * DAY);
pub static MAX_EVENT_LEAD: GucSetting<i32> = GucSetting::<i32>::new(300);
pub static FINALIZATION_DELAY: GucSetting<i32> = GucSetting::<i32>::new(HOUR);
pub static RETENTION: GucSetting<i32> = GucSetting::<i32>::new(NO_LIMIT);
pub static LATE_USAGE: GucSetting<LateUsage> = GucSetting::<LateUsage>::new(LateUsage::next_invoice);
pub static INVOICE_NUMBERING: GucSetting<InvoiceNumbering> =
    GucSetting::<InvoiceNumbering>::new(InvoiceNumbering::account);
pub static FILTER_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(16 << 10);
pub static WORKER: GucSetting<bool> = GucSetting::<bool>::new(true);

type Duration = (
    &'static CStr,
    &'static GucSetting<i32>,
    i32,
    GucContext,
    &'static CStr,
    &'static CStr,
);

/// Settings in seconds: name, value, least value, who may set it, what it is, why it is so.
fn durations() -> [Duration; 6] {
    [
        (
            c"billing.partition_width",
            &PARTITION_WIDTH,
            1,
            GucContext::Suset,
            c"Width of a partition of billing.meter_events, by the time events are received.",
            c"A day keeps appends in one hot partition and retention a DROP. Smaller widths serve tests of the boundary.",
        ),
        (
            c"billing.identifier_window",
            &IDENTIFIER_WINDOW,
            0,
            GucContext::Suset,
            c"How long a repeated identifier is recognised when the event carries no timestamp.",
            c"Stripe promises 24 hours. Each further partition in the window costs every event one index probe.",
        ),
        (
            c"billing.max_event_age",
            &MAX_EVENT_AGE,
            NO_LIMIT,
            GucContext::Suset,
            c"Events with an older timestamp are refused (timestamp_too_far_in_past). -1: no limit.",
            c"Stripe's limit is 35 days. Set -1 in a session that imports history.",
        ),
        (
            c"billing.max_event_lead",
            &MAX_EVENT_LEAD,
            0,
            GucContext::Suset,
            c"Events with a timestamp later than now by more than this are refused (timestamp_in_future).",
            c"Stripe's limit is 5 minutes: it forgives the clocks of senders.",
        ),
        (
            c"billing.finalization_delay",
            &FINALIZATION_DELAY,
            0,
            GucContext::Suset,
            c"How long an invoice stays a draft after its period has ended.",
            c"Usage of the period that is recorded meanwhile still reaches the draft. Stripe's default is an hour.",
        ),
        (
            c"billing.retention",
            &RETENTION,
            NO_LIMIT,
            GucContext::Sighup,
            c"Partitions of events received longer ago are dropped by the worker. -1: keep all.",
            c"Never one that a period not yet invoiced still needs. Buckets stay.",
        ),
    ]
}

pub fn register() {
    for (name, setting, least, context, what, why) in durations() {
        GucRegistry::define_int_guc(name, what, why, setting, least, TEN_YEARS, context, GucFlags::UNIT_S);
    }
    GucRegistry::define_int_guc(
        c"billing.roll_up_interval",
        c"How often the background worker folds pending usage into the buckets.",
        c"Summaries are exact whatever it is; a short interval keeps them fast and alerts prompt. Under load the worker rests longer, up to 5 s.",
        &ROLL_UP_INTERVAL,
        10,
        DAY * 1000 / 24,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"billing.filter_memory",
        c"How much memory a session that records may keep filters of sealed partitions in.",
        c"1.5 MB for a million events of partitions searched for retries, mostly one. Else the index is searched.",
        &FILTER_MEMORY,
        0,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_bool_guc(
        c"billing.worker",
        c"Whether a background worker is started on demand, and with the server where the library is preloaded.",
        c"Nothing depends on it: billing.roll_up() and billing.maintain_partitions() can be called by anything else.",
        &WORKER,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"billing.late_usage",
        c"What becomes of usage that arrives after its period was invoiced: next_invoice or ignore.",
        c"next_invoice re-rates the whole period and puts the difference on the next invoice.",
        &LATE_USAGE,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"billing.invoice_numbering",
        c"Whose sequence the numbers of invoices come from: account or customer.",
        c"account numbers all invoices in one row (INV-000001); customer gives each customer a prefix and numbers of its own.",
        &INVOICE_NUMBERING,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// In bytes.
pub fn filter_memory() -> usize {
    (FILTER_MEMORY.get().max(0) as usize).saturating_mul(1 << 10)
}

/// A limit in microseconds; `None`: no limit.
pub fn micros(setting: &GucSetting<i32>) -> Option<i64> {
    let seconds = setting.get();
    (seconds != NO_LIMIT).then(|| i64::from(seconds) * MICROS_PER_SECOND)
}

/// A time setting for SQL functions, in seconds; NULL: no limit. Being here, it also loads the library that defines it.
#[pg_extern(sql = false)]
fn setting_seconds(name: Text) -> Result<Option<i64>> {
    durations()
        .iter()
        .find(|(full, ..)| full.to_bytes().strip_prefix(b"billing.") == Some(name.0.as_bytes()))
        .map(|(_, setting, ..)| micros(setting).map(|micros| micros / MICROS_PER_SECOND))
        .ok_or_else(|| {
            error(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("no time setting \"billing.{}\"", name.0),
            )
        })
}

#[pg_extern(sql = false)]
fn late_usage() -> &'static str {
    match LATE_USAGE.get() {
        LateUsage::next_invoice => "next_invoice",
        LateUsage::ignore => "ignore",
    }
}

#[pg_extern(sql = false)]
fn invoice_numbering() -> &'static str {
    match INVOICE_NUMBERING.get() {
        InvoiceNumbering::account => "account",
        InvoiceNumbering::customer => "customer",
    }
}
