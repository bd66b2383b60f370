-- The customer balance: where an invoice below zero leaves its rest, for the next invoices to use up. A ledger in which
-- each row goes on from the one before, so that a balance is never a sum that two sessions could have missed each other in.

CREATE TABLE billing.customer_balance_transactions (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('cbtxn'),
    customer text COLLATE "C" NOT NULL REFERENCES billing.customers,
    currency text NOT NULL,
    amount bigint NOT NULL CONSTRAINT customer_balance_transactions_amount_not_zero CHECK (amount <> 0),
    type text NOT NULL CONSTRAINT customer_balance_transactions_type_known
        CHECK (type IN ('adjustment', 'applied_to_invoice', 'unapplied_from_invoice', 'invoice_too_small',
                        'invoice_too_large', 'credit_note', 'credit_repaid')),
    invoice text COLLATE "C" REFERENCES billing.invoices,
    created timestamptz NOT NULL,
    credit_note text COLLATE "C" REFERENCES billing.credit_notes,
    description text,
    place bigint NOT NULL CONSTRAINT customer_balance_transactions_place_positive CHECK (place > 0),
    place_before bigint GENERATED ALWAYS AS (nullif(place - 1, 0)) STORED,
    starting_balance numeric NOT NULL,
    ending_balance numeric NOT NULL,
    CONSTRAINT customer_balance_transactions_caused CHECK (
        (type = 'adjustment') = (invoice IS NULL) AND (type = 'credit_note') = (credit_note IS NOT NULL)),
    CONSTRAINT customer_balance_transactions_adds_up CHECK (ending_balance = starting_balance + amount),
    CONSTRAINT customer_balance_transactions_starts_at_zero CHECK (place > 1 OR starting_balance = 0),
    CONSTRAINT customer_balance_transactions_place_key UNIQUE (customer, currency, place),
    CONSTRAINT customer_balance_transactions_place_balance_key UNIQUE (customer, currency, place, ending_balance),
    CONSTRAINT customer_balance_transactions_goes_on FOREIGN KEY (customer, currency, place_before, starting_balance)
        REFERENCES billing.customer_balance_transactions (customer, currency, place, ending_balance)
);
CREATE UNIQUE INDEX customer_balance_transactions_once ON billing.customer_balance_transactions (invoice, type)
    WHERE credit_note IS NULL;
CREATE UNIQUE INDEX customer_balance_transactions_credit_note_key
    ON billing.customer_balance_transactions (credit_note) WHERE credit_note IS NOT NULL;
COMMENT ON TABLE billing.customer_balance_transactions IS
'Every change of a customer''s balance, by currency; append-only. Negative is credit of the customer''s, positive is
owed with the next invoice.';
COMMENT ON COLUMN billing.customer_balance_transactions.id IS 'The transaction''s id (cbtxn_...).';
COMMENT ON COLUMN billing.customer_balance_transactions.customer IS 'Whose balance changed.';
COMMENT ON COLUMN billing.customer_balance_transactions.currency IS 'ISO 4217 code in lower case.';
COMMENT ON COLUMN billing.customer_balance_transactions.amount IS
'Minor units: negative adds credit (an invoice below zero, or credit given back), positive uses credit up or is owed.';
COMMENT ON COLUMN billing.customer_balance_transactions.type IS
'adjustment (by hand), applied_to_invoice (at finalization), unapplied_from_invoice (given back by voiding),
invoice_too_small (below the minimum charge, carried to the next invoice), invoice_too_large (beyond bigint, carried
too), credit_note, or credit_repaid (voiding takes credit back that has paid for something else meanwhile).';
COMMENT ON COLUMN billing.customer_balance_transactions.invoice IS
'The invoice that caused it, or that its credit note credits; NULL for an adjustment.';
COMMENT ON COLUMN billing.customer_balance_transactions.created IS 'When, on the clock of the as_of arguments.';
COMMENT ON COLUMN billing.customer_balance_transactions.credit_note IS 'The credit note that caused it; else NULL.';
COMMENT ON COLUMN billing.customer_balance_transactions.description IS 'Text for people; NULL when there is none.';
COMMENT ON COLUMN billing.customer_balance_transactions.place IS
'1 and on: its place among the transactions of the customer in this currency.';
COMMENT ON COLUMN billing.customer_balance_transactions.place_before IS
'The place before it, whose ending_balance it starts from; NULL for the first.';
COMMENT ON COLUMN billing.customer_balance_transactions.starting_balance IS 'The balance before it.';
COMMENT ON COLUMN billing.customer_balance_transactions.ending_balance IS
'The balance after it. That of the greatest place is the customer''s balance.';
COMMENT ON INDEX billing.customer_balance_transactions_once IS 'An invoice changes a balance once in each way.';
COMMENT ON INDEX billing.customer_balance_transactions_credit_note_key IS 'A credit note changes a balance once.';
SELECT pg_catalog.pg_extension_config_dump('billing.customer_balance_transactions', '');

