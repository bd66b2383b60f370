//! The matrix: a new function or table fails here until somebody has said who may use it.

use super::{CATALOG, database, login, strings};

/// Anyone: the value types and the pure functions.
const FOR_ALL: &[&str] = &[
    "currency_exponent",
    "generate_id",
    "invoice_numbering",
    "late_usage",
    "meter_eq",
    "meter_from_jsonb",
    "meter_hash",
    "meter_hash_extended",
    "meter_in",
    "meter_ne",
    "meter_out",
    "meter_recv",
    "meter_send",
    "meter_to_jsonb",
    "period_containing",
    "price_amount",
    "price_eq",
    "price_fitting_amount",
    "price_from_jsonb",
    "price_hash",
    "price_hash_extended",
    "price_in",
    "price_in_currency",
    "price_line_amount",
    "price_ne",
    "price_out",
    "price_recv",
    "price_send",
    "price_to_jsonb",
    "prorated_amount",
    "require_supported",
    "setting_interval",
    "setting_seconds",
    "subscription_eq",
    "subscription_from_jsonb",
    "subscription_hash",
    "subscription_hash_extended",
    "subscription_in",
    "subscription_ne",
    "subscription_out",
    "subscription_recv",
    "subscription_send",
    "subscription_to_jsonb",
];

/// billing_recorder, and so billing_admin.
const FOR_RECORDING: &[&str] = &["cancel_meter_event", "record_meter_event", "record_meter_events"];

/// billing_reader, and so billing_admin: what only reads.
const FOR_READING: &[&str] = &[
    "adjust_amounts",
    "adjusted_lines",
    "adjusted_preview",
    "advances",
    "alert_period",
    "balance_after",
    "cancellation_time",
    "changed_metadata",
    "changes_of_phase",
    "charge_line",
    "charge_of_credit",
    "charges_given_back",
    "charging_drafts",
    "collection_paused",
    "configured_anchor",
    "coupons_named",
    "credit_balance",
    "credit_lines",
    "credit_lines_of_amount",
    "credit_used",
    "creditable_lines",
    "credited_line",
    "credited_lines",
    "customer_balance",
    "customer_usage_values",
    "day_of_month",
    "discounts_of_phase",
    "draft_discounts",
    "due_before",
    "exclusive_tax",
    "explain_invoice_line",
    "explained",
    "explained_usage",
    "filter_alternatives",
    "finalizes_at",
    "first_anchor",
    "giving_back",
    "is_waived",
    "item_charge",
    "item_period",
    "late_usage_lines",
    "later_period_ends",
    "later_usage_event",
    "latest_usage_event",
    "licensed_lines",
    "lines_billed_before",
    "meter_event_summaries",
    "missed_phases",
    "next_lines",
    "normalised_bill",
    "normalised_object",
    "open_charges",
    "pause_behavior",
    "pending_items",
    "phase_content",
    "phase_end",
    "phase_of_subscription",
    "preview_invoice",
    "preview_period",
    "price_label",
    "price_steps",
    "price_terms",
    "require_argument",
    "require_price",
    "require_tax_rates",
    "require_threshold_of_usage",
    "require_time",
    "require_unused_price",
    "resolved_phases",
    "see_partitions",
    "share",
    "share_of_time",
    "shortest_interval",
    "subscription_changes",
    "subscription_ends",
    "subscription_pauses",
    "subscription_period",
    "subscription_schedule_definition",
    "text_array",
    "usage_amount",
    "usage_bounds",
    "usage_dimensions",
    "usage_folded",
    "usage_lines",
    "usage_quantities",
    "usage_quantity",
    "usage_since",
    "usage_sources",
    "usage_states",
    "usage_unbilled",
    "usage_values",
    "usage_windows",
    "verify",
];

