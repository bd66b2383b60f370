-- Products: what prices are prices of. A product gives invoice lines their name.

CREATE TABLE billing.products (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('prod')
        CONSTRAINT products_id_length CHECK (length(id) BETWEEN 1 AND 255),
    name text NOT NULL CONSTRAINT products_name_length CHECK (length(name) BETWEEN 1 AND 250),
    description text,
    unit_label text CONSTRAINT products_unit_label_length CHECK (length(unit_label) BETWEEN 1 AND 12),
    active boolean NOT NULL DEFAULT true,
    metadata jsonb NOT NULL DEFAULT '{}' CONSTRAINT products_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now(),
    tax_code text CONSTRAINT products_tax_code_length CHECK (length(tax_code) BETWEEN 1 AND 255),
    statement_descriptor text CONSTRAINT products_statement_descriptor_fit
        CHECK (length(statement_descriptor) <= 22 AND statement_descriptor ~ '[A-Za-z]'
               AND statement_descriptor !~ '[<>\\''"]'),
    url text CONSTRAINT products_url_length CHECK (length(url) BETWEEN 1 AND 5000)
);
COMMENT ON TABLE billing.products IS
'What prices are prices of. Rows may be inserted and updated directly; a product with prices is archived, not deleted.';
COMMENT ON COLUMN billing.products.id IS 'The application''s own id, 1 to 255 characters, or one made here (prod_...).';
COMMENT ON COLUMN billing.products.name IS 'Name for people, 1 to 250 characters; invoice lines carry it.';
COMMENT ON COLUMN billing.products.description IS 'Longer text for people; NULL when there is none.';
COMMENT ON COLUMN billing.products.unit_label IS
'What one unit is called ("seat"), 1 to 12 characters as in Stripe; NULL when there is none.';
COMMENT ON COLUMN billing.products.active IS
'False once archived: for the application to offer it no more; its prices work on.';
COMMENT ON COLUMN billing.products.metadata IS
'A JSON object that the application keeps here; it carries no meaning for billing.';
COMMENT ON COLUMN billing.products.created IS 'When the row was made.';
COMMENT ON COLUMN billing.products.tax_code IS
'Kind of product for tax (Stripe''s txcd_...), kept for the application; NULL when there is none.';
COMMENT ON COLUMN billing.products.statement_descriptor IS
'What a bank shows for a payment, kept for the application: at most 22 characters, one of them a letter, none of < > \
'' "; NULL when there is none.';
COMMENT ON COLUMN billing.products.url IS 'A page about the product; NULL when there is none.';
SELECT pg_catalog.pg_extension_config_dump('billing.products', '');

CREATE FUNCTION billing.create_product(
    id text, name text, description text DEFAULT NULL, unit_label text DEFAULT NULL, metadata jsonb DEFAULT '{}',
    tax_code text DEFAULT NULL, statement_descriptor text DEFAULT NULL, url text DEFAULT NULL, active boolean DEFAULT true
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.require_argument('id', create_product.id);
    PERFORM billing.require_argument('name', create_product.name);
    PERFORM billing.require_argument('metadata', create_product.metadata);
    PERFORM billing.require_argument('active', create_product.active);
    INSERT INTO billing.products (id, name, description, unit_label, metadata, tax_code, statement_descriptor, url, active)
    VALUES (create_product.id, create_product.name, create_product.description, create_product.unit_label,
            create_product.metadata, create_product.tax_code, create_product.statement_descriptor, create_product.url,
            create_product.active)
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND AND NOT EXISTS (
        SELECT FROM billing.products p
        WHERE p.id = create_product.id AND p.metadata = create_product.metadata
          AND (p.name, p.description, p.unit_label, p.tax_code, p.statement_descriptor, p.url) IS NOT DISTINCT FROM
              (create_product.name, create_product.description, create_product.unit_label, create_product.tax_code,
               create_product.statement_descriptor, create_product.url)
    ) THEN
        RAISE EXCEPTION 'product "%" exists already with other data', create_product.id
            USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'products',
                  HINT = 'Change it with billing.update_product, or create a product with another id.';
    END IF;
    RETURN create_product.id;
END $$;
COMMENT ON FUNCTION billing.create_product(text, text, text, text, jsonb, text, text, text, boolean) IS
'Creates a product and returns its id. Creating it again with equal data is no error, so that a retry is safe. Errors:
23505 the id exists with other data; 23514 a text too short or too long, or metadata that is no JSON object; 22004 id,
name, metadata or active NULL.';

CREATE FUNCTION billing.update_product(product text, changes jsonb) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    fields CONSTANT jsonb := '{"active": "boolean", "default_price": "string", "description": "string",
        "metadata": "object", "name": "string", "statement_descriptor": "string", "tax_code": "string",
        "unit_label": "string", "url": "string"}';
    given record;
    changed billing.products;
