-- Credit grants: what a customer has paid ahead, or been given, for metered usage; and the ledger of what becomes of it.

CREATE TABLE billing.credit_grants (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('credgr')
        CONSTRAINT credit_grants_id_length CHECK (length(id) BETWEEN 1 AND 255),
    customer text COLLATE "C" NOT NULL REFERENCES billing.customers,
    name text CONSTRAINT credit_grants_name_length CHECK (length(name) BETWEEN 1 AND 100),
    amount bigint NOT NULL CONSTRAINT credit_grants_amount_positive CHECK (amount > 0),
    currency text NOT NULL,
    price_type text CONSTRAINT credit_grants_price_type_known CHECK (price_type = 'metered'),
    prices text[] CONSTRAINT credit_grants_prices_few CHECK (cardinality(prices) BETWEEN 1 AND 20),
    category text NOT NULL CONSTRAINT credit_grants_category_known CHECK (category IN ('paid', 'promotional')),
    priority integer NOT NULL DEFAULT 50 CONSTRAINT credit_grants_priority_range CHECK (priority BETWEEN 0 AND 100),
    effective_at timestamptz NOT NULL,
    expires_at timestamptz,
    voided_at timestamptz,
    metadata jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT credit_grants_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL,
    balance bigint NOT NULL DEFAULT 0,
    transaction_count integer NOT NULL DEFAULT 0,
    repaid bigint NOT NULL DEFAULT 0,
    CONSTRAINT credit_grants_one_scope CHECK (num_nonnulls(price_type, prices) = 1),
    CONSTRAINT credit_grants_expires_after_effective CHECK (expires_at > effective_at),
    -- Whatever several sessions do at once, no credit is used twice and none comes from nowhere.
    CONSTRAINT credit_grants_balance_within_amount CHECK (balance BETWEEN 0 AND amount::numeric + repaid)
);
CREATE INDEX credit_grants_customer_idx ON billing.credit_grants (customer, currency);
CREATE INDEX credit_grants_expires_at_idx ON billing.credit_grants (expires_at) WHERE balance > 0;
COMMENT ON TABLE billing.credit_grants IS
'Credit for metered usage. Used in this order: priority, expires_at (none last), promotional before paid, effective_at,
created, id. Only expires_at, metadata and what the ledger says may change.';
COMMENT ON COLUMN billing.credit_grants.id IS 'The grant''s id (credgr_...).';
COMMENT ON COLUMN billing.credit_grants.customer IS 'Whose it is.';
COMMENT ON COLUMN billing.credit_grants.name IS 'Name for people, at most 100 characters; NULL when there is none.';
COMMENT ON COLUMN billing.credit_grants.amount IS 'Minor units granted.';
COMMENT ON COLUMN billing.credit_grants.currency IS 'ISO 4217 code in lower case: it pays invoices in this currency only.';
COMMENT ON COLUMN billing.credit_grants.price_type IS 'metered: it pays for all metered prices; NULL with prices.';
COMMENT ON COLUMN billing.credit_grants.prices IS 'The metered prices that it pays for, at most 20; NULL with price_type.';
COMMENT ON COLUMN billing.credit_grants.category IS 'paid or promotional.';
COMMENT ON COLUMN billing.credit_grants.priority IS '0 (used first) to 100; 50 when not said.';
COMMENT ON COLUMN billing.credit_grants.effective_at IS
'It pays for invoices whose period ends then or later.';
COMMENT ON COLUMN billing.credit_grants.expires_at IS
'It pays for invoices whose period ends before; NULL: it never expires.';
COMMENT ON COLUMN billing.credit_grants.voided_at IS 'When it was voided; NULL: it was not.';
COMMENT ON COLUMN billing.credit_grants.metadata IS
'A JSON object that the application keeps here; it carries no meaning for billing.';
COMMENT ON COLUMN billing.credit_grants.created IS 'The as_of of its creation.';
COMMENT ON COLUMN billing.credit_grants.balance IS
'What is left: the sum of its ledger, which a trigger makes sure of. Never below zero or above amount and repaid.';
COMMENT ON COLUMN billing.credit_grants.transaction_count IS 'Rows of its ledger.';
COMMENT ON COLUMN billing.credit_grants.repaid IS
'What the customer has paid into it in money: credit that voiding took back after it had paid for something else.';
COMMENT ON INDEX billing.credit_grants_customer_idx IS 'Finds the grants of a customer.';
COMMENT ON INDEX billing.credit_grants_expires_at_idx IS 'Finds what is left of grants that have expired.';
SELECT pg_catalog.pg_extension_config_dump('billing.credit_grants', '');

