-- The invoice to come, from the same lines and ratings that the invoice itself will be made of.

CREATE FUNCTION billing.preview_period(subscription billing.subscriptions, as_of timestamptz)
RETURNS SETOF billing.invoice_lines
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    lines billing.invoice_lines[] := ARRAY(
        SELECT jsonb_populate_record(NULL::billing.invoice_lines,
                   '{"discount_amount": 0, "credit_amount": 0, "tax_amount": 0}' || to_jsonb(l))
        FROM billing.next_lines(ARRAY[(preview_period.subscription).id], preview_period.as_of) l
        ORDER BY l.section, l.created, l.sorted_by, l.period_start, l.price);
BEGIN
    IF EXISTS (SELECT FROM unnest(lines) l WHERE l.amount IS NULL) THEN
        RETURN QUERY SELECT l.* FROM unnest(lines) l;
    ELSE
        RETURN QUERY
        SELECT l.* FROM billing.adjusted_preview(
            preview_period.subscription, (preview_period.subscription).current_period_end, lines) l;
    END IF;
END $$;
COMMENT ON FUNCTION billing.preview_period(billing.subscriptions, timestamptz) IS
'The lines of the invoice that will end the current period of a subscription, with usage up to and including as_of. Internal.';

CREATE FUNCTION billing.preview_invoice(subscription text, as_of timestamptz DEFAULT now())
RETURNS SETOF billing.invoice_lines
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
    phase_at timestamptz;
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
    SELECT h.next_phase_at INTO phase_at FROM billing.subscription_schedules h
    WHERE h.id = found.schedule AND h.next_phase_at <= found.current_period_end
      -- After the last one the subscription goes on as it is, unless it ends.
      AND (h.phases -> h.current_phase + 1 IS NOT NULL OR h.end_behavior = 'cancel');
    IF phase_at IS NULL THEN
        RETURN QUERY SELECT l.* FROM billing.preview_period(found, as_of) l;
    ELSIF current_setting('transaction_read_only')::boolean
          OR NOT has_function_privilege('billing.preview_phase(text, timestamptz)', 'EXECUTE')
    THEN
        RAISE EXCEPTION 'the next invoice of subscription "%" is by the terms of a phase that begins at %', found.id, phase_at
            USING ERRCODE = CASE WHEN current_setting('transaction_read_only')::boolean THEN 'read_only_sql_transaction'
                                 ELSE 'insufficient_privilege' END,
                  HINT = 'Its preview begins the phase and undoes that: ask as billing_admin, where something can be written.';
    ELSE
        RETURN QUERY SELECT l.* FROM billing.preview_phase(found.id, as_of) l;
    END IF;
END $$;
COMMENT ON FUNCTION billing.preview_invoice(text, timestamptz) IS
'The lines that a subscription''s next invoice would have: of the first period not invoiced yet, whether it has ended
by as_of or runs. Usage counts up to and including as_of. Discounts, credit and tax are those that would apply; credit may
be shown by several previews until an invoice takes it. id and invoice are NULL; amount is NULL where it is beyond bigint, and
then nothing is adjusted. Writes nothing; only where a phase of a schedule begins by the end of the period it is begun and
that undone, which needs billing_admin. No rows when nothing is left to bill. Errors: 42704 unknown subscription; 22023 as_of
before that period or infinite; 22004 NULL; 42501, 25006 a phase begins and may not.';

CREATE FUNCTION billing.preview_phase(subscription text, as_of timestamptz) RETURNS SETOF billing.invoice_lines
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
    before text[];
    ends_at timestamptz;
    lines billing.invoice_lines[];
BEGIN
    BEGIN
        found := billing.lock_subscription(preview_phase.subscription);
        before := ARRAY(SELECT i.id FROM billing.invoices i WHERE i.subscription = found.id);
        LOOP
            ends_at := found.current_period_end;
            PERFORM billing.apply_due_changes(ends_at, found.id);
            lines := ARRAY(
                SELECT l FROM billing.invoice_lines l
                WHERE l.invoice = (SELECT i.id FROM billing.invoices i
                                   WHERE i.subscription = found.id AND i.id <> ALL (before)
                                   ORDER BY i.created, i.id LIMIT 1)
                ORDER BY l.id);
            EXIT WHEN lines <> '{}';
            SELECT s.* INTO found FROM billing.subscriptions s WHERE s.id = found.id AND s.next_invoice_at IS NOT NULL;
            -- A phase may move the end of the period, and another one begin by then.
            CONTINUE WHEN found.current_period_end > ends_at;
            lines := ARRAY(SELECT l FROM billing.preview_period(found, preview_phase.as_of) l);
            EXIT;
        END LOOP;
        RAISE EXCEPTION USING ERRCODE = 'BP001';
    EXCEPTION WHEN SQLSTATE 'BP001' THEN
        NULL;  -- The phase is undone; what it came to is not.
    END;
    RETURN QUERY
    SELECT p.* FROM unnest(lines) WITH ORDINALITY u
    CROSS JOIN LATERAL jsonb_populate_record(NULL::billing.invoice_lines, to_jsonb(u) - ARRAY['id', 'invoice', 'ordinality']) p
    ORDER BY u.ordinality;
END $$;
COMMENT ON FUNCTION billing.preview_phase(text, timestamptz) IS
'billing.preview_invoice() of a subscription of which a phase begins by the end of its current period: begins it, looks at the
first invoice after that, and undoes it. Internal.';

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
