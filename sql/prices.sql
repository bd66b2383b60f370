-- Prices: what a quantity costs. Once made a price never changes, except whether it is on offer and its lookup key.

CREATE TABLE billing.prices (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('price')
        CONSTRAINT prices_id_length CHECK (length(id) BETWEEN 1 AND 255),
    price billing.price NOT NULL,
    product text COLLATE "C" REFERENCES billing.products,
    active boolean NOT NULL,
    lookup_key text CONSTRAINT prices_lookup_key_length CHECK (length(lookup_key) BETWEEN 1 AND 200),
    created timestamptz NOT NULL DEFAULT now(),
    archived_at timestamptz,
    currency text NOT NULL,
    type text NOT NULL CONSTRAINT prices_type_known CHECK (type IN ('one_time', 'recurring')),
    usage_type text CONSTRAINT prices_usage_type_known CHECK (usage_type IN ('licensed', 'metered')),
    meter text COLLATE "C" REFERENCES billing.meters (event_name),
    "interval" text CONSTRAINT prices_interval_known CHECK ("interval" IN ('day', 'week', 'month', 'year')),
    interval_count integer CONSTRAINT prices_interval_count_positive CHECK (interval_count > 0),
    nickname text,
    dimension_filters jsonb,
    CONSTRAINT prices_archived_at_with_active CHECK (active = (archived_at IS NULL)),
    CONSTRAINT prices_recurring_complete CHECK (
        (type = 'recurring') = (usage_type IS NOT NULL AND "interval" IS NOT NULL AND interval_count IS NOT NULL)),
    CONSTRAINT prices_metered_with_meter CHECK ((usage_type IS NOT DISTINCT FROM 'metered') = (meter IS NOT NULL))
);
CREATE UNIQUE INDEX prices_lookup_key_key ON billing.prices (lookup_key) WHERE active;
CREATE INDEX prices_product_idx ON billing.prices (product);
CREATE INDEX prices_meter_idx ON billing.prices (meter);
COMMENT ON TABLE billing.prices IS
'What a quantity costs. INSERT (price) is enough, (price, product) where the definition names none: a trigger takes
the other columns from the definition. Only active and lookup_key may change: subscriptions and finalized invoices
rely on the rest.';
COMMENT ON INDEX billing.prices_lookup_key_key IS 'Among the prices on offer a lookup key names one.';
COMMENT ON INDEX billing.prices_product_idx IS 'Finds the prices of a product.';
COMMENT ON INDEX billing.prices_meter_idx IS 'Finds the prices on a meter.';
COMMENT ON COLUMN billing.prices.id IS 'The application''s own id, or one made here (price_...).';
COMMENT ON COLUMN billing.prices.price IS
'The definition, as Stripe''s API describes a price; amounts in the currency''s minor unit. Its active and lookup_key
follow the columns.';
COMMENT ON COLUMN billing.prices.product IS 'The product that this is a price of; NULL when none was named.';
COMMENT ON COLUMN billing.prices.active IS 'False once archived: no new subscription may use it; those that do go on.';
COMMENT ON COLUMN billing.prices.lookup_key IS
'A name, at most 200 characters, by which the application finds the price now on offer; NULL when there is none.';
COMMENT ON COLUMN billing.prices.created IS 'When the row was made.';
COMMENT ON COLUMN billing.prices.archived_at IS 'Since when the price is archived; NULL while active.';
COMMENT ON COLUMN billing.prices.currency IS 'ISO 4217 code in lower case; taken from the definition.';
COMMENT ON COLUMN billing.prices.type IS 'one_time or recurring; taken from the definition.';
COMMENT ON COLUMN billing.prices.usage_type IS
'licensed (a quantity set in the subscription, billed in advance) or metered (usage, billed in arrears); NULL when
one_time.';
COMMENT ON COLUMN billing.prices.meter IS
'event_name of the meter of a metered price, also where the definition names its id; else NULL.';
COMMENT ON COLUMN billing.prices."interval" IS 'day, week, month or year; NULL when one_time.';
COMMENT ON COLUMN billing.prices.nickname IS
'What invoice lines call it; taken from the definition. NULL: its product''s name.';
COMMENT ON COLUMN billing.prices.interval_count IS 'Intervals in one billing period; NULL when one_time.';
SELECT pg_catalog.pg_extension_config_dump('billing.prices', '');

