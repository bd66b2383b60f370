-- Tax rates: how much tax a line bears, and whether it is within the line's amount or comes on top.

CREATE TABLE billing.tax_rates (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('txr')
        CONSTRAINT tax_rates_id_length CHECK (length(id) BETWEEN 1 AND 255),
    display_name text NOT NULL CONSTRAINT tax_rates_display_name_length CHECK (length(display_name) BETWEEN 1 AND 50),
    percentage numeric(7, 4) NOT NULL CONSTRAINT tax_rates_percentage_range CHECK (percentage BETWEEN 0 AND 100),
    inclusive boolean NOT NULL,
    country text,
    state text,
    jurisdiction text,
    description text,
    active boolean NOT NULL DEFAULT true,
    metadata jsonb NOT NULL DEFAULT '{}' CONSTRAINT tax_rates_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL
);
COMMENT ON TABLE billing.tax_rates IS
'Tax rates. Subscriptions name them in default_tax_rates and items in tax_rates. percentage and inclusive never change:
another rate is another row.';
COMMENT ON COLUMN billing.tax_rates.id IS 'The application''s own id, or one made here (txr_...).';
COMMENT ON COLUMN billing.tax_rates.display_name IS 'What the customer reads, such as VAT; at most 50 characters.';
COMMENT ON COLUMN billing.tax_rates.percentage IS 'Per cent, 0 to 100, to four places.';
COMMENT ON COLUMN billing.tax_rates.inclusive IS
'True: amounts hold this tax already. False: it comes on top.';
COMMENT ON COLUMN billing.tax_rates.country IS 'Two-letter country code; NULL when not said.';
COMMENT ON COLUMN billing.tax_rates.state IS 'State or province; NULL when not said.';
COMMENT ON COLUMN billing.tax_rates.jurisdiction IS 'Whose tax it is, for people; NULL when not said.';
COMMENT ON COLUMN billing.tax_rates.description IS 'Text for the application, not for the customer; NULL when there is none.';
COMMENT ON COLUMN billing.tax_rates.active IS
'False once archived: no subscription may name it anew; those that do go on.';
COMMENT ON COLUMN billing.tax_rates.metadata IS
'A JSON object that the application keeps here; it carries no meaning for billing.';
COMMENT ON COLUMN billing.tax_rates.created IS 'The as_of of its creation.';
SELECT pg_catalog.pg_extension_config_dump('billing.tax_rates', '');

CREATE FUNCTION billing.tax_rates_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'UPDATE' OR (OLD.id, OLD.percentage, OLD.inclusive, OLD.created)
                            IS DISTINCT FROM (NEW.id, NEW.percentage, NEW.inclusive, NEW.created)
    THEN
        RAISE EXCEPTION 'tax rate "%" cannot change', CASE TG_OP WHEN 'TRUNCATE' THEN 'any' ELSE OLD.id END
            USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'tax_rates',
                  HINT = 'Create another rate and archive this one with billing.archive_tax_rate.';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION billing.tax_rates_check() IS
'Trigger: the percentage of a tax rate and whether it is inclusive never change, and its row is never deleted (23001).';
CREATE TRIGGER tax_rates_check BEFORE UPDATE OR DELETE ON billing.tax_rates
    FOR EACH ROW EXECUTE FUNCTION billing.tax_rates_check();
CREATE TRIGGER tax_rates_check_truncate BEFORE TRUNCATE ON billing.tax_rates
    FOR EACH STATEMENT EXECUTE FUNCTION billing.tax_rates_check();
COMMENT ON TRIGGER tax_rates_check ON billing.tax_rates IS 'Invoices refer to rates as they were.';
COMMENT ON TRIGGER tax_rates_check_truncate ON billing.tax_rates IS 'Tax rates are never deleted.';

CREATE FUNCTION billing.create_tax_rate(tax_rate jsonb, id text DEFAULT NULL, as_of timestamptz DEFAULT now())
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    definition jsonb := billing.normalised_object('tax_rate', create_tax_rate.tax_rate);
    rate_id text := coalesce(create_tax_rate.id, definition ->> 'id', billing.generate_id('txr'));
