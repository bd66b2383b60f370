-- Invoices. Once finalized they are facts: the database itself lets nobody change them.

CREATE TABLE billing.invoices (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('in')
        CONSTRAINT invoices_id_length CHECK (length(id) BETWEEN 1 AND 255),
    customer text COLLATE "C" NOT NULL REFERENCES billing.customers,
    subscription text COLLATE "C" REFERENCES billing.subscriptions,
    status text NOT NULL DEFAULT 'draft' CONSTRAINT invoices_status_known
        CHECK (status IN ('draft', 'open', 'paid', 'uncollectible', 'void')),
    currency text NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    subtotal bigint NOT NULL DEFAULT 0,
    total bigint NOT NULL DEFAULT 0,
    amount_due bigint NOT NULL DEFAULT 0 CONSTRAINT invoices_amount_due_positive CHECK (amount_due >= 0),
    number text COLLATE "C" CONSTRAINT invoices_number_key UNIQUE,
    finalized_at timestamptz,
    created timestamptz NOT NULL,
    billing_reason text NOT NULL CONSTRAINT invoices_billing_reason_known
        CHECK (billing_reason IN ('subscription_create', 'subscription_cycle', 'subscription_update',
                                  'subscription_threshold', 'manual')),
    line_count integer NOT NULL DEFAULT 0 CONSTRAINT invoices_line_count_positive CHECK (line_count >= 0),
    -- Credit of many invoices adds up beyond bigint; an error there would stop everybody's invoices.
    starting_balance numeric,
    ending_balance numeric,
    collection_method text NOT NULL DEFAULT 'charge_automatically',
    due_date timestamptz,
    paid_at timestamptz,
    voided_at timestamptz,
    marked_uncollectible_at timestamptz,
    finalization_error text,
    total_discount_amount bigint NOT NULL DEFAULT 0
        CONSTRAINT invoices_total_discount_amount_positive
        CHECK (total_discount_amount >= 0 OR subscription IS NOT NULL),
    total_credit_amount bigint NOT NULL DEFAULT 0
        CONSTRAINT invoices_total_credit_amount_positive
        CHECK (total_credit_amount >= 0 OR subscription IS NOT NULL),
    total_tax_amount bigint NOT NULL DEFAULT 0,
    total_exclusive_tax_amount bigint NOT NULL DEFAULT 0,
    amount_paid bigint NOT NULL DEFAULT 0 CONSTRAINT invoices_amount_paid_positive CHECK (amount_paid >= 0),
    pre_payment_credit_notes_amount bigint NOT NULL DEFAULT 0
        CONSTRAINT invoices_pre_payment_credit_notes_positive CHECK (pre_payment_credit_notes_amount >= 0),
    post_payment_credit_notes_amount bigint NOT NULL DEFAULT 0
        CONSTRAINT invoices_post_payment_credit_notes_positive CHECK (post_payment_credit_notes_amount >= 0),
    amount_remaining bigint NOT NULL
        GENERATED ALWAYS AS (amount_due - amount_paid - pre_payment_credit_notes_amount) STORED
        CONSTRAINT invoices_amount_remaining_positive CHECK (amount_remaining >= 0),
    auto_advance boolean NOT NULL DEFAULT true,
    days_until_due integer CONSTRAINT invoices_days_until_due_positive CHECK (days_until_due >= 0),
    default_tax_rates text[],
    description text,
    metadata jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT invoices_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    -- No foreign keys: a dump may bring either of the two first. A trigger keeps them.
    from_invoice text COLLATE "C",
    regenerated_as text COLLATE "C",
    pause_behavior text CONSTRAINT invoices_pause_behavior_known
        CHECK (pause_behavior IN ('keep_as_draft', 'mark_uncollectible', 'void', 'none')),
    item_tax_rates jsonb,
    CONSTRAINT invoices_period_ordered CHECK (period_start <= period_end),
    CONSTRAINT invoices_total_of_subtotal
        CHECK (total = subtotal::numeric - total_discount_amount - total_credit_amount + total_exclusive_tax_amount),
    CONSTRAINT invoices_subscription_unless_manual CHECK ((billing_reason = 'manual') = (subscription IS NULL)),
    CONSTRAINT invoices_paid_in_full CHECK (status <> 'paid' OR amount_remaining = 0),
    CONSTRAINT invoices_amount_paid_with_status CHECK (status = 'paid' OR amount_paid = 0),
    CONSTRAINT invoices_credit_notes_within_total
        CHECK (pre_payment_credit_notes_amount <= greatest(total, 0) - post_payment_credit_notes_amount),
    CONSTRAINT invoices_credit_notes_when_final CHECK (
        status <> 'draft' OR pre_payment_credit_notes_amount = 0 AND post_payment_credit_notes_amount = 0),
    CONSTRAINT invoices_regenerated_when_void CHECK (regenerated_as IS NULL OR status = 'void'),
    CONSTRAINT invoices_finalized_complete CHECK ((status <> 'draft') =
        (num_nulls(number, finalized_at, starting_balance, ending_balance) = 0)),
    CONSTRAINT invoices_draft_without_number CHECK (status <> 'draft' OR num_nonnulls(number, finalized_at) = 0),
    CONSTRAINT invoices_balance_adds_up CHECK (amount_due = total + starting_balance - ending_balance),
    CONSTRAINT invoices_finalized_without_error CHECK (status = 'draft' OR finalization_error IS NULL),
    CONSTRAINT invoices_paid_at_with_status CHECK ((status = 'paid') = (paid_at IS NOT NULL)),
    CONSTRAINT invoices_voided_at_with_status CHECK ((status = 'void') = (voided_at IS NOT NULL)),
    CONSTRAINT invoices_uncollectible_marked CHECK (status <> 'uncollectible' OR marked_uncollectible_at IS NOT NULL)
);
CREATE UNIQUE INDEX invoices_period_key
    ON billing.invoices (subscription, period_start, period_end, billing_reason)
    WHERE status <> 'void' AND billing_reason IN ('subscription_create', 'subscription_cycle');
