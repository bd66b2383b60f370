-- A day of the month, as its roll-ups leave it: one bucket for each customer and meter, beside those of the same day.
INSERT INTO billing.usage_buckets (customer, event_name, width, start, event_count, value_sum)
SELECT 'cus_' || n, m.event_name, 'day', timestamptz '{start}' + {day} * interval '24 hours', 1 + {day},
       1 + (n * 31 + {day} * 7) % 100
FROM generate_series(1, {subscriptions}) n, (VALUES ('requests'), ('storage')) m (event_name);
