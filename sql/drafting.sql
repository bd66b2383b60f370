-- Drafts: periods end, and what they cost is put on invoices that may still change.
-- Locks are taken in one order everywhere: roll_up()'s, subscriptions by id, invoices by id, the row of invoice numbers. Drafts
-- are rated under the lock of their subscription: two of them rated at once would both bill its late usage.
-- Custom plans, as one call handles one invoice and the next ten thousand.

CREATE FUNCTION billing.make_drafts(as_of timestamptz, subscription text DEFAULT NULL) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    due text[];
    later text[];
    missed text[];
    made text[] := '{}';
BEGIN
    LOOP  -- one round ends one period of each subscription that is due
        -- A session that waited here for another one sees where that moved the subscription, and leaves it out.
        due := ARRAY(
            SELECT s.id FROM billing.subscriptions s
            WHERE s.next_invoice_at <= make_drafts.as_of
              AND (make_drafts.subscription IS NULL OR s.id = make_drafts.subscription)
            ORDER BY s.id FOR NO KEY UPDATE);
        IF make_drafts.subscription IS NULL THEN
            -- Scheduled by who held a subscription that was waited for here: the next run begins the phase, and ends the period.
            missed := billing.missed_phases(as_of);
            IF missed <> '{}' THEN
                due := ARRAY(SELECT unnest(due) EXCEPT SELECT unnest(missed) ORDER BY 1);
            END IF;
        END IF;
        EXIT WHEN due = '{}';
        IF make_drafts.subscription IS NULL
           AND EXISTS (SELECT FROM billing.invoice_items x WHERE x.subscription IS NULL AND x.invoice IS NULL)
        THEN
            -- What waits for any subscription of a customer goes to the one that is due first, so those take turns: once
            -- all are locked, or one whose turn comes would be locked after others of greater ids.
            later := ARRAY(
                SELECT s.id FROM billing.subscriptions s
                WHERE s.id = ANY (due) AND EXISTS (SELECT FROM billing.due_before(s)));
            IF later <> '{}' THEN
                due := ARRAY(SELECT unnest(due) EXCEPT SELECT unnest(later) ORDER BY 1);
            END IF;
        END IF;
        FOR nth IN 1 .. cardinality(due) BY 10000 LOOP
            made := made || billing.end_periods(due[nth : nth + 9999]);
        END LOOP;
        PERFORM billing.analyze_invoices(cardinality(made));
    END LOOP;
    RETURN made;
END $$;
COMMENT ON FUNCTION billing.make_drafts(timestamptz, text) IS
'Moves subscriptions (one, or NULL for all) over every period boundary up to as_of and drafts an invoice for each ended
period that has any lines, rated with what is known now. Returns the drafts. The caller has called billing.lock_usage()
or billing.roll_up(). Internal.';

CREATE FUNCTION billing.usage_unbilled(item text, price text, period_start timestamptz, invoice text, amount numeric)
RETURNS numeric
LANGUAGE sql STABLE AS $$
    -- Lines of a void invoice count as billed, as in billing.late_usage_lines; but what was waived, or credited by a credit note,
    -- is not given back.
    SELECT CASE WHEN $5 IS NOT NULL THEN greatest($5 - b.billed, -b.asked) END
    FROM (SELECT coalesce(sum(l.amount), 0) AS billed,
                 greatest(coalesce(sum(l.amount - c.amount) FILTER (WHERE i.status <> 'void'), 0), 0) AS asked
          FROM billing.invoice_lines l
          JOIN billing.invoices i ON i.id = l.invoice
          CROSS JOIN LATERAL billing.credited_line(l.id) c
          WHERE l.subscription_item = $1 AND l.period_start = $3 AND l.price = $2 AND l.kind IN ('usage', 'late_usage')
            AND l.invoice IS DISTINCT FROM $4 AND i.regenerated_as IS NULL) b
$$;
COMMENT ON FUNCTION billing.usage_unbilled(text, text, timestamptz, text, numeric) IS
'What is left to bill of an amount for the usage of an item at a price, of the period that starts then, beside what invoices
other than this one have billed of it: threshold invoices, and late usage where an invoice is made anew. Below zero where
they billed more; but no more goes back than stands charged. Internal.';

