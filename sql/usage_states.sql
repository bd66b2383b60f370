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
    event_name text, customer text, aggregation text, value_key text, dimension_keys text[], bounds timestamptz[],
    filter jsonb, received_before timestamptz
) RETURNS TABLE (
    window_no int, event_count bigint, value_sum numeric, value_time_sum numeric, value_max numeric, value_min numeric,
    last_event billing.usage_last_event, distinct_value text
)
AS 'MODULE_PATHNAME', 'usage_states_wrapper' LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION billing.usage_states(text, text, text, text, text[], timestamptz[], jsonb, timestamptz) IS
'A customer''s usage of a meter, given by its columns, as states that still merge: window n is [bounds[n], bounds[n + 1]),
and bounds ascend. Every window has one row, in order; with unique_count a row is a window and a text that was counted in
it, in no order, and the same again where a bucket more has it. filter: an object of texts, or arrays of texts of which
one is enough, that the events'' dimensions must have, or NULL. received_before, when not NULL, asks for what is folded in
already: without pending rows, and in hours that a bound cuts with the events received before it.
Errors: 42501 no SELECT on what is read. Internal.';
