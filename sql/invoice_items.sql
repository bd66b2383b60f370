-- Invoice items: what a change in the middle of a period gives back or charges, waiting for that period's invoice.

CREATE TABLE billing.invoice_items (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('ii'),
    subscription text COLLATE "C" NOT NULL REFERENCES billing.subscriptions,
    cycle_start timestamptz NOT NULL,
    subscription_item text COLLATE "C" NOT NULL REFERENCES billing.subscription_items,
    price text COLLATE "C" NOT NULL REFERENCES billing.prices,
    description text NOT NULL,
    quantity numeric NOT NULL CONSTRAINT invoice_items_quantity_positive CHECK (quantity >= 0),
    amount bigint NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    created timestamptz NOT NULL,
    tax_rates text[],
    CONSTRAINT invoice_items_period_ordered CHECK (period_start < period_end)
);
CREATE INDEX invoice_items_subscription_idx ON billing.invoice_items (subscription, cycle_start);
COMMENT ON TABLE billing.invoice_items IS
'Prorations of licensed items; append-only. The invoice of the period during which one arose carries it as a line.';
COMMENT ON COLUMN billing.invoice_items.id IS 'The item''s id (ii_...).';
COMMENT ON COLUMN billing.invoice_items.subscription IS 'The subscription that changed.';
COMMENT ON COLUMN billing.invoice_items.cycle_start IS
'current_period_start of the subscription at the change: the invoice that ends this period carries the item.';
COMMENT ON COLUMN billing.invoice_items.subscription_item IS 'The item of the subscription that it prorates.';
COMMENT ON COLUMN billing.invoice_items.price IS 'The price it was rated at.';
COMMENT ON COLUMN billing.invoice_items.description IS 'Text for people.';
COMMENT ON COLUMN billing.invoice_items.quantity IS 'Units given back or charged for.';
COMMENT ON COLUMN billing.invoice_items.amount IS
'Minor units, rounded once, half away from zero; negative gives unused time back.';
COMMENT ON COLUMN billing.invoice_items.period_start IS 'Start (inclusive) of the time given back or charged for.';
COMMENT ON COLUMN billing.invoice_items.period_end IS 'End (exclusive) of that time.';
COMMENT ON COLUMN billing.invoice_items.created IS 'The as_of of the change.';
COMMENT ON COLUMN billing.invoice_items.tax_rates IS 'Its own tax rates; NULL: the invoice''s.';
COMMENT ON INDEX billing.invoice_items_subscription_idx IS 'Finds what waits for the invoice of a period.';
SELECT pg_catalog.pg_extension_config_dump('billing.invoice_items', '');

CREATE TRIGGER invoice_items_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.invoice_items
    FOR EACH STATEMENT EXECUTE FUNCTION billing.append_only();
COMMENT ON TRIGGER invoice_items_append_only ON billing.invoice_items IS 'Append-only.';
