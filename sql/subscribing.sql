-- What happens to one subscription by hand: it is created, changed, canceled.

CREATE FUNCTION billing.create_subscription(
    subscription billing.subscription, id text DEFAULT NULL, as_of timestamptz DEFAULT now()
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    definition jsonb := create_subscription.subscription::jsonb;
    made billing.subscriptions;
    item record;
    terms record;
    period record;
    invoice_id text;
BEGIN
    PERFORM billing.require_argument('subscription', definition);
    PERFORM billing.require_time('as_of', as_of);
    made.id := coalesce(create_subscription.id, billing.generate_id('sub'));
    made.definition := create_subscription.subscription;
    made.customer := definition ->> 'customer';
    made.created := as_of;
    made.start_date := coalesce((definition ->> 'start_date')::timestamptz, as_of);
    made.trial_end := coalesce((definition ->> 'trial_end')::timestamptz,
                               made.start_date + make_interval(days => (definition ->> 'trial_period_days')::integer));
    made.trial_start := CASE WHEN made.trial_end IS NOT NULL THEN made.start_date END;
    made.billing_cycle_anchor := coalesce((definition ->> 'billing_cycle_anchor')::timestamptz, made.trial_end, made.start_date);
    made.cancel_at := (definition ->> 'cancel_at')::timestamptz;
    made.cancel_at_period_end := coalesce((definition ->> 'cancel_at_period_end')::boolean, false);
    made.canceled_at := CASE WHEN made.cancel_at IS NOT NULL OR made.cancel_at_period_end THEN as_of END;
    made.collection_method := coalesce(definition ->> 'collection_method', 'charge_automatically');
    made.days_until_due := (definition ->> 'days_until_due')::integer;
    made.proration_behavior := coalesce(definition ->> 'proration_behavior', 'create_prorations');
    made.description := definition ->> 'description';
    made.metadata := coalesce(definition -> 'metadata', '{}');
    IF NOT EXISTS (SELECT FROM billing.customers c WHERE c.id = made.customer) THEN
        RAISE EXCEPTION 'customer "%" does not exist', made.customer
            USING ERRCODE = 'foreign_key_violation', HINT = 'Create it first with billing.create_customer.';
    ELSIF made.start_date > as_of THEN
        RAISE EXCEPTION 'start_date % is after as_of %', made.start_date, as_of
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Create the subscription when it starts.';
    ELSIF made.trial_end <= made.start_date THEN
        RAISE EXCEPTION 'trial_end % is not after the start, %', made.trial_end, made.start_date
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave trial_end out for no trial.';
    ELSIF made.cancel_at <= made.start_date THEN
        RAISE EXCEPTION 'cancel_at % is not after the start, %', made.cancel_at, made.start_date
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A subscription ends after it starts.';
    END IF;

    FOR item IN
        SELECT i.value ->> 'price' AS price, (i.value ->> 'quantity')::bigint AS quantity, p.id, p.active, p.type, p.usage_type,
               count(*) OVER (PARTITION BY i.value ->> 'price') AS times
        FROM jsonb_array_elements(definition -> 'items') WITH ORDINALITY i (value, place)
        LEFT JOIN billing.prices p ON p.id = i.value ->> 'price'
        ORDER BY i.place
    LOOP
        IF item.id IS NULL THEN
            RAISE EXCEPTION 'price "%" does not exist', item.price
                USING ERRCODE = 'foreign_key_violation', HINT = 'Create it first with billing.create_price.';
        ELSIF NOT item.active THEN
            RAISE EXCEPTION 'price "%" is archived', item.price
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Use a price on offer, or activate it with billing.activate_price.';
        ELSIF item.type <> 'recurring' THEN
            RAISE EXCEPTION 'price "%" is %: a subscription takes recurring prices only', item.price, item.type
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Use a price with "recurring".';
        ELSIF item.times > 1 THEN
            RAISE EXCEPTION 'price "%" is in the subscription % times', item.price, item.times
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Use one item and its quantity.';
        ELSIF item.usage_type = 'metered' AND item.quantity IS NOT NULL THEN
            RAISE EXCEPTION 'quantity % of metered price "%"', item.quantity, item.price
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave quantity out: usage is the quantity.';
        END IF;
    END LOOP;
    SELECT min(p."interval") AS "interval", min(p.interval_count) AS interval_count, min(p.currency) AS currency,
           string_agg(DISTINCT p.interval_count || ' ' || p."interval", ', ') AS intervals,
           string_agg(DISTINCT p.currency, ', ') AS currencies,
           count(DISTINCT p.currency) AS currency_count, count(DISTINCT (p."interval", p.interval_count)) AS interval_kinds
    INTO terms
    FROM jsonb_array_elements(definition -> 'items') i (value) JOIN billing.prices p ON p.id = i.value ->> 'price';
    IF terms.interval_kinds = 0 IS NOT FALSE THEN
        RAISE EXCEPTION 'the subscription has no items'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give at least one item with a price.';
    ELSIF terms.interval_kinds > 1 THEN
        RAISE EXCEPTION 'prices with different intervals in one subscription: %', terms.intervals
            USING ERRCODE = 'feature_not_supported', HINT = 'Make one subscription for each interval.';
    ELSIF terms.currency_count > 1 OR terms.currency <> definition ->> 'currency' THEN
        RAISE EXCEPTION 'currencies of the subscription and its prices differ: %',
                concat_ws(', ', definition ->> 'currency', terms.currencies)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'All prices of a subscription have one currency.';
    END IF;
    made.currency := terms.currency;
    made."interval" := terms."interval";
    made.interval_count := terms.interval_count;

    SELECT p.* INTO period FROM billing.subscription_period(made, made.start_date) p;
    IF made.trial_end IS NOT NULL THEN
        period.period_end := least(made.trial_end, made.cancel_at);
        period.whole := NULL;  -- a trial is free
    END IF;
    made.status := CASE WHEN made.trial_end IS NULL THEN 'active' ELSE 'trialing' END;
    made.current_period_start := period.period_start;
    made.current_period_end := period.period_end;
    made.next_invoice_at := period.period_end;
    INSERT INTO billing.subscriptions SELECT made.*;
    INSERT INTO billing.subscription_items (subscription, price, quantity, created, metadata)
    SELECT made.id, p.id, CASE WHEN p.usage_type = 'licensed' THEN coalesce((i.value ->> 'quantity')::bigint, 1) END, as_of,
           coalesce(i.value -> 'metadata', '{}')
    FROM jsonb_array_elements(definition -> 'items') WITH ORDINALITY i (value, place)
    JOIN billing.prices p ON p.id = i.value ->> 'price'
    ORDER BY i.place;

    IF EXISTS (SELECT FROM billing.subscription_items i WHERE i.subscription = made.id AND i.quantity IS NOT NULL) THEN
        INSERT INTO billing.invoices
            (customer, subscription, currency, period_start, period_end, created, billing_reason, collection_method)
        VALUES (made.customer, made.id, made.currency, made.start_date, made.start_date, as_of,
                'subscription_create', made.collection_method)
        RETURNING id INTO invoice_id;
        INSERT INTO billing.invoice_lines
            (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end, proration)
        SELECT invoice_id, l.subscription_item, l.price, 'licensed', l.description, l.quantity, l.amount,
               l.period_start, l.period_end, l.proration
        FROM billing.licensed_lines(made, period.period_start, period.period_end, period.whole) l;
        PERFORM billing.rate_drafts(ARRAY[invoice_id]);
        IF made.collection_method = 'charge_automatically' THEN
            PERFORM billing.finalize_drafts(ARRAY[invoice_id], as_of);
        END IF;
    END IF;
    RETURN made.id;
END $$;
COMMENT ON FUNCTION billing.create_subscription(billing.subscription, text, timestamptz) IS
'Starts a subscription at its start_date (default as_of) and returns its id: the one given, or a new one (sub_...). Its licensed items
are invoiced at once for the first period, which ends at the first boundary of billing_cycle_anchor (default: the trial''s end, else the
start) and is prorated by the second when it is shorter than a whole one; usage never is. Until trial_end licensed items are free
("Free trial" lines of 0) and usage is not billed. A start in the past is caught up by generate_invoices, period by period.
Errors: 23503 unknown customer or price; 23505 the id exists; 55000 archived price; 22023 one-time price, a price twice, a metered price
with a quantity, several currencies, start_date after as_of, trial_end or cancel_at not after the start; 0A000 prices with different
intervals; 22004 NULL.';

CREATE FUNCTION billing.current_subscription(subscription text, as_of timestamptz) RETURNS billing.subscriptions
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
    drafts text[];
BEGIN
    PERFORM billing.require_time('as_of', as_of);
    found := billing.lock_subscription(current_subscription.subscription);
    drafts := billing.make_drafts(as_of, found.id);
    IF cardinality(drafts) > 0 THEN
        PERFORM billing.rate_drafts(drafts);
    END IF;
    found := billing.lock_subscription(found.id);
    IF found.status = 'canceled' THEN
        RAISE EXCEPTION 'subscription "%" is canceled, since %', found.id, found.ended_at
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Create another subscription.';
    ELSIF as_of < found.current_period_start THEN
        RAISE EXCEPTION 'as_of % is before the current period of subscription "%", which starts at %',
                as_of, found.id, found.current_period_start
            USING ERRCODE = 'invalid_parameter_value', HINT = 'What is invoiced already cannot change.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION billing.current_subscription(text, timestamptz) IS
'Locks a subscription that is to change at as_of, after invoicing the periods that ended by then, and returns it.
Errors: 42704 unknown; 55000 canceled; 22023 as_of before the current period or infinite; 22004 NULL. Internal.';

CREATE FUNCTION billing.cancel_subscription(
    subscription text, at_period_end boolean DEFAULT false, as_of timestamptz DEFAULT now()
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
BEGIN
    PERFORM billing.require_argument('at_period_end', at_period_end);
    found := billing.current_subscription(cancel_subscription.subscription, as_of);
    UPDATE billing.subscriptions s
    SET canceled_at = as_of,
        cancel_at_period_end = at_period_end OR s.cancel_at_period_end,
        status = CASE WHEN at_period_end THEN s.status ELSE 'canceled' END,
        ended_at = CASE WHEN NOT at_period_end THEN as_of END,
        current_period_end = CASE WHEN at_period_end THEN s.current_period_end ELSE as_of END,
        next_invoice_at = CASE
            WHEN at_period_end THEN s.current_period_end
            WHEN s.status <> 'trialing' AND as_of > s.current_period_start AND EXISTS (
                SELECT FROM billing.subscription_items i WHERE i.subscription = s.id AND i.quantity IS NULL) THEN as_of END
    WHERE s.id = found.id;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.cancel_subscription(text, boolean, timestamptz) IS
'Ends a subscription and returns its id: with its current period (at_period_end), or at as_of. Its usage until then is on a last
invoice that the next generate_invoices makes; Stripe discards it by default on an immediate cancellation. What was paid in advance is
not given back. Errors: 42704 unknown subscription; 55000 canceled already; 22023 as_of before the current period or infinite;
22004 NULL.';
