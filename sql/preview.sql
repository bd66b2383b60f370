-- The invoice to come, from the same lines and ratings that the invoice itself will be made of.

CREATE FUNCTION billing.preview_invoice(subscription text, as_of timestamptz DEFAULT now())
RETURNS SETOF billing.invoice_lines
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
    lines billing.invoice_lines[];
BEGIN
    PERFORM billing.require_argument('subscription', preview_invoice.subscription);
    PERFORM billing.require_time('as_of', as_of);
    SELECT s.* INTO found FROM billing.subscriptions s WHERE s.id = preview_invoice.subscription;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'subscription "%" does not exist', preview_invoice.subscription
            USING ERRCODE = 'undefined_object', HINT = 'See billing.subscriptions for the subscriptions there are.';
    ELSIF found.next_invoice_at IS NULL THEN
        RETURN;
    ELSIF as_of < found.current_period_start THEN
        RAISE EXCEPTION 'as_of % is before the next period to be invoiced of subscription "%", which starts at %',
                as_of, found.id, found.current_period_start
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Earlier periods are in billing.invoices.';
    END IF;
    lines := ARRAY(
        SELECT jsonb_populate_record(NULL::billing.invoice_lines,
                   '{"discount_amount": 0, "credit_amount": 0, "tax_amount": 0}' || to_jsonb(l))
        FROM billing.next_lines(ARRAY[found.id], as_of) l
        ORDER BY l.section, l.created, l.sorted_by, l.period_start, l.price);
    IF EXISTS (SELECT FROM unnest(lines) l WHERE l.amount IS NULL) THEN
        RETURN QUERY SELECT l.* FROM unnest(lines) l;
    ELSE
        RETURN QUERY SELECT l.* FROM billing.adjusted_preview(found, found.current_period_end, lines) l;
    END IF;
END $$;
COMMENT ON FUNCTION billing.preview_invoice(text, timestamptz) IS
'The lines that a subscription''s next invoice would have: of the first period not invoiced yet, whether it has ended
by as_of or runs. Usage counts up to and including as_of. Discounts, credit and tax are those that would apply; credit may
be shown by several previews until an invoice takes it. id and invoice are NULL; amount is NULL where it is beyond bigint, and
then nothing is adjusted. Writes nothing. No rows when nothing is left to bill. Errors: 42704 unknown subscription; 22023 as_of before
that period or infinite; 22004 NULL.';

CREATE FUNCTION billing.preview_change(
    subscription text, changes jsonb, at_period_end boolean, invoice_now boolean, prorate boolean, as_of timestamptz
) RETURNS SETOF billing.invoice_lines
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    before text[];
    made billing.invoice_lines[];
    next billing.invoice_lines[];
BEGIN
    BEGIN
        before := ARRAY(SELECT i.id FROM billing.invoices i WHERE i.subscription = preview_change.subscription);
        IF preview_change.changes IS NULL THEN
            PERFORM billing.cancel_subscription(
                preview_change.subscription, preview_change.at_period_end, preview_change.as_of,
                preview_change.invoice_now, preview_change.prorate);
        ELSE
            PERFORM billing.update_subscription(
                preview_change.subscription, preview_change.changes, preview_change.as_of);
        END IF;
        made := ARRAY(
            SELECT l FROM billing.invoices i JOIN billing.invoice_lines l ON l.invoice = i.id
            WHERE i.subscription = preview_change.subscription AND i.id <> ALL (before)
            ORDER BY i.created, i.id, l.id);
        next := ARRAY(SELECT p FROM billing.preview_invoice(preview_change.subscription, preview_change.as_of) p);
        RAISE EXCEPTION USING ERRCODE = 'BP001';
    EXCEPTION WHEN SQLSTATE 'BP001' THEN
        NULL;  -- The change is undone; what it came to is not.
    END;
    RETURN QUERY SELECT l.* FROM unnest(made || next) l;
END $$;
COMMENT ON FUNCTION billing.preview_change(text, jsonb, boolean, boolean, boolean, timestamptz) IS
'Makes a change of a subscription (or cancels it, where changes is NULL), looks at what it comes to, and undoes it: by the code
of the change itself, so that a preview and what follows it cannot differ. Internal.';

CREATE FUNCTION billing.preview_update(subscription text, changes jsonb, as_of timestamptz DEFAULT now())
RETURNS SETOF billing.invoice_lines
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM billing.require_argument('changes', changes);
    RETURN QUERY SELECT l.* FROM billing.preview_change(subscription, changes, NULL, NULL, NULL, as_of) l;
END $$;
COMMENT ON FUNCTION billing.preview_update(text, jsonb, timestamptz) IS
'What billing.update_subscription with the same arguments would come to, without making the change: the lines of the invoices
that it would make at once (invoice is set), then those of the next invoice (invoice is NULL), as billing.preview_invoice
shows them. Holds the subscription''s lock only while it runs. Errors: those of billing.update_subscription.';

CREATE FUNCTION billing.preview_cancel(
    subscription text, at_period_end boolean DEFAULT false, as_of timestamptz DEFAULT now(),
    invoice_now boolean DEFAULT false, prorate boolean DEFAULT false
) RETURNS SETOF billing.invoice_lines
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT l.* FROM billing.preview_change(subscription, NULL, at_period_end, invoice_now, prorate, as_of) l;
END;
COMMENT ON FUNCTION billing.preview_cancel(text, boolean, timestamptz, boolean, boolean) IS
'What billing.cancel_subscription with the same arguments would come to, as billing.preview_update shows a change. Errors: those
of billing.cancel_subscription.';
