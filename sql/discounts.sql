-- Discounts: a coupon redeemed for a customer, a subscription, one of its items or an invoice.

CREATE TABLE billing.discounts (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('di'),
    coupon text COLLATE "C" NOT NULL REFERENCES billing.coupons,
    customer text COLLATE "C" NOT NULL REFERENCES billing.customers,
    subscription text COLLATE "C" REFERENCES billing.subscriptions,
    subscription_item text COLLATE "C" REFERENCES billing.subscription_items,
    invoice text COLLATE "C" REFERENCES billing.invoices,
    places integer[] NOT NULL CONSTRAINT discounts_place_positive CHECK (0 < ALL (places)),
    placed_at timestamptz[] NOT NULL,
    place integer NOT NULL GENERATED ALWAYS AS (places[cardinality(places)]) STORED,
    start_at timestamptz NOT NULL,
    end_at timestamptz,
    ended_at timestamptz,
    redeemed_invoice text COLLATE "C" REFERENCES billing.invoices,
    created timestamptz NOT NULL,
    CONSTRAINT discounts_one_object CHECK (num_nonnulls(subscription, subscription_item, invoice) <= 1),
    CONSTRAINT discounts_places_have_times CHECK (cardinality(places) = cardinality(placed_at)),
    CONSTRAINT discounts_end_after_start CHECK (end_at > start_at)
);
CREATE INDEX discounts_customer_idx ON billing.discounts (customer);
CREATE INDEX discounts_subscription_idx ON billing.discounts (subscription) WHERE subscription IS NOT NULL;
CREATE INDEX discounts_subscription_item_idx ON billing.discounts (subscription_item)
    WHERE subscription_item IS NOT NULL;
CREATE INDEX discounts_invoice_idx ON billing.discounts (invoice) WHERE invoice IS NOT NULL;
COMMENT ON TABLE billing.discounts IS
'Coupons redeemed. Made and ended by billing.set_discounts. Those of an item come first; then those of the invoice, or
else of its subscription, or else of its customer: the nearest list that has any in force replaces the others.';
COMMENT ON COLUMN billing.discounts.id IS 'The discount''s id (di_...).';
COMMENT ON COLUMN billing.discounts.coupon IS 'What it takes off.';
COMMENT ON COLUMN billing.discounts.customer IS 'Whose it is; all of the customer''s, where the next three are NULL.';
COMMENT ON COLUMN billing.discounts.subscription IS 'The subscription that it is for; NULL for another object.';
COMMENT ON COLUMN billing.discounts.subscription_item IS 'The item that it is for; NULL for another object.';
COMMENT ON COLUMN billing.discounts.invoice IS 'The one invoice that it is for; NULL for another object.';
COMMENT ON COLUMN billing.discounts.places IS
'The places in the object''s list that it was given, in the order in which that was said: invoices created before a list
was put in another order go by the order that it had.';
COMMENT ON COLUMN billing.discounts.placed_at IS
'From when each of places holds, for invoices created then or later: the last one said of those that hold counts.';
COMMENT ON COLUMN billing.discounts.place IS
'Its place in the object''s list, from 1, as it was said last: discounts apply one after the other.';
COMMENT ON COLUMN billing.discounts.start_at IS 'From when it holds: for invoices created then or later.';
COMMENT ON COLUMN billing.discounts.end_at IS
'Until when a repeating one holds: for invoices created before, and for service that ended by then on later ones. NULL:
no such end.';
COMMENT ON COLUMN billing.discounts.ended_at IS
'When it was taken off its object: invoices created from then on go without, and the one that it was of. NULL while it
is listed.';
COMMENT ON COLUMN billing.discounts.redeemed_invoice IS
'The invoice that used up a discount of duration once; NULL until one is final, and for others.';
COMMENT ON COLUMN billing.discounts.created IS 'The as_of of its creation.';
COMMENT ON INDEX billing.discounts_customer_idx IS 'Finds the discounts of a customer.';
COMMENT ON INDEX billing.discounts_subscription_idx IS 'Finds the discounts of a subscription.';
COMMENT ON INDEX billing.discounts_subscription_item_idx IS 'Finds the discounts of an item.';
COMMENT ON INDEX billing.discounts_invoice_idx IS 'Finds the discounts of one invoice.';
SELECT pg_catalog.pg_extension_config_dump('billing.discounts', '');