BEGIN
    PERFORM billing.require_argument('tax_rate', definition);
    PERFORM billing.require_time('as_of', as_of);
    INSERT INTO billing.tax_rates
        (id, display_name, percentage, inclusive, country, state, jurisdiction, description, active, metadata, created)
    VALUES (rate_id, definition ->> 'display_name', (definition ->> 'percentage')::numeric,
            (definition ->> 'inclusive')::boolean, definition ->> 'country', definition ->> 'state',
            definition ->> 'jurisdiction', definition ->> 'description', (definition ->> 'active')::boolean,
            coalesce(definition -> 'metadata', '{}'), create_tax_rate.as_of)
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND AND NOT EXISTS (
        SELECT FROM billing.tax_rates t
        WHERE t.id = rate_id AND t.display_name = definition ->> 'display_name'
          AND t.percentage = (definition ->> 'percentage')::numeric
          AND t.inclusive = (definition ->> 'inclusive')::boolean
          AND (t.country, t.state, t.jurisdiction, t.description) IS NOT DISTINCT FROM
              (definition ->> 'country', definition ->> 'state', definition ->> 'jurisdiction',
               definition ->> 'description')
          AND t.metadata = coalesce(definition -> 'metadata', '{}')
    ) THEN
        RAISE EXCEPTION 'tax rate "%" exists already with other data', rate_id
            USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'tax_rates',
                  HINT = 'A rate never changes: create one with another id.';
    END IF;
    RETURN rate_id;
END $$;
COMMENT ON FUNCTION billing.create_tax_rate(jsonb, text, timestamptz) IS
'Creates a tax rate from Stripe''s JSON and returns its id: the argument, the object''s own, or a new one (txr_...).
Fields: display_name, percentage (0 to 100, to four places), inclusive; country, state, jurisdiction, description,
active, metadata. Again with the same id and data is no error. Errors: 23505 the id exists with other data; 22023 a
field breaks a rule; 22004 NULL.';

CREATE FUNCTION billing.set_tax_rate_active(tax_rate text, active boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.require_argument('tax_rate', tax_rate);
    UPDATE billing.tax_rates t SET active = set_tax_rate_active.active WHERE t.id = tax_rate;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'tax rate "%" does not exist', tax_rate
            USING ERRCODE = 'undefined_object', HINT = 'See billing.tax_rates for the rates there are.';
    END IF;
    RETURN tax_rate;
END $$;
COMMENT ON FUNCTION billing.set_tax_rate_active(text, boolean) IS
'Archives (false) or activates (true) a tax rate and returns its id. Errors: 42704 unknown rate; 22004 NULL. Internal.';

CREATE FUNCTION billing.archive_tax_rate(tax_rate text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN billing.set_tax_rate_active(tax_rate, false);
COMMENT ON FUNCTION billing.archive_tax_rate(text) IS
'Takes a tax rate off offer and returns its id; subscriptions that name it go on. Again is no error. Errors: 42704
unknown rate; 22004 NULL.';

CREATE FUNCTION billing.activate_tax_rate(tax_rate text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN billing.set_tax_rate_active(tax_rate, true);
COMMENT ON FUNCTION billing.activate_tax_rate(text) IS
'Takes archive_tax_rate back and returns the rate''s id. Again is no error. Errors: 42704 unknown rate; 22004 NULL.';

CREATE FUNCTION billing.require_tax_rates(tax_rates text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    wrong record;
BEGIN
    IF cardinality(tax_rates) > 10 THEN
        RAISE EXCEPTION '% tax rates on one line', cardinality(tax_rates)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A line bears at most 10.';
    END IF;
    SELECT r.id, t.id IS NOT NULL AS known, t.active, count(*) OVER (PARTITION BY r.id) AS times INTO wrong
    FROM unnest(tax_rates) r (id) LEFT JOIN billing.tax_rates t ON t.id = r.id
    ORDER BY t.id IS NOT NULL, t.active, times DESC, r.id LIMIT 1;
    IF NOT wrong.known THEN
        RAISE EXCEPTION 'tax rate "%" does not exist', wrong.id
            USING ERRCODE = 'foreign_key_violation', HINT = 'Create it first with billing.create_tax_rate.';
    ELSIF NOT wrong.active THEN
        RAISE EXCEPTION 'tax rate "%" is archived', wrong.id
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Use a rate on offer, or activate it with billing.activate_tax_rate.';
    ELSIF wrong.times > 1 THEN
        RAISE EXCEPTION 'tax rate "%" is named twice', wrong.id
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name each rate once.';
    END IF;
END $$;
COMMENT ON FUNCTION billing.require_tax_rates(text[]) IS
'Raises unless all of these tax rates may be put on a line: 23503 unknown; 55000 archived; 22023 one twice, or more than
10. NULL or none are fine. Internal.';
