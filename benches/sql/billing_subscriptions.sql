-- {subscriptions} subscriptions, each with its customer and three items, in the month that ends.
-- Whose keys are right: they are not looked up one by one, for speed.
SET session_replication_role = replica;
INSERT INTO billing.customers (id) SELECT 'cus_' || n FROM generate_series(1, {subscriptions}) n;

INSERT INTO billing.subscriptions
    (id, customer, status, current_period_start, current_period_end, currency, billing_cycle_anchor, "interval", interval_count,
     start_date, definition, created, next_invoice_at)
SELECT 'sub_' || n, 'cus_' || n, 'active', '{start}', '{end}', 'usd', '{start}', 'month', 1, '{start}',
       format('{"customer": "cus_%s", "items": [{"price": "price_seats", "quantity": %s}, {"price": "price_requests"},
               {"price": "price_storage"}]}', n, 1 + n % 7)::billing.subscription,
       '{start}', '{end}'
FROM generate_series(1, {subscriptions}) n;

INSERT INTO billing.subscription_items (subscription, price, quantity, created, starts_at)
SELECT 'sub_' || n, i.price, CASE i.price WHEN 'price_seats' THEN 1 + n % 7 END, '{start}', '{start}'
FROM generate_series(1, {subscriptions}) n, (VALUES ('price_seats'), ('price_requests'), ('price_storage')) i (price);
RESET session_replication_role;
