-- Credit notes: what is taken off an invoice once it is final. Facts themselves: only voiding changes one.

CREATE TABLE billing.credit_notes (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('cn')
        CONSTRAINT credit_notes_id_length CHECK (length(id) BETWEEN 1 AND 255),
    invoice text COLLATE "C" NOT NULL REFERENCES billing.invoices,
    number text COLLATE "C" NOT NULL CONSTRAINT credit_notes_number_key UNIQUE,
    status text NOT NULL DEFAULT 'issued' CONSTRAINT credit_notes_status_known CHECK (status IN ('issued', 'void')),
    amount bigint NOT NULL CONSTRAINT credit_notes_amount_positive CHECK (amount > 0),
    subtotal bigint NOT NULL,
    discount_amount bigint NOT NULL,
    credit_grant_amount bigint NOT NULL,
    tax_amount bigint NOT NULL,
    exclusive_tax_amount bigint NOT NULL,
    pre_payment_amount bigint NOT NULL CONSTRAINT credit_notes_pre_payment_positive CHECK (pre_payment_amount >= 0),
    post_payment_amount bigint NOT NULL CONSTRAINT credit_notes_post_payment_positive CHECK (post_payment_amount >= 0),
    refund_amount bigint NOT NULL CONSTRAINT credit_notes_refund_positive CHECK (refund_amount >= 0),
    credit_amount bigint NOT NULL CONSTRAINT credit_notes_credit_positive CHECK (credit_amount >= 0),
    out_of_band_amount bigint NOT NULL CONSTRAINT credit_notes_out_of_band_positive CHECK (out_of_band_amount >= 0),
    reason text CONSTRAINT credit_notes_reason_known
        CHECK (reason IN ('duplicate', 'fraudulent', 'order_change', 'product_unsatisfactory')),
    memo text,
    metadata jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT credit_notes_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    line_count integer NOT NULL CONSTRAINT credit_notes_line_count_positive CHECK (line_count > 0),
    created timestamptz NOT NULL,
    voided_at timestamptz,
    CONSTRAINT credit_notes_amount_of_subtotal
        CHECK (amount = subtotal::numeric - discount_amount - credit_grant_amount + exclusive_tax_amount),
    CONSTRAINT credit_notes_amount_split CHECK (amount::numeric = pre_payment_amount::numeric + post_payment_amount),
    CONSTRAINT credit_notes_post_payment_split
        CHECK (post_payment_amount::numeric = refund_amount::numeric + credit_amount + out_of_band_amount),
    CONSTRAINT credit_notes_voided_at_with_status CHECK ((status = 'void') = (voided_at IS NOT NULL)),
    CONSTRAINT credit_notes_void_before_payment CHECK (status <> 'void' OR post_payment_amount = 0)
);
CREATE INDEX credit_notes_invoice_idx ON billing.credit_notes (invoice);
COMMENT ON TABLE billing.credit_notes IS
'What is taken off invoices once they are final. Never deleted; only the status may change, to void. Amounts are in the
minor unit of the invoice''s currency.';
COMMENT ON COLUMN billing.credit_notes.id IS 'The application''s own id, or one made here (cn_...).';
COMMENT ON COLUMN billing.credit_notes.invoice IS 'The invoice that it credits.';
COMMENT ON COLUMN billing.credit_notes.number IS
'The invoice''s number with -CN-01 and on behind it, without gaps.';
COMMENT ON COLUMN billing.credit_notes.status IS 'issued, or void: then it credits nothing, and keeps its number.';
COMMENT ON COLUMN billing.credit_notes.amount IS
'What it credits in all: subtotal - discount_amount - credit_grant_amount + exclusive_tax_amount.';
COMMENT ON COLUMN billing.credit_notes.subtotal IS 'Sum of its lines'' amounts.';
COMMENT ON COLUMN billing.credit_notes.discount_amount IS 'The lines'' share of the discounts, which is not credited.';
COMMENT ON COLUMN billing.credit_notes.credit_grant_amount IS
'The lines'' share of what credit grants paid, which does not come back.';
COMMENT ON COLUMN billing.credit_notes.tax_amount IS 'The lines'' share of the taxes, inclusive ones too.';
COMMENT ON COLUMN billing.credit_notes.exclusive_tax_amount IS
'What of tax_amount is credited on top of the lines.';
COMMENT ON COLUMN billing.credit_notes.pre_payment_amount IS
'What it takes off the invoice''s amount_remaining.';
COMMENT ON COLUMN billing.credit_notes.post_payment_amount IS
'What it gives back beyond that: refund_amount + credit_amount + out_of_band_amount.';
COMMENT ON COLUMN billing.credit_notes.refund_amount IS
'To be refunded by the application: at most what was paid of the invoice.';
COMMENT ON COLUMN billing.credit_notes.credit_amount IS 'Put on the customer''s balance.';
COMMENT ON COLUMN billing.credit_notes.out_of_band_amount IS 'Given back in some other way.';
COMMENT ON COLUMN billing.credit_notes.reason IS
'duplicate, fraudulent, order_change or product_unsatisfactory; NULL when not said.';
COMMENT ON COLUMN billing.credit_notes.memo IS 'Text for people; NULL when there is none.';
COMMENT ON COLUMN billing.credit_notes.metadata IS
'A JSON object that the application keeps here; it carries no meaning for billing.';
COMMENT ON COLUMN billing.credit_notes.line_count IS 'How many lines it has.';
COMMENT ON COLUMN billing.credit_notes.created IS 'The as_of of its creation.';
COMMENT ON COLUMN billing.credit_notes.voided_at IS 'When it was voided; else NULL.';
COMMENT ON INDEX billing.credit_notes_invoice_idx IS 'Finds the credit notes of an invoice.';
SELECT pg_catalog.pg_extension_config_dump('billing.credit_notes', '');

