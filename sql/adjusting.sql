-- Adjusting: from the amounts of lines to what is owed, by discounts, credit and tax, in this order. Amounts are computed by one pure
-- function (src/adjustment), called once for each invoice that has any of them; everything else is choosing, for many at once.
-- Locks follow those of invoicing: subscriptions, invoices, then discounts by id, credit grants by id, and after them what numbers and
-- balances need.

CREATE FUNCTION billing.adjust_amounts(invoice jsonb)
    RETURNS TABLE (line bigint, discount_amount bigint, discount_amounts jsonb, credit_amount bigint, credit_amounts jsonb,
                   tax_amount bigint, taxes jsonb)
    AS 'MODULE_PATHNAME', 'adjust_amounts_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 5;
COMMENT ON FUNCTION billing.adjust_amounts(jsonb) IS
    'Discounts, credit and tax of one invoice, exact before each rounding, one row a line (from 1). The invoice: {"created", "tax_exempt", '
    '"lines": [{"amount", "discountable", "item", "product", "price", "metered", "period_end", "tax_rates": [id], "corrects": '
    '{"amount", "discount_amount", "credit_amount", "discounts": [{"id", "amount"}], "credits": [{"id", "amount"}]}, "reverses": [place]}], '
    '"discounts": [{"id", "percent_off" or "amount_off", "products", "item", "end_at"}] in their order, '
    '"credit_grants": [{"id", "balance", "prices", "priority", "category", "effective_at", "expires_at", "created"}] in any, '
    '"tax_rates": [{"id", "percentage", "inclusive"}]}. tax_amount is NULL where it is beyond bigint. 22023: a field is missing or '
    'breaks a rule. Of a line below zero, corrects: what stands billed on other invoices, net of credit notes, of that which it gives '
    'back a part of; reverses: the lines of this invoice (from 1) that it gives back a part of, net of one another.';

-- Few subscriptions may bear tax among many that do not.
CREATE INDEX subscriptions_taxed_idx ON billing.subscriptions (id) WHERE default_tax_rates <> '{}';
CREATE INDEX subscription_items_taxed_idx ON billing.subscription_items (subscription) WHERE tax_rates <> '{}';
COMMENT ON INDEX billing.subscriptions_taxed_idx IS 'Finds the subscriptions that bear tax.';
COMMENT ON INDEX billing.subscription_items_taxed_idx IS 'Finds the subscriptions with an item that bears its own tax.';

CREATE INDEX invoice_lines_adjusted_idx ON billing.invoice_lines (invoice)
    WHERE num_nonnulls(discount_amounts, credit_amounts, taxes) > 0;
COMMENT ON INDEX billing.invoice_lines_adjusted_idx IS 'Finds the drafts from which discounts, credit and tax may have to go.';

CREATE FUNCTION billing.adjusted_lines(invoices billing.invoices[], lines billing.invoice_lines[])
RETURNS TABLE (line text, discount_amount bigint, discount_amounts jsonb, credit_amount bigint, credit_amounts jsonb,
               tax_amount bigint, taxes jsonb)
