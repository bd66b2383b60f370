-- The lines of invoices: what was billed, for which item and period, at which price.

CREATE TABLE billing.invoice_lines (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('il'),
    invoice text COLLATE "C" NOT NULL REFERENCES billing.invoices,
    -- No foreign keys: they were a quarter of a run. Lines are made from rows of those tables, which are never deleted.
    subscription_item text COLLATE "C",
    price text COLLATE "C",
    description text NOT NULL,
    quantity numeric NOT NULL CONSTRAINT invoice_lines_quantity_positive CHECK (quantity >= 0),
    amount bigint NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    proration boolean NOT NULL DEFAULT false,
    kind text NOT NULL CONSTRAINT invoice_lines_kind_known
        CHECK (kind IN ('licensed', 'usage', 'late_usage', 'unused_time', 'item')),
    discount_amount bigint NOT NULL DEFAULT 0,
    credit_amount bigint NOT NULL DEFAULT 0,
    tax_amount bigint NOT NULL DEFAULT 0,
    discount_amounts jsonb,
    credit_amounts jsonb,
    taxes jsonb,
    discountable boolean NOT NULL DEFAULT true,
    invoice_item text COLLATE "C" REFERENCES billing.invoice_items,
    -- Below zero only where what was discounted, or usage that was paid by credit, is given back.
    CONSTRAINT invoice_lines_discount_amount_positive
        CHECK (discount_amount >= 0 OR kind IN ('usage', 'late_usage', 'unused_time') AND discount_amount >= amount),
    CONSTRAINT invoice_lines_credit_amount_positive
        CHECK (credit_amount >= 0 OR kind IN ('usage', 'late_usage') AND credit_amount >= amount),
    CONSTRAINT invoice_lines_period_ordered
        CHECK (period_start < period_end OR kind = 'item' AND period_start = period_end),
    CONSTRAINT invoice_lines_usage_never_prorated CHECK (kind IN ('licensed', 'unused_time') OR NOT proration)
);
CREATE INDEX invoice_lines_invoice_idx ON billing.invoice_lines (invoice);
CREATE INDEX invoice_lines_invoice_item_idx ON billing.invoice_lines (invoice_item) WHERE invoice_item IS NOT NULL;
CREATE INDEX invoice_lines_given_back_idx ON billing.invoice_lines (invoice)
    WHERE kind IN ('usage', 'late_usage', 'unused_time') AND amount < 0;
CREATE INDEX invoice_lines_subscription_item_idx ON billing.invoice_lines (subscription_item, period_start);
COMMENT ON TABLE billing.invoice_lines IS
'The lines of invoices, each rounded once. Those of a finalized invoice never change.';
COMMENT ON COLUMN billing.invoice_lines.id IS 'The line''s id (il_...); sorts in the invoice''s order.';
COMMENT ON COLUMN billing.invoice_lines.invoice IS 'The invoice it is on.';
COMMENT ON COLUMN billing.invoice_lines.subscription_item IS
'The item of a subscription that it bills; NULL for what was added by hand.';
COMMENT ON COLUMN billing.invoice_lines.price IS
'The price it was rated at; NULL for an amount that was given.';
COMMENT ON COLUMN billing.invoice_lines.description IS 'Text for people: quantity and name.';
COMMENT ON COLUMN billing.invoice_lines.quantity IS
'Units, or usage (negative usage counts as 0). On a late_usage line the whole period''s usage, re-rated.';
COMMENT ON COLUMN billing.invoice_lines.amount IS
'Minor units, rounded once, half away from zero. On a late_usage line what the period costs now less what was billed
for it.';
COMMENT ON COLUMN billing.invoice_lines.period_start IS
'Start (inclusive) of the service period: the coming one for licensed items, the ended one for usage.';
COMMENT ON COLUMN billing.invoice_lines.period_end IS 'End (exclusive) of the service period.';
COMMENT ON COLUMN billing.invoice_lines.proration IS
'True: the amount is the share of a whole period that period_start and period_end cover.';
COMMENT ON COLUMN billing.invoice_lines.kind IS
'licensed (in advance), usage (of the period that ended), late_usage (of an earlier period, arrived since it was
invoiced), unused_time (given back of a licensed item) or item (added by hand).';
COMMENT ON COLUMN billing.invoice_lines.discountable IS
'Whether discounts may take something off; a line below zero is never discounted, whatever this says.';
COMMENT ON COLUMN billing.invoice_lines.discount_amount IS
'What discounts take off the amount, in minor units. Below zero on a line that gives usage or unused time back: its share
of what they took off the lines that had billed it.';
COMMENT ON COLUMN billing.invoice_lines.discount_amounts IS
'discount_amount by discount, in the order in which they applied: [{"discount", "amount"}]. NULL where none applies.';
COMMENT ON COLUMN billing.invoice_lines.credit_amount IS
'What credit grants pay of the rest, in minor units; on a draft, what they would. Below zero on a line of usage below
zero: its share of what they paid, which goes back to them.';
COMMENT ON COLUMN billing.invoice_lines.credit_amounts IS
'credit_amount by grant, in the order in which they were used: [{"credit_grant", "amount"}]. NULL where none is used.';
COMMENT ON COLUMN billing.invoice_lines.tax_amount IS
'Tax on what is left, inclusive and exclusive together, in minor units; negative on a line below zero.';
COMMENT ON COLUMN billing.invoice_lines.taxes IS
'tax_amount by rate: [{"tax_rate", "amount", "tax_behavior", "taxable_amount", "taxability_reason"}], tax_behavior being inclusive (part
of the line''s amount) or exclusive (on top), taxability_reason standard_rated, zero_rated, customer_exempt or
reverse_charge. NULL where there is no rate.';
COMMENT ON COLUMN billing.invoice_lines.invoice_item IS 'The invoice item that it came from; NULL without one.';
COMMENT ON INDEX billing.invoice_lines_invoice_item_idx IS 'Finds the line of an invoice item.';
COMMENT ON INDEX billing.invoice_lines_given_back_idx IS 'Finds the invoices that give something back.';
COMMENT ON INDEX billing.invoice_lines_invoice_idx IS 'Finds the lines of an invoice.';
COMMENT ON INDEX billing.invoice_lines_subscription_item_idx IS 'Finds what was billed for an item and period.';
SELECT pg_catalog.pg_extension_config_dump('billing.invoice_lines', '');