CREATE TABLE billing.credit_note_lines (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('cnli'),
    credit_note text COLLATE "C" NOT NULL REFERENCES billing.credit_notes,
    invoice_line text COLLATE "C" NOT NULL REFERENCES billing.invoice_lines,
    description text NOT NULL,
    amount bigint NOT NULL,
    discount_amount bigint NOT NULL,
    credit_grant_amount bigint NOT NULL,
    tax_amount bigint NOT NULL,
    exclusive_tax_amount bigint NOT NULL,
    CONSTRAINT credit_note_lines_invoice_line_key UNIQUE (credit_note, invoice_line)
);
CREATE INDEX credit_note_lines_invoice_line_idx ON billing.credit_note_lines (invoice_line);
COMMENT ON TABLE billing.credit_note_lines IS
'What a credit note takes off each line of its invoice, with the line''s share of discounts, credits and taxes; append-
only. Notes that are not void never take off more than the line has.';
COMMENT ON COLUMN billing.credit_note_lines.id IS 'The line''s id (cnli_...).';
COMMENT ON COLUMN billing.credit_note_lines.credit_note IS 'The credit note it is on.';
COMMENT ON COLUMN billing.credit_note_lines.invoice_line IS 'The line of the invoice that it credits.';
COMMENT ON COLUMN billing.credit_note_lines.description IS 'That of the invoice''s line.';
COMMENT ON COLUMN billing.credit_note_lines.amount IS
'What it takes off the line''s amount, before discounts and exclusive taxes; negative on a line below zero.';
COMMENT ON COLUMN billing.credit_note_lines.discount_amount IS 'Its share of the line''s discounts.';
COMMENT ON COLUMN billing.credit_note_lines.credit_grant_amount IS 'Its share of what credit grants paid of the line.';
COMMENT ON COLUMN billing.credit_note_lines.tax_amount IS 'Its share of the line''s taxes, inclusive ones too.';
COMMENT ON COLUMN billing.credit_note_lines.exclusive_tax_amount IS 'What of tax_amount comes on top of amount.';
COMMENT ON INDEX billing.credit_note_lines_invoice_line_idx IS 'Finds what was credited of a line.';
SELECT pg_catalog.pg_extension_config_dump('billing.credit_note_lines', '');

