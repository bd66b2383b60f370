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
    PERFORM billing.require_argument('start_time', start_time), billing.require_argument('end_time', end_time),
            billing.require_argument('timezone', timezone);
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

CREATE FUNCTION billing.see_partitions() RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Opening a relation that the transaction has not locked is what makes a session read the messages of others.
    -- Nothing else locks this sequence in this mode, and asking for its size lets go of the lock at once.
    PERFORM pg_relation_size('billing.alert_events_id_seq');
END $$;
COMMENT ON FUNCTION billing.see_partitions() IS
'Has the session take notice of partitions of billing.meter_events that others attached meanwhile. A transaction that
has read the table once would go on without them, and miss committed events that its snapshot has. Internal.';

CREATE FUNCTION billing.usage_states(
    meter billing.meters, customer text, bounds timestamptz[], filter jsonb, received_before timestamptz
) RETURNS TABLE (
    window_no int, event_count bigint, value_sum numeric, value_time_sum numeric, value_max numeric, value_min numeric,
    last_event billing.usage_last_event, distinct_value text
)
-- The queue's size misleads the planner: starting workers or compiling would take longer than the whole answer.
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
#variable_conflict use_column
DECLARE
    of_meter text := meter.event_name;
    of_customer text := usage_states.customer;
    aggregation text := meter.aggregation;
    value_key text := meter.value_key;
    folded_only boolean := received_before IS NOT NULL;
    lo timestamptz := bounds[1];
    hi timestamptz := bounds[cardinality(bounds)];
    filter_keys text[] := ARRAY(SELECT jsonb_object_keys(filter));
    -- Buckets know the declared dimensions only.
    events_only boolean := NOT filter_keys <@ meter.dimension_keys;
    cut_hours timestamptz[] := '{}';
    cut_days timestamptz[] := '{}';
    ranges_from timestamptz[] := '{}';
    ranges_to timestamptz[];
    received_from timestamptz;
    received_to timestamptz;
