-- A day of {events} events in its empty partition, sealed and folded. The index is made afterwards, and identifiers are
-- hashes, both for speed: a server without OpenSSL opens /dev/urandom for each random one.
DROP INDEX billing.{partition}_identity;

INSERT INTO billing.{partition} (customer, event_name, identifier, value, "timestamp", received_at)
SELECT 'cus_' || 10000 + floor(random() * 10000)::int, 'api_calls', md5('{day}' || n)::uuid::text, 1 + floor(random() * 100)::int,
       greatest('{day}', at - random() * interval '2 seconds'), at
FROM (SELECT n, timestamptz '{day}' + interval '24 hours' * (n::float8 / {events}) AS at FROM generate_series(0, {events} - 1) n) events;

CREATE UNIQUE INDEX {partition}_identity ON billing.{partition} (customer, event_name, identifier);

-- What the worker does with a day that is over.
SELECT billing.seal_partition('{partition}');
SELECT billing.filter_partition('{partition}');

INSERT INTO billing.usage_buckets (customer, event_name, width, start, event_count, value_sum)
SELECT customer, event_name, 'hour', date_trunc('hour', "timestamp", 'UTC'), count(*), sum(value)
FROM billing.{partition} GROUP BY 1, 2, 4 ORDER BY 1, 2, 4;

INSERT INTO billing.usage_buckets (customer, event_name, width, start, event_count, value_sum)
SELECT customer, event_name, 'day', '{day}', count(*), sum(value) FROM billing.{partition} GROUP BY 1, 2 ORDER BY 1, 2;
