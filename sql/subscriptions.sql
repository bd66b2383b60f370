-- Subscriptions: who is billed at which prices, and since when. Made and changed by functions only: a subscription,
-- its items and its first invoice belong together.

CREATE TABLE billing.subscriptions (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('sub')
        CONSTRAINT subscriptions_id_length CHECK (length(id) BETWEEN 1 AND 255),
    customer text COLLATE "C" NOT NULL REFERENCES billing.customers,
    status text NOT NULL CONSTRAINT subscriptions_status_known CHECK (status IN
        ('incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'unpaid', 'paused', 'canceled')),
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
    default_tax_rates text[] COLLATE "C",
    pause_behavior text CONSTRAINT subscriptions_pause_behavior_known
        CHECK (pause_behavior IN ('keep_as_draft', 'mark_uncollectible', 'void')),
    pause_resumes_at timestamptz,
    amount_gte bigint CONSTRAINT subscriptions_amount_gte_positive CHECK (amount_gte > 0),
    reset_billing_cycle_anchor boolean,
    trial_end_behavior text NOT NULL DEFAULT 'create_invoice' CONSTRAINT subscriptions_trial_end_behavior_known
        CHECK (trial_end_behavior IN ('create_invoice', 'cancel', 'pause')),
    default_payment_method text,
    schedule text COLLATE "C",
    CONSTRAINT subscriptions_period_ordered CHECK (current_period_start <= current_period_end),
    CONSTRAINT subscriptions_trial_ordered
        CHECK (trial_start < trial_end AND (trial_start IS NULL) = (trial_end IS NULL)),
    CONSTRAINT subscriptions_ended_when_over
        CHECK ((status IN ('canceled', 'incomplete_expired')) = (ended_at IS NOT NULL)),
    CONSTRAINT subscriptions_running_are_billed CHECK (
        next_invoice_at IS NOT DISTINCT FROM current_period_end
        OR next_invoice_at IS NULL AND status IN ('canceled', 'incomplete', 'incomplete_expired', 'paused')),
    CONSTRAINT subscriptions_pause_resumes CHECK (pause_resumes_at IS NULL OR pause_behavior IS NOT NULL),
    CONSTRAINT subscriptions_reset_with_threshold CHECK (reset_billing_cycle_anchor IS NULL OR amount_gte IS NOT NULL)
);
CREATE INDEX subscriptions_next_invoice_at_idx ON billing.subscriptions (next_invoice_at, id)
    WHERE next_invoice_at IS NOT NULL;
CREATE INDEX subscriptions_customer_idx ON billing.subscriptions (customer);
CREATE INDEX subscriptions_incomplete_idx ON billing.subscriptions (created) WHERE status = 'incomplete';
COMMENT ON TABLE billing.subscriptions IS
'Who is billed at which prices. Two subscriptions of one customer with prices on the same meter each bill all of the
usage, as in Stripe: usage belongs to a customer and a meter, not to a subscription.';
COMMENT ON COLUMN billing.subscriptions.id IS 'The application''s own id, or one made here (sub_...).';
COMMENT ON COLUMN billing.subscriptions.customer IS 'Who is billed.';
COMMENT ON COLUMN billing.subscriptions.status IS
'incomplete (its first invoice waits to be paid), incomplete_expired (that took longer than 23 hours), trialing,
active, past_due or unpaid (as the application said), paused (nothing is billed) or canceled; as of the last period
boundary that generate_invoices has passed.';
COMMENT ON COLUMN billing.subscriptions.current_period_start IS
'Start (inclusive) of the first period whose usage is not on an invoice yet.';
COMMENT ON COLUMN billing.subscriptions.current_period_end IS
'End (exclusive) of that period: the next boundary of any item, the trial''s end, or the subscription''s own end,
whichever comes first.';
COMMENT ON COLUMN billing.subscriptions.currency IS 'ISO 4217 code in lower case of all its prices.';
COMMENT ON COLUMN billing.subscriptions.billing_cycle_anchor IS
'All period boundaries are whole periods away from this time.';
COMMENT ON COLUMN billing.subscriptions."interval" IS
'day, week, month or year: the shortest of its prices, of which the others are multiples.';
COMMENT ON COLUMN billing.subscriptions.interval_count IS 'Intervals in one period.';
COMMENT ON COLUMN billing.subscriptions.start_date IS
'From when it is billed: earlier than created when it was backdated; never later.';
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
'When its next invoice is due, which is current_period_end; NULL once nothing is left to bill, and while it is
incomplete or paused.';
COMMENT ON COLUMN billing.subscriptions.default_tax_rates IS
'Ids of the tax rates of its lines, unless the item has its own; NULL: none.';
COMMENT ON COLUMN billing.subscriptions.pause_behavior IS
'What becomes of its invoices while collection is paused: keep_as_draft, mark_uncollectible or void. NULL: not paused.';
COMMENT ON COLUMN billing.subscriptions.pause_resumes_at IS
'From when on invoices are collected again; NULL: until update_subscription says so.';
COMMENT ON COLUMN billing.subscriptions.amount_gte IS
'Minor units: usage that has accrued this much is invoiced before the period ends. NULL: no such threshold.';
COMMENT ON COLUMN billing.subscriptions.reset_billing_cycle_anchor IS
'Whether that invoice also starts a new period; NULL without amount_gte.';
COMMENT ON COLUMN billing.subscriptions.trial_end_behavior IS
'What the end of the trial does while default_payment_method is NULL: create_invoice, cancel or pause.';
COMMENT ON COLUMN billing.subscriptions.default_payment_method IS
'How it is paid, as the application calls it; it matters to trial_end_behavior only. NULL: not known.';
COMMENT ON COLUMN billing.subscriptions.schedule IS
'The subscription schedule that changes it; NULL: none. No foreign key, as the schedule has one to here.';
COMMENT ON INDEX billing.subscriptions_next_invoice_at_idx IS 'Finds what generate_invoices has to bill.';
COMMENT ON INDEX billing.subscriptions_incomplete_idx IS 'Finds those whose first invoice may be unpaid for too long.';
COMMENT ON INDEX billing.subscriptions_customer_idx IS 'Finds the subscriptions of a customer.';
SELECT pg_catalog.pg_extension_config_dump('billing.subscriptions', '');

CREATE TABLE billing.subscription_items (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('si'),
    subscription text COLLATE "C" NOT NULL REFERENCES billing.subscriptions,
    price text COLLATE "C" NOT NULL REFERENCES billing.prices,
    quantity bigint CONSTRAINT subscription_items_quantity_positive CHECK (quantity >= 0),
    created timestamptz NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT subscription_items_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    starts_at timestamptz NOT NULL,
    ended_at timestamptz,
    tax_rates text[] COLLATE "C",
    usage_gte bigint CONSTRAINT subscription_items_usage_gte_positive CHECK (usage_gte > 0),
    CONSTRAINT subscription_items_ends_after_start CHECK (starts_at <= ended_at),
    CONSTRAINT subscription_items_threshold_of_usage CHECK (usage_gte IS NULL OR quantity IS NULL)
);
CREATE UNIQUE INDEX subscription_items_subscription_price_key ON billing.subscription_items (subscription, price)
    WHERE ended_at IS NULL;
CREATE INDEX subscription_items_subscription_idx ON billing.subscription_items (subscription);
CREATE INDEX subscription_items_price_idx ON billing.subscription_items (price);
COMMENT ON TABLE billing.subscription_items IS
'The prices of a subscription, each at most once at a time. An item keeps its id when its price changes.';
COMMENT ON COLUMN billing.subscription_items.id IS 'The item''s id (si_...).';
COMMENT ON COLUMN billing.subscription_items.subscription IS 'The subscription it is an item of.';
COMMENT ON COLUMN billing.subscription_items.price IS 'What it costs now: a recurring price.';
COMMENT ON COLUMN billing.subscription_items.quantity IS
'Units of a licensed price; NULL for a metered one, whose quantity is its usage.';
COMMENT ON COLUMN billing.subscription_items.created IS 'The as_of of its creation.';
COMMENT ON COLUMN billing.subscription_items.metadata IS
'A JSON object that the application keeps here; it carries no meaning for billing.';
COMMENT ON COLUMN billing.subscription_items.starts_at IS
'Since when price is in effect (inclusive): usage from then on is rated at it.';
COMMENT ON COLUMN billing.subscription_items.ended_at IS
'When it was removed (exclusive): usage until then is billed. NULL: in use.';
COMMENT ON COLUMN billing.subscription_items.tax_rates IS
'Ids of the tax rates of its lines, instead of the subscription''s; NULL: those.';
COMMENT ON COLUMN billing.subscription_items.usage_gte IS
'Usage of this much within a period is invoiced before the period ends. NULL: no such threshold.';
COMMENT ON INDEX billing.subscription_items_subscription_price_key IS 'No price twice at a time.';
COMMENT ON INDEX billing.subscription_items_subscription_idx IS 'Finds the items of a subscription, removed ones too.';
COMMENT ON INDEX billing.subscription_items_price_idx IS 'Finds the subscriptions that use a price.';
SELECT pg_catalog.pg_extension_config_dump('billing.subscription_items', '');

CREATE TRIGGER subscription_items_never_deleted BEFORE UPDATE OF id OR DELETE OR TRUNCATE ON billing.subscription_items
    FOR EACH STATEMENT EXECUTE FUNCTION billing.never_deleted();
COMMENT ON TRIGGER subscription_items_never_deleted ON billing.subscription_items IS 'An item that was billed stays known.';

CREATE TABLE billing.subscription_item_past_prices (
    item text COLLATE "C" NOT NULL REFERENCES billing.subscription_items,
    price text COLLATE "C" NOT NULL REFERENCES billing.prices,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    CONSTRAINT subscription_item_past_prices_pkey PRIMARY KEY (item, starts_at),
    CONSTRAINT subscription_item_past_prices_ordered CHECK (starts_at < ends_at)
);
CREATE INDEX subscription_item_past_prices_price_idx ON billing.subscription_item_past_prices (price);
COMMENT ON TABLE billing.subscription_item_past_prices IS
'Former prices of metered items: usage is billed at the price in effect when it happened.';
COMMENT ON COLUMN billing.subscription_item_past_prices.item IS 'The item that has another price now.';
COMMENT ON COLUMN billing.subscription_item_past_prices.price IS 'The price it had.';
COMMENT ON COLUMN billing.subscription_item_past_prices.starts_at IS
'Since when (inclusive): the later of the price''s coming into effect and the start of the item''s period then
running, as usage before that is on an invoice.';
COMMENT ON COLUMN billing.subscription_item_past_prices.ends_at IS 'Until when (exclusive).';
COMMENT ON CONSTRAINT subscription_item_past_prices_pkey ON billing.subscription_item_past_prices IS
'One price of an item at a time.';
COMMENT ON INDEX billing.subscription_item_past_prices_price_idx IS 'Finds the uses of a price.';
SELECT pg_catalog.pg_extension_config_dump('billing.subscription_item_past_prices', '');

CREATE FUNCTION billing.subscription_pauses(subscription billing.subscriptions) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce(($1).trial_end = ($1).current_period_end, false)
        AND ($1).trial_end_behavior = 'pause' AND ($1).default_payment_method IS NULL
$$;
COMMENT ON FUNCTION billing.subscription_pauses(billing.subscriptions) IS
'Whether a subscription is paused at the end of its current period: its trial ends without a payment method. Internal.';

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
