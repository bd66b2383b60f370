//! What holds of every history, whether a model foretells it or not, asked of the database itself.

use postgres::Client;

use crate::recording::text;

/// Of what a line was taken off or put on: its parts, and the ledgers.
const SUMS: &str = "
    SELECT string_agg(concat_ws(' ', i.id, i.subscription, i.created, i.subtotal, i.total), '; ')
    FROM billing.invoices i
    CROSS JOIN LATERAL (
        SELECT sum(l.discount_amount) AS discount, sum(l.credit_amount) AS credit, sum(l.tax_amount) AS tax,
               bool_or(l.discount_amount <> (SELECT coalesce(sum((a ->> 'amount')::bigint), 0)
                                             FROM jsonb_array_elements(coalesce(l.discount_amounts, '[]')) a)
                    OR l.credit_amount <> (SELECT coalesce(sum((a ->> 'amount')::bigint), 0)
                                           FROM jsonb_array_elements(coalesce(l.credit_amounts, '[]')) a)
                    OR l.tax_amount <> (SELECT coalesce(sum((a ->> 'amount')::bigint), 0)
                                        FROM jsonb_array_elements(coalesce(l.taxes, '[]')) a)
                    OR l.amount >= 0 AND (l.discount_amount NOT BETWEEN 0 AND l.amount
                                          OR l.credit_amount NOT BETWEEN 0 AND l.amount - l.discount_amount)
                    OR l.amount < 0 AND (l.discount_amount NOT BETWEEN l.amount AND 0
                                         OR l.credit_amount NOT BETWEEN l.amount - l.discount_amount AND 0)
                    OR l.kind IN ('licensed', 'unused_time', 'item') AND l.credit_amount <> 0) AS wrong
        FROM billing.invoice_lines l WHERE l.invoice = i.id) s
    WHERE s.wrong OR (i.total_discount_amount, i.total_credit_amount, i.total_tax_amount) <> (s.discount, s.credit, s.tax)";

/// A grant is the sum of its ledger, and the ledger what final invoices show.
const CREDIT: &str = "
    SELECT string_agg(concat_ws(' ', g.id, g.amount, g.balance, t.sum, t.used, l.used), '; ')
    FROM billing.credit_grants g
    CROSS JOIN LATERAL (
        SELECT sum(CASE t.type WHEN 'credit' THEN t.amount ELSE -t.amount END) AS sum,
               coalesce(sum(CASE t.type WHEN 'debit' THEN t.amount ELSE -t.amount END)
                   FILTER (WHERE t.invoice IS NOT NULL), 0) AS used
        FROM billing.credit_balance_transactions t WHERE t.credit_grant = g.id) t
    CROSS JOIN LATERAL (
        SELECT coalesce(sum((a ->> 'amount')::bigint), 0) AS used
        FROM billing.invoices i JOIN billing.invoice_lines l ON l.invoice = i.id
        CROSS JOIN LATERAL jsonb_array_elements(l.credit_amounts) a
        WHERE i.customer = g.customer AND i.status NOT IN ('draft', 'void') AND a ->> 'credit_grant' = g.id) l
    WHERE g.balance <> t.sum OR t.used <> l.used OR g.balance NOT BETWEEN 0 AND g.amount";

