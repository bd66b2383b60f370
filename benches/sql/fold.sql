-- What roll_up() and the worker would have made of the events of fill.sql.
INSERT INTO billing.usage_buckets (customer, event_name, width, start, event_count, value_sum)
SELECT e.customer, e.event_name, w.width, date_trunc(w.width, e."timestamp", 'UTC'), count(*), sum(e.value)
FROM billing.meter_events e CROSS JOIN (VALUES ('hour'), ('day')) AS w (width)
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4;

SELECT billing.maintain_partitions();
