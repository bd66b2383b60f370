-- Late usage: what arrived, or was cancelled, for periods that are invoiced already, and what that changes.

CREATE TABLE billing.late_usage_marks (
    subscription text COLLATE "C" NOT NULL REFERENCES billing.subscriptions,
    event_name text COLLATE "C" NOT NULL,
    day timestamptz NOT NULL,
    invoiced boolean NOT NULL DEFAULT false,
    CONSTRAINT late_usage_marks_pkey PRIMARY KEY (subscription, event_name, day, invoiced)
);
COMMENT ON TABLE billing.late_usage_marks IS
'Days before a subscription''s current period whose usage changed: roll_up() writes them as it folds, and an invoice of the
subscription takes them away when it is final. So a run looks at what is late, and not at all that was ever invoiced.
Exact because whoever moves a period on or finalizes does so under the lock of roll_up().';
COMMENT ON COLUMN billing.late_usage_marks.subscription IS 'Whose invoiced periods may be concerned.';
COMMENT ON COLUMN billing.late_usage_marks.event_name IS 'billing.meters.event_name of the usage.';
COMMENT ON COLUMN billing.late_usage_marks.day IS 'Start of the UTC day.';
COMMENT ON COLUMN billing.late_usage_marks.invoiced IS
'True: noted by what invoiced the day while usage could be folded; false: by roll_up(). Apart, so that neither waits for a
mark of the other''s that is not committed.';
COMMENT ON CONSTRAINT late_usage_marks_pkey ON billing.late_usage_marks IS
'A day is marked once in each way; found by the subscription.';
SELECT pg_catalog.pg_extension_config_dump('billing.late_usage_marks', '');

CREATE TABLE billing.usage_folds (
    last_fold timestamptz NOT NULL
);
COMMENT ON TABLE billing.usage_folds IS
'One row, that every roll-up which found something updates: a transaction with an older snapshot fails to lock it, instead
of missing what was folded. Not dumped.';
COMMENT ON COLUMN billing.usage_folds.last_fold IS 'When usage was last folded.';
INSERT INTO billing.usage_folds (last_fold) VALUES ('-infinity');

CREATE FUNCTION billing.lock_usage() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Shared among those who rate: only folding waits, and is waited for.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('billing.roll_up', 0));
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        -- What was folded since this transaction's snapshot would be in no mark and in no quantity: 40001.
        PERFORM FROM billing.usage_folds f FOR SHARE;
    END IF;
END $$;
COMMENT ON FUNCTION billing.lock_usage() IS
'Keeps roll_up() from folding until the transaction ends, so that no usage arrives in invoiced periods between their
rating and the commit unmarked. Taken before any subscription''s lock. Errors: 40001 in a REPEATABLE READ or SERIALIZABLE
transaction that began before another roll-up ended: retry. Internal.';

CREATE FUNCTION billing.try_lock_usage() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared(hashtextextended('billing.roll_up', 0)) THEN
        RETURN false;
    END IF;
    PERFORM billing.lock_usage();
    RETURN true;
END $$;
COMMENT ON FUNCTION billing.try_lock_usage() IS
'billing.lock_usage() for a caller that may hold what a run waits for: false, and nothing is locked, where usage is just
being folded. Errors: 40001 as billing.lock_usage. Internal.';