/// billing_admin only.
const FOR_ADMINISTERING: &[&str] = &[
    "activate_alert",
    "activate_price",
    "activate_product",
    "activate_tax_rate",
    "adjust_customer_balance",
    "adjust_drafts",
    "advance_schedule",
    "alert_events_notify",
    "alerts_check",
    "analyze_invoices",
    "announce_change",
    "announce_relation_change",
    "append_only",
    "apply_credits",
    "apply_discount",
    "apply_due_changes",
    "archive_alert",
    "archive_price",
    "archive_product",
    "archive_tax_rate",
    "begin_phase",
    "bill_batch",
    "cancel_subscription",
    "cancel_subscription_schedule",
    "change_customer_balance",
    "change_items",
    "change_subscription",
    "changed_terms",
    "charge_remaining",
    "close_thresholds",
    "coupons_check",
    "create_alert",
    "create_coupon",
    "create_credit_grant",
    "create_credit_note",
    "create_customer",
    "create_invoice",
    "create_invoice_item",
    "create_meter",
    "create_price",
    "create_product",
    "create_product_of_price",
    "create_subscription",
    "create_subscription_schedule",
    "create_tax_rate",
    "credit_balance_transactions_check",
    "credit_grants_check",
    "credit_note_lines_check",
    "credit_notes_check",
    "credit_unused",
    "current_subscription",
    "customers_check",
    "deactivate_alert",
    "deactivate_meter",
    "delete_coupon",
    "delete_draft_invoice",
    "delete_invoice_item",
    "describe_item",
    "discount_subscription",
    "discounted_object",
    "discounts_check",
    "draft_thresholds",
    "drafts_due",
    "drop_old_partitions",
    "drop_unfit_thresholds",
    "end_periods",
    "end_subscription",
    "evaluate_alerts",
    "expire_credit_grant",
    "expire_credits",
    "expire_returned_credits",
    "expire_subscription",
    "filter_partition",
    "finalize_beside_folding",
    "finalize_drafts",
    "finalize_invoice",
    "finalize_now",
    "finalize_thresholds",
    "forget_late_usage",
    "generate_invoices",
    "identity_filter",
    "invoice_changes",
    "invoice_items_check",
    "invoice_lines_check",
    "invoice_was_paid",
    "invoices_check",
    "invoices_check_credit_notes",
    "invoices_check_sums",
    "keep_usage",
    "lock_credit_grant",
    "lock_discounts",
    "lock_draft",
    "lock_due_changes",
    "lock_invoice",
    "lock_invoice_item",
    "lock_schedule",
    "lock_subscription",
    "lock_to_change",
    "lock_to_finalize",
    "lock_usage",
    "maintain_partitions",
    "make_drafts",
    "make_first_invoice",
    "make_invoice_prefixes",
    "make_next_partition",
    "make_partition",
    "mark_invoice_paid",
    "mark_invoice_uncollectible",
    "mark_invoiced_usage",
    "meters_check",
    "never_deleted",
    "next_drafts",
    "note_roll_up",
    "pause_subscription",
    "preview_cancel",
    "preview_change",
    "preview_phase",
    "preview_update",
    "prices_check",
    "prorate",
    "put_on_draft",
    "rate_drafts",
    "reach_discounted",
    "reactivate_meter",
    "rebuild_usage",
    "redeem_coupon",
    "redeem_discounts",
    "refuse_change",
    "regenerate_invoice",
    "reinstate_credits",
    "release_lookup_key",
    "release_subscription_schedule",
    "replace_discounts",
    "resume_subscription",
    "retract_credits",
    "roll_up",
    "run_billing",
    "run_job",
    "running_schedule",
    "seal_partition",
    "set_alert_status",
    "set_customer_tax_exempt",
    "set_default_price",
    "set_discounts",
    "set_meter_status",
    "set_next_invoice_sequence",
    "set_price_active",
    "set_product_active",
    "set_subscription_status",
    "set_tax_rate_active",
    "settle_invoice",
    "start_billing_run",
    "start_worker",
    "store_terms",
    "sum_up_draft",
    "take_items",
    "tax_rates_check",
    "total_drafts",
    "transfer_lookup_key",
    "try_lock_usage",
    "update_credit_grant",
    "update_invoice_item",
    "update_product",
    "update_subscription",
    "update_subscription_schedule",
    "void_credit_grant",
    "void_credit_note",
    "void_invoice",
    "write_adjustments",
];

