-- Lines and invoices that one side has and the other has not, whatever their ids.
SELECT (
    SELECT count(*) FROM (
        SELECT i.subscription, i.customer, i.currency, i.period_start, i.period_end, i.line_count, i.subtotal,
               i.total, i.amount_due
        FROM billing.invoices i) b
    FULL JOIN (
        SELECT i.subscription, i.customer, i.currency, i.period_start, i.period_end, i.line_count, i.subtotal,
               i.total, i.amount_due
        FROM least.invoices i) l ON l.subscription = b.subscription
    WHERE b IS DISTINCT FROM l
) + (
    SELECT count(*) FROM (
        SELECT l.subscription_item, l.price, l.kind, l.description, l.quantity, l.amount, l.period_start, l.period_end
        FROM billing.invoice_lines l) b
    FULL JOIN (
        SELECT l.subscription_item, l.price, l.kind, l.description, l.quantity, l.amount, l.period_start, l.period_end
        FROM least.invoice_lines l) l ON (l.subscription_item, l.period_start) = (b.subscription_item, b.period_start)
    WHERE b IS DISTINCT FROM l
)
