-- Invoices, their lines, and whether the lines add up to them, and the usage on them to the buckets.
SELECT i.count, l.count, (i.total, l.quantity) IS NOT DISTINCT FROM (l.amount, b.value_sum)
FROM (SELECT count(*), sum(total) AS total FROM {schema}.invoices) i,
     (SELECT count(*), sum(amount) AS amount, sum(quantity) FILTER (WHERE kind = 'usage') AS quantity
      FROM {schema}.invoice_lines) l,
     (SELECT sum(value_sum) AS value_sum FROM billing.usage_buckets) b
