-- The partitions of meter_events: made by the ingest path when missing and by the worker ahead of time, sealed, dropped.
CREATE TABLE billing.meter_event_partitions (
    name text COLLATE "C" PRIMARY KEY,
    lower_bound timestamptz NOT NULL UNIQUE,
    upper_bound timestamptz NOT NULL,
    sealed_at timestamptz,
    min_timestamp timestamptz,
    max_timestamp timestamptz,
    event_count bigint,
    dropped_at timestamptz,
    CHECK (lower_bound < upper_bound)
);

COMMENT ON TABLE billing.meter_event_partitions IS
    'The partitions of billing.meter_events. A sealed one takes no more events, and knows the range of their timestamps, so '
    'that a retry is looked for only where its first try can be.';
COMMENT ON COLUMN billing.meter_event_partitions.name IS 'Name of the table in schema billing.';
COMMENT ON COLUMN billing.meter_event_partitions.lower_bound IS 'Holds events received at or after this.';
COMMENT ON COLUMN billing.meter_event_partitions.upper_bound IS 'Holds events received before this.';
COMMENT ON COLUMN billing.meter_event_partitions.sealed_at IS 'When it was sealed; NULL: events may still come.';
COMMENT ON COLUMN billing.meter_event_partitions.min_timestamp IS 'Least event timestamp, once sealed; NULL: empty or not sealed.';
COMMENT ON COLUMN billing.meter_event_partitions.max_timestamp IS 'Greatest event timestamp, once sealed; NULL: empty or not sealed.';
COMMENT ON COLUMN billing.meter_event_partitions.event_count IS 'Number of events, cancelled ones too, once sealed.';
COMMENT ON COLUMN billing.meter_event_partitions.dropped_at IS
    'When billing.retention dropped it; the row stays, because it says which periods can no longer be rated again. NULL: it is there.';
SELECT pg_catalog.pg_extension_config_dump('billing.meter_event_partitions', '');
CREATE TRIGGER meter_event_partitions_announce_change
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON billing.meter_event_partitions
    FOR EACH STATEMENT EXECUTE FUNCTION billing.announce_change();
ALTER TABLE billing.meter_event_partitions ENABLE ALWAYS TRIGGER meter_event_partitions_announce_change;
COMMENT ON TRIGGER meter_event_partitions_announce_change ON billing.meter_event_partitions IS
    'Has every session that records read the list of partitions again.';

CREATE TABLE billing.meter_event_filters (
    partition text COLLATE "C" NOT NULL,
    part integer NOT NULL,
    parts integer NOT NULL,
    bits bytea NOT NULL,
    PRIMARY KEY (partition, part)
);
-- A row fills a page as it is: nothing to compress in it, and nothing to keep elsewhere.
ALTER TABLE billing.meter_event_filters ALTER COLUMN bits SET STORAGE PLAIN;

COMMENT ON TABLE billing.meter_event_filters IS
    'Of each sealed partition a Bloom filter of its identities (customer, event_name, identifier), so that recording need not search '
    'its index for events that are new. Derived from the events: not dumped, and made anew where it is missing.';
COMMENT ON COLUMN billing.meter_event_filters.partition IS 'Name of the partition in schema billing.';
COMMENT ON COLUMN billing.meter_event_filters.part IS 'Place of these bits within the filter, from 0.';
COMMENT ON COLUMN billing.meter_event_filters.parts IS 'How many parts the filter has; it is used only if all are there.';
COMMENT ON COLUMN billing.meter_event_filters.bits IS 'The bits.';
SELECT pg_catalog.pg_extension_config_dump('billing.meter_event_filters', 'WHERE false');
CREATE TRIGGER meter_event_filters_announce_change
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON billing.meter_event_filters
    FOR EACH STATEMENT EXECUTE FUNCTION billing.announce_change();
ALTER TABLE billing.meter_event_filters ENABLE ALWAYS TRIGGER meter_event_filters_announce_change;
COMMENT ON TRIGGER meter_event_filters_announce_change ON billing.meter_event_filters IS
    'Has every session that records read the filters again.';

