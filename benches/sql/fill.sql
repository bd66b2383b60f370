-- Partitions for the days from {days} ago to tomorrow, with {events} events spread over them up to now.
SELECT {schema}.make_partition(d, d + interval '1 day')
FROM (SELECT date_trunc('day', now(), 'UTC') + n * interval '24 hours' AS d FROM generate_series(-{days}, 1) n) days;

INSERT INTO {schema}.meter_events (customer, event_name, identifier, value, "timestamp", received_at)
SELECT 'cus_' || 10000 + floor(random() * 10000)::int, 'api_calls', gen_random_uuid()::text, 1 + floor(random() * 100)::int, at, at
FROM (
    SELECT GREATEST(start, start + (least(start + interval '24 hours', now()) - start) * (n::float8 / per_day)) AS at
    FROM (SELECT date_trunc('day', now(), 'UTC') - d * interval '24 hours' AS start, {events} / ({days} + 1) AS per_day
          FROM generate_series({days}, 0, -1) d) days
    CROSS JOIN generate_series(0, per_day - 1) n
) events;
