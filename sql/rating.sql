-- Rating: from a subscription's items and usage to the lines of an invoice. Previews, invoices and re-rating come here.

CREATE FUNCTION billing.usage_state(event_name text, customer text, period_start timestamptz, period_end timestamptz)
RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto AS $$
#variable_conflict use_column
DECLARE
    since timestamptz := date_trunc('day', usage_state.period_start, 'UTC');
BEGIN
    -- A level is carried on, so what came before the period is part of it.
    IF EXISTS (SELECT FROM billing.meters m
               WHERE m.event_name = usage_state.event_name AND m.aggregation = 'weighted_sum') THEN
        since := '-infinity';
    END IF;
    -- Sums as well as times: clocks may step back, and one transaction may fold twice.
    RETURN (SELECT concat_ws(' ', count(*), sum(b.event_count), sum(b.value_sum), sum(b.value_time_sum),
                             sum(b.value_max), sum(b.value_min), sum(b.last_value), sum(extract(epoch FROM b.updated_at)))
            FROM billing.usage_buckets b
            WHERE b.customer = usage_state.customer AND b.event_name = usage_state.event_name
              AND b.width = 'day' AND b.start >= since AND b.start < usage_state.period_end);
END $$;
COMMENT ON FUNCTION billing.usage_state(text, text, timestamptz, timestamptz) IS
'A text that changes whenever the buckets that hold a period''s usage do: their number, sums and times of update.
Cheaper than the usage itself, so it decides which invoiced periods are rated again. Internal.';

CREATE FUNCTION billing.rated_usage(
    price text, customer text, period_start timestamptz, period_end timestamptz,
    OUT quantity numeric, OUT amount bigint, OUT usage_state text
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto AS $$
#variable_conflict use_column
DECLARE
    priced billing.prices;
BEGIN
    SELECT p.* INTO priced FROM billing.prices p WHERE p.id = rated_usage.price;
    quantity := greatest(0, coalesce(billing.usage_quantity(
        priced.meter, rated_usage.customer, rated_usage.period_start, rated_usage.period_end), 0));
    usage_state := billing.usage_state(
        priced.meter, rated_usage.customer, rated_usage.period_start, rated_usage.period_end);
    amount := billing.price_line_amount(priced.price, quantity);
EXCEPTION WHEN numeric_value_out_of_range THEN
    amount := NULL;
END $$;
COMMENT ON FUNCTION billing.rated_usage(text, text, timestamptz, timestamptz) IS
'A period''s usage of a metered price: quantity (never negative), its amount in minor units (rounded once, half away
from zero; NULL beyond bigint, so that one customer''s bad usage stops nobody else''s invoice), and the state it was
read in. Internal.';

CREATE FUNCTION billing.licensed_lines(
    subscription billing.subscriptions, part_start timestamptz, part_end timestamptz, whole tstzrange
) RETURNS TABLE (subscription_item text, price text, description text, quantity numeric, amount bigint,
                 period_start timestamptz, period_end timestamptz, proration boolean)
LANGUAGE sql STABLE AS $$
    SELECT i.id, i.price,
           CASE WHEN whole IS NULL THEN 'Free trial: ' ELSE '' END
               || i.quantity || ' × ' || coalesce(p.price::jsonb ->> 'nickname', d.name, p.id),
           i.quantity,
           CASE WHEN whole IS NULL THEN 0
                WHEN tstzrange(part_start, part_end) = whole THEN billing.price_line_amount(p.price, i.quantity)
                WHEN subscription.proration_behavior <> 'none'
                    THEN billing.prorated_amount(
                        billing.price_amount(p.price, i.quantity), tstzrange(part_start, part_end), whole)
                WHEN part_start > lower(whole) THEN 0
                ELSE billing.price_line_amount(p.price, i.quantity) END,
           part_start, part_end,
           whole IS NOT NULL AND tstzrange(part_start, part_end) <> whole AND subscription.proration_behavior <> 'none'
    FROM billing.subscription_items i
    JOIN billing.prices p ON p.id = i.price
    LEFT JOIN billing.products d ON d.id = p.product
    WHERE i.subscription = subscription.id AND p.usage_type = 'licensed'
    ORDER BY i.created, i.id
