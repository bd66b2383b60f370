-- Invoicing of everything that is due: periods end, invoices are drafted and, when their grace is over, finalized. In one
-- transaction (generate_invoices) or in batches that commit (run_billing).

CREATE FUNCTION billing.drafts_due(as_of timestamptz) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    subscriptions text[];
    ripe timestamptz := drafts_due.as_of - billing.setting_interval('finalization_delay');
BEGIN
    -- Subscriptions are locked before their invoices, here as everywhere.
    SELECT array_agg(d.id) INTO subscriptions
    FROM (SELECT s.id FROM billing.subscriptions s
          WHERE s.id IN (SELECT i.subscription FROM billing.invoices i
                         WHERE i.status = 'draft' AND i.auto_advance AND i.created <= ripe)
          ORDER BY s.id FOR NO KEY UPDATE) d;
    RETURN ARRAY(SELECT i.id FROM billing.invoices i
                 WHERE i.status = 'draft' AND i.auto_advance AND i.created <= ripe
                   AND (i.subscription = ANY (subscriptions) OR i.subscription IS NULL AND i.line_count > 0)
                 ORDER BY i.id FOR NO KEY UPDATE);
END $$;
COMMENT ON FUNCTION billing.drafts_due(timestamptz) IS
'Locks the drafts that are billing.finalization_delay old by as_of and returns them. One that waits for a person
(auto_advance false) is left out, and so is a one-off draft without lines. Internal.';

CREATE FUNCTION billing.generate_invoices(as_of timestamptz DEFAULT now()) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    made text[];
    crossed text[];
    due text[];
BEGIN
    PERFORM billing.require_time('as_of', as_of);
    PERFORM billing.roll_up(), billing.lock_usage();
    PERFORM billing.lock_due_changes(generate_invoices.as_of, true);
    made := billing.apply_due_changes(generate_invoices.as_of);
    made := made || billing.make_drafts(generate_invoices.as_of);
    -- Of the periods that run now, those that have just begun too.
    crossed := billing.draft_thresholds(generate_invoices.as_of);
    due := billing.drafts_due(generate_invoices.as_of);
    -- With all usage that has come in while they waited; what was made just now is rated already.
    PERFORM billing.rate_drafts(ARRAY(SELECT unnest(due) EXCEPT SELECT unnest(made || crossed)));
    -- All at once, so that numbers, balances and credit go by the time of each.
    PERFORM billing.finalize_drafts(ARRAY(SELECT unnest(due) UNION SELECT unnest(crossed)));
    crossed := billing.close_thresholds(crossed, generate_invoices.as_of);
    IF billing.setting_interval('finalization_delay') = interval '0' THEN
        PERFORM billing.finalize_drafts(crossed);
    END IF;
    made := made || crossed;
    PERFORM billing.expire_credits(generate_invoices.as_of);
    RETURN cardinality(made);
END $$;
COMMENT ON FUNCTION billing.generate_invoices(timestamptz) IS
'Makes the invoices of every period that has ended by as_of, of all subscriptions, and finalizes the drafts that are
billing.finalization_delay old by then, with the usage known now. Returns how many it made. Running it again, late, or
in two sessions at once gives the same invoices as running it once, on time. A draft that cannot be finalized keeps
its finalization_error and stops no other. All in one transaction; billing.run_billing commits in batches. Errors: 22004
NULL; 22023 as_of infinite; 40001 beside another session under REPEATABLE READ: try again.';
