-- Rating: from subscriptions' items and usage to the lines of their invoices. Previews, invoices, thresholds and re-rating come here.
-- All of it works on sets: one statement rates the usage of a hundred thousand subscriptions. Functions of SQL without
-- settings of their own are taken into the statements that call them.

CREATE FUNCTION billing.item_period(
    subscription billing.subscriptions, "interval" text, interval_count integer, at timestamptz
) RETURNS TABLE (period_start timestamptz, period_end timestamptz, whole tstzrange)
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT $4,
           CASE WHEN $4 < ($1).trial_end THEN least(($1).trial_end, ($1).cancel_at)
                ELSE least(upper(w.whole), ($1).cancel_at) END,
           CASE WHEN $4 < ($1).trial_end THEN NULL ELSE w.whole END
    -- OFFSET 0: computed once, and not at each place that names it.
    FROM (SELECT billing.period_containing(($1).billing_cycle_anchor, $2, $3, $4) OFFSET 0) w (whole)
$$;
COMMENT ON FUNCTION billing.item_period(billing.subscriptions, text, integer, timestamptz) IS
'The billed period that starts at a time, of an item whose price has this interval: to the next boundary of the
subscription''s anchor, or to cancel_at if that is sooner. whole is the uncut period, which proration divides by; NULL in
a trial, which is free and ends at trial_end. Internal.';

CREATE FUNCTION billing.subscription_period(subscription billing.subscriptions, at timestamptz)
RETURNS TABLE (period_start timestamptz, period_end timestamptz, whole tstzrange)
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT n.* FROM billing.item_period($1, ($1)."interval", ($1).interval_count, $2) n
$$;
COMMENT ON FUNCTION billing.subscription_period(billing.subscriptions, timestamptz) IS
'billing.item_period for the shortest interval of a subscription''s prices: the period that its next invoice ends.
Internal.';

CREATE FUNCTION billing.subscription_ends(subscription billing.subscriptions) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($1).status = 'canceled' OR ($1).cancel_at_period_end
        OR coalesce(($1).cancel_at <= ($1).current_period_end, false)
        OR coalesce(($1).trial_end = ($1).current_period_end, false)
           AND ($1).trial_end_behavior = 'cancel' AND ($1).default_payment_method IS NULL
$$;
COMMENT ON FUNCTION billing.subscription_ends(billing.subscriptions) IS
'Whether the current period of a subscription is its last. Internal.';

CREATE FUNCTION billing.price_label(price billing.prices) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(($1).nickname,
                    (SELECT d.name FROM billing.products d WHERE d.id = ($1).product),
                    (SELECT m.meter::jsonb ->> 'display_name' FROM billing.meters m WHERE m.event_name = ($1).meter),
                    ($1).id)
$$;
COMMENT ON FUNCTION billing.price_label(billing.prices) IS
'What lines call a price: its nickname, or else its product''s name, its meter''s display name, its id. Internal.';

CREATE FUNCTION billing.usage_amount(price billing.prices, currency text, quantity numeric) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT billing.price_fitting_amount(
        CASE WHEN ($1).currency = $2 THEN ($1).price ELSE billing.price_in_currency(($1).price, $2) END, $3)
$$;
COMMENT ON FUNCTION billing.usage_amount(billing.prices, text, numeric) IS
'What a quantity of a price costs in a currency, rounded once, half away from zero; NULL beyond bigint. Internal.';

CREATE FUNCTION billing.licensed_lines(subscription billing.subscriptions, at timestamptz)
RETURNS TABLE (subscription_item text, price text, description text, quantity numeric, amount bigint,
               period_start timestamptz, period_end timestamptz, proration boolean, item_created timestamptz)
LANGUAGE sql STABLE ROWS 2 AS $$
    SELECT i.id, i.price,
           CASE WHEN n.whole IS NULL THEN 'Free trial: ' ELSE '' END || i.quantity || ' × ' || coalesce(p.nickname, d.name, p.id),
           i.quantity::numeric,
           CASE WHEN n.whole IS NULL THEN 0
                WHEN tstzrange(n.period_start, n.period_end) = n.whole THEN billing.price_line_amount(c.price, i.quantity)
                WHEN ($1).proration_behavior <> 'none'
                    THEN billing.prorated_amount(
                        billing.price_amount(c.price, i.quantity), tstzrange(n.period_start, n.period_end), n.whole)
                WHEN n.period_start > lower(n.whole) THEN 0
                ELSE billing.price_line_amount(c.price, i.quantity) END,
           n.period_start, n.period_end,
           n.whole IS NOT NULL AND tstzrange(n.period_start, n.period_end) <> n.whole
               AND ($1).proration_behavior <> 'none',
           i.created
    FROM billing.subscription_items i
    JOIN billing.prices p ON p.id = i.price
    LEFT JOIN billing.products d ON d.id = p.product
    CROSS JOIN LATERAL (
        SELECT CASE WHEN p.currency = ($1).currency THEN p.price
                    ELSE billing.price_in_currency(p.price, ($1).currency) END) c (price)
    CROSS JOIN LATERAL billing.item_period($1, p."interval", p.interval_count, $2) n
    WHERE i.subscription = ($1).id AND p.usage_type = 'licensed' AND i.ended_at IS NULL
      AND (n.whole IS NULL OR lower(n.whole) = $2 OR $2 IN (($1).start_date, ($1).trial_end))
