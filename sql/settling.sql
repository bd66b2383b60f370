-- What happens to one invoice by hand: it is finalized early, paid, given up or voided.

CREATE FUNCTION billing.lock_invoice(invoice text, as_of timestamptz) RETURNS billing.invoices
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found billing.invoices;
BEGIN
    PERFORM billing.require_argument('invoice', invoice);
    PERFORM billing.require_time('as_of', as_of);
    SELECT i.* INTO found FROM billing.invoices i WHERE i.id = invoice FOR NO KEY UPDATE;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'invoice "%" does not exist', invoice
            USING ERRCODE = 'undefined_object', HINT = 'See billing.invoices for the invoices there are.';
    ELSIF as_of < coalesce(found.finalized_at, found.created) THEN
        RAISE EXCEPTION 'as_of % is before invoice "%", which is of %',
                as_of, invoice, coalesce(found.finalized_at, found.created)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass a later as_of.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION billing.lock_invoice(text, timestamptz) IS
'Locks an invoice that is to change at as_of until the transaction ends and returns it. Errors: 42704 unknown; 22023
as_of before the invoice or infinite; 22004 NULL. Internal.';

CREATE FUNCTION billing.finalize_invoice(invoice text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found billing.invoices;
BEGIN
    PERFORM FROM billing.subscriptions s JOIN billing.invoices i ON i.subscription = s.id
    WHERE i.id = finalize_invoice.invoice FOR NO KEY UPDATE OF s;
    found := billing.lock_invoice(invoice, as_of);
    IF found.status = 'void' THEN
        RAISE EXCEPTION 'invoice "%" is void and cannot become open', invoice
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'A void invoice stays void.';
    ELSIF found.status = 'draft' THEN
        PERFORM billing.rate_drafts(ARRAY[invoice]);
        SELECT i.* INTO found FROM billing.invoices i WHERE i.id = invoice;
        IF found.finalization_error IS NOT NULL THEN
            RAISE EXCEPTION 'invoice "%" cannot be finalized: %', invoice, found.finalization_error
                USING ERRCODE = 'numeric_value_out_of_range', HINT = 'Cancel the events that are wrong.';
        END IF;
        PERFORM billing.finalize_drafts(ARRAY[invoice], as_of);
    END IF;
    RETURN invoice;
END $$;
COMMENT ON FUNCTION billing.finalize_invoice(text, timestamptz) IS
'Finalizes a draft before its grace is over, with the usage known now, and returns its id. One that is final already
stays as it is. Errors: 42704 unknown; 55000 void; 22003 an amount beyond bigint; 22023 as_of before the invoice or
infinite; 22004 NULL.';

CREATE FUNCTION billing.settle_invoice(invoice text, status text, as_of timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.invoices := billing.lock_invoice(settle_invoice.invoice, settle_invoice.as_of);
BEGIN
    -- Again is refused here, where the table's trigger would let an update that changes nothing pass.
    IF found.status = settle_invoice.status THEN
        RAISE EXCEPTION 'invoice "%" is % and cannot become % again', found.id, found.status, found.status
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Nothing is left to do.';
    END IF;
    UPDATE billing.invoices i
    SET status = settle_invoice.status,
        paid_at = CASE settle_invoice.status WHEN 'paid' THEN settle_invoice.as_of END,
        amount_paid = CASE settle_invoice.status WHEN 'paid' THEN i.amount_remaining ELSE 0 END,
        voided_at = CASE settle_invoice.status WHEN 'void' THEN settle_invoice.as_of END,
        marked_uncollectible_at = CASE settle_invoice.status
            WHEN 'uncollectible' THEN settle_invoice.as_of ELSE i.marked_uncollectible_at END
    WHERE i.id = found.id;
    IF settle_invoice.status = 'void' THEN
        INSERT INTO billing.customer_balance_transactions (customer, currency, amount, type, invoice, created)
        SELECT t.customer, t.currency, -t.amount, 'unapplied_from_invoice', t.invoice, settle_invoice.as_of
        FROM billing.customer_balance_transactions t WHERE t.invoice = found.id;
    END IF;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.settle_invoice(text, text, timestamptz) IS
'Moves a finalized invoice to paid, void or uncollectible and returns its id. Errors: 42704 unknown; 55000 forbidden
change, naming both states; 22023 as_of before the invoice or infinite; 22004 NULL. Internal.';

CREATE FUNCTION billing.void_invoice(invoice text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN billing.settle_invoice(invoice, 'void', as_of);
COMMENT ON FUNCTION billing.void_invoice(text, timestamptz) IS
'Voids an open or uncollectible invoice and returns its id: what it asked for is waived and not billed again; credit
it had used goes back to the customer''s balance; it keeps its number. Errors: 42704 unknown; 55000 draft, paid or
void; 22023 as_of before the invoice or infinite; 22004 NULL.';

CREATE FUNCTION billing.mark_invoice_paid(invoice text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN billing.settle_invoice(invoice, 'paid', as_of);
COMMENT ON FUNCTION billing.mark_invoice_paid(text, timestamptz) IS
'Notes that an open or uncollectible invoice was paid at as_of and returns its id. Errors: 42704 unknown; 55000 draft,
paid or void; 22023 as_of before the invoice or infinite; 22004 NULL.';

CREATE FUNCTION billing.mark_invoice_uncollectible(invoice text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN billing.settle_invoice(invoice, 'uncollectible', as_of);
COMMENT ON FUNCTION billing.mark_invoice_uncollectible(text, timestamptz) IS
'Notes that an open invoice will not be paid and returns its id; it may still be paid or voided. Errors: 42704
unknown; 55000 not open; 22023 as_of before the invoice or infinite; 22004 NULL.';
