-- Folding: takes what is pending into the buckets, and finds the alerts that this makes cross their thresholds.

CREATE FUNCTION billing.usage_folded(
    event_name text, customer text, period_start timestamptz, period_end timestamptz, received_before timestamptz
) RETURNS numeric
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT v.value FROM billing.usage_values(
        event_name, customer, ARRAY[period_start, period_end], NULL, received_before) v);
END $$;
COMMENT ON FUNCTION billing.usage_folded(text, text, timestamptz, timestamptz, timestamptz) IS
'A customer''s usage over [period_start, period_end) as far as it is folded in; of the hours that a bound cuts, events
received before received_before. What alerts are measured by: the pending rest is evaluated when it is folded.
Internal.';

CREATE FUNCTION billing.roll_up() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET work_mem = '64MB' AS $$
DECLARE
    read_at timestamptz;
    row_count bigint;
    folded bigint;
    refolded bigint := 0;
    watched boolean;
    -- Keys to recompute, as parallel arrays.
    r_customers text[];
    r_event_names text[];
    r_dimensions jsonb[];
    r_hours timestamptz[];
    -- Alert, customer and period touched and not reported yet, as parallel arrays.
    t_alerts text[];
    t_customers text[];
    t_starts timestamptz[];
    t_ends timestamptz[];
    t_known boolean[];
    t_below boolean[];