$$;
COMMENT ON FUNCTION billing.licensed_lines(billing.subscriptions, timestamptz) IS
'The lines, in advance, of a subscription''s licensed items whose own period starts at a time: prorated where it is cut,
free in a trial. Errors: 22003 an amount beyond bigint. Internal.';

CREATE FUNCTION billing.usage_lines(subscription billing.subscriptions, until timestamptz, complete boolean)
RETURNS TABLE (subscription_item text, price text, period_start timestamptz, period_end timestamptz,
               item_created timestamptz)
LANGUAGE sql STABLE ROWS 2 AS $$
    SELECT x.item, x.price, w.period_start, w.period_end, x.created
    FROM (
        SELECT i.id AS item, i.price, i.starts_at, i.ended_at AS ends_at, i.created
        FROM billing.subscription_items i WHERE i.subscription = ($1).id AND i.quantity IS NULL
        UNION ALL
        SELECT h.item, h.price, h.starts_at, h.ends_at, i.created
        FROM billing.subscription_items i JOIN billing.subscription_item_past_prices h ON h.item = i.id
        WHERE i.subscription = ($1).id
    ) x
    JOIN billing.prices p ON p.id = x.price AND p.usage_type = 'metered'
    CROSS JOIN LATERAL (
        SELECT billing.period_containing(($1).billing_cycle_anchor, p."interval", p.interval_count,
                                         $2 - interval '1 microsecond') OFFSET 0) c (period)
    -- greatest and least pass over NULLs: no trial, not removed.
    CROSS JOIN LATERAL (
        SELECT greatest(CASE WHEN (p."interval", p.interval_count)
                                  = (($1)."interval", ($1).interval_count)
                                  -- Or else its own period began while a shorter interval, gone since, was the shortest.
                                  AND lower(c.period) >= ($1).current_period_start
                             THEN ($1).current_period_start
                             -- The last invoice's end, where the anchor has moved since.
                             ELSE greatest(CASE WHEN ($1).trial_start = $2 THEN NULL ELSE lower(c.period) END, ($1).start_date,
                                           CASE WHEN ($1).trial_end <= ($1).current_period_start THEN ($1).trial_end END, (
                                 SELECT max(l.period_end)
                                 FROM billing.invoice_lines l JOIN billing.invoices v ON v.id = l.invoice
                                 WHERE l.subscription_item = x.item AND l.kind = 'usage' AND v.regenerated_as IS NULL
                                   -- A later price of it may be invoiced already, an earlier one not.
                                   AND coalesce(l.period_start < x.ends_at, true)
                                   AND v.billing_reason <> 'subscription_threshold')) END,
                        x.starts_at),
               least($2, x.ends_at)) w (period_start, period_end)
    WHERE w.period_start < w.period_end
      -- A trial may also begin with the end of this period, and has moved the anchor to its own end then.
      AND coalesce(($1).current_period_start >= ($1).trial_end OR ($1).current_period_start < ($1).trial_start, true)
      AND (NOT $3 OR upper(c.period) = $2 OR coalesce(($1).trial_start = $2, false) OR billing.subscription_ends($1))
$$;
COMMENT ON FUNCTION billing.usage_lines(billing.subscriptions, timestamptz, boolean) IS
'What is to be rated of a subscription''s usage in its current period, up to a time: one row for each metered item and each
price that it had. complete: only items whose own period ends then, all of them where the subscription ends; an item of
a longer interval has the whole of its own period. None in a trial. Internal.';

