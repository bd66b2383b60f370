-- The items of a running subscription are changed: prices swapped, quantities, items added and removed.

CREATE FUNCTION billing.change_items(
    subscription billing.subscriptions, items jsonb, prorates boolean, since timestamptz, noted timestamptz,
    as_of timestamptz, archived_too boolean
) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    change record;
    item billing.subscription_items;
    price billing.prices;
    charged text[] := '{}';
    repriced boolean;
BEGIN
    -- Those that go make room for those that come.
    FOR change IN
        SELECT c.value, c.value ->> 'id' AS id, (c.value ->> 'quantity')::bigint AS quantity
        FROM jsonb_array_elements(items) WITH ORDINALITY c (value, place)
        ORDER BY NOT c.value ? 'deleted', c.place
    LOOP
        item := NULL;
        IF change.id IS NOT NULL THEN
            SELECT i.* INTO item FROM billing.subscription_items i
            WHERE i.id = change.id AND i.subscription = change_items.subscription.id AND i.ended_at IS NULL;
            IF item.id IS NULL THEN
                RAISE EXCEPTION 'subscription "%" has no item "%"', change_items.subscription.id, change.id
                    USING ERRCODE = 'undefined_object', HINT = 'See billing.subscription_items.';
            END IF;
        END IF;
        repriced := coalesce(change.value ->> 'price' <> item.price, change.value ? 'price');
        IF repriced THEN
            price := billing.require_price(change.value ->> 'price', change.quantity,
                                           change_items.subscription.currency, archived_too);
            PERFORM billing.require_unused_price(change_items.subscription.id, price.id);
        ELSE
            SELECT p.* INTO price FROM billing.prices p WHERE p.id = item.price;
            IF item.quantity IS NULL AND change.quantity IS NOT NULL THEN
                RAISE EXCEPTION 'quantity % of metered item "%"', change.quantity, item.id
                    USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave quantity out: usage is the quantity.';
            ELSIF change.quantity IS NOT NULL THEN  -- or later a run would fail for everybody
                PERFORM billing.price_line_amount(
                    billing.price_terms(price, change_items.subscription.currency), change.quantity);
            END IF;
        END IF;
        PERFORM billing.require_threshold_of_usage(price, change.value #> '{billing_thresholds,usage_gte}');

        IF item.id IS NULL THEN
            INSERT INTO billing.subscription_items (subscription, price, quantity, created, starts_at)
            VALUES (change_items.subscription.id, price.id,
                    CASE price.usage_type WHEN 'licensed' THEN coalesce(change.quantity, 1) END, as_of, as_of)
            RETURNING * INTO item;
            charged := charged || item.id;
        ELSIF change.value ? 'deleted' THEN
            IF item.quantity IS NULL THEN
                item.starts_at := billing.usage_since(change_items.subscription, item.id, as_of);
            ELSIF prorates THEN
                PERFORM billing.credit_unused(change_items.subscription, item.id, since, noted);
            END IF;
            UPDATE billing.subscription_items i SET starts_at = item.starts_at, ended_at = change_items.as_of
            WHERE i.id = item.id;
        ELSIF repriced OR change.quantity <> item.quantity THEN
            IF item.quantity IS NULL THEN
                PERFORM billing.keep_usage(change_items.subscription, item.id, as_of);
            ELSIF prorates THEN
                PERFORM billing.credit_unused(change_items.subscription, item.id, since, noted);
            END IF;
            UPDATE billing.subscription_items i
            SET price = price.id,
                quantity = CASE price.usage_type WHEN 'licensed' THEN coalesce(change.quantity, 1) END,
                starts_at = CASE WHEN repriced THEN change_items.as_of ELSE i.starts_at END,
                usage_gte = CASE price.usage_type WHEN 'metered' THEN i.usage_gte END
            WHERE i.id = item.id;
            charged := charged || item.id;
        END IF;
        PERFORM billing.describe_item(item.id, change.value, as_of);
    END LOOP;
    RETURN charged;
END $$;
COMMENT ON FUNCTION billing.change_items(
    billing.subscriptions, jsonb, boolean, timestamptz, timestamptz, timestamptz, boolean) IS
'Carries out the items of an update and returns those that are to be charged anew. What was charged for a licensed
item that changes is given back from since on, if prorates; usage of a metered one keeps its price. Errors: 42704 an
item of another subscription; 55000, 23503, 22023 a price that is archived (unless archived_too), unknown, unfit or
in use; 22023 a quantity or threshold of the wrong kind; 22003 an amount beyond bigint. Internal.';

CREATE FUNCTION billing.require_unused_price(subscription text, price text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    other text;
BEGIN
    SELECT i.id INTO other FROM billing.subscription_items i
    WHERE i.subscription = require_unused_price.subscription AND i.price = require_unused_price.price
      AND i.ended_at IS NULL;
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'price "%" is already the price of item "%"', require_unused_price.price, other
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Change that item''s quantity, or delete it.';
    END IF;
END $$;
COMMENT ON FUNCTION billing.require_unused_price(text, text) IS
'Raises 22023 for a price that an item of the subscription has already. Internal.';

CREATE FUNCTION billing.describe_item(item text, change jsonb, as_of timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF change ?| ARRAY['metadata', 'tax_rates', 'billing_thresholds'] THEN
        IF jsonb_typeof(change -> 'tax_rates') = 'array' THEN
            PERFORM billing.require_tax_rates(billing.text_array(change -> 'tax_rates'));
        END IF;
        -- Drafts that are there already keep the rates that they were created under, the first ones before several changes.
        UPDATE billing.invoices d
        SET item_tax_rates = jsonb_build_object(i.id, i.tax_rates) || coalesce(d.item_tax_rates, '{}')
        FROM billing.subscription_items i
        WHERE change ? 'tax_rates' AND i.id = describe_item.item
          AND i.tax_rates IS DISTINCT FROM billing.text_array(change -> 'tax_rates')
          AND d.subscription = i.subscription AND d.status = 'draft';
        UPDATE billing.subscription_items i
        SET metadata = CASE WHEN change ? 'metadata'
                            THEN billing.changed_metadata(i.metadata, change -> 'metadata') ELSE i.metadata END,
            tax_rates = CASE WHEN change ? 'tax_rates'
                             THEN billing.text_array(change -> 'tax_rates') ELSE i.tax_rates END,
            usage_gte = CASE WHEN change ? 'billing_thresholds'
                             THEN (change #>> '{billing_thresholds,usage_gte}')::bigint ELSE i.usage_gte END
        WHERE i.id = describe_item.item;
    END IF;
    IF change ? 'discounts' THEN
        PERFORM billing.replace_discounts(
            'subscription_item', describe_item.item, change -> 'discounts', describe_item.as_of);
    END IF;
END $$;
COMMENT ON FUNCTION billing.describe_item(text, jsonb, timestamptz) IS
'Sets what an update says of an item beyond its price and quantity. Internal.';

CREATE FUNCTION billing.invoice_changes(
    subscription billing.subscriptions, closes boolean, takes boolean, finalizes boolean, as_of timestamptz
) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    draft text := billing.generate_id('in');
    items text[];
    lines bigint;
BEGIN
    INSERT INTO billing.invoices
        (id, customer, subscription, currency, period_start, period_end, created, billing_reason, collection_method,
         auto_advance)
    SELECT draft, s.customer, s.id, s.currency,
           least(invoice_changes.subscription.current_period_start, invoice_changes.as_of),
           invoice_changes.as_of, invoice_changes.as_of, 'subscription_update', s.collection_method,
           billing.advances(s, invoice_changes.as_of)
    FROM billing.subscriptions s WHERE s.id = invoice_changes.subscription.id;
    -- What is invoiced here is taken away from what the end of the period bills.
    WITH former AS (
        DELETE FROM billing.subscription_item_past_prices h
        USING billing.subscription_items i
        WHERE closes AND i.id = h.item AND i.subscription = invoice_changes.subscription.id
          AND h.ends_at > invoice_changes.subscription.current_period_start
        RETURNING i.created, h.item, h.price, h.starts_at, h.ends_at
    ), removed AS (
        UPDATE billing.subscription_items i SET starts_at = i.ended_at
        FROM billing.subscription_items o
        WHERE o.id = i.id AND i.subscription = invoice_changes.subscription.id AND i.quantity IS NULL
          AND i.starts_at < i.ended_at
          AND CASE WHEN closes THEN i.ended_at > invoice_changes.subscription.current_period_start
                   ELSE i.ended_at = invoice_changes.as_of END
        RETURNING i.created, i.id AS item, i.price, o.starts_at, o.ended_at AS ends_at
    )
    INSERT INTO billing.invoice_lines
        (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end)
    SELECT draft, u.item, u.price, 'usage', billing.price_label(p), 0, 0, u.starts_at, u.ends_at
    FROM (SELECT * FROM former UNION ALL SELECT * FROM removed) u
    JOIN billing.prices p ON p.id = u.price
    ORDER BY u.created, u.item, u.starts_at;
    IF takes THEN
        WITH waiting AS (
            SELECT x.* FROM billing.invoice_items x
            WHERE x.subscription = invoice_changes.subscription.id AND x.invoice IS NULL AND x.kind <> 'item'
        ), filled AS (
            INSERT INTO billing.invoice_lines
                (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end,
                 proration, invoice_item, discountable)
            SELECT draft, x.subscription_item, x.price, x.kind, x.description, x.quantity, x.amount, x.period_start,
                   x.period_end, true, x.id, x.discountable
            FROM waiting x ORDER BY x.created, x.id
        )
        SELECT array_agg(x.id ORDER BY x.id) INTO items FROM waiting x;
        IF items IS NOT NULL THEN
            PERFORM billing.take_items(items, array_fill(draft, ARRAY[cardinality(items)]));
        END IF;
    END IF;
    -- Usage of these times that comes later is looked for, though their period still runs; and of invoiced periods of a
    -- shorter interval, gone now, within the period of a longer one.
    INSERT INTO billing.late_usage_marks (subscription, event_name, day, invoiced)
    SELECT DISTINCT s.id, p.meter, d.day, true
    FROM billing.subscriptions s
    JOIN billing.subscription_items i ON i.subscription = s.id
    JOIN billing.invoice_lines l
      ON l.subscription_item = i.id AND l.kind = 'usage'
     AND (l.invoice = draft OR l.period_end > s.current_period_start)
    JOIN billing.prices p ON p.id = l.price
    CROSS JOIN LATERAL generate_series(
        date_trunc('day', l.period_start, 'UTC'), l.period_end - interval '1 microsecond', interval '24 hours') d (day)
    WHERE s.id = invoice_changes.subscription.id
    ON CONFLICT DO NOTHING;
    SELECT count(*) INTO lines FROM billing.invoice_lines l WHERE l.invoice = draft;
    IF lines = 0 THEN
        DELETE FROM billing.invoices i WHERE i.id = draft;
        RETURN NULL;
    END IF;
    PERFORM billing.rate_drafts(ARRAY[draft]);
    IF finalizes THEN
        PERFORM billing.finalize_now(ARRAY[draft], invoice_changes.as_of);
    END IF;
    RETURN draft;
END $$;
COMMENT ON FUNCTION billing.invoice_changes(billing.subscriptions, boolean, boolean, boolean, timestamptz) IS
'Invoices what changes of a subscription, given as it was before them, have left: usage of metered items that were
just removed, or (closes) all usage whose price or period is over; and (takes) the prorations that wait for an
invoice. It is a draft, or final at once (finalizes). Returns the invoice; NULL when there is nothing to put on one.
Internal.';