/// No time of an item is billed twice.
const OVERLAPS: &str = "
    SELECT string_agg(concat_ws(' ', o.subscription_item, o.price, o.period_start, o.period_end, o.before), '; ')
    FROM (SELECT u.*, max(u.period_end) OVER (PARTITION BY u.subscription_item ORDER BY u.period_start, u.period_end
                                              ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
          FROM (SELECT l.subscription_item, l.price, l.period_start, max(l.period_end) AS period_end
                FROM billing.invoice_lines l WHERE l.kind IN ('usage', 'late_usage') GROUP BY 1, 2, 3) u) o
    WHERE o.before > o.period_start";

#[track_caller]
fn assert_none(client: &mut Client, what: &str, sql: &str) {
    assert_eq!(text(client, sql), "NULL", "{what}");
}

pub fn assert_sums(client: &mut Client) {
    assert_none(client, "invoices that are not their parts", SUMS);
    assert_none(client, "grants that are not their ledger", CREDIT);
    assert_none(client, "usage that is billed twice", OVERLAPS);
}

/// Every time of items that have usage, from their beginning or the trial's end to their end or the current period, but for those of
/// some subscriptions, and of items that had no usage for a time.
pub fn assert_nothing_is_left_out(client: &mut Client, but: &[&str]) {
    let sql = format!(
        "SELECT string_agg(concat_ws(' ', t.id, t.subscription, b.first, b.last, b.sum, w.start, w.ends), '; ')
         FROM billing.subscriptions s
         JOIN billing.subscription_items t ON t.subscription = s.id AND t.quantity IS NULL
         CROSS JOIN LATERAL (
             SELECT greatest(t.created, s.trial_end), coalesce(t.ended_at, s.ended_at, s.current_period_start)) w (start, ends)
         CROSS JOIN LATERAL (
             SELECT min(u.period_start) AS first, max(u.period_end) AS last, sum(u.period_end - u.period_start) AS sum
             FROM (SELECT l.price, l.period_start, max(l.period_end) AS period_end FROM billing.invoice_lines l
                   WHERE l.subscription_item = t.id AND l.kind IN ('usage', 'late_usage') GROUP BY 1, 2) u) b
         WHERE s.id <> ALL ('{{{}}}') AND w.start < w.ends
           AND (b.first, b.last, b.sum) IS DISTINCT FROM (w.start, w.ends, w.ends - w.start)",
        but.join(",")
    );
    assert_none(client, "usage that is not billed", &sql);
}

/// All that was ever billed for a time is what its usage costs, as the events have it. What was waived is not given back, and after
/// the last invoice of a subscription that has ended, or is paused, nothing is billed or given back (`ended`: nothing came after it).
pub fn assert_billed_is_rated(client: &mut Client, ended: bool) {
    let sql = format!(
        "SELECT string_agg(concat_ws(' ', b.subscription, b.price, b.period_start, b.period_end, b.amount, q.quantity, r.amount), '; ')
         FROM (SELECT i.customer, i.subscription, l.subscription_item, l.price, l.period_start, max(l.period_end) AS period_end,
                      sum(l.amount) AS amount, bool_or(i.status = 'void') AS waived
               FROM billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice
               WHERE l.kind IN ('usage', 'late_usage')
               GROUP BY 1, 2, 3, 4, 5
               -- A threshold's invoice alone is of a period that runs.
               HAVING bool_or(i.billing_reason <> 'subscription_threshold')) b
         JOIN billing.subscriptions s ON s.id = b.subscription
         JOIN billing.prices p ON p.id = b.price
         JOIN billing.meters m ON m.event_name = p.meter
         CROSS JOIN LATERAL (
             SELECT greatest(coalesce(CASE m.aggregation
                        WHEN 'sum' THEN sum(e.value) WHEN 'count' THEN count(*) WHEN 'max' THEN max(e.value)
                        WHEN 'last' THEN (array_agg(e.value ORDER BY e.timestamp DESC, e.received_at DESC))[1] END, 0), 0)
             FROM billing.meter_events e
             WHERE e.customer = b.customer AND e.event_name = p.meter AND e.cancelled_at IS NULL
               AND e.timestamp >= b.period_start AND e.timestamp < b.period_end) q (quantity)
         CROSS JOIN LATERAL (SELECT round(billing.price_amount(p.price, q.quantity))) r (amount)
         WHERE ({ended} OR s.status NOT IN ('canceled', 'paused'))
           -- A draft that waits for a person takes no late usage, which is noted for the next one.
           AND NOT (EXISTS (SELECT FROM billing.invoices d WHERE d.subscription = s.id AND d.status = 'draft' AND NOT d.auto_advance)
                    AND EXISTS (SELECT FROM billing.late_usage_marks m WHERE m.subscription = s.id))
           AND CASE WHEN b.waived THEN b.amount < r.amount ELSE b.amount <> r.amount END"
    );
    assert_none(client, "usage that is billed for something else than it costs", &sql);
}
