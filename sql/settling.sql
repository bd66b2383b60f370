-- What happens to one invoice by hand: it is finalized early, paid, given up, voided or made anew.

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
    settled boolean := true;
BEGIN
    -- It waits for no run before it has what runs lock first: its caller may hold what that run waits for.
    IF EXISTS (SELECT FROM billing.invoices i
               WHERE i.id = finalize_invoice.invoice AND i.subscription IS NOT NULL)
    THEN
        settled := billing.try_lock_usage();
        PERFORM FROM billing.subscriptions s JOIN billing.invoices i ON i.subscription = s.id
        WHERE i.id = finalize_invoice.invoice FOR NO KEY UPDATE OF s;
    END IF;
    found := billing.lock_invoice(invoice, as_of);
    IF found.status = 'void' THEN
        RAISE EXCEPTION 'invoice "%" is void and cannot become open', invoice
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'A void invoice stays void.';
    ELSIF found.status = 'draft' THEN
        -- Whoever finalizes it by hand collects it, whether collection is paused or not, and it need not wait any more: the
        -- earliest such draft takes late usage.
        UPDATE billing.invoices i
        SET auto_advance = true,
            pause_behavior = CASE WHEN billing.pause_behavior(i, s) IS NOT NULL THEN 'none' END
        FROM billing.subscriptions s
        WHERE i.id = finalize_invoice.invoice AND s.id = i.subscription
          AND (NOT i.auto_advance OR billing.pause_behavior(i, s) <> 'none');
        PERFORM billing.rate_drafts(ARRAY[invoice]);
        SELECT i.* INTO found FROM billing.invoices i WHERE i.id = invoice;
        IF found.finalization_error IS NOT NULL THEN
            RAISE EXCEPTION 'invoice "%" cannot be finalized: %', invoice, found.finalization_error
                USING ERRCODE = 'numeric_value_out_of_range', HINT = 'Cancel the events that are wrong.';
        ELSIF found.line_count = 0 THEN
            RAISE EXCEPTION 'invoice "%" is draft and cannot become open: it has no lines', invoice
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Add some with billing.create_invoice_item, or delete it by billing.delete_draft_invoice.';
        END IF;
        IF settled THEN
            PERFORM billing.finalize_drafts(ARRAY[invoice], as_of);
        ELSE
            PERFORM billing.finalize_beside_folding(ARRAY[invoice], as_of);
        END IF;
    END IF;
    RETURN invoice;
END $$;
COMMENT ON FUNCTION billing.finalize_invoice(text, timestamptz) IS
'Finalizes a draft before its grace is over, or one that waits for a person, with the usage known now, and returns its id;
a pause of collection does nothing with it then. Usage that another session is just folding comes late. One that is final
already stays as it is. Errors: 42704 unknown; 55000 void, or without lines; 22003 an amount beyond bigint; 22023 as_of
before the invoice or infinite; 22004 NULL.';