BEGIN
    -- One roller at a time, from here to its commit: recomputed buckets and the values before and after are exact, and
    -- alert events commit in the order of their ids. Recording takes no such lock and never waits.
    PERFORM pg_advisory_xact_lock(hashtextextended('billing.roll_up', 0));
    -- No later than the snapshot that the queue is read with.
    read_at := CASE current_setting('transaction_isolation') WHEN 'read committed' THEN clock_timestamp() ELSE now() END;
    watched := EXISTS (SELECT FROM billing.alerts a WHERE a.status = 'active');

    -- One statement, one snapshot: a row is deleted if and only if it is folded. An event that is not visible yet has
    -- no visible row here either, so a long transaction holds up nobody. Reading apart from deleting costs half of
    -- what DELETE ... RETURNING does; it is as exact, because nobody else deletes under the lock, and in an old
    -- snapshot a row that another fold took makes the DELETE fail.
    WITH hours AS MATERIALIZED (
        SELECT p.customer, p.event_name, p.dimensions, p.hour AS start, count(*) AS row_count,
               sum(p.event_count) AS event_count, sum(greatest(p.event_count, 0)) AS recorded,
               -- Unfiltered, sum() of numeric makes a state where it meets NULL: much of the memory of a group.
               sum(p.value_sum) FILTER (WHERE p.value_sum IS NOT NULL) AS value_sum,
               sum(p.value_time_sum) FILTER (WHERE p.value_time_sum IS NOT NULL) AS value_time_sum,
               max(p.value_max) AS value_max, min(p.value_min) AS value_min,
               billing.latest_usage_event(
                   (p.last_timestamp, p.last_received_at, p.last_identifier, p.last_value)::billing.usage_last_event)
                   FILTER (WHERE p.last_timestamp IS NOT NULL) AS last_event,
               bool_or(p.distinct_values IS NOT NULL) AS has_distinct,
               bool_or(p.rebuild) AS rebuild, bool_and(p.rebuild) AS only_rebuild
        FROM billing.usage_pending p
        GROUP BY p.customer, p.event_name, p.dimensions, p.hour
    ),
    taken AS (
        -- Dead rows that an old snapshot pins are not read again where nothing is pending.
        DELETE FROM billing.usage_pending WHERE EXISTS (SELECT FROM hours)
    ),
    spans AS (
        SELECT h.customer, h.event_name, 'hour' AS width, h.start, h.dimensions, h.event_count, h.value_sum,
               h.value_time_sum, h.value_max, h.value_min, h.last_event
        FROM hours h WHERE NOT h.only_rebuild
        UNION ALL
        SELECT h.customer, h.event_name, 'day', date_trunc('day', h.start, 'UTC'), h.dimensions, sum(h.event_count),
               sum(h.value_sum) FILTER (WHERE h.value_sum IS NOT NULL),
               sum(h.value_time_sum) FILTER (WHERE h.value_time_sum IS NOT NULL), max(h.value_max), min(h.value_min),
               billing.latest_usage_event(h.last_event)
        FROM hours h WHERE NOT h.only_rebuild
        GROUP BY h.customer, h.event_name, date_trunc('day', h.start, 'UTC'), h.dimensions
    ),
    fold AS (
        INSERT INTO billing.usage_buckets AS b (
            customer, event_name, width, start, dimensions,
            event_count, value_sum, value_time_sum, value_max, value_min,
            last_value, last_timestamp, last_received_at, last_identifier)
        SELECT s.customer, s.event_name, s.width, s.start, s.dimensions, s.event_count, s.value_sum, s.value_time_sum,
               s.value_max, s.value_min, (s.last_event).value, (s.last_event)."timestamp", (s.last_event).received_at,
               (s.last_event).identifier
        FROM spans s
        ORDER BY s.customer, s.event_name, s.width, s.start, s.dimensions
        ON CONFLICT (customer, event_name, width, start, dimensions) DO UPDATE SET
            event_count = b.event_count + excluded.event_count,
            value_sum = b.value_sum + excluded.value_sum,
            value_time_sum = b.value_time_sum + excluded.value_time_sum,
            value_max = greatest(b.value_max, excluded.value_max),
            value_min = least(b.value_min, excluded.value_min),
            (last_value, last_timestamp, last_received_at, last_identifier) = (
                SELECT (l.event).value, (l.event)."timestamp", (l.event).received_at, (l.event).identifier
                FROM (SELECT greatest(
                    (b.last_timestamp, b.last_received_at, b.last_identifier, b.last_value)::billing.usage_last_event,
                    (excluded.last_timestamp, excluded.last_received_at, excluded.last_identifier, excluded.last_value)
                        ::billing.usage_last_event)) AS l (event)),
            updated_at = excluded.updated_at
    ),
    distinct_hours AS (
        SELECT DISTINCT p.customer, p.event_name, p.hour, p.dimensions, unnest(p.distinct_values) AS value
        FROM billing.usage_pending p
        WHERE p.distinct_values IS NOT NULL AND (SELECT bool_or(h.has_distinct) FROM hours h)
    ),
    fold_distinct AS (
        INSERT INTO billing.usage_distinct_values (customer, event_name, width, start, dimensions, value)
        SELECT DISTINCT d.customer, d.event_name, w.width, date_trunc(w.width, d.hour, 'UTC'), d.dimensions, d.value
        FROM distinct_hours d
        CROSS JOIN (VALUES ('hour'), ('day')) AS w (width)
        ORDER BY 1, 2, 3, 4, 5, 6
        ON CONFLICT DO NOTHING
    ),
    late AS (
        -- What is folded into invoiced periods is for the next invoice to look at.
        INSERT INTO billing.late_usage_marks (subscription, event_name, day)
        SELECT DISTINCT s.id, h.event_name, date_trunc('day', h.start, 'UTC')
        FROM hours h JOIN billing.subscriptions s ON s.customer = h.customer AND h.start < s.current_period_start
        ORDER BY 1, 2, 3
        ON CONFLICT DO NOTHING
    ),
    touched AS (
        SELECT DISTINCT a.id, h.customer, h.event_name, a.gte, a.activated_at,
               CASE a.recurrence WHEN 'per_period' THEN p.period_start END AS period_start,
               CASE a.recurrence WHEN 'per_period' THEN p.period_start ELSE '-infinity' END AS range_start,
               CASE a.recurrence WHEN 'per_period' THEN p.period_end ELSE 'infinity' END AS range_end
        FROM (
            -- The periods that an hour touches are those of its ends; recomputing takes the whole day in.
            SELECT DISTINCT h.customer, h.event_name, e.at
            FROM hours h
            CROSS JOIN LATERAL (VALUES
                (CASE WHEN h.rebuild THEN date_trunc('day', h.start, 'UTC') ELSE h.start END),
                (CASE WHEN h.rebuild THEN date_trunc('day', h.start, 'UTC') + interval '24 hours'
                      ELSE h.start + interval '1 hour' END - interval '1 microsecond')) AS e (at)
            WHERE watched
        ) h
        JOIN billing.alerts a
          ON a.status = 'active' AND a.event_name = h.event_name AND (a.customer IS NULL OR a.customer = h.customer)
        LEFT JOIN LATERAL billing.alert_period(h.event_name, h.customer, h.at) p ON a.recurrence = 'per_period'
    ),
    unreported AS (
        SELECT t.*, (SELECT s.below FROM billing.alert_states s
                     WHERE s.alert = t.id AND s.customer = t.customer
                       AND s.period_start IS NOT DISTINCT FROM t.period_start) AS below
        FROM touched t
        WHERE NOT EXISTS (
            SELECT FROM billing.alert_events e
            WHERE e.alert = t.id AND e.customer = t.customer AND e.period_start IS NOT DISTINCT FROM t.period_start)
    )
    SELECT h.row_count, h.recorded, h.customers, h.event_names, h.dimensions, h.starts,
           t.alerts, t.customers, t.starts, t.ends, t.known, t.below
    INTO row_count, folded, r_customers, r_event_names, r_dimensions, r_hours,
         t_alerts, t_customers, t_starts, t_ends, t_known, t_below
    FROM (
        SELECT coalesce(sum(h.row_count), 0)::bigint AS row_count, coalesce(sum(h.recorded), 0)::bigint AS recorded,
               array_agg(h.customer) FILTER (WHERE h.rebuild) AS customers,
               array_agg(h.event_name) FILTER (WHERE h.rebuild) AS event_names,
               array_agg(h.dimensions) FILTER (WHERE h.rebuild) AS dimensions,
               array_agg(h.start) FILTER (WHERE h.rebuild) AS starts
        FROM hours h
    ) h
    CROSS JOIN (
        -- This statement still sees the buckets as they were before it.
        SELECT array_agg(t.id) AS alerts, array_agg(t.customer) AS customers, array_agg(t.range_start) AS starts,
               array_agg(t.range_end) AS ends, array_agg(t.below IS NOT NULL) AS known,
               array_agg(coalesce(t.below, billing.usage_folded(
                   t.event_name, t.customer, t.range_start, t.range_end, t.activated_at) < t.gte, true)) AS below
        FROM unreported t
    ) t;

    IF r_hours IS NOT NULL THEN
        refolded := billing.rebuild_usage(r_customers, r_event_names, r_dimensions, r_hours);
    END IF;
    IF t_alerts IS NOT NULL THEN
        PERFORM billing.evaluate_alerts(t_alerts, t_customers, t_starts, t_ends, t_known, t_below);
    END IF;
    IF row_count > 0 THEN
        UPDATE billing.usage_folds f SET last_fold = clock_timestamp();
    END IF;
    PERFORM billing.note_roll_up(read_at, row_count, folded + refolded);
    RETURN folded + refolded;