CREATE FUNCTION billing.usage_quantities(
    prices text[], customers text[], period_starts timestamptz[], period_ends timestamptz[]
) RETURNS TABLE (place bigint, quantity numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH metered AS MATERIALIZED (
        SELECT p.id, m.event_name, m.aggregation, p.dimension_filters AS filter,
               billing.filter_alternatives(p.dimension_filters) AS filters
        FROM billing.prices p JOIN billing.meters m ON m.event_name = p.meter
        WHERE p.id IN (SELECT DISTINCT u.price FROM unnest(usage_quantities.prices) u (price))
    ), keys AS MATERIALIZED (
        SELECT k.place, k.customer, m.event_name, m.aggregation, m.filter, m.filters,
               k.period_start, k.period_end, h.first_hour, h.end_hour,
               -- Whole days, if there are any, and the whole hours before and after them.
               CASE WHEN d.first_day <= d.end_day THEN d.first_day ELSE h.end_hour END AS first_day,
               CASE WHEN d.first_day <= d.end_day THEN d.end_day ELSE h.end_hour END AS end_day,
               d.first_day <> h.first_hour OR d.end_day <> h.end_hour AS has_hours,
               h.first_hour <> k.period_start AS cuts_first, h.end_hour <> k.period_end AS cuts_last
        FROM unnest(prices, customers, period_starts, period_ends)
            WITH ORDINALITY AS k (price, customer, period_start, period_end, place)
        JOIN metered m ON m.id = k.price
        -- Of UTC, as date_trunc has them, which takes ten times as long.
        CROSS JOIN LATERAL (
            SELECT date_bin('1 hour', k.period_start + interval '1 hour' - interval '1 microsecond', '0001-01-01Z'),
                   date_bin('1 hour', k.period_end, '0001-01-01Z')) h (first_hour, end_hour)
        CROSS JOIN LATERAL (
            SELECT date_bin('24 hours', k.period_start + interval '24 hours' - interval '1 microsecond', '0001-01-01Z'),
                   date_bin('24 hours', k.period_end, '0001-01-01Z')) d (first_day, end_day)
    ),
    queue AS MATERIALIZED (
        SELECT q.customer, q.event_name, min(q.hour) AS first_hour, max(q.hour) AS last_hour
        FROM billing.usage_pending q GROUP BY q.customer, q.event_name
    ),
    -- Whole hours of additive states come from the buckets, for all keys at once. The rest, each by itself: hours that a bound
    -- cuts (where there was usage in them), what is not folded yet, levels, and sets of texts.
    simple AS MATERIALIZED (
        SELECT k.* FROM keys k
        LEFT JOIN queue q ON q.customer = k.customer AND q.event_name = k.event_name
                         AND q.first_hour < k.period_end AND q.last_hour > k.period_start - interval '1 hour'
        WHERE k.aggregation IN ('sum', 'count', 'max', 'min', 'last') AND q.customer IS NULL
          AND NOT (k.cuts_first AND EXISTS (
              SELECT FROM billing.usage_buckets b
              WHERE b.customer = k.customer AND b.event_name = k.event_name AND b.width = 'hour'
                AND b.start = k.first_hour - interval '1 hour'))
          AND NOT (k.cuts_last AND EXISTS (
              SELECT FROM billing.usage_buckets b
              WHERE b.customer = k.customer AND b.event_name = k.event_name AND b.width = 'hour'
                AND b.start = k.end_hour))
    )
    SELECT s.place, greatest(0, coalesce(trim_scale(CASE s.aggregation
               WHEN 'sum' THEN u.value_sum WHEN 'count' THEN u.event_count
               WHEN 'max' THEN u.value_max WHEN 'min' THEN u.value_min ELSE (u.last_event).value END), 0))
    FROM simple s
    CROSS JOIN LATERAL (
        SELECT sum(b.value_sum) AS value_sum, sum(b.event_count) AS event_count, max(b.value_max) AS value_max,
               min(b.value_min) AS value_min,
               billing.latest_usage_event(
                   (b.last_timestamp, b.last_received_at, b.last_identifier, b.last_value)::billing.usage_last_event)
                   FILTER (WHERE b.last_timestamp IS NOT NULL) AS last_event
        FROM (
            SELECT b.dimensions, b.event_count, b.value_sum, b.value_max, b.value_min, b.last_value, b.last_timestamp,
                   b.last_received_at, b.last_identifier
            FROM billing.usage_buckets b
            WHERE b.customer = s.customer AND b.event_name = s.event_name AND b.width = 'day'
              AND b.start >= s.first_day AND b.start < s.end_day
            UNION ALL
            SELECT b.dimensions, b.event_count, b.value_sum, b.value_max, b.value_min, b.last_value, b.last_timestamp,
                   b.last_received_at, b.last_identifier
            FROM billing.usage_buckets b
            WHERE s.has_hours AND b.customer = s.customer AND b.event_name = s.event_name AND b.width = 'hour'
              AND b.start >= s.first_hour AND b.start < s.first_day
            UNION ALL
            SELECT b.dimensions, b.event_count, b.value_sum, b.value_max, b.value_min, b.last_value, b.last_timestamp,
                   b.last_received_at, b.last_identifier
            FROM billing.usage_buckets b
            WHERE s.has_hours AND b.customer = s.customer AND b.event_name = s.event_name AND b.width = 'hour'
              AND b.start >= s.end_day AND b.start < s.end_hour
        ) b
        WHERE s.filters IS NULL OR b.dimensions @> ANY (s.filters)
    ) u
    UNION ALL
    SELECT k.place, greatest(0, coalesce(billing.usage_quantity(
               k.event_name, k.customer, k.period_start, k.period_end, k.filter), 0))
    FROM keys k
    WHERE NOT EXISTS (SELECT FROM simple s WHERE s.place = k.place);
END $$;
COMMENT ON FUNCTION billing.usage_quantities(text[], text[], timestamptz[], timestamptz[]) IS
'The usage of metered prices by customers over periods [start, end), as parallel arrays, with the place of each key
from 1: exact and current, never negative. As billing.usage_quantity says it, for any number of keys in one pass.
Internal.';
