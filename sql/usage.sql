-- Usage over any range: full UTC days from day buckets, other full hours from hour buckets and what is pending for
-- them, hours that a bound cuts from the events. All functions are STABLE: their queries share the caller's one
-- snapshot, in which every event is either folded in or pending, so the answer is exact at any moment, and on a
-- standby too.

CREATE FUNCTION billing.usage_bounds(
    start_time timestamptz, end_time timestamptz, value_grouping_window text, timezone text
) RETURNS timestamptz[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bounds timestamptz[] := ARRAY[start_time];
    cut timestamptz := start_time;
    wall timestamp;
BEGIN
    IF start_time IS NULL OR end_time IS NULL OR timezone IS NULL THEN
        PERFORM billing.require_argument('start_time', start_time), billing.require_argument('end_time', end_time),
                billing.require_argument('timezone', timezone);
    END IF;
    IF NOT (isfinite(start_time) AND isfinite(end_time) AND start_time < end_time) THEN
        RAISE EXCEPTION 'start_time "%" must be before end_time "%", and both finite', start_time, end_time
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Ranges are half-open: [start_time, end_time).';
    END IF;
    IF value_grouping_window NOT IN ('hour', 'day', 'month') THEN
        RAISE EXCEPTION 'value_grouping_window "%" is not known', value_grouping_window
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Use ''hour'', ''day'' or ''month'', or NULL for one value over the whole range.';
    END IF;
    wall := start_time AT TIME ZONE timezone;  -- an unknown zone is 22023 here
    IF value_grouping_window IS NULL THEN
        RETURN ARRAY[start_time, end_time];
    END IF;
    LOOP
        IF value_grouping_window = 'hour' THEN
            wall := cut AT TIME ZONE timezone;
            cut := cut + (interval '1 hour' - (wall - date_trunc('hour', wall)));
        ELSE
            wall := date_trunc(value_grouping_window, wall) + ('1 ' || value_grouping_window)::interval;
            cut := wall AT TIME ZONE timezone;
            -- Where clocks fall back over midnight there are two midnights; the day begins at the first.
            IF (cut - interval '1 hour') AT TIME ZONE timezone >= wall THEN
                cut := cut - interval '1 hour';
            END IF;
            -- A day that the zone skipped has no window.
            CONTINUE WHEN cut <= bounds[cardinality(bounds)];
        END IF;
        EXIT WHEN cut >= end_time;
        bounds := bounds || cut;
    END LOOP;
    RETURN bounds || end_time;
END $$;
COMMENT ON FUNCTION billing.usage_bounds(timestamptz, timestamptz, text, text) IS
'The bounds of the windows of a range: start_time, every beginning of an hour, day or month by the clocks of timezone
within the range, end_time. An hour window ends at the next full hour on the clock, a day at the first midnight of the
next date.
Errors: 22023 an empty or infinite range, an unknown window or time zone; 22004 NULL. Internal.';

CREATE FUNCTION billing.usage_values(
    event_name text, customer text, bounds timestamptz[], dimensions jsonb DEFAULT NULL,
    received_before timestamptz DEFAULT NULL
) RETURNS TABLE (window_no int, value numeric)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    meter billing.meters;
    filter jsonb;
BEGIN
    IF usage_values.event_name IS NULL OR usage_values.customer IS NULL THEN
        PERFORM billing.require_argument('event_name', usage_values.event_name),
                billing.require_argument('customer', usage_values.customer);
    END IF;
    SELECT m.* INTO meter FROM billing.meters m WHERE m.event_name = usage_values.event_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no meter has event_name "%" (no_meter)', usage_values.event_name
            USING ERRCODE = 'undefined_object', HINT = 'Pass the event_name of a row of billing.meters.';
    END IF;
    IF usage_values.dimensions <> '{}' THEN
        IF jsonb_typeof(usage_values.dimensions) <> 'object' OR EXISTS (
            SELECT FROM jsonb_each(usage_values.dimensions) d
            WHERE jsonb_typeof(d.value) NOT IN ('string', 'number', 'boolean', 'array')
               OR jsonb_typeof(d.value) = 'array'
                  AND EXISTS (SELECT FROM jsonb_array_elements(d.value) e
                              WHERE jsonb_typeof(e) NOT IN ('string', 'number', 'boolean'))
        ) THEN
            RAISE EXCEPTION 'dimensions "%" is not an object of texts', left(usage_values.dimensions::text, 200)
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Pass the values that the events must have, such as {"region": "eu"} or {"region": ["eu", "us"]}.';
        END IF;
        SELECT jsonb_object_agg(d.key, CASE jsonb_typeof(d.value)
                   WHEN 'array' THEN to_jsonb(ARRAY(SELECT jsonb_array_elements_text(d.value)))
                   ELSE to_jsonb(d.value #>> '{}') END)
        INTO filter FROM jsonb_each(usage_values.dimensions) d;
    END IF;

    IF meter.aggregation = 'weighted_sum' THEN
        IF NOT (isfinite(bounds[1]) AND isfinite(bounds[cardinality(bounds)])) THEN
            RAISE EXCEPTION 'meter "%" aggregates by weighted_sum, which has no value over an infinite range',
                    meter.event_name
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass a finite start and end.';
        END IF;
        -- Window 1 is everything before the range: the level at its start. A change d at time t adds d × (end − t) to
        -- the integral of its window, and d × length to that of every later one.
        RETURN QUERY
        SELECT l.window_no - 1,
               CASE WHEN l.events_by_end > 0 THEN trim_scale(round(
                   round(l.level * (l.until - l.since) + l.change * l.until - l.change_time, 40)
                       / (l.until - l.since), 20)) END
        FROM (
            SELECT w.window_no,
                   extract(epoch FROM bounds[w.window_no - 1]) * 1000000 AS since,
                   extract(epoch FROM bounds[w.window_no]) * 1000000 AS until,
                   coalesce(w.value_sum, 0) AS change, coalesce(w.value_time_sum, 0) AS change_time,
                   coalesce(sum(w.value_sum) OVER before_window, 0) AS level,
                   sum(w.event_count) OVER by_window_end AS events_by_end
            FROM billing.usage_states(
                meter.event_name, usage_values.customer, meter.aggregation, meter.value_key, meter.dimension_keys,
                '-infinity'::timestamptz || bounds, filter, received_before) w
            WINDOW by_window_end AS (ORDER BY w.window_no),
                   before_window AS (ORDER BY w.window_no ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        ) l
        WHERE l.window_no > 1
        ORDER BY l.window_no;
        RETURN;
    END IF;

    IF meter.aggregation = 'unique_count' THEN
        RETURN QUERY
        SELECT w.window_no, coalesce(s.distinct_count, 0)::numeric
        FROM generate_series(1, cardinality(bounds) - 1) AS w (window_no)
        LEFT JOIN (
            SELECT s.window_no, count(DISTINCT s.distinct_value) AS distinct_count
            FROM billing.usage_states(
                meter.event_name, usage_values.customer, meter.aggregation, meter.value_key, meter.dimension_keys,
                bounds, filter, received_before) s
            GROUP BY s.window_no
        ) s USING (window_no)
        ORDER BY w.window_no;
        RETURN;
    END IF;

    RETURN QUERY
    SELECT s.window_no,
           trim_scale(CASE meter.aggregation
               WHEN 'sum' THEN coalesce(s.value_sum, 0)
               WHEN 'count' THEN s.event_count
               WHEN 'max' THEN s.value_max
               WHEN 'min' THEN s.value_min
               WHEN 'last' THEN (s.last_event).value
           END)
    FROM billing.usage_states(
        meter.event_name, usage_values.customer, meter.aggregation, meter.value_key, meter.dimension_keys,
        bounds, filter, received_before) s;
END $$;
COMMENT ON FUNCTION billing.usage_values(text, text, timestamptz[], jsonb, timestamptz) IS
'One aggregated value per window [bounds[n], bounds[n + 1]), in order; bounds ascend, and the outer ones may be
infinite (not for weighted_sum). sum, count and unique_count are 0 where there are no events; max, min and last are
NULL; weighted_sum is NULL until its first change and is rounded to 20 places. received_before as in
billing.usage_states. Errors: 42704 no_meter; 22023 dimensions that are no object of texts, an infinite range with
weighted_sum; 22004 event_name or customer NULL. Internal.';

CREATE FUNCTION billing.usage_quantity(
    event_name text, customer text, start_time timestamptz, end_time timestamptz, dimensions jsonb DEFAULT NULL
) RETURNS numeric
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF start_time >= end_time THEN
        RAISE EXCEPTION 'start_time "%" must be before end_time "%"', start_time, end_time
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Ranges are half-open: [start_time, end_time).';
    END IF;
    RETURN (SELECT v.value FROM billing.usage_values(
        event_name, customer, ARRAY[coalesce(start_time, '-infinity'), coalesce(end_time, 'infinity')], dimensions) v);
END $$;
COMMENT ON FUNCTION billing.usage_quantity(text, text, timestamptz, timestamptz, jsonb) IS
'A customer''s usage over [start_time, end_time), exact and current; a NULL time means no bound on that side. 0 or
NULL without events, as the meter''s aggregation goes (see billing.meter_event_summaries); an unknown customer has no
events.
Errors: 42704 no_meter; 22023 an empty range, dimensions that are no object of texts, an infinite range with
weighted_sum; 22004 event_name or customer NULL.';

CREATE FUNCTION billing.customer_usage_values(event_name text, customer text, bounds timestamptz[], dimensions jsonb)
RETURNS TABLE (window_no int, value numeric)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF customer IS NULL THEN
        PERFORM billing.require_argument('customer', customer);
    END IF;
    IF NOT EXISTS (SELECT FROM billing.customers c WHERE c.id = customer_usage_values.customer) THEN
        RAISE EXCEPTION 'customer "%" does not exist (meter_event_customer_not_found)', customer
            USING ERRCODE = 'foreign_key_violation', HINT = 'Pass the id of a row of billing.customers.';
    END IF;
    RETURN QUERY SELECT v.* FROM billing.usage_values(event_name, customer, bounds, dimensions) v;
END $$;
COMMENT ON FUNCTION billing.customer_usage_values(text, text, timestamptz[], jsonb) IS
'billing.usage_values, with an unknown customer refused (23503 meter_event_customer_not_found). Internal.';

-- In SQL because PL/pgSQL would not take start_time and end_time as arguments and result columns at once.
CREATE FUNCTION billing.meter_event_summaries(
    event_name text, customer text, start_time timestamptz, end_time timestamptz,
    value_grouping_window text DEFAULT NULL, dimensions jsonb DEFAULT NULL, timezone text DEFAULT 'UTC'
) RETURNS TABLE (start_time timestamptz, end_time timestamptz, aggregated_value numeric)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT w.bounds[v.window_no], w.bounds[v.window_no + 1], v.value
    FROM billing.usage_bounds($3, $4, $5, $7) AS w (bounds),
         LATERAL billing.customer_usage_values($1, $2, w.bounds, $6) v
    ORDER BY v.window_no;
END;
COMMENT ON FUNCTION billing.meter_event_summaries(text, text, timestamptz, timestamptz, text, jsonb, text) IS
'A customer''s usage over [start_time, end_time), exact and current: what is committed is in it, rolled up or not, and
the caller''s own uncommitted events too. One row, or one for every hour, day or month by the clocks of timezone (days
of 23 or 25 hours where clocks change); the first and last window are cut to the range. Without events sum, count and
unique_count are 0; max, min and last are NULL. weighted_sum is the level''s average over the window, NULL until its
first change, rounded to 20 places. dimensions: texts that the events must carry, or arrays of texts of which they must carry one; keys that the meter does not declare
are looked up in the events themselves (slower). Cancelled events count nowhere. Any start and end to the microsecond;
works on a hot standby.
Errors: 42704 no_meter; 23503 meter_event_customer_not_found; 22023 an empty or infinite range, an unknown window or
time zone, dimensions that are no object of texts; 22004 an argument NULL other than value_grouping_window and
dimensions.';