BEGIN
    IF events_only THEN
        ranges_from := ARRAY[lo];
        ranges_to := ARRAY[hi];
    ELSE
        cut_hours := ARRAY(
            SELECT DISTINCT date_trunc('hour', b.at, 'UTC') FROM unnest(bounds) AS b (at)
            WHERE b.at <> date_trunc('hour', b.at, 'UTC'));
        IF NOT folded_only AND aggregation IN ('last', 'max', 'min', 'unique_count') THEN
            -- A cancelled event cannot be subtracted from these: until roll_up() rebuilds the hour, its events count.
            cut_hours := cut_hours || ARRAY(
                SELECT DISTINCT p.hour FROM billing.usage_pending p
                WHERE p.rebuild AND p.customer = of_customer AND p.event_name = of_meter
                  AND p.hour >= date_trunc('hour', lo, 'UTC') AND p.hour < hi AND p.hour <> ALL (cut_hours));
        END IF;
        cut_days := ARRAY(
            SELECT date_trunc('day', b.at, 'UTC') FROM unnest(bounds) AS b (at)
            WHERE b.at <> date_trunc('day', b.at, 'UTC')
            UNION
            SELECT date_trunc('day', h.hour, 'UTC') FROM unnest(cut_hours) AS h (hour));
        IF cardinality(cut_hours) <= 24 THEN
            SELECT coalesce(array_agg(greatest(h.hour, lo)), '{}'), array_agg(least(h.hour + interval '1 hour', hi))
            INTO ranges_from, ranges_to FROM unnest(cut_hours) AS h (hour);
        ELSE
            -- One pass over the events costs less than that many look-ups.
            SELECT ARRAY[greatest(min(h.hour), lo)], ARRAY[least(max(h.hour) + interval '1 hour', hi)]
            INTO ranges_from, ranges_to FROM unnest(cut_hours) AS h (hour);
        END IF;

        IF aggregation = 'unique_count' THEN
            RETURN QUERY
            SELECT DISTINCT width_bucket(s.at, bounds), NULL::bigint, NULL::numeric, NULL::numeric, NULL::numeric,
                   NULL::numeric, NULL::billing.usage_last_event, s.value
            FROM (
                SELECT v.start, v.value FROM billing.usage_distinct_values v
                WHERE v.customer = of_customer AND v.event_name = of_meter AND v.width = 'day'
                  AND v.start >= lo AND v.start < hi AND v.start <> ALL (cut_days)
                  AND (filter IS NULL OR v.dimensions @> filter)
                UNION ALL
                SELECT v.start, v.value FROM unnest(cut_days) AS d (day)
                JOIN billing.usage_distinct_values v
                  ON v.customer = of_customer AND v.event_name = of_meter AND v.width = 'hour'
                 AND v.start >= greatest(d.day, lo) AND v.start < least(d.day + interval '24 hours', hi)
                WHERE v.start <> ALL (cut_hours) AND (filter IS NULL OR v.dimensions @> filter)
                UNION ALL
                SELECT p.hour, u.value FROM billing.usage_pending p CROSS JOIN unnest(p.distinct_values) AS u (value)
                WHERE NOT folded_only AND p.customer = of_customer AND p.event_name = of_meter AND NOT p.rebuild
                  AND p.hour >= lo AND p.hour < hi AND p.hour <> ALL (cut_hours)
                  AND (filter IS NULL OR p.dimensions @> filter)
            ) AS s (at, value);
        ELSE
            RETURN QUERY
            SELECT width_bucket(s.start, bounds), sum(s.event_count)::bigint, sum(s.value_sum), sum(s.value_time_sum),
                   max(s.value_max), min(s.value_min),
                   billing.latest_usage_event(
                       (s.last_timestamp, s.last_received_at, s.last_identifier, s.last_value)
                           ::billing.usage_last_event)
                       FILTER (WHERE s.last_timestamp IS NOT NULL),
                   NULL::text
            FROM (
                SELECT b.start, b.event_count, b.value_sum, b.value_time_sum, b.value_max, b.value_min,
                       b.last_value, b.last_timestamp, b.last_received_at, b.last_identifier
                FROM billing.usage_buckets b
                WHERE b.customer = of_customer AND b.event_name = of_meter AND b.width = 'day'
                  AND b.start >= lo AND b.start < hi AND b.start <> ALL (cut_days)
                  AND (filter IS NULL OR b.dimensions @> filter)
                UNION ALL
                SELECT b.start, b.event_count, b.value_sum, b.value_time_sum, b.value_max, b.value_min,
                       b.last_value, b.last_timestamp, b.last_received_at, b.last_identifier
                FROM unnest(cut_days) AS d (day)
                JOIN billing.usage_buckets b
                  ON b.customer = of_customer AND b.event_name = of_meter AND b.width = 'hour'
                 AND b.start >= greatest(d.day, lo) AND b.start < least(d.day + interval '24 hours', hi)
                WHERE b.start <> ALL (cut_hours) AND (filter IS NULL OR b.dimensions @> filter)
                UNION ALL
                SELECT p.hour, p.event_count, p.value_sum, p.value_time_sum, p.value_max, p.value_min,
                       p.last_value, p.last_timestamp, p.last_received_at, p.last_identifier
                FROM billing.usage_pending p
                WHERE NOT folded_only AND p.customer = of_customer AND p.event_name = of_meter AND NOT p.rebuild
                  AND p.hour >= lo AND p.hour < hi AND p.hour <> ALL (cut_hours)
                  AND (filter IS NULL OR p.dimensions @> filter)
            ) AS s
            GROUP BY 1;
        END IF;
    END IF;

    IF cardinality(ranges_from) = 0 THEN
        RETURN;
    END IF;
    PERFORM billing.see_partitions();
    -- Partitions go by the time of receipt: by timestamp alone, every one would be planned and searched. A sealed one
    -- knows the timestamps it holds, so only runs of neighbours that can hold events of the ranges are looked at.
    FOR received_from, received_to IN
        SELECT min(n.lower_bound), max(n.upper_bound)
        FROM (
            SELECT w.lower_bound, w.upper_bound, w.wanted,
                   count(*) FILTER (WHERE NOT w.wanted) OVER (ORDER BY w.lower_bound) AS run
            FROM (
                SELECT p.lower_bound, p.upper_bound, p.sealed_at IS NULL OR EXISTS (
                           SELECT FROM unnest(ranges_from, ranges_to) AS r (range_from, range_to)
                           WHERE p.min_timestamp < r.range_to AND p.max_timestamp >= r.range_from) AS wanted
                FROM billing.meter_event_partitions p
                UNION ALL
                -- Made after this snapshot: nobody else's events in it are visible, but this transaction's own are.
                SELECT coalesce(max(p.upper_bound), '-infinity'), 'infinity', true FROM billing.meter_event_partitions p
            ) w
        ) n
        WHERE n.wanted
        GROUP BY n.run
    LOOP
        RETURN QUERY
        SELECT width_bucket(e."timestamp", bounds), count(*), sum(e.value),
               CASE aggregation WHEN 'weighted_sum' THEN sum(e.value * extract(epoch FROM e."timestamp") * 1000000) END,
               max(e.value), min(e.value),
               billing.latest_usage_event(
                   (e."timestamp", e.received_at, e.identifier, e.value)::billing.usage_last_event)
                   FILTER (WHERE aggregation = 'last'),
               CASE aggregation WHEN 'unique_count' THEN e.dimensions ->> value_key END
        FROM unnest(ranges_from, ranges_to) AS r (range_from, range_to)
        JOIN billing.meter_events e
          ON e.customer = of_customer AND e.event_name = of_meter
         AND e."timestamp" >= r.range_from AND e."timestamp" < r.range_to
        WHERE e.received_at >= received_from AND e.received_at < received_to
          AND (e.cancelled_at IS NULL OR e.cancelled_at >= received_before)
          AND (NOT folded_only OR e.received_at < received_before)
          AND (events_only OR cardinality(cut_hours) <= 24
               OR date_trunc('hour', e."timestamp", 'UTC') = ANY (cut_hours))
          AND (filter IS NULL OR NOT EXISTS (
                  SELECT FROM unnest(filter_keys) AS k (key)
                  WHERE e.dimensions ->> k.key IS DISTINCT FROM filter ->> k.key))
        GROUP BY 1, 8;
    END LOOP;
