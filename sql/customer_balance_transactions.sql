-- The customer balance: where an invoice below zero leaves its rest, for the next invoices to use up.

CREATE TABLE billing.customer_balance_transactions (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('cbtxn'),
    customer text COLLATE "C" NOT NULL REFERENCES billing.customers,
    currency text NOT NULL,
    amount bigint NOT NULL CONSTRAINT customer_balance_transactions_amount_not_zero CHECK (amount <> 0),
    type text NOT NULL CONSTRAINT customer_balance_transactions_type_known
        CHECK (type IN ('applied_to_invoice', 'unapplied_from_invoice')),
    invoice text COLLATE "C" NOT NULL REFERENCES billing.invoices,
    created timestamptz NOT NULL,
    CONSTRAINT customer_balance_transactions_once UNIQUE (invoice, type)
);
CREATE INDEX customer_balance_transactions_customer_idx
    ON billing.customer_balance_transactions (customer, currency);
COMMENT ON TABLE billing.customer_balance_transactions IS
'Every change of a customer''s balance; append-only. The balance is their sum by currency: negative is credit of the
customer''s.';
COMMENT ON COLUMN billing.customer_balance_transactions.id IS 'The transaction''s id (cbtxn_...).';
COMMENT ON COLUMN billing.customer_balance_transactions.customer IS 'Whose balance changed.';
COMMENT ON COLUMN billing.customer_balance_transactions.currency IS 'ISO 4217 code in lower case.';
COMMENT ON COLUMN billing.customer_balance_transactions.amount IS
'Minor units: negative adds credit (an invoice below zero, or credit given back), positive uses credit up.';
COMMENT ON COLUMN billing.customer_balance_transactions.type IS
'applied_to_invoice (at finalization) or unapplied_from_invoice (credit given back by voiding).';
COMMENT ON COLUMN billing.customer_balance_transactions.invoice IS 'The invoice that caused it.';
COMMENT ON COLUMN billing.customer_balance_transactions.created IS 'When, on the clock of the as_of arguments.';
COMMENT ON INDEX billing.customer_balance_transactions_customer_idx IS 'Adds a balance up.';
SELECT pg_catalog.pg_extension_config_dump('billing.customer_balance_transactions', '');

CREATE TRIGGER customer_balance_transactions_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.customer_balance_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION billing.append_only();
COMMENT ON TRIGGER customer_balance_transactions_append_only ON billing.customer_balance_transactions IS 'Append-only.';

CREATE FUNCTION billing.customer_balance(customer text, currency text) RETURNS numeric
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN (SELECT coalesce(sum(t.amount), 0) FROM billing.customer_balance_transactions t
            WHERE t.customer = customer_balance.customer AND t.currency = customer_balance.currency);
END $$;
COMMENT ON FUNCTION billing.customer_balance(text, text) IS
'A customer''s balance in a currency, in minor units: negative is credit that the next invoices use up. 0 when there
is none.';