-- In UTC, as JSON has no times of other zones that are before the year 1, after 9999, or off by seconds.
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    delay interval := billing.setting_interval('finalization_delay');
BEGIN
    RETURN QUERY
    WITH drafts AS MATERIALIZED (
        SELECT i.id, i.customer, i.subscription, i.currency, i.period_end, i.created, c.tax_exempt,
               coalesce(i.default_tax_rates, s.default_tax_rates) AS default_tax_rates, i.item_tax_rates,
               billing.pause_behavior(i, s) AS pause_behavior
        FROM unnest(adjusted_lines.invoices) i
        JOIN billing.customers c ON c.id = i.customer
        LEFT JOIN billing.subscriptions s ON s.id = i.subscription
    ), parts AS MATERIALIZED (
        SELECT l.id, l.invoice, coalesce(l.amount, 0) AS amount, coalesce(l.discountable, true) AS discountable,
               l.subscription_item, l.invoice_item, l.price, p.product, l.period_start, l.period_end,
               x.charge, x.charge_amount, x.charge_credited_discount, x.created AS noted,
               l.kind IN ('usage', 'late_usage') AND l.amount < 0 AS gives_back,
               l.kind IN ('usage', 'late_usage') AND l.subscription_item IS NOT NULL AS metered,
               -- What is given back has the tax of what was charged, none too.
               CASE WHEN x.kind = 'unused_time' AND x.tax_rates IS NOT NULL THEN x.tax_rates
                    ELSE coalesce(nullif(x.tax_rates, '{}'),
                                  nullif(CASE WHEN d.item_tax_rates ? t.id
                                              THEN billing.text_array(d.item_tax_rates -> t.id)
                                              ELSE t.tax_rates END, '{}'),
                                  d.default_tax_rates, '{}') END AS tax_rates,
               row_number() OVER (PARTITION BY l.invoice ORDER BY l.id) AS place
        FROM unnest(adjusted_lines.lines) l
        JOIN drafts d ON d.id = l.invoice
        LEFT JOIN billing.prices p ON p.id = l.price
        LEFT JOIN billing.subscription_items t ON t.id = l.subscription_item
        LEFT JOIN billing.invoice_items x ON x.id = l.invoice_item
    ), returns AS MATERIALIZED (
        -- What is given back of a charge: after the charge, and after what was given back of it before.
        SELECT p.id AS line, p.invoice, p.charge, p.charge_amount, p.charge_credited_discount, c.line AS charge_line,
               ARRAY(SELECT y.id FROM billing.invoice_items y
                     WHERE y.subscription_item = p.subscription_item AND y.charge = p.charge
                       AND (y.created, y.id) < (p.noted, p.invoice_item)
                       -- Before a credit note in between it was part of another amount.
                       AND y.charge_amount = p.charge_amount) AS earlier
        FROM parts p
        LEFT JOIN LATERAL (SELECT l AS line FROM billing.charge_line(p.charge) l) c ON true
        WHERE p.charge IS NOT NULL
    ), reversals AS MATERIALIZED (
        SELECT r.line, jsonb_agg(o.place ORDER BY o.place) AS places,
               bool_or(o.id = r.charge OR o.invoice_item = r.charge OR o.id = (r.charge_line).id) AS charged
        FROM returns r
        JOIN parts o ON o.invoice = r.invoice
         AND (o.id = r.charge OR o.invoice_item = r.charge OR o.id = (r.charge_line).id OR o.invoice_item = ANY (r.earlier))
        GROUP BY r.line
    ), charging AS MATERIALIZED (
        SELECT d.line, d.discount_amount, d.discount_amounts
        FROM billing.draft_discounts(ARRAY(
            SELECT DISTINCT (r.charge_line).invoice FROM returns r WHERE (r.charge_line).invoice <> r.invoice)) d
    ), corrections AS MATERIALIZED (
        SELECT p.id AS line, jsonb_build_object(
                   -- What is given back fits bigint, so the rest of more than that does not matter.
                   'amount', least(b.amount, 9223372036854775807), 'discount_amount', b.discount_amount,
                   'credit_amount', b.credit_amount, 'discounts', coalesce(x.list, '[]'),
                   'credits', coalesce(g.list, '[]')) AS corrects
        FROM parts p
        JOIN drafts d ON d.id = p.invoice
        CROSS JOIN LATERAL (
            SELECT array_agg(l.id) AS lines, sum(l.amount - c.amount) AS amount,
                   sum(l.discount_amount - c.discount_amount) AS discount_amount,
                   sum(l.credit_amount - c.credit_grant_amount) AS credit_amount
            FROM billing.invoice_lines l
            JOIN billing.invoices i ON i.id = l.invoice
            CROSS JOIN LATERAL billing.credited_line(l.id) c
            WHERE l.subscription_item = p.subscription_item AND l.price = p.price AND l.period_start = p.period_start
              AND l.kind IN ('usage', 'late_usage') AND l.invoice <> d.id
              -- An earlier draft gives back its part first.
              AND i.status <> 'void' AND (i.status <> 'draft' OR (i.created, i.id) < (d.created, d.id))
        ) b
        CROSS JOIN LATERAL (
            SELECT jsonb_agg(jsonb_build_object('id', o.id, 'amount', o.amount) ORDER BY o.first) AS list
            FROM (SELECT a.part ->> 'discount' AS id, sum((a.part ->> 'amount')::bigint) AS amount,
                         min(l.id || lpad(a.place::text, 10, '0')) AS first
                  FROM billing.invoice_lines l
                  CROSS JOIN LATERAL jsonb_array_elements(l.discount_amounts) WITH ORDINALITY a (part, place)
                  WHERE l.id = ANY (b.lines) GROUP BY 1) o
            WHERE o.amount > 0) x
        CROSS JOIN LATERAL (
            SELECT jsonb_agg(jsonb_build_object('id', o.id, 'amount', o.amount) ORDER BY o.first) AS list
            FROM (SELECT a.part ->> 'credit_grant' AS id, sum((a.part ->> 'amount')::bigint) AS amount,
                         min(l.id || lpad(a.place::text, 10, '0')) AS first
                  FROM billing.invoice_lines l
                  CROSS JOIN LATERAL jsonb_array_elements(l.credit_amounts) WITH ORDINALITY a (part, place)
                  WHERE l.id = ANY (b.lines) GROUP BY 1) o
            WHERE o.amount > 0) g
        WHERE p.gives_back AND b.amount > 0
        UNION ALL
        SELECT r.line, jsonb_build_object(
                   'amount', CASE WHEN b.line IS NULL THEN 0 ELSE r.charge_amount END + e.amount,
                   'discount_amount', coalesce(b.discount_amount - r.charge_credited_discount, 0) + e.discount_amount,
                   'credit_amount', 0, 'discounts', coalesce(x.list, '[]'), 'credits', '[]'::jsonb)
        FROM returns r
        LEFT JOIN reversals v ON v.line = r.line
        -- A charge that waited as this did is on the same invoice, and gets its discounts there.
        LEFT JOIN charging h ON h.line = (r.charge_line).id
        LEFT JOIN LATERAL (
            SELECT r.line,
                   CASE WHEN h.line IS NULL THEN (r.charge_line).discount_amount ELSE h.discount_amount END AS discount_amount,
                   CASE WHEN h.line IS NULL THEN (r.charge_line).discount_amounts ELSE h.discount_amounts END AS discount_amounts
            WHERE (r.charge_line).id IS NOT NULL AND v.charged IS NOT TRUE) b ON true
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(l.amount), 0) AS amount, coalesce(sum(l.discount_amount), 0) AS discount_amount,
                   jsonb_agg(l.discount_amounts ORDER BY l.id) AS lists
            FROM billing.invoice_lines l JOIN billing.invoices i ON i.id = l.invoice
            WHERE l.invoice_item = ANY (r.earlier) AND l.invoice <> r.invoice AND i.status <> 'void') e
        CROSS JOIN LATERAL (
            SELECT jsonb_agg(jsonb_build_object('id', o.id, 'amount', o.amount) ORDER BY o.first) AS list
            FROM (SELECT a.part ->> 'discount' AS id, sum((a.part ->> 'amount')::bigint) AS amount, min(a.place) AS first
                  FROM (SELECT b.discount_amounts UNION ALL SELECT k.list FROM jsonb_array_elements(e.lists) k (list)) u (list)
                  CROSS JOIN LATERAL jsonb_array_elements(
                      CASE jsonb_typeof(u.list) WHEN 'array' THEN u.list ELSE '[]' END) WITH ORDINALITY a (part, place)
                  GROUP BY 1) o
            WHERE o.amount > 0) x
    ), in_force AS MATERIALIZED (
        SELECT d.id AS invoice, x.id, x.subscription_item, x.end_at, c.percent_off, c.applies_to_products,
               (SELECT o.place FROM unnest(x.places, x.placed_at) WITH ORDINALITY o (place, at, nth)
                WHERE o.at <= d.created OR x.invoice IS NOT NULL ORDER BY o.nth DESC LIMIT 1) AS place,
               CASE WHEN c.percent_off IS NOT NULL THEN NULL
                    WHEN c.currency = d.currency THEN c.amount_off
                    ELSE (c.currency_options #>> ARRAY[d.currency, 'amount_off'])::bigint END AS amount_off,
               CASE WHEN x.subscription_item IS NOT NULL THEN 0 WHEN x.invoice IS NOT NULL THEN 1
                    WHEN x.subscription IS NOT NULL THEN 2 ELSE 3 END AS level
        FROM drafts d
        JOIN billing.discounts x ON x.customer = d.customer
        JOIN billing.coupons c ON c.id = x.coupon
        -- Those of the invoice itself are as they are listed, whenever that was.
        WHERE CASE WHEN x.invoice IS NOT NULL THEN x.invoice = d.id AND x.ended_at IS NULL
                   ELSE x.start_at <= d.created AND coalesce(d.created < x.ended_at, true) END
          AND coalesce(x.redeemed_invoice = d.id, true)
          AND coalesce(x.subscription = d.subscription, x.subscription IS NULL)
          AND (c.percent_off IS NOT NULL OR c.currency = d.currency OR c.currency_options ? d.currency)
          -- Those of an item need a line of it; what has ended needs a line of before.
          AND EXISTS (SELECT FROM parts p
                      WHERE p.invoice = d.id AND coalesce(p.subscription_item = x.subscription_item, x.subscription_item IS NULL)
                        AND coalesce(d.created < x.end_at OR p.period_end <= x.end_at, true))
    ), discounts AS (
        SELECT f.invoice, jsonb_agg(jsonb_build_object(
                   'id', f.id, 'percent_off', f.percent_off, 'amount_off', f.amount_off,
                   'products', f.applies_to_products, 'item', f.subscription_item, 'end_at', f.end_at)
                   ORDER BY f.level, f.place, f.id) AS list
        FROM in_force f
        WHERE f.level = 0
           OR f.level = (SELECT min(o.level) FROM in_force o WHERE o.invoice = f.invoice AND o.level > 0)
        GROUP BY f.invoice
    ), grants AS (
        SELECT d.id AS invoice, jsonb_agg(jsonb_build_object(
                   'id', g.id, 'balance', g.balance, 'prices', g.prices, 'priority', g.priority,
                   'category', g.category, 'effective_at', g.effective_at, 'expires_at', g.expires_at,
                   'created', g.created)) AS list
        FROM drafts d
        JOIN billing.credit_grants g ON g.customer = d.customer AND g.currency = d.currency
        WHERE g.balance > 0 AND d.period_end >= g.effective_at AND coalesce(d.period_end < g.expires_at, true)
          -- A run that comes late uses no credit granted after a run on time.
          AND g.created <= d.created + delay
          -- What is waived uses up none.
          AND d.pause_behavior IS DISTINCT FROM 'void'
        GROUP BY d.id
    ), rates AS (
        SELECT u.invoice, jsonb_agg(jsonb_build_object(
                   'id', t.id, 'percentage', t.percentage, 'inclusive', t.inclusive)) AS list
        FROM (SELECT DISTINCT p.invoice, r.id FROM parts p CROSS JOIN LATERAL unnest(p.tax_rates) r (id)) u
        JOIN billing.tax_rates t ON t.id = u.id
        GROUP BY u.invoice
    ), listed AS (
        SELECT p.invoice, jsonb_agg(jsonb_build_object(
                   'amount', p.amount, 'discountable', p.discountable, 'item', p.subscription_item,
                   'product', p.product, 'price', p.price, 'metered', p.metered, 'period_end', p.period_end,
                   'tax_rates', p.tax_rates, 'corrects', c.corrects, 'reverses', coalesce(r.places, '[]')) ORDER BY p.place) AS list
        FROM parts p
        LEFT JOIN corrections c ON c.line = p.id
        LEFT JOIN reversals r ON r.line = p.id
        GROUP BY p.invoice
    )
    SELECT p.id, a.discount_amount, a.discount_amounts, a.credit_amount, a.credit_amounts, a.tax_amount, a.taxes
    FROM drafts d
    JOIN listed l ON l.invoice = d.id
    LEFT JOIN discounts x ON x.invoice = d.id
    LEFT JOIN grants g ON g.invoice = d.id
    LEFT JOIN rates r ON r.invoice = d.id
    CROSS JOIN LATERAL billing.adjust_amounts(jsonb_build_object(
        'created', d.created, 'tax_exempt', d.tax_exempt, 'lines', l.list, 'discounts', coalesce(x.list, '[]'),
        'credit_grants', coalesce(g.list, '[]'), 'tax_rates', coalesce(r.list, '[]'))) a
    JOIN parts p ON p.invoice = d.id AND p.place = a.line;
END $$;
COMMENT ON FUNCTION billing.adjusted_lines(billing.invoices[], billing.invoice_lines[]) IS
'The discounts, credit and tax of the lines of some invoices, which need not stand in any table: of an invoice, id,
customer, subscription, currency, period_end, created, default_tax_rates, item_tax_rates and pause_behavior count; of a
line, id, invoice, subscription_item, invoice_item, price, kind, amount, discountable, period_start and period_end; ids sort
in the order of the lines. Usage given back takes its share of the discounts and credit with it of what stands billed for
it, and unused time that of the discounts of its charge.
tax_amount is NULL where it is beyond bigint. Previews and drafts come here. Internal.';

CREATE FUNCTION billing.adjusted_preview(
    subscription billing.subscriptions, created timestamptz, lines billing.invoice_lines[]
) RETURNS SETOF billing.invoice_lines
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    invoice billing.invoices;
    numbered billing.invoice_lines[];
BEGIN
    invoice.id := 'preview';
    invoice.customer := subscription.customer;
    invoice.subscription := subscription.id;
    invoice.currency := subscription.currency;
    invoice.period_end := created;
    invoice.created := created;
    -- Lines that are not written yet have no ids to tell them by.
    numbered := ARRAY(
        SELECT jsonb_populate_record(adjusted_preview.lines[n],
                   jsonb_build_object('id', lpad(n::text, 10, '0'), 'invoice', 'preview'))
        FROM generate_series(1, cardinality(adjusted_preview.lines)) n ORDER BY n);
    RETURN QUERY
    SELECT r.* FROM billing.adjusted_lines(ARRAY[invoice], numbered) a
    JOIN LATERAL (SELECT adjusted_preview.lines[a.line::integer] AS line) o ON true
    CROSS JOIN LATERAL jsonb_populate_record(o.line, to_jsonb(a) - 'line') r
    ORDER BY a.line;
END $$;
COMMENT ON FUNCTION billing.adjusted_preview(billing.subscriptions, timestamptz, billing.invoice_lines[]) IS
'The lines of an invoice of a subscription that is not made yet, in their order, with the discounts, credit and tax that
it would have if it were made at a time; ids stay as they are. tax_amount is NULL where it is beyond bigint. Internal.';

CREATE FUNCTION billing.write_adjustments(invoices text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    beyond text[];
BEGIN
    WITH adjusted AS MATERIALIZED (
        SELECT a.* FROM billing.adjusted_lines(
            ARRAY(SELECT i FROM billing.invoices i WHERE i.id = ANY (write_adjustments.invoices)),
            ARRAY(SELECT l FROM billing.invoice_lines l WHERE l.invoice = ANY (write_adjustments.invoices))) a
    ), written AS (
        UPDATE billing.invoice_lines l
        SET discount_amount = a.discount_amount, discount_amounts = a.discount_amounts,
            credit_amount = a.credit_amount, credit_amounts = a.credit_amounts,
            tax_amount = coalesce(a.tax_amount, 0), taxes = CASE WHEN a.tax_amount IS NOT NULL THEN a.taxes END
        FROM adjusted a
        WHERE l.id = a.line
          AND (l.discount_amount, l.discount_amounts, l.credit_amount, l.credit_amounts, l.tax_amount, l.taxes)
              IS DISTINCT FROM
              (a.discount_amount, a.discount_amounts, a.credit_amount, a.credit_amounts, a.tax_amount, a.taxes)
    )
    SELECT array_agg(DISTINCT l.invoice) INTO beyond
    FROM adjusted a JOIN billing.invoice_lines l ON l.id = a.line WHERE a.tax_amount IS NULL;

    UPDATE billing.invoices i
    SET total_discount_amount = CASE WHEN fits THEN sums.discount ELSE 0 END,
        total_credit_amount = CASE WHEN fits THEN sums.credit ELSE 0 END,
        total_tax_amount = CASE WHEN fits THEN sums.tax ELSE 0 END,
        total_exclusive_tax_amount = CASE WHEN fits THEN sums.exclusive_tax ELSE 0 END,
        subtotal = CASE WHEN fits THEN sums.amount ELSE 0 END,
        total = CASE WHEN fits THEN owed ELSE 0 END,
        amount_due = CASE WHEN fits THEN greatest(owed, 0) ELSE 0 END,
        finalization_error = CASE WHEN NOT fits THEN 'the total with tax is beyond the range of bigint' END
    FROM (SELECT l.invoice, sum(l.amount) AS amount, sum(l.discount_amount) AS discount,
                 sum(l.credit_amount) AS credit, sum(l.tax_amount) AS tax,
                 sum(CASE WHEN l.taxes IS NULL THEN 0 ELSE (
                     SELECT coalesce(sum((t.tax ->> 'amount')::bigint), 0) FROM jsonb_array_elements(l.taxes) t (tax)
                     WHERE t.tax ->> 'tax_behavior' = 'exclusive') END) AS exclusive_tax
          FROM billing.invoice_lines l WHERE l.invoice = ANY (write_adjustments.invoices) GROUP BY l.invoice) sums
    CROSS JOIN LATERAL (SELECT sums.amount - sums.discount - sums.credit + sums.exclusive_tax) t (owed)
    CROSS JOIN LATERAL (
        SELECT coalesce(sums.invoice <> ALL (beyond), true)
               AND greatest(abs(sums.amount), abs(sums.discount), abs(sums.credit), abs(sums.tax),
                            abs(sums.exclusive_tax), abs(owed)) <= 9223372036854775807) f (fits)
    WHERE i.id = sums.invoice;
END $$;
COMMENT ON FUNCTION billing.write_adjustments(text[]) IS
'Writes the discounts, credit and tax of drafts on their lines and in their totals; see billing.adjust_drafts. Internal.';

CREATE FUNCTION billing.adjust_drafts(invoices text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    delay interval := billing.setting_interval('finalization_delay');
    chosen text[];
BEGIN
    IF NOT EXISTS (SELECT FROM billing.discounts) AND NOT EXISTS (SELECT FROM billing.credit_grants)
       AND NOT EXISTS (SELECT FROM billing.tax_rates)
    THEN
        RETURN;
    END IF;
    WITH drafts AS MATERIALIZED (
        SELECT i.id, i.customer, i.subscription, i.currency, i.period_end, i.created, i.default_tax_rates,
               i.item_tax_rates
        FROM billing.invoices i
        WHERE i.id = ANY (adjust_drafts.invoices) AND i.status = 'draft' AND i.finalization_error IS NULL
    )
    SELECT coalesce(array_agg(c.id ORDER BY c.id), '{}') INTO chosen FROM (
        SELECT d.id FROM drafts d JOIN billing.discounts x ON x.customer = d.customer
        WHERE x.start_at <= d.created AND coalesce(d.created < x.ended_at, true)
          AND coalesce(x.redeemed_invoice = d.id, true) AND coalesce(x.invoice = d.id, true)
        UNION
        SELECT d.id FROM drafts d JOIN billing.credit_grants g ON (g.customer, g.currency) = (d.customer, d.currency)
        WHERE g.balance > 0 AND d.period_end >= g.effective_at AND coalesce(d.period_end < g.expires_at, true)
          AND g.created <= d.created + delay
        UNION
        SELECT d.id FROM drafts d WHERE d.default_tax_rates <> '{}' OR d.item_tax_rates IS NOT NULL
        UNION
        SELECT d.id FROM drafts d JOIN billing.subscriptions s ON s.id = d.subscription
        WHERE s.default_tax_rates <> '{}'
        UNION
        SELECT d.id FROM drafts d JOIN billing.subscription_items t ON t.subscription = d.subscription
        WHERE t.tax_rates <> '{}'
        UNION
        SELECT d.id FROM drafts d
        JOIN billing.invoice_lines l ON l.invoice = d.id
        JOIN billing.invoice_items x ON x.id = l.invoice_item
        WHERE x.tax_rates <> '{}'
        UNION
        -- What was taken off usage, or a charge, goes with it when it is given back.
        SELECT d.id FROM drafts d JOIN billing.invoice_lines l ON l.invoice = d.id
        WHERE l.kind IN ('usage', 'late_usage', 'unused_time') AND l.amount < 0
        UNION
        -- What it had the last time may be gone.
        SELECT d.id FROM drafts d
        WHERE EXISTS (SELECT FROM billing.invoice_lines l
                      WHERE l.invoice = d.id AND num_nonnulls(l.discount_amounts, l.credit_amounts, l.taxes) > 0)
    ) c;

    -- In parts, so that memory does not grow with the number of invoices.
    FOR place IN 1 .. cardinality(chosen) BY 1000 LOOP
        PERFORM billing.write_adjustments(chosen[place : place + 999]);
    END LOOP;
END $$;
COMMENT ON FUNCTION billing.adjust_drafts(text[]) IS
'Gives drafts, whose lines'' amounts stand, their discounts, credit and tax as of now, on the lines and in the totals.
Drafts that have none cost a look, and those with a finalization_error are left alone; one whose total with tax bigint
cannot hold gets one. Credit is not used by this: several drafts may show the same. The caller holds their locks.
Internal.';