CREATE FUNCTION billing.next_lines(subscriptions text[], as_of timestamptz DEFAULT NULL)
RETURNS TABLE (of_subscription text, section integer, created timestamptz, sorted_by text, subscription_item text,
               price text, kind text, description text, quantity numeric, amount bigint, period_start timestamptz,
               period_end timestamptz, proration boolean, invoice_item text, discountable boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    -- Subscriptions are joined as a table each time: taken from a CTE as records, every column of them is dug out anew.
    WITH usage AS MATERIALIZED (
        SELECT row_number() OVER () AS place, s.id AS of_subscription, s.customer, s.currency, u.*
        FROM billing.subscriptions s
        CROSS JOIN LATERAL billing.usage_lines(s, s.current_period_end, true) u
        WHERE s.id = ANY (next_lines.subscriptions)
    ), quantities AS MATERIALIZED (
        SELECT q.place, q.quantity
        FROM (
            SELECT array_agg(u.price ORDER BY u.place) AS prices, array_agg(u.customer ORDER BY u.place) AS customers,
                   array_agg(u.period_start ORDER BY u.place) AS starts,
                   -- Up to and with as_of, so that what the caller has just recorded, in the same transaction too, is in
                   -- it. What starts later has no usage yet.
                   array_agg(CASE WHEN next_lines.as_of IS NULL THEN u.period_end
                                  ELSE greatest(least(u.period_end, next_lines.as_of + interval '1 microsecond'),
                                                u.period_start + interval '1 microsecond') END ORDER BY u.place) AS ends
            FROM usage u) a
        CROSS JOIN LATERAL billing.usage_quantities(a.prices, a.customers, a.starts, a.ends) q
    ), labels AS MATERIALIZED (
        SELECT p.id, p AS price, billing.price_label(p) AS label
        FROM billing.prices p WHERE p.id IN (SELECT u.price FROM usage u)
    ), thresholds AS MATERIALIZED (
        SELECT DISTINCT i.subscription FROM billing.invoices i
        WHERE i.billing_reason = 'subscription_threshold' AND i.subscription = ANY (next_lines.subscriptions)
    )
    SELECT u.of_subscription, 1, u.item_created, u.subscription_item, u.subscription_item, u.price, 'usage', l.label, q.quantity,
           CASE WHEN t.subscription IS NULL THEN a.amount
                ELSE billing.usage_unbilled(u.subscription_item, u.price, u.period_start, NULL, a.amount)::bigint END,
           u.period_start, u.period_end, false, NULL, true
    FROM usage u
    JOIN quantities q USING (place)
    JOIN labels l ON l.id = u.price
    LEFT JOIN thresholds t ON t.subscription = u.of_subscription
    CROSS JOIN LATERAL (SELECT billing.usage_amount(l.price, u.currency, q.quantity) OFFSET 0) a (amount)
    UNION ALL
    SELECT s.id, 2, x.created, x.id, x.subscription_item, x.price, x.kind, x.description, x.quantity, x.amount,
           x.period_start, x.period_end, x.kind IN ('licensed', 'unused_time'), x.id, x.discountable
    FROM billing.subscriptions s CROSS JOIN LATERAL billing.pending_items(s, s.current_period_end) x
    WHERE s.id = ANY (next_lines.subscriptions)
    UNION ALL
    SELECT s.id, 3, l.item_created, l.subscription_item, l.subscription_item, l.price, 'licensed', l.description, l.quantity,
           l.amount, l.period_start, l.period_end, l.proration, NULL, true
    FROM billing.subscriptions s
    CROSS JOIN LATERAL billing.licensed_lines(s, s.current_period_end) l
    WHERE s.id = ANY (next_lines.subscriptions)
      AND NOT (billing.subscription_ends(s) OR billing.subscription_pauses(s))
    UNION ALL
    -- Only the earliest of a subscription's drafts takes late usage, or each of them would bill it; not one that may wait
    -- for a person for ever.
    SELECT l.subscription, 4, NULL, l.subscription_item, l.subscription_item, l.price, 'late_usage', l.description,
           l.quantity, l.amount, l.period_start, l.period_end, false, NULL, true
    FROM billing.late_usage_lines(ARRAY(
        SELECT s.id FROM billing.subscriptions s
        WHERE s.id = ANY (next_lines.subscriptions) AND billing.advances(s, s.current_period_end)
          AND NOT EXISTS (SELECT FROM billing.invoices i
                          WHERE i.subscription = s.id AND i.status = 'draft' AND i.auto_advance
                            AND i.billing_reason = 'subscription_cycle'))) l;
END $$;
COMMENT ON FUNCTION billing.next_lines(text[], timestamptz) IS
'The lines of the invoices that end the current periods of subscriptions: their usage (up to and with as_of, when not
NULL), what waits for the invoice, the licensed items of the periods that begin unless the subscription ends, and late
usage of earlier periods. In the order of section, created, sorted_by, period_start. amount is NULL where it is beyond
bigint. Internal.';

