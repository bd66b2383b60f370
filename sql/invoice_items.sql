-- Invoice items: what waits for an invoice. A change in the middle of a period leaves what it gives back and charges,
-- and an application adds what it likes.

CREATE TABLE billing.invoice_items (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('ii')
        CONSTRAINT invoice_items_id_length CHECK (length(id) BETWEEN 1 AND 255),
    customer text COLLATE "C" NOT NULL REFERENCES billing.customers,
    currency text NOT NULL,
    subscription text COLLATE "C" REFERENCES billing.subscriptions,
    subscription_item text COLLATE "C" REFERENCES billing.subscription_items,
    price text COLLATE "C" REFERENCES billing.prices,
    kind text NOT NULL CONSTRAINT invoice_items_kind_known CHECK (kind IN ('licensed', 'unused_time', 'item')),
    description text NOT NULL,
    quantity numeric NOT NULL CONSTRAINT invoice_items_quantity_positive CHECK (quantity >= 0),
    unit_amount numeric,
    amount bigint NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    created timestamptz NOT NULL,
    discountable boolean NOT NULL DEFAULT true,
    tax_rates text[],
    charge text COLLATE "C",
    charge_amount bigint,
    charge_credited_discount bigint,
    metadata jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT invoice_items_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    invoice text COLLATE "C" REFERENCES billing.invoices,
    belongs_to_invoice boolean NOT NULL DEFAULT false,
    CONSTRAINT invoice_items_period_ordered
        CHECK (period_start < period_end OR kind = 'item' AND period_start = period_end),
    CONSTRAINT invoice_items_prorations_of_items
        CHECK (kind = 'item' AND subscription_item IS NULL
               OR kind <> 'item' AND num_nulls(subscription, subscription_item, price) = 0),
    CONSTRAINT invoice_items_charge_given_back
        CHECK (num_nonnulls(charge, charge_amount, charge_credited_discount) = CASE kind WHEN 'unused_time' THEN 3 ELSE 0 END),
    CONSTRAINT invoice_items_belong_to_one CHECK (NOT belongs_to_invoice OR invoice IS NOT NULL)
);
CREATE INDEX invoice_items_pending_idx ON billing.invoice_items (customer, subscription, created) WHERE invoice IS NULL;
CREATE INDEX invoice_items_subscription_item_idx ON billing.invoice_items (subscription_item, period_start)
    WHERE subscription_item IS NOT NULL;
CREATE INDEX invoice_items_invoice_idx ON billing.invoice_items (invoice) WHERE invoice IS NOT NULL;
COMMENT ON TABLE billing.invoice_items IS
'What waits for an invoice: prorations of licensed items, and items added by hand. The next invoice that takes one
carries it as a line. Those added by hand may change until that invoice is final; prorations never do.';
COMMENT ON COLUMN billing.invoice_items.id IS 'The item''s id (ii_...).';
COMMENT ON COLUMN billing.invoice_items.customer IS 'Who owes it.';
COMMENT ON COLUMN billing.invoice_items.currency IS 'ISO 4217 code in lower case.';
COMMENT ON COLUMN billing.invoice_items.subscription IS
'The subscription whose next invoice takes it; NULL: any of the customer''s in this currency does.';
COMMENT ON COLUMN billing.invoice_items.subscription_item IS
'The item of the subscription that it prorates; NULL when it was added by hand.';
COMMENT ON COLUMN billing.invoice_items.price IS 'The price it was rated at; NULL for an amount that was given.';
COMMENT ON COLUMN billing.invoice_items.kind IS
'licensed (charged for the rest of a period), unused_time (given back) or item (added by hand).';
COMMENT ON COLUMN billing.invoice_items.description IS 'Text for people.';
COMMENT ON COLUMN billing.invoice_items.quantity IS 'Units given back or charged for.';
COMMENT ON COLUMN billing.invoice_items.unit_amount IS
'What one unit costs, in minor units, where that was given by hand; else NULL.';
COMMENT ON COLUMN billing.invoice_items.amount IS
'Minor units, rounded once, half away from zero; below zero it gives back.';
COMMENT ON COLUMN billing.invoice_items.period_start IS 'Start (inclusive) of the time given back or charged for.';
COMMENT ON COLUMN billing.invoice_items.period_end IS
'End (exclusive) of that time; equal to period_start where no time is meant.';
COMMENT ON COLUMN billing.invoice_items.created IS
'The as_of of its creation: invoices of periods that end after it take it.';
COMMENT ON COLUMN billing.invoice_items.discountable IS 'Whether discounts of the invoice apply to it.';
COMMENT ON COLUMN billing.invoice_items.tax_rates IS
'Its own tax rates; NULL: the invoice''s. Of unused_time those of what it gives back, none too; NULL while that waits as well.';
COMMENT ON COLUMN billing.invoice_items.charge IS
'Of unused_time the charge that it gives back part of: its invoice item, or without one its invoice line.';
COMMENT ON COLUMN billing.invoice_items.charge_amount IS
'Of unused_time what stood of that charge, before discounts and net of credit notes; amount is its share by time.';
COMMENT ON COLUMN billing.invoice_items.charge_credited_discount IS
'Of unused_time what of the charge''s discounts those credit notes had taken back.';
COMMENT ON COLUMN billing.invoice_items.metadata IS
'A JSON object that the application keeps here; it carries no meaning for billing.';
COMMENT ON COLUMN billing.invoice_items.invoice IS 'The invoice that carries it; NULL while it waits.';
COMMENT ON COLUMN billing.invoice_items.belongs_to_invoice IS
'True: it was made for that invoice and goes with its draft. False: it waits again when the draft is deleted.';
COMMENT ON INDEX billing.invoice_items_pending_idx IS 'Finds what waits for an invoice.';
COMMENT ON INDEX billing.invoice_items_subscription_item_idx IS 'Finds what was charged for an item and period.';
COMMENT ON INDEX billing.invoice_items_invoice_idx IS 'Finds the items of an invoice.';
SELECT pg_catalog.pg_extension_config_dump('billing.invoice_items', '');