BEGIN
    PERFORM billing.require_argument('product', update_product.product);
    PERFORM billing.require_argument('changes', update_product.changes);
    IF jsonb_typeof(changes) <> 'object' THEN
        RAISE EXCEPTION 'changes must be a JSON object, not %', left(changes::text, 100)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass the fields to change, such as {"name": "Seats"}.';
    END IF;
    FOR given IN SELECT key, value, jsonb_typeof(value) AS type FROM jsonb_each(changes) LOOP
        IF NOT fields ? given.key THEN
            RAISE EXCEPTION 'field "%", value %: is not a field of a product that can change',
                    left(given.key, 100), left(given.value::text, 100)
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'These can: '
                             || (SELECT string_agg(key, ', ' ORDER BY key) FROM jsonb_object_keys(fields) key) || '.';
        ELSIF given.type = 'null' AND given.key IN ('active', 'name') OR given.type NOT IN (fields ->> given.key, 'null') THEN
            RAISE EXCEPTION 'field "%", value %: must be of type %', given.key, left(given.value::text, 100),
                    fields ->> given.key
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Null takes away what a product can be without.';
        END IF;
    END LOOP;
    SELECT p.* INTO changed FROM billing.products p WHERE p.id = update_product.product FOR NO KEY UPDATE;
    IF changed.id IS NULL THEN
        RAISE EXCEPTION 'product "%" does not exist', update_product.product
            USING ERRCODE = 'undefined_object', HINT = 'See billing.products for the products there are.';
    END IF;
    -- As in Stripe: keys of metadata are changed one by one, and the empty text takes away like null.
    UPDATE billing.products p
    SET active = coalesce((changes ->> 'active')::boolean, p.active),
        name = CASE WHEN changes ? 'name' THEN changes ->> 'name' ELSE p.name END,
        description = CASE WHEN changes ? 'description' THEN nullif(changes ->> 'description', '') ELSE p.description END,
        unit_label = CASE WHEN changes ? 'unit_label' THEN nullif(changes ->> 'unit_label', '') ELSE p.unit_label END,
        tax_code = CASE WHEN changes ? 'tax_code' THEN nullif(changes ->> 'tax_code', '') ELSE p.tax_code END,
        statement_descriptor = CASE WHEN changes ? 'statement_descriptor'
            THEN nullif(changes ->> 'statement_descriptor', '') ELSE p.statement_descriptor END,
        url = CASE WHEN changes ? 'url' THEN nullif(changes ->> 'url', '') ELSE p.url END,
        metadata = CASE jsonb_typeof(changes -> 'metadata')
            WHEN 'null' THEN '{}'
            WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}')
                                FROM jsonb_each(p.metadata || (changes -> 'metadata')) m
                                WHERE NOT (changes -> 'metadata' ? m.key AND m.value IN ('null', '""')))
            ELSE p.metadata END
    WHERE p.id = changed.id;
    IF changes ? 'default_price' THEN
        PERFORM billing.set_default_price(changed.id, nullif(changes ->> 'default_price', ''));
    END IF;
    RETURN changed.id;
END $$;
COMMENT ON FUNCTION billing.update_product(text, jsonb) IS
'Changes what a product is called and shows, by Stripe''s field names: active, default_price (an active price of the
product), description, metadata (key by key), name, statement_descriptor, tax_code, unit_label, url; null takes away.
Returns the id. Errors: 42704 unknown product; 22023 an unknown field or a wrong type; 23514 a text too short or too
long; 23503 default_price is no price of the product; 55000 default_price is archived; 22004 NULL.';

CREATE FUNCTION billing.set_product_active(product text, active boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.require_argument('product', product);
    UPDATE billing.products p SET active = set_product_active.active WHERE p.id = product;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'product "%" does not exist', product
            USING ERRCODE = 'undefined_object', HINT = 'See billing.products for the products there are.';
    END IF;
    RETURN product;
END $$;
COMMENT ON FUNCTION billing.set_product_active(text, boolean) IS
'Archives (false) or activates (true) a product and returns its id. Errors: 42704 unknown product; 22004 NULL.
Internal.';

CREATE FUNCTION billing.archive_product(product text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN billing.set_product_active(product, false);
COMMENT ON FUNCTION billing.archive_product(text) IS
'Marks a product as no longer offered and returns its id; its prices and subscriptions work on. Again is no error.
Errors: 42704 unknown product; 22004 NULL.';

CREATE FUNCTION billing.activate_product(product text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN billing.set_product_active(product, true);
COMMENT ON FUNCTION billing.activate_product(text) IS
'Takes archive_product back and returns the product''s id. Again is no error. Errors: 42704 unknown product; 22004
NULL.';
