-- Finalization: from rated drafts to numbered invoices, many in one go.
-- Locks follow those of invoicing: subscriptions, invoices, customers by id, rows of invoice numbers by prefix.

CREATE FUNCTION billing.finalizes_at(invoice billing.invoices, delay interval) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT ($1).created + CASE ($1).billing_reason WHEN 'subscription_threshold' THEN interval '0' ELSE $2 END
$$;
COMMENT ON FUNCTION billing.finalizes_at(billing.invoices, interval) IS
'When a draft becomes final by itself: a delay after its creation, and one of a threshold at once. Internal.';

CREATE FUNCTION billing.collection_paused(subscription billing.subscriptions, at timestamptz) RETURNS text
LANGUAGE sql STABLE
RETURN CASE WHEN (subscription).pause_resumes_at IS NULL OR at < (subscription).pause_resumes_at
            THEN (subscription).pause_behavior END;
COMMENT ON FUNCTION billing.collection_paused(billing.subscriptions, timestamptz) IS
'What becomes of an invoice that a subscription makes at a time: its pause_behavior while collection is paused, else
NULL. Internal.';

CREATE FUNCTION billing.advances(subscription billing.subscriptions, at timestamptz) RETURNS boolean
LANGUAGE sql STABLE
RETURN (subscription).status <> 'unpaid'
       AND billing.collection_paused(subscription, at) IS DISTINCT FROM 'keep_as_draft';
COMMENT ON FUNCTION billing.advances(billing.subscriptions, timestamptz) IS
'Whether a draft that a subscription makes at a time becomes final by itself (auto_advance). Internal.';

CREATE FUNCTION billing.pause_behavior(invoice billing.invoices, subscription billing.subscriptions) RETURNS text
LANGUAGE sql STABLE
RETURN coalesce((invoice).pause_behavior, billing.collection_paused(subscription, (invoice).created));
COMMENT ON FUNCTION billing.pause_behavior(billing.invoices, billing.subscriptions) IS
'What becomes of an invoice by the pause of collection under which it was created; NULL or none: nothing. Internal.';

CREATE FUNCTION billing.is_waived(invoice billing.invoices, subscription billing.subscriptions) RETURNS boolean
LANGUAGE sql STABLE
RETURN coalesce(billing.pause_behavior(invoice, subscription) = 'void'
                AND ((invoice).total > 0 OR (invoice).total = 0 AND (invoice).total_discount_amount > 0), false);
COMMENT ON FUNCTION billing.is_waived(billing.invoices, billing.subscriptions) IS
'Whether a rated draft becomes void once it is final, as collection is paused: if it asks for something, or would but for
discounts. It uses up no balance, credit or coupon, or which invoices are void would depend on what comes first. Internal.';

CREATE FUNCTION billing.balance_after(balance numeric, opening numeric, total bigint, minimum bigint) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN total IS NULL THEN coalesce(balance, opening)
            WHEN coalesce(balance, opening) + total < greatest(minimum, 1) THEN coalesce(balance, opening) + total
            ELSE greatest(coalesce(balance, opening) + total - 9223372036854775807, 0) END;
COMMENT ON FUNCTION billing.balance_after(numeric, numeric, bigint, bigint) IS
'A customer''s balance after an invoice: what is below zero, too small to collect or beyond bigint stays, the rest is
asked for. balance is that after the invoice before it, NULL for the first, which starts from opening; total is NULL where
the invoice leaves it alone. Internal.';
CREATE AGGREGATE billing.balance_after(opening numeric, total bigint, minimum bigint) (
    SFUNC = billing.balance_after, STYPE = numeric);
COMMENT ON AGGREGATE billing.balance_after(numeric, bigint, bigint) IS
'A customer''s balance after a row of invoices, in their order. Internal.';