$$;
COMMENT ON FUNCTION billing.licensed_lines(billing.subscriptions, timestamptz, timestamptz, tstzrange) IS
'The lines of a subscription''s licensed items for a period, in advance. whole is the uncut period to prorate by, NULL
in a trial, which is free. Errors: 22003 an amount beyond bigint. Internal.';

CREATE FUNCTION billing.cycle_lines(subscription billing.subscriptions)
RETURNS TABLE (subscription_item text, price text, description text, quantity numeric, amount bigint,
               period_start timestamptz, period_end timestamptz, proration boolean, kind text)
LANGUAGE sql STABLE AS $$
    (SELECT i.id, i.price, coalesce(p.price::jsonb ->> 'nickname', d.name, m.meter::jsonb ->> 'display_name', p.id),
            0::numeric, 0::bigint, subscription.current_period_start, subscription.current_period_end, false, 'usage'
     FROM billing.subscription_items i
     JOIN billing.prices p ON p.id = i.price
     JOIN billing.meters m ON m.event_name = p.meter
     LEFT JOIN billing.products d ON d.id = p.product
     WHERE i.subscription = subscription.id
       AND coalesce(subscription.current_period_start >= subscription.trial_end, true)
       AND subscription.current_period_start < subscription.current_period_end
     ORDER BY i.created, i.id)
    UNION ALL
    (SELECT x.subscription_item, x.price, x.description, x.quantity, x.amount, x.period_start, x.period_end, true,
            'licensed'
     FROM billing.invoice_items x
     WHERE x.subscription = subscription.id AND x.cycle_start = subscription.current_period_start
     ORDER BY x.created, x.id)
    UNION ALL
    (SELECT l.*, 'licensed'
     FROM billing.subscription_period(subscription, subscription.current_period_end) n
     CROSS JOIN LATERAL billing.licensed_lines(subscription, n.period_start, n.period_end, n.whole) l
     WHERE NOT billing.subscription_ends(subscription))
$$;
COMMENT ON FUNCTION billing.cycle_lines(billing.subscriptions) IS
'The lines of the invoice at the end of a subscription''s current period: its usage, not rated yet (quantity and
amount 0; none of a trial), prorations of changes during it, and the licensed items of the next period unless the
subscription ends. Internal.';