CREATE FUNCTION billing.make_partition(lower_bound timestamptz, upper_bound timestamptz) RETURNS text
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC'
AS $$
DECLARE
    utc_start timestamp := lower_bound AT TIME ZONE 'UTC';
    table_name text := 'meter_events_p' || to_char(utc_start, 'YYYYMMDD')
        || CASE WHEN utc_start = date_trunc('day', utc_start) THEN '' ELSE to_char(utc_start, '_HH24MISS') END;
BEGIN
    -- Made apart and then attached, because that leaves readers and writers of the parent alone; CREATE ... PARTITION OF would not.
    EXECUTE format('CREATE TABLE billing.%I (LIKE billing.meter_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', table_name);
    EXECUTE format('CREATE UNIQUE INDEX %I ON billing.%I (customer, event_name, identifier)',
                   table_name || '_identity', table_name);
    EXECUTE format('CREATE INDEX %I ON billing.%I USING brin ("timestamp") WITH (autosummarize = on)',
                   table_name || '_timestamp_brin', table_name);
    -- The first range is summed up with the index, while it is empty; each event of its 128 pages would be logged as one that widens it.
    -- The next range has it summed up when it is full, as all others.
    PERFORM brin_desummarize_range(format('billing.%I', table_name || '_timestamp_brin')::regclass, 0);
    EXECUTE format('COMMENT ON TABLE billing.%I IS %L', table_name,
                   format('Events received from %s to before %s.', lower_bound, upper_bound));
    EXECUTE format('ALTER TABLE billing.meter_events ATTACH PARTITION billing.%I FOR VALUES FROM (%L) TO (%L)',
                   table_name, lower_bound, upper_bound);
    INSERT INTO billing.meter_event_partitions (name, lower_bound, upper_bound)
    VALUES (table_name, make_partition.lower_bound, make_partition.upper_bound);
    RETURN table_name;
END $$;
COMMENT ON FUNCTION billing.make_partition(timestamptz, timestamptz) IS
    'Makes the partition for events received in [lower_bound, upper_bound), and returns its name. The ingest path calls it.';

CREATE FUNCTION billing.make_next_partition() RETURNS boolean
    AS 'MODULE_PATHNAME', 'make_next_partition_wrapper' LANGUAGE c VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION billing.make_next_partition() IS
    'Makes the partition after the one that receives events now, unless it is there. Returns whether it was missing.';