CREATE FUNCTION billing.end_periods(subscriptions text[]) RETURNS text[]
-- Foreign keys are checked by kept plans: to plan each check anew would take longer than all the rest.
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto SET jit = off AS $$
#variable_conflict use_column
DECLARE
    made text[];
    items text[];
    items_for text[];
BEGIN
    WITH lines AS MATERIALIZED (
        SELECT l.* FROM billing.next_lines(end_periods.subscriptions) l
        WHERE l.amount IS NOT NULL OR l.kind <> 'late_usage'
    ), totals AS (
        SELECT l.of_subscription, count(*) AS line_count, sum(l.amount) AS amount, bool_or(l.amount IS NULL) AS unrated
        FROM lines l GROUP BY l.of_subscription
    ), headers AS MATERIALIZED (
        SELECT billing.generate_id('in') COLLATE "C" AS id, s.subscription, t.line_count, t.unrated, t.amount,
               abs(t.amount) <= 9223372036854775807 AND NOT t.unrated AS fits
        FROM (SELECT s.id AS subscription FROM billing.subscriptions s WHERE s.id = ANY (end_periods.subscriptions)
              ORDER BY s.id) s
        JOIN totals t ON t.of_subscription = s.subscription
    ), drafts AS (
        INSERT INTO billing.invoices
            (id, customer, subscription, currency, period_start, period_end, created, billing_reason, collection_method,
             auto_advance, line_count, subtotal, total, amount_due, finalization_error)
        SELECT h.id, s.customer, s.id, s.currency, s.current_period_start, s.current_period_end, s.current_period_end,
               'subscription_cycle', s.collection_method,
               billing.advances(s, s.current_period_end),
               h.line_count, CASE WHEN h.fits THEN h.amount ELSE 0 END, CASE WHEN h.fits THEN h.amount ELSE 0 END,
               CASE WHEN h.fits THEN greatest(h.amount, 0) ELSE 0 END,
               CASE WHEN h.unrated THEN 'the amount of a line is beyond the range of bigint'
                    WHEN NOT h.fits THEN 'the total is beyond the range of bigint' END
        FROM headers h JOIN billing.subscriptions s ON s.id = h.subscription
    ), filled AS (
        INSERT INTO billing.invoice_lines
            (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end, proration,
             invoice_item, discountable)
        SELECT h.id, l.subscription_item, l.price, l.kind, l.description, l.quantity, coalesce(l.amount, 0),
               l.period_start, l.period_end, l.proration, l.invoice_item, l.discountable
        FROM lines l JOIN headers h ON h.subscription = l.of_subscription
        ORDER BY h.id, l.section, l.created, l.sorted_by, l.period_start, l.price
    )
    SELECT (SELECT array_agg(h.id ORDER BY h.id) FROM headers h), array_agg(l.invoice_item), array_agg(h.id)
    INTO made, items, items_for
    FROM lines l JOIN headers h ON h.subscription = l.of_subscription
    WHERE l.invoice_item IS NOT NULL;
    IF items IS NOT NULL THEN
        -- Somebody may have changed, taken or deleted one meanwhile: then its line follows, and a draft of no other line goes.
        PERFORM billing.take_items(items, items_for);
        made := ARRAY(SELECT i.id FROM billing.invoices i WHERE i.id = ANY (made) ORDER BY i.id);
        PERFORM billing.total_drafts(
            ARRAY(SELECT i.id FROM billing.invoices i WHERE i.id = ANY (items_for) AND i.finalization_error IS NULL));
    END IF;

    UPDATE billing.subscriptions s
    SET status = CASE WHEN n.ends THEN 'canceled' WHEN n.pauses THEN 'paused'
                      WHEN s.status = 'trialing' AND s.trial_end <= s.current_period_end THEN 'active' ELSE s.status END,
        canceled_at = CASE WHEN n.ends THEN coalesce(s.canceled_at, s.current_period_end) ELSE s.canceled_at END,
        ended_at = CASE WHEN n.ends THEN coalesce(s.ended_at, s.current_period_end) END,
        current_period_start = CASE WHEN n.ends THEN s.current_period_start ELSE n.period_start END,
        current_period_end = CASE WHEN n.ends THEN s.current_period_end ELSE n.period_end END,
        next_invoice_at = CASE WHEN NOT n.ends AND NOT n.pauses THEN n.period_end END
    FROM (SELECT s.id, billing.subscription_ends(s) AS ends, n.period_start, n.period_end,
                 billing.subscription_pauses(s) AS pauses
          FROM billing.subscriptions s
          CROSS JOIN LATERAL billing.subscription_period(s, s.current_period_end) n
          WHERE s.id = ANY (end_periods.subscriptions)) n
    WHERE n.id = s.id;
    IF made IS NOT NULL THEN
        PERFORM billing.analyze_invoices(cardinality(made)), billing.adjust_drafts(made);
    END IF;
    RETURN coalesce(made, '{}');
