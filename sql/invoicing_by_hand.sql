-- Invoices and their items by hand: what an application bills beyond subscriptions.

CREATE FUNCTION billing.item_charge(
    definition jsonb, currency text, as_of timestamptz,
    OUT price text, OUT quantity numeric, OUT unit_amount numeric, OUT amount bigint, OUT description text
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    priced record;
    exact numeric;
BEGIN
    price := definition ->> 'price';
    quantity := coalesce((definition ->> 'quantity')::numeric, 1);
    unit_amount := (definition ->> 'unit_amount')::numeric;
    description := definition ->> 'description';
    IF price IS NOT NULL THEN
        SELECT p.*, coalesce(p.price::jsonb ->> 'nickname', d.name, p.id) AS name INTO priced
        FROM billing.prices p LEFT JOIN billing.products d ON d.id = p.product WHERE p.id = item_charge.price;
        IF priced.id IS NULL THEN
            RAISE EXCEPTION 'price "%" does not exist', price
                USING ERRCODE = 'foreign_key_violation', HINT = 'Create it with billing.create_price.';
        ELSIF priced.type <> 'one_time' THEN
            RAISE EXCEPTION 'price "%" is recurring', price
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Invoice items take one-time prices; recurring ones belong to subscriptions.';
        ELSIF NOT priced.active THEN
            RAISE EXCEPTION 'price "%" is archived', price
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Activate it with billing.activate_price.';
        ELSIF priced.currency <> currency THEN
            RAISE EXCEPTION 'price "%" is in %, not in %', price, priced.currency, currency
                USING ERRCODE = 'invalid_parameter_value', HINT = 'An invoice is in one currency.';
        END IF;
        amount := billing.price_line_amount(priced.price, quantity);
        description := coalesce(description, quantity || ' × ' || priced.name);
    ELSE
        exact := round(coalesce((definition ->> 'amount')::numeric, unit_amount * quantity));
        IF abs(exact) > 9223372036854775807 THEN
            RAISE EXCEPTION 'the amount % is out of range for bigint', exact
                USING ERRCODE = 'numeric_value_out_of_range',
                      HINT = 'Amounts are minor units of the currency, at most 9,223,372,036,854,775,807.';
        END IF;
        amount := exact;
        description := coalesce(description, 'Invoice item');
    END IF;
END $$;
COMMENT ON FUNCTION billing.item_charge(jsonb, text, timestamptz) IS
'What a normalised invoice item costs: its amount, or its price or unit amount times its quantity, rounded once, half
away from zero. Errors: 23503 unknown price; 22023 a recurring price or one of another currency; 55000 archived; 22003
beyond bigint. Internal.';

CREATE FUNCTION billing.lock_draft(invoice text, as_of timestamptz) RETURNS billing.invoices
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.invoices;
BEGIN
    PERFORM FROM billing.subscriptions s JOIN billing.invoices i ON i.subscription = s.id
    WHERE i.id = lock_draft.invoice FOR NO KEY UPDATE OF s;
    found := billing.lock_invoice(lock_draft.invoice, lock_draft.as_of);
    IF found.status <> 'draft' THEN
        RAISE EXCEPTION 'invoice "%" is % and no draft', found.id, found.status
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'A finalized invoice stays as it is. Write a credit note, or another invoice.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION billing.lock_draft(text, timestamptz) IS
'Locks a draft, and before it its subscription, and returns it. Errors: 42704 unknown; 55000 no draft; 22023 as_of
before it or infinite; 22004 NULL. Internal.';

CREATE FUNCTION billing.sum_up_draft(invoice text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.rate_drafts(ARRAY[sum_up_draft.invoice]);
    -- A draft without lines has no sums to add up.
    UPDATE billing.invoices i
    SET subtotal = 0, total = 0, amount_due = 0, line_count = 0, total_discount_amount = 0, total_credit_amount = 0,
        total_tax_amount = 0, total_exclusive_tax_amount = 0, finalization_error = NULL
    WHERE i.id = sum_up_draft.invoice
      AND NOT EXISTS (SELECT FROM billing.invoice_lines l WHERE l.invoice = sum_up_draft.invoice);
END $$;
COMMENT ON FUNCTION billing.sum_up_draft(text) IS
'Rates a draft whose lines were changed by hand. The caller holds its lock. Internal.';

CREATE FUNCTION billing.put_on_draft(items text[], invoice text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    count bigint;
BEGIN
    INSERT INTO billing.invoice_lines
        (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end, proration,
         discountable, invoice_item)
    SELECT put_on_draft.invoice, x.subscription_item, x.price, x.kind, x.description, x.quantity, x.amount,
           x.period_start, x.period_end, x.kind <> 'item', x.discountable, x.id
    FROM billing.invoice_items x WHERE x.id = ANY (put_on_draft.items) ORDER BY x.created, x.id;
    SELECT count(*) INTO count FROM billing.invoice_lines l
    WHERE l.invoice = put_on_draft.invoice AND l.kind = 'item';
    IF count > 250 THEN
        RAISE EXCEPTION 'invoice "%" would have % items', put_on_draft.invoice, count
            USING ERRCODE = 'program_limit_exceeded', HINT = 'An invoice has at most 250 items added by hand.';
    END IF;
END $$;
COMMENT ON FUNCTION billing.put_on_draft(text[], text) IS
'Adds lines for invoice items to the draft that carries them. Errors: 54000 more than 250 items. Internal.';

CREATE FUNCTION billing.create_invoice_item(item jsonb, id text DEFAULT NULL, as_of timestamptz DEFAULT now())
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    request jsonb;
    draft billing.invoices;
    subscribed billing.subscriptions;
    item_currency text;
    charge record;
    item_id text := coalesce(create_invoice_item.id, billing.generate_id('ii'));
    waiting bigint;
BEGIN
    PERFORM billing.require_argument('item', item);
    PERFORM billing.require_time('as_of', as_of);
    request := billing.normalised_bill('invoice_item', item::text);
    IF request ? 'subscription' THEN
        subscribed := billing.lock_subscription(request ->> 'subscription');
        IF subscribed.customer <> request ->> 'customer' THEN
            RAISE EXCEPTION 'subscription "%" is of customer "%", not of "%"',
                    subscribed.id, subscribed.customer, request ->> 'customer'
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Name the customer''s own subscription, or none.';
        ELSIF subscribed.next_invoice_at IS NULL THEN
            RAISE EXCEPTION 'subscription "%" is % and has no next invoice', subscribed.id, subscribed.status
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Leave the subscription out, or bill it with billing.create_invoice.';
        ELSIF request ? 'invoice' THEN
            RAISE EXCEPTION 'an invoice item with both an invoice ("%") and a subscription ("%")',
                    request ->> 'invoice', subscribed.id
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Name one of the two.';
        END IF;
    ELSIF request ? 'invoice' THEN
        draft := billing.lock_draft(request ->> 'invoice', as_of);
        IF draft.customer <> request ->> 'customer' THEN
            RAISE EXCEPTION 'invoice "%" is of customer "%", not of "%"',
                    draft.id, draft.customer, request ->> 'customer'
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Name the customer''s own draft, or none.';
        END IF;
    END IF;
    item_currency := coalesce(request ->> 'currency', subscribed.currency, draft.currency,
                              (SELECT p.currency FROM billing.prices p WHERE p.id = request ->> 'price'));
    IF item_currency IS NULL AND NOT request ? 'price' THEN
        RAISE EXCEPTION 'an invoice item without a currency'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Add "currency", such as "usd".';
    ELSIF item_currency <> coalesce(subscribed.currency, draft.currency) THEN
        RAISE EXCEPTION 'an invoice item in %, for % "%" in %', item_currency,
                CASE WHEN draft.id IS NULL THEN 'subscription' ELSE 'invoice' END, coalesce(draft.id, subscribed.id),
                coalesce(subscribed.currency, draft.currency)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'An invoice is in one currency.';
    END IF;
    charge := billing.item_charge(request, item_currency, as_of);
    -- Or a later run would fail for everybody.
    PERFORM billing.require_tax_rates(billing.text_array(request -> 'tax_rates'));

    -- One after the other for a customer, so that the limit holds.
    PERFORM FROM billing.customers c WHERE c.id = request ->> 'customer' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'customer "%" does not exist', request ->> 'customer'
            USING ERRCODE = 'foreign_key_violation', HINT = 'Create it with billing.create_customer.';
    END IF;
    IF draft.id IS NULL THEN
        SELECT count(*) INTO waiting FROM billing.invoice_items x
        WHERE x.customer = request ->> 'customer' AND x.invoice IS NULL AND x.kind = 'item'
          AND x.subscription IS NOT DISTINCT FROM request ->> 'subscription' AND x.currency = item_currency;
        IF waiting >= 250 THEN
            RAISE EXCEPTION 'customer "%" has % invoice items waiting already', request ->> 'customer', waiting
                USING ERRCODE = 'program_limit_exceeded', HINT = 'An invoice has at most 250 items added by hand.';
        END IF;
    END IF;

    INSERT INTO billing.invoice_items
        (id, customer, currency, subscription, price, kind, description, quantity, unit_amount, amount, period_start,
         period_end, created, discountable, tax_rates, metadata, invoice, belongs_to_invoice)
    VALUES (item_id, request ->> 'customer', item_currency, subscribed.id, charge.price, 'item', charge.description,
            charge.quantity, charge.unit_amount, charge.amount,
            coalesce((request #>> '{period,start}')::timestamptz, as_of),
            coalesce((request #>> '{period,end}')::timestamptz, as_of), as_of,
            coalesce((request ->> 'discountable')::boolean, true),
            billing.text_array(request -> 'tax_rates'),
            coalesce(request -> 'metadata', '{}'), draft.id, draft.id IS NOT NULL)
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'invoice item "%" exists already', item_id
            USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'invoice_items',
                  HINT = 'Change it with billing.update_invoice_item, or create one with another id.';
    END IF;
    IF draft.id IS NOT NULL THEN
        PERFORM billing.put_on_draft(ARRAY[item_id], draft.id);
        PERFORM billing.sum_up_draft(draft.id);
    END IF;
    RETURN item_id;
END $$;
COMMENT ON FUNCTION billing.create_invoice_item(jsonb, text, timestamptz) IS
'Adds an invoice item from Stripe''s JSON and returns its id. Fields: customer; amount, or quantity (default 1) of a
one-time price, unit_amount or unit_amount_decimal, negative ones give back; currency; invoice, a draft that takes it at
once, or subscription, whose next invoice does, or neither: the customer''s next invoice in this currency does;
description, discountable, metadata, period (default as_of), tax_rates. Errors: 23503 unknown customer, price or tax rate;
42704 unknown invoice or subscription; 55000 an invoice that is no draft, a subscription that has ended, an archived price
or tax rate; 22023 a field breaks a rule, another customer''s invoice or subscription, another currency, a recurring price;
54000 more than 250 on one invoice; 23505 the id exists; 22003 beyond bigint; 22P02 no JSON object; 22004 NULL.';

CREATE FUNCTION billing.lock_invoice_item(item text, as_of timestamptz) RETURNS billing.invoice_items
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.invoice_items;
    of_subscription text;
    of_invoice text;
BEGIN
    PERFORM billing.require_argument('item', item);
    PERFORM billing.require_time('as_of', as_of);
    -- In the order of all locks: its subscription, its invoice, itself. It may have been taken meanwhile.
    SELECT x.subscription, x.invoice INTO of_subscription, of_invoice
    FROM billing.invoice_items x WHERE x.id = lock_invoice_item.item;
    IF of_invoice IS NOT NULL THEN
        PERFORM billing.lock_draft(of_invoice, lock_invoice_item.as_of);
    ELSIF of_subscription IS NOT NULL THEN
        PERFORM billing.lock_subscription(of_subscription);
    END IF;
    SELECT x.* INTO found FROM billing.invoice_items x WHERE x.id = lock_invoice_item.item FOR UPDATE;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'invoice item "%" does not exist', item
            USING ERRCODE = 'undefined_object', HINT = 'See billing.invoice_items for the items there are.';
    ELSIF found.kind <> 'item' THEN
        RAISE EXCEPTION 'invoice item "%" is a proration of subscription "%" and cannot change',
                item, found.subscription
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Add another item that corrects it.';
    ELSIF found.invoice IS DISTINCT FROM of_invoice THEN
        RAISE EXCEPTION 'invoice item "%" was taken by invoice "%" meanwhile', item, found.invoice
            USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION billing.lock_invoice_item(text, timestamptz) IS
'Locks an invoice item that is to change, and the draft that carries it, and returns it. Errors: 42704 unknown; 55000 a
proration, or on an invoice that is no draft any more; 40001 taken by an invoice meanwhile; 22023 as_of infinite or
before the invoice; 22004 NULL. Internal.';

CREATE FUNCTION billing.update_invoice_item(item text, changes jsonb, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    request jsonb;
    found billing.invoice_items;
    charge record;
BEGIN
    PERFORM billing.require_argument('changes', changes);
    request := billing.normalised_bill('invoice_item_change', changes::text);
    found := billing.lock_invoice_item(update_invoice_item.item, update_invoice_item.as_of);
    PERFORM billing.require_tax_rates(billing.text_array(request -> 'tax_rates'));
    -- What it costs is said anew as a whole, or stays.
    IF request ?| '{amount,price,unit_amount,quantity}' THEN
        IF request ? 'quantity' AND NOT request ?| '{price,unit_amount}'
           AND found.price IS NULL AND found.unit_amount IS NULL THEN
            RAISE EXCEPTION 'quantity % for invoice item "%", whose amount was given', request ->> 'quantity', found.id
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Change the amount, or give a unit_amount too.';
        END IF;
        charge := billing.item_charge(
            CASE WHEN request ?| '{amount,price,unit_amount}' THEN '{}'
                 ELSE jsonb_strip_nulls(jsonb_build_object('price', found.price, 'unit_amount', found.unit_amount)) END
            || CASE WHEN request ?| '{amount,quantity}' THEN '{}'
                    ELSE jsonb_build_object('quantity', found.quantity) END
            || request, found.currency, as_of);
        UPDATE billing.invoice_items x
        SET price = charge.price, quantity = charge.quantity, unit_amount = charge.unit_amount, amount = charge.amount,
            -- Ours says the quantity; somebody else's stays.
            description = CASE WHEN request ? 'price' OR starts_with(x.description, x.quantity || ' × ')
                               THEN charge.description ELSE x.description END
        WHERE x.id = found.id;
    END IF;
    UPDATE billing.invoice_items x
    SET description = coalesce(request ->> 'description', x.description),
        discountable = coalesce((request ->> 'discountable')::boolean, x.discountable),
        period_start = coalesce((request #>> '{period,start}')::timestamptz, x.period_start),
        period_end = coalesce((request #>> '{period,end}')::timestamptz, x.period_end),
        tax_rates = CASE WHEN request ? 'tax_rates'
                         THEN billing.text_array(request -> 'tax_rates') ELSE x.tax_rates END,
        metadata = (SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}')
                    FROM jsonb_each(x.metadata || coalesce(request -> 'metadata', '{}')) m WHERE m.value <> '""')
    WHERE x.id = found.id;
    IF found.invoice IS NOT NULL THEN
        UPDATE billing.invoice_lines l
        SET price = x.price, description = x.description, quantity = x.quantity, amount = x.amount,
            period_start = x.period_start, period_end = x.period_end, discountable = x.discountable
        FROM billing.invoice_items x WHERE x.id = found.id AND l.invoice_item = x.id AND l.invoice = found.invoice;
        PERFORM billing.sum_up_draft(found.invoice);
    END IF;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.update_invoice_item(text, jsonb, timestamptz) IS
'Changes an invoice item that waits or is on a draft, and returns its id. Fields: amount, price, unit_amount,
unit_amount_decimal, quantity, description, discountable, metadata (merged; "" removes a key), period, tax_rates.
Errors: 42704 unknown; 55000 a proration, or on an invoice that is no draft any more; 40001 taken by an invoice meanwhile; 22023
a field breaks a rule; those of create_invoice_item for what it costs; 22P02 no JSON object; 22004 NULL.';

CREATE FUNCTION billing.delete_invoice_item(item text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.invoice_items := billing.lock_invoice_item(delete_invoice_item.item, delete_invoice_item.as_of);
BEGIN
    IF found.invoice IS NOT NULL THEN
        DELETE FROM billing.invoice_lines l WHERE l.invoice = found.invoice AND l.invoice_item = found.id;
    END IF;
    DELETE FROM billing.invoice_items x WHERE x.id = found.id;
    IF found.invoice IS NOT NULL THEN
        PERFORM billing.sum_up_draft(found.invoice);
    END IF;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.delete_invoice_item(text, timestamptz) IS
'Deletes an invoice item that waits or is on a draft, and returns its id. Errors: 42704 unknown; 55000 a proration, or
on an invoice that is no draft any more; 40001 taken by an invoice meanwhile; 22023 as_of infinite or before the invoice;
22004 NULL.';

CREATE FUNCTION billing.create_invoice(invoice jsonb, id text DEFAULT NULL, as_of timestamptz DEFAULT now())
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    request jsonb;
    invoice_id text := coalesce(create_invoice.id, billing.generate_id('in'));
    with_pending boolean;
    invoice_currency text;
    currencies text[];
    items text[];
BEGIN
    PERFORM billing.require_argument('invoice', invoice);
    PERFORM billing.require_time('as_of', as_of);
    request := billing.normalised_bill('invoice', invoice::text);
    IF NOT EXISTS (SELECT FROM billing.customers c WHERE c.id = request ->> 'customer') THEN
        RAISE EXCEPTION 'customer "%" does not exist', request ->> 'customer'
            USING ERRCODE = 'foreign_key_violation', HINT = 'Create it with billing.create_customer.';
    END IF;
    PERFORM billing.require_tax_rates(billing.text_array(r.ids))
    FROM (SELECT request -> 'default_tax_rates' UNION ALL
          SELECT l.value -> 'tax_rates' FROM jsonb_array_elements(request -> 'lines') l) r (ids);
    with_pending := coalesce(request ->> 'pending_invoice_items_behavior',
                             CASE WHEN request ? 'lines' THEN 'exclude' ELSE 'include' END) = 'include';
    invoice_currency := request ->> 'currency';
    IF invoice_currency IS NULL THEN
        SELECT array_agg(DISTINCT c.currency) INTO currencies FROM (
            SELECT x.currency FROM billing.invoice_items x
            WHERE with_pending AND x.customer = request ->> 'customer' AND x.subscription IS NULL
              AND x.invoice IS NULL AND x.created <= as_of
            UNION ALL
            SELECT p.currency FROM jsonb_array_elements(request -> 'lines') l
            JOIN billing.prices p ON p.id = l.value ->> 'price') c;
        IF cardinality(currencies) = 1 THEN
            invoice_currency := currencies[1];
        ELSE
            RAISE EXCEPTION 'currency is missing, and the items do not tell it: they are in %',
                    coalesce(nullif(array_to_string(currencies, ' and '), ''), 'none')
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Add "currency", such as "usd".';
        END IF;
    END IF;
    INSERT INTO billing.invoices
        (id, customer, currency, period_start, period_end, created, billing_reason, collection_method, auto_advance,
         days_until_due, default_tax_rates, description, metadata)
    VALUES (invoice_id, request ->> 'customer', invoice_currency, as_of, as_of, as_of, 'manual',
            coalesce(request ->> 'collection_method', 'charge_automatically'),
            coalesce((request ->> 'auto_advance')::boolean, false), (request ->> 'days_until_due')::integer,
            billing.text_array(request -> 'default_tax_rates'),
            request ->> 'description', coalesce(request -> 'metadata', '{}'))
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'invoice "%" exists already', invoice_id
            USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'invoices',
                  HINT = 'Create one with another id.';
    END IF;
    IF with_pending THEN
        -- What another session holds is being taken, or changed and waits on: a run takes items period by period, and to
        -- wait for one while holding another could deadlock with it.
        SELECT array_agg(d.id) INTO items FROM (
            SELECT x.id FROM billing.invoice_items x
            WHERE x.customer = request ->> 'customer' AND x.subscription IS NULL AND x.invoice IS NULL
              AND x.created <= as_of AND x.currency = invoice_currency
            ORDER BY x.id FOR NO KEY UPDATE SKIP LOCKED) d;
        IF items IS NOT NULL THEN
            PERFORM billing.take_items(items, array_fill(invoice_id, ARRAY[cardinality(items)]));
        END IF;
    END IF;
    WITH given AS (
        INSERT INTO billing.invoice_items
            (customer, currency, price, kind, description, quantity, unit_amount, amount, period_start, period_end,
             created, discountable, tax_rates, metadata, invoice, belongs_to_invoice)
        SELECT request ->> 'customer', invoice_currency, c.price, 'item', c.description, c.quantity, c.unit_amount,
               c.amount, coalesce((l.value #>> '{period,start}')::timestamptz, as_of),
               coalesce((l.value #>> '{period,end}')::timestamptz, as_of), as_of,
               coalesce((l.value ->> 'discountable')::boolean, true),
               billing.text_array(l.value -> 'tax_rates'), coalesce(l.value -> 'metadata', '{}'), invoice_id, true
        FROM jsonb_array_elements(request -> 'lines') WITH ORDINALITY l (value, place)
        CROSS JOIN LATERAL billing.item_charge(l.value, invoice_currency, as_of) c
        ORDER BY l.place
        RETURNING id
    )
    SELECT items || array_agg(g.id) INTO items FROM given g;
    PERFORM billing.put_on_draft(items, invoice_id);
    PERFORM billing.sum_up_draft(invoice_id);
    RETURN invoice_id;
END $$;
COMMENT ON FUNCTION billing.create_invoice(jsonb, text, timestamptz) IS
'Makes a one-off draft from Stripe''s JSON and returns its id. Fields: customer; lines, each as an invoice item;
currency (default: that of the items); pending_invoice_items_behavior, include or exclude the items of the customer that wait for
no subscription and that no other session holds (default: include them if there are no lines); auto_advance
(default false: generate_invoices leaves the draft alone), collection_method, days_until_due, default_tax_rates, description, metadata. Items that are added later
name the invoice. Errors: 23503 unknown customer, price or tax rate; 22023 a field breaks a rule, items of several currencies;
those of create_invoice_item; 23505 the id exists; 22P02 no JSON object; 22004 NULL.';

CREATE FUNCTION billing.delete_draft_invoice(invoice text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.invoices := billing.lock_draft(delete_draft_invoice.invoice, delete_draft_invoice.as_of);
BEGIN
    IF found.subscription IS NOT NULL THEN
        RAISE EXCEPTION 'invoice "%" is a draft of subscription "%", and only one-off drafts are deleted',
                found.id, found.subscription
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Finalize it, and void it if it is wrong.';
    ELSIF found.from_invoice IS NOT NULL THEN
        RAISE EXCEPTION 'invoice "%" is a draft that replaces void invoice "%"', found.id, found.from_invoice
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Finalize it, and void it if it is wrong.';
    END IF;
    DELETE FROM billing.invoice_lines l WHERE l.invoice = found.id;
    DELETE FROM billing.discounts x WHERE x.invoice = found.id;
    DELETE FROM billing.invoice_items x WHERE x.invoice = found.id AND x.belongs_to_invoice;
    UPDATE billing.invoice_items x SET invoice = NULL WHERE x.invoice = found.id;
    DELETE FROM billing.invoices i WHERE i.id = found.id;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.delete_draft_invoice(text, timestamptz) IS
'Deletes a one-off draft and returns its id. Items that were made for it go with it, and its discounts, though the coupons
stay redeemed; items that had waited wait again.
Errors: 42704 unknown; 55000 no draft, of a subscription, or in place of a void invoice; 22023 as_of before it or
infinite; 22004 NULL.';