CREATE FUNCTION billing.credited_lines(invoice text)
RETURNS TABLE (invoice_line text, amount bigint, discount_amount bigint, credit_grant_amount bigint, tax_amount bigint,
               exclusive_tax_amount bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT l.invoice_line, sum(l.amount)::bigint, sum(l.discount_amount)::bigint, sum(l.credit_grant_amount)::bigint,
           sum(l.tax_amount)::bigint, sum(l.exclusive_tax_amount)::bigint
    FROM billing.credit_notes n JOIN billing.credit_note_lines l ON l.credit_note = n.id
    WHERE n.invoice = credited_lines.invoice AND n.status = 'issued'
    GROUP BY l.invoice_line;
END;
COMMENT ON FUNCTION billing.credited_lines(text) IS
'What the credit notes of an invoice that are not void take off each of its lines. Internal.';

CREATE FUNCTION billing.credited_line(invoice_line text)
RETURNS TABLE (amount numeric, discount_amount numeric, credit_grant_amount numeric, tax_amount numeric)
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT coalesce(sum(l.amount), 0), coalesce(sum(l.discount_amount), 0), coalesce(sum(l.credit_grant_amount), 0),
           coalesce(sum(l.tax_amount), 0)
    FROM billing.credit_note_lines l JOIN billing.credit_notes n ON n.id = l.credit_note
    WHERE l.invoice_line = $1 AND n.status = 'issued'
$$;
COMMENT ON FUNCTION billing.credited_line(text) IS
'What credit notes that are not void take off an invoice line: one row, of zeros where there are none. Internal.';

CREATE FUNCTION billing.credit_notes_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unchanged billing.credit_notes;
    off record;
    wrong text;
BEGIN
    IF TG_OP IN ('DELETE', 'TRUNCATE') THEN
        RAISE EXCEPTION 'credit notes are never deleted'
            USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = TG_TABLE_NAME,
                  HINT = 'Void it with billing.void_credit_note.';
    ELSIF TG_OP = 'UPDATE' AND TG_WHEN = 'BEFORE' THEN
        unchanged := NEW;
        unchanged.status := 'issued';
        unchanged.voided_at := NULL;
        IF OLD.status <> 'issued' OR unchanged IS DISTINCT FROM OLD THEN
            RAISE EXCEPTION 'credit note "%" is % and cannot change', OLD.id, OLD.status
                USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'credit_notes',
                      HINT = 'It stays as it is. Void it with billing.void_credit_note, and write another one.';
        END IF;
        RETURN NEW;
    END IF;
    -- Never more than the invoice says: a restored dump arrives row by row.
    SELECT i.* INTO off FROM billing.invoices i WHERE i.id = NEW.invoice FOR NO KEY UPDATE;
    SELECT format('invoice "%s", which credit notes took %s off before and %s after payment', off.id, s.pre, s.post)
    INTO wrong
    FROM (SELECT sum(n.pre_payment_amount) AS pre, sum(n.post_payment_amount) AS post, sum(n.refund_amount) AS refund
          FROM billing.credit_notes n WHERE n.invoice = off.id AND n.status = 'issued') s
    WHERE s.pre > off.pre_payment_credit_notes_amount OR s.post > off.post_payment_credit_notes_amount
       OR s.refund > off.amount_paid;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'credit note "%" is not accounted for by %', NEW.id, wrong
            USING ERRCODE = 'check_violation', SCHEMA = 'billing', TABLE = 'credit_notes',
                  HINT = 'Credit notes are made by billing.create_credit_note.';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION billing.credit_notes_check() IS
'Trigger: a credit note stays as it is but for being voided (23001), and the invoice''s columns account for it
(23514).';
CREATE TRIGGER credit_notes_check BEFORE UPDATE ON billing.credit_notes
    FOR EACH ROW EXECUTE FUNCTION billing.credit_notes_check();
CREATE TRIGGER credit_notes_check_invoice AFTER INSERT OR UPDATE ON billing.credit_notes
    FOR EACH ROW EXECUTE FUNCTION billing.credit_notes_check();
CREATE TRIGGER credit_notes_check_delete BEFORE DELETE OR TRUNCATE ON billing.credit_notes
    FOR EACH STATEMENT EXECUTE FUNCTION billing.credit_notes_check();
COMMENT ON TRIGGER credit_notes_check ON billing.credit_notes IS 'Credit notes are voided and do not change otherwise.';
COMMENT ON TRIGGER credit_notes_check_invoice ON billing.credit_notes IS 'The invoice accounts for its credit notes.';
COMMENT ON TRIGGER credit_notes_check_delete ON billing.credit_notes IS 'Credit notes are never deleted.';

CREATE FUNCTION billing.credit_note_lines_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    notes text[] := ARRAY(SELECT DISTINCT n.credit_note FROM new_lines n);
    wrong text;
BEGIN
    -- One after the other, so that two notes at once see each other's lines.
    PERFORM FROM billing.invoices i
    WHERE i.id IN (SELECT n.invoice FROM billing.credit_notes n WHERE n.id = ANY (notes))
    ORDER BY i.id FOR NO KEY UPDATE;
    SELECT n.id INTO wrong
    FROM billing.credit_notes n
    CROSS JOIN LATERAL (
        SELECT count(*) AS count, sum(l.amount) AS amount, sum(l.discount_amount) AS discount,
               sum(l.credit_grant_amount) AS credit_grant, sum(l.tax_amount) AS tax,
               sum(l.exclusive_tax_amount) AS exclusive_tax, bool_or(i.invoice <> n.invoice) AS elsewhere
        FROM billing.credit_note_lines l JOIN billing.invoice_lines i ON i.id = l.invoice_line
        WHERE l.credit_note = n.id
    ) l
    WHERE n.id = ANY (notes)
      AND (l.elsewhere OR l.count > n.line_count
           OR l.count = n.line_count
              AND (l.amount, l.discount, l.credit_grant, l.tax, l.exclusive_tax)
                  <> (n.subtotal, n.discount_amount, n.credit_grant_amount, n.tax_amount, n.exclusive_tax_amount))
    LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the lines of credit note "%" are not what it says', wrong
            USING ERRCODE = 'check_violation', SCHEMA = 'billing', TABLE = 'credit_note_lines',
                  HINT = 'Credit notes are made by billing.create_credit_note.';
    END IF;
    SELECT i.id INTO wrong
    FROM billing.invoice_lines i
    CROSS JOIN LATERAL billing.credited_line(i.id) c
    WHERE i.id IN (SELECT n.invoice_line FROM new_lines n)
      AND (c.amount NOT BETWEEN least(i.amount, 0) AND greatest(i.amount, 0)
           OR c.discount_amount NOT BETWEEN least(i.discount_amount, 0) AND greatest(i.discount_amount, 0)
           OR c.credit_grant_amount NOT BETWEEN least(i.credit_amount, 0) AND greatest(i.credit_amount, 0)
           OR c.tax_amount NOT BETWEEN least(i.tax_amount, 0) AND greatest(i.tax_amount, 0))
    LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'credit notes take more off line "%" than it has', wrong
            USING ERRCODE = 'check_violation', SCHEMA = 'billing', TABLE = 'credit_note_lines',
                  HINT = 'See billing.credit_note_lines for what was credited of it.';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION billing.credit_note_lines_check() IS
'Trigger: a credit note is the sum of its lines, and all credit notes together take off no more of a line than it has
(23514).';
CREATE TRIGGER credit_note_lines_check AFTER INSERT ON billing.credit_note_lines
    REFERENCING NEW TABLE AS new_lines FOR EACH STATEMENT EXECUTE FUNCTION billing.credit_note_lines_check();
CREATE TRIGGER credit_note_lines_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.credit_note_lines
    FOR EACH STATEMENT EXECUTE FUNCTION billing.append_only();
COMMENT ON TRIGGER credit_note_lines_check ON billing.credit_note_lines IS 'Never more than there is to credit.';
COMMENT ON TRIGGER credit_note_lines_append_only ON billing.credit_note_lines IS 'Append-only.';

CREATE FUNCTION billing.invoices_check_credit_notes() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    notes record;
BEGIN
    SELECT coalesce(sum(n.pre_payment_amount), 0) AS pre, coalesce(sum(n.post_payment_amount), 0) AS post INTO notes
    FROM billing.credit_notes n WHERE n.invoice = NEW.id AND n.status = 'issued';
    IF (NEW.pre_payment_credit_notes_amount, NEW.post_payment_credit_notes_amount) <> (notes.pre, notes.post) THEN
        RAISE EXCEPTION 'invoice "%" is % and cannot change: its credit notes take % off before and % after payment',
                NEW.id, OLD.status, notes.pre, notes.post
            USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'invoices',
                  HINT = 'Write a credit note with billing.create_credit_note.';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION billing.invoices_check_credit_notes() IS
'Trigger: what an invoice says of its credit notes is their sum (23001).';
CREATE TRIGGER invoices_check_credit_notes AFTER UPDATE ON billing.invoices FOR EACH ROW
    WHEN (OLD.pre_payment_credit_notes_amount <> NEW.pre_payment_credit_notes_amount
          OR OLD.post_payment_credit_notes_amount <> NEW.post_payment_credit_notes_amount)
    EXECUTE FUNCTION billing.invoices_check_credit_notes();
COMMENT ON TRIGGER invoices_check_credit_notes ON billing.invoices IS
'Only credit notes change what an invoice says of them.';