CREATE FUNCTION billing.make_invoice_prefixes(customers text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    -- Made from the id, so that replaying history makes the same ones; another try where one is taken already.
    FOR attempt IN 0..99 LOOP
        UPDATE billing.customers c SET invoice_prefix = p.prefix
        FROM (SELECT DISTINCT ON (m.prefix) c.id, m.prefix
              FROM billing.customers c
              CROSS JOIN LATERAL (SELECT upper(left(md5(attempt || ' ' || c.id), 8))) m (prefix)
              WHERE c.id = ANY (make_invoice_prefixes.customers) AND c.invoice_prefix IS NULL
                AND NOT EXISTS (SELECT FROM billing.customers o WHERE o.invoice_prefix = m.prefix)
              ORDER BY m.prefix, c.id) p
        WHERE p.id = c.id AND c.invoice_prefix IS NULL;
        EXIT WHEN NOT EXISTS (SELECT FROM billing.customers c
                              WHERE c.id = ANY (make_invoice_prefixes.customers) AND c.invoice_prefix IS NULL);
    END LOOP;
END $$;
COMMENT ON FUNCTION billing.make_invoice_prefixes(text[]) IS
'Gives an invoice_prefix to those of some customers that have none. Internal.';

CREATE FUNCTION billing.lock_discounts(customers text[], coupons text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    -- Those that have ended, too: they hold for older drafts.
    PERFORM FROM billing.discounts x WHERE x.customer = ANY (customers) ORDER BY x.id FOR NO KEY UPDATE;
    PERFORM FROM billing.coupons c WHERE c.id = ANY (coupons) ORDER BY c.id FOR NO KEY UPDATE;
END $$;
COMMENT ON FUNCTION billing.lock_discounts(text[], text[]) IS
'Locks the discounts of some customers and then some coupons, for who redeems these and may use up those afterwards. Internal.';

CREATE FUNCTION billing.lock_to_finalize(customers text[], coupons text[] DEFAULT '{}') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    PERFORM billing.lock_discounts(customers, coupons);
    -- What is given back returns to grants that are used up.
    PERFORM FROM billing.credit_grants g WHERE g.customer = ANY (customers) ORDER BY g.id FOR NO KEY UPDATE;
    PERFORM FROM billing.customers c WHERE c.id = ANY (customers) ORDER BY c.id FOR NO KEY UPDATE;
    PERFORM FROM billing.invoice_numbers n
    WHERE n.prefix = CASE billing.invoice_numbering() WHEN 'account' THEN 'INV' END
       OR n.prefix IN (SELECT c.invoice_prefix FROM billing.customers c
                       WHERE c.id = ANY (customers) AND billing.invoice_numbering() = 'customer')
    ORDER BY n.prefix FOR NO KEY UPDATE;
END $$;
COMMENT ON FUNCTION billing.lock_to_finalize(text[], text[]) IS
'Locks, in the order of all locks, whatever invoices of some customers may use up or count when they become final, for who
finalizes twice in one transaction: the second time would lock some of it after the numbers. Also some coupons. Internal.';

CREATE FUNCTION billing.finalize_drafts(invoices text[], as_of timestamptz DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    delay interval := billing.setting_interval('finalization_delay');
    numbering text := billing.invoice_numbering();
    digits integer := CASE numbering WHEN 'account' THEN 6 ELSE 4 END;
    numbered text[];
    balanced text[];
BEGIN
    finalize_drafts.invoices := ARRAY(
        SELECT i.id FROM billing.invoices i
        WHERE i.id = ANY (finalize_drafts.invoices) AND i.status = 'draft' AND i.finalization_error IS NULL);
    PERFORM billing.redeem_discounts(finalize_drafts.invoices);
    PERFORM billing.apply_credits(finalize_drafts.invoices, finalize_drafts.as_of);
    finalize_drafts.invoices := ARRAY(
        SELECT i.id FROM billing.invoices i
        WHERE i.id = ANY (finalize_drafts.invoices) AND i.finalization_error IS NULL);
    IF cardinality(finalize_drafts.invoices) = 0 THEN
        RETURN;
    END IF;
    -- A customer's balance matters where there is one, or where an invoice leaves one. For all others it is 0, whatever
    -- another session adds to it meanwhile: they are the earlier ones.
    SELECT array_agg(DISTINCT i.customer), array_agg(DISTINCT i.customer) FILTER (
               WHERE i.total < coalesce(y.minimum_charge, 0) OR b.ending_balance <> 0)
    INTO numbered, balanced
    FROM billing.invoices i
    LEFT JOIN billing.currencies y ON y.currency = i.currency
    LEFT JOIN LATERAL (
        SELECT t.ending_balance FROM billing.customer_balance_transactions t
        WHERE t.customer = i.customer AND t.currency = i.currency ORDER BY t.place DESC LIMIT 1) b ON true
    WHERE i.id = ANY (finalize_drafts.invoices);
    balanced := coalesce(balanced, '{}');
    PERFORM FROM billing.customers c
    WHERE c.id = ANY (balanced) OR numbering = 'customer' AND c.id = ANY (numbered) AND c.invoice_prefix IS NULL
    ORDER BY c.id FOR NO KEY UPDATE;
    IF numbering = 'customer' THEN
        PERFORM billing.make_invoice_prefixes(numbered);
    END IF;

    -- By time and then subscription, not by id: a run that comes late gives the numbers of runs on time.
    WITH drafts AS MATERIALIZED (
        SELECT i.id, i.customer, i.currency, i.total, t.finalized_at, p.prefix,
               billing.is_waived(i, s) AS waived,
               billing.pause_behavior(i, s) AS pause_behavior,
               row_number() OVER (ORDER BY t.finalized_at, i.subscription, i.id) AS place,
               row_number() OVER (PARTITION BY p.prefix ORDER BY t.finalized_at, i.subscription, i.id) AS number,
               t.finalized_at + make_interval(days => CASE i.collection_method
                   WHEN 'send_invoice' THEN coalesce(i.days_until_due, s.days_until_due) END) AS due_date
        FROM billing.invoices i
        LEFT JOIN billing.subscriptions s ON s.id = i.subscription
        CROSS JOIN LATERAL (SELECT coalesce(finalize_drafts.as_of, billing.finalizes_at(i, delay))) t (finalized_at)
        CROSS JOIN LATERAL (
            SELECT CASE numbering WHEN 'account' THEN 'INV'
                   ELSE (SELECT c.invoice_prefix FROM billing.customers c WHERE c.id = i.customer) END) p (prefix)
        WHERE i.id = ANY (finalize_drafts.invoices)
    ), counts AS (
        SELECT d.prefix, count(*) AS count FROM drafts d GROUP BY d.prefix
    ), last_numbers AS (
        INSERT INTO billing.invoice_numbers AS n (prefix, last_number)
        SELECT c.prefix, c.count FROM counts c ORDER BY c.prefix
        ON CONFLICT (prefix) DO UPDATE SET last_number = n.last_number + excluded.last_number
        RETURNING n.prefix, n.last_number
    ), openings AS (
        SELECT d.customer, d.currency, coalesce(max(b.ending_balance), 0) AS balance,
               coalesce(max(y.minimum_charge), 0) AS minimum
        FROM (SELECT DISTINCT d.customer, d.currency FROM drafts d
              WHERE d.customer IN (SELECT unnest(balanced))) d
        LEFT JOIN billing.currencies y ON y.currency = d.currency
        LEFT JOIN LATERAL (
            SELECT t.ending_balance FROM billing.customer_balance_transactions t
            WHERE t.customer = d.customer AND t.currency = d.currency ORDER BY t.place DESC LIMIT 1) b ON true
        GROUP BY d.customer, d.currency
    ), endings AS (
        SELECT d.id, d.customer, d.currency, d.place, o.balance,
               billing.balance_after(o.balance, CASE WHEN NOT d.waived THEN d.total END,
                                     -- Voided, it asks for nothing; given up, it leaves nothing to be asked for later.
                                     CASE d.pause_behavior WHEN 'void' THEN 9223372036854775807
                                          WHEN 'mark_uncollectible' THEN 0 ELSE o.minimum END)
                   OVER (PARTITION BY d.customer, d.currency ORDER BY d.place) AS ending
        FROM drafts d JOIN openings o ON (o.customer, o.currency) = (d.customer, d.currency)
    ), balances AS (
        SELECT e.id, e.ending, lag(e.ending, 1, e.balance) OVER (PARTITION BY e.customer, e.currency ORDER BY e.place)
                   AS starting
        FROM endings e
    ), settled AS (
        SELECT d.id, d.finalized_at, d.due_date, d.waived,
               coalesce(b.starting, 0) AS starting, coalesce(b.ending, 0) AS ending,
               d.total + coalesce(b.starting, 0) - coalesce(b.ending, 0) AS due,
               d.prefix || '-' || CASE WHEN length(n.number::text) < digits THEN lpad(n.number::text, digits, '0')
                                       ELSE n.number::text END AS number
        FROM drafts d
        JOIN counts c ON c.prefix = d.prefix
        JOIN last_numbers l ON l.prefix = d.prefix
        CROSS JOIN LATERAL (SELECT l.last_number - c.count + d.number) n (number)
        LEFT JOIN balances b ON b.id = d.id
    )
    UPDATE billing.invoices i
    SET number = s.number,
        finalized_at = s.finalized_at,
        starting_balance = s.starting,
        ending_balance = s.ending,
        amount_due = s.due,
        status = CASE WHEN s.due = 0 AND NOT s.waived THEN 'paid' ELSE 'open' END,
        paid_at = CASE WHEN s.due = 0 AND NOT s.waived THEN s.finalized_at END,
        due_date = s.due_date
    FROM settled s
    WHERE s.id = i.id;

    IF cardinality(balanced) > 0 THEN
        -- What is carried to the next invoice is above zero; what it owed from before is then settled first.
        WITH changes AS (
            SELECT i.customer, i.currency, c.amount, c.type, i.id, i.finalized_at,
                   row_number() OVER w AS place, sum(c.amount) OVER w AS sum
            FROM billing.invoices i
            CROSS JOIN LATERAL (
                VALUES (1, 'applied_to_invoice', CASE WHEN i.ending_balance > 0 THEN 0 ELSE i.ending_balance END
                                                 - i.starting_balance),
                       (2, CASE i.amount_due WHEN 0 THEN 'invoice_too_small' ELSE 'invoice_too_large' END,
                        greatest(i.ending_balance, 0))) c (step, type, amount)
            WHERE i.id = ANY (finalize_drafts.invoices) AND i.customer = ANY (balanced)
              AND i.ending_balance <> i.starting_balance AND c.amount <> 0
            WINDOW w AS (PARTITION BY i.customer, i.currency ORDER BY i.finalized_at, i.subscription, i.id, c.step)
        )
        INSERT INTO billing.customer_balance_transactions
            (customer, currency, amount, type, invoice, created, place, starting_balance, ending_balance)
        SELECT c.customer, c.currency, c.amount, c.type, c.id, c.finalized_at, coalesce(b.place, 0) + c.place,
               coalesce(b.ending_balance, 0) + c.sum - c.amount, coalesce(b.ending_balance, 0) + c.sum
        FROM changes c
        LEFT JOIN LATERAL (
            SELECT t.place, t.ending_balance FROM billing.customer_balance_transactions t
            WHERE t.customer = c.customer AND t.currency = c.currency ORDER BY t.place DESC LIMIT 1) b ON true
        ORDER BY c.customer, c.currency, c.place
        -- Under REPEATABLE READ another session's transaction may be there unseen: then this raises 40001.
        ON CONFLICT ON CONSTRAINT customer_balance_transactions_place_key DO NOTHING;
    END IF;
    PERFORM billing.forget_late_usage(finalize_drafts.invoices);
    -- What was created while collection was paused is given up at once, or waived.
    PERFORM billing.settle_invoice(i.id, CASE p.behavior WHEN 'void' THEN 'void' ELSE 'uncollectible' END,
                                   i.finalized_at)
    FROM billing.invoices i JOIN billing.subscriptions s ON s.id = i.subscription
    CROSS JOIN LATERAL (SELECT billing.pause_behavior(i, s)) p (behavior)
    WHERE i.id = ANY (finalize_drafts.invoices) AND i.status = 'open'
      AND (p.behavior = 'mark_uncollectible' OR billing.is_waived(i, s))
    ORDER BY i.number;
END $$;
COMMENT ON FUNCTION billing.finalize_drafts(text[], timestamptz) IS
'Finalizes rated drafts, but for those with a finalization_error: gives numbers, applies customer balances and minimum
charges, makes them open, or paid when nothing is due; what was created while collection was paused it then voids or gives
up. finalized_at is as_of, or that of billing.finalizes_at when as_of is NULL. The caller holds their locks. Internal.';

CREATE FUNCTION billing.finalize_beside_folding(invoices text[], as_of timestamptz DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    marks billing.late_usage_marks[] := ARRAY(
        SELECT m FROM billing.late_usage_marks m
        WHERE m.subscription IN (SELECT i.subscription FROM billing.invoices i
                                 WHERE i.id = ANY (finalize_beside_folding.invoices)));
BEGIN
    PERFORM billing.finalize_drafts(invoices, as_of);
    INSERT INTO billing.late_usage_marks
    SELECT m.subscription, m.event_name, m.day, true FROM unnest(marks) m ON CONFLICT DO NOTHING;
    PERFORM billing.mark_invoiced_usage(i.id) FROM unnest(invoices) i (id);
END $$;
COMMENT ON FUNCTION billing.finalize_beside_folding(text[], timestamptz) IS
'billing.finalize_drafts() for a caller that did not call billing.lock_usage(): what is being folded meanwhile is on the next
invoice, as all that comes late. Internal.';

CREATE FUNCTION billing.set_next_invoice_sequence(
    next_invoice_sequence bigint, customer text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    used_prefix text := 'INV';
    used bigint;
BEGIN
    PERFORM billing.require_argument('next_invoice_sequence', next_invoice_sequence);
    IF next_invoice_sequence NOT BETWEEN 1 AND 1000000000 THEN
        RAISE EXCEPTION 'next_invoice_sequence % is not from 1 to 1000000000', next_invoice_sequence
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass the number that the next invoice is to have.';
    ELSIF customer IS NOT NULL THEN
        PERFORM FROM billing.customers c WHERE c.id = customer FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'customer "%" does not exist', customer
                USING ERRCODE = 'undefined_object', HINT = 'See billing.customers for the customers there are.';
        END IF;
        PERFORM billing.make_invoice_prefixes(ARRAY[customer]);
        SELECT c.invoice_prefix INTO used_prefix FROM billing.customers c WHERE c.id = customer;
    END IF;
    -- Locked before it is asked what was used, or another session could use one meanwhile.
    INSERT INTO billing.invoice_numbers AS n (prefix, last_number) VALUES (used_prefix, 0)
    ON CONFLICT (prefix) DO UPDATE SET last_number = n.last_number;
    SELECT max(substr(i.number, length(used_prefix) + 2)::bigint) INTO used
    FROM billing.invoices i
    WHERE i.number >= used_prefix || '-' AND i.number < used_prefix || '.';  -- the character after the hyphen
    IF next_invoice_sequence <= used THEN
        RAISE EXCEPTION 'next_invoice_sequence % is used already: the last number of % is %',
                next_invoice_sequence, used_prefix, used
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass a greater one.';
    END IF;
    UPDATE billing.invoice_numbers n SET last_number = next_invoice_sequence - 1 WHERE n.prefix = used_prefix;
    RETURN used_prefix;
END $$;
COMMENT ON FUNCTION billing.set_next_invoice_sequence(bigint, text) IS
'Sets the number of the next invoice: of a customer, where billing.invoice_numbering is customer, or of the account
(customer NULL). Returns the prefix of those numbers. What it skips is a gap that somebody wanted. Errors: 42704
unknown customer; 22023 a number that is used already, or not from 1 to 1000000000; 22004 NULL.';