CREATE TABLE billing.credit_balance_transactions (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('cbtxn'),
    credit_grant text COLLATE "C" NOT NULL REFERENCES billing.credit_grants,
    place integer NOT NULL CONSTRAINT credit_balance_transactions_place_positive CHECK (place > 0),
    type text NOT NULL,
    reason text NOT NULL,
    amount bigint NOT NULL CONSTRAINT credit_balance_transactions_amount_positive CHECK (amount > 0),
    invoice text COLLATE "C" REFERENCES billing.invoices,
    invoice_line text COLLATE "C" REFERENCES billing.invoice_lines,
    effective_at timestamptz NOT NULL,
    created timestamptz NOT NULL,
    CONSTRAINT credit_balance_transactions_reason_known CHECK (
        type = 'credit' AND reason IN ('credits_granted', 'credits_application_invoice_voided', 'credits_usage_corrected',
                                       'credits_repaid')
        OR type = 'debit' AND reason IN ('credits_applied', 'credits_expired', 'credits_voided',
                                         'credits_correction_invoice_voided')),
    CONSTRAINT credit_balance_transactions_granted_first CHECK ((reason = 'credits_granted') = (place = 1)),
    CONSTRAINT credit_balance_transactions_with_line CHECK (
        num_nonnulls(invoice, invoice_line) =
        CASE WHEN reason IN ('credits_applied', 'credits_application_invoice_voided', 'credits_usage_corrected',
                             'credits_correction_invoice_voided', 'credits_repaid') THEN 2 ELSE 0 END),
    CONSTRAINT credit_balance_transactions_place_key UNIQUE (credit_grant, place),
    CONSTRAINT credit_balance_transactions_line_key UNIQUE (invoice_line, credit_grant, reason)
);
CREATE INDEX credit_balance_transactions_invoice_idx ON billing.credit_balance_transactions (invoice)
    WHERE invoice IS NOT NULL;
COMMENT ON TABLE billing.credit_balance_transactions IS
'The ledger of credit grants; append-only. What is left of a grant is its credits less its debits.';
COMMENT ON COLUMN billing.credit_balance_transactions.id IS 'The transaction''s id (cbtxn_...).';
COMMENT ON COLUMN billing.credit_balance_transactions.credit_grant IS 'The grant whose balance changed.';
COMMENT ON COLUMN billing.credit_balance_transactions.place IS
'Its place in the grant''s ledger, from 1 without gaps; a trigger gives it.';
COMMENT ON COLUMN billing.credit_balance_transactions.type IS 'credit (adds) or debit (takes away).';
COMMENT ON COLUMN billing.credit_balance_transactions.reason IS
'Stripe''s type of the credit or debit: credits_granted or credits_application_invoice_voided; credits_applied,
credits_expired or credits_voided. Beyond Stripe: credits_usage_corrected, for usage that it had paid and that was given
back, and credits_correction_invoice_voided, which takes that away again; credits_repaid, where it had been used meanwhile
and the customer owes it (billing.customer_balance_transactions).';
COMMENT ON COLUMN billing.credit_balance_transactions.amount IS 'Minor units of the grant''s currency, above zero.';
COMMENT ON COLUMN billing.credit_balance_transactions.invoice IS
'The invoice that it paid, that gave it back, or whose voiding undid one of these; NULL for other reasons.';
COMMENT ON COLUMN billing.credit_balance_transactions.invoice_line IS 'The line of that invoice; NULL for other reasons.';
COMMENT ON COLUMN billing.credit_balance_transactions.effective_at IS
'From when it counts: of a grant its effective_at, of its expiry its expires_at, else created.';
COMMENT ON COLUMN billing.credit_balance_transactions.created IS 'When, on the clock of the as_of arguments.';
COMMENT ON INDEX billing.credit_balance_transactions_invoice_idx IS 'Finds what paid for an invoice.';
SELECT pg_catalog.pg_extension_config_dump('billing.credit_balance_transactions', '');

