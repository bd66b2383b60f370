-- What one writes without an extension: each event once, and an hourly bucket kept current. Comes after plain.sql.
CREATE TABLE plain.usage_hours (
    customer text COLLATE "C" NOT NULL,
    event_name text COLLATE "C" NOT NULL,
    start timestamptz NOT NULL,
    event_count bigint NOT NULL,
    value_sum numeric NOT NULL,
    PRIMARY KEY (customer, event_name, start)
) WITH (fillfactor = 70);

CREATE FUNCTION plain.record_event(
    of_event_name text, of_customer text, of_value numeric, of_identifier text, of_timestamp timestamptz
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO plain.meter_events (customer, event_name, identifier, value, "timestamp", received_at)
    VALUES (of_customer, of_event_name, of_identifier, of_value, of_timestamp, clock_timestamp())
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO plain.usage_hours AS h (customer, event_name, start, event_count, value_sum)
    VALUES (of_customer, of_event_name, date_trunc('hour', of_timestamp, 'UTC'), 1, of_value)
    ON CONFLICT (customer, event_name, start) DO UPDATE SET
        event_count = h.event_count + excluded.event_count, value_sum = h.value_sum + excluded.value_sum;
    RETURN true;
END $$;
