-- Subscriptions: who is billed at which prices, and since when. Made and changed by functions only: a subscription,
-- its items and its first invoice belong together.

CREATE TABLE billing.subscriptions (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('sub')
        CONSTRAINT subscriptions_id_length CHECK (length(id) BETWEEN 1 AND 255),
    customer text COLLATE "C" NOT NULL REFERENCES billing.customers,
    status text NOT NULL CONSTRAINT subscriptions_status_known CHECK (status IN ('trialing', 'active', 'canceled')),
    current_period_start timestamptz NOT NULL,
    current_period_end timestamptz NOT NULL,
    currency text NOT NULL,
    billing_cycle_anchor timestamptz NOT NULL,
    "interval" text NOT NULL CONSTRAINT subscriptions_interval_known
        CHECK ("interval" IN ('day', 'week', 'month', 'year')),
    interval_count integer NOT NULL CONSTRAINT subscriptions_interval_count_positive CHECK (interval_count > 0),
    start_date timestamptz NOT NULL,
    trial_start timestamptz,
    trial_end timestamptz,
    cancel_at timestamptz,
    cancel_at_period_end boolean NOT NULL DEFAULT false,
    canceled_at timestamptz,
    ended_at timestamptz,
    collection_method text NOT NULL DEFAULT 'charge_automatically' CONSTRAINT subscriptions_collection_method_known
        CHECK (collection_method IN ('charge_automatically', 'send_invoice')),
    days_until_due integer CONSTRAINT subscriptions_days_until_due_positive CHECK (days_until_due >= 0),
    proration_behavior text NOT NULL DEFAULT 'create_prorations' CONSTRAINT subscriptions_proration_behavior_known
        CHECK (proration_behavior IN ('create_prorations', 'always_invoice', 'none')),
    description text,
    metadata jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT subscriptions_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    definition billing.subscription NOT NULL,
    created timestamptz NOT NULL,
    next_invoice_at timestamptz,
    default_tax_rates text[],
    CONSTRAINT subscriptions_period_ordered CHECK (current_period_start <= current_period_end),
    CONSTRAINT subscriptions_trial_ordered
        CHECK (trial_start < trial_end AND (trial_start IS NULL) = (trial_end IS NULL)),
    CONSTRAINT subscriptions_ended_when_canceled CHECK ((status = 'canceled') = (ended_at IS NOT NULL)),
    CONSTRAINT subscriptions_running_are_billed CHECK (status = 'canceled' OR next_invoice_at = current_period_end)
);
CREATE INDEX subscriptions_next_invoice_at_idx ON billing.subscriptions (next_invoice_at)
    WHERE next_invoice_at IS NOT NULL;
CREATE INDEX subscriptions_customer_idx ON billing.subscriptions (customer);
COMMENT ON TABLE billing.subscriptions IS
'Who is billed at which prices. Two subscriptions of one customer with prices on the same meter each bill all of the
usage, as in Stripe: usage belongs to a customer and a meter, not to a subscription.';
COMMENT ON COLUMN billing.subscriptions.id IS 'The application''s own id, or one made here (sub_...).';
COMMENT ON COLUMN billing.subscriptions.customer IS 'Who is billed.';
COMMENT ON COLUMN billing.subscriptions.status IS
'trialing, active or canceled, as of the last period boundary that generate_invoices has passed.';
COMMENT ON COLUMN billing.subscriptions.current_period_start IS
'Start (inclusive) of the first period whose usage is not on an invoice yet.';
COMMENT ON COLUMN billing.subscriptions.current_period_end IS
'End (exclusive) of that period: the next boundary, the trial''s end, or the subscription''s own end, whichever comes
first.';
COMMENT ON COLUMN billing.subscriptions.currency IS 'ISO 4217 code in lower case of all its prices.';
COMMENT ON COLUMN billing.subscriptions.billing_cycle_anchor IS
'All period boundaries are whole periods away from this time.';
COMMENT ON COLUMN billing.subscriptions."interval" IS 'day, week, month or year: that of all its prices.';
COMMENT ON COLUMN billing.subscriptions.interval_count IS 'Intervals in one period.';
COMMENT ON COLUMN billing.subscriptions.start_date IS 'From when it is billed; not after created.';
COMMENT ON COLUMN billing.subscriptions.trial_start IS 'Start of the trial; NULL without one.';
COMMENT ON COLUMN billing.subscriptions.trial_end IS
'End (exclusive) of the trial: until then licensed items are free and usage is not billed.';
COMMENT ON COLUMN billing.subscriptions.cancel_at IS
'When it is to end; the period then running is cut there. NULL: no such time.';
COMMENT ON COLUMN billing.subscriptions.cancel_at_period_end IS 'True: it ends with the current period.';
COMMENT ON COLUMN billing.subscriptions.canceled_at IS 'When its cancellation was asked for; NULL when it was not.';
COMMENT ON COLUMN billing.subscriptions.ended_at IS 'When it ended; NULL while it has not.';
COMMENT ON COLUMN billing.subscriptions.collection_method IS
'charge_automatically, or send_invoice: then the first invoice too stays a draft for billing.finalization_delay.';
COMMENT ON COLUMN billing.subscriptions.days_until_due IS
'Days from finalization to due_date of an invoice; NULL: no due date.';
COMMENT ON COLUMN billing.subscriptions.proration_behavior IS
'none: a stub period before the first boundary is free and one cut by cancel_at costs all; else licensed items are
prorated.';
COMMENT ON COLUMN billing.subscriptions.description IS 'Text for people; NULL when there is none.';
COMMENT ON COLUMN billing.subscriptions.metadata IS
'A JSON object that the application keeps here; it carries no meaning for billing.';
COMMENT ON COLUMN billing.subscriptions.definition IS
'What create_subscription was given; later changes are in the columns only.';
COMMENT ON COLUMN billing.subscriptions.created IS 'The as_of of its creation.';
COMMENT ON COLUMN billing.subscriptions.next_invoice_at IS
'When its next invoice is due, which is current_period_end; NULL once nothing is left to bill.';
COMMENT ON COLUMN billing.subscriptions.default_tax_rates IS 'Tax rates of the items that name none of their own; NULL: none.';
COMMENT ON INDEX billing.subscriptions_next_invoice_at_idx IS 'Finds what generate_invoices has to bill.';
COMMENT ON INDEX billing.subscriptions_customer_idx IS 'Finds the subscriptions of a customer.';
SELECT pg_catalog.pg_extension_config_dump('billing.subscriptions', '');