CREATE FUNCTION billing.seal_partition(partition text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The statements below must see every event committed before the lock was had.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'partitions can be sealed only in a READ COMMITTED transaction'
            USING ERRCODE = 'active_sql_transaction';
    END IF;
    -- Some time after its end, because a clock that is set back must not lead into a sealed partition.
    IF NOT EXISTS (SELECT FROM billing.meter_event_partitions p
                   WHERE p.name = partition AND p.sealed_at IS NULL
                     AND p.upper_bound + least(p.upper_bound - p.lower_bound, interval '1 hour') <= clock_timestamp()) THEN
        RETURN false;
    END IF;
    BEGIN
        -- Not to be had while a transaction that wrote here is open, prepared ones included.
        EXECUTE format('LOCK TABLE billing.%I IN SHARE MODE NOWAIT', partition);
    EXCEPTION WHEN lock_not_available THEN
        RETURN false;
    END;
    EXECUTE format('CREATE INDEX %I ON billing.%I (customer, event_name, "timestamp")', partition || '_timestamp', partition);
    -- Of a former partition of this name, dropped by hand.
    DELETE FROM billing.meter_event_filters f WHERE f.partition = seal_partition.partition;
    EXECUTE format(
        'UPDATE billing.meter_event_partitions p
         SET sealed_at = clock_timestamp(), min_timestamp = e.least, max_timestamp = e.greatest, event_count = e.count
         FROM (SELECT min("timestamp") AS least, max("timestamp") AS greatest, count(*) AS count FROM billing.%I) e
         WHERE p.name = $1', partition) USING partition;
    RETURN true;
END $$;
COMMENT ON FUNCTION billing.seal_partition(text) IS
    'Seals a partition whose time is over and in which nobody writes any more: records the range of its timestamps and indexes '
    'it by customer and time. Returns whether it did. 25001: not in a READ COMMITTED transaction.';

CREATE FUNCTION billing.identity_filter(partition regclass, events bigint) RETURNS SETOF bytea
    AS 'MODULE_PATHNAME', 'identity_filter_wrapper' LANGUAGE c VOLATILE STRICT;
COMMENT ON FUNCTION billing.identity_filter(regclass, bigint) IS
    'The parts, in order, of a Bloom filter of the identities in a partition that was sealed with that many events; '
    'none if it holds fewer. Internal.';

CREATE FUNCTION billing.filter_partition(partition text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Nobody has written there since it was sealed, so this holds all of its events.
    events bigint := (
        SELECT p.event_count FROM billing.meter_event_partitions p
        WHERE p.name = partition AND p.sealed_at IS NOT NULL AND p.dropped_at IS NULL
          AND NOT EXISTS (SELECT FROM billing.meter_event_filters f WHERE f.partition = p.name));
BEGIN
    IF events IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO billing.meter_event_filters (partition, part, parts, bits)
    SELECT filter_partition.partition, f.nth - 1, count(*) OVER (), f.bits
    FROM billing.identity_filter(format('billing.%I', partition)::regclass, events) WITH ORDINALITY AS f (bits, nth)
    ON CONFLICT DO NOTHING;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION billing.filter_partition(text) IS
    'Makes the filter of a sealed partition that has none. Returns whether it did: not while fewer events are there '
    'than when it was sealed, as in the midst of a restore.';

CREATE FUNCTION billing.drop_old_partitions() RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
AS $$
DECLARE
    oldest timestamptz := clock_timestamp() - billing.setting_interval('retention');
    window_start timestamptz := clock_timestamp() - billing.setting_interval('identifier_window');
    partition text;
    dropped integer := 0;
BEGIN
    FOR partition IN
        SELECT p.name FROM billing.meter_event_partitions p
        -- No limit is NULL, which drops nothing; least() would pass over it.
        WHERE p.sealed_at IS NOT NULL AND p.dropped_at IS NULL AND p.upper_bound <= oldest AND p.upper_bound <= window_start
          AND NOT EXISTS (SELECT FROM billing.subscriptions s
                          -- One that is canceled has a last period to bill until nothing is due of it.
                          WHERE (s.status NOT IN ('canceled', 'incomplete_expired') OR s.next_invoice_at IS NOT NULL)
                            AND s.current_period_start <= p.max_timestamp)
          AND NOT EXISTS (SELECT FROM billing.invoices i
                          WHERE i.status = 'draft' AND i.period_start <= p.max_timestamp)
        ORDER BY p.lower_bound
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE billing.%I', partition);
            EXECUTE 'DELETE FROM billing.meter_event_filters f WHERE f.partition = $1' USING partition;
            UPDATE billing.meter_event_partitions p SET dropped_at = clock_timestamp() WHERE p.name = partition;
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            NULL; -- in use: the next run tries again
        END;
    END LOOP;
    RETURN dropped;
END $$;
COMMENT ON FUNCTION billing.drop_old_partitions() IS
    'Drops the sealed partitions that billing.retention allows: none within billing.identifier_window, and none with usage of a '
    'period that is not invoiced and finalized yet. Their buckets stay; periods that have lost events are not rated again, and a range '
    'or a cancellation that has to look at them in part misses them. Returns how many.';

CREATE FUNCTION billing.maintain_partitions() RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed integer := billing.make_next_partition()::integer;
BEGIN
    changed := changed + (
        SELECT count(*) FROM (
            SELECT billing.seal_partition(p.name) AS sealed FROM billing.meter_event_partitions p
            WHERE p.sealed_at IS NULL AND p.upper_bound <= clock_timestamp()
        ) s WHERE s.sealed);
    PERFORM billing.filter_partition(p.name) FROM billing.meter_event_partitions p
    WHERE p.sealed_at IS NOT NULL AND p.dropped_at IS NULL
      AND NOT EXISTS (SELECT FROM billing.meter_event_filters f WHERE f.partition = p.name);
    RETURN changed + billing.drop_old_partitions();
END $$;
COMMENT ON FUNCTION billing.maintain_partitions() IS
    'Makes the next partition, seals those whose time is over and makes their filters, drops those that billing.retention allows. The worker calls it; '
    'anything else may. Returns how many partitions it changed.';
