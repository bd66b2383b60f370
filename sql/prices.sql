-- Prices: what a quantity costs. Once made a price never changes, except whether it is on offer, its lookup key, and
-- whether it is its product's default.

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
    is_default boolean NOT NULL DEFAULT false CONSTRAINT prices_default_on_offer CHECK (NOT is_default OR active),
    CONSTRAINT prices_archived_at_with_active CHECK (active = (archived_at IS NULL)),
    CONSTRAINT prices_recurring_complete CHECK (
        (type = 'recurring') = (usage_type IS NOT NULL AND "interval" IS NOT NULL AND interval_count IS NOT NULL)),
    CONSTRAINT prices_metered_with_meter CHECK ((usage_type IS NOT DISTINCT FROM 'metered') = (meter IS NOT NULL)),
    CONSTRAINT prices_filters_with_meter CHECK (dimension_filters IS NULL OR meter IS NOT NULL),
    CONSTRAINT prices_default_of_product CHECK (NOT is_default OR product IS NOT NULL)
);
CREATE UNIQUE INDEX prices_lookup_key_key ON billing.prices (lookup_key) WHERE active;
CREATE UNIQUE INDEX prices_default_key ON billing.prices (product) WHERE is_default;
CREATE INDEX prices_product_idx ON billing.prices (product);
CREATE INDEX prices_meter_idx ON billing.prices (meter);
COMMENT ON TABLE billing.prices IS
'What a quantity costs. INSERT (price) is enough, (price, product) where the definition names none: a trigger takes
the other columns from the definition. Only active, lookup_key and is_default may change: subscriptions and finalized
invoices rely on the rest.';
COMMENT ON INDEX billing.prices_lookup_key_key IS 'Among the prices on offer a lookup key names one.';
COMMENT ON INDEX billing.prices_default_key IS 'A product has at most one default price.';
COMMENT ON INDEX billing.prices_product_idx IS 'Finds the prices of a product.';
COMMENT ON INDEX billing.prices_meter_idx IS 'Finds the prices on a meter.';
COMMENT ON COLUMN billing.prices.id IS 'The application''s own id, or one made here (price_...).';
COMMENT ON COLUMN billing.prices.price IS
'The definition, as Stripe''s API describes a price; amounts in the currency''s minor unit. Its active and lookup_key
follow the columns; its product_data and transfer_lookup_key are carried out when the row is written, and not kept.';
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
COMMENT ON COLUMN billing.prices.dimension_filters IS
'Which of the meter''s usage is billed: an object, from declared dimension keys to arrays of the values that count, all
keys having to match; taken from the definition. NULL: all usage.';
COMMENT ON COLUMN billing.prices.is_default IS
'Whether this is the default_price of its product, as Stripe calls it: the one to show first.';
SELECT pg_catalog.pg_extension_config_dump('billing.prices', '');

CREATE TRIGGER prices_never_deleted BEFORE DELETE OR TRUNCATE ON billing.prices
    FOR EACH STATEMENT EXECUTE FUNCTION billing.never_deleted();
COMMENT ON TRIGGER prices_never_deleted ON billing.prices IS 'A price that was used stays known.';