END $$;
COMMENT ON FUNCTION billing.roll_up() IS
'Folds what is pending into the buckets, now, and returns the number of recorded events that this took in (cancelling
is not counted). Writes the billing.alert_events that it makes due. Any number of sessions may call it at any time:
they take turns, each until its transaction ends, and nothing is folded twice. Summaries are exact without it; it
keeps them fast.
Errors: 40001 in a REPEATABLE READ or SERIALIZABLE transaction that began before another roll-up ended: retry.';

CREATE FUNCTION billing.rebuild_usage(customers text[], event_names text[], dimension_sets jsonb[], hours timestamptz[])
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    folded bigint;
BEGIN
    -- A partition attached between the planning and the snapshot of the statement below would be left out, and its
    -- events be lost from the buckets. Holds up nobody but who needs a new partition right now.
    LOCK TABLE ONLY billing.meter_events IN SHARE UPDATE EXCLUSIVE MODE;
    WITH keys AS MATERIALIZED (
        SELECT k.*
        FROM unnest(customers, event_names, dimension_sets, hours) AS k (customer, event_name, dimensions, hour)
    ),
    late AS (
        -- Committed since the fold. This statement's snapshot has their events, so their pending rows must go with it.
        DELETE FROM billing.usage_pending p
        USING (
            SELECT DISTINCT k.customer, k.event_name, k.dimensions, date_trunc('day', k.hour, 'UTC') AS day FROM keys k
        ) d
        WHERE p.customer = d.customer AND p.event_name = d.event_name AND p.dimensions = d.dimensions
          AND p.hour >= d.day AND p.hour < d.day + interval '24 hours'
        RETURNING p.customer, p.event_name, p.dimensions, p.hour, p.event_count
    ),
    late_marks AS (
        INSERT INTO billing.late_usage_marks (subscription, event_name, day)
        SELECT DISTINCT s.id, l.event_name, date_trunc('day', l.hour, 'UTC')
        FROM late l JOIN billing.subscriptions s ON s.customer = l.customer AND l.hour < s.current_period_start
        ORDER BY 1, 2, 3
        ON CONFLICT DO NOTHING
    ),
    marked AS MATERIALIZED (
        SELECT k.customer, k.event_name, k.dimensions, k.hour FROM keys k
        UNION
        SELECT l.customer, l.event_name, l.dimensions, l.hour FROM late l
    ),
    spans AS MATERIALIZED (
        SELECT DISTINCT h.customer, h.event_name, w.width, date_trunc(w.width, h.hour, 'UTC') AS start, h.dimensions
        FROM marked h CROSS JOIN (VALUES ('hour'), ('day')) AS w (width)
    ),
    -- Each event of the days is looked at once, however many of their hours and dimensions are marked.
    events AS MATERIALIZED (
        SELECT d.customer, d.event_name, d.day, date_trunc('hour', e."timestamp", 'UTC') AS hour,
               billing.usage_dimensions(e.dimensions, m.dimension_keys) AS dimensions, m.aggregation, e.value, e."timestamp", e.received_at, e.identifier, e.dimensions ->> m.value_key AS counted
        FROM (SELECT DISTINCT h.customer, h.event_name, date_trunc('day', h.hour, 'UTC') AS day FROM marked h) d
        JOIN billing.meters m ON m.event_name = d.event_name
        JOIN billing.meter_events e
          ON e.customer = d.customer AND e.event_name = d.event_name
         AND e."timestamp" >= d.day AND e."timestamp" < d.day + interval '24 hours'
        WHERE e.cancelled_at IS NULL
    ),
    hours AS MATERIALIZED (
        SELECT e.customer, e.event_name, e.dimensions, e.day, e.hour, count(*) AS event_count,
               max(e.value) FILTER (WHERE e.aggregation = 'max') AS value_max,
               min(e.value) FILTER (WHERE e.aggregation = 'min') AS value_min,
               billing.latest_usage_event(
                   (e."timestamp", e.received_at, e.identifier, e.value)::billing.usage_last_event)
                   FILTER (WHERE e.aggregation = 'last') AS last_event
        FROM events e
        GROUP BY e.customer, e.event_name, e.dimensions, e.day, e.hour
    ),
    states AS MATERIALIZED (
        SELECT s.*
        FROM (
            SELECT h.customer, h.event_name, 'hour' AS width, h.hour AS start, h.dimensions, h.event_count,
                   h.value_max, h.value_min, h.last_event
            FROM hours h
            UNION ALL
            SELECT h.customer, h.event_name, 'day', h.day, h.dimensions, sum(h.event_count)::bigint,
                   max(h.value_max), min(h.value_min), billing.latest_usage_event(h.last_event)
            FROM hours h
            GROUP BY h.customer, h.event_name, h.dimensions, h.day
        ) s
        JOIN spans USING (customer, event_name, width, start, dimensions)
    ),
    replaced AS (
        INSERT INTO billing.usage_buckets (
            customer, event_name, width, start, dimensions, event_count, value_max, value_min,
            last_value, last_timestamp, last_received_at, last_identifier)
        SELECT s.customer, s.event_name, s.width, s.start, s.dimensions, s.event_count, s.value_max, s.value_min,
               (s.last_event).value, (s.last_event)."timestamp", (s.last_event).received_at, (s.last_event).identifier
        FROM states s
        ORDER BY s.customer, s.event_name, s.width, s.start, s.dimensions
        ON CONFLICT (customer, event_name, width, start, dimensions) DO UPDATE SET
            event_count = excluded.event_count,
            value_max = excluded.value_max,
            value_min = excluded.value_min,
            last_value = excluded.last_value,
            last_timestamp = excluded.last_timestamp,
            last_received_at = excluded.last_received_at,
            last_identifier = excluded.last_identifier,
            updated_at = excluded.updated_at
    ),
    emptied AS (
        DELETE FROM billing.usage_buckets b USING spans s
        WHERE (b.customer, b.event_name, b.width, b.start, b.dimensions)
            = (s.customer, s.event_name, s.width, s.start, s.dimensions)
          AND NOT EXISTS (
              SELECT FROM states t
              WHERE (t.customer, t.event_name, t.width, t.start, t.dimensions)
                  = (s.customer, s.event_name, s.width, s.start, s.dimensions))
    ),
    distinct_values AS MATERIALIZED (
        SELECT s.customer, s.event_name, s.width, s.start, s.dimensions, v.value
        FROM (
            SELECT DISTINCT e.customer, e.event_name, w.width, date_trunc(w.width, e.hour, 'UTC') AS start, e.dimensions,
                   e.counted AS value
            FROM events e CROSS JOIN (VALUES ('hour'), ('day')) AS w (width)
            WHERE e.aggregation = 'unique_count' AND e.counted IS NOT NULL
        ) v
        JOIN spans s USING (customer, event_name, width, start, dimensions)
    ),
    added AS (
        INSERT INTO billing.usage_distinct_values (customer, event_name, width, start, dimensions, value)
        SELECT d.* FROM distinct_values d ORDER BY 1, 2, 3, 4, 5, 6
        ON CONFLICT DO NOTHING
    ),
    removed AS (
        DELETE FROM billing.usage_distinct_values v USING spans s
        WHERE (v.customer, v.event_name, v.width, v.start, v.dimensions)
            = (s.customer, s.event_name, s.width, s.start, s.dimensions)
          AND NOT EXISTS (
              SELECT FROM distinct_values d
              WHERE (d.customer, d.event_name, d.width, d.start, d.dimensions, d.value)
                  = (v.customer, v.event_name, v.width, v.start, v.dimensions, v.value))
    )
    SELECT coalesce(sum(greatest(l.event_count, 0)), 0)::bigint INTO folded FROM late l;
    RETURN folded;
