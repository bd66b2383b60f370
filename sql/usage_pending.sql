-- The queue between recording and the buckets: written by recording and cancelling, emptied by roll_up().

CREATE TABLE billing.usage_pending (
    hour timestamptz NOT NULL,
    customer text COLLATE "C" NOT NULL,
    event_name text COLLATE "C" NOT NULL,
    value_sum numeric
) PARTITION BY HASH (customer);

-- As many as src/ingest/pending.rs writes to. More would spare summaries little, and cost batches an opening each, and single events
-- processor caches: eight took a twentyfifth of an event more than four.
DO $$
DECLARE
    part text;
BEGIN
    FOR remainder IN 0..3 LOOP
        part := 'usage_pending_' || remainder;
        EXECUTE format('CREATE TABLE billing.%I PARTITION OF billing.usage_pending
                            FOR VALUES WITH (MODULUS 4, REMAINDER %s)
                        WITH (
                            -- Every row dies within seconds of its birth, and each roll-up reads the whole table: dead rows
                            -- must go at once.
                            autovacuum_vacuum_threshold = 1000,
                            autovacuum_vacuum_scale_factor = 0,
                            -- A row recorded is a row soon dead, so insertions tell as much, and by the thousand even where
                            -- a burst stood.
                            autovacuum_vacuum_insert_threshold = 1000,
                            autovacuum_vacuum_insert_scale_factor = 0,
                            autovacuum_vacuum_cost_delay = 0,
                            -- Statistics of a queue are stale before they are used.
                            autovacuum_analyze_threshold = 1000000,
                            autovacuum_analyze_scale_factor = 10
                        )', part, remainder);
    END LOOP;
END $$;

-- Columns that are added to a table have a value in rows that were stored without them. Recording stores rows without those at the
-- end that would hold just that, so one event of a meter that sums is four columns, and a quarter less to log. In the order in which
-- they are wanted; they must be added, and to the partitions too, after these are there.
ALTER TABLE billing.usage_pending
    ADD COLUMN dimensions jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN event_count bigint NOT NULL DEFAULT 1,
    ADD COLUMN value_max numeric,
    ADD COLUMN value_min numeric,
    ADD COLUMN last_value numeric,
    ADD COLUMN last_timestamp timestamptz,
    ADD COLUMN last_received_at timestamptz,
    ADD COLUMN last_identifier text COLLATE "C",
    ADD COLUMN distinct_values text[],
    ADD COLUMN value_time_sum numeric,
    ADD COLUMN rebuild boolean NOT NULL DEFAULT false;
COMMENT ON TABLE billing.usage_pending IS
'Usage that is committed but not yet in billing.usage_buckets: one row for an event, or one per customer, meter,
dimensions and hour of a batch. Append-only; billing.roll_up() empties it. Which value columns are filled depends on the
meter''s aggregation. Partitioned by customer, so that a summary reads its customer''s part alone. No index, key,
trigger or default beyond these: recording pays for every one. Never write here by hand.';
COMMENT ON COLUMN billing.usage_pending.customer IS 'billing.customers.id; recording has checked that it exists.';
COMMENT ON COLUMN billing.usage_pending.event_name IS
'billing.meters.event_name; recording has checked that it exists.';
COMMENT ON COLUMN billing.usage_pending.dimensions IS
'The meter''s declared dimension keys and the events'' values for them as text; a key that an event lacks is left out;
{} for none.';
COMMENT ON COLUMN billing.usage_pending.hour IS 'Start of the UTC hour that the events'' own timestamps lie in.';
COMMENT ON COLUMN billing.usage_pending.event_count IS
'Number of events in the row: negative when cancelled ones are taken back out, 0 in a rebuild row.';
COMMENT ON COLUMN billing.usage_pending.value_sum IS
'sum, weighted_sum: sum of the values (negated when cancelled); else NULL.';
COMMENT ON COLUMN billing.usage_pending.value_time_sum IS
'weighted_sum: sum of value × microseconds from 1970-01-01 UTC to the event''s timestamp (negated when cancelled);
else NULL.';
COMMENT ON COLUMN billing.usage_pending.value_max IS 'max: greatest value; else NULL.';
COMMENT ON COLUMN billing.usage_pending.value_min IS 'min: least value; else NULL.';
COMMENT ON COLUMN billing.usage_pending.last_value IS
'last: value of the event of the greatest (timestamp, received_at, identifier); else NULL.';
COMMENT ON COLUMN billing.usage_pending.last_timestamp IS 'last: that event''s timestamp; else NULL.';
COMMENT ON COLUMN billing.usage_pending.last_received_at IS 'last: when that event was received; else NULL.';
COMMENT ON COLUMN billing.usage_pending.last_identifier IS 'last: that event''s identifier; else NULL.';
COMMENT ON COLUMN billing.usage_pending.distinct_values IS
'unique_count: the texts counted, no order, duplicates allowed; else NULL.';
COMMENT ON COLUMN billing.usage_pending.rebuild IS
'true: an event of this customer, meter, dimensions and hour was cancelled, whose state cannot be subtracted (last,
max, min, unique_count); the buckets are recomputed from billing.meter_events.';
SELECT pg_catalog.pg_extension_config_dump('billing.usage_pending', '');

DO $$
DECLARE
    part text;
BEGIN
    FOR remainder IN 0..3 LOOP
        part := 'usage_pending_' || remainder;
        EXECUTE format('COMMENT ON TABLE billing.%I IS %L', part,
                       'Rows of billing.usage_pending of a quarter of the customers, by their hash.');
        EXECUTE (
            SELECT string_agg(format('COMMENT ON COLUMN billing.%I.%I IS %L', part, a.attname,
                                     col_description(a.attrelid, a.attnum)), '; ')
            FROM pg_attribute a WHERE a.attrelid = 'billing.usage_pending'::regclass AND a.attnum > 0);
        PERFORM pg_extension_config_dump(format('billing.%I', part)::regclass, '');
    END LOOP;
END $$;