CREATE FUNCTION billing.release_lookup_key(lookup_key text, price text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    -- Of two sessions that transfer one key, the later must see whom the earlier gave it to.
    PERFORM pg_advisory_xact_lock(hashtextextended('billing.prices.lookup_key ' || release_lookup_key.lookup_key, 0));
    UPDATE billing.prices p SET lookup_key = NULL
    WHERE p.lookup_key = release_lookup_key.lookup_key AND p.active AND p.id <> release_lookup_key.price;
END $$;
COMMENT ON FUNCTION billing.release_lookup_key(text, text) IS
'Takes a lookup key from the price on offer that has it, unless that is the one named, which the caller gives it to.
Other transfers of the key wait until the transaction ends. Internal.';

CREATE FUNCTION billing.create_product_of_price(data jsonb) RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
RETURN billing.create_product(
    coalesce(data ->> 'id', billing.generate_id('prod')), data ->> 'name',
    unit_label => data ->> 'unit_label', metadata => coalesce(data -> 'metadata', '{}'),
    tax_code => data ->> 'tax_code', statement_descriptor => data ->> 'statement_descriptor',
    active => coalesce((data ->> 'active')::boolean, true));
COMMENT ON FUNCTION billing.create_product_of_price(jsonb) IS
'Makes the product that a price''s product_data describes, and returns its id. Internal.';

CREATE FUNCTION billing.prices_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    definition jsonb := NEW.price::jsonb;
    named_product text := NEW.price::jsonb ->> 'product';
    named_meter text := NEW.price::jsonb #>> '{recurring,meter}';
    meter billing.meters;
    undeclared text;
BEGIN
    IF definition IS NULL THEN
        RETURN NEW;  -- the column's own NOT NULL names the error
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF (definition - ARRAY['active', 'lookup_key', 'transfer_lookup_key'])
              IS DISTINCT FROM (OLD.price::jsonb - ARRAY['active', 'lookup_key'])
           OR (NEW.id, NEW.product, NEW.created, NEW.currency, NEW.type, NEW.usage_type, NEW.meter,
               NEW."interval", NEW.interval_count, NEW.dimension_filters)
              IS DISTINCT FROM
              (OLD.id, OLD.product, OLD.created, OLD.currency, OLD.type, OLD.usage_type, OLD.meter,
               OLD."interval", OLD.interval_count, OLD.dimension_filters)
        THEN
            RAISE EXCEPTION 'price "%" cannot change', OLD.id
                USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'prices',
                      HINT = 'Only active, lookup_key and is_default may. Create another price and archive this one.';
        END IF;
        -- They stand in the definition and in columns; whichever was left alone follows the other.
        IF NEW.active = OLD.active THEN
            NEW.active := (definition ->> 'active')::boolean;
        END IF;
        IF NEW.lookup_key IS NOT DISTINCT FROM OLD.lookup_key THEN
            NEW.lookup_key := definition ->> 'lookup_key';
        END IF;
        IF NEW.is_default AND NOT NEW.active THEN
            RAISE EXCEPTION 'price "%" cannot be archived: it is the default price of product "%"', NEW.id, NEW.product
                USING ERRCODE = 'object_not_in_prerequisite_state', SCHEMA = 'billing', TABLE = 'prices', COLUMN = 'active',
                      HINT = 'Give the product another default_price first, or none, with billing.update_product.';
        END IF;
    ELSE
        IF NEW.product IS NOT NULL AND definition ? 'product_data' THEN
            RAISE EXCEPTION 'product "%" is named, and the price''s product_data describes another', NEW.product
                USING ERRCODE = 'check_violation', SCHEMA = 'billing', TABLE = 'prices', COLUMN = 'product',
                      HINT = 'Name a product that exists, or describe a new one.';
        ELSIF named_product <> NEW.product THEN
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
            SELECT f.key INTO undeclared FROM jsonb_object_keys(definition -> 'dimension_filters') f (key)
            WHERE f.key <> ALL (meter.dimension_keys) ORDER BY f.key LIMIT 1;
            IF undeclared IS NOT NULL THEN
                RAISE EXCEPTION 'dimension_filters.% of the price is no dimension of meter "%"', undeclared, meter.event_name
                    USING ERRCODE = 'invalid_parameter_value', SCHEMA = 'billing', TABLE = 'prices',
                          COLUMN = 'dimension_filters',
                          HINT = CASE WHEN meter.dimension_keys = '{}'
                                      THEN 'The meter has no dimension_payload_keys: create one that has.'
                                      ELSE 'The meter''s dimension_payload_keys are: '
                                           || array_to_string(meter.dimension_keys, ', ') || '.' END;
            END IF;
        END IF;
        NEW.dimension_filters := definition -> 'dimension_filters';
    END IF;
    -- What the definition asks for beside itself is done; not for an id that is taken, because that row is not inserted.
    IF definition ?| ARRAY['product_data', 'transfer_lookup_key'] THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('billing.prices.id ' || NEW.id, 0));
        IF TG_OP = 'UPDATE' OR NOT EXISTS (SELECT FROM billing.prices p WHERE p.id = NEW.id) THEN
            IF definition ? 'product_data' THEN
                NEW.product := billing.create_product_of_price(definition -> 'product_data');
            END IF;
            IF definition ? 'transfer_lookup_key' AND NEW.lookup_key IS NOT NULL THEN
                PERFORM billing.release_lookup_key(NEW.lookup_key, NEW.id);
            END IF;
        END IF;
        definition := definition - ARRAY['product_data', 'transfer_lookup_key'];
        NEW.price := definition::billing.price;
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
'Trigger: fills the columns that a price''s definition decides, resolves its meter, carries out product_data and
transfer_lookup_key, and keeps all but active, lookup_key and is_default from changing (23001). Errors: 23503 unknown
meter; 55000 inactive meter, or a default price archived; 23514 product named twice, differently, or also described;
22023 a dimension that the meter does not declare.';
CREATE TRIGGER prices_check BEFORE INSERT OR UPDATE ON billing.prices
    FOR EACH ROW EXECUTE FUNCTION billing.prices_check();
