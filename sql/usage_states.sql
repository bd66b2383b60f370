-- A customer's usage as states that still merge: from buckets and queue, and from events where those do not serve.

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

CREATE FUNCTION billing.usage_event_states(
    event_name text, customer text, aggregation text, value_key text, bounds timestamptz[],
    ranges_from timestamptz[], ranges_to timestamptz[], only_hours timestamptz[], filter jsonb, received_before timestamptz
) RETURNS TABLE (
    window_no int, event_count bigint, value_sum numeric, value_time_sum numeric, value_max numeric, value_min numeric,
    last_event billing.usage_last_event, distinct_value text
)
AS 'MODULE_PATHNAME', 'usage_event_states_wrapper' LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION billing.usage_event_states(
    text, text, text, text, timestamptz[], timestamptz[], timestamptz[], timestamptz[], jsonb, timestamptz) IS
'billing.usage_states from the events of the ranges (parallel arrays) alone; only_hours, when not NULL, keeps to events
of those hours. Looks at the partitions that can hold such events, one by one. Only for billing.usage_states, under its
settings. Errors: 42501 no SELECT on billing.meter_events. Internal.';

CREATE FUNCTION billing.filter_alternatives(filter jsonb) RETURNS jsonb[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM jsonb_each(filter) f WHERE jsonb_typeof(f.value) = 'array') THEN
        RETURN ARRAY[filter];
    END IF;
    RETURN (
        WITH RECURSIVE keys AS (
            SELECT row_number() OVER () AS nth, f.key,
                   CASE jsonb_typeof(f.value) WHEN 'array' THEN f.value ELSE jsonb_build_array(f.value) END AS texts
            FROM jsonb_each(filter) f
        ), alternatives AS (
            SELECT 0::bigint AS nth, '{}'::jsonb AS object
            UNION ALL
            SELECT k.nth, a.object || jsonb_build_object(k.key, t.value)
            FROM alternatives a JOIN keys k ON k.nth = a.nth + 1
            CROSS JOIN LATERAL jsonb_array_elements(k.texts) AS t (value)
        )
        SELECT coalesce(array_agg(a.object), '{}') FROM alternatives a WHERE a.nth = (SELECT count(*) FROM keys));
END $$;
COMMENT ON FUNCTION billing.filter_alternatives(jsonb) IS
'A filter of texts and arrays of texts as the plain objects of which dimensions must hold one. Internal.';

CREATE FUNCTION billing.usage_states(
    meter billing.meters, customer text, bounds timestamptz[], filter jsonb, received_before timestamptz
) RETURNS TABLE (
    window_no int, event_count bigint, value_sum numeric, value_time_sum numeric, value_max numeric, value_min numeric,
    last_event billing.usage_last_event, distinct_value text
)
-- Planning would take several times as long as the look-ups, so plans are kept; without sequential scans, which look best
-- while tables are empty, they stay good when these grow. The queue's size misleads the planner: starting workers or
-- compiling would take longer than the whole answer.
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
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
    filters jsonb[] := CASE WHEN filter IS NOT NULL THEN billing.filter_alternatives(filter) END;
    -- Buckets know the declared dimensions only.
    events_only boolean := NOT filter_keys <@ meter.dimension_keys;
    cut_hours timestamptz[] := '{}';
    cut_days timestamptz[] := '{}';
    ranges_from timestamptz[] := '{}';
    ranges_to timestamptz[];
