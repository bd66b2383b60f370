-- Proration of licensed items: what was charged is given back from what was really charged, by the second. Amounts are those before
-- discounts: what is given back takes its share of the discounts of the charge with it, once these stand (billing.adjusted_lines).

CREATE FUNCTION billing.charge_line(charge text) RETURNS SETOF billing.invoice_lines
LANGUAGE sql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE lines AS (
        SELECT l.* FROM billing.invoice_lines l WHERE l.invoice_item = $1 OR l.id = $1
        UNION
        SELECT n.* FROM lines l
        JOIN billing.invoices i ON i.id = l.invoice
        JOIN billing.invoice_lines n ON n.invoice = i.regenerated_as AND n.invoice_item IS NULL
         AND (n.subscription_item, n.kind, n.period_start, n.period_end)
             = (l.subscription_item, l.kind, l.period_start, l.period_end)
        WHERE l.invoice_item IS NULL)
    SELECT l.* FROM lines l ORDER BY l.id DESC LIMIT 1
$$;
COMMENT ON FUNCTION billing.charge_line(text) IS
'The line of a charge for a licensed item, given as in billing.invoice_items.charge; where its invoice was made anew, that
of the latest. No row while it waits for an invoice. Internal.';

CREATE FUNCTION billing.draft_discounts(drafts text[])
RETURNS TABLE (line text, invoice text, discount_amount bigint, discount_amounts jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.invoices[] := ARRAY(
        SELECT i FROM billing.invoices i WHERE i.id = ANY (draft_discounts.drafts) AND i.status = 'draft');
    -- Without what is given back there, on which no discount depends: that would ask for the drafts before these, and so on.
    charges billing.invoice_lines[];
BEGIN
    IF found = '{}' THEN
        RETURN;
    END IF;
    charges := ARRAY(SELECT l FROM billing.invoice_lines l
                     WHERE l.invoice = ANY (draft_discounts.drafts) AND l.kind <> 'unused_time');
    RETURN QUERY
    SELECT a.line, l.invoice, a.discount_amount, a.discount_amounts
    FROM billing.adjusted_lines(found, charges) a JOIN billing.invoice_lines l ON l.id = a.line;
END $$;
COMMENT ON FUNCTION billing.draft_discounts(text[]) IS
'The discounts of the lines of drafts as they would be now, whatever they were last shown with, and of drafts that cannot be
finalized; but for those of unused time. No rows of invoices that are final. Internal.';

CREATE FUNCTION billing.charges_given_back(invoices text[]) RETURNS TABLE (invoice text, charging text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT l.invoice, c.invoice
    FROM billing.invoice_lines l
    JOIN billing.invoice_items x ON x.id = l.invoice_item
    CROSS JOIN LATERAL billing.charge_line(x.charge) c
    WHERE l.invoice = ANY (invoices) AND l.kind = 'unused_time' AND l.amount < 0 AND c.invoice <> l.invoice
$$;
COMMENT ON FUNCTION billing.charges_given_back(text[]) IS
'Which of some invoices give back unused time that another one charges, and which one that is. Internal.';

CREATE FUNCTION billing.charging_drafts(invoices text[]) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN ARRAY(SELECT DISTINCT g.charging
             FROM billing.charges_given_back(invoices) g
             JOIN billing.invoices i ON i.id = g.charging AND i.status = 'draft'
             WHERE g.charging <> ALL (invoices)
             ORDER BY g.charging);
COMMENT ON FUNCTION billing.charging_drafts(text[]) IS
'Other drafts, on which the charges are that some invoices give back. Internal.';

CREATE FUNCTION billing.giving_back(charged text[], among text[]) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN ARRAY(SELECT DISTINCT g.invoice FROM billing.charges_given_back(among) g
             WHERE g.charging = ANY (charged) ORDER BY g.invoice);
COMMENT ON FUNCTION billing.giving_back(text[], text[]) IS
'Which of some invoices give back unused time that other ones have charged, so go by the discounts there. Internal.';

CREATE FUNCTION billing.open_charges(item text, at timestamptz)
RETURNS TABLE (id text, price text, quantity numeric, amount bigint, credited_discount bigint, charged tstzrange,
               open tstzrange, tax_rates text[])
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH charges AS (
        SELECT coalesce(x.id, l.id) AS id, l.kind, l.price, l.quantity, (l.amount - c.amount)::bigint AS amount,
               c.discount_amount::bigint AS credited_discount,
               l.period_start, l.period_end,
               coalesce(x.created, o.created) AS created, right(coalesce(x.id, l.id), 32) AS place,
               ARRAY(SELECT t.value ->> 'tax_rate' FROM jsonb_array_elements(l.taxes) WITH ORDINALITY t (value, place)
                     ORDER BY t.place) AS tax_rates
        FROM billing.invoice_lines l
        JOIN billing.invoices i ON i.id = l.invoice
        JOIN billing.subscriptions s ON s.id = i.subscription
        LEFT JOIN billing.invoice_items x ON x.id = l.invoice_item
        CROSS JOIN LATERAL billing.credited_line(l.id) c
        -- What an invoice that was made anew charges was charged when its first one did.
        CROSS JOIN LATERAL (
            WITH RECURSIVE originals AS (
                SELECT i.created, i.from_invoice
                UNION ALL
                SELECT v.created, v.from_invoice FROM originals n JOIN billing.invoices v ON v.id = n.from_invoice)
            SELECT min(n.created) AS created FROM originals n) o
        WHERE l.subscription_item = item AND l.kind IN ('licensed', 'unused_time') AND l.period_end > at
          -- What waits for a person may be collected all the same.
          AND i.status <> 'void' AND NOT (i.status = 'draft' AND i.auto_advance AND billing.is_waived(i, s))
        UNION ALL
        -- Taxed as it is by the invoice that takes both.
        SELECT x.id, x.kind, x.price, x.quantity, x.amount, 0, x.period_start, x.period_end, x.created, right(x.id, 32), NULL
        FROM billing.invoice_items x
        WHERE x.subscription_item = item AND x.invoice IS NULL AND x.period_end > at
    )
    SELECT d.id, d.price, d.quantity, d.amount, d.credited_discount, tstzrange(d.period_start, d.period_end),
           tstzrange(s.opens, e.closes), d.tax_rates
    FROM charges d
    CROSS JOIN LATERAL (SELECT greatest(d.period_start, at)) s (opens)
    -- Whatever came after a charge, another one or a credit, is for all of the time that was left of it then.
    CROSS JOIN LATERAL (
        SELECT least(d.period_end, min(x.period_start)) FROM charges x
        WHERE (x.created, x.place) > (d.created, d.place)
          AND x.period_start < d.period_end AND x.period_end > s.opens) e (closes)
    WHERE d.kind = 'licensed' AND s.opens < e.closes
    ORDER BY d.period_start, d.created, d.place
$$;
COMMENT ON FUNCTION billing.open_charges(text, timestamptz) IS
'What was charged for a licensed item and covers time after a moment, before discounts and net of credit notes, and which of
that time has been neither given back nor charged anew: on invoices that neither are void nor become it, as collection is
paused, and in what waits for one (tax_rates NULL: not known yet). id: of its invoice item, or else of its line.
credited_discount: what of its discounts the credit notes have taken back. Internal.';

CREATE FUNCTION billing.prorate(
    subscription billing.subscriptions, item text, kind text, price text, quantity numeric, amount bigint,
    part tstzrange, as_of timestamptz, charge text DEFAULT NULL, charge_amount bigint DEFAULT NULL,
    charge_credited_discount bigint DEFAULT NULL, tax_rates text[] DEFAULT NULL
) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO billing.invoice_items
        (customer, currency, subscription, subscription_item, price, kind, description, quantity, amount,
         period_start, period_end, created, discountable, charge, charge_amount, charge_credited_discount, tax_rates)
    SELECT subscription.customer, subscription.currency, subscription.id, item, p.id, kind,
           CASE kind WHEN 'unused_time' THEN 'Unused time: ' ELSE 'Remaining time: ' END
               || quantity || ' × ' || billing.price_label(p),
           quantity, amount, lower(part), upper(part), as_of, kind = 'licensed', prorate.charge, prorate.charge_amount,
           prorate.charge_credited_discount, prorate.tax_rates
    FROM billing.prices p
    WHERE p.id = prorate.price
$$;
COMMENT ON FUNCTION billing.prorate(
    billing.subscriptions, text, text, text, numeric, bigint, tstzrange, timestamptz, text, bigint, bigint, text[]) IS
'Notes that part of a licensed item''s period is given back (kind unused_time) or charged (licensed); the next invoice
of the subscription takes it. From charge on: what is given back, as of billing.open_charges; tax_rates NULL: as any line of
that invoice. Internal.';

CREATE FUNCTION billing.credit_unused(
    subscription billing.subscriptions, item text, at timestamptz, as_of timestamptz
) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT billing.prorate($1, item, 'unused_time', c.price, c.quantity,
                           -- No more than is left: a credit note may have come between two parts, and each is rounded.
                           -CASE WHEN c.amount > 0 THEN least(a.share, greatest(c.amount - g.given, 0)) ELSE a.share END,
                           c.open, as_of, c.id, c.amount, c.credited_discount, c.tax_rates)
    FROM billing.open_charges(item, at) c
    CROSS JOIN LATERAL billing.prorated_amount(c.amount, c.open, c.charged) a (share)
    CROSS JOIN LATERAL (
        SELECT coalesce(-sum(x.amount), 0)::bigint AS given
        FROM billing.invoice_items x LEFT JOIN billing.invoices i ON i.id = x.invoice
        WHERE x.subscription_item = item AND x.charge = c.id AND i.status IS DISTINCT FROM 'void') g
    WHERE c.amount <> 0
$$;
COMMENT ON FUNCTION billing.credit_unused(billing.subscriptions, text, timestamptz, timestamptz) IS
'Gives back what was charged for a licensed item for the time after a moment, one credit for each charge. Internal.';

CREATE FUNCTION billing.charge_remaining(
    subscription billing.subscriptions, item text, part_start timestamptz, part_end timestamptz, as_of timestamptz
) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT billing.prorate($1, i.id, 'licensed', i.price, i.quantity, a.amount,
                           tstzrange(part_start, part_end), as_of)
    FROM billing.subscription_items i
    JOIN billing.prices p ON p.id = i.price
    CROSS JOIN LATERAL billing.item_period($1, p."interval", p.interval_count, part_start) w
    CROSS JOIN LATERAL (
        SELECT billing.prorated_amount(
            billing.price_amount(billing.price_terms(p, ($1).currency), i.quantity),
            tstzrange(part_start, part_end), w.whole)) a (amount)
    -- A trial, of which whole is NULL, is free.
    WHERE i.id = item AND w.whole IS NOT NULL AND part_start < part_end AND (i.quantity > 0 OR a.amount <> 0)
$$;
COMMENT ON FUNCTION billing.charge_remaining(billing.subscriptions, text, timestamptz, timestamptz, timestamptz) IS
'Charges a licensed item, as it is now, for part of its period, by its share of the whole. Internal.';

CREATE FUNCTION billing.usage_since(subscription billing.subscriptions, item text, as_of timestamptz)
RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT least(as_of, greatest(
        i.starts_at, ($1).start_date, ($1).trial_end,
        lower(billing.period_containing(
            ($1).billing_cycle_anchor, p."interval", p.interval_count,
            -- A period that ends just now, and is not invoiced yet, is still the current one.
            as_of - CASE WHEN as_of = ($1).current_period_end THEN interval '1 microsecond' ELSE interval '0' END))))
    FROM billing.subscription_items i JOIN billing.prices p ON p.id = i.price
    WHERE i.id = $2
$$;
COMMENT ON FUNCTION billing.usage_since(billing.subscriptions, text, timestamptz) IS
'Since when usage of a metered item at its present price is not on an invoice yet, at a time in its current period.
That time itself where none is billed, as in a trial. Internal.';

CREATE FUNCTION billing.keep_usage(subscription billing.subscriptions, item text, as_of timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO billing.subscription_item_past_prices (item, price, starts_at, ends_at)
    SELECT i.id, i.price, u.start, keep_usage.as_of
    FROM billing.subscription_items i
    CROSS JOIN LATERAL billing.usage_since(keep_usage.subscription, i.id, keep_usage.as_of) u (start)
    WHERE i.id = keep_usage.item AND i.quantity IS NULL AND u.start < keep_usage.as_of;
    UPDATE billing.subscription_items i SET starts_at = keep_usage.as_of
    WHERE i.id = keep_usage.item AND i.quantity IS NULL;
END $$;
COMMENT ON FUNCTION billing.keep_usage(billing.subscriptions, text, timestamptz) IS
'Notes the usage of a metered item until a time as one to be billed by itself, at the price that it has. Internal.';