CREATE FUNCTION billing.invoice_items_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    wrong text;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        -- Waits for a session that is finalizing one of their invoices.
        PERFORM FROM billing.invoices i
        WHERE i.id IN (SELECT o.invoice FROM old_items o UNION SELECT n.invoice FROM new_items n)
        ORDER BY i.id FOR SHARE;
        SELECT o.id INTO wrong
        FROM old_items o
        LEFT JOIN new_items n ON n.id = o.id
        LEFT JOIN billing.invoices was ON was.id = o.invoice
        LEFT JOIN billing.invoices is_now ON is_now.id = n.invoice
        WHERE n.id IS NULL
           -- From waiting, from a draft, or from the void invoice that a draft replaces; to a draft, or to wait again.
           OR n.invoice IS DISTINCT FROM o.invoice
              AND NOT ((o.invoice IS NULL OR was.status = 'draft' OR coalesce(was.regenerated_as = n.invoice, false))
                       AND (n.invoice IS NULL OR is_now.status = 'draft')
                       AND to_jsonb(n) - 'invoice' = to_jsonb(o) - 'invoice')
           OR n.invoice IS NOT DISTINCT FROM o.invoice
              AND to_jsonb(n) IS DISTINCT FROM to_jsonb(o)
              AND NOT (o.kind = 'item' AND (o.invoice IS NULL OR was.status = 'draft')
                       AND (n.customer, n.currency, n.kind, n.created, n.belongs_to_invoice)
                           = (o.customer, o.currency, o.kind, o.created, o.belongs_to_invoice)
                       AND n.subscription IS NOT DISTINCT FROM o.subscription)
        LIMIT 1;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT o.id INTO wrong
        FROM old_items o LEFT JOIN billing.invoices was ON was.id = o.invoice
        WHERE o.kind <> 'item' OR was.status <> 'draft'
        LIMIT 1;
    END IF;
    IF wrong IS NOT NULL OR TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'invoice item "%" cannot change', coalesce(wrong, 'any')
            USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'invoice_items',
                  HINT = 'Only items added by hand change, until their invoice is final. Another item corrects it.';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION billing.invoice_items_check() IS
'Trigger: prorations never change and items of a finalized invoice do not either (23001); an item moves from waiting to
a draft, and back.';
CREATE TRIGGER invoice_items_check_update AFTER UPDATE ON billing.invoice_items
    REFERENCING OLD TABLE AS old_items NEW TABLE AS new_items
    FOR EACH STATEMENT EXECUTE FUNCTION billing.invoice_items_check();
CREATE TRIGGER invoice_items_check_delete AFTER DELETE ON billing.invoice_items
    REFERENCING OLD TABLE AS old_items FOR EACH STATEMENT EXECUTE FUNCTION billing.invoice_items_check();
CREATE TRIGGER invoice_items_check_truncate BEFORE TRUNCATE ON billing.invoice_items
    FOR EACH STATEMENT EXECUTE FUNCTION billing.invoice_items_check();
