-- Crediting: from what is to be taken off an invoice to a credit note, line by line.

CREATE FUNCTION billing.share(total bigint, part bigint, whole bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
-- Of a numerator and a positive denominator floor(n / d + 1/2), in whole numbers: a division would round first.
RETURN (SELECT (div(q.n, q.d) - CASE WHEN mod(q.n, q.d) < 0 THEN 1 ELSE 0 END)::bigint
        FROM (SELECT (2 * total::numeric * part + whole) * sign(whole::numeric), 2 * abs(whole::numeric)) q (n, d));
COMMENT ON FUNCTION billing.share(bigint, bigint, bigint) IS
'total × part / whole, rounded to a whole number, halves up. Shares of one total by growing parts never fall, and the
last one is all of it. Internal.';

CREATE FUNCTION billing.creditable_lines(invoice text)
RETURNS TABLE (invoice_line text, description text, line_amount bigint, credited bigint, amount bigint,
               discount_amount bigint, credit_grant_amount bigint, tax_amount bigint, exclusive_tax_amount bigint,
               net numeric)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT r.id, r.description, r.line_amount, r.credited, r.amount, r.discount, r.credit_grant, r.tax, r.exclusive_tax,
           r.amount::numeric - r.discount - r.credit_grant + r.exclusive_tax
    FROM (SELECT l.id, l.description, l.amount AS line_amount, coalesce(c.amount, 0) AS credited,
                 l.amount - coalesce(c.amount, 0) AS amount,
                 l.discount_amount - coalesce(c.discount_amount, 0) AS discount,
                 l.credit_amount - coalesce(c.credit_grant_amount, 0) AS credit_grant,
                 l.tax_amount - coalesce(c.tax_amount, 0) AS tax,
                 CASE WHEN l.taxes IS NULL THEN 0 ELSE billing.exclusive_tax(l.taxes) END
                     - coalesce(c.exclusive_tax_amount, 0) AS exclusive_tax
          FROM billing.invoice_lines l
          LEFT JOIN billing.credited_lines(creditable_lines.invoice) c ON c.invoice_line = l.id
          WHERE l.invoice = creditable_lines.invoice) r
    ORDER BY r.id;
END;
COMMENT ON FUNCTION billing.creditable_lines(text) IS
'What is left to credit of each line of an invoice, with its discounts, credits and taxes; net is what that is in money.
line_amount is the line''s whole amount, credited what was taken off it. Internal.';

CREATE FUNCTION billing.credit_lines(invoice text, lines jsonb) RETURNS SETOF billing.credit_note_lines
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    wrong record;
BEGIN
    SELECT g.line, g.amount, c.line_amount, c.amount AS remaining, count(*) OVER (PARTITION BY g.line) AS times
    INTO wrong
    FROM (SELECT l.value ->> 'invoice_line_item' AS line, (l.value ->> 'amount')::bigint AS amount
          FROM jsonb_array_elements(credit_lines.lines) l) g
    LEFT JOIN billing.creditable_lines(credit_lines.invoice) c ON c.invoice_line = g.line
    ORDER BY c.invoice_line IS NOT NULL, times DESC,
             g.amount <> 0 AND g.amount BETWEEN least(c.amount, 0) AND greatest(c.amount, 0), g.line
    LIMIT 1;
    IF wrong.line IS NULL THEN
        RAISE EXCEPTION 'a credit note without lines'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give lines, or an amount for the whole invoice.';
    ELSIF wrong.line_amount IS NULL THEN
        RAISE EXCEPTION 'invoice "%" has no line "%"', invoice, wrong.line
            USING ERRCODE = 'undefined_object', HINT = 'See billing.invoice_lines.';
    ELSIF wrong.times > 1 THEN
        RAISE EXCEPTION 'line "%" is in lines more than once', wrong.line
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give what is to be credited of it once.';
    ELSIF wrong.amount = 0 OR wrong.amount NOT BETWEEN least(wrong.remaining, 0) AND greatest(wrong.remaining, 0) THEN
        RAISE EXCEPTION 'amount % for line "%", of which % of % are left to credit',
                wrong.amount, wrong.line, wrong.remaining, wrong.line_amount
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Give an amount between 0 and what is left, before discounts and exclusive taxes.';
    END IF;
    -- By all that is credited of the line so far, so that crediting the rest credits all of its discounts and taxes.
    RETURN QUERY
    SELECT NULL::text, NULL::text, c.invoice_line, c.description, g.amount, s.discount, s.credit_grant,
           s.exclusive_tax + s.inclusive_tax, s.exclusive_tax
    FROM jsonb_array_elements(credit_lines.lines) WITH ORDINALITY l (value, place)
    CROSS JOIN LATERAL (SELECT (l.value ->> 'amount')::bigint) g (amount)
    JOIN billing.creditable_lines(credit_lines.invoice) c ON c.invoice_line = l.value ->> 'invoice_line_item'
    CROSS JOIN LATERAL (SELECT billing.share(c.discount_amount, g.amount, c.amount),
                               billing.share(c.credit_grant_amount, g.amount, c.amount),
                               billing.share(c.exclusive_tax_amount, g.amount, c.amount),
                               billing.share(c.tax_amount - c.exclusive_tax_amount, g.amount, c.amount)
                       ) s (discount, credit_grant, exclusive_tax, inclusive_tax)
    ORDER BY l.place;
END $$;
COMMENT ON FUNCTION billing.credit_lines(text, jsonb) IS
'The lines of a credit note that credits given amounts of lines, with their shares of discounts, credits and taxes.
Errors: 42704 unknown line; 22023 no line, a line twice, more than is left of one. Internal.';

CREATE FUNCTION billing.credit_lines_of_amount(invoice text, amount bigint) RETURNS SETOF billing.credit_note_lines
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH parts AS (
        -- The amount by what is left of each line; a line below zero takes its part off the others.
        SELECT c.*, billing.share(credit_lines_of_amount.amount, (sum(c.net) OVER w)::bigint,
                                  (sum(c.net) OVER ())::bigint)
                    - billing.share(credit_lines_of_amount.amount, (sum(c.net) OVER w - c.net)::bigint,
                                    (sum(c.net) OVER ())::bigint) AS part
        FROM billing.creditable_lines(credit_lines_of_amount.invoice) c WINDOW w AS (ORDER BY c.invoice_line)
    ), taxed AS (
        -- Exclusive tax first, within what leaves the rest of the line enough to be taken from.
        SELECT p.*, (p.net - p.exclusive_tax_amount)::bigint AS untaxed,
               CASE WHEN p.net > 0
                    THEN greatest(least(s.tax, p.part), p.part - (p.net - p.exclusive_tax_amount)::bigint)
                    ELSE least(greatest(s.tax, p.part), p.part - (p.net - p.exclusive_tax_amount)::bigint) END AS tax
        FROM parts p
        CROSS JOIN LATERAL (SELECT billing.share(p.exclusive_tax_amount, p.part, p.net::bigint)) s (tax)
        WHERE p.part <> 0
    ), shared AS (
        SELECT t.*, t.part - t.tax AS rest,
               CASE WHEN t.untaxed = 0 THEN 0
                    ELSE billing.share(t.discount_amount, t.part - t.tax, t.untaxed) END AS discount,
               CASE WHEN t.untaxed = 0 THEN 0
                    ELSE billing.share(t.credit_grant_amount, t.part - t.tax, t.untaxed) END AS credit_grant,
               CASE WHEN t.untaxed = 0 THEN 0
                    ELSE billing.share(t.tax_amount - t.exclusive_tax_amount, t.part - t.tax, t.untaxed)
               END AS inclusive_tax
        FROM taxed t
    )
    SELECT NULL, NULL, s.invoice_line, s.description, s.rest + s.discount + s.credit_grant, s.discount, s.credit_grant,
           s.tax + s.inclusive_tax, s.tax
    FROM shared s ORDER BY s.invoice_line;
END;
COMMENT ON FUNCTION billing.credit_lines_of_amount(text, bigint) IS
'The lines of a credit note that credits an amount, taxes included, of a whole invoice: each line by what is left of it.
The amount is at most what is left in all. Internal.';

CREATE FUNCTION billing.create_credit_note(credit_note jsonb, id text DEFAULT NULL, as_of timestamptz DEFAULT now())
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    request jsonb;
    found billing.invoices;
    note_id text := coalesce(create_credit_note.id, billing.generate_id('cn'));
    remaining bigint;
    lines billing.credit_note_lines[];
    sums record;
    pre bigint;
    post bigint;
    refund bigint;
    credit bigint;
    out_of_band bigint;
    refunded bigint;
    notes bigint;
BEGIN
    PERFORM billing.require_argument('credit_note', credit_note);
    request := billing.normalised_bill('credit_note', credit_note::text);
    found := billing.lock_invoice(request ->> 'invoice', as_of);
    IF found.status NOT IN ('open', 'paid') THEN
        RAISE EXCEPTION 'invoice "%" is %, and only open or paid ones are credited', found.id, found.status
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = CASE found.status WHEN 'draft' THEN 'Change the draft itself.'
                         ELSE 'What is not asked for need not be credited.' END;
    END IF;
    remaining := greatest(found.total, 0)
        - found.pre_payment_credit_notes_amount - found.post_payment_credit_notes_amount;
    IF request ? 'lines' THEN
        lines := ARRAY(SELECT l FROM billing.credit_lines(found.id, request -> 'lines') l);
    ELSIF (request ->> 'amount')::bigint NOT BETWEEN 1 AND remaining THEN
        RAISE EXCEPTION 'amount % for invoice "%", of which % of % are left to credit',
                request ->> 'amount', found.id, remaining, found.total
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Credit notes take off at most the total.';
    ELSE
        lines := ARRAY(SELECT l FROM billing.credit_lines_of_amount(found.id, (request ->> 'amount')::bigint) l);
    END IF;
    SELECT sum(l.amount) AS subtotal, sum(l.discount_amount) AS discount, sum(l.credit_grant_amount) AS credit_grant,
           sum(l.tax_amount) AS tax, sum(l.exclusive_tax_amount) AS exclusive_tax,
           sum(l.amount) - sum(l.discount_amount) - sum(l.credit_grant_amount) + sum(l.exclusive_tax_amount) AS amount
    INTO sums FROM unnest(lines) l;
    IF sums.amount NOT BETWEEN 1 AND remaining THEN
        RAISE EXCEPTION 'lines of % in all for invoice "%", of which % of % are left to credit',
                sums.amount, found.id, remaining, found.total
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Credit notes take off at most the total.';
    END IF;

    pre := least(CASE found.status WHEN 'open' THEN found.amount_remaining ELSE 0 END, sums.amount);
    post := sums.amount - pre;
    refund := coalesce((request ->> 'refund_amount')::bigint, 0);
    credit := coalesce((request ->> 'credit_amount')::bigint, 0);
    out_of_band := coalesce((request ->> 'out_of_band_amount')::bigint, 0);
    IF refund::numeric + credit + out_of_band <> post THEN
        RAISE EXCEPTION 'refund_amount, credit_amount and out_of_band_amount are % in all, and % go beyond what is left to pay',
                refund::numeric + credit + out_of_band, post
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Say how what was paid is given back.';
    END IF;
    SELECT count(*), coalesce(sum(n.refund_amount), 0) INTO notes, refunded
    FROM billing.credit_notes n WHERE n.invoice = found.id;
    IF refund > found.amount_paid - refunded THEN
        RAISE EXCEPTION 'refund_amount % for invoice "%", of which % of the % paid are left to refund',
                refund, found.id, found.amount_paid - refunded, found.amount_paid
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the rest back as credit_amount.';
    ELSIF EXISTS (SELECT FROM billing.credit_notes n WHERE n.id = note_id) THEN
        RAISE EXCEPTION 'credit note "%" exists already', note_id
            USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'credit_notes',
                  HINT = 'Create one with another id.';
    END IF;

    -- In one statement: the invoice, the note and its lines are checked against each other when it ends.
    WITH credited AS (
        UPDATE billing.invoices i
        SET pre_payment_credit_notes_amount = i.pre_payment_credit_notes_amount + pre,
            post_payment_credit_notes_amount = i.post_payment_credit_notes_amount + post,
            status = CASE WHEN i.status = 'open' AND i.amount_remaining = pre THEN 'paid' ELSE i.status END,
            paid_at = CASE WHEN i.status = 'open' AND i.amount_remaining = pre
                           THEN create_credit_note.as_of ELSE i.paid_at END
        WHERE i.id = found.id
    ), note AS (
        INSERT INTO billing.credit_notes
            (id, invoice, number, amount, subtotal, discount_amount, credit_grant_amount, tax_amount,
             exclusive_tax_amount, pre_payment_amount, post_payment_amount, refund_amount, credit_amount,
             out_of_band_amount, reason, memo, metadata, line_count, created)
        VALUES (note_id, found.id,
                found.number || '-CN-' || CASE WHEN notes < 99 THEN lpad((notes + 1)::text, 2, '0')
                                               ELSE (notes + 1)::text END,
                sums.amount, sums.subtotal, sums.discount, sums.credit_grant, sums.tax, sums.exclusive_tax, pre, post,
                refund, credit, out_of_band, request ->> 'reason', request ->> 'memo',
                coalesce(request -> 'metadata', '{}'), cardinality(lines), create_credit_note.as_of)
    )
    INSERT INTO billing.credit_note_lines
        (credit_note, invoice_line, description, amount, discount_amount, credit_grant_amount, tax_amount,
         exclusive_tax_amount)
    SELECT note_id, l.invoice_line, l.description, l.amount, l.discount_amount, l.credit_grant_amount, l.tax_amount,
           l.exclusive_tax_amount
    FROM unnest(lines) l;
    IF credit > 0 THEN
        PERFORM billing.change_customer_balance(found.customer, found.currency, -credit, 'credit_note', found.id,
                                                note_id, NULL, as_of);
    END IF;
    RETURN note_id;
END $$;
COMMENT ON FUNCTION billing.create_credit_note(jsonb, text, timestamptz) IS
'Credits part of an open or paid invoice from Stripe''s JSON and returns the note''s id. Fields: invoice; lines, each
with invoice_line_item and amount (before discounts and exclusive taxes, whose shares follow), or amount (what is
credited in all, taxes included, of all lines by what is left of them); reason, memo, metadata. It first lowers what
remains to be paid, and an invoice of which nothing remains is paid; what goes beyond that is given back as
refund_amount, credit_amount (to the customer''s balance) and out_of_band_amount, which must add up to it. Errors: 42704
unknown invoice or line; 55000 neither open nor paid; 22023 more than is left of a line, of the invoice or of what was
paid, amounts that do not add up, a field that breaks a rule, as_of before the invoice or infinite; 23505 the id exists;
22P02 no JSON object; 22004 NULL.';

CREATE FUNCTION billing.void_credit_note(credit_note text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    note billing.credit_notes;
    found billing.invoices;
BEGIN
    PERFORM billing.require_argument('credit_note', credit_note);
    PERFORM billing.require_time('as_of', as_of);
    SELECT n.* INTO note FROM billing.credit_notes n WHERE n.id = void_credit_note.credit_note;
    IF note.id IS NULL THEN
        RAISE EXCEPTION 'credit note "%" does not exist', credit_note
            USING ERRCODE = 'undefined_object', HINT = 'See billing.credit_notes for the notes there are.';
    END IF;
    found := billing.lock_invoice(note.invoice, as_of);
    -- Again, now that nobody else changes it.
    SELECT n.* INTO note FROM billing.credit_notes n WHERE n.id = void_credit_note.credit_note;
    IF note.status = 'void' THEN
        RAISE EXCEPTION 'credit note "%" is void and cannot become void again', note.id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Nothing is left to do.';
    ELSIF found.status <> 'open' THEN
        RAISE EXCEPTION 'credit note "%" is issued and cannot become void: invoice "%" is %',
                note.id, found.id, found.status
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Only notes of open invoices are voided.';
    ELSIF as_of < note.created THEN
        RAISE EXCEPTION 'as_of % is before credit note "%", which is of %', as_of, note.id, note.created
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass a later as_of.';
    END IF;
    WITH voided AS (
        UPDATE billing.credit_notes n SET status = 'void', voided_at = void_credit_note.as_of WHERE n.id = note.id
    )
    UPDATE billing.invoices i
    SET pre_payment_credit_notes_amount = i.pre_payment_credit_notes_amount - note.pre_payment_amount
    WHERE i.id = found.id;
    RETURN note.id;
END $$;
COMMENT ON FUNCTION billing.void_credit_note(text, timestamptz) IS
'Voids a credit note of an open invoice, which then asks for that amount again, and returns its id. It keeps its number.
Errors: 42704 unknown; 55000 void, or of an invoice that is not open; 22023 as_of before it or infinite; 22004 NULL.';
