-- What happens to one subscription by hand: it is created, changed, canceled.

CREATE FUNCTION billing.create_subscription(
    subscription billing.subscription, id text DEFAULT NULL, as_of timestamptz DEFAULT now()
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
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
    PERFORM billing.require_supported(create_subscription.subscription);
    made.id := coalesce(create_subscription.id, billing.generate_id('sub'));
    made.definition := create_subscription.subscription;
    made.customer := definition ->> 'customer';
    made.created := as_of;
    made.start_date := coalesce((definition ->> 'start_date')::timestamptz, as_of);
    -- Days are days in UTC (see SET above): a trial is as long in every session.
    made.trial_end := coalesce((definition ->> 'trial_end')::timestamptz,
                               made.start_date + make_interval(days => (definition ->> 'trial_period_days')::integer));
    made.trial_start := CASE WHEN made.trial_end IS NOT NULL THEN made.start_date END;
    made.billing_cycle_anchor := coalesce((definition ->> 'billing_cycle_anchor')::timestamptz,
                                          made.trial_end, made.start_date);
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
        SELECT i.value ->> 'price' AS price, (i.value ->> 'quantity')::bigint AS quantity,
               p.id, p.active, p.type, p.usage_type, p.price AS terms
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
        ELSIF item.usage_type = 'metered' AND item.quantity IS NOT NULL THEN
            RAISE EXCEPTION 'quantity % of metered price "%"', item.quantity, item.price
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave quantity out: usage is the quantity.';
        ELSIF item.usage_type = 'licensed' THEN
            -- Here and not in the run that first bills it, which it would stop for everybody.
            PERFORM billing.price_line_amount(item.terms, coalesce(item.quantity, 1));
        END IF;
    END LOOP;
    SELECT min(p."interval") AS "interval", min(p.interval_count) AS interval_count, min(p.currency) AS currency,
           string_agg(DISTINCT p.interval_count || ' ' || p."interval", ', ') AS intervals,
           string_agg(DISTINCT p.currency, ', ') AS currencies,
           count(DISTINCT p.currency) AS currency_count,
           count(DISTINCT (p."interval", p.interval_count)) AS interval_kinds
    INTO terms
    FROM jsonb_array_elements(definition -> 'items') i (value) JOIN billing.prices p ON p.id = i.value ->> 'price';
    IF terms.interval_kinds > 1 THEN
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
    made.trial_end_behavior := 'create_invoice';
    made.status := CASE WHEN made.trial_end IS NULL THEN 'active' ELSE 'trialing' END;
    made.current_period_start := period.period_start;
    made.current_period_end := period.period_end;
    made.next_invoice_at := period.period_end;
    INSERT INTO billing.subscriptions SELECT made.*;
    INSERT INTO billing.subscription_items (subscription, price, quantity, starts_at, created, metadata)
    SELECT made.id, p.id, q.quantity, made.start_date, as_of, coalesce(i.value -> 'metadata', '{}')
    FROM jsonb_array_elements(definition -> 'items') WITH ORDINALITY i (value, place)
    JOIN billing.prices p ON p.id = i.value ->> 'price'
    CROSS JOIN LATERAL (
        SELECT CASE WHEN p.usage_type = 'licensed' THEN coalesce((i.value ->> 'quantity')::bigint, 1) END
    ) q (quantity)
    ORDER BY i.place;

    IF EXISTS (SELECT FROM billing.subscription_items i WHERE i.subscription = made.id AND i.quantity IS NOT NULL) THEN
        INSERT INTO billing.invoices
            (customer, subscription, currency, period_start, period_end, created, billing_reason, collection_method)
        VALUES (made.customer, made.id, made.currency, made.start_date, made.start_date, as_of,
                'subscription_create', made.collection_method)
        RETURNING id INTO invoice_id;
        INSERT INTO billing.invoice_lines
            (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end,
             proration)
        SELECT invoice_id, l.subscription_item, l.price, 'licensed', l.description, l.quantity, l.amount,
               l.period_start, l.period_end, l.proration
        FROM billing.licensed_lines(made, period.period_start) l;
        PERFORM billing.rate_drafts(ARRAY[invoice_id]);
        IF made.collection_method = 'charge_automatically' THEN
            PERFORM billing.finalize_drafts(ARRAY[invoice_id], as_of);
        END IF;
    END IF;
    RETURN made.id;
END $$;
COMMENT ON FUNCTION billing.create_subscription(billing.subscription, text, timestamptz) IS
'Starts a subscription at its start_date (default as_of) and returns its id: the one given, or a new one (sub_...).
Its licensed items are invoiced at once for the first period, which ends at the first boundary of billing_cycle_anchor
(default: the trial''s end, else the start) and is prorated by the second when it is shorter than a whole one; usage
never is. Until trial_end licensed items are free ("Free trial" lines of 0) and usage is not billed. A start in the
past is caught up by generate_invoices, period by period. Errors: 23503 unknown customer or price; 23505 the id
exists; 55000 archived price; 22003 an amount beyond bigint; 22023 one-time price, a metered price with a quantity,
several currencies, start_date after as_of, trial_end or cancel_at not after the start; 0A000 prices with different
intervals, a field that is not built yet; 22004 NULL.';

CREATE FUNCTION billing.current_subscription(subscription text, as_of timestamptz) RETURNS billing.subscriptions
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
    drafts text[];
    last_change timestamptz;
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
    SELECT max(x.created) INTO last_change FROM billing.invoice_items x
    WHERE x.subscription = found.id AND x.kind <> 'item' AND x.invoice IS NULL;
    IF as_of < last_change THEN
        RAISE EXCEPTION 'as_of % is before the last change of subscription "%", of %', as_of, found.id, last_change
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Changes are prorated in their order.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION billing.current_subscription(text, timestamptz) IS
'Locks a subscription that is to change at as_of, after invoicing the periods that ended by then, and returns it.
Errors: 42704 unknown; 55000 canceled; 22023 as_of before the current period, before the last proration or infinite;
22004 NULL. Internal.';

CREATE FUNCTION billing.prorate_subscription(
    subscription billing.subscriptions, item text, quantity bigint, part_start timestamptz, part_end timestamptz,
    sign integer, as_of timestamptz
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    whole tstzrange := billing.period_containing(subscription.billing_cycle_anchor, subscription."interval",
        subscription.interval_count, subscription.current_period_start);
BEGIN
    -- What was free is not given back: a trial, and a stub period that was not prorated.
    IF part_start >= part_end OR quantity = 0 OR subscription.current_period_start < subscription.trial_end
       OR subscription.proration_behavior = 'none' AND subscription.current_period_start > lower(whole)
    THEN
        RETURN;
    END IF;
    INSERT INTO billing.invoice_items
        (customer, currency, subscription, subscription_item, price, kind, discountable, description, quantity, amount,
         period_start, period_end, created)
    SELECT subscription.customer, subscription.currency, subscription.id, i.id, i.price,
           CASE WHEN sign < 0 THEN 'unused_time' ELSE 'licensed' END, false,
           CASE WHEN sign < 0 THEN 'Unused time: ' ELSE 'Remaining time: ' END
               || prorate_subscription.quantity || ' × ' || coalesce(p.price::jsonb ->> 'nickname', d.name, p.id),
           prorate_subscription.quantity,
           sign * billing.prorated_amount(billing.price_amount(p.price, prorate_subscription.quantity),
                                          tstzrange(part_start, part_end), whole),
           part_start, part_end, as_of
    FROM billing.subscription_items i
    JOIN billing.prices p ON p.id = i.price
    LEFT JOIN billing.products d ON d.id = p.product
    WHERE i.id = item;
END $$;
COMMENT ON FUNCTION billing.prorate_subscription(
    billing.subscriptions, text, bigint, timestamptz, timestamptz, integer, timestamptz) IS
'Notes that part of the current period of a licensed item is given back (sign -1) or charged for (1), by its share of
a whole period. Internal.';

CREATE FUNCTION billing.update_subscription(subscription text, changes jsonb, as_of timestamptz DEFAULT now())
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
    unknown text;
    repeated text;
    behavior text;
    item record;
    licensed record;
    natural_end timestamptz;
    new_end timestamptz;
BEGIN
    PERFORM billing.require_argument('changes', changes);
    IF jsonb_typeof(changes) <> 'object' THEN
        RAISE EXCEPTION 'changes is a JSON %, not an object', jsonb_typeof(changes)
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Pass the fields to change, such as {"cancel_at_period_end": true}.';
    END IF;
    IF jsonb_typeof(changes -> 'items') <> 'array'
       OR jsonb_path_exists(changes, '$.items[*] ? (@.type() != "object")')
    THEN
        RAISE EXCEPTION 'items % is not an array of objects', changes -> 'items'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass [{"id": "si_...", "quantity": 2}].';
    END IF;
    SELECT min(c.name) INTO unknown FROM (
        SELECT k.name FROM jsonb_object_keys(changes) k (name) WHERE k.name NOT IN
            ('description', 'metadata', 'cancel_at', 'cancel_at_period_end', 'items', 'proration_behavior')
        UNION ALL
        SELECT 'items.' || k.name FROM jsonb_path_query(changes, '$.items[*]') i (value)
        CROSS JOIN LATERAL jsonb_object_keys(i.value) k (name)
        WHERE k.name NOT IN ('id', 'quantity') OR NOT i.value ? 'id'
    ) c (name);
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'a subscription''s "%" cannot be changed yet', unknown
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Change description, metadata, cancel_at, cancel_at_period_end, items with id and quantity.';
    END IF;
    behavior := coalesce(changes ->> 'proration_behavior', 'create_prorations');
    IF behavior NOT IN ('create_prorations', 'none') THEN
        RAISE EXCEPTION 'proration_behavior "%" is not supported for changes', behavior
            USING ERRCODE = 'feature_not_supported', HINT = 'Use create_prorations or none.';
    END IF;
    SELECT min(c.id) INTO repeated FROM (
        SELECT i.value ->> 'id' FROM jsonb_path_query(changes, '$.items[*]') i (value) GROUP BY 1 HAVING count(*) > 1
    ) c (id);
    IF repeated IS NOT NULL THEN
        RAISE EXCEPTION 'item "%" is in items more than once', repeated
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give its new quantity once.';
    END IF;
    found := billing.current_subscription(update_subscription.subscription, as_of);

    FOR item IN
        SELECT i.value ->> 'id' AS given_id, (i.value ->> 'quantity')::bigint AS quantity,
               t.id, t.quantity AS old_quantity, t.charged_quantity, p.price AS terms
        FROM jsonb_path_query(changes, '$.items[*]') i (value)
        LEFT JOIN billing.subscription_items t ON t.id = i.value ->> 'id' AND t.subscription = found.id
        LEFT JOIN billing.prices p ON p.id = t.price
    LOOP
        IF item.id IS NULL THEN
            RAISE EXCEPTION 'subscription "%" has no item "%"', found.id, item.given_id
                USING ERRCODE = 'undefined_object', HINT = 'See billing.subscription_items.';
        ELSIF item.old_quantity IS NULL AND item.quantity IS NOT NULL THEN
            RAISE EXCEPTION 'quantity % of metered item "%"', item.quantity, item.id
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave quantity out: usage is the quantity.';
        ELSIF item.quantity <> item.old_quantity THEN
            PERFORM billing.price_line_amount(item.terms, item.quantity);  -- or later a run would fail for everybody
            IF behavior = 'create_prorations' THEN
                PERFORM billing.prorate_subscription(
                    found, item.id, item.charged_quantity, as_of, found.current_period_end, -1, as_of);
                PERFORM billing.prorate_subscription(
                    found, item.id, item.quantity, as_of, found.current_period_end, 1, as_of);
            END IF;
            UPDATE billing.subscription_items t
            SET quantity = item.quantity,
                charged_quantity = CASE behavior WHEN 'none' THEN t.charged_quantity ELSE item.quantity END
            WHERE t.id = item.id;
        END IF;
    END LOOP;

    IF changes ? 'cancel_at' THEN
        -- Read by the type, so that a time is what it is for create_subscription, whatever the session's DateStyle.
        found.cancel_at := (jsonb_build_object(
            'customer', found.customer, 'items', '[{"price": "any"}]'::jsonb, 'cancel_at', changes -> 'cancel_at'
        )::billing.subscription::jsonb ->> 'cancel_at')::timestamptz;
        IF found.cancel_at <= as_of THEN
            RAISE EXCEPTION 'cancel_at % is not after as_of %', found.cancel_at, as_of
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Use billing.cancel_subscription to end it now.';
        END IF;
        natural_end := CASE WHEN found.status = 'trialing' THEN found.trial_end ELSE upper(billing.period_containing(
            found.billing_cycle_anchor, found."interval", found.interval_count, found.current_period_start)) END;
        new_end := least(natural_end, found.cancel_at);
        IF behavior = 'create_prorations' THEN
            FOR licensed IN SELECT i.id, i.charged_quantity AS quantity FROM billing.subscription_items i
                            WHERE i.subscription = found.id AND i.quantity IS NOT NULL ORDER BY i.created, i.id
            LOOP
                PERFORM billing.prorate_subscription(
                    found, licensed.id, licensed.quantity, new_end, found.current_period_end, -1, as_of);
                PERFORM billing.prorate_subscription(
                    found, licensed.id, licensed.quantity, found.current_period_end, new_end, 1, as_of);
            END LOOP;
        END IF;
        found.current_period_end := new_end;
    END IF;

    found.cancel_at_period_end := coalesce((changes ->> 'cancel_at_period_end')::boolean, found.cancel_at_period_end);
    UPDATE billing.subscriptions s
    SET current_period_end = found.current_period_end,
        next_invoice_at = found.current_period_end,
        cancel_at = found.cancel_at,
        cancel_at_period_end = found.cancel_at_period_end,
        canceled_at = CASE WHEN found.cancel_at IS NOT NULL OR found.cancel_at_period_end
                           THEN coalesce(s.canceled_at, as_of) END,
        description = CASE WHEN changes ? 'description' THEN changes ->> 'description' ELSE s.description END,
        metadata = CASE jsonb_typeof(changes -> 'metadata')
            WHEN 'null' THEN '{}'
            WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}')
                                FROM jsonb_each(s.metadata || (changes -> 'metadata')) m
                                WHERE m.value NOT IN ('null', '""'))
            ELSE coalesce(changes -> 'metadata', s.metadata) END
    WHERE s.id = found.id;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.update_subscription(text, jsonb, timestamptz) IS
'Changes a subscription at as_of and returns its id. Fields, as in Stripe''s API: description; metadata (merged; a key
set to null or "" is removed); cancel_at_period_end; cancel_at (a time, or null to take it back; the current period is
cut there); items, each with id and quantity of a licensed item. Unless proration_behavior is none, the unused time of
the old terms is given back and the remaining time of the new ones charged on the invoice that ends the current
period. Errors: 0A000 any other field, naming it; 42704 unknown subscription or item; 55000 canceled; 22023 a quantity
for a metered item, an item twice, cancel_at no time or not after as_of, as_of before the current period or an earlier
change; 22003 an amount beyond bigint; 23514 a negative quantity; 22004 NULL.';

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
        next_invoice_at = CASE WHEN at_period_end THEN s.current_period_end ELSE as_of END
    WHERE s.id = found.id;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.cancel_subscription(text, boolean, timestamptz) IS
'Ends a subscription and returns its id: with its current period (at_period_end), or at as_of. Its usage until then is
on a last invoice that the next generate_invoices makes; Stripe discards it by default on an immediate cancellation.
What was paid in advance is not given back. Errors: 42704 unknown subscription; 55000 canceled already; 22023 as_of
before the current period or infinite; 22004 NULL.';
