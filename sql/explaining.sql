-- Explaining: how the amount of an invoice line came about, for whoever asks about it. Nothing here is stored: a finalized line is
-- explained from its own quantity and its price, neither of which changes, and its usage from the buckets as they are now.

CREATE FUNCTION billing.price_steps(price billing.price, quantity numeric)
    RETURNS TABLE (part text, quantity numeric, tier_from numeric, tier_up_to numeric, unit_amount numeric,
                   flat_amount numeric, amount numeric, note text)
    AS 'MODULE_PATHNAME', 'price_steps_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 3;
COMMENT ON FUNCTION billing.price_steps(billing.price, numeric) IS
    'How billing.price_amount() comes to its amount: one row for the units (part unit), packages (package), each graduated tier that is '
    'reached or the volume tier that counts (tier), and for what minimum_amount adds (minimum) or maximum_amount takes off (maximum). '
    'The amounts, exact, add up to billing.price_amount(). tier_from is exclusive but for 0, tier_up_to inclusive, NULL without end. '
    'NULL in, no rows out. 22023: NaN, infinity.';

CREATE FUNCTION billing.usage_windows(period_start timestamptz, period_end timestamptz) RETURNS timestamptz[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(DISTINCT b.at ORDER BY b.at)
    FROM (
        SELECT date_trunc('hour', period_start + interval '1 hour' - interval '1 microsecond', 'UTC') AS first_hour,
               date_trunc('hour', period_end, 'UTC') AS end_hour,
               date_trunc('day', period_start + interval '24 hours' - interval '1 microsecond', 'UTC') AS first_day,
               date_trunc('day', period_end, 'UTC') AS end_day
    ) c
    CROSS JOIN LATERAL (
        VALUES (period_start), (period_end)
        UNION ALL
        SELECT h.at FROM generate_series(c.first_hour, least(c.first_day, c.end_hour), interval '1 hour') h (at)
        UNION ALL
        SELECT d.at FROM generate_series(c.first_day, c.end_day, interval '24 hours') d (at)
        UNION ALL
        SELECT h.at FROM generate_series(greatest(c.end_day, c.first_hour), c.end_hour, interval '1 hour') h (at)
    ) b (at)
$$;
COMMENT ON FUNCTION billing.usage_windows(timestamptz, timestamptz) IS
'The bounds of what usage of [period_start, period_end) is read from: whole UTC days, the whole hours before and after
them, and what is left of the hours that the period''s bounds cut. Internal.';

CREATE FUNCTION billing.usage_sources(
    meter text, customer text, period_start timestamptz, period_end timestamptz, dimensions jsonb, events boolean
) RETURNS TABLE (part text, start_time timestamptz, end_time timestamptz, quantity numeric, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    of_meter billing.meters;
    windows timestamptz[] := billing.usage_windows(usage_sources.period_start, usage_sources.period_end);
    waiting timestamptz[];
BEGIN
    SELECT m.* INTO of_meter FROM billing.meters m WHERE m.event_name = usage_sources.meter;
    IF of_meter.aggregation = 'weighted_sum' THEN
        -- A level begins with what was before; nothing else does.
        windows := '-infinity'::timestamptz || windows;
    END IF;
    waiting := ARRAY(SELECT DISTINCT q.hour FROM billing.usage_pending q
                     WHERE q.customer = usage_sources.customer AND q.event_name = of_meter.event_name);
    PERFORM billing.see_partitions();
    RETURN QUERY
    WITH states AS (
        SELECT s.window_no, sum(s.event_count) AS event_count, sum(s.value_sum) AS value_sum,
               max(s.value_max) AS value_max, min(s.value_min) AS value_min,
               billing.latest_usage_event(s.last_event) AS last_event, count(DISTINCT s.distinct_value) AS texts
        FROM billing.usage_states(
            of_meter.event_name, usage_sources.customer, of_meter.aggregation, of_meter.value_key, of_meter.dimension_keys,
            windows, usage_sources.dimensions, NULL) s
        GROUP BY s.window_no
    ), sources AS (
        SELECT s.window_no, w.start_time, w.end_time, s.event_count,
               CASE WHEN NOT isfinite(w.start_time) THEN 'the level at the start'
                    WHEN w.end_time - w.start_time = interval '24 hours' THEN 'day'
                    WHEN w.end_time - w.start_time = interval '1 hour' THEN 'hour' ELSE 'in a cut hour' END AS width,
               CASE of_meter.aggregation
                   WHEN 'count' THEN s.event_count WHEN 'max' THEN s.value_max WHEN 'min' THEN s.value_min
                   WHEN 'last' THEN (s.last_event).value WHEN 'unique_count' THEN s.texts ELSE s.value_sum END AS quantity
        FROM states s
        CROSS JOIN LATERAL (SELECT windows[s.window_no], windows[s.window_no + 1]) w (start_time, end_time)
        WHERE CASE of_meter.aggregation WHEN 'unique_count' THEN s.texts ELSE s.event_count END <> 0
    )
    SELECT r.part, r.start_time, r.end_time, r.quantity, r.note
    FROM (
        SELECT CASE s.width WHEN 'in a cut hour' THEN 'events' ELSE 'bucket' END AS part,
               nullif(s.start_time, '-infinity') AS start_time, s.end_time, trim_scale(s.quantity) AS quantity,
               concat_ws(', ', s.width,
                   s.event_count || CASE WHEN s.event_count = 1 THEN ' event' ELSE ' events' END,
                   CASE WHEN EXISTS (
                       SELECT FROM unnest(waiting) q (hour)
                       WHERE q.hour >= date_trunc('hour', s.start_time, 'UTC') AND q.hour < s.end_time)
                        THEN 'some of it not rolled up yet' END) AS note,
               s.window_no AS place, 0 AS depth, NULL::timestamptz AS received_at, NULL::text AS identifier
        FROM sources s
        UNION ALL
        SELECT 'event', e."timestamp", NULL,
               CASE of_meter.aggregation WHEN 'count' THEN 1 WHEN 'unique_count' THEN NULL ELSE e.value END,
               concat_ws(' ', e.identifier, e.dimensions::text), width_bucket(e."timestamp", windows), 1, e.received_at,
               e.identifier
        FROM billing.meter_events e
        WHERE usage_sources.events AND e.customer = usage_sources.customer AND e.event_name = of_meter.event_name
          AND e."timestamp" >= usage_sources.period_start AND e."timestamp" < usage_sources.period_end
          AND e.cancelled_at IS NULL
          AND (usage_sources.dimensions IS NULL
               OR e.dimensions @> ANY (billing.filter_alternatives(usage_sources.dimensions)))
    ) r
    -- An event follows what counts it.
    ORDER BY r.place, r.depth, r.start_time, r.received_at, r.identifier;
END $$;
COMMENT ON FUNCTION billing.usage_sources(text, text, timestamptz, timestamptz, jsonb, boolean) IS
'What a customer''s usage over a period is read from: a row for each bucket (of a UTC day, or an hour at the edges) and for the
events of an hour that a bound cuts, wherever there are any; with events each event after the one that counts it. quantity
is by the meter''s aggregation: buckets of max, min, last and unique_count do not add up, those of weighted_sum are changes
of the level. dimensions as a price''s dimension_filters. Internal.';

CREATE FUNCTION billing.charge_of_credit(line billing.invoice_lines)
RETURNS TABLE (amount bigint, charged tstzrange, note text)
LANGUAGE sql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp AS $$
    SELECT x.charge_amount, tstzrange(c.period_start, c.period_end),
           concat('what invoice ', coalesce(i.number, i.id), ' charges for it',
                  CASE WHEN x.charge_amount <> c.amount THEN ', less credit notes' END)
    FROM billing.invoice_items x
    CROSS JOIN LATERAL billing.charge_line(x.charge) c
    JOIN billing.invoices i ON i.id = c.invoice
    WHERE x.id = ($1).invoice_item
$$;
COMMENT ON FUNCTION billing.charge_of_credit(billing.invoice_lines) IS
'What an unused_time line gives back part of: what was charged, before discounts, for which time, and on which invoice.
No row for any other line. Internal.';

CREATE FUNCTION billing.lines_billed_before(line billing.invoice_lines)
RETURNS TABLE (start_time timestamptz, end_time timestamptz, quantity numeric, amount bigint, note text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT b.period_start, b.period_end, b.quantity, b.amount,
           concat_ws(' ', CASE WHEN b.kind = 'late_usage' THEN 'late usage on' END,
                     CASE WHEN i.billing_reason = 'subscription_threshold' THEN 'threshold' END,
                     CASE i.status WHEN 'draft' THEN 'draft' WHEN 'void' THEN 'void invoice' ELSE 'invoice' END,
                     coalesce(i.number, i.id))
    FROM billing.invoice_lines b
    JOIN billing.invoices i ON i.id = b.invoice
    JOIN billing.invoices own ON own.id = ($1).invoice
    WHERE b.subscription_item = ($1).subscription_item AND b.price = ($1).price AND b.period_start = ($1).period_start
      AND b.id <> ($1).id
      AND CASE ($1).kind WHEN 'usage' THEN b.kind = 'usage' AND i.billing_reason = 'subscription_threshold'
                         ELSE b.kind IN ('usage', 'late_usage') END
      -- A draft is rated against what there is; what is final, against what there was.
      AND CASE own.status WHEN 'draft' THEN i.regenerated_as IS NULL
                          ELSE b.id < ($1).id AND coalesce(i.regenerated_as > own.id, true) END
    ORDER BY b.id
$$;
COMMENT ON FUNCTION billing.lines_billed_before(billing.invoice_lines) IS
'What a line takes off because it was billed before: threshold invoices of the period of a usage line; whatever was billed
of the period of a late_usage line. Internal.';

CREATE FUNCTION billing.explained(
    part text, amount numeric, note text, quantity numeric DEFAULT NULL, start_time timestamptz DEFAULT NULL,
    end_time timestamptz DEFAULT NULL
) RETURNS TABLE (part text, start_time timestamptz, end_time timestamptz, quantity numeric, tier_from numeric,
                 tier_up_to numeric, unit_amount numeric, flat_amount numeric, amount numeric, note text)
LANGUAGE sql IMMUTABLE ROWS 1
BEGIN ATOMIC
    SELECT $1, $5, $6, trim_scale($4), NULL::numeric, NULL::numeric, NULL::numeric, NULL::numeric, trim_scale($2), $3;
END;
COMMENT ON FUNCTION billing.explained(text, numeric, text, numeric, timestamptz, timestamptz) IS
'A row of billing.explain_invoice_line. Internal.';

CREATE FUNCTION billing.share_of_time(amount numeric, part tstzrange, whole tstzrange) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN round($1 * extract(epoch FROM upper($2) - lower($2)) / extract(epoch FROM upper($3) - lower($3)), 12);
COMMENT ON FUNCTION billing.share_of_time(numeric, tstzrange, tstzrange) IS
'An amount times the length of part over the length of whole, to twelve places: to show; billing.prorated_amount bills.
Internal.';

CREATE FUNCTION billing.explained_usage(
    line billing.invoice_lines, price billing.prices, terms billing.price, customer text
) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws('; ',
        format('%s of meter %s', m.aggregation, m.event_name)
            || coalesce(' where ' || (($2).dimension_filters)::text, ''),
        CASE WHEN u.change <> 0 THEN
            format('usage has changed since this was rated, by %s to %s', to_char(u.change, 'FMSG') || abs(u.change),
                   q.quantity)
            || CASE WHEN w.change <> 0 THEN format(', the amount by %s', to_char(w.change, 'FMSG') || abs(w.change)) ELSE '' END END,
        CASE WHEN EXISTS (
            SELECT FROM billing.meter_event_partitions d
            WHERE d.dropped_at IS NOT NULL AND d.min_timestamp < ($1).period_end AND d.max_timestamp >= ($1).period_start)
             THEN 'billing.retention has dropped events of this period' END)
    FROM billing.meters m
    CROSS JOIN LATERAL billing.usage_quantities(
        ARRAY[($2).id], ARRAY[$4], ARRAY[($1).period_start], ARRAY[($1).period_end]) q
    CROSS JOIN LATERAL (SELECT trim_scale(q.quantity - ($1).quantity)) u (change)
    CROSS JOIN LATERAL (
        SELECT billing.price_fitting_amount($3, q.quantity)::numeric
               - billing.price_fitting_amount($3, ($1).quantity)) w (change)
    WHERE m.event_name = ($2).meter
$$;
COMMENT ON FUNCTION billing.explained_usage(billing.invoice_lines, billing.prices, billing.price, text) IS
'What the quantity of a usage line is, and how far the usage has moved from it since. Internal.';

CREATE FUNCTION billing.explain_invoice_line(line text, events boolean DEFAULT false)
RETURNS TABLE (part text, start_time timestamptz, end_time timestamptz, quantity numeric, tier_from numeric,
               tier_up_to numeric, unit_amount numeric, flat_amount numeric, amount numeric, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    found billing.invoice_lines;
    invoice billing.invoices;
    subscription billing.subscriptions;
    of_price billing.prices;
    terms billing.price;
    is_usage boolean;
    service tstzrange;
    whole tstzrange;
    charged bigint;
    sum numeric;  -- of the steps so far
    rated bigint;
    step numeric;
    why text;
BEGIN
    PERFORM billing.require_argument('line', explain_invoice_line.line),
            billing.require_argument('events', explain_invoice_line.events);
    SELECT l.* INTO found FROM billing.invoice_lines l WHERE l.id = explain_invoice_line.line;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'invoice line "%" does not exist', explain_invoice_line.line
            USING ERRCODE = 'undefined_object', HINT = 'See billing.invoice_lines for the lines there are.';
    END IF;
    SELECT i.* INTO invoice FROM billing.invoices i WHERE i.id = found.invoice;
    SELECT s.* INTO subscription FROM billing.subscriptions s WHERE s.id = invoice.subscription;
    SELECT p.* INTO of_price FROM billing.prices p WHERE p.id = found.price;
    terms := CASE WHEN of_price.currency <> invoice.currency
                  THEN billing.price_in_currency(of_price.price, invoice.currency) ELSE of_price.price END;
    is_usage := found.kind IN ('usage', 'late_usage');
    service := tstzrange(found.period_start, found.period_end);

    IF is_usage THEN
        RETURN QUERY
        SELECT x.*
        FROM billing.usage_sources(of_price.meter, invoice.customer, found.period_start, found.period_end,
                                   of_price.dimension_filters, explain_invoice_line.events) s
        CROSS JOIN LATERAL billing.explained(s.part, NULL, s.note, s.quantity, s.start_time, s.end_time) x;
    END IF;
    RETURN QUERY SELECT x.* FROM billing.explained(
        'quantity', NULL,
        CASE WHEN is_usage THEN billing.explained_usage(found, of_price, terms, invoice.customer)
             ELSE found.description END,
        found.quantity, found.period_start, found.period_end) x;

    IF found.kind = 'unused_time' THEN
        SELECT c.amount, c.charged, c.note INTO charged, whole, why FROM billing.charge_of_credit(found) c;
    END IF;
    IF charged IS NOT NULL THEN
        sum := -billing.share_of_time(charged, service, whole);
        RETURN QUERY SELECT x.* FROM billing.explained(
            'billed before', -charged, why, NULL, lower(whole), upper(whole)) x;
        IF sum <> -charged THEN
            RETURN QUERY SELECT x.* FROM billing.explained(
                'proration', sum + charged, 'stays charged: only part of that time is given back', NULL,
                found.period_start, found.period_end) x;
        END IF;
    ELSIF of_price.id IS NULL OR found.kind = 'unused_time' THEN
        sum := found.amount;
        RETURN QUERY SELECT x.* FROM billing.explained(
            'given', sum, 'as the item was added') x;
    ELSE
        sum := billing.price_amount(terms, found.quantity);
        RETURN QUERY
        SELECT t.part, NULL::timestamptz, NULL::timestamptz, t.quantity, t.tier_from, t.tier_up_to, t.unit_amount,
               t.flat_amount, t.amount, t.note
        FROM billing.price_steps(terms, found.quantity) t;
    END IF;

    IF found.kind = 'licensed' THEN
        rated := billing.price_fitting_amount(terms, found.quantity);
        IF found.proration THEN
            whole := billing.period_containing(subscription.billing_cycle_anchor, of_price."interval",
                                               of_price.interval_count, found.period_start);
            step := billing.share_of_time(sum, service, whole) - sum;
            why := format('the share of the whole period from %s to %s', lower(whole) AT TIME ZONE 'UTC',
                          upper(whole) AT TIME ZONE 'UTC');
            -- Another anchor then, so the whole is not known any more.
            IF abs(found.amount - sum - step) > 0.500001 THEN
                step := found.amount - sum;
                why := 'the share of a whole period of an anchor that the subscription had then';
            END IF;
        ELSIF found.amount = 0 AND rated <> 0 THEN
            step := -sum;
            why := CASE WHEN found.period_start < subscription.trial_end THEN 'free trial'
                        ELSE 'free until the first boundary, as proration_behavior is none' END;
        END IF;
        IF step <> 0 THEN
            sum := sum + step;
            RETURN QUERY SELECT x.* FROM billing.explained('proration', step, why, NULL, found.period_start,
                                                           found.period_end) x;
        END IF;
    END IF;

    IF is_usage THEN
        rated := billing.price_fitting_amount(terms, found.quantity);
        IF rated IS NULL THEN
            RETURN QUERY SELECT x.* FROM billing.explained(
                'unrated', found.amount - sum, 'beyond the range of bigint: the invoice waits until usage is corrected') x;
            sum := found.amount;
        ELSE
            IF rated <> sum THEN
                RETURN QUERY SELECT x.* FROM billing.explained(
                    'rounding', rated - sum, 'once, to the minor unit, half away from zero') x;
            END IF;
            RETURN QUERY SELECT x.* FROM billing.lines_billed_before(found) b
                CROSS JOIN LATERAL billing.explained('billed before', -b.amount, b.note, b.quantity, b.start_time,
                                                     b.end_time) x;
            sum := rated - (SELECT coalesce(sum(b.amount), 0) FROM billing.lines_billed_before(found) b);
            IF sum < found.amount AND EXISTS (
                SELECT FROM billing.lines_billed_before(found) b WHERE b.note LIKE '%void invoice%')
            THEN
                RETURN QUERY SELECT x.* FROM billing.explained(
                    'waived', found.amount - sum, 'billed on a void invoice, so there is nothing to give back of it') x;
                sum := found.amount;
            ELSIF sum < found.amount AND sum < 0 THEN
                RETURN QUERY SELECT x.* FROM billing.explained(
                    'credited', found.amount - sum, 'by credit notes, so it is not given back again') x;
                sum := found.amount;
            END IF;
        END IF;
    END IF;
    IF found.amount <> sum THEN
        RETURN QUERY SELECT x.* FROM billing.explained(
            CASE WHEN NOT is_usage AND abs(found.amount - sum) <= 0.500001 THEN 'rounding' ELSE 'difference' END,
            found.amount - sum,
            CASE WHEN is_usage THEN 'what other invoices had billed of it by then'
                 WHEN abs(found.amount - sum) <= 0.500001 THEN 'once, to the minor unit, half away from zero'
                 WHEN found.kind = 'unused_time' THEN 'no more than was left to give back'
                 ELSE 'the amount was given, not rated' END) x;
    END IF;
    RETURN QUERY SELECT x.* FROM billing.explained('amount', found.amount, found.description, NULL, found.period_start,
                                                   found.period_end) x;

    RETURN QUERY
    SELECT x.* FROM jsonb_array_elements(found.discount_amounts) d
    CROSS JOIN LATERAL billing.explained('discount', -(d ->> 'amount')::numeric, d ->> 'discount') x;
    RETURN QUERY
    SELECT x.* FROM jsonb_array_elements(found.credit_amounts) c
    CROSS JOIN LATERAL billing.explained('credit', -(c ->> 'amount')::numeric, c ->> 'credit_grant') x;
    RETURN QUERY
    SELECT x.* FROM jsonb_array_elements(found.taxes) t
    CROSS JOIN LATERAL billing.explained(
        'tax', (t ->> 'amount')::numeric, concat_ws(', ', t ->> 'tax_rate', t ->> 'tax_behavior', t ->> 'taxability_reason'),
        (t ->> 'taxable_amount')::numeric) x;
END $$;
COMMENT ON FUNCTION billing.explain_invoice_line(text, boolean) IS
'How the amount of an invoice line came about, step by step, to be read from top to bottom. First the quantity: what usage
was read from (part bucket: a UTC day or hour; events: those of an hour that a bound of the period cuts; with events each
one: event) and quantity itself, with a note if the usage has changed since it was rated. Then what adds up, in minor
units, exact: the price (unit, package, tier, minimum, maximum), the share of time (proration), rounding, what other
invoices billed (billed before) or waived (waived); given for an amount that no price says, unrated for what bigint cannot
hold, difference for what can no longer be said. Rows before amount add up to amount, which is the line''s. After it what
becomes of it: discount and credit (below zero), and tax, whose quantity is the taxable amount. Buckets, events and quantity have no amount. Works for drafts
too. Errors: 42704 unknown line; 22004 NULL.';