CREATE FUNCTION billing.discounts_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (SELECT FROM billing.invoices i WHERE i.id = OLD.invoice AND i.status = 'draft') THEN
            RETURN OLD;
        END IF;
    END IF;
    IF TG_OP <> 'UPDATE'
       OR (OLD.id, OLD.coupon, OLD.customer, OLD.subscription, OLD.subscription_item, OLD.invoice, OLD.start_at,
           OLD.end_at, OLD.created)
          IS DISTINCT FROM
          (NEW.id, NEW.coupon, NEW.customer, NEW.subscription, NEW.subscription_item, NEW.invoice, NEW.start_at,
           NEW.end_at, NEW.created)
       OR OLD.ended_at IS NOT NULL AND NEW.ended_at IS DISTINCT FROM OLD.ended_at
       OR (OLD.places, OLD.placed_at)
          IS DISTINCT FROM (NEW.places[:cardinality(OLD.places)], NEW.placed_at[:cardinality(OLD.placed_at)])
    THEN
        RAISE EXCEPTION 'discount "%" cannot change', CASE TG_OP WHEN 'TRUNCATE' THEN 'any' ELSE OLD.id END
            USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'discounts',
                  HINT = 'Replace it with billing.set_discounts.';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION billing.discounts_check() IS
'Trigger: what a discount is of, when it holds and which places it had never changes, and its row is never deleted (23001),
but with the draft that it is of.';
CREATE TRIGGER discounts_check BEFORE UPDATE OR DELETE ON billing.discounts
    FOR EACH ROW EXECUTE FUNCTION billing.discounts_check();
CREATE TRIGGER discounts_check_truncate BEFORE TRUNCATE ON billing.discounts
    FOR EACH STATEMENT EXECUTE FUNCTION billing.discounts_check();
COMMENT ON TRIGGER discounts_check ON billing.discounts IS 'Invoices refer to discounts as they were.';
COMMENT ON TRIGGER discounts_check_truncate ON billing.discounts IS 'Discounts are never deleted at once.';

