-- What recording is measured against: a table of the columns, partitions and unique index of billing.meter_events, and nothing else: not
-- even its BRIN index, which drill-down needs and recording pays for.
CREATE SCHEMA plain;

CREATE TABLE plain.meter_events (
    customer text COLLATE "C" NOT NULL,
    event_name text COLLATE "C" NOT NULL,
    identifier text COLLATE "C" NOT NULL,
    value numeric NOT NULL,
    "timestamp" timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    dimensions jsonb,
    cancelled_at timestamptz
) PARTITION BY RANGE (received_at);

CREATE FUNCTION plain.make_partition(lower_bound timestamptz, upper_bound timestamptz) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    table_name text := 'meter_events_p' || to_char(lower_bound AT TIME ZONE 'UTC', 'YYYYMMDD');
BEGIN
    EXECUTE format('CREATE TABLE plain.%I PARTITION OF plain.meter_events FOR VALUES FROM (%L) TO (%L)',
                   table_name, lower_bound, upper_bound);
    EXECUTE format('CREATE UNIQUE INDEX ON plain.%I (customer, event_name, identifier)', table_name);
    RETURN table_name;
END $$;