CREATE FUNCTION billing.late_usage_of_item(item text)
RETURNS TABLE (subscription_item text, price text, description text, quantity numeric, amount bigint,
               period_start timestamptz, period_end timestamptz, usage_state text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = auto AS $$
#variable_conflict use_column
DECLARE
    pending boolean;
BEGIN
    IF billing.late_usage() = 'ignore' THEN
        RETURN;
    END IF;
    -- What is not folded yet is in no bucket's state, so it makes every period of the item suspect.
    pending := EXISTS (
        SELECT FROM billing.usage_pending u
        JOIN billing.subscriptions s ON s.customer = u.customer
        JOIN billing.subscription_items i ON i.subscription = s.id
        JOIN billing.prices p ON p.id = i.price AND p.meter = u.event_name
        WHERE i.id = late_usage_of_item.item);
    -- Lines of a void invoice count as billed: voiding waives them, it does not move them to the next invoice. But what was
    -- waived is not given back as credit either.
    RETURN QUERY
    SELECT late_usage_of_item.item, b.price, b.description, r.quantity,
           CASE WHEN r.amount IS NOT NULL THEN greatest(r.amount - b.amount, -b.asked)::bigint END,
           b.period_start, b.period_end, r.usage_state
    FROM (
        SELECT l.price, l.period_start, l.period_end, i.customer, sum(l.amount) AS amount,
               greatest(coalesce(sum(l.amount) FILTER (WHERE i.status <> 'void'), 0), 0) AS asked,
               'Late usage: ' || min(l.description) FILTER (WHERE l.kind = 'usage') AS description,
               (array_agg(l.usage_state ORDER BY l.id DESC))[1] AS usage_state
        FROM billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice
        WHERE l.subscription_item = late_usage_of_item.item AND l.kind IN ('usage', 'late_usage')
        GROUP BY l.price, l.period_start, l.period_end, i.customer
        HAVING bool_or(l.kind = 'usage' AND i.status <> 'draft')
    ) b
    JOIN billing.prices p ON p.id = b.price
    CROSS JOIN LATERAL billing.rated_usage(b.price, b.customer, b.period_start, b.period_end) r
    WHERE (pending
           OR billing.usage_state(p.meter, b.customer, b.period_start, b.period_end) IS DISTINCT FROM b.usage_state)
      AND (r.amount > b.amount OR r.amount < b.amount AND b.asked > 0 OR r.amount IS NULL)
      -- Hours that a period's bound cuts are read from the events: without all of them there is no exact rating.
      AND NOT EXISTS (
          SELECT FROM billing.meter_event_partitions d
          WHERE d.dropped_at IS NOT NULL AND d.min_timestamp < b.period_end AND d.max_timestamp >= b.period_start)
    ORDER BY b.period_start;
END $$;
COMMENT ON FUNCTION billing.late_usage_of_item(text) IS
'What usage that arrived (or was cancelled) since the periods of a metered item were invoiced changes: one row per
period, with the whole period re-rated at its own price, less all that was billed for it. amount is NULL where that is
beyond bigint. No rows when billing.late_usage is ignore, and none of a period some of whose events billing.retention has dropped.
Internal.';

CREATE FUNCTION billing.rate_drafts(invoices text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    UPDATE billing.invoice_lines l
    SET quantity = r.quantity, amount = coalesce(r.amount, 0),
        usage_state = CASE WHEN r.amount IS NOT NULL THEN r.usage_state END
    FROM (SELECT u.id, r.*
          FROM billing.invoice_lines u
          JOIN billing.invoices i ON i.id = u.invoice
          CROSS JOIN LATERAL billing.rated_usage(u.price, i.customer, u.period_start, u.period_end) r
          WHERE u.invoice = ANY (rate_drafts.invoices) AND u.kind = 'usage') r
    WHERE r.id = l.id;

    DELETE FROM billing.invoice_lines l WHERE l.invoice = ANY (rate_drafts.invoices) AND l.kind = 'late_usage';
    -- Only the earliest of a subscription's drafts takes late usage, or each of them would bill it.
    INSERT INTO billing.invoice_lines
        (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end, usage_state)
    SELECT d.id, u.subscription_item, u.price, 'late_usage', u.description, u.quantity, u.amount,
           u.period_start, u.period_end, u.usage_state
    FROM (SELECT DISTINCT ON (i.subscription) i.id, i.subscription FROM billing.invoices i
          WHERE i.id = ANY (rate_drafts.invoices) ORDER BY i.subscription, i.created, i.id) d
    JOIN billing.subscription_items t ON t.subscription = d.subscription
    JOIN billing.prices p ON p.id = t.price AND p.usage_type = 'metered'
    CROSS JOIN LATERAL billing.late_usage_of_item(t.id) u
    WHERE u.amount IS NOT NULL
    ORDER BY d.id, t.created, t.id, u.period_start;

    UPDATE billing.invoices i
    SET subtotal = CASE WHEN fits THEN sums.amount ELSE 0 END,
        total = CASE WHEN fits THEN sums.amount ELSE 0 END,
        amount_due = CASE WHEN fits THEN greatest(sums.amount, 0) ELSE 0 END,
        total_discount_amount = 0, total_credit_amount = 0, total_tax_amount = 0, total_exclusive_tax_amount = 0,
        line_count = sums.count,
        finalization_error = CASE
            WHEN sums.unrated IS NOT NULL
                THEN format('the amount of line "%s" is beyond the range of bigint', sums.unrated)
            WHEN NOT fits THEN 'the total is beyond the range of bigint' END
    FROM (SELECT l.invoice, count(*) AS count, sum(l.amount) AS amount,
                 min(l.id) FILTER (WHERE l.kind = 'usage' AND l.usage_state IS NULL) AS unrated
          FROM billing.invoice_lines l WHERE l.invoice = ANY (rate_drafts.invoices) GROUP BY l.invoice) sums
    CROSS JOIN LATERAL (SELECT abs(sums.amount) <= 9223372036854775807) f (fits)
    WHERE i.id = sums.invoice;
    PERFORM billing.adjust_drafts(rate_drafts.invoices);
END $$;
COMMENT ON FUNCTION billing.rate_drafts(text[]) IS
'Rates the usage of drafts with what is known now, late usage of earlier periods too, adds their lines up, and takes off
or puts on discounts, credit and tax. The caller holds their locks. A draft whose amounts bigint cannot hold gets a
finalization_error. Internal.';