CREATE FUNCTION billing.settle_invoice(invoice text, status text, as_of timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.invoices;
    owed bigint;
BEGIN
    IF settle_invoice.status = 'paid' THEN
        -- Subscriptions are locked before their invoices, here as everywhere.
        PERFORM FROM billing.subscriptions s JOIN billing.invoices i ON i.subscription = s.id
        WHERE i.id = settle_invoice.invoice FOR NO KEY UPDATE OF s;
    END IF;
    found := billing.lock_invoice(settle_invoice.invoice, settle_invoice.as_of);
    -- Again is refused here, where the table's trigger would let an update that changes nothing pass.
    IF found.status = settle_invoice.status THEN
        RAISE EXCEPTION 'invoice "%" is % and cannot become % again', found.id, found.status, found.status
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Nothing is left to do.';
    END IF;
    IF settle_invoice.status = 'void' THEN
        -- With the invoice goes what was taken off it.
        UPDATE billing.credit_notes n SET status = 'void', voided_at = settle_invoice.as_of
        WHERE n.invoice = found.id AND n.status = 'issued' AND found.status IN ('open', 'uncollectible');
    END IF;
    UPDATE billing.invoices i
    SET status = settle_invoice.status,
        paid_at = CASE settle_invoice.status WHEN 'paid' THEN settle_invoice.as_of END,
        amount_paid = CASE settle_invoice.status WHEN 'paid' THEN i.amount_remaining ELSE 0 END,
        pre_payment_credit_notes_amount = CASE settle_invoice.status
            WHEN 'void' THEN 0 ELSE i.pre_payment_credit_notes_amount END,
        voided_at = CASE settle_invoice.status WHEN 'void' THEN settle_invoice.as_of END,
        marked_uncollectible_at = CASE settle_invoice.status
            WHEN 'uncollectible' THEN settle_invoice.as_of ELSE i.marked_uncollectible_at END
    WHERE i.id = found.id;
    IF settle_invoice.status = 'paid' THEN
        PERFORM billing.invoice_was_paid(found.id, settle_invoice.as_of);
    ELSIF settle_invoice.status = 'void' THEN
        -- Discounts and grants are locked before customers, here as everywhere.
        owed := billing.reinstate_credits(found.id, settle_invoice.as_of);
        IF owed > 0 THEN
            PERFORM billing.change_customer_balance(found.customer, found.currency, owed, 'credit_repaid', found.id, NULL,
                                                    NULL, settle_invoice.as_of);
        END IF;
        PERFORM billing.change_customer_balance(t.customer, t.currency, -t.amount, 'unapplied_from_invoice', t.invoice,
                                                NULL, NULL, settle_invoice.as_of)
        FROM billing.customer_balance_transactions t WHERE t.invoice = found.id AND t.type = 'applied_to_invoice';
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
it had used goes back to the customer''s balance; its credit notes become void; it keeps its number. Errors: 42704
unknown; 55000 draft, paid or void; 22023 as_of before the invoice or infinite; 22004 NULL.';

CREATE FUNCTION billing.regenerate_invoice(invoice text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    old billing.invoices;
    made text;
    correction text;
BEGIN
    PERFORM billing.lock_usage();
    -- Written, so that a REPEATABLE READ run that does not see the new draft, which takes late usage from then on, raises
    -- 40001.
    UPDATE billing.subscriptions s SET metadata = s.metadata
    FROM billing.invoices i WHERE i.id = regenerate_invoice.invoice AND s.id = i.subscription;
    old := billing.lock_invoice(regenerate_invoice.invoice, regenerate_invoice.as_of);
    IF old.status IN ('open', 'uncollectible') THEN
        -- Before the other is void, so that credit which comes back and has expired since waits for it; what it is for is
        -- said below, as each period is invoiced once.
        INSERT INTO billing.invoices
            (customer, subscription, currency, period_start, period_end, created, billing_reason, collection_method,
             auto_advance, days_until_due, default_tax_rates, description, metadata, from_invoice, pause_behavior)
        VALUES (old.customer, old.subscription, old.currency, old.period_start, old.period_end,
                -- After any other draft: the earliest one may have taken late usage already, and marks are kept for it.
                greatest(regenerate_invoice.as_of,
                         (SELECT max(i.created) + interval '1 microsecond' FROM billing.invoices i
                          WHERE i.subscription = old.subscription AND i.status = 'draft')),
                CASE WHEN old.subscription IS NULL THEN 'manual' ELSE 'subscription_update' END, old.collection_method,
                coalesce((SELECT billing.advances(s, regenerate_invoice.as_of) FROM billing.subscriptions s
                          WHERE s.id = old.subscription), old.auto_advance),
                -- By what its subscription says now, or else as the old one was.
                CASE WHEN old.subscription IS NULL THEN old.days_until_due
                     WHEN (SELECT s.days_until_due FROM billing.subscriptions s WHERE s.id = old.subscription) IS NULL
                     THEN round(extract(epoch FROM old.due_date - old.finalized_at) / 86400)::integer END,
                CASE WHEN old.subscription IS NULL THEN old.default_tax_rates END, old.description, old.metadata, old.id,
                -- What was asked for is asked for anew, though collection is paused meanwhile.
                CASE WHEN old.subscription IS NOT NULL THEN 'none' END)
        RETURNING id INTO made;
    END IF;
    PERFORM billing.settle_invoice(old.id, 'void', regenerate_invoice.as_of);
    IF old.billing_reason = 'subscription_threshold' THEN
        RAISE EXCEPTION 'invoice "%" is of a billing threshold, which the period''s own invoice goes on from', old.id
            USING ERRCODE = 'feature_not_supported', HINT = 'Void it, or correct it by a credit note.';
    END IF;
    -- The credit of that would be neither the void invoice's nor the new one's.
    SELECT c.invoice INTO correction
    FROM billing.invoice_lines l
    JOIN billing.invoice_lines c
      ON (c.subscription_item, c.price, c.period_start) = (l.subscription_item, l.price, l.period_start)
     AND c.kind IN ('usage', 'late_usage') AND c.credit_amount < 0 AND c.invoice <> l.invoice
    JOIN billing.invoices i ON i.id = c.invoice AND i.status NOT IN ('draft', 'void')
    WHERE l.invoice = old.id AND l.kind = 'usage'
    ORDER BY c.invoice LIMIT 1;
    IF correction IS NOT NULL THEN
        RAISE EXCEPTION 'invoice "%" cannot be made anew: invoice "%" has given back usage of it that credit had paid for',
                old.id, correction
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Correct it by a credit note.';
    END IF;
    UPDATE billing.invoices i SET regenerated_as = made WHERE i.id = old.id;
    UPDATE billing.invoices i SET billing_reason = old.billing_reason WHERE i.id = made;
    -- Usage is rated anew; late usage of earlier periods is found anew, so it must be looked for again.
    INSERT INTO billing.late_usage_marks (subscription, event_name, day, invoiced)
    SELECT DISTINCT old.subscription, p.meter, date_trunc('day', l.period_start, 'UTC'), true
    FROM billing.invoice_lines l JOIN billing.prices p ON p.id = l.price
    WHERE l.invoice = old.id AND l.kind = 'late_usage'
    ON CONFLICT DO NOTHING;
    INSERT INTO billing.invoice_lines
        (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end, proration,
         discountable, invoice_item)
    SELECT made, l.subscription_item, l.price, l.kind, l.description,
           CASE l.kind WHEN 'usage' THEN 0 ELSE l.quantity END,
           CASE l.kind WHEN 'usage' THEN 0 ELSE l.amount END, l.period_start, l.period_end, l.proration,
           l.discountable, l.invoice_item
    FROM billing.invoice_lines l
    WHERE l.invoice = old.id AND l.kind <> 'late_usage'
    ORDER BY l.id;
    UPDATE billing.invoice_items x SET invoice = made WHERE x.invoice = old.id;
    -- Redeemed once, for the one as for the other; the void invoice keeps its own.
    INSERT INTO billing.discounts (coupon, customer, invoice, places, placed_at, start_at, created)
    SELECT x.coupon, x.customer, made, ARRAY[x.place], ARRAY[regenerate_invoice.as_of], regenerate_invoice.as_of,
           regenerate_invoice.as_of
    FROM billing.discounts x WHERE x.invoice = old.id AND x.ended_at IS NULL
    ORDER BY x.place, x.id;
    PERFORM billing.rate_drafts(ARRAY[made]);
    RETURN made;
END $$;
COMMENT ON FUNCTION billing.regenerate_invoice(text, timestamptz) IS
'Voids an open or uncollectible invoice and makes a draft in its place, whose id it returns: with the same lines and
discounts of its own, but usage rated anew with what is known now. What the void invoice billed counts as never billed.
Errors: 42704 unknown; 55000 draft, paid or void, or another invoice has given back usage of it with the credit that had
paid for it; 0A000 a threshold''s; 22023 as_of before the invoice or infinite; 22004 NULL.';

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
