-- {events} more events of a sealed day, each with its row in the queue, as from single calls.
WITH recorded AS (
    INSERT INTO billing.{partition} (customer, event_name, identifier, value, "timestamp", received_at)
    SELECT 'cus_' || 10000 + floor(random() * 10000)::int, 'api_calls', gen_random_uuid()::text,
           1 + floor(random() * 100)::int, at, at
    FROM (
        -- Well within the range of timestamps that sealing has noted.
        SELECT timestamptz '{day}' + interval '1 hour' + random() * interval '22 hours' AS at FROM generate_series(1, {events})
    ) events
    RETURNING customer, event_name, "timestamp", value
)
INSERT INTO billing.usage_pending (customer, event_name, hour, event_count, value_sum)
SELECT customer, event_name, date_trunc('hour', "timestamp", 'UTC'), 1, value FROM recorded;