CREATE INDEX invoices_customer_idx ON billing.invoices (customer, created);
CREATE INDEX invoices_draft_idx ON billing.invoices (created, subscription, id) WHERE status = 'draft';
CREATE INDEX invoices_one_off_draft_idx ON billing.invoices (created, id)
    WHERE status = 'draft' AND subscription IS NULL;
CREATE INDEX invoices_subscription_draft_idx ON billing.invoices (subscription, created, id)
    WHERE status = 'draft' AND billing_reason = 'subscription_cycle';
CREATE INDEX invoices_threshold_idx ON billing.invoices (subscription) WHERE billing_reason = 'subscription_threshold';
CREATE UNIQUE INDEX invoices_from_invoice_key ON billing.invoices (from_invoice) WHERE from_invoice IS NOT NULL;
CREATE UNIQUE INDEX invoices_regenerated_as_key ON billing.invoices (regenerated_as) WHERE regenerated_as IS NOT NULL;
COMMENT ON TABLE billing.invoices IS
'Invoices. A draft is rewritten freely; from finalization on only its status, the times of that, and what was paid or taken
off by credit notes may change, and it is never deleted. Its amounts are in the currency''s minor unit.';
COMMENT ON INDEX billing.invoices_period_key IS 'No period is invoiced twice.';
COMMENT ON INDEX billing.invoices_draft_idx IS 'Finds the drafts whose grace is over, in the order of their numbers.';
COMMENT ON INDEX billing.invoices_one_off_draft_idx IS 'Finds the one-off drafts among them.';
COMMENT ON INDEX billing.invoices_subscription_draft_idx IS 'Finds the earliest draft of a subscription''s periods.';
COMMENT ON INDEX billing.invoices_threshold_idx IS 'Finds what thresholds have billed of a subscription.';
COMMENT ON INDEX billing.invoices_customer_idx IS 'Lists the invoices of a customer by time.';
COMMENT ON INDEX billing.invoices_from_invoice_key IS 'An invoice is made anew once.';
COMMENT ON INDEX billing.invoices_regenerated_as_key IS 'Finds what an invoice replaces.';
COMMENT ON COLUMN billing.invoices.id IS 'The invoice''s id (in_...).';
COMMENT ON COLUMN billing.invoices.customer IS 'Who owes it.';
COMMENT ON COLUMN billing.invoices.subscription IS 'What it bills; NULL on a one-off invoice.';
COMMENT ON COLUMN billing.invoices.status IS
'draft, then open (or paid at once when nothing is due), then paid, uncollectible or void; uncollectible may still
become paid or void.';
COMMENT ON COLUMN billing.invoices.currency IS 'ISO 4217 code in lower case.';
COMMENT ON COLUMN billing.invoices.period_start IS
'Start (inclusive) of the period that ended, whose usage it bills; the subscription''s start on its first invoice.';
COMMENT ON COLUMN billing.invoices.period_end IS
'End (exclusive) of that period; equal to period_start where no usage is billed: on a first invoice, unless it was
backdated, and on a one-off one.';
COMMENT ON COLUMN billing.invoices.subtotal IS 'Sum of the lines'' amounts.';
COMMENT ON COLUMN billing.invoices.total IS
'subtotal less discounts and credits, plus exclusive tax. Negative when late usage took back more than is billed.';
COMMENT ON COLUMN billing.invoices.amount_due IS
'What the customer is to pay: total + starting_balance - ending_balance; on a draft, total without the balance. Never
negative.';
COMMENT ON COLUMN billing.invoices.number IS
'INV-000001 and on without gaps, or the customer''s invoice_prefix and 0001 and on, as billing.invoice_numbering says;
NULL on a draft.';
COMMENT ON COLUMN billing.invoices.finalized_at IS
'When it became final, on the clock of the as_of arguments; NULL on a draft.';
COMMENT ON COLUMN billing.invoices.created IS
'The end of the period that it bills, however late it was made; on a first invoice the as_of of the subscription''s
creation, on one made by hand its own.';
COMMENT ON COLUMN billing.invoices.billing_reason IS
'subscription_create (first invoice), subscription_cycle, subscription_update (changes invoiced at once),
subscription_threshold, or manual.';
COMMENT ON COLUMN billing.invoices.line_count IS 'How many lines it has.';
COMMENT ON COLUMN billing.invoices.starting_balance IS
'The customer''s balance in this currency before it; negative is credit. NULL on a draft.';
COMMENT ON COLUMN billing.invoices.ending_balance IS 'The customer''s balance after it. NULL on a draft.';
COMMENT ON COLUMN billing.invoices.collection_method IS 'The subscription''s, charge_automatically or send_invoice.';
COMMENT ON COLUMN billing.invoices.due_date IS 'When it is due; NULL on a draft and without days_until_due.';
COMMENT ON COLUMN billing.invoices.total_discount_amount IS 'Sum of the lines'' discounts.';
COMMENT ON COLUMN billing.invoices.total_credit_amount IS 'Sum of what credit grants pay of the lines.';
COMMENT ON COLUMN billing.invoices.total_tax_amount IS 'Sum of the lines'' taxes, inclusive ones too.';
COMMENT ON COLUMN billing.invoices.total_exclusive_tax_amount IS
'What of total_tax_amount is added on top of the lines.';
COMMENT ON COLUMN billing.invoices.amount_paid IS 'What was paid of it: all that remained, once it is paid; else 0.';
COMMENT ON COLUMN billing.invoices.pre_payment_credit_notes_amount IS
'What credit notes took off amount_due before it was paid.';
COMMENT ON COLUMN billing.invoices.post_payment_credit_notes_amount IS
'What credit notes gave back beyond that: refunded, to the customer''s balance, or out of band.';
COMMENT ON COLUMN billing.invoices.amount_remaining IS
'What is left to pay: amount_due - amount_paid - pre_payment_credit_notes_amount.';
COMMENT ON COLUMN billing.invoices.auto_advance IS
'Whether generate_invoices finalizes this draft when its grace is over; false: only finalize_invoice does.';
COMMENT ON COLUMN billing.invoices.days_until_due IS
'Days from finalization to due_date; NULL: the subscription''s. Set where those change before it is final.';
COMMENT ON COLUMN billing.invoices.description IS 'Text for people; NULL when there is none.';
COMMENT ON COLUMN billing.invoices.metadata IS
'A JSON object that the application keeps here; it carries no meaning for billing.';
COMMENT ON COLUMN billing.invoices.from_invoice IS 'The void invoice that this one replaces; else NULL.';
COMMENT ON COLUMN billing.invoices.regenerated_as IS
'The invoice that replaces this void one, whose lines then count as never billed; else NULL.';
COMMENT ON COLUMN billing.invoices.pause_behavior IS
'What the pause of collection under which it was created does with it, or none; NULL: as its subscription says now. Set
where that changes before it is final, and to none where somebody finalizes it by hand.';
COMMENT ON COLUMN billing.invoices.paid_at IS 'When it was marked paid, or finalized with nothing due; else NULL.';
COMMENT ON COLUMN billing.invoices.voided_at IS 'When it was voided; else NULL.';
COMMENT ON COLUMN billing.invoices.marked_uncollectible_at IS
'When it was marked uncollectible, also if paid or voided later; else NULL.';
COMMENT ON COLUMN billing.invoices.finalization_error IS
'Why generate_invoices leaves this draft a draft, such as an amount beyond bigint; NULL when nothing is wrong.';
COMMENT ON COLUMN billing.invoices.total_discount_amount IS 'What discounts take off, over all lines.';
COMMENT ON COLUMN billing.invoices.total_credit_amount IS
'What credit grants pay, over all lines; on a draft, what they would.';
COMMENT ON COLUMN billing.invoices.total_tax_amount IS 'Tax over all lines, inclusive and exclusive together.';
COMMENT ON COLUMN billing.invoices.total_exclusive_tax_amount IS
'The part of total_tax_amount that comes on top; the rest is within the lines'' amounts.';
COMMENT ON COLUMN billing.invoices.default_tax_rates IS
'Tax rates of the lines that have none of their own; NULL: the subscription''s. Set where those change before it is final.';
COMMENT ON COLUMN billing.invoices.item_tax_rates IS
'The own tax rates of subscription items, by item, that changed before it is final, as they were; NULL: none did.';
SELECT pg_catalog.pg_extension_config_dump('billing.invoices', '');

