-- Coupons: what can be taken off. Whom it is taken off stands in discounts.

CREATE FUNCTION billing.normalised_object(kind text, object jsonb) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'normalised_object_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.normalised_object(text, jsonb) IS
    'One of Stripe''s objects (coupon, tax_rate, credit_grant), checked field by field and with every default said. 22023: a field breaks '
    'a rule, which the message names; 0A000: a field that is not built yet. Internal.';

CREATE TABLE billing.coupons (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('coupon')
        CONSTRAINT coupons_id_length CHECK (length(id) BETWEEN 1 AND 255),
    name text CONSTRAINT coupons_name_length CHECK (length(name) BETWEEN 1 AND 40),
    percent_off numeric(7, 4) CONSTRAINT coupons_percent_off_range CHECK (percent_off > 0 AND percent_off <= 100),
    amount_off bigint CONSTRAINT coupons_amount_off_positive CHECK (amount_off > 0),
    currency text,
    currency_options jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT coupons_currency_options_object CHECK (jsonb_typeof(currency_options) = 'object'),
    duration text NOT NULL CONSTRAINT coupons_duration_known CHECK (duration IN ('once', 'repeating', 'forever')),
    duration_in_months integer CONSTRAINT coupons_duration_in_months_positive CHECK (duration_in_months > 0),
    applies_to_products text[],
    max_redemptions bigint CONSTRAINT coupons_max_redemptions_positive CHECK (max_redemptions > 0),
    redeem_by timestamptz,
    times_redeemed bigint NOT NULL DEFAULT 0,
    metadata jsonb NOT NULL DEFAULT '{}' CONSTRAINT coupons_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL,
    deleted_at timestamptz,
    valid boolean NOT NULL
        GENERATED ALWAYS AS (deleted_at IS NULL AND coalesce(times_redeemed < max_redemptions, true)) STORED,
    CONSTRAINT coupons_percent_or_amount CHECK (num_nonnulls(percent_off, amount_off) = 1),
    CONSTRAINT coupons_amount_with_currency CHECK ((amount_off IS NULL) = (currency IS NULL)),
    CONSTRAINT coupons_repeating_with_months CHECK ((duration = 'repeating') = (duration_in_months IS NOT NULL)),
    CONSTRAINT coupons_redeemed_within_limit CHECK (times_redeemed BETWEEN 0 AND coalesce(max_redemptions, times_redeemed))
);
COMMENT ON TABLE billing.coupons IS
'What can be taken off: a percentage or an amount, once, for some months or for ever. Made by billing.create_coupon;
only name, metadata and what counts its use ever change.';
COMMENT ON COLUMN billing.coupons.id IS 'The application''s own id, or one made here (coupon_...).';
COMMENT ON COLUMN billing.coupons.name IS 'Name for people, at most 40 characters; NULL when there is none.';
COMMENT ON COLUMN billing.coupons.percent_off IS 'Per cent taken off, over 0 to 100, to four places; NULL with amount_off.';
COMMENT ON COLUMN billing.coupons.amount_off IS 'Minor units taken off each invoice; NULL with percent_off.';
COMMENT ON COLUMN billing.coupons.currency IS 'Currency of amount_off, ISO 4217 in lower case; NULL with percent_off.';
COMMENT ON COLUMN billing.coupons.currency_options IS
'amount_off in further currencies: {"eur": {"amount_off": 500}}.';
COMMENT ON COLUMN billing.coupons.duration IS
'once (on the first invoice that finalizes with it), repeating (for duration_in_months) or forever.';
COMMENT ON COLUMN billing.coupons.duration_in_months IS 'Months that a repeating one lasts; else NULL.';
COMMENT ON COLUMN billing.coupons.applies_to_products IS
'Products whose lines it takes something off; NULL: all lines.';
COMMENT ON COLUMN billing.coupons.max_redemptions IS 'How often it may be redeemed in all; NULL: no limit.';
COMMENT ON COLUMN billing.coupons.redeem_by IS
'From then on it cannot be redeemed any more; discounts that there are go on. NULL: no end.';
COMMENT ON COLUMN billing.coupons.times_redeemed IS 'How many discounts were made of it.';
COMMENT ON COLUMN billing.coupons.metadata IS
'A JSON object that the application keeps here; it carries no meaning for billing.';
COMMENT ON COLUMN billing.coupons.created IS 'The as_of of its creation.';
COMMENT ON COLUMN billing.coupons.deleted_at IS 'When it was deleted; its discounts go on. NULL: it was not.';
COMMENT ON COLUMN billing.coupons.valid IS
'False once it is deleted or redeemed as often as it may be. redeem_by is apart: it depends on the time asked about.';
SELECT pg_catalog.pg_extension_config_dump('billing.coupons', '');

CREATE FUNCTION billing.coupons_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'UPDATE'
       OR (OLD.id, OLD.percent_off, OLD.amount_off, OLD.currency, OLD.currency_options, OLD.duration,
           OLD.duration_in_months, OLD.applies_to_products, OLD.max_redemptions, OLD.redeem_by, OLD.created)
          IS DISTINCT FROM
          (NEW.id, NEW.percent_off, NEW.amount_off, NEW.currency, NEW.currency_options, NEW.duration,
           NEW.duration_in_months, NEW.applies_to_products, NEW.max_redemptions, NEW.redeem_by, NEW.created)
       OR NEW.times_redeemed < OLD.times_redeemed
       OR OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS DISTINCT FROM OLD.deleted_at
    THEN
        RAISE EXCEPTION 'the terms of coupon "%" cannot change', CASE TG_OP WHEN 'TRUNCATE' THEN 'any' ELSE OLD.id END
            USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'coupons',
                  HINT = 'Only name and metadata may. Create another coupon and delete this one with billing.delete_coupon.';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION billing.coupons_check() IS
