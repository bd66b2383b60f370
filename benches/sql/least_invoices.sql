-- The least SQL that inserts the invoices of subscriptions due at {end}, from the day buckets of their month: what
-- billing.generate_invoices is measured against. No late usage, no thresholds, no hours, no changes, and nothing moves on.
WITH usage AS (
    SELECT b.customer, b.event_name, sum(b.value_sum) AS quantity
    FROM billing.usage_buckets b
    WHERE b.width = 'day' AND b.start >= '{start}' AND b.start < '{end}'
    GROUP BY b.customer, b.event_name
), due AS MATERIALIZED (
    SELECT billing.generate_id('in') AS invoice, s.*
    FROM billing.subscriptions s WHERE s.next_invoice_at <= '{end}'
), lines AS MATERIALIZED (
    SELECT d.invoice, i.id AS subscription_item, p.id AS price, 'usage' AS kind, n.name AS description, u.quantity,
           billing.price_line_amount(p.price, u.quantity) AS amount, d.current_period_start AS period_start,
           d.current_period_end AS period_end
    FROM due d
    JOIN billing.subscription_items i ON i.subscription = d.id
    JOIN billing.prices p ON p.id = i.price
    JOIN billing.products n ON n.id = p.product
    JOIN usage u ON u.customer = d.customer AND u.event_name = p.meter
    UNION ALL
    SELECT d.invoice, i.id, p.id, 'licensed', i.quantity || ' × ' || n.name, i.quantity,
           billing.price_line_amount(p.price, i.quantity), d.current_period_end, d.current_period_end + interval '1 month'
    FROM due d
    JOIN billing.subscription_items i ON i.subscription = d.id
    JOIN billing.prices p ON p.id = i.price AND p.usage_type = 'licensed'
    JOIN billing.products n ON n.id = p.product
), totals AS (
    SELECT l.invoice, count(*) AS line_count, sum(l.amount) AS amount FROM lines l GROUP BY l.invoice
), invoices AS (
    INSERT INTO least.invoices
        (id, customer, subscription, currency, period_start, period_end, created, billing_reason, collection_method, line_count,
         subtotal, total, amount_due)
    SELECT d.invoice, d.customer, d.id, d.currency, d.current_period_start, d.current_period_end, d.current_period_end,
           'subscription_cycle', d.collection_method, t.line_count, t.amount, t.amount, t.amount
    FROM due d JOIN totals t ON t.invoice = d.invoice
)
INSERT INTO least.invoice_lines
    (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end)
SELECT l.invoice, l.subscription_item, l.price, l.kind, l.description, l.quantity, l.amount, l.period_start, l.period_end
FROM lines l ORDER BY l.invoice