CREATE FUNCTION billing.credit_grants_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ledger record;
BEGIN
    IF TG_WHEN = 'BEFORE' THEN
        IF TG_OP <> 'UPDATE'
           OR (OLD.id, OLD.customer, OLD.name, OLD.amount, OLD.currency, OLD.price_type, OLD.prices, OLD.category,
               OLD.priority, OLD.effective_at, OLD.created)
              IS DISTINCT FROM
              (NEW.id, NEW.customer, NEW.name, NEW.amount, NEW.currency, NEW.price_type, NEW.prices, NEW.category,
               NEW.priority, NEW.effective_at, NEW.created)
           OR OLD.voided_at IS NOT NULL AND NEW.voided_at IS DISTINCT FROM OLD.voided_at
        THEN
            RAISE EXCEPTION 'credit grant "%" cannot change', CASE TG_OP WHEN 'TRUNCATE' THEN 'any' ELSE OLD.id END
                USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'credit_grants',
                      HINT = 'Only expires_at and metadata may. Void or expire it, and create another one.';
        END IF;
        RETURN NEW;
    END IF;
    -- At commit: whoever changed the balance has written the ledger, too.
    SELECT count(*) AS count, coalesce(sum(CASE t.type WHEN 'credit' THEN t.amount ELSE -t.amount END), 0) AS sum,
           coalesce(sum(t.amount) FILTER (WHERE t.reason = 'credits_repaid'), 0) AS repaid
    INTO ledger FROM billing.credit_balance_transactions t WHERE t.credit_grant = NEW.id;
    IF EXISTS (SELECT FROM billing.credit_grants g WHERE g.id = NEW.id
               AND (g.transaction_count, g.balance, g.repaid)
                   IS DISTINCT FROM (ledger.count, ledger.sum, ledger.repaid)) THEN
        RAISE EXCEPTION 'the ledger of credit grant "%" has % transactions of % in all, not what its balance says',
                NEW.id, ledger.count, ledger.sum
            USING ERRCODE = 'check_violation', SCHEMA = 'billing', TABLE = 'credit_grants', COLUMN = 'balance',
                  HINT = 'The balance follows from billing.credit_balance_transactions.';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION billing.credit_grants_check() IS
'Trigger: a credit grant keeps its terms and is never deleted (23001), and its balance is the sum of its ledger (23514).';
CREATE TRIGGER credit_grants_check BEFORE UPDATE OR DELETE ON billing.credit_grants
    FOR EACH ROW EXECUTE FUNCTION billing.credit_grants_check();
CREATE TRIGGER credit_grants_check_truncate BEFORE TRUNCATE ON billing.credit_grants
    FOR EACH STATEMENT EXECUTE FUNCTION billing.credit_grants_check();
-- Not on INSERT: a dump brings the grants before their ledger.
CREATE CONSTRAINT TRIGGER credit_grants_ledger AFTER UPDATE OF balance, transaction_count, repaid ON billing.credit_grants
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing.credit_grants_check();
COMMENT ON TRIGGER credit_grants_check ON billing.credit_grants IS 'The terms of a grant stay.';
COMMENT ON TRIGGER credit_grants_check_truncate ON billing.credit_grants IS 'Grants are never deleted.';
COMMENT ON TRIGGER credit_grants_ledger ON billing.credit_grants IS 'A balance is the sum of its ledger.';

