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
    SELECT (jsonb_populate_record(NULL::billing.invoice_lines,
                '{"discount_amount": 0, "credit_amount": 0, "tax_amount": 0}' || to_jsonb(l))).*
    FROM billing.next_lines(ARRAY[found.id], as_of) l
    ORDER BY l.section, l.created, l.sorted_by, l.period_start, l.price;
END $$;
COMMENT ON FUNCTION billing.preview_invoice(text, timestamptz) IS
'The lines that a subscription''s next invoice would have: of the first period not invoiced yet, whether it has ended
by as_of or runs. Usage counts up to and including as_of. id and invoice are NULL; amount is NULL where it is beyond
bigint. Writes nothing. No rows when nothing is left to bill. Errors: 42704 unknown subscription; 22023 as_of before
that period or infinite; 22004 NULL.';