CREATE FUNCTION billing.exclusive_tax(taxes jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
RETURN (SELECT coalesce(sum((t.value ->> 'amount')::bigint), 0)::bigint
        FROM jsonb_array_elements(taxes) t WHERE t.value ->> 'tax_behavior' = 'exclusive');
COMMENT ON FUNCTION billing.exclusive_tax(jsonb) IS
'What of the taxes of an invoice line comes on top of its amount. Internal.';

CREATE FUNCTION billing.invoices_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unchanged billing.invoices := NEW;
BEGIN
    IF TG_OP IN ('DELETE', 'TRUNCATE') THEN
        RAISE EXCEPTION 'invoices are never deleted once finalized, nor drafts that replace a void one'
            USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'invoices',
                  HINT = 'Void the invoice with billing.void_invoice.';
    ELSIF OLD.status = 'draft' THEN
        RAISE EXCEPTION 'invoice "%" is draft and cannot become %', OLD.id, NEW.status
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Finalize it with billing.finalize_invoice first.';
    END IF;
    unchanged.status := OLD.status;
    unchanged.paid_at := OLD.paid_at;
    unchanged.voided_at := OLD.voided_at;
    unchanged.marked_uncollectible_at := OLD.marked_uncollectible_at;
    unchanged.amount_paid := OLD.amount_paid;
    unchanged.pre_payment_credit_notes_amount := OLD.pre_payment_credit_notes_amount;
    unchanged.post_payment_credit_notes_amount := OLD.post_payment_credit_notes_amount;
    unchanged.amount_remaining := OLD.amount_remaining;  -- generated, not known yet
    IF OLD.regenerated_as IS NULL AND OLD.status = 'void' AND EXISTS (
        SELECT FROM billing.invoices i
        WHERE i.id = NEW.regenerated_as AND i.from_invoice = OLD.id AND i.status = 'draft')
    THEN
        unchanged.regenerated_as := NULL;
    END IF;
    IF unchanged IS DISTINCT FROM OLD
       OR NEW.status = OLD.status
          AND (NEW.paid_at, NEW.voided_at, NEW.marked_uncollectible_at, NEW.amount_paid)
              IS DISTINCT FROM (OLD.paid_at, OLD.voided_at, OLD.marked_uncollectible_at, OLD.amount_paid)
       OR NEW.status <> 'uncollectible' AND NEW.marked_uncollectible_at IS DISTINCT FROM OLD.marked_uncollectible_at
    THEN
        RAISE EXCEPTION 'invoice "%" is % and cannot change', OLD.id, OLD.status
            USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'invoices',
                  HINT = 'A finalized invoice stays as it is. Void it if it is wrong, or write a credit note.';
    ELSIF NEW.status <> OLD.status
          AND NOT (OLD.status = 'open' AND NEW.status IN ('paid', 'uncollectible', 'void')
                   OR OLD.status = 'uncollectible' AND NEW.status IN ('paid', 'void'))
    THEN
        RAISE EXCEPTION 'invoice "%" is % and cannot become %', OLD.id, OLD.status, NEW.status
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Open invoices can be paid, voided or marked uncollectible; uncollectible ones paid or voided.';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION billing.invoices_check() IS
'Trigger: a finalized invoice keeps everything but its status, what was paid of it and what credit notes took off, and
is never deleted. Errors: 23001 change or deletion; 55000 forbidden change of status.';

CREATE FUNCTION billing.invoices_check_sums() RETURNS trigger
-- Nested loops would add up all lines for each invoice, where statistics are of a time when there were few.
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
SET enable_nestloop = off SET jit = off AS $$
DECLARE
    final text[] := ARRAY(SELECT n.id FROM new_invoices n WHERE n.status <> 'draft');
    wrong record;
BEGIN
    IF cardinality(final) = 0 THEN
        RETURN NULL;
    END IF;
    SELECT i.id, i.line_count, i.subtotal, coalesce(l.count, 0) AS count, coalesce(l.amount, 0) AS amount INTO wrong
    FROM billing.invoices i
    LEFT JOIN (
        SELECT l.invoice, count(*) AS count, sum(l.amount) AS amount, sum(l.discount_amount) AS discount,
               sum(l.credit_amount) AS credit, sum(l.tax_amount) AS tax,
               sum(CASE WHEN l.taxes IS NULL THEN 0 ELSE billing.exclusive_tax(l.taxes) END) AS exclusive_tax
        FROM billing.invoice_lines l WHERE l.invoice = ANY (final) GROUP BY l.invoice
    ) l ON l.invoice = i.id
    WHERE i.id = ANY (final)
      AND (i.line_count, i.subtotal, i.total_discount_amount, i.total_credit_amount, i.total_tax_amount,
           i.total_exclusive_tax_amount)
          IS DISTINCT FROM (coalesce(l.count, 0), coalesce(l.amount, 0), coalesce(l.discount, 0),
                            coalesce(l.credit, 0), coalesce(l.tax, 0), coalesce(l.exclusive_tax, 0))
    LIMIT 1;
    IF wrong.id IS NOT NULL THEN
        RAISE EXCEPTION 'invoice "%" has % lines of % in all, not % of %, or other discounts, credits or taxes than it says',
                wrong.id, wrong.count, wrong.amount, wrong.line_count, wrong.subtotal
            USING ERRCODE = 'check_violation', SCHEMA = 'billing', TABLE = 'invoices',
                  HINT = 'Finalize it with billing.finalize_invoice, which adds the lines up.';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION billing.invoices_check_sums() IS
'Trigger: a finalized invoice is the sum of its lines (23514).';

-- Finalizing many drafts at once calls no function by row.
CREATE TRIGGER invoices_check BEFORE UPDATE ON billing.invoices FOR EACH ROW
    WHEN (OLD.status <> 'draft' OR NEW.status NOT IN ('draft', 'open', 'paid')
          OR NEW.status <> 'draft' AND NEW.number IS NULL)
    EXECUTE FUNCTION billing.invoices_check();
CREATE TRIGGER invoices_check_delete BEFORE DELETE ON billing.invoices FOR EACH ROW
    WHEN (OLD.status <> 'draft' OR OLD.from_invoice IS NOT NULL) EXECUTE FUNCTION billing.invoices_check();
CREATE TRIGGER invoices_check_truncate BEFORE TRUNCATE ON billing.invoices
    FOR EACH STATEMENT EXECUTE FUNCTION billing.invoices_check();
CREATE TRIGGER invoices_check_sums AFTER UPDATE ON billing.invoices
    REFERENCING NEW TABLE AS new_invoices FOR EACH STATEMENT EXECUTE FUNCTION billing.invoices_check_sums();
COMMENT ON TRIGGER invoices_check ON billing.invoices IS 'Finalized invoices never change.';
COMMENT ON TRIGGER invoices_check_delete ON billing.invoices IS 'Finalized invoices are never deleted.';
COMMENT ON TRIGGER invoices_check_truncate ON billing.invoices IS 'Finalized invoices are never deleted.';
COMMENT ON TRIGGER invoices_check_sums ON billing.invoices IS 'Finalized invoices are the sum of their lines.';

-- A row and not a sequence: that skips numbers when a transaction rolls back, and invoice numbers may have no gaps.
CREATE TABLE billing.invoice_numbers (
    prefix text COLLATE "C" PRIMARY KEY,
    last_number bigint NOT NULL CONSTRAINT invoice_numbers_positive CHECK (last_number >= 0)
);
COMMENT ON TABLE billing.invoice_numbers IS
'The last invoice number given with each prefix. Finalizing locks its row until commit.';
COMMENT ON COLUMN billing.invoice_numbers.prefix IS
'What the numbers begin with: INV, or a customer''s invoice_prefix (see billing.invoice_numbering).';
COMMENT ON COLUMN billing.invoice_numbers.last_number IS 'The last number given.';
SELECT pg_catalog.pg_extension_config_dump('billing.invoice_numbers', '');
