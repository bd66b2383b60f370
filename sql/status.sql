-- What operators look at: queue, roll-ups, worker and partitions. Nothing here decides anything.

CREATE TABLE billing.roll_up_minutes (
    minute timestamptz PRIMARY KEY,
    read_at timestamptz NOT NULL,
    event_count bigint NOT NULL DEFAULT 0,
    last_fold timestamptz,
    last_row_count bigint,
    last_event_count bigint,
    last_duration interval
);
COMMENT ON TABLE billing.roll_up_minutes IS
'What roll_up() did in each minute of the last day: what billing.ingestion_status shows. Measurements, not data: not
dumped.';
COMMENT ON COLUMN billing.roll_up_minutes.minute IS 'Start of the minute.';
COMMENT ON COLUMN billing.roll_up_minutes.read_at IS
'When the queue was last read for folding: what was committed before is folded.';
COMMENT ON COLUMN billing.roll_up_minutes.event_count IS 'Recorded events folded, as roll_up() returned them.';
COMMENT ON COLUMN billing.roll_up_minutes.last_fold IS
'When the last roll-up that found something ended; NULL: all found the queue empty.';
COMMENT ON COLUMN billing.roll_up_minutes.last_row_count IS 'Rows of the queue that it took; NULL as last_fold.';
COMMENT ON COLUMN billing.roll_up_minutes.last_event_count IS 'Recorded events that it folded; NULL as last_fold.';
COMMENT ON COLUMN billing.roll_up_minutes.last_duration IS 'How long it took; NULL as last_fold.';

