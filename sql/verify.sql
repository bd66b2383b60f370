-- Checking buckets against events.

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
    SELECT m.* INTO meter FROM billing.meters m
    WHERE verify.event_name IN (m.event_name, m.id) ORDER BY m.event_name = verify.event_name DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no meter has event_name or id "%" (no_meter)', verify.event_name
            USING ERRCODE = 'undefined_object', HINT = 'Pass the event_name or id of a row of billing.meters.';
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
event_name: the meter''s, or its id.
Buckets that a cancellation has marked for a rebuild are passed over. Days whose events billing.retention has dropped
differ by that.
Errors: 42704 no_meter; 22004 event_name or customer NULL.';