CREATE TRIGGER customer_balance_transactions_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.customer_balance_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION billing.append_only();
COMMENT ON TRIGGER customer_balance_transactions_append_only ON billing.customer_balance_transactions IS 'Append-only.';

CREATE FUNCTION billing.customer_balance(customer text, currency text) RETURNS numeric
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN coalesce((SELECT t.ending_balance FROM billing.customer_balance_transactions t
                     WHERE t.customer = customer_balance.customer AND t.currency = customer_balance.currency
                     ORDER BY t.place DESC LIMIT 1), 0);
END $$;
COMMENT ON FUNCTION billing.customer_balance(text, text) IS
'A customer''s balance in a currency, in minor units: negative is credit that the next invoices use up, positive is
owed with the next one. 0 when there is none.';

CREATE FUNCTION billing.change_customer_balance(
    customer text, currency text, amount bigint, type text, invoice text, credit_note text, description text,
    created timestamptz
) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    transaction_id text;
    ending numeric;
BEGIN
    PERFORM FROM billing.customers c WHERE c.id = change_customer_balance.customer FOR NO KEY UPDATE;
    INSERT INTO billing.customer_balance_transactions
        (customer, currency, amount, type, invoice, credit_note, description, created, place, starting_balance,
         ending_balance)
    SELECT change_customer_balance.customer, change_customer_balance.currency, change_customer_balance.amount,
           change_customer_balance.type, change_customer_balance.invoice, change_customer_balance.credit_note,
           change_customer_balance.description, change_customer_balance.created,
           coalesce(max(l.place), 0) + 1, coalesce(max(l.ending_balance), 0),
           coalesce(max(l.ending_balance), 0) + change_customer_balance.amount
    FROM (SELECT t.place, t.ending_balance FROM billing.customer_balance_transactions t
          WHERE t.customer = change_customer_balance.customer AND t.currency = change_customer_balance.currency
          ORDER BY t.place DESC LIMIT 1) l
    -- Under REPEATABLE READ another session's transaction may be there unseen: then this raises 40001.
    ON CONFLICT ON CONSTRAINT customer_balance_transactions_place_key DO NOTHING
    RETURNING id, ending_balance INTO STRICT transaction_id, ending;
    IF ending > 9223372036854775807 THEN
        RAISE EXCEPTION 'the balance of customer "%" would be %, beyond the range of bigint', customer, ending
            USING ERRCODE = 'numeric_value_out_of_range', HINT = 'No invoice could ask for it.';
    END IF;
    RETURN transaction_id;
END $$;
COMMENT ON FUNCTION billing.change_customer_balance(text, text, bigint, text, text, text, text, timestamptz) IS
'Adds one transaction to a customer''s balance, whose row it locks, and returns its id. Errors: 22003 a balance that
no invoice could ask for. Internal.';

CREATE FUNCTION billing.adjust_customer_balance(
    customer text, amount bigint, currency text, description text DEFAULT NULL, as_of timestamptz DEFAULT now()
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.require_argument('customer', customer);
    PERFORM billing.require_argument('amount', amount);
    PERFORM billing.require_argument('currency', currency);
    PERFORM billing.require_time('as_of', as_of);
    IF NOT EXISTS (SELECT FROM billing.customers c WHERE c.id = adjust_customer_balance.customer) THEN
        RAISE EXCEPTION 'customer "%" does not exist', customer
            USING ERRCODE = 'foreign_key_violation', HINT = 'Create it with billing.create_customer.';
    ELSIF amount = 0 THEN
        RAISE EXCEPTION 'an adjustment of 0 changes nothing'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Pass a negative amount to give credit, or a positive one to charge with the next invoice.';
    ELSIF currency !~ '^[a-z]{3}$' THEN
        RAISE EXCEPTION '"%" is no currency', currency
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass an ISO 4217 code in lower case, such as usd.';
    END IF;
    PERFORM billing.currency_exponent(currency);  -- refuses what no invoice can be in
    RETURN billing.change_customer_balance(customer, currency, amount, 'adjustment', NULL, NULL, description, as_of);
END $$;
COMMENT ON FUNCTION billing.adjust_customer_balance(text, bigint, text, text, timestamptz) IS
'Changes a customer''s balance by hand and returns the transaction''s id: a negative amount is credit that the next
invoices use up, a positive one is asked for with the next invoice. Errors: 23503 unknown customer; 22023 amount 0, a
currency that is none, as_of infinite; 22003 a balance beyond bigint; 22004 NULL.';
