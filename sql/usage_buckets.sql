-- Usage by UTC hour and day: what summaries read instead of events. Written by roll_up() only.

CREATE TABLE billing.usage_buckets (
    customer text COLLATE "C" NOT NULL,
    event_name text COLLATE "C" NOT NULL,
    width text COLLATE "C" NOT NULL CONSTRAINT usage_buckets_width_known CHECK (width IN ('hour', 'day')),
    start timestamptz NOT NULL,
    dimensions jsonb NOT NULL DEFAULT '{}',
    event_count bigint NOT NULL,
    value_sum numeric,
    value_time_sum numeric,
    value_max numeric,
    value_min numeric,
    last_value numeric,
    last_timestamp timestamptz,
    last_received_at timestamptz,
    last_identifier text COLLATE "C",
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- Customer first: one customer's month is a few neighbouring pages, and the table can be spread by customer.
    CONSTRAINT usage_buckets_pkey PRIMARY KEY (customer, event_name, width, start, dimensions)
) WITH (
    -- The current hour's and day's rows are updated at every roll-up: room for them on their own page.
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.02
);
COMMENT ON TABLE billing.usage_buckets IS
'Usage per customer, meter, dimensions and UTC hour or day, as states that merge: what summaries, rating and alerts
read. Every event is in one hour bucket and one day bucket once billing.roll_up() has folded it in; until then it is
in billing.usage_pending. Which value columns are filled depends on the meter''s aggregation. billing.verify()
compares it with the events.';
COMMENT ON CONSTRAINT usage_buckets_pkey ON billing.usage_buckets IS
'One bucket per customer, meter, width, start and dimensions; range scans by start serve the summaries.';
COMMENT ON CONSTRAINT usage_buckets_width_known ON billing.usage_buckets IS 'There are buckets of two widths.';
COMMENT ON COLUMN billing.usage_buckets.customer IS 'billing.customers.id.';
COMMENT ON COLUMN billing.usage_buckets.event_name IS 'billing.meters.event_name.';
COMMENT ON COLUMN billing.usage_buckets.width IS 'hour or day (24 hours); both in UTC.';
COMMENT ON COLUMN billing.usage_buckets.start IS 'Start of the UTC hour or day; the bucket is [start, start + width).';
COMMENT ON COLUMN billing.usage_buckets.dimensions IS
'The meter''s declared dimension keys with their values as text; a key that the events lack is left out; {} for none.';
COMMENT ON COLUMN billing.usage_buckets.event_count IS
'Number of events, cancelled ones not counted; 0 when all were cancelled.';
COMMENT ON COLUMN billing.usage_buckets.value_sum IS 'sum, weighted_sum: sum of the values; else NULL.';
COMMENT ON COLUMN billing.usage_buckets.value_time_sum IS
'weighted_sum: sum of value × microseconds from 1970-01-01 UTC to the event''s timestamp; else NULL.';
COMMENT ON COLUMN billing.usage_buckets.value_max IS 'max: greatest value; else NULL.';
COMMENT ON COLUMN billing.usage_buckets.value_min IS 'min: least value; else NULL.';
COMMENT ON COLUMN billing.usage_buckets.last_value IS
'last: value of the event of the greatest (timestamp, received_at, identifier); else NULL.';
COMMENT ON COLUMN billing.usage_buckets.last_timestamp IS 'last: that event''s timestamp; else NULL.';
COMMENT ON COLUMN billing.usage_buckets.last_received_at IS 'last: when that event was received; else NULL.';
COMMENT ON COLUMN billing.usage_buckets.last_identifier IS 'last: that event''s identifier; else NULL.';
COMMENT ON COLUMN billing.usage_buckets.updated_at IS 'Start of the transaction that last folded usage in.';
SELECT pg_catalog.pg_extension_config_dump('billing.usage_buckets', '');