COMMENT ON TRIGGER prices_check ON billing.prices IS 'The columns follow the definition; the definition stays.';

CREATE FUNCTION billing.create_price(price billing.price, product text DEFAULT NULL, id text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    aside CONSTANT text[] := '{active, lookup_key, transfer_lookup_key, product_data}';
    definition jsonb := create_price.price::jsonb;
    data jsonb := create_price.price::jsonb -> 'product_data';
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
        LEFT JOIN billing.products d ON d.id = p.product
        WHERE p.id = create_price.id
          AND CASE WHEN data IS NULL THEN p.product IS NOT DISTINCT FROM product_id
                   ELSE d.name = data ->> 'name' AND d.id = coalesce(data ->> 'id', d.id) END
          AND (p.price::jsonb - aside) = (definition - aside)
    ) THEN
        RAISE EXCEPTION 'price "%" exists already with other data', create_price.id
            USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'prices',
                  HINT = 'A price never changes: create one with another id.';
    END IF;
    RETURN coalesce(price_id, create_price.id);
END $$;
COMMENT ON FUNCTION billing.create_price(billing.price, text, text) IS
'Creates a price and returns its id: the one given, or a new one (price_...). The product comes from the argument or
from the price itself, which may also describe one to be made (product_data); NULL for none. With transfer_lookup_key
the lookup_key is taken from the price on offer that has it. Again with the same id and data is no error and does
nothing. Errors: 23505 the id exists with other data, or another price on offer has the lookup_key; 23503 unknown
product or meter; 55000 inactive meter; 23514 product named twice, differently; 22023 dimension_filters with a key that
the meter does not declare; 22004 price NULL.';

CREATE FUNCTION billing.transfer_lookup_key(price text, lookup_key text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.require_argument('price', transfer_lookup_key.price);
    PERFORM billing.require_argument('lookup_key', transfer_lookup_key.lookup_key);
    PERFORM billing.release_lookup_key(transfer_lookup_key.lookup_key, transfer_lookup_key.price);
    UPDATE billing.prices p SET lookup_key = transfer_lookup_key.lookup_key WHERE p.id = transfer_lookup_key.price;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'price "%" does not exist', transfer_lookup_key.price
            USING ERRCODE = 'undefined_object', HINT = 'See billing.prices for the prices there are.';
    END IF;
    RETURN transfer_lookup_key.price;
END $$;
COMMENT ON FUNCTION billing.transfer_lookup_key(text, text) IS
'Gives a price a lookup key, taking it from the price on offer that has it, in one step: at no moment do readers find
none or two. Returns the price''s id. Errors: 42704 unknown price; 23514 an empty key; 22023 one of more than
200 characters; 22004 NULL.';

CREATE FUNCTION billing.set_default_price(product text, price text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    chosen billing.prices;
BEGIN
    SELECT p.* INTO chosen FROM billing.prices p WHERE p.id = set_default_price.price FOR NO KEY UPDATE;
    IF set_default_price.price IS NOT NULL AND chosen.product IS DISTINCT FROM set_default_price.product THEN
        RAISE EXCEPTION 'price "%" is no price of product "%"', set_default_price.price, set_default_price.product
            USING ERRCODE = 'foreign_key_violation', SCHEMA = 'billing', TABLE = 'prices', COLUMN = 'product',
                  HINT = 'A product''s default_price is one of its own prices.';
    ELSIF NOT chosen.active THEN
        RAISE EXCEPTION 'price "%" is archived', set_default_price.price
            USING ERRCODE = 'object_not_in_prerequisite_state', SCHEMA = 'billing', TABLE = 'prices', COLUMN = 'active',
                  HINT = 'Choose a price on offer, or activate this one with billing.activate_price.';
    END IF;
    UPDATE billing.prices p SET is_default = false
    WHERE p.product = set_default_price.product AND p.is_default AND p.id IS DISTINCT FROM set_default_price.price;
    UPDATE billing.prices p SET is_default = true WHERE p.id = set_default_price.price AND NOT p.is_default;
END $$;
COMMENT ON FUNCTION billing.set_default_price(text, text) IS
'Makes a price its product''s default instead of the one so far; NULL: none. The caller holds the product''s lock.
Errors: 23503 the price is not one of the product; 55000 it is archived. Internal.';

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