CREATE FUNCTION billing.forget_late_usage(invoices text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    -- What is ignored now can still be billed once it is not.
    IF billing.late_usage() = 'ignore' THEN
        RETURN;
    END IF;
    DELETE FROM billing.late_usage_marks m
    USING (SELECT DISTINCT i.subscription FROM billing.invoices i
           WHERE i.id = ANY (forget_late_usage.invoices) AND i.billing_reason = 'subscription_cycle') i
    JOIN billing.subscriptions s ON s.id = i.subscription
    WHERE m.subscription = i.subscription
      -- Invoiced days of the current period are marked by what invoiced them, and by no roll-up.
      AND (m.day <= s.current_period_start - interval '24 hours' OR s.status = 'canceled')
      -- An earlier draft is what carries late usage.
      AND NOT EXISTS (SELECT FROM billing.invoices d
                      WHERE d.subscription = i.subscription AND d.status = 'draft' AND d.auto_advance
                        AND d.billing_reason = 'subscription_cycle'
                        AND d.created < (SELECT max(f.created) FROM billing.invoices f
                                         WHERE f.subscription = i.subscription
                                           AND f.id = ANY (forget_late_usage.invoices)));
END $$;
COMMENT ON FUNCTION billing.forget_late_usage(text[]) IS
'Takes the marks away that invoices, final now, have dealt with. Internal.';

CREATE FUNCTION billing.mark_invoiced_usage(invoice text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO billing.late_usage_marks (subscription, event_name, day, invoiced)
    SELECT DISTINCT i.subscription, p.meter, d.day, true
    FROM billing.invoices i
    JOIN billing.invoice_lines l ON l.invoice = i.id AND l.kind IN ('usage', 'late_usage')
    JOIN billing.prices p ON p.id = l.price
    CROSS JOIN LATERAL generate_series(
        date_trunc('day', l.period_start, 'UTC'), l.period_end - interval '1 microsecond', interval '24 hours') d (day)
    WHERE i.id = mark_invoiced_usage.invoice
    ON CONFLICT DO NOTHING;
END;
COMMENT ON FUNCTION billing.mark_invoiced_usage(text) IS
'Marks all days whose usage an invoice has, as it may have been rated without what is being folded. Internal.';

CREATE FUNCTION billing.late_usage_lines(subscriptions text[])
RETURNS TABLE (subscription text, subscription_item text, price text, description text, quantity numeric, amount bigint,
               period_start timestamptz, period_end timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    s_items text[];
    s_prices text[];
    s_starts timestamptz[];
BEGIN
    IF billing.late_usage() = 'ignore' THEN
        RETURN;
    END IF;
    -- What is not folded yet has no mark yet.
    SELECT array_agg(l.subscription_item), array_agg(l.price), array_agg(l.period_start)
    INTO s_items, s_prices, s_starts
    FROM (
        SELECT m.subscription, m.event_name, m.day FROM billing.late_usage_marks m
        WHERE m.subscription = ANY (late_usage_lines.subscriptions)
        UNION
        SELECT s.id, q.event_name, date_trunc('day', q.hour, 'UTC')
        FROM (SELECT DISTINCT q.customer, q.event_name, q.hour FROM billing.usage_pending q) q
        JOIN billing.subscriptions s ON s.customer = q.customer AND q.hour < s.current_period_start
        WHERE s.id = ANY (late_usage_lines.subscriptions)
    ) m
    JOIN billing.meters e ON e.event_name = m.event_name
    JOIN billing.subscription_items t ON t.subscription = m.subscription
    CROSS JOIN LATERAL (
        SELECT DISTINCT l.subscription_item, l.price, l.period_start
        FROM billing.invoice_lines l JOIN billing.prices p ON p.id = l.price AND p.meter = m.event_name
        WHERE l.subscription_item = t.id AND l.kind IN ('usage', 'late_usage') AND l.period_end > m.day
          -- A level is carried on, so a change concerns every period after it.
          AND (l.period_start < m.day + interval '24 hours' OR e.aggregation = 'weighted_sum')
    ) l;
    IF s_items IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH billed AS MATERIALIZED (
        -- Lines of a void invoice count as billed: voiding waives them, it does not move them to the next invoice. But what
        -- was waived, or credited by a credit note, is not given back as credit either. What was made anew counts there.
        SELECT row_number() OVER () AS place, b.*
        FROM (
            SELECT l.subscription_item, l.price, l.period_start, max(l.period_end) AS period_end, i.customer,
                   i.subscription, i.currency, sum(l.amount) AS amount,
                   greatest(coalesce(sum(l.amount - c.amount) FILTER (WHERE i.status <> 'void'), 0), 0) AS asked,
                   'Late usage: ' || min(l.description) FILTER (WHERE l.kind = 'usage') AS description
            FROM (SELECT DISTINCT u.* FROM unnest(s_items, s_prices, s_starts) u (item, price, period_start)) u
            JOIN billing.invoice_lines l
              ON l.subscription_item = u.item AND l.period_start = u.period_start AND l.price = u.price
             AND l.kind IN ('usage', 'late_usage')
            JOIN billing.invoices i ON i.id = l.invoice AND i.regenerated_as IS NULL
            CROSS JOIN LATERAL billing.credited_line(l.id) c
            GROUP BY l.subscription_item, l.price, l.period_start, i.customer, i.subscription, i.currency
            HAVING bool_or(l.kind = 'usage' AND i.status <> 'draft' AND i.billing_reason <> 'subscription_threshold')
               AND NOT bool_or(l.kind = 'usage' AND i.status = 'draft')
        ) b
        WHERE b.period_start < b.period_end
          -- Hours that a period's bound cuts are read from the events: without all of them there is no exact rating.
          AND NOT EXISTS (
              SELECT FROM billing.meter_event_partitions d
              WHERE d.dropped_at IS NOT NULL AND d.min_timestamp < b.period_end AND d.max_timestamp >= b.period_start)
    )
    SELECT b.subscription, b.subscription_item, b.price, b.description, q.quantity,
           CASE WHEN r.amount IS NOT NULL THEN greatest(r.amount - b.amount, -b.asked)::bigint END,
           b.period_start, b.period_end
    FROM billed b
    JOIN (
        SELECT q.*
        FROM (SELECT array_agg(b.price ORDER BY b.place) AS prices, array_agg(b.customer ORDER BY b.place) AS customers,
                     array_agg(b.period_start ORDER BY b.place) AS starts,
                     array_agg(b.period_end ORDER BY b.place) AS ends
              FROM billed b) a
        CROSS JOIN LATERAL billing.usage_quantities(a.prices, a.customers, a.starts, a.ends) q
    ) q USING (place)
    JOIN billing.prices p ON p.id = b.price
    CROSS JOIN LATERAL (SELECT billing.usage_amount(p, b.currency, q.quantity)) r (amount)
    JOIN billing.subscription_items t ON t.id = b.subscription_item
    WHERE r.amount > b.amount OR r.amount < b.amount AND b.asked > 0 OR r.amount IS NULL
    ORDER BY b.subscription, t.created, t.id, b.period_start, b.price;
END $$;
COMMENT ON FUNCTION billing.late_usage_lines(text[]) IS
'What usage that arrived (or was cancelled) since their periods were invoiced changes for subscriptions: one row per item,
price and period, with the whole period re-rated at its own price, less all that was billed for it. amount is NULL where
that is beyond bigint. No rows when billing.late_usage is ignore, and none of a period some of whose events
billing.retention has dropped. Internal.';