BEGIN
    IF events_only THEN
        ranges_from := ARRAY[lo];
        ranges_to := ARRAY[hi];
    ELSE
        cut_hours := ARRAY(
            SELECT DISTINCT date_trunc('hour', b.at, 'UTC') FROM unnest(bounds) AS b (at)
            WHERE b.at <> date_trunc('hour', b.at, 'UTC'));
        -- Here and below: OFFSET 0 has the queue's rows compared by customer before anything else of them is unpacked, and
        -- the hours of each day looked up by their own range, where a join would read all hours of the customer.
        IF NOT folded_only AND aggregation IN ('last', 'max', 'min', 'unique_count') THEN
            -- A cancelled event cannot be subtracted from these: until roll_up() rebuilds the hour, its events count.
            cut_hours := cut_hours || ARRAY(
                SELECT DISTINCT p.hour
                FROM (SELECT q.hour, q.rebuild FROM billing.usage_pending q
                      WHERE q.customer = of_customer AND q.event_name = of_meter OFFSET 0) p
                WHERE p.rebuild
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
                  AND (filters IS NULL OR v.dimensions @> ANY (filters))
                UNION ALL
                SELECT h.start, h.value
                FROM unnest(cut_days) AS d (day)
                CROSS JOIN LATERAL (
                    SELECT v.* FROM billing.usage_distinct_values v
                    WHERE v.customer = of_customer AND v.event_name = of_meter AND v.width = 'hour'
                      AND v.start >= greatest(d.day, lo) AND v.start < least(d.day + interval '24 hours', hi)
                    OFFSET 0
                ) h
                WHERE h.start <> ALL (cut_hours) AND (filters IS NULL OR h.dimensions @> ANY (filters))
                UNION ALL
                SELECT p.hour, u.value
                FROM (SELECT * FROM billing.usage_pending q
                      WHERE q.customer = of_customer AND q.event_name = of_meter OFFSET 0) p
                CROSS JOIN unnest(p.distinct_values) AS u (value)
                WHERE NOT folded_only AND p.hour >= lo AND p.hour < hi AND p.hour <> ALL (cut_hours)
                  AND (filters IS NULL OR p.dimensions @> ANY (filters))
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
                  AND (filters IS NULL OR b.dimensions @> ANY (filters))
                UNION ALL
                SELECT h.start, h.event_count, h.value_sum, h.value_time_sum, h.value_max, h.value_min,
                       h.last_value, h.last_timestamp, h.last_received_at, h.last_identifier
                FROM unnest(cut_days) AS d (day)
                CROSS JOIN LATERAL (
                    SELECT b.* FROM billing.usage_buckets b
                    WHERE b.customer = of_customer AND b.event_name = of_meter AND b.width = 'hour'
                      AND b.start >= greatest(d.day, lo) AND b.start < least(d.day + interval '24 hours', hi)
                    OFFSET 0
                ) h
                WHERE h.start <> ALL (cut_hours) AND (filters IS NULL OR h.dimensions @> ANY (filters))
                UNION ALL
                SELECT p.hour, p.event_count, p.value_sum, p.value_time_sum, p.value_max, p.value_min,
                       p.last_value, p.last_timestamp, p.last_received_at, p.last_identifier
                FROM (SELECT * FROM billing.usage_pending q
                      WHERE q.customer = of_customer AND q.event_name = of_meter OFFSET 0) p
                WHERE NOT folded_only AND p.hour >= lo AND p.hour < hi AND p.hour <> ALL (cut_hours)
                  AND (filters IS NULL OR p.dimensions @> ANY (filters))
            ) AS s
            GROUP BY 1;
        END IF;
    END IF;

    IF cardinality(ranges_from) > 0 THEN
        RETURN QUERY
        SELECT s.* FROM billing.usage_event_states(
            of_meter, of_customer, aggregation, value_key, bounds, ranges_from, ranges_to,
            CASE WHEN NOT events_only AND cardinality(cut_hours) > 24 THEN cut_hours END, filter, received_before) s;
    END IF;
END $$;
COMMENT ON FUNCTION billing.usage_states(billing.meters, text, timestamptz[], jsonb, timestamptz) IS
'A customer''s usage as states that still merge, several rows per window: window n is [bounds[n], bounds[n + 1]).
filter: an object of texts, or arrays of texts of which one is enough, that the events'' dimensions must have, or NULL. received_before, when not NULL, asks for
what is folded in already: without pending rows, and in hours that a bound cuts with the events received before it.
Internal.';
