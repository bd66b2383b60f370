-- Who may do what. PUBLIC keeps what is harmless: the types, their casts and operators, and the pure functions.
REVOKE ALL ON ALL TABLES IN SCHEMA billing FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA billing FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA billing FROM PUBLIC;
GRANT USAGE ON SCHEMA billing TO PUBLIC;

DO $$
DECLARE
    routine regprocedure;
BEGIN
    -- Whatever takes or gives only value types, and the pure functions by name.
    FOR routine IN
        SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'billing'::regnamespace
          AND (p.proname ~ '^(meter|price|subscription)_(in|out|recv|send|from_jsonb|to_jsonb|eq|ne|hash|hash_extended)$'
               OR p.proname IN ('generate_id', 'price_amount', 'price_line_amount', 'price_fitting_amount', 'price_in_currency',
                                'currency_exponent',
                                'prorated_amount', 'period_containing', 'setting_seconds', 'setting_interval', 'late_usage', 'invoice_numbering',
                                'require_supported'))
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', routine);
    END LOOP;
    -- Functions that only read.
    FOR routine IN
        SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'billing'::regnamespace AND p.provolatile <> 'v' AND NOT p.prosecdef
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO billing_reader', routine);
    END LOOP;
END $$;

GRANT EXECUTE ON FUNCTION
    billing.record_meter_event(text, text, numeric, text, timestamptz, jsonb),
    billing.record_meter_events(jsonb),
    billing.record_meter_events(text[], text[], numeric[], text[], timestamptz[], jsonb[]),
    billing.cancel_meter_event(text, text, text)
    TO billing_recorder;

GRANT SELECT ON ALL TABLES IN SCHEMA billing TO billing_reader;
DO $$
DECLARE
    part regclass;
BEGIN
    -- Partitions are read through their table.
    FOR part IN SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relnamespace = 'billing'::regnamespace AND c.relispartition LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM billing_reader', part);
    END LOOP;
END $$;

GRANT EXECUTE ON ALL ROUTINES IN SCHEMA billing TO billing_admin;
GRANT INSERT, UPDATE ON billing.customers, billing.products, billing.meters, billing.prices, billing.alerts,
    billing.currencies TO billing_admin;
GRANT DELETE ON billing.meter_event_rejections TO billing_admin;
GRANT SET ON PARAMETER
    billing.max_event_age, billing.max_event_lead, billing.identifier_window, billing.partition_width,
    billing.finalization_delay, billing.late_usage, billing.invoice_numbering, billing.filter_memory
    TO billing_admin;
