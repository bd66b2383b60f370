-- Invoicing of everything that is due: periods end, invoices are drafted and, when their grace is over, finalized.
-- Custom plans, as one call handles one invoice and the next a hundred thousand.
-- Locks are taken in one order everywhere: subscriptions by id, invoices by id, the row of invoice numbers. Drafts are
-- rated under the lock of their subscription: two of them rated at once would both bill its late usage.

CREATE FUNCTION billing.make_drafts(as_of timestamptz, subscription text DEFAULT NULL) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    due text[];
    batch text[];
    made text[] := '{}';
BEGIN
    LOOP  -- one round ends one period of every subscription that is due
        -- A session that waited here for another one sees where that moved the subscription, and leaves it out.
        SELECT array_agg(d.id) INTO due
        FROM (SELECT s.id FROM billing.subscriptions s
              WHERE s.next_invoice_at <= make_drafts.as_of
                AND (make_drafts.subscription IS NULL OR s.id = make_drafts.subscription)
              ORDER BY s.id FOR NO KEY UPDATE) d;
        EXIT WHEN due IS NULL;

        WITH lines AS MATERIALIZED (
            SELECT s.id AS of_subscription, l.*
            FROM billing.subscriptions s
            CROSS JOIN LATERAL billing.cycle_lines(s) WITH ORDINALITY AS l (subscription_item, price, description,
                quantity, amount, period_start, period_end, proration, kind, place)
            WHERE s.id = ANY (due)
        ), drafts AS (
            INSERT INTO billing.invoices
                (customer, subscription, currency, period_start, period_end, created, billing_reason, collection_method)
            SELECT s.customer, s.id, s.currency, s.current_period_start, s.current_period_end, s.current_period_end,
                   'subscription_cycle', s.collection_method
            FROM billing.subscriptions s
            WHERE s.id = ANY (due) AND s.id IN (SELECT of_subscription FROM lines)
            ORDER BY s.id
            RETURNING id, subscription
        ), filled AS (
            INSERT INTO billing.invoice_lines
                (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end,
                 proration)
            SELECT d.id, l.subscription_item, l.price, l.kind, l.description, l.quantity, l.amount,
                   l.period_start, l.period_end, l.proration
            FROM lines l JOIN drafts d ON d.subscription = l.of_subscription
            ORDER BY d.id, l.place
        )
        SELECT array_agg(d.id) INTO batch FROM drafts d;
        made := made || batch;

        UPDATE billing.subscriptions s
        SET status = CASE WHEN n.ends THEN 'canceled' ELSE 'active' END,
            canceled_at = CASE WHEN n.ends THEN coalesce(s.canceled_at, s.current_period_end) ELSE s.canceled_at END,
            ended_at = CASE WHEN n.ends THEN coalesce(s.ended_at, s.current_period_end) END,
            current_period_start = CASE WHEN n.ends THEN s.current_period_start ELSE n.period_start END,
            current_period_end = CASE WHEN n.ends THEN s.current_period_end ELSE n.period_end END,
            next_invoice_at = CASE WHEN NOT n.ends THEN n.period_end END
        FROM (SELECT s.id, billing.subscription_ends(s) AS ends, n.period_start, n.period_end
              FROM billing.subscriptions s
              CROSS JOIN LATERAL billing.subscription_period(s, s.current_period_end) n
              WHERE s.id = ANY (due)) n
        WHERE n.id = s.id;

        UPDATE billing.subscription_items i SET charged_quantity = i.quantity
        WHERE i.subscription = ANY (due) AND i.charged_quantity <> i.quantity;
    END LOOP;
    RETURN made;
END $$;
COMMENT ON FUNCTION billing.make_drafts(timestamptz, text) IS
'Moves subscriptions (one, or NULL for all) over every period boundary up to as_of and drafts an invoice for each
ended period that has any lines. Returns the drafts, whose usage is not rated yet. Internal.';

CREATE FUNCTION billing.generate_invoices(as_of timestamptz DEFAULT now()) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    made text[];
    due text[];
BEGIN
    PERFORM billing.require_time('as_of', as_of);
    PERFORM billing.roll_up();
    made := billing.make_drafts(as_of);
    SELECT coalesce(array_agg(d.id), '{}') INTO due
    FROM (SELECT i.id FROM billing.subscriptions s JOIN billing.invoices i ON i.subscription = s.id
          WHERE i.status = 'draft' AND i.created <= as_of - billing.setting_interval('finalization_delay')
          ORDER BY s.id, i.id FOR NO KEY UPDATE OF s, i) d;
    -- Rated last and once, with all usage that has come in while the drafts waited.
    PERFORM billing.rate_drafts(ARRAY(SELECT unnest(made) UNION SELECT unnest(due)));
    PERFORM billing.finalize_drafts(ARRAY(
        SELECT i.id FROM billing.invoices i WHERE i.id = ANY (due) AND i.finalization_error IS NULL));
    RETURN cardinality(made);
END $$;
COMMENT ON FUNCTION billing.generate_invoices(timestamptz) IS
'Makes the invoices of every period that has ended by as_of, of all subscriptions, and finalizes the drafts that are
billing.finalization_delay old by then, with the usage known now. Returns how many it made. Running it again, late, or
in two sessions at once gives the same invoices as running it once, on time. A draft that cannot be finalized keeps
its finalization_error and stops no other. Errors: 22004 NULL; 22023 as_of infinite; 40001 beside another session
under REPEATABLE READ: try again.';