CREATE FUNCTION billing.credit_balance_transactions_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    granted record;
BEGIN
    IF NEW.place IS NULL THEN
        -- This locks the grant: transactions of one grant come one after the other, and CHECK holds its balance.
        UPDATE billing.credit_grants g
        SET balance = g.balance + CASE NEW.type WHEN 'credit' THEN NEW.amount ELSE -NEW.amount END,
            transaction_count = g.transaction_count + 1,
            repaid = g.repaid + CASE NEW.reason WHEN 'credits_repaid' THEN NEW.amount ELSE 0 END
        WHERE g.id = NEW.credit_grant
        RETURNING g.transaction_count INTO NEW.place;
    ELSE
        -- A row that says its place comes out of a dump, whose grants know already how many they have.
        SELECT g.transaction_count AS count INTO granted FROM billing.credit_grants g WHERE g.id = NEW.credit_grant;
        IF NEW.place > granted.count THEN
            RAISE EXCEPTION 'transaction % of credit grant "%", which has %', NEW.place, NEW.credit_grant, granted.count
                USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'credit_balance_transactions',
                      COLUMN = 'place', HINT = 'Leave place out: a trigger gives it.';
        END IF;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION billing.credit_balance_transactions_check() IS
'Trigger: gives a transaction its place in the grant''s ledger and moves the grant''s balance by it. 23514: less is left;
23001: a place beyond those that the grant knows of.';
CREATE TRIGGER credit_balance_transactions_check BEFORE INSERT ON billing.credit_balance_transactions
    FOR EACH ROW EXECUTE FUNCTION billing.credit_balance_transactions_check();
CREATE TRIGGER credit_balance_transactions_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.credit_balance_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION billing.append_only();
COMMENT ON TRIGGER credit_balance_transactions_check ON billing.credit_balance_transactions IS
'The grant''s balance follows the ledger.';
COMMENT ON TRIGGER credit_balance_transactions_append_only ON billing.credit_balance_transactions IS 'Append-only.';