END $$;
COMMENT ON FUNCTION billing.usage_states(billing.meters, text, timestamptz[], jsonb, timestamptz) IS
'A customer''s usage as states that still merge, several rows per window: window n is [bounds[n], bounds[n + 1]).
filter: an object of texts that the events'' dimensions must have, or NULL. received_before, when not NULL, asks for
what is folded in already: without pending rows, and in hours that a bound cuts with the events received before it.
Internal.';

CREATE FUNCTION billing.usage_values(
    event_name text, customer text, bounds timestamptz[], dimensions jsonb DEFAULT NULL,
    received_before timestamptz DEFAULT NULL
) RETURNS TABLE (window_no int, value numeric)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    meter billing.meters;
    filter jsonb;
BEGIN
    PERFORM billing.require_argument('event_name', usage_values.event_name),
            billing.require_argument('customer', usage_values.customer);
    SELECT m.* INTO meter FROM billing.meters m WHERE m.event_name = usage_values.event_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no meter has event_name "%" (no_meter)', usage_values.event_name
            USING ERRCODE = 'undefined_object', HINT = 'Pass the event_name of a row of billing.meters.';
    END IF;
    IF usage_values.dimensions <> '{}' THEN
        IF jsonb_typeof(usage_values.dimensions) <> 'object' OR EXISTS (
            SELECT FROM jsonb_each(usage_values.dimensions) d
            WHERE jsonb_typeof(d.value) NOT IN ('string', 'number', 'boolean')
        ) THEN
            RAISE EXCEPTION 'dimensions "%" is not an object of texts', left(usage_values.dimensions::text, 200)
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Pass the values that the events must have, such as {"region": "eu"}.';
        END IF;
        SELECT jsonb_object_agg(d.key, d.value) INTO filter FROM jsonb_each_text(usage_values.dimensions) d;
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
                   coalesce(s.change, 0) AS change, coalesce(s.change_time, 0) AS change_time,
                   coalesce(sum(s.change) OVER before_window, 0) AS level,
                   coalesce(sum(s.event_count) OVER by_window_end, 0) AS events_by_end
            FROM generate_series(1, cardinality(bounds)) AS w (window_no)
            LEFT JOIN (
                SELECT s.window_no, sum(s.event_count) AS event_count, sum(s.value_sum) AS change,
                       sum(s.value_time_sum) AS change_time
                FROM billing.usage_states(meter, usage_values.customer, '-infinity'::timestamptz || bounds,
                                          filter, received_before) s
                GROUP BY s.window_no
            ) s USING (window_no)
            WINDOW by_window_end AS (ORDER BY w.window_no),
                   before_window AS (ORDER BY w.window_no ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        ) l
        WHERE l.window_no > 1
        ORDER BY l.window_no;
        RETURN;
    END IF;

    RETURN QUERY
    SELECT w.window_no,
           trim_scale(CASE meter.aggregation
               WHEN 'sum' THEN coalesce(s.value_sum, 0)
               WHEN 'count' THEN coalesce(s.event_count, 0)
               WHEN 'unique_count' THEN coalesce(s.distinct_count, 0)
               WHEN 'max' THEN s.value_max
               WHEN 'min' THEN s.value_min
               WHEN 'last' THEN (s.last_event).value
           END)
    FROM generate_series(1, cardinality(bounds) - 1) AS w (window_no)
    LEFT JOIN (
        SELECT s.window_no, sum(s.event_count) AS event_count, sum(s.value_sum) AS value_sum,
               max(s.value_max) AS value_max, min(s.value_min) AS value_min,
               billing.latest_usage_event(s.last_event) AS last_event,
               count(DISTINCT s.distinct_value) AS distinct_count
        FROM billing.usage_states(meter, usage_values.customer, bounds, filter, received_before) s
        GROUP BY s.window_no
    ) s USING (window_no)
    ORDER BY w.window_no;
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
    PERFORM billing.require_argument('customer', customer);
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
first change, rounded to 20 places. dimensions: texts that the events must carry; keys that the meter does not declare
are looked up in the events themselves (slower). Cancelled events count nowhere. Any start and end to the microsecond;
works on a hot standby.
Errors: 42704 no_meter; 23503 meter_event_customer_not_found; 22023 an empty or infinite range, an unknown window or
time zone, dimensions that are no object of texts; 22004 an argument NULL other than value_grouping_window and
dimensions.';