CREATE TABLE billing.subscription_items (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('si'),
    subscription text COLLATE "C" NOT NULL REFERENCES billing.subscriptions,
    price text COLLATE "C" NOT NULL REFERENCES billing.prices,
    quantity bigint CONSTRAINT subscription_items_quantity_positive CHECK (quantity >= 0),
    created timestamptz NOT NULL,
    charged_quantity bigint,
    tax_rates text[],
    metadata jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT subscription_items_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    CONSTRAINT subscription_items_subscription_price_key UNIQUE (subscription, price)
);
CREATE INDEX subscription_items_price_idx ON billing.subscription_items (price);
COMMENT ON TABLE billing.subscription_items IS 'The prices of a subscription, each at most once.';
COMMENT ON COLUMN billing.subscription_items.id IS 'The item''s id (si_...).';
COMMENT ON COLUMN billing.subscription_items.subscription IS 'The subscription it is an item of.';
COMMENT ON COLUMN billing.subscription_items.price IS 'What it costs: a recurring price.';
COMMENT ON COLUMN billing.subscription_items.quantity IS
'Units of a licensed price; NULL for a metered one, whose quantity is its usage.';
COMMENT ON COLUMN billing.subscription_items.created IS 'The as_of of its creation.';
COMMENT ON COLUMN billing.subscription_items.charged_quantity IS
'What the rest of the current period is charged for: quantity, unless that changed since without proration. Credits go by it,
so that nothing is given back that was not charged. NULL for a metered item.';
COMMENT ON COLUMN billing.subscription_items.tax_rates IS
'Tax rates of its lines; NULL or empty: the subscription''s default_tax_rates.';
COMMENT ON COLUMN billing.subscription_items.metadata IS
'A JSON object that the application keeps here; it carries no meaning for billing.';
COMMENT ON INDEX billing.subscription_items_price_idx IS 'Finds the subscriptions that use a price.';
SELECT pg_catalog.pg_extension_config_dump('billing.subscription_items', '');

CREATE FUNCTION billing.subscription_period(
    subscription billing.subscriptions, at timestamptz,
    OUT period_start timestamptz, OUT period_end timestamptz, OUT whole tstzrange
) LANGUAGE sql STABLE AS $$
    SELECT at, least(upper(w.whole), subscription.cancel_at), w.whole
    FROM (SELECT billing.period_containing(subscription.billing_cycle_anchor, subscription."interval",
                                           subscription.interval_count, at)) w (whole)
$$;
COMMENT ON FUNCTION billing.subscription_period(billing.subscriptions, timestamptz) IS
'The billed period of a subscription that starts at a time: to the next boundary of its anchor, or to cancel_at if
that is sooner. whole is the uncut period, which proration divides by. Internal.';

CREATE FUNCTION billing.subscription_ends(subscription billing.subscriptions) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT subscription.status = 'canceled' OR subscription.cancel_at_period_end
        OR coalesce(subscription.cancel_at <= subscription.current_period_end, false)
$$;
COMMENT ON FUNCTION billing.subscription_ends(billing.subscriptions) IS
'Whether the current period of a subscription is its last. Internal.';

CREATE FUNCTION billing.lock_subscription(subscription text) RETURNS billing.subscriptions
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
BEGIN
    PERFORM billing.require_argument('subscription', lock_subscription.subscription);
    SELECT s.* INTO found FROM billing.subscriptions s WHERE s.id = lock_subscription.subscription FOR NO KEY UPDATE;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'subscription "%" does not exist', lock_subscription.subscription
            USING ERRCODE = 'undefined_object', HINT = 'See billing.subscriptions for the subscriptions there are.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION billing.lock_subscription(text) IS
'Locks a subscription until the transaction ends and returns it. Errors: 42704 unknown; 22004 NULL. Internal.';