/// Tables that an application keeps by plain INSERT and UPDATE.
pub(super) const WRITTEN_BY_ADMIN: &[&str] = &["alerts", "currencies", "customers", "meters", "prices", "products"];

/// Tables that only functions write.
pub(super) const ONLY_READ: &[&str] = &[
    "alert_events",
    "alert_states",
    "billing_runs",
    "coupons",
    "credit_balance_transactions",
    "credit_grants",
    "credit_note_lines",
    "credit_notes",
    "customer_balance_transactions",
    "discounts",
    "invoice_items",
    "invoice_lines",
    "invoice_numbers",
    "invoices",
    "late_usage_marks",
    "meter_event_filters",
    "meter_event_partitions",
    "meter_event_rejections",
    "meter_events",
    "roll_up_minutes",
    "subscription_item_past_prices",
    "subscription_items",
    "subscription_schedules",
    "subscriptions",
    "tax_rates",
    "usage_buckets",
    "usage_distinct_values",
    "usage_folds",
    "usage_pending",
    "worker_jobs",
];

/// Views that cannot be written.
pub(super) const VIEWS: &[&str] = &["billing_progress", "ingestion_status", "partition_status"];

#[test]
fn every_function_is_allowed_to_whom_it_should_be() {
    let (database, mut client) = database();
    let stranger = login(&database, "stranger", "");
    let functions = client
        .query(
            "SELECT p.proname::text, p.oid::regprocedure::text, has_function_privilege($1, p.oid, 'EXECUTE'),
                    has_function_privilege('billing_recorder', p.oid, 'EXECUTE'),
                    has_function_privilege('billing_reader', p.oid, 'EXECUTE'),
                    has_function_privilege('billing_admin', p.oid, 'EXECUTE')
             FROM pg_proc p WHERE p.pronamespace = 'billing'::regnamespace",
            &[&stranger],
        )
        .unwrap();
    let mut wrong = Vec::new();
    for row in &functions {
        let (name, signature): (&str, &str) = (row.get(0), row.get(1));
        //                     anyone, recorder, reader, admin
        let groups = [
            (FOR_ALL, [true, true, true, true]),
            (FOR_RECORDING, [false, true, false, true]),
            (FOR_READING, [false, false, true, true]),
            (FOR_ADMINISTERING, [false, false, false, true]),
        ];
        let expected: Vec<_> = groups
            .iter()
            .filter(|(names, _)| names.contains(&name))
            .map(|(_, may)| *may)
            .collect();
        let may: [bool; 4] = [row.get(2), row.get(3), row.get(4), row.get(5)];
        match expected.as_slice() {
            [expected] if *expected == may => {}
            [expected] => wrong.push(format!("{signature}: {may:?} instead of {expected:?}")),
            [] => wrong.push(format!("{signature}: a new function; say here who may call it")),
            _ => wrong.push(format!("{signature}: said twice")),
        }
    }
    for name in [FOR_ALL, FOR_RECORDING, FOR_READING, FOR_ADMINISTERING].concat() {
        if !functions.iter().any(|row| row.get::<_, &str>(0) == name) {
            wrong.push(format!("{name}: there is no such function any more"));
        }
    }
    assert!(
        wrong.is_empty(),
        "(anyone, recorder, reader, admin)\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_table_is_open_to_whom_it_should_be() {
    let (database, mut client) = database();
    let stranger = login(&database, "stranger", "");
    let mut wrong = Vec::new();
    let tables = strings(
        &mut client,
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'billing'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
         AND NOT relispartition ORDER BY 1",
    );
    for table in &tables {
        let written = WRITTEN_BY_ADMIN.contains(&table.as_str());
        let only_read = [ONLY_READ, VIEWS].concat().contains(&table.as_str());
        if written == only_read {
            wrong.push(format!("{table}: say here who may read and write it"));
        }
        for role in [stranger.as_str(), "billing_recorder", "billing_reader", "billing_admin"] {
            for privilege in [
                "SELECT",
                "INSERT",
                "UPDATE",
                "DELETE",
                "TRUNCATE",
                "REFERENCES",
                "TRIGGER",
            ] {
                let expected = match (role, privilege) {
                    ("billing_reader" | "billing_admin", "SELECT") => true,
                    ("billing_admin", "INSERT" | "UPDATE") => written,
                    // What is dealt with.
                    ("billing_admin", "DELETE") => table == "meter_event_rejections",
                    _ => false,
                };
                let has: bool = client
                    .query_one(
                        "SELECT has_table_privilege($1, format('billing.%I', $2::text), $3)
                             OR $3 IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
                                AND has_any_column_privilege($1, format('billing.%I', $2::text), $3)",
                        &[&role, table, &privilege],
                    )
                    .unwrap()
                    .get(0);
                if has != expected {
                    wrong.push(format!(
                        "{table}: {role} {} {privilege}",
                        if has { "has" } else { "lacks" }
                    ));
                }
            }
        }
    }
    for table in [WRITTEN_BY_ADMIN, ONLY_READ, VIEWS].concat() {
        if !tables.iter().any(|name| name == table) {
            wrong.push(format!("{table}: there is no such table any more"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_else_is_open_to_anyone() {
    let (database, mut client) = database();
    client.batch_execute(CATALOG).unwrap();
    let stranger = login(&database, "stranger", "");
    for role in [stranger.as_str(), "billing_recorder", "billing_reader", "billing_admin"] {
        let open = strings(
            &mut client,
            &format!(
                "SELECT 'CREATE in the schema' WHERE has_schema_privilege('{role}', 'billing', 'CREATE')
                 UNION ALL SELECT 'no USAGE of the schema' WHERE NOT has_schema_privilege('{role}', 'billing', 'USAGE')
                 UNION ALL SELECT relname FROM pg_class WHERE relnamespace = 'billing'::regnamespace 
                     AND CASE WHEN relkind = 'S' THEN has_sequence_privilege('{role}', oid, 'USAGE, SELECT, UPDATE') END
                 -- Partitions are reached through their tables.
                 UNION ALL SELECT relname FROM pg_class WHERE relnamespace = 'billing'::regnamespace AND relispartition
                     AND relkind = 'r' AND has_table_privilege('{role}', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')"
            ),
        );
        assert!(open.is_empty(), "{role}: {open:?}");
    }
    let owned = strings(
        &mut client,
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'billing'::regnamespace AND relowner::regrole::text LIKE 'billing%'
         UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'billing'::regnamespace AND proowner::regrole::text LIKE 'billing%'",
    );
    assert!(owned.is_empty(), "{owned:?}");
    let roles = strings(
        &mut client,
        "SELECT rolname::text FROM pg_roles WHERE rolname IN ('billing_recorder', 'billing_reader', 'billing_admin')
         AND NOT (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls) ORDER BY 1",
    );
    assert_eq!(roles, ["billing_admin", "billing_reader", "billing_recorder"]);
    // Nobody stands above the extension's own roles.
    let members = strings(
        &mut client,
        "SELECT roleid::regrole || ' to ' || member::regrole FROM pg_auth_members
         WHERE roleid::regrole::text ~ '^billing_[a-z]+$' AND member::regrole::text ~ '^billing_[a-z]+$' ORDER BY 1",
    );
    assert_eq!(
        members,
        ["billing_reader to billing_admin", "billing_recorder to billing_admin"]
    );
}
