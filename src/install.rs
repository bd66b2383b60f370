//! What the server does when it loads the library, and what CREATE EXTENSION runs, in order.

use std::ffi::CStr;

use pgrx::prelude::*;

use crate::{settings, worker};

/// Said by hand: pgrx 0.18.1 takes its `version` for the name.
const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

pg_module_magic!(name, version = VERSION);

#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::register();
    worker::register_launcher_if_preloading();
}

// The install order. Functions of PL/pgSQL and SQL bind late, so an order among tables is enough; each file names its predecessor.
extension_sql_file!("../sql/schema.sql", name = "schema", bootstrap);
extension_sql_file!("../sql/types.sql", name = "types", requires = ["schema"]);
extension_sql_file!("../sql/functions.sql", name = "functions", requires = ["types"]);
extension_sql_file!("../sql/arguments.sql", name = "arguments", requires = ["functions"]);
extension_sql_file!("../sql/announcing.sql", name = "announcing", requires = ["arguments"]);
extension_sql_file!("../sql/customers.sql", name = "customers", requires = ["announcing"]);
extension_sql_file!("../sql/currencies.sql", name = "currencies", requires = ["customers"]);
extension_sql_file!("../sql/products.sql", name = "products", requires = ["currencies"]);
extension_sql_file!("../sql/meters.sql", name = "meters", requires = ["products"]);
extension_sql_file!("../sql/prices.sql", name = "prices", requires = ["meters"]);
extension_sql_file!("../sql/meter_events.sql", name = "meter_events", requires = ["prices"]);
extension_sql_file!(
    "../sql/partitions.sql",
    name = "partitions",
    requires = ["meter_events"]
);
extension_sql_file!("../sql/rejections.sql", name = "rejections", requires = ["partitions"]);
extension_sql_file!("../sql/record.sql", name = "record", requires = ["rejections"]);
extension_sql_file!(
    "../sql/usage_pending.sql",
    name = "usage_pending",
    requires = ["record"]
);
extension_sql_file!(
    "../sql/usage_buckets.sql",
    name = "usage_buckets",
    requires = ["usage_pending"]
);
extension_sql_file!(
    "../sql/usage_states.sql",
    name = "usage_states",
    requires = ["usage_buckets"]
);
extension_sql_file!("../sql/usage.sql", name = "usage", requires = ["usage_states"]);
extension_sql_file!("../sql/verify.sql", name = "verify", requires = ["usage"]);
extension_sql_file!("../sql/alerts.sql", name = "alerts", requires = ["verify"]);
extension_sql_file!("../sql/roll_up.sql", name = "roll_up", requires = ["alerts"]);
extension_sql_file!(
    "../sql/subscriptions.sql",
    name = "subscriptions",
    requires = ["roll_up"]
);
extension_sql_file!(
    "../sql/subscription_schedules.sql",
    name = "subscription_schedules",
    requires = ["subscriptions"]
);
extension_sql_file!(
    "../sql/invoices.sql",
    name = "invoices",
    requires = ["subscription_schedules"]
);
extension_sql_file!(
    "../sql/invoice_items.sql",
    name = "invoice_items",
    requires = ["invoices"]
);
extension_sql_file!(
    "../sql/invoice_lines.sql",
    name = "invoice_lines",
    requires = ["invoice_items"]
);
extension_sql_file!(
    "../sql/credit_notes.sql",
    name = "credit_notes",
    requires = ["invoice_lines"]
);
extension_sql_file!(
    "../sql/customer_balance_transactions.sql",
    name = "customer_balance_transactions",
    requires = ["credit_notes"]
);
extension_sql_file!(
    "../sql/coupons.sql",
    name = "coupons",
    requires = ["customer_balance_transactions"]
);
extension_sql_file!("../sql/discounts.sql", name = "discounts", requires = ["coupons"]);
extension_sql_file!("../sql/tax_rates.sql", name = "tax_rates", requires = ["discounts"]);
extension_sql_file!(
    "../sql/credit_grants.sql",
    name = "credit_grants",
    requires = ["tax_rates"]
);
extension_sql_file!("../sql/adjusting.sql", name = "adjusting", requires = ["credit_grants"]);
extension_sql_file!("../sql/redeeming.sql", name = "redeeming", requires = ["adjusting"]);
extension_sql_file!("../sql/rating.sql", name = "rating", requires = ["redeeming"]);
extension_sql_file!("../sql/late_usage.sql", name = "late_usage", requires = ["rating"]);
extension_sql_file!("../sql/drafting.sql", name = "drafting", requires = ["late_usage"]);
extension_sql_file!("../sql/explaining.sql", name = "explaining", requires = ["drafting"]);
extension_sql_file!("../sql/preview.sql", name = "preview", requires = ["explaining"]);
extension_sql_file!("../sql/finalizing.sql", name = "finalizing", requires = ["preview"]);
extension_sql_file!("../sql/invoicing.sql", name = "invoicing", requires = ["finalizing"]);
extension_sql_file!("../sql/thresholds.sql", name = "thresholds", requires = ["invoicing"]);
extension_sql_file!(
    "../sql/billing_runs.sql",
    name = "billing_runs",
    requires = ["thresholds"]
);
extension_sql_file!(
    "../sql/subscription_terms.sql",
    name = "subscription_terms",
    requires = ["billing_runs"]
);
extension_sql_file!(
    "../sql/prorating.sql",
    name = "prorating",
    requires = ["subscription_terms"]
);
extension_sql_file!("../sql/subscribing.sql", name = "subscribing", requires = ["prorating"]);
extension_sql_file!("../sql/changing.sql", name = "changing", requires = ["subscribing"]);
extension_sql_file!(
    "../sql/changing_items.sql",
    name = "changing_items",
    requires = ["changing"]
);
extension_sql_file!(
    "../sql/cancelling.sql",
    name = "cancelling",
    requires = ["changing_items"]
);
extension_sql_file!(
    "../sql/subscription_statuses.sql",
    name = "subscription_statuses",
    requires = ["cancelling"]
);
extension_sql_file!(
    "../sql/scheduling.sql",
    name = "scheduling",
    requires = ["subscription_statuses"]
);
extension_sql_file!(
    "../sql/invoicing_by_hand.sql",
    name = "invoicing_by_hand",
    requires = ["scheduling"]
);
extension_sql_file!(
    "../sql/settling.sql",
    name = "settling",
    requires = ["invoicing_by_hand"]
);
extension_sql_file!("../sql/crediting.sql", name = "crediting", requires = ["settling"]);
extension_sql_file!("../sql/worker.sql", name = "worker", requires = ["crediting"]);
extension_sql_file!("../sql/status.sql", name = "status", requires = ["worker"]);
extension_sql_file!("../sql/grants.sql", name = "grants", requires = ["status"], finalize);