CREATE FUNCTION billing.discounted_object(
    object_kind text, object_id text, as_of timestamptz,
    OUT customer text, OUT currency text, OUT start_at timestamptz
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    status text;
BEGIN
    PERFORM billing.require_argument('object_kind', object_kind);
    PERFORM billing.require_argument('object_id', object_id);
    PERFORM billing.require_time('as_of', as_of);
    start_at := as_of;
    CASE object_kind
        WHEN 'customer' THEN
            -- Not the row: finalization locks discounts before customers.
            PERFORM pg_advisory_xact_lock(hashtextextended(object_id, hashtext('billing.discounts')));
            SELECT c.id INTO customer FROM billing.customers c WHERE c.id = object_id;
        WHEN 'subscription' THEN
            -- One made with its first discounts and a start in the past has them from its start.
            SELECT s.customer, s.currency, s.status,
                   CASE WHEN s.created = as_of THEN least(s.start_date, as_of) ELSE as_of END
            INTO customer, currency, status, start_at
            FROM billing.subscriptions s WHERE s.id = object_id FOR NO KEY UPDATE;
        WHEN 'subscription_item' THEN
            SELECT s.customer, s.currency, s.status,
                   CASE WHEN s.created = as_of THEN least(s.start_date, as_of) ELSE as_of END
            INTO customer, currency, status, start_at
            FROM billing.subscription_items i JOIN billing.subscriptions s ON s.id = i.subscription
            WHERE i.id = object_id FOR NO KEY UPDATE OF s;
        WHEN 'invoice' THEN
            -- Whatever the draft's own time: it is this invoice that is meant.
            SELECT i.customer, i.currency, i.status, least(i.created, as_of)
            INTO customer, currency, status, start_at
            FROM billing.invoices i WHERE i.id = object_id FOR NO KEY UPDATE;
            IF status <> 'draft' THEN
                RAISE EXCEPTION 'invoice "%" is % and takes no discounts', object_id, status
                    USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Only drafts change.';
            END IF;
        ELSE
            RAISE EXCEPTION 'object_kind "%" is not known', object_kind
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Use customer, subscription, subscription_item or invoice.';
    END CASE;
    IF customer IS NULL THEN
        RAISE EXCEPTION '% "%" does not exist', replace(object_kind, '_', ' '), object_id
            USING ERRCODE = 'undefined_object', HINT = format('See billing.%ss.', object_kind);
    ELSIF status IN ('canceled', 'incomplete_expired') THEN
        RAISE EXCEPTION '% "%" is % and takes no discounts', replace(object_kind, '_', ' '), object_id, status
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Create another subscription.';
    END IF;
END $$;
COMMENT ON FUNCTION billing.discounted_object(text, text, timestamptz) IS
'Locks what discounts are to be set on, and says whose it is, in which currency (NULL for a customer), and from when
discounts set at as_of hold. Errors: 42704 no such object; 55000 a canceled subscription, an invoice that is no draft;
22023 an unknown kind, as_of infinite; 22004 NULL. Internal.';

CREATE FUNCTION billing.reach_discounted(object_kind text, object_id text, as_of timestamptz, coupons text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
BEGIN
    PERFORM billing.require_time('as_of', as_of);
    SELECT s.* INTO found FROM billing.subscriptions s
    WHERE s.id = CASE object_kind
                 WHEN 'subscription' THEN object_id
                 WHEN 'subscription_item' THEN
                     (SELECT i.subscription FROM billing.subscription_items i WHERE i.id = object_id) END;
    -- One that is being made has its first discounts from its start on, and so no invoice before them.
    IF found.created < as_of THEN
        PERFORM billing.lock_to_change(found.id, as_of, coupons);
        PERFORM billing.apply_due_changes(as_of, found.id);
        PERFORM billing.make_drafts(as_of, found.id);
    END IF;
END $$;
COMMENT ON FUNCTION billing.reach_discounted(text, text, timestamptz, text[]) IS
'Brings a subscription whose discounts, or those of an item, are to be set at as_of to where runs on time would have: phases
of its schedule begin, and periods end. Locks it for that and the coupons that are to be redeemed; does nothing for other
objects. Errors: 22023 as_of infinite; 22004 NULL. Internal.';

CREATE FUNCTION billing.redeem_coupon(coupon text, currency text, as_of timestamptz) RETURNS billing.coupons
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.coupons;
BEGIN
    -- Locked first: the last redemption goes to one of two sessions, and the other one sees it gone.
    SELECT c.* INTO found FROM billing.coupons c WHERE c.id = redeem_coupon.coupon FOR NO KEY UPDATE;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'coupon "%" does not exist', redeem_coupon.coupon
            USING ERRCODE = 'foreign_key_violation', HINT = 'Create it first with billing.create_coupon.';
    ELSIF found.deleted_at IS NOT NULL THEN
        RAISE EXCEPTION 'coupon "%" was deleted', found.id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Use another coupon.';
    ELSIF redeem_coupon.as_of >= found.redeem_by THEN
        RAISE EXCEPTION 'coupon "%" had to be redeemed before % (coupon_expired)', found.id, found.redeem_by
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Use another coupon.';
    ELSIF found.times_redeemed >= found.max_redemptions THEN
        RAISE EXCEPTION 'coupon "%" is redeemed % times already, which is all (coupon_expired)',
                found.id, found.times_redeemed
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Use another coupon.';
    ELSIF found.amount_off IS NOT NULL AND redeem_coupon.currency IS NOT NULL
          AND found.currency <> redeem_coupon.currency AND NOT found.currency_options ? redeem_coupon.currency
    THEN
        RAISE EXCEPTION 'coupon "%" is in %, not in %', found.id,
                concat_ws(', ', found.currency,
                          (SELECT string_agg(k, ', ' ORDER BY k) FROM jsonb_object_keys(found.currency_options) k)),
                redeem_coupon.currency
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use one with percent_off, or with currency_options.';
    END IF;
    UPDATE billing.coupons c SET times_redeemed = c.times_redeemed + 1 WHERE c.id = found.id;
    RETURN found;
END $$;
COMMENT ON FUNCTION billing.redeem_coupon(text, text, timestamptz) IS
'Counts one redemption of a coupon and returns it. currency is what amount_off must come in; NULL: any. Errors: 23503
unknown; 55000 deleted, past redeem_by, or redeemed max_redemptions times; 22023 another currency. Internal.';

CREATE FUNCTION billing.replace_discounts(object_kind text, object_id text, discounts jsonb, as_of timestamptz)
RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    owner record;
    listed text[];
    entry record;
    kept text;
    coupon billing.coupons;
    result text[] := '{}';
BEGIN
    PERFORM billing.require_argument('discounts', discounts);
    SELECT * INTO owner FROM billing.discounted_object(replace_discounts.object_kind, replace_discounts.object_id, as_of) o;
    IF jsonb_typeof(discounts) NOT IN ('array', 'null') THEN
        RAISE EXCEPTION 'discounts % is not an array', left(discounts::text, 100)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass [{"coupon": "..."}].';
    ELSIF jsonb_typeof(discounts) = 'array' AND jsonb_array_length(discounts) > 20 THEN
        RAISE EXCEPTION '% discounts on % "%"', jsonb_array_length(discounts), replace(object_kind, '_', ' '), object_id
            USING ERRCODE = 'invalid_parameter_value', HINT = 'An object takes at most 20.';
    END IF;
    IF object_kind = 'invoice' AND EXISTS (
        SELECT FROM billing.invoice_lines l
        JOIN billing.invoice_items x ON x.subscription_item = l.subscription_item AND x.charge IN (l.id, l.invoice_item)
        JOIN billing.invoices i ON i.id = x.invoice AND i.status NOT IN ('draft', 'void')
        WHERE l.invoice = object_id)
    THEN
        RAISE EXCEPTION 'the discounts of invoice "%" stand: something of it has been given back by them', object_id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Correct it by a credit note once it is final.';
    END IF;
    listed := ARRAY(
        SELECT d.id FROM billing.discounts d
        WHERE d.ended_at IS NULL
          AND CASE object_kind
              WHEN 'customer' THEN d.customer = object_id
                  AND num_nonnulls(d.subscription, d.subscription_item, d.invoice) = 0
              WHEN 'subscription' THEN d.subscription = object_id
              WHEN 'subscription_item' THEN d.subscription_item = object_id
              ELSE d.invoice = object_id END
        ORDER BY d.id FOR NO KEY UPDATE);
    -- All of them before the first is redeemed: another list may name them in another order.
    PERFORM billing.lock_discounts('{}', billing.coupons_named(jsonb_build_object('discounts', discounts)));
    FOR entry IN
        SELECT e.place, e.value, e.value ->> 'coupon' AS coupon,
               CASE jsonb_typeof(e.value) WHEN 'string' THEN e.value #>> '{}'
                    ELSE coalesce(e.value ->> 'discount', e.value ->> 'id') END AS discount
        FROM jsonb_array_elements(CASE jsonb_typeof(discounts) WHEN 'array' THEN discounts ELSE '[]' END)
            WITH ORDINALITY e (value, place)
        ORDER BY e.place
    LOOP
        IF jsonb_typeof(entry.value) = 'object' AND coalesce(entry.value ->> 'promotion_code', '') <> '' THEN
            RAISE EXCEPTION 'promotion code "%" of discounts[%] is not supported yet',
                    entry.value ->> 'promotion_code', entry.place - 1
                USING ERRCODE = 'feature_not_supported', HINT = 'Name the coupon.';
        ELSIF jsonb_typeof(entry.value) NOT IN ('object', 'string')
              OR num_nonnulls(entry.coupon, entry.discount) = 0
              OR entry.value ? 'discount' AND entry.coupon IS NOT NULL
              OR jsonb_path_exists(entry.value, 'strict $.keyvalue() ? (@.key != "coupon" && @.key != "discount"
                     && @.key != "promotion_code" && @.key != "id" && @.key != "object" && @.key != "customer" && @.key != "start"
                     && @.key != "end" && @.key != "subscription" && @.key != "subscription_item" && @.key != "invoice"
                     && @.key != "invoice_item" && @.key != "source" && @.key != "checkout_session"
                     && @.key != "customer_account")', silent => true)
        THEN
            RAISE EXCEPTION 'discounts[%] is %', entry.place - 1, left(entry.value::text, 100)
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Pass {"coupon": "..."} for a new discount, {"discount": "di_..."} for one that stays.';
        END IF;
        IF entry.discount IS NOT NULL THEN
            kept := entry.discount;
            IF kept <> ALL (listed) THEN
                RAISE EXCEPTION 'discount "%" is not one of % "%"', kept, replace(object_kind, '_', ' '), object_id
                    USING ERRCODE = 'undefined_object', HINT = 'See billing.discounts; name a coupon for a new one.';
            ELSIF kept = ANY (result) THEN
                RAISE EXCEPTION 'discount "%" is named twice', kept
                    USING ERRCODE = 'invalid_parameter_value', HINT = 'Name each discount once.';
            END IF;
            -- Older invoices go by the places before. What is said as of an earlier time takes the place of what was said of later.
            UPDATE billing.discounts d
            SET places = d.places || entry.place::integer, placed_at = d.placed_at || owner.start_at
            WHERE d.id = kept
              AND (d.place <> entry.place OR d.placed_at[cardinality(d.placed_at)] > owner.start_at);
        ELSE
            coupon := billing.redeem_coupon(entry.coupon, owner.currency, as_of);
            kept := billing.generate_id('di');
            INSERT INTO billing.discounts
                (id, coupon, customer, subscription, subscription_item, invoice, places, placed_at, start_at, end_at,
                 created)
            VALUES (kept, coupon.id, owner.customer,
                    CASE object_kind WHEN 'subscription' THEN object_id END,
                    CASE object_kind WHEN 'subscription_item' THEN object_id END,
                    CASE object_kind WHEN 'invoice' THEN object_id END,
                    ARRAY[entry.place::integer], ARRAY[owner.start_at], owner.start_at,
                    -- Months of the calendar in UTC (see SET above), clamped at their end.
                    owner.start_at + make_interval(months => coupon.duration_in_months), as_of);
        END IF;
        result := result || kept;
    END LOOP;
    SELECT min(c.coupon) INTO kept FROM (
        SELECT d.coupon FROM billing.discounts d WHERE d.id = ANY (result) GROUP BY 1 HAVING count(*) > 1) c (coupon);
    IF kept IS NOT NULL THEN
        RAISE EXCEPTION 'coupon "%" is on % "%" twice', kept, replace(object_kind, '_', ' '), object_id
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name each coupon once.';
    END IF;
    -- Where the new ones hold from a start in the past on, the old ones never did: of two lists only one is in force.
    UPDATE billing.discounts d SET ended_at = CASE object_kind WHEN 'invoice' THEN as_of ELSE owner.start_at END
    WHERE d.id = ANY (listed) AND d.id <> ALL (result);
    IF object_kind = 'invoice' THEN
        PERFORM billing.adjust_drafts(ARRAY[object_id]);
    END IF;
    RETURN result;
END $$;
COMMENT ON FUNCTION billing.replace_discounts(text, text, jsonb, timestamptz) IS
'What billing.set_discounts, and a change of a subscription or a phase, does to the list of an object which is as it is to be
at as_of. Errors: as of billing.set_discounts. Internal.';

CREATE FUNCTION billing.set_discounts(
    object_kind text, object_id text, discounts jsonb, as_of timestamptz DEFAULT now()
) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM billing.reach_discounted(
        object_kind, object_id, as_of, billing.coupons_named(jsonb_build_object('discounts', discounts)));
    RETURN billing.replace_discounts(object_kind, object_id, discounts, as_of);
END $$;
COMMENT ON FUNCTION billing.set_discounts(text, text, jsonb, timestamptz) IS
'Sets the list of discounts of a customer, subscription, subscription_item or draft invoice (object_kind), in Stripe''s
form: [{"coupon": "..."}] redeems a coupon, {"discount": "di_..."} or the id alone keeps one that there is; those not
named end at as_of; [] or null ends all. Returns their ids, in order: they apply one after the other. At most 20, each
coupon once. Phases of a subscription that began, and its periods that ended, by as_of come first. Errors: 42704 unknown
object or discount; 23503 unknown coupon; 55000 a coupon that cannot be redeemed any more, a canceled subscription, an
invoice that is no draft or of which something was given back; 22023 another currency, a bad list; 0A000 a promotion code;
22004 NULL.';

CREATE FUNCTION billing.apply_discount(
    coupon text, object_kind text, object_id text, as_of timestamptz DEFAULT now()
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    list jsonb;
    result text[];
BEGIN
    PERFORM billing.require_argument('coupon', coupon);
    PERFORM billing.reach_discounted(object_kind, object_id, as_of, ARRAY[apply_discount.coupon]);
    -- Locked before the list is read: two at once both stay on it.
    PERFORM FROM billing.discounted_object(apply_discount.object_kind, apply_discount.object_id, as_of);
    -- In the order that it had then.
    SELECT coalesce(jsonb_agg(d.id ORDER BY p.place, d.id), '[]') INTO list FROM billing.discounts d
    LEFT JOIN LATERAL (
        SELECT o.place FROM unnest(d.places, d.placed_at) WITH ORDINALITY o (place, at, nth)
        WHERE d.invoice IS NOT NULL OR o.at <= apply_discount.as_of ORDER BY o.nth DESC LIMIT 1) p ON true
    WHERE d.ended_at IS NULL
      AND CASE object_kind
          WHEN 'customer' THEN d.customer = object_id
              AND num_nonnulls(d.subscription, d.subscription_item, d.invoice) = 0
          WHEN 'subscription' THEN d.subscription = object_id
          WHEN 'subscription_item' THEN d.subscription_item = object_id
          ELSE d.invoice = object_id END;
    result := billing.replace_discounts(object_kind, object_id,
        list || jsonb_build_array(jsonb_build_object('coupon', apply_discount.coupon)), as_of);
    RETURN result[cardinality(result)];
END $$;
COMMENT ON FUNCTION billing.apply_discount(text, text, text, timestamptz) IS
'Redeems a coupon for a customer, subscription, subscription_item or draft invoice (object_kind), after the discounts
that it has, and returns the new discount''s id (di_...). Errors: as of billing.set_discounts.';
