-- What is sold, by the extension's own functions, and the tables of the least SQL: billing's columns and indexes, without
-- its checks, foreign keys and triggers.
CREATE EXTENSION pg_billing;
SELECT billing.create_meter('{"event_name": "requests", "default_aggregation": {"formula": "sum"}}');
SELECT billing.create_meter('{"event_name": "storage", "default_aggregation": {"formula": "sum"}}');
SELECT billing.create_product('prod_seats', 'Seats');
SELECT billing.create_product('prod_requests', 'Requests');
SELECT billing.create_product('prod_storage', 'Storage');
SELECT billing.create_price('{"currency": "usd", "unit_amount": 1500, "recurring": {"interval": "month"}}',
    'prod_seats', 'price_seats');
SELECT billing.create_price('{"currency": "usd", "unit_amount_decimal": "0.25",
    "recurring": {"interval": "month", "usage_type": "metered", "meter": "requests"}}', 'prod_requests', 'price_requests');
SELECT billing.create_price('{"currency": "usd", "billing_scheme": "tiered", "tiers_mode": "graduated",
    "tiers": [{"up_to": 500, "unit_amount": 0}, {"up_to": 1500, "unit_amount": 3, "flat_amount": 500},
              {"up_to": "inf", "unit_amount_decimal": "1.5"}],
    "recurring": {"interval": "month", "usage_type": "metered", "meter": "storage"}}', 'prod_storage', 'price_storage');

CREATE SCHEMA least;
CREATE TABLE least.invoices (LIKE billing.invoices INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING INDEXES);
CREATE TABLE least.invoice_lines (LIKE billing.invoice_lines INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING INDEXES);

-- Filled without its index, which billing_index.sql makes, for speed.
ALTER TABLE billing.usage_buckets DROP CONSTRAINT usage_buckets_pkey;