END $$;
COMMENT ON FUNCTION billing.end_periods(text[]) IS
'Ends the current period of each of the subscriptions: drafts an invoice of billing.next_lines where there are any, and
moves the subscription on. Returns the drafts. A draft whose amounts bigint cannot hold gets a finalization_error. The
caller holds the locks. Internal.';

CREATE FUNCTION billing.analyze_invoices(made integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = error AS $$
BEGIN
    IF made > 1000
       AND made > 2 * (SELECT min(c.reltuples) FROM pg_class c
                       WHERE c.oid IN ('billing.invoices'::regclass, 'billing.invoice_lines'::regclass))
    THEN
        ANALYZE (SKIP_LOCKED) billing.invoices, billing.invoice_lines;
    END IF;
END $$;
COMMENT ON FUNCTION billing.analyze_invoices(integer) IS
'After a transaction has made so many invoices: analyzes the tables where statistics know of less than half of them. Autovacuum
that analyzes them meanwhile sees pages without rows, and whoever plans by that joins by nested loops. From here on it leaves
them alone until the transaction ends. Waits for nobody, and does nothing where it would have to. Internal.';

CREATE FUNCTION billing.rate_drafts(invoices text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    lines text[];
    prices text[];
    customers text[];
    starts timestamptz[];
    ends timestamptz[];
    currencies text[];
    in_parts boolean[];
    unrated text[];
BEGIN
    -- First: an invoice that is made anew beside them would take for billed what is found anew below, or is not.
    DELETE FROM billing.invoice_lines l WHERE l.invoice = ANY (rate_drafts.invoices) AND l.kind = 'late_usage';
    -- As arrays, whose length planning knows: taken for a few, they would be joined by nested loops.
    SELECT array_agg(l.id ORDER BY l.id), array_agg(l.price ORDER BY l.id), array_agg(i.customer ORDER BY l.id),
           array_agg(l.period_start ORDER BY l.id), array_agg(l.period_end ORDER BY l.id),
           array_agg(i.currency ORDER BY l.id),
           array_agg(i.from_invoice IS NOT NULL
                     OR EXISTS (SELECT FROM billing.invoices t
                                WHERE t.subscription = i.subscription AND t.billing_reason = 'subscription_threshold')
                     ORDER BY l.id)
    INTO lines, prices, customers, starts, ends, currencies, in_parts
    FROM billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice
    WHERE l.invoice = ANY (rate_drafts.invoices) AND l.kind = 'usage';
    WITH rated AS MATERIALIZED (
        SELECT l.id, l.invoice, l.quantity AS old_quantity, l.amount AS old_amount, q.quantity,
               CASE WHEN u.billed_in_parts
                    THEN billing.usage_unbilled(l.subscription_item, l.price, l.period_start, l.invoice, a.amount)
                    ELSE a.amount END AS amount
        FROM unnest(lines, prices, currencies, in_parts) WITH ORDINALITY u (line, price, currency, billed_in_parts, place)
        JOIN billing.usage_quantities(prices, customers, starts, ends) q USING (place)
        JOIN billing.invoice_lines l ON l.id = u.line
        JOIN billing.prices p ON p.id = u.price
        CROSS JOIN LATERAL (SELECT billing.usage_amount(p, u.currency, q.quantity) OFFSET 0) a (amount)
    ), changed AS (
        UPDATE billing.invoice_lines l SET quantity = r.quantity, amount = coalesce(r.amount, 0)
        FROM rated r
        WHERE r.id = l.id AND (r.quantity <> r.old_quantity OR coalesce(r.amount, 0) <> r.old_amount)
    )
    SELECT array_agg(DISTINCT r.invoice) INTO unrated FROM rated r WHERE r.amount IS NULL;

    -- Only the earliest of a subscription's drafts takes late usage, as in billing.next_lines.
    INSERT INTO billing.invoice_lines
        (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end)
    SELECT d.id, u.subscription_item, u.price, 'late_usage', u.description, u.quantity, u.amount, u.period_start, u.period_end
    FROM (SELECT array_agg(s.subscription) AS subscriptions
          FROM (SELECT DISTINCT i.subscription FROM billing.invoices i WHERE i.id = ANY (rate_drafts.invoices)) s
          CROSS JOIN LATERAL (
              SELECT i.id FROM billing.invoices i
              WHERE i.subscription = s.subscription AND i.status = 'draft' AND i.auto_advance
                AND i.billing_reason = 'subscription_cycle'
              ORDER BY i.created, i.id LIMIT 1) d
          WHERE d.id = ANY (rate_drafts.invoices)) a
    CROSS JOIN LATERAL billing.late_usage_lines(a.subscriptions) WITH ORDINALITY u
        (subscription, subscription_item, price, description, quantity, amount, period_start, period_end, place)
    JOIN LATERAL (
        SELECT i.id FROM billing.invoices i
        WHERE i.subscription = u.subscription AND i.status = 'draft' AND i.auto_advance
          AND i.billing_reason = 'subscription_cycle'
        ORDER BY i.created, i.id LIMIT 1) d ON true
    WHERE u.amount IS NOT NULL
    ORDER BY d.id, u.place;

    PERFORM billing.total_drafts(rate_drafts.invoices, unrated);
    PERFORM billing.adjust_drafts(rate_drafts.invoices);
END $$;
COMMENT ON FUNCTION billing.rate_drafts(text[]) IS
'Rates the usage of drafts with what is known now, late usage of earlier periods too, and adds their lines up. The
caller holds their locks. A draft whose amounts bigint cannot hold gets a finalization_error. Internal.';

CREATE FUNCTION billing.total_drafts(invoices text[], unrated text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    UPDATE billing.invoices i
    SET subtotal = t.subtotal, total_discount_amount = 0, total_credit_amount = 0, total_tax_amount = 0,
        total_exclusive_tax_amount = 0, total = t.subtotal, amount_due = greatest(t.subtotal, 0),
        line_count = t.line_count, finalization_error = t.finalization_error
    FROM (
        SELECT d.id, s.count AS line_count, CASE WHEN fits THEN s.amount ELSE 0 END::bigint AS subtotal,
               CASE WHEN d.id = ANY (total_drafts.unrated) THEN 'the amount of a line is beyond the range of bigint'
                    WHEN NOT fits THEN 'the total is beyond the range of bigint' END AS finalization_error
        FROM unnest(total_drafts.invoices) d (id)
        CROSS JOIN LATERAL (SELECT count(*) AS count, coalesce(sum(l.amount), 0) AS amount
                            FROM billing.invoice_lines l WHERE l.invoice = d.id) s
        CROSS JOIN LATERAL (
            SELECT abs(s.amount) <= 9223372036854775807 AND (d.id = ANY (total_drafts.unrated)) IS NOT TRUE) f (fits)
    ) t
    WHERE i.id = t.id
      AND (i.subtotal, i.line_count::bigint, i.finalization_error)
          IS DISTINCT FROM (t.subtotal, t.line_count, t.finalization_error);
END $$;
COMMENT ON FUNCTION billing.total_drafts(text[], text[]) IS
'Adds up the lines of drafts; unrated names those with a line whose amount is beyond bigint. Discounts, credits and taxes
are put on by billing.adjust_drafts. Internal.';