CREATE FUNCTION billing.verify(event_name text, customer text, start_time timestamptz, end_time timestamptz)
RETURNS TABLE (width text, start timestamptz, dimensions jsonb, expected jsonb, actual jsonb)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    meter billing.meters;
    of_customer text := verify.customer;
    lo timestamptz := coalesce(date_trunc('day', start_time, 'UTC'), '-infinity');
    hi timestamptz := coalesce(
        date_trunc('day', end_time - interval '1 microsecond', 'UTC') + interval '24 hours', 'infinity');
BEGIN
    PERFORM billing.require_argument('event_name', verify.event_name),
            billing.require_argument('customer', verify.customer);
    SELECT m.* INTO meter FROM billing.meters m WHERE m.event_name = verify.event_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no meter has event_name "%" (no_meter)', verify.event_name
            USING ERRCODE = 'undefined_object', HINT = 'Pass the event_name of a row of billing.meters.';
    END IF;
    PERFORM billing.see_partitions();
    RETURN QUERY
    WITH widths (width) AS (VALUES ('hour'), ('day')),
    pending AS MATERIALIZED (
        SELECT p.* FROM billing.usage_pending p
        WHERE p.customer = of_customer AND p.event_name = meter.event_name AND p.hour >= lo AND p.hour < hi
    ),
    kept AS (
        SELECT b.width, b.start, b.dimensions, b.event_count, b.value_sum, b.value_time_sum, b.value_max, b.value_min,
               b.last_value, b.last_timestamp, b.last_received_at, b.last_identifier, NULL::text[] AS distinct_values
        FROM billing.usage_buckets b
        WHERE b.customer = of_customer AND b.event_name = meter.event_name AND b.start >= lo AND b.start < hi
        UNION ALL
        SELECT v.width, v.start, v.dimensions, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, ARRAY[v.value]
        FROM billing.usage_distinct_values v
        WHERE v.customer = of_customer AND v.event_name = meter.event_name AND v.start >= lo AND v.start < hi
        UNION ALL
        SELECT w.width, date_trunc(w.width, p.hour, 'UTC'), p.dimensions, p.event_count, p.value_sum, p.value_time_sum,
               p.value_max, p.value_min, p.last_value, p.last_timestamp, p.last_received_at, p.last_identifier,
               p.distinct_values
        FROM pending p CROSS JOIN widths w
    ),
    recorded AS (
        SELECT w.width, date_trunc(w.width, e."timestamp", 'UTC') AS start,
               billing.usage_dimensions(e.dimensions, meter.dimension_keys) AS dimensions, 1::bigint AS event_count,
               CASE WHEN meter.aggregation IN ('sum', 'weighted_sum') THEN e.value END AS value_sum,
               CASE meter.aggregation WHEN 'weighted_sum' THEN e.value * extract(epoch FROM e."timestamp") * 1000000 END
                   AS value_time_sum,
               CASE meter.aggregation WHEN 'max' THEN e.value END AS value_max,
               CASE meter.aggregation WHEN 'min' THEN e.value END AS value_min,
               e.value AS last_value,
               CASE meter.aggregation WHEN 'last' THEN e."timestamp" END AS last_timestamp,
               e.received_at AS last_received_at, e.identifier AS last_identifier,
               CASE meter.aggregation WHEN 'unique_count' THEN ARRAY[e.dimensions ->> meter.value_key] END
                   AS distinct_values
        FROM billing.meter_events e CROSS JOIN widths w
        WHERE e.customer = of_customer AND e.event_name = meter.event_name
          AND e."timestamp" >= lo AND e."timestamp" < hi AND e.cancelled_at IS NULL
    ),
    states AS (
        SELECT s.recomputed, s.width, s.start, s.dimensions,
               -- What is zero or missing is left out: a bucket whose events were all cancelled equals none.
               jsonb_strip_nulls(jsonb_build_object(
                   'event_count', nullif(sum(s.event_count), 0),
                   'value_sum', nullif(sum(s.value_sum), 0),
                   'value_time_sum', nullif(sum(s.value_time_sum), 0),
                   'value_max', max(s.value_max),
                   'value_min', min(s.value_min),
                   'last', to_jsonb(billing.latest_usage_event(
                       (s.last_timestamp, s.last_received_at, s.last_identifier, s.last_value)
                           ::billing.usage_last_event)
                       FILTER (WHERE s.last_timestamp IS NOT NULL)),
                   'distinct_values', (
                       SELECT jsonb_agg(DISTINCT u.value)
                       FROM unnest(array_agg(s.distinct_list)) AS d (list),
                            jsonb_array_elements_text(d.list) AS u (value)))) AS state
        FROM (
            SELECT true AS recomputed, r.*, to_jsonb(r.distinct_values) AS distinct_list FROM recorded r
            UNION ALL
            SELECT false, k.*, to_jsonb(k.distinct_values) FROM kept k
        ) s
        GROUP BY s.recomputed, s.width, s.start, s.dimensions
    )
    SELECT width, start, dimensions, e.state, a.state
    FROM (SELECT s.* FROM states s WHERE s.recomputed AND s.state <> '{}') e
    FULL JOIN (SELECT s.* FROM states s WHERE NOT s.recomputed AND s.state <> '{}') a USING (width, start, dimensions)
    WHERE e.state IS DISTINCT FROM a.state
      -- Summaries take these from the events, whatever the buckets say, until roll_up() has rebuilt them.
      AND NOT EXISTS (
          SELECT FROM pending p
          WHERE p.rebuild AND p.dimensions = coalesce(e.dimensions, a.dimensions)
            AND date_trunc(coalesce(e.width, a.width), p.hour, 'UTC') = coalesce(e.start, a.start))
    ORDER BY 2, 1, 3;
END $$;
COMMENT ON FUNCTION billing.verify(text, text, timestamptz, timestamptz) IS
'Recomputes from the events what buckets and pending rows say of the UTC days that [start_time, end_time) touches, and
returns the hour and day buckets that differ, with both states; no row: all is exact. NULL times mean no bound.
Buckets that a cancellation has marked for a rebuild are passed over. Days whose events billing.retention has dropped
differ by that.
Errors: 42704 no_meter; 22004 event_name or customer NULL.';