COMMENT ON TRIGGER invoice_items_check_update ON billing.invoice_items IS 'Prorations and what is final never change.';
COMMENT ON TRIGGER invoice_items_check_delete ON billing.invoice_items IS
'Only items added by hand are deleted, and only until their invoice is final.';
COMMENT ON TRIGGER invoice_items_check_truncate ON billing.invoice_items IS 'Invoice items are never deleted at once.';

CREATE FUNCTION billing.due_before(subscription billing.subscriptions) RETURNS SETOF text
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT s.id FROM billing.subscriptions s
    WHERE s.customer = ($1).customer AND s.currency = ($1).currency
      AND (s.next_invoice_at, s.id) < (($1).next_invoice_at, ($1).id)
      AND EXISTS (SELECT FROM billing.invoice_items x
                  WHERE x.customer = ($1).customer AND x.currency = ($1).currency
                    AND x.subscription IS NULL AND x.invoice IS NULL)
$$;
COMMENT ON FUNCTION billing.due_before(billing.subscriptions) IS
'The subscriptions that take what waits for any of the customer''s before this one can, as they are due before it. None
where nothing waits so. Internal.';

CREATE FUNCTION billing.pending_items(subscription billing.subscriptions, before timestamptz)
RETURNS SETOF billing.invoice_items LANGUAGE sql STABLE AS $$
    SELECT x.* FROM billing.invoice_items x
    WHERE x.invoice IS NULL AND x.customer = subscription.customer
      AND (x.created < before
           OR x.subscription = subscription.id AND billing.subscription_ends(pending_items.subscription))
      AND (x.subscription = subscription.id
           -- Any of the customer's may take it, and the one that is due first does: two never take the same.
           OR x.subscription IS NULL AND x.currency = subscription.currency
              AND NOT EXISTS (SELECT FROM billing.due_before(pending_items.subscription)))
    ORDER BY x.created, x.id
$$;
COMMENT ON FUNCTION billing.pending_items(billing.subscriptions, timestamptz) IS
'The items that wait for the next invoice of a subscription and were made before a time, in their order: its own (all
of them on its last invoice), and those of the customer that name no subscription, if no other subscription of the
customer is due earlier. The caller has the subscription locked. Internal.';

CREATE FUNCTION billing.take_items(items text[], invoices text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    taken bigint;
    emptied text[];
BEGIN
    PERFORM FROM billing.invoice_items x WHERE x.id = ANY (take_items.items) AND x.invoice IS NULL
    ORDER BY x.id FOR NO KEY UPDATE;
    UPDATE billing.invoice_items x SET invoice = t.invoice
    FROM unnest(take_items.items, take_items.invoices) t (item, invoice)
    WHERE x.id = t.item AND x.invoice IS NULL;
    GET DIAGNOSTICS taken = ROW_COUNT;
    -- Changed since the caller read it.
    UPDATE billing.invoice_lines l
    SET price = x.price, description = x.description, quantity = x.quantity, amount = x.amount,
        period_start = x.period_start, period_end = x.period_end, discountable = x.discountable
    FROM billing.invoice_items x
    WHERE x.id = ANY (take_items.items) AND x.kind = 'item' AND l.invoice_item = x.id AND l.invoice = x.invoice
      AND (l.price, l.description, l.quantity, l.amount, l.period_start, l.period_end, l.discountable) IS DISTINCT FROM
          (x.price, x.description, x.quantity, x.amount, x.period_start, x.period_end, x.discountable);
    IF taken < cardinality(take_items.items) THEN
        -- A one-off invoice, or a deletion, was faster.
        WITH lost AS (
            DELETE FROM billing.invoice_lines l USING unnest(take_items.items, take_items.invoices) t (item, invoice)
            WHERE l.invoice_item = t.item AND l.invoice = t.invoice
              AND NOT EXISTS (SELECT FROM billing.invoice_items x WHERE x.id = t.item AND x.invoice = t.invoice)
            RETURNING l.invoice
        )
        SELECT array_agg(l.invoice) INTO emptied FROM lost l;
        DELETE FROM billing.invoices i
        WHERE i.id = ANY (emptied) AND NOT EXISTS (SELECT FROM billing.invoice_lines l WHERE l.invoice = i.id);
    END IF;
END $$;
COMMENT ON FUNCTION billing.take_items(text[], text[]) IS
'Notes which draft carries each of some waiting items. The caller has added their lines: that of an item which waits no
more is taken off again, and a draft without lines is deleted. Internal.';