CREATE FUNCTION billing.invoice_lines_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    touched text[];
    wrong text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        touched := ARRAY(SELECT DISTINCT n.invoice FROM new_lines n);
    ELSIF TG_OP = 'UPDATE' THEN
        touched := ARRAY(SELECT n.invoice FROM new_lines n UNION SELECT o.invoice FROM old_lines o);
    ELSIF TG_OP = 'DELETE' THEN
        touched := ARRAY(SELECT DISTINCT o.invoice FROM old_lines o);
    END IF;
    -- Waits for a session that is finalizing one of them, whose sum would otherwise miss these lines.
    PERFORM FROM billing.invoices i WHERE i.id = ANY (touched) ORDER BY i.id FOR SHARE;
    -- Lines of a finalized invoice are accepted only up to what it says it has: so does a restored dump arrive.
    SELECT i.id INTO wrong
    FROM billing.invoices i
    CROSS JOIN LATERAL (
        SELECT count(*) AS count, sum(l.amount) AS sum FROM billing.invoice_lines l WHERE l.invoice = i.id) l
    WHERE i.id = ANY (touched) AND i.status <> 'draft'
      AND (TG_OP <> 'INSERT' OR l.count > i.line_count OR l.count = i.line_count AND l.sum <> i.subtotal)
    LIMIT 1;
    IF wrong IS NOT NULL OR TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'the lines of finalized invoice "%" cannot change', coalesce(wrong, 'any')
            USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'invoice_lines',
                  HINT = 'A finalized invoice stays as it is. Void it if it is wrong.';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION billing.invoice_lines_check() IS
'Trigger: the lines of a finalized invoice are never added to, changed or deleted (23001).';
CREATE TRIGGER invoice_lines_check_insert AFTER INSERT ON billing.invoice_lines
    REFERENCING NEW TABLE AS new_lines FOR EACH STATEMENT EXECUTE FUNCTION billing.invoice_lines_check();
CREATE TRIGGER invoice_lines_check_update AFTER UPDATE ON billing.invoice_lines
    REFERENCING OLD TABLE AS old_lines NEW TABLE AS new_lines
    FOR EACH STATEMENT EXECUTE FUNCTION billing.invoice_lines_check();
CREATE TRIGGER invoice_lines_check_delete AFTER DELETE ON billing.invoice_lines
    REFERENCING OLD TABLE AS old_lines FOR EACH STATEMENT EXECUTE FUNCTION billing.invoice_lines_check();
CREATE TRIGGER invoice_lines_check_truncate BEFORE TRUNCATE ON billing.invoice_lines
    FOR EACH STATEMENT EXECUTE FUNCTION billing.invoice_lines_check();
COMMENT ON TRIGGER invoice_lines_check_insert ON billing.invoice_lines IS 'No line is added to a finalized invoice.';
COMMENT ON TRIGGER invoice_lines_check_update ON billing.invoice_lines IS 'No line of a finalized invoice changes.';
COMMENT ON TRIGGER invoice_lines_check_delete ON billing.invoice_lines IS 'No line of a finalized invoice is deleted.';
COMMENT ON TRIGGER invoice_lines_check_truncate ON billing.invoice_lines IS
'No line of a finalized invoice is deleted.';
