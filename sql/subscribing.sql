-- A subscription is created: what it is made of, when its periods are, and its first invoice.

CREATE FUNCTION billing.create_subscription(
    subscription billing.subscription, id text DEFAULT NULL, as_of timestamptz DEFAULT now()
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    definition jsonb := create_subscription.subscription::jsonb;
    backdated timestamptz := (definition ->> 'backdate_start_date')::timestamptz;
    made billing.subscriptions;
    prices text[] := ARRAY(SELECT i.value ->> 'price' FROM jsonb_array_elements(definition -> 'items') i (value));
    item record;
BEGIN
    PERFORM billing.require_argument('subscription', definition);
    PERFORM billing.require_time('as_of', as_of);
    PERFORM billing.require_supported(create_subscription.subscription);
    IF backdated IS NOT NULL THEN
        PERFORM billing.lock_usage();
    END IF;
    made.id := coalesce(create_subscription.id, billing.generate_id('sub'));
    made.definition := create_subscription.subscription;
    made.customer := definition ->> 'customer';
    made.created := as_of;
    made.start_date := coalesce(backdated, (definition ->> 'start_date')::timestamptz, as_of);
    -- Days are days in UTC (see SET above): a trial is as long in every session.
    made.trial_end := coalesce((definition ->> 'trial_end')::timestamptz,
                               made.start_date + make_interval(days => (definition ->> 'trial_period_days')::integer));
    made.trial_start := CASE WHEN made.trial_end IS NOT NULL THEN made.start_date END;
    made.trial_end_behavior := coalesce(definition #>> '{trial_settings,end_behavior,missing_payment_method}',
                                        'create_invoice');
    made.default_payment_method := definition ->> 'default_payment_method';
    made.status := CASE WHEN made.trial_end IS NULL THEN 'active' ELSE 'trialing' END;
    made.cancel_at_period_end := coalesce((definition ->> 'cancel_at_period_end')::boolean, false);
    made.collection_method := coalesce(definition ->> 'collection_method', 'charge_automatically');
    made.days_until_due := (definition ->> 'days_until_due')::integer;
    made.proration_behavior := coalesce(definition ->> 'proration_behavior', 'create_prorations');
    made.description := definition ->> 'description';
    made.metadata := coalesce(definition -> 'metadata', '{}');
    made.default_tax_rates := billing.text_array(definition -> 'default_tax_rates');
    made.pause_behavior := definition #>> '{pause_collection,behavior}';
    made.pause_resumes_at := (definition #>> '{pause_collection,resumes_at}')::timestamptz;
    made.amount_gte := (definition #>> '{billing_thresholds,amount_gte}')::bigint;
    made.reset_billing_cycle_anchor := (definition #>> '{billing_thresholds,reset_billing_cycle_anchor}')::boolean;
    IF NOT EXISTS (SELECT FROM billing.customers c WHERE c.id = made.customer) THEN
        RAISE EXCEPTION 'customer "%" does not exist', made.customer
            USING ERRCODE = 'foreign_key_violation', HINT = 'Create it first with billing.create_customer.';
    ELSIF made.start_date > as_of THEN
        RAISE EXCEPTION '% % is after as_of %',
                CASE WHEN backdated IS NULL THEN 'start_date' ELSE 'backdate_start_date' END, made.start_date, as_of
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Create it when it starts, or schedule it with billing.create_subscription_schedule.';
    ELSIF made.trial_end <= made.start_date THEN
        RAISE EXCEPTION 'trial_end % is not after the start, %', made.trial_end, made.start_date
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave trial_end out for no trial.';
    END IF;
    IF made.default_tax_rates IS NOT NULL THEN
        PERFORM billing.require_tax_rates(made.default_tax_rates);
    END IF;

    made.currency := coalesce(definition ->> 'currency',
                              (SELECT p.currency FROM billing.prices p WHERE p.id = prices[1]));
    FOR item IN
        SELECT i.value ->> 'price' AS price, (i.value ->> 'quantity')::bigint AS quantity,
               billing.text_array(i.value -> 'tax_rates') AS tax_rates,
               i.value #> '{billing_thresholds,usage_gte}' AS usage_gte
        FROM jsonb_array_elements(definition -> 'items') WITH ORDINALITY i (value, place) ORDER BY i.place
    LOOP
        PERFORM billing.require_threshold_of_usage(
            billing.require_price(item.price, item.quantity, made.currency), item.usage_gte);
        IF item.tax_rates IS NOT NULL THEN
            PERFORM billing.require_tax_rates(item.tax_rates);
        END IF;
    END LOOP;
    SELECT t."interval", t.interval_count INTO made."interval", made.interval_count
    FROM billing.shortest_interval(prices) t;
    made.billing_cycle_anchor := billing.first_anchor(made, definition);
    made.cancel_at := billing.cancellation_time(made, prices, definition ->> 'cancel_at', made.start_date);
    made.canceled_at := CASE WHEN made.cancel_at IS NOT NULL OR made.cancel_at_period_end THEN as_of END;
    IF made.cancel_at <= (CASE WHEN backdated IS NULL THEN made.start_date ELSE as_of END) THEN
        RAISE EXCEPTION 'cancel_at % is not after the start, %', made.cancel_at, made.start_date
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A subscription ends after it starts.';
    END IF;

    -- A start in the past is caught up by generate_invoices, but a backdated one by the first invoice.
    SELECT p.period_start, p.period_end INTO made.current_period_start, made.current_period_end
    FROM billing.subscription_period(made, made.start_date) p;
    WHILE backdated IS NOT NULL AND made.current_period_end <= as_of LOOP
        SELECT p.period_start, p.period_end INTO made.current_period_start, made.current_period_end
        FROM billing.subscription_period(made, made.current_period_end) p;
    END LOOP;
    made.next_invoice_at := made.current_period_end;
    INSERT INTO billing.subscriptions SELECT made.* ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'subscription "%" exists already', made.id
            USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'subscriptions',
                  HINT = 'Create one with another id, also where that one has ended.';
    END IF;
    INSERT INTO billing.subscription_items
        (subscription, price, quantity, created, starts_at, metadata, tax_rates, usage_gte)
    SELECT made.id, p.id, CASE WHEN p.usage_type = 'licensed' THEN coalesce((i.value ->> 'quantity')::bigint, 1) END,
           as_of, made.start_date, coalesce(i.value -> 'metadata', '{}'),
           billing.text_array(i.value -> 'tax_rates'), (i.value #>> '{billing_thresholds,usage_gte}')::bigint
    FROM jsonb_array_elements(definition -> 'items') WITH ORDINALITY i (value, place)
    JOIN billing.prices p ON p.id = i.value ->> 'price'
    ORDER BY i.place;
    IF billing.coupons_named(definition) <> '{}' THEN
        PERFORM billing.lock_discounts(ARRAY[made.customer], billing.coupons_named(definition));
    END IF;
    PERFORM billing.discount_subscription(made.id, definition, as_of);
    PERFORM billing.make_first_invoice(made, as_of);
    RETURN made.id;
END $$;
COMMENT ON FUNCTION billing.create_subscription(billing.subscription, text, timestamptz) IS
'Starts a subscription at its start_date (default as_of) and returns its id: the one given, or a new one (sub_...).
Its licensed items are invoiced at once for the first period, which ends at the first boundary of
billing_cycle_anchor (default: the trial''s end, else the start) and is prorated by the second when it is shorter
than a whole one; usage never is. Until trial_end licensed items are free ("Free trial" lines of 0) and usage is not
billed. A start_date in the past is caught up by generate_invoices, period by period; a backdate_start_date by the
first invoice, whose anchor then is as_of. With payment_behavior it is incomplete until that invoice is paid, for at
most 23 hours. Errors: 23503 unknown customer, price or tax rate; 23505 the id exists; 55000 archived price; 22003
an amount beyond bigint; 22023 one-time price, a metered price with a quantity, another currency, intervals that are
no multiples of the shortest, a start after as_of, trial_end or cancel_at not after the start, more than 250
backdated lines; 0A000 a field that is not built; 22004 NULL.';

CREATE FUNCTION billing.text_array(list jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(e.value ORDER BY e.place) FROM jsonb_array_elements_text(
        CASE jsonb_typeof(list) WHEN 'array' THEN list ELSE '[]' END) WITH ORDINALITY e (value, place)
$$;
COMMENT ON FUNCTION billing.text_array(jsonb) IS 'A list of texts as an array; NULL for none. Internal.';

CREATE FUNCTION billing.require_threshold_of_usage(price billing.prices, usage_gte jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF usage_gte <> 'null' AND price.usage_type = 'licensed' THEN
        RAISE EXCEPTION 'billing_thresholds.usage_gte % of licensed price "%"', usage_gte, price.id
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Only a metered price has usage.';
    END IF;
END $$;
COMMENT ON FUNCTION billing.require_threshold_of_usage(billing.prices, jsonb) IS
'Raises 22023 for a threshold of usage on a licensed item. Internal.';

CREATE FUNCTION billing.first_anchor(subscription billing.subscriptions, definition jsonb) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    given timestamptz := definition ->> 'billing_cycle_anchor';
    config jsonb := definition -> 'billing_cycle_anchor_config';
BEGIN
    IF config IS NULL THEN
        RETURN coalesce(given, subscription.trial_end,
                        CASE WHEN definition ? 'backdate_start_date' THEN subscription.created END,
                        subscription.start_date);
    ELSIF subscription."interval" NOT IN ('month', 'year') THEN
        RAISE EXCEPTION 'billing_cycle_anchor_config % of a subscription billed every % %',
                config, subscription.interval_count, subscription."interval"
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Give billing_cycle_anchor, a time: only months and years have days of the month.';
    END IF;
    RETURN billing.configured_anchor(
        config, coalesce(given, subscription.trial_end, subscription.start_date),
        subscription.interval_count * CASE subscription."interval" WHEN 'month' THEN 1 ELSE 12 END);
END $$;
COMMENT ON FUNCTION billing.first_anchor(billing.subscriptions, jsonb) IS
'The billing_cycle_anchor of a subscription that is being created. Errors: 22023 a configuration by day of the month
for days or weeks. Internal.';

CREATE FUNCTION billing.cancellation_time(
    subscription billing.subscriptions, prices text[], cancel_at text, at timestamptz
) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    ends record;
BEGIN
    IF coalesce(cancellation_time.cancel_at, '') NOT IN ('min_period_end', 'max_period_end') THEN
        RETURN cancellation_time.cancel_at::timestamptz;
    END IF;
    subscription.cancel_at := NULL;
    SELECT min(w.period_end) AS first, max(w.period_end) AS last INTO ends
    FROM billing.prices p
    CROSS JOIN LATERAL billing.item_period(subscription, p."interval", p.interval_count, cancellation_time.at) w
    WHERE p.id = ANY (cancellation_time.prices);
    RETURN CASE cancellation_time.cancel_at WHEN 'min_period_end' THEN ends.first ELSE ends.last END;
END $$;
COMMENT ON FUNCTION billing.cancellation_time(billing.subscriptions, text[], text, timestamptz) IS
'The time that cancel_at names: itself, or the end of the first or the last period of the items that run at a time.
Internal.';

CREATE FUNCTION billing.discount_subscription(subscription text, definition jsonb, as_of timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    item record;
BEGIN
    IF definition ? 'discounts' THEN
        PERFORM billing.set_discounts(
            'subscription', discount_subscription.subscription, definition -> 'discounts', as_of);
    END IF;
    FOR item IN
        SELECT t.id, i.value -> 'discounts' AS discounts
        FROM jsonb_array_elements(definition -> 'items') WITH ORDINALITY i (value, place)
        JOIN billing.subscription_items t ON t.subscription = discount_subscription.subscription
            AND t.price = i.value ->> 'price' AND t.ended_at IS NULL
        WHERE i.value ? 'discounts' ORDER BY i.place
    LOOP
        PERFORM billing.set_discounts('subscription_item', item.id, item.discounts, as_of);
    END LOOP;
END $$;
COMMENT ON FUNCTION billing.discount_subscription(text, jsonb, timestamptz) IS
'Gives a subscription that is being created, and its items, their discounts. Internal.';

CREATE FUNCTION billing.make_first_invoice(subscription billing.subscriptions, as_of timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    backdated boolean := subscription.definition::jsonb ? 'backdate_start_date';
    free boolean := backdated AND subscription.proration_behavior = 'none';
    at timestamptz := subscription.start_date;
    period billing.subscriptions;
    lines bigint;
    draft text;
BEGIN
    INSERT INTO billing.invoices
        (customer, subscription, currency, period_start, period_end, created, billing_reason, collection_method,
         auto_advance)
    VALUES (subscription.customer, subscription.id, subscription.currency, subscription.start_date,
            subscription.current_period_start, make_first_invoice.as_of, 'subscription_create',
            subscription.collection_method, billing.advances(subscription, make_first_invoice.as_of))
    RETURNING id INTO draft;
    period := subscription;
    period.cancel_at_period_end := false;
    LOOP
        INSERT INTO billing.invoice_lines
            (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end)
        SELECT draft, u.subscription_item, u.price, 'usage', billing.price_label(p), 0, 0, u.period_start, u.period_end
        FROM billing.usage_lines(period, at, true) u
        JOIN billing.prices p ON p.id = u.price
        JOIN billing.subscription_items i ON i.id = u.subscription_item
        WHERE at > subscription.start_date
        ORDER BY i.created, i.id;
        INSERT INTO billing.invoice_lines
            (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end,
             proration)
        SELECT draft, l.subscription_item, l.price, 'licensed', l.description, l.quantity, l.amount,
               l.period_start, l.period_end, l.proration
        FROM billing.licensed_lines(subscription, at) l
        JOIN billing.subscription_items i ON i.id = l.subscription_item
        -- Without proration the time before as_of costs nothing, nor does the rest of the period that it falls into.
        WHERE NOT free OR l.period_end > make_first_invoice.as_of
        ORDER BY i.created, i.id;
        EXIT WHEN at >= subscription.current_period_start;
        period.current_period_start := at;
        SELECT p.period_end INTO at FROM billing.subscription_period(subscription, at) p;
    END LOOP;
    SELECT count(*) INTO lines FROM billing.invoice_lines l WHERE l.invoice = draft;
    IF lines = 0 THEN
        DELETE FROM billing.invoices i WHERE i.id = draft;
        RETURN;
    ELSIF backdated AND lines > 250 THEN
        RAISE EXCEPTION 'backdate_start_date % makes % lines on the first invoice', subscription.start_date, lines
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'At most 250. Give start_date instead: then every period has an invoice.';
    END IF;
    IF free THEN
        UPDATE billing.invoice_lines l
        SET amount = 0, proration = false, period_start = greatest(l.period_start, make_first_invoice.as_of)
        WHERE l.invoice = draft AND l.kind = 'licensed' AND l.period_start < make_first_invoice.as_of;
    END IF;
    PERFORM billing.rate_drafts(ARRAY[draft]);
    IF subscription.collection_method = 'charge_automatically' THEN
        PERFORM billing.finalize_now(ARRAY[draft], make_first_invoice.as_of);
        IF subscription.status = 'active'
           AND subscription.definition::jsonb ->> 'payment_behavior' IN ('allow_incomplete', 'default_incomplete')
           AND EXISTS (SELECT FROM billing.invoices i WHERE i.id = draft AND i.status = 'open')
        THEN
            UPDATE billing.subscriptions s SET status = 'incomplete', next_invoice_at = NULL
            WHERE s.id = subscription.id;
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION billing.make_first_invoice(billing.subscriptions, timestamptz) IS
'Makes a subscription''s first invoice, if there is anything to put on one, and finalizes it unless it is to be
sent. Of a backdated subscription it holds every period since the start, usage too. Errors: 22023 more than 250
lines. Internal.';

CREATE FUNCTION billing.finalize_now(drafts text[], as_of timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    earlier text[];
BEGIN
    finalize_now.drafts := ARRAY(
        SELECT i.id FROM billing.invoices i WHERE i.id = ANY (finalize_now.drafts) AND i.auto_advance);
    earlier := ARRAY(
        SELECT i.id FROM billing.invoices i
        WHERE i.subscription IN (SELECT d.subscription FROM billing.invoices d WHERE d.id = ANY (finalize_now.drafts))
          AND i.id <> ALL (finalize_now.drafts) AND i.status = 'draft' AND i.auto_advance
          AND i.created <= finalize_now.as_of - billing.setting_interval('finalization_delay')
        ORDER BY i.id FOR NO KEY UPDATE);
    IF earlier <> '{}' THEN
        -- A run on time had come to them before: their turn for credit, a coupon for once, the balance and numbers was then.
        PERFORM billing.rate_drafts(earlier);
        PERFORM billing.lock_to_finalize(ARRAY(SELECT DISTINCT i.customer FROM billing.invoices i WHERE i.id = ANY (earlier)));
        PERFORM billing.finalize_beside_folding(earlier);
        PERFORM billing.adjust_drafts(finalize_now.drafts);
    END IF;
    PERFORM billing.finalize_drafts(drafts, finalize_now.as_of);
END $$;
COMMENT ON FUNCTION billing.finalize_now(text[], timestamptz) IS
'Finalizes rated drafts of a locked subscription at once, without their grace, but for those that wait for a person; and before
them its drafts whose grace is over. Internal.';