CREATE TABLE billing.usage_distinct_values (
    customer text COLLATE "C" NOT NULL,
    event_name text COLLATE "C" NOT NULL,
    width text COLLATE "C" NOT NULL CONSTRAINT usage_distinct_values_width_known CHECK (width IN ('hour', 'day')),
    start timestamptz NOT NULL,
    dimensions jsonb NOT NULL DEFAULT '{}',
    value text COLLATE "C" NOT NULL,
    CONSTRAINT usage_distinct_values_pkey PRIMARY KEY (customer, event_name, width, start, dimensions, value)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
COMMENT ON TABLE billing.usage_distinct_values IS
'The exact set of texts seen per bucket of a unique_count meter: distinct counts do not add up, sets do.';
COMMENT ON CONSTRAINT usage_distinct_values_pkey ON billing.usage_distinct_values IS
'A text stands once per bucket; range scans by start serve the summaries.';
COMMENT ON CONSTRAINT usage_distinct_values_width_known ON billing.usage_distinct_values IS
'There are buckets of two widths.';
COMMENT ON COLUMN billing.usage_distinct_values.customer IS 'billing.customers.id.';
COMMENT ON COLUMN billing.usage_distinct_values.event_name IS 'billing.meters.event_name of a unique_count meter.';
COMMENT ON COLUMN billing.usage_distinct_values.width IS 'hour or day (24 hours); both in UTC.';
COMMENT ON COLUMN billing.usage_distinct_values.start IS 'Start of the UTC hour or day.';
COMMENT ON COLUMN billing.usage_distinct_values.dimensions IS 'As in billing.usage_buckets.';
COMMENT ON COLUMN billing.usage_distinct_values.value IS
'A text that at least one event of the bucket carries; compared byte by byte.';
SELECT pg_catalog.pg_extension_config_dump('billing.usage_distinct_values', '');

CREATE TYPE billing.usage_last_event AS (
    "timestamp" timestamptz,
    received_at timestamptz,
    identifier text COLLATE "C",
    value numeric
);
COMMENT ON TYPE billing.usage_last_event IS
'State of the aggregation last. Its order is that of the columns: the greatest is the event that counts. Internal.';
COMMENT ON COLUMN billing.usage_last_event."timestamp" IS 'The event''s own time.';
COMMENT ON COLUMN billing.usage_last_event.received_at IS 'When it was received.';
COMMENT ON COLUMN billing.usage_last_event.identifier IS 'Its identifier: unique, so that the order is total.';
COMMENT ON COLUMN billing.usage_last_event.value IS 'Its value.';

CREATE FUNCTION billing.later_usage_event(a billing.usage_last_event, b billing.usage_last_event)
RETURNS billing.usage_last_event
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    -- GREATEST goes by the type's own order, whatever the search_path: setting one would double the cost of each call.
    RETURN greatest(a, b);
END $$;
COMMENT ON FUNCTION billing.later_usage_event(billing.usage_last_event, billing.usage_last_event) IS
'The later of two events by (timestamp, received_at, identifier); NULL when either is NULL. Internal.';

CREATE AGGREGATE billing.latest_usage_event(billing.usage_last_event) (
    SFUNC = billing.later_usage_event,
    STYPE = billing.usage_last_event,
    COMBINEFUNC = billing.later_usage_event,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE billing.latest_usage_event(billing.usage_last_event) IS
'The latest of many events by (timestamp, received_at, identifier); NULLs are passed over; NULL when there is none.
Internal.';

-- Of SQL and parsed once: a rebuild calls it for every event of a day, and PL/pgSQL with a search_path of its own takes
-- ten times as long.
CREATE FUNCTION billing.usage_dimensions(dimensions jsonb, keys text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN dimensions IS NULL OR cardinality(keys) = 0 THEN '{}'::jsonb
            ELSE (SELECT coalesce(jsonb_object_agg(k.key, dimensions ->> k.key), '{}')
                  FROM unnest(keys) AS k (key) WHERE dimensions ->> k.key IS NOT NULL) END;
COMMENT ON FUNCTION billing.usage_dimensions(jsonb, text[]) IS
'What buckets keep of an event''s dimensions: the given keys with their values as text, a missing or null one left
out; {} when nothing is left or dimensions is NULL. Recording fills billing.usage_pending.dimensions by the same rule.
Internal.';
