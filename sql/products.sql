-- Products: what prices are prices of. A product gives invoice lines their name.

CREATE TABLE billing.products (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('prod')
        CONSTRAINT products_id_length CHECK (length(id) BETWEEN 1 AND 255),
    name text NOT NULL CONSTRAINT products_name_length CHECK (length(name) BETWEEN 1 AND 250),
    description text,
    unit_label text CONSTRAINT products_unit_label_length CHECK (length(unit_label) BETWEEN 1 AND 12),
    active boolean NOT NULL DEFAULT true,
    metadata jsonb NOT NULL DEFAULT '{}' CONSTRAINT products_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL DEFAULT now()
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
SELECT pg_catalog.pg_extension_config_dump('billing.products', '');

CREATE FUNCTION billing.create_product(
    id text, name text, description text DEFAULT NULL, unit_label text DEFAULT NULL, metadata jsonb DEFAULT '{}'
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.require_argument('id', create_product.id);
    PERFORM billing.require_argument('name', create_product.name);
    PERFORM billing.require_argument('metadata', create_product.metadata);
    INSERT INTO billing.products (id, name, description, unit_label, metadata)
    VALUES (create_product.id, create_product.name, create_product.description, create_product.unit_label,
            create_product.metadata)
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND AND NOT EXISTS (
        SELECT FROM billing.products p
        WHERE p.id = create_product.id AND p.metadata = create_product.metadata
          AND (p.name, p.description, p.unit_label) IS NOT DISTINCT FROM
              (create_product.name, create_product.description, create_product.unit_label)
    ) THEN
        RAISE EXCEPTION 'product "%" exists already with other data', create_product.id
            USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'products',
                  HINT = 'Change it with UPDATE billing.products, or create a product with another id.';
    END IF;
    RETURN create_product.id;
END $$;
COMMENT ON FUNCTION billing.create_product(text, text, text, text, jsonb) IS
'Creates a product and returns its id. Creating it again with equal data is no error, so that a retry is safe. Errors:
23505 the id exists with other data; 23514 a text too short or too long, or metadata that is no JSON object; 22004 id,
name or metadata NULL.';

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
