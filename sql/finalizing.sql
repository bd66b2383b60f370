-- Finalization: from rated drafts to numbered invoices, many in one go.

CREATE FUNCTION billing.finalize_drafts(invoices text[], as_of timestamptz DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    delay interval := billing.setting_interval('finalization_delay');
    first_number bigint;
BEGIN
    IF cardinality(finalize_drafts.invoices) = 0 THEN
        RETURN;
    END IF;
    INSERT INTO billing.invoice_numbers (prefix, last_number) VALUES ('INV', 0) ON CONFLICT (prefix) DO NOTHING;
    UPDATE billing.invoice_numbers n SET last_number = n.last_number + cardinality(finalize_drafts.invoices)
    WHERE n.prefix = 'INV'
    RETURNING n.last_number - cardinality(finalize_drafts.invoices) INTO first_number;

    -- By time and then subscription, not by id: a run that comes late gives the numbers of runs on time.
    WITH ordered AS (
        SELECT i.id, i.customer, i.currency, i.total, t.finalized_at,
               row_number() OVER (ORDER BY t.finalized_at, i.subscription, i.id) AS place
        FROM billing.invoices i
        CROSS JOIN LATERAL (SELECT coalesce(finalize_drafts.as_of, i.created + delay)) t (finalized_at)
        WHERE i.id = ANY (finalize_drafts.invoices)
    ), opening AS (
        SELECT c.customer, c.currency, billing.customer_balance(c.customer, c.currency) AS balance
        FROM (SELECT DISTINCT o.customer, o.currency FROM ordered o) c
    ), running AS (
        SELECT o.*, b.balance AS opening,
               b.balance + sum(o.total) OVER (PARTITION BY o.customer, o.currency ORDER BY o.place) AS owed
        FROM ordered o JOIN opening b ON (b.customer, b.currency) = (o.customer, o.currency)
    ), closing AS (
        -- Whatever is owed above zero is paid by invoices, so the balance is what lies below the highest point so far.
        SELECT r.*, r.owed - greatest(0, max(r.owed) OVER w) AS ending
        FROM running r WINDOW w AS (PARTITION BY r.customer, r.currency ORDER BY r.place)
    ), settled AS (
        SELECT c.*, lag(c.ending, 1, c.opening::numeric) OVER w AS starting
        FROM closing c WINDOW w AS (PARTITION BY c.customer, c.currency ORDER BY c.place)
    )
    UPDATE billing.invoices i
    SET number = 'INV-' || CASE WHEN first_number + s.place < 1000000 THEN to_char(first_number + s.place, 'FM000000')
                                ELSE (first_number + s.place)::text END,
        finalized_at = s.finalized_at,
        starting_balance = s.starting,
        ending_balance = s.ending,
        amount_due = s.total + s.starting - s.ending,
        status = CASE WHEN s.total + s.starting = s.ending THEN 'paid' ELSE 'open' END,
        paid_at = CASE WHEN s.total + s.starting = s.ending THEN s.finalized_at END,
        due_date = (SELECT s.finalized_at + make_interval(days => b.days_until_due)
                    FROM billing.subscriptions b WHERE b.id = i.subscription)
    FROM settled s
    WHERE s.id = i.id;

    INSERT INTO billing.customer_balance_transactions (customer, currency, amount, type, invoice, created)
    SELECT i.customer, i.currency, i.ending_balance - i.starting_balance, 'applied_to_invoice', i.id, i.finalized_at
    FROM billing.invoices i
    WHERE i.id = ANY (finalize_drafts.invoices) AND i.ending_balance <> i.starting_balance
    ORDER BY i.number;
    PERFORM billing.forget_late_usage(finalize_drafts.invoices);
END $$;
COMMENT ON FUNCTION billing.finalize_drafts(text[], timestamptz) IS
'Finalizes rated drafts: gives numbers, applies customer balances, makes them open, or paid when nothing is due.
finalized_at is as_of, or created + billing.finalization_delay when as_of is NULL. The caller holds their locks.
Internal.';
