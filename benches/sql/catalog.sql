CREATE EXTENSION pg_billing;
SELECT billing.create_meter('{"event_name": "api_calls", "default_aggregation": {"formula": "sum"}}');
INSERT INTO billing.customers (id) SELECT 'cus_' || n FROM generate_series(10000, 19999) n;
