-- The invoice to come, from the same lines and ratings that the invoice itself will be made of.

CREATE FUNCTION billing.preview_invoice(subscription text, as_of timestamptz DEFAULT now())
RETURNS SETOF billing.invoice_lines
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
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
    RETURN QUERY
    SELECT NULL::text, NULL::text, l.subscription_item, l.price, l.description,
           CASE l.kind WHEN 'usage' THEN r.quantity ELSE l.quantity END,
           CASE l.kind WHEN 'usage' THEN r.amount ELSE l.amount END,
           l.period_start, l.period_end, l.proration, l.kind, r.usage_state,
           0::bigint, 0::bigint, 0::bigint, NULL::jsonb, NULL::jsonb, NULL::jsonb, true, NULL::text
    FROM billing.cycle_lines(found) WITH ORDINALITY
        AS l (subscription_item, price, description, quantity, amount, period_start, period_end, proration, kind, place)
    -- Only usage is rated, up to and with as_of, so that what the caller has just recorded, in the same transaction
    -- too, is in it.
    -- A licensed line's period may not have begun: OFFSET keeps the planner from rating first.
    LEFT JOIN LATERAL (
        SELECT q.* FROM (SELECT l.price AS of_price WHERE l.kind = 'usage' OFFSET 0) u
        CROSS JOIN LATERAL billing.rated_usage(
            u.of_price, found.customer, l.period_start, least(l.period_end, as_of + interval '1 microsecond')) q
    ) r ON true
    ORDER BY l.place;
    RETURN QUERY
    SELECT NULL::text, NULL::text, l.subscription_item, l.price, l.description, l.quantity, l.amount,
           l.period_start, l.period_end, false, 'late_usage', l.usage_state,
           0::bigint, 0::bigint, 0::bigint, NULL::jsonb, NULL::jsonb, NULL::jsonb, true, NULL::text
    FROM billing.subscription_items i
    JOIN billing.prices p ON p.id = i.price AND p.usage_type = 'metered'
    CROSS JOIN LATERAL billing.late_usage_of_item(i.id) l
    WHERE i.subscription = found.id
    ORDER BY i.created, i.id, l.period_start;
END $$;
COMMENT ON FUNCTION billing.preview_invoice(text, timestamptz) IS
'The lines that a subscription''s next invoice would have: of the first period not invoiced yet, whether it has ended
by as_of or runs. Usage counts up to and including as_of. id and invoice are NULL; amount is NULL where it is beyond
bigint. Writes nothing. No rows when nothing is left to bill. Errors: 42704 unknown subscription; 22023 as_of before
that period or infinite; 22004 NULL.';