CREATE FUNCTION billing.prices_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    definition jsonb := NEW.price::jsonb;
    named_product text := NEW.price::jsonb ->> 'product';
    named_meter text := NEW.price::jsonb #>> '{recurring,meter}';
    meter billing.meters;
BEGIN
    IF definition IS NULL THEN
        RETURN NEW;  -- the column's own NOT NULL names the error
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF (definition - ARRAY['active', 'lookup_key'])
              IS DISTINCT FROM (OLD.price::jsonb - ARRAY['active', 'lookup_key'])
           OR (NEW.id, NEW.product, NEW.created, NEW.currency, NEW.type, NEW.usage_type, NEW.meter,
               NEW."interval", NEW.interval_count)
              IS DISTINCT FROM
              (OLD.id, OLD.product, OLD.created, OLD.currency, OLD.type, OLD.usage_type, OLD.meter,
               OLD."interval", OLD.interval_count)
        THEN
            RAISE EXCEPTION 'price "%" cannot change', OLD.id
                USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'prices',
                      HINT = 'Only active and lookup_key may. Create another price and archive this one.';
        END IF;
        -- They stand in the definition and in columns; whichever was left alone follows the other.
        IF NEW.active = OLD.active THEN
            NEW.active := (definition ->> 'active')::boolean;
        END IF;
        IF NEW.lookup_key IS NOT DISTINCT FROM OLD.lookup_key THEN
            NEW.lookup_key := definition ->> 'lookup_key';
        END IF;
    ELSE
        IF named_product <> NEW.product THEN
            RAISE EXCEPTION 'product "%" contradicts the price''s own "%"', NEW.product, named_product
                USING ERRCODE = 'check_violation', SCHEMA = 'billing', TABLE = 'prices', COLUMN = 'product',
                      HINT = 'Name the product once.';
        END IF;
        NEW.product := coalesce(NEW.product, named_product);
        NEW.active := coalesce(NEW.active, (definition ->> 'active')::boolean, true);
        NEW.lookup_key := coalesce(NEW.lookup_key, definition ->> 'lookup_key');
        NEW.currency := definition ->> 'currency';
        NEW."interval" := definition #>> '{recurring,interval}';
        NEW.type := CASE WHEN NEW."interval" IS NULL THEN 'one_time' ELSE 'recurring' END;
        NEW.usage_type := CASE WHEN NEW.type = 'recurring'
                               THEN coalesce(definition #>> '{recurring,usage_type}', 'licensed') END;
        NEW.interval_count := CASE WHEN NEW.type = 'recurring'
                                   THEN coalesce((definition #>> '{recurring,interval_count}')::integer, 1) END;
        NEW.nickname := definition ->> 'nickname';
        NEW.meter := NULL;
        IF NEW.usage_type = 'metered' THEN
            SELECT m.* INTO meter FROM billing.meters m WHERE m.event_name = named_meter OR m.id = named_meter
            ORDER BY m.event_name = named_meter DESC LIMIT 1;
            IF meter.id IS NULL THEN
                RAISE EXCEPTION 'meter "%" of the price does not exist', named_meter
                    USING ERRCODE = 'foreign_key_violation', SCHEMA = 'billing', TABLE = 'prices', COLUMN = 'meter',
                          HINT = 'recurring.meter is the event_name or the id of a meter; create it first.';
            END IF;
            -- By the price's own time, so that a dump with prices older than the deactivation restores.
            IF NEW.created >= meter.deactivated_at THEN
                RAISE EXCEPTION 'meter "%" of the price is inactive (archived_meter)', named_meter
                    USING ERRCODE = 'object_not_in_prerequisite_state', SCHEMA = 'billing', TABLE = 'prices',
                          COLUMN = 'meter', HINT = 'Reactivate it with billing.reactivate_meter, or name another one.';
            END IF;
            NEW.meter := meter.event_name;
        END IF;
    END IF;
    IF NEW.active THEN
        NEW.archived_at := NULL;
    ELSIF NEW.archived_at IS NULL THEN
        NEW.archived_at := now();
    END IF;
    -- Neither a reader nor a restore may meet two answers.
    IF (NEW.active, NEW.lookup_key) IS DISTINCT FROM ((definition ->> 'active')::boolean, definition ->> 'lookup_key') THEN
        NEW.price := (definition - 'lookup_key' || jsonb_strip_nulls(
            jsonb_build_object('active', NEW.active, 'lookup_key', NEW.lookup_key)))::billing.price;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION billing.prices_check() IS
'Trigger: fills the columns that a price''s definition decides, resolves its meter, and keeps all but active and
lookup_key from changing (23001). Errors: 23503 unknown meter; 55000 inactive meter; 23514 product named twice,
differently.';
CREATE TRIGGER prices_check BEFORE INSERT OR UPDATE ON billing.prices
    FOR EACH ROW EXECUTE FUNCTION billing.prices_check();
COMMENT ON TRIGGER prices_check ON billing.prices IS 'The columns follow the definition; the definition stays.';

CREATE FUNCTION billing.create_price(price billing.price, product text DEFAULT NULL, id text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    definition jsonb := create_price.price::jsonb;
    product_id text := coalesce(create_price.product, create_price.price::jsonb ->> 'product');
    price_id text;
BEGIN
    PERFORM billing.require_argument('price', definition);
    -- The foreign key would refuse it too, but not say what to do.
    IF product_id IS NOT NULL AND NOT EXISTS (SELECT FROM billing.products p WHERE p.id = product_id) THEN
        RAISE EXCEPTION 'product "%" of the price does not exist', product_id
            USING ERRCODE = 'foreign_key_violation', SCHEMA = 'billing', TABLE = 'prices', COLUMN = 'product',
                  HINT = 'Create it first with billing.create_product.';
    END IF;
    INSERT INTO billing.prices (id, price, product)
    VALUES (coalesce(create_price.id, billing.generate_id('price')), create_price.price, create_price.product)
    ON CONFLICT (id) DO NOTHING
    RETURNING id INTO price_id;
    IF price_id IS NULL AND NOT EXISTS (
        SELECT FROM billing.prices p
        WHERE p.id = create_price.id
          AND p.product IS NOT DISTINCT FROM product_id
          AND (p.price::jsonb - ARRAY['active', 'lookup_key']) = (definition - ARRAY['active', 'lookup_key'])
    ) THEN
        RAISE EXCEPTION 'price "%" exists already with other data', create_price.id
            USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'prices',
                  HINT = 'A price never changes: create one with another id.';
    END IF;
    RETURN coalesce(price_id, create_price.id);
END $$;
COMMENT ON FUNCTION billing.create_price(billing.price, text, text) IS
'Creates a price and returns its id: the one given, or a new one (price_...). The product comes from the argument or
from the price itself; NULL for none. Again with the same id and data is no error. Errors: 23505 the id exists with
other data, or another price on offer has the lookup_key; 23503 unknown product or meter; 55000 inactive meter; 23514
product named twice, differently; 22004 price NULL.';

CREATE FUNCTION billing.set_price_active(price text, active boolean, archived_at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.require_argument('price', set_price_active.price);
    IF NOT EXISTS (SELECT FROM billing.prices p WHERE p.id = set_price_active.price) THEN
        RAISE EXCEPTION 'price "%" does not exist', set_price_active.price
            USING ERRCODE = 'undefined_object', HINT = 'See billing.prices for the prices there are.';
    END IF;
    UPDATE billing.prices p SET active = set_price_active.active, archived_at = set_price_active.archived_at
    WHERE p.id = set_price_active.price AND p.active <> set_price_active.active;
    RETURN set_price_active.price;
END $$;
COMMENT ON FUNCTION billing.set_price_active(text, boolean, timestamptz) IS
'Archives (false) or activates (true) a price and returns its id. Errors: 42704 unknown price; 22004 NULL. Internal.';

CREATE FUNCTION billing.archive_price(price text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM billing.require_time('as_of', as_of);
    RETURN billing.set_price_active(price, false, as_of);
END $$;
COMMENT ON FUNCTION billing.archive_price(text, timestamptz) IS
'Takes a price off offer and returns its id: new subscriptions may not use it, those that do go on. Again is no error.
Errors: 42704 unknown price; 22004 NULL; 22023 as_of infinite.';

CREATE FUNCTION billing.activate_price(price text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN billing.set_price_active(price, true, NULL);
COMMENT ON FUNCTION billing.activate_price(text) IS
'Takes archive_price back and returns the price''s id. Again is no error. Errors: 42704 unknown price; 23505 another
price on offer has its lookup_key; 22004 NULL.';