'Trigger: what a coupon takes off never changes, and its row is never deleted (23001).';
CREATE TRIGGER coupons_check BEFORE UPDATE OR DELETE ON billing.coupons
    FOR EACH ROW EXECUTE FUNCTION billing.coupons_check();
CREATE TRIGGER coupons_check_truncate BEFORE TRUNCATE ON billing.coupons
    FOR EACH STATEMENT EXECUTE FUNCTION billing.coupons_check();
COMMENT ON TRIGGER coupons_check ON billing.coupons IS 'The terms of a coupon stay.';
COMMENT ON TRIGGER coupons_check_truncate ON billing.coupons IS 'Coupons are never deleted.';

CREATE FUNCTION billing.create_coupon(coupon jsonb, id text DEFAULT NULL, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    definition jsonb := billing.normalised_object('coupon', create_coupon.coupon);
    made billing.coupons;
    existing billing.coupons;
    unknown text;
BEGIN
    PERFORM billing.require_argument('coupon', definition);
    PERFORM billing.require_time('as_of', as_of);
    made.id := coalesce(create_coupon.id, definition ->> 'id', billing.generate_id('coupon'));
    made.name := definition ->> 'name';
    made.percent_off := (definition ->> 'percent_off')::numeric;
    made.amount_off := (definition ->> 'amount_off')::bigint;
    made.currency := definition ->> 'currency';
    made.currency_options := coalesce(definition -> 'currency_options', '{}');
    made.duration := definition ->> 'duration';
    made.duration_in_months := (definition ->> 'duration_in_months')::integer;
    made.applies_to_products := (SELECT array_agg(p.id ORDER BY p.place)
        FROM jsonb_array_elements_text(definition #> '{applies_to,products}') WITH ORDINALITY p (id, place));
    made.max_redemptions := (definition ->> 'max_redemptions')::bigint;
    made.redeem_by := (definition ->> 'redeem_by')::timestamptz;
    made.metadata := coalesce(definition -> 'metadata', '{}');
    SELECT min(p.id) INTO unknown FROM unnest(made.applies_to_products) p (id)
    WHERE NOT EXISTS (SELECT FROM billing.products d WHERE d.id = p.id);
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'product "%" of the coupon does not exist', unknown
            USING ERRCODE = 'foreign_key_violation', HINT = 'Create it first with billing.create_product.';
    END IF;
    INSERT INTO billing.coupons
        (id, name, percent_off, amount_off, currency, currency_options, duration, duration_in_months,
         applies_to_products, max_redemptions, redeem_by, metadata, created)
    VALUES (made.id, made.name, made.percent_off, made.amount_off, made.currency, made.currency_options, made.duration,
            made.duration_in_months, made.applies_to_products, made.max_redemptions, made.redeem_by, made.metadata,
            create_coupon.as_of)
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        SELECT c.* INTO existing FROM billing.coupons c WHERE c.id = made.id;
        IF existing.deleted_at IS NOT NULL
           OR (existing.name, existing.percent_off, existing.amount_off, existing.currency, existing.currency_options, existing.duration,
               existing.duration_in_months, existing.applies_to_products, existing.max_redemptions, existing.redeem_by, existing.metadata)
              IS DISTINCT FROM
              (made.name, made.percent_off, made.amount_off, made.currency, made.currency_options, made.duration,
               made.duration_in_months, made.applies_to_products, made.max_redemptions, made.redeem_by, made.metadata)
        THEN
            RAISE EXCEPTION 'coupon "%" exists already with other data', made.id
                USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'coupons',
                      HINT = 'The terms of a coupon never change: create one with another id.';
        END IF;
    END IF;
    RETURN made.id;
END $$;
COMMENT ON FUNCTION billing.create_coupon(jsonb, text, timestamptz) IS
'Creates a coupon from Stripe''s JSON and returns its id: the argument, the object''s own, or a new one (coupon_...).
Fields: percent_off (to four places) or amount_off with currency, and currency_options; duration (default once),
duration_in_months; applies_to.products; max_redemptions; redeem_by; name; metadata. Again with the same id and data is
no error. Errors: 23505 the id exists with other data, or was deleted; 23503 unknown product; 22023 a field breaks a
rule; 22004 NULL.';

CREATE FUNCTION billing.delete_coupon(coupon text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.require_argument('coupon', coupon);
    PERFORM billing.require_time('as_of', as_of);
    UPDATE billing.coupons c SET deleted_at = coalesce(c.deleted_at, delete_coupon.as_of)
    WHERE c.id = delete_coupon.coupon;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'coupon "%" does not exist', coupon
            USING ERRCODE = 'undefined_object', HINT = 'See billing.coupons for the coupons there are.';
    END IF;
    RETURN coupon;
END $$;
COMMENT ON FUNCTION billing.delete_coupon(text, timestamptz) IS
'Takes a coupon off offer and returns its id: it cannot be redeemed any more, and the discounts that were made of it go
on, as in Stripe. Again is no error. Errors: 42704 unknown coupon; 22023 as_of infinite; 22004 NULL.';
