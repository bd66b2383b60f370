-- Every event that was recorded, for ever or for billing.retention. No foreign keys, triggers or identity columns: rows are
-- inserted by the ingest path directly, and the table must be able to spread over machines by customer.
CREATE TABLE billing.meter_events (
    customer text COLLATE "C" NOT NULL,
    event_name text COLLATE "C" NOT NULL,
    identifier text COLLATE "C" NOT NULL,
    value numeric NOT NULL,
    "timestamp" timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    dimensions jsonb,
    cancelled_at timestamptz
) PARTITION BY RANGE (received_at);

COMMENT ON TABLE billing.meter_events IS
    'Meter events as recorded; write with billing.record_meter_event(s)(). Partitioned by the time they were received. Each '
    '(customer, event_name, identifier) is recorded once.';
COMMENT ON COLUMN billing.meter_events.customer IS 'customers.id.';
COMMENT ON COLUMN billing.meter_events.event_name IS 'meters.event_name.';
COMMENT ON COLUMN billing.meter_events.identifier IS 'The sender''s idempotency key, 1 to 255 bytes; made here when none was sent.';
COMMENT ON COLUMN billing.meter_events.value IS 'The usage, exact, at most 28 digits; may be negative.';
COMMENT ON COLUMN billing.meter_events."timestamp" IS 'When the usage happened: it belongs to the period that holds this instant.';
COMMENT ON COLUMN billing.meter_events.received_at IS
    'When it was received (wall clock, not transaction start); strictly increasing along the array of one call, unless '
    'that crosses into the next partition.';
COMMENT ON COLUMN billing.meter_events.dimensions IS 'Further payload keys, as an object of texts. NULL: none.';
COMMENT ON COLUMN billing.meter_events.cancelled_at IS 'When it was cancelled; it counts nowhere since. NULL: it counts.';
SELECT pg_catalog.pg_extension_config_dump('billing.meter_events', '');

-- A type has a lock like a table's, and nothing else ever asks for this one's.
CREATE TYPE billing.undecided_event AS ();
COMMENT ON TYPE billing.undecided_event IS
'No value is of this type. Its lock is held, in mode RowExclusiveLock, by a session that is entering an event which it may yet take back,
and awaited, in mode ShareLock, by one that has met such an event: pg_locks shows both.';