END $$;
COMMENT ON FUNCTION billing.rebuild_usage(text[], text[], jsonb[], timestamptz[]) IS
'Recomputes from the events the hour buckets of the given keys (parallel arrays) and the day buckets they lie in;
buckets left without events go. Takes in pending rows of those days too and returns the number of recorded events
among them. For last, max, min and unique_count. Only for roll_up(), under its lock. Internal.';

CREATE FUNCTION billing.evaluate_alerts(
    alerts text[], customers text[], range_starts timestamptz[], range_ends timestamptz[],
    known boolean[], below boolean[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH valued AS MATERIALIZED (
        SELECT a.id AS alert, t.customer, a.event_name, a.gte, t.known, t.below,
               CASE a.recurrence WHEN 'per_period' THEN t.range_start END AS period_start,
               billing.usage_folded(a.event_name, t.customer, t.range_start, t.range_end, 'infinity') AS value
        FROM unnest(alerts, customers, range_starts, range_ends, known, below)
            AS t (alert, customer, range_start, range_end, known, below)
        JOIN billing.alerts a ON a.id = t.alert
    ),
    fired AS (
        INSERT INTO billing.alert_events (alert, customer, event_name, gte, value, period_start)
        SELECT v.alert, v.customer, v.event_name, v.gte, v.value, v.period_start
        FROM valued v WHERE v.below AND v.value >= v.gte
        ORDER BY v.gte, v.alert, v.customer, v.period_start
        ON CONFLICT DO NOTHING
    ),
    settled AS (
        DELETE FROM billing.alert_states s USING valued v
        WHERE v.known AND v.below AND v.value >= v.gte
          AND s.alert = v.alert AND s.customer = v.customer AND s.period_start IS NOT DISTINCT FROM v.period_start
    )
    INSERT INTO billing.alert_states AS s (alert, customer, period_start, below)
    SELECT v.alert, v.customer, v.period_start, coalesce(v.value < v.gte, true)
    FROM valued v
    WHERE NOT (v.below AND v.value IS NOT NULL AND v.value >= v.gte)
      AND NOT (v.known AND v.below = coalesce(v.value < v.gte, true))
    ON CONFLICT ON CONSTRAINT alert_states_once DO UPDATE SET below = excluded.below;
END $$;
COMMENT ON FUNCTION billing.evaluate_alerts(text[], text[], timestamptz[], timestamptz[], boolean[], boolean[]) IS
'Writes an alert event for each alert, customer and range (parallel arrays) that was below its threshold before the
fold and is not after it, and keeps on which side the others are; known: billing.alert_states has the side before.
Only for roll_up(), under its lock. Internal.';