CREATE FUNCTION billing.create_credit_grant(
    credit_grant jsonb, id text DEFAULT NULL, as_of timestamptz DEFAULT now()
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    definition jsonb := billing.normalised_object('credit_grant', create_credit_grant.credit_grant);
    made billing.credit_grants;
    existing billing.credit_grants;
    wrong record;
    unused bigint;
BEGIN
    PERFORM billing.require_argument('credit_grant', definition);
    PERFORM billing.require_time('as_of', as_of);
    made.id := coalesce(create_credit_grant.id, definition ->> 'id', billing.generate_id('credgr'));
    made.customer := definition ->> 'customer';
    made.name := definition ->> 'name';
    made.amount := (definition #>> '{amount,monetary,value}')::bigint;
    made.currency := definition #>> '{amount,monetary,currency}';
    made.price_type := definition #>> '{applicability_config,scope,price_type}';
    made.prices := (SELECT array_agg(p.value ->> 'id' ORDER BY p.place)
        FROM jsonb_array_elements(definition #> '{applicability_config,scope,prices}')
            WITH ORDINALITY p (value, place));
    made.category := definition ->> 'category';
    made.priority := (definition ->> 'priority')::integer;
    made.effective_at := coalesce((definition ->> 'effective_at')::timestamptz, as_of);
    made.expires_at := (definition ->> 'expires_at')::timestamptz;
    made.metadata := coalesce(definition -> 'metadata', '{}');
    IF made.expires_at <= greatest(made.effective_at, as_of) THEN
        RAISE EXCEPTION 'expires_at % is not after effective_at % and as_of %',
                made.expires_at, made.effective_at, as_of
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave expires_at out for a grant that never expires.';
    END IF;
    -- Two sessions at once do not both make the hundredth.
    PERFORM FROM billing.customers c WHERE c.id = made.customer FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'customer "%" does not exist', made.customer
            USING ERRCODE = 'foreign_key_violation', HINT = 'Create it first with billing.create_customer.';
    END IF;
    SELECT g.* INTO existing FROM billing.credit_grants g WHERE g.id = made.id;
    IF existing.id IS NOT NULL THEN
        IF (existing.customer, existing.name, existing.amount, existing.currency, existing.price_type, existing.prices, existing.category,
            existing.priority, existing.metadata)
           IS DISTINCT FROM
           (made.customer, made.name, made.amount, made.currency, made.price_type, made.prices, made.category,
            made.priority, made.metadata)
           OR existing.effective_at <> (definition ->> 'effective_at')::timestamptz
        THEN
            RAISE EXCEPTION 'credit grant "%" exists already with other data', made.id
                USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'credit_grants',
                      HINT = 'A grant never changes: create one with another id.';
        END IF;
        RETURN existing.id;
    END IF;
    SELECT r.id, p.id IS NOT NULL AS known, p.currency, p.usage_type INTO wrong
    FROM unnest(made.prices) r (id) LEFT JOIN billing.prices p ON p.id = r.id
    WHERE p.usage_type IS DISTINCT FROM 'metered' LIMIT 1;
    IF NOT wrong.known THEN
        RAISE EXCEPTION 'price "%" does not exist', wrong.id
            USING ERRCODE = 'foreign_key_violation', HINT = 'Create it first with billing.create_price.';
    ELSIF wrong.known THEN
        RAISE EXCEPTION 'price "%" is not metered', wrong.id
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Credit pays for usage only.';
    END IF;
    SELECT p.id, p.currency INTO wrong FROM billing.prices p
    WHERE p.id = ANY (made.prices) AND p.currency <> made.currency
      AND NOT coalesce(p.price::jsonb -> 'currency_options' ? made.currency, false)
    ORDER BY p.id LIMIT 1;
    IF wrong.id IS NOT NULL THEN
        RAISE EXCEPTION 'price "%" is in %, and the credit is in %', wrong.id, wrong.currency, made.currency
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Credit pays for prices of its own currency.';
    END IF;
    SELECT count(*) INTO unused FROM billing.credit_grants g
    WHERE g.customer = made.customer AND g.voided_at IS NULL AND g.balance > 0
      AND coalesce(g.expires_at > as_of, true);
    IF unused >= 100 THEN
        RAISE EXCEPTION 'customer "%" has % unused credit grants already', made.customer, unused
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Void or expire some with billing.expire_credit_grant.';
    END IF;
    INSERT INTO billing.credit_grants
        (id, customer, name, amount, currency, price_type, prices, category, priority, effective_at, expires_at,
         metadata, created)
    VALUES (made.id, made.customer, made.name, made.amount, made.currency, made.price_type, made.prices, made.category,
            made.priority, made.effective_at, made.expires_at, made.metadata, as_of);
    INSERT INTO billing.credit_balance_transactions (credit_grant, type, reason, amount, effective_at, created)
    VALUES (made.id, 'credit', 'credits_granted', made.amount, made.effective_at, as_of);
    RETURN made.id;
END $$;
COMMENT ON FUNCTION billing.create_credit_grant(jsonb, text, timestamptz) IS
'Grants a customer credit for metered usage, from Stripe''s JSON, and returns the grant''s id: the argument, the object''s
own, or a new one (credgr_...). Fields: customer; amount {type: monetary, monetary: {currency, value}};
applicability_config {scope: {price_type: metered} or {prices: [{id}]}}; category (default paid), priority (0 to 100,
default 50), effective_at (default as_of), expires_at, name, metadata. Again with the same id and data is no error.
Errors: 23505 the id exists with other data; 23503 unknown customer or price; 54000 the customer has 100 unused grants;
22023 a price that is not metered, expires_at not after effective_at and as_of, a field breaks a rule; 22004 NULL.';

CREATE FUNCTION billing.lock_credit_grant(credit_grant text, as_of timestamptz) RETURNS billing.credit_grants
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found billing.credit_grants;
BEGIN
    PERFORM billing.require_argument('credit_grant', credit_grant);
    PERFORM billing.require_time('as_of', as_of);
    SELECT g.* INTO found FROM billing.credit_grants g WHERE g.id = credit_grant FOR NO KEY UPDATE;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'credit grant "%" does not exist', credit_grant
            USING ERRCODE = 'undefined_object', HINT = 'See billing.credit_grants for the grants there are.';
    ELSIF as_of < found.created THEN
        RAISE EXCEPTION 'as_of % is before credit grant "%", which is of %', as_of, credit_grant, found.created
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass a later as_of.';
    ELSIF found.voided_at IS NOT NULL THEN
        RAISE EXCEPTION 'credit grant "%" is voided, since %', credit_grant, found.voided_at
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Create another one.';
    ELSIF as_of >= found.expires_at THEN
        RAISE EXCEPTION 'credit grant "%" is expired, since %', credit_grant, found.expires_at
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Create another one.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION billing.lock_credit_grant(text, timestamptz) IS
'Locks a credit grant that is to change at as_of until the transaction ends and returns it. Errors: 42704 unknown; 55000
voided or expired; 22023 as_of before the grant or infinite; 22004 NULL. Internal.';

CREATE FUNCTION billing.update_credit_grant(credit_grant text, changes jsonb, as_of timestamptz DEFAULT now())
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    definition jsonb := billing.normalised_object('credit_grant_changes', update_credit_grant.changes);
    found billing.credit_grants;
    new_end timestamptz;
BEGIN
    PERFORM billing.require_argument('changes', definition);
    found := billing.lock_credit_grant(update_credit_grant.credit_grant, as_of);
    new_end := (definition ->> 'expires_at')::timestamptz;
    IF new_end <= greatest(found.effective_at, as_of) THEN
        RAISE EXCEPTION 'expires_at % is not after effective_at % and as_of %', new_end, found.effective_at, as_of
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use billing.expire_credit_grant to end it now.';
    END IF;
    UPDATE billing.credit_grants g
    SET expires_at = CASE WHEN definition ? 'expires_at' THEN new_end ELSE g.expires_at END,
        metadata = (SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}')
                    FROM jsonb_each(g.metadata || coalesce(definition -> 'metadata', '{}')) m WHERE m.value <> '""')
    WHERE g.id = found.id;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.update_credit_grant(text, jsonb, timestamptz) IS
'Changes expires_at (a time, or null for never) or metadata (merged; a key set to "" is removed) of a credit grant, all
that may change of one, and returns its id. Errors: 42704 unknown; 55000 voided or expired; 22023 expires_at not after
effective_at and as_of, any other field, as_of before the grant; 22004 NULL.';

CREATE FUNCTION billing.void_credit_grant(credit_grant text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.credit_grants := billing.lock_credit_grant(void_credit_grant.credit_grant, void_credit_grant.as_of);
BEGIN
    IF found.transaction_count > 1 THEN
        RAISE EXCEPTION 'credit grant "%" was used already and cannot be voided', found.id
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Use billing.expire_credit_grant to take away what is left.';
    END IF;
    UPDATE billing.credit_grants g SET voided_at = as_of WHERE g.id = found.id;
    INSERT INTO billing.credit_balance_transactions (credit_grant, type, reason, amount, effective_at, created)
    VALUES (found.id, 'debit', 'credits_voided', found.balance, greatest(as_of, found.effective_at), as_of);
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.void_credit_grant(text, timestamptz) IS
'Takes a credit grant back that was never used, and returns its id. Errors: 42704 unknown; 55000 used, voided or expired
already; 22023 as_of before the grant; 22004 NULL.';

CREATE FUNCTION billing.expire_credit_grant(credit_grant text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.credit_grants :=
        billing.lock_credit_grant(expire_credit_grant.credit_grant, expire_credit_grant.as_of);
BEGIN
    IF as_of <= found.effective_at THEN
        RAISE EXCEPTION 'credit grant "%" is not effective before %', found.id, found.effective_at
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Use billing.void_credit_grant.';
    END IF;
    UPDATE billing.credit_grants g SET expires_at = as_of WHERE g.id = found.id;
    INSERT INTO billing.credit_balance_transactions (credit_grant, type, reason, amount, effective_at, created)
    SELECT found.id, 'debit', 'credits_expired', found.balance, as_of, as_of WHERE found.balance > 0;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.expire_credit_grant(text, timestamptz) IS
'Ends a credit grant at as_of, taking away what is left of it, and returns its id. Errors: 42704 unknown; 55000 voided,
expired or not effective yet; 22023 as_of before the grant; 22004 NULL.';

CREATE FUNCTION billing.expire_credits(as_of timestamptz DEFAULT now()) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    posted bigint;
BEGIN
    PERFORM billing.require_time('as_of', as_of);
    -- Not while an invoice of a period that ended in time may still use it: when that is made final must not matter.
    WITH due AS MATERIALIZED (
        SELECT g.id, g.balance, g.expires_at FROM billing.credit_grants g
        WHERE g.balance > 0 AND g.expires_at <= expire_credits.as_of
          AND NOT EXISTS (SELECT FROM billing.invoices i
                          WHERE i.customer = g.customer AND i.status = 'draft' AND i.period_end < g.expires_at)
          AND NOT EXISTS (SELECT FROM billing.subscriptions s
                          WHERE s.customer = g.customer AND s.next_invoice_at < g.expires_at)
        -- A run has taken numbers by now, for which whoever holds a grant may wait; the next one writes it down.
        ORDER BY g.id FOR NO KEY UPDATE OF g SKIP LOCKED
    )
    INSERT INTO billing.credit_balance_transactions (credit_grant, type, reason, amount, effective_at, created)
    SELECT d.id, 'debit', 'credits_expired', d.balance, d.expires_at, expire_credits.as_of FROM due d;
    GET DIAGNOSTICS posted = ROW_COUNT;
    RETURN posted;
END $$;
COMMENT ON FUNCTION billing.expire_credits(timestamptz) IS
'Writes down what is left of credit grants that have expired by as_of, and that no other session is using, and returns of
how many. billing.generate_invoices does it; what a customer can still use (billing.credit_balance) does not depend on it. Errors: 22023 as_of infinite;
22004 NULL.';

CREATE FUNCTION billing.credit_balance(
    customer text, currency text, as_of timestamptz DEFAULT now(),
    OUT ledger_balance numeric, OUT available_balance numeric
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.require_argument('customer', credit_balance.customer);
    PERFORM billing.require_argument('currency', credit_balance.currency);
    PERFORM billing.require_time('as_of', as_of);
    SELECT coalesce(sum(b.balance), 0),
           coalesce(sum(b.balance) FILTER (WHERE coalesce(g.expires_at > credit_balance.as_of, true)), 0)
    INTO ledger_balance, available_balance
    FROM billing.credit_grants g
    CROSS JOIN LATERAL (
        SELECT sum(CASE t.type WHEN 'credit' THEN t.amount ELSE -t.amount END) AS balance
        FROM billing.credit_balance_transactions t
        WHERE t.credit_grant = g.id
          AND t.created <= credit_balance.as_of AND t.effective_at <= credit_balance.as_of
    ) b
    WHERE g.customer = credit_balance.customer AND g.currency = credit_balance.currency;
END $$;
COMMENT ON FUNCTION billing.credit_balance(text, text, timestamptz) IS
'A customer''s credit in a currency at any time, in minor units. ledger_balance: what the ledger says, of grants effective
by as_of. available_balance: the same without grants that have expired by then, whether that is written down yet or not.
What drafts would use counts as not used. Errors: 22023 as_of infinite; 22004 NULL.';
