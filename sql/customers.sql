-- Customers: whom usage is recorded for and invoices are made out to. The application's own ids.

CREATE TABLE billing.customers (
    id text COLLATE "C" PRIMARY KEY CONSTRAINT customers_id_length CHECK (length(id) BETWEEN 1 AND 255),
    name text,
    email text,
    metadata jsonb NOT NULL DEFAULT '{}' CONSTRAINT customers_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    tax_exempt text NOT NULL DEFAULT 'none'
        CONSTRAINT customers_tax_exempt_known CHECK (tax_exempt IN ('none', 'exempt', 'reverse')),
    invoice_prefix text COLLATE "C" CONSTRAINT customers_invoice_prefix_form
        CHECK (invoice_prefix ~ '^[A-Z0-9]{3,12}$' AND invoice_prefix <> 'INV')
);
CREATE UNIQUE INDEX customers_invoice_prefix_key ON billing.customers (invoice_prefix)
    WHERE invoice_prefix IS NOT NULL;
COMMENT ON INDEX billing.customers_invoice_prefix_key IS 'Numbers of two customers never meet.';
COMMENT ON TABLE billing.customers IS
'Whom usage is recorded for and invoices are made out to. Rows may be inserted and updated directly; a customer with a
subscription or an invoice cannot be deleted.';
COMMENT ON COLUMN billing.customers.id IS 'The application''s own id, 1 to 255 characters. Never changes.';
COMMENT ON COLUMN billing.customers.name IS 'Name for people; NULL when not known.';
COMMENT ON COLUMN billing.customers.email IS 'Address for invoices; not verified; NULL when not known.';
COMMENT ON COLUMN billing.customers.metadata IS
'A JSON object that the application keeps here; it carries no meaning for billing.';
COMMENT ON COLUMN billing.customers.created IS 'When the row was made.';
COMMENT ON COLUMN billing.customers.tax_exempt IS
'none, exempt (owes no tax) or reverse (owes it to the tax office itself: reverse charge). Counts when an invoice is
finalized.';
COMMENT ON COLUMN billing.customers.invoice_prefix IS
'What the numbers of its invoices begin with where billing.invoice_numbering is customer: 3 to 12 of A-Z and 0-9, but
not INV. NULL: one is made with its first such number.';
SELECT pg_catalog.pg_extension_config_dump('billing.customers', '');

CREATE FUNCTION billing.customers_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the id of customer "%" cannot change', OLD.id
        USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'customers', COLUMN = 'id',
              HINT = 'Recorded usage names the customer by it. Create a customer with another id.';
END $$;
COMMENT ON FUNCTION billing.customers_check() IS
'Trigger: keeps a customer''s id (23001), which events carry without a foreign key.';
CREATE TRIGGER customers_check BEFORE UPDATE ON billing.customers
    FOR EACH ROW WHEN (OLD.id <> NEW.id) EXECUTE FUNCTION billing.customers_check();
COMMENT ON TRIGGER customers_check ON billing.customers IS 'The id stays.';

-- A new customer need not be announced: only those that were found are kept. The id never changes.
CREATE TRIGGER customers_announce_change AFTER DELETE OR TRUNCATE ON billing.customers
    FOR EACH STATEMENT EXECUTE FUNCTION billing.announce_change();
ALTER TABLE billing.customers ENABLE ALWAYS TRIGGER customers_announce_change;
COMMENT ON TRIGGER customers_announce_change ON billing.customers IS
'Has every session that records look the customers up again.';
CREATE TRIGGER customers_announce_replicated_change AFTER DELETE ON billing.customers
    FOR EACH ROW EXECUTE FUNCTION billing.announce_change();
ALTER TABLE billing.customers ENABLE REPLICA TRIGGER customers_announce_replicated_change;
COMMENT ON TRIGGER customers_announce_replicated_change ON billing.customers IS
'The same for each row that a subscription of logical replication deletes, which fires no triggers of statements.';

CREATE FUNCTION billing.create_customer(
    id text, name text DEFAULT NULL, email text DEFAULT NULL, metadata jsonb DEFAULT '{}'
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.require_argument('id', create_customer.id);
    PERFORM billing.require_argument('metadata', create_customer.metadata);
    INSERT INTO billing.customers (id, name, email, metadata)
    VALUES (create_customer.id, create_customer.name, create_customer.email, create_customer.metadata)
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND AND NOT EXISTS (
        SELECT FROM billing.customers c
        WHERE c.id = create_customer.id AND c.metadata = create_customer.metadata
          AND (c.name, c.email) IS NOT DISTINCT FROM (create_customer.name, create_customer.email)
    ) THEN
        RAISE EXCEPTION 'customer "%" exists already with other data', create_customer.id
            USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'customers',
                  HINT = 'Change it with UPDATE billing.customers, or create a customer with another id.';
    END IF;
    RETURN create_customer.id;
END $$;
COMMENT ON FUNCTION billing.create_customer(text, text, text, jsonb) IS
'Creates a customer and returns its id. Creating it again with equal data is no error, so that a retry is safe.
Errors: 23505 the id exists with other data; 23514 an id of 0 or more than 255 characters, or metadata that is no JSON
object; 22004 id or metadata NULL.';

CREATE FUNCTION billing.set_customer_tax_exempt(customer text, tax_exempt text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.require_argument('customer', customer);
    PERFORM billing.require_argument('tax_exempt', set_customer_tax_exempt.tax_exempt);
    IF set_customer_tax_exempt.tax_exempt NOT IN ('none', 'exempt', 'reverse') THEN
        RAISE EXCEPTION 'tax_exempt "%" is not known', set_customer_tax_exempt.tax_exempt
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use none, exempt or reverse.';
    END IF;
    UPDATE billing.customers c SET tax_exempt = set_customer_tax_exempt.tax_exempt WHERE c.id = customer;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'customer "%" does not exist', customer
            USING ERRCODE = 'undefined_object', HINT = 'See billing.customers for the customers there are.';
    END IF;
    RETURN customer;
END $$;
COMMENT ON FUNCTION billing.set_customer_tax_exempt(text, text) IS
'Says whether a customer''s invoices bear tax (none), or not (exempt, reverse), and returns the customer''s id. Invoices
that are final stay as they are. Errors: 42704 unknown customer; 22023 another word; 22004 NULL.';