CREATE FUNCTION billing.note_roll_up(read_at timestamptz, row_count bigint, event_count bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    ended timestamptz := clock_timestamp();
    this_minute timestamptz := date_trunc('minute', ended);
    is_new boolean := NOT EXISTS (SELECT FROM billing.roll_up_minutes m WHERE m.minute = this_minute);
BEGIN
    IF note_roll_up.row_count > 0 THEN
        INSERT INTO billing.roll_up_minutes AS m (
            minute, read_at, event_count, last_fold, last_row_count, last_event_count, last_duration)
        VALUES (this_minute, note_roll_up.read_at, note_roll_up.event_count, ended, note_roll_up.row_count,
                note_roll_up.event_count, ended - note_roll_up.read_at)
        ON CONFLICT (minute) DO UPDATE SET
            read_at = excluded.read_at,
            event_count = m.event_count + excluded.event_count,
            last_fold = excluded.last_fold,
            last_row_count = excluded.last_row_count,
            last_event_count = excluded.last_event_count,
            last_duration = excluded.last_duration;
    ELSIF is_new THEN  -- an idle queue costs one row a minute
        INSERT INTO billing.roll_up_minutes (minute, read_at) VALUES (this_minute, note_roll_up.read_at)
        ON CONFLICT DO NOTHING;  -- 40001 in a snapshot that is older
    END IF;
    IF is_new THEN
        DELETE FROM billing.roll_up_minutes m WHERE m.minute < this_minute - interval '1 day';
    END IF;
END $$;
COMMENT ON FUNCTION billing.note_roll_up(timestamptz, bigint, bigint) IS
'Keeps in billing.roll_up_minutes what a roll-up that read the queue at read_at took from it. Only for roll_up(), under
its lock. Internal.';

CREATE VIEW billing.ingestion_status WITH (security_invoker = true) AS
SELECT q.row_count AS pending_rows,
       q.event_count AS pending_events,
       CASE WHEN q.row_count = 0 THEN interval '0' ELSE clock_timestamp() - r.read_at END AS pending_for,
       r.events_per_second,
       f.last_fold AS last_roll_up,
       f.last_row_count AS last_roll_up_rows,
       f.last_event_count AS last_roll_up_events,
       f.last_duration AS last_roll_up_duration,
       EXISTS (
           -- The lock that the elected worker holds while it lives (src/pg/liveness.rs).
           SELECT FROM pg_catalog.pg_locks l
           JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = current_database()
           WHERE l.locktype = 'advisory' AND l.classid = 1651076204 AND l.objid = 2 AND l.objsubid = 2
             AND l.mode = 'ExclusiveLock' AND l.granted
       ) AS worker_alive,
       EXISTS (SELECT FROM billing.worker_jobs j WHERE j.failing) AS failing,
       e.job AS last_error_job,
       e.last_failure AS last_error_at,
       e.last_error
FROM (SELECT count(*) AS row_count, coalesce(sum(greatest(p.event_count, 0)), 0)::bigint AS event_count
      FROM billing.usage_pending p) q
CROSS JOIN (
    SELECT max(m.read_at) AS read_at,
           round(coalesce(sum(m.event_count) FILTER (WHERE m.minute >= t.since), 0)
                     / extract(epoch FROM clock_timestamp() - t.since), 1) AS events_per_second
    FROM (SELECT date_trunc('minute', clock_timestamp()) - interval '1 minute') AS t (since)
    LEFT JOIN billing.roll_up_minutes m ON true
    GROUP BY t.since
) r
LEFT JOIN LATERAL (
    SELECT m.* FROM billing.roll_up_minutes m WHERE m.last_fold IS NOT NULL ORDER BY m.minute DESC LIMIT 1
) f ON true
LEFT JOIN LATERAL (
    SELECT j.* FROM billing.worker_jobs j WHERE j.last_failure IS NOT NULL ORDER BY j.last_failure DESC LIMIT 1
) e ON true;
COMMENT ON VIEW billing.ingestion_status IS
'One row: what waits to be rolled up, how fast events come, and how roll-up and worker do. Reads the whole queue.';
COMMENT ON COLUMN billing.ingestion_status.pending_rows IS 'Rows of billing.usage_pending.';
COMMENT ON COLUMN billing.ingestion_status.pending_events IS 'Recorded events in them.';
COMMENT ON COLUMN billing.ingestion_status.pending_for IS
'At most how long any of them has waited since it was committed: the time since the queue was last read for folding,
known to within a minute while it is empty; 0: nothing waits; NULL: nothing was ever rolled up here.';
COMMENT ON COLUMN billing.ingestion_status.events_per_second IS
'Events rolled up per second since the minute before the present one began.';
COMMENT ON COLUMN billing.ingestion_status.last_roll_up IS
'When the last roll-up that found something ended; NULL: none within a day of the last look.';
COMMENT ON COLUMN billing.ingestion_status.last_roll_up_rows IS 'Rows of the queue that it took.';
COMMENT ON COLUMN billing.ingestion_status.last_roll_up_events IS 'Recorded events that it folded.';
COMMENT ON COLUMN billing.ingestion_status.last_roll_up_duration IS 'How long it took, without waiting for its turn.';
COMMENT ON COLUMN billing.ingestion_status.worker_alive IS
'Whether this database has a background worker; always false on a standby.';
COMMENT ON COLUMN billing.ingestion_status.failing IS 'Whether the last run of any of the worker''s jobs failed.';
COMMENT ON COLUMN billing.ingestion_status.last_error_job IS
'The job of the worker that failed last, perhaps long ago; NULL: none ever did.';
COMMENT ON COLUMN billing.ingestion_status.last_error_at IS 'When it failed.';
COMMENT ON COLUMN billing.ingestion_status.last_error IS 'SQLSTATE and message of that failure.';

CREATE VIEW billing.partition_status WITH (security_invoker = true) AS
SELECT p.name,
       p.lower_bound,
       p.upper_bound,
       CASE WHEN p.dropped_at IS NOT NULL THEN 'dropped'
            WHEN p.sealed_at IS NOT NULL THEN 'sealed'
            WHEN p.upper_bound <= clock_timestamp() THEN 'closed'
            WHEN p.lower_bound <= clock_timestamp() THEN 'open'
            ELSE 'ahead' END AS state,
       CASE WHEN p.sealed_at IS NOT NULL THEN p.event_count
            WHEN s.heap_bytes = 0 THEN 0
            -- As the planner estimates: the density that VACUUM or ANALYZE last found, times the present size.
            WHEN c.reltuples >= 0 AND c.relpages > 0
                THEN round(c.reltuples::numeric / c.relpages * s.heap_bytes / current_setting('block_size')::bigint)
            ELSE nullif(pg_stat_get_live_tuples(c.oid), 0) END::bigint AS event_count,
       p.sealed_at IS NOT NULL AS event_count_exact,
       s.table_bytes,
       s.index_bytes,
       s.table_bytes + s.index_bytes AS total_bytes
FROM billing.meter_event_partitions p
LEFT JOIN pg_catalog.pg_class c ON c.relname = p.name AND c.relnamespace = 'billing'::regnamespace AND c.relispartition
LEFT JOIN LATERAL (
    SELECT pg_relation_size(c.oid), pg_table_size(c.oid), pg_indexes_size(c.oid)
) AS s (heap_bytes, table_bytes, index_bytes) ON true
ORDER BY p.lower_bound;
COMMENT ON VIEW billing.partition_status IS 'The partitions of billing.meter_events with their state and size, oldest first.';
COMMENT ON COLUMN billing.partition_status.name IS 'Name of the table in schema billing.';
COMMENT ON COLUMN billing.partition_status.lower_bound IS 'Holds events received at or after this.';
COMMENT ON COLUMN billing.partition_status.upper_bound IS 'Holds events received before this.';
COMMENT ON COLUMN billing.partition_status.state IS
'ahead: its time has not come; open: receives events; closed: its time is over, not sealed yet; sealed: takes no more
events; dropped: by billing.retention.';
COMMENT ON COLUMN billing.partition_status.event_count IS
'Number of events, cancelled ones too: exact once sealed (of a dropped one, what it had), before that an estimate;
NULL: not even that yet.';
COMMENT ON COLUMN billing.partition_status.event_count_exact IS 'Whether event_count was counted.';
COMMENT ON COLUMN billing.partition_status.table_bytes IS 'Size of the table without its indexes; NULL: dropped.';
COMMENT ON COLUMN billing.partition_status.index_bytes IS 'Size of its indexes; NULL: dropped.';
COMMENT ON COLUMN billing.partition_status.total_bytes IS 'Both; NULL: dropped.';
