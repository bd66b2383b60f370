-- What a subscription may be made of: its prices, their currency and their intervals.

CREATE FUNCTION billing.price_terms(price billing.prices, currency text) RETURNS billing.price
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN ($1).currency = $2 THEN ($1).price ELSE billing.price_in_currency(($1).price, $2) END
$$;
COMMENT ON FUNCTION billing.price_terms(billing.prices, text) IS
'What a price costs in a subscription of a currency. Internal.';

CREATE FUNCTION billing.require_price(
    price text, quantity bigint, currency text, archived_too boolean DEFAULT false
) RETURNS billing.prices
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.prices;
BEGIN
    SELECT p.* INTO found FROM billing.prices p WHERE p.id = require_price.price;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'price "%" does not exist', require_price.price
            USING ERRCODE = 'foreign_key_violation', HINT = 'Create it first with billing.create_price.';
    ELSIF NOT found.active AND NOT archived_too THEN
        RAISE EXCEPTION 'price "%" is archived', found.id
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Use a price on offer, or activate it with billing.activate_price.';
    ELSIF found.type <> 'recurring' THEN
        RAISE EXCEPTION 'price "%" is %: a subscription takes recurring prices only', found.id, found.type
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use a price with "recurring".';
    ELSIF found.usage_type = 'metered' AND require_price.quantity IS NOT NULL THEN
        RAISE EXCEPTION 'quantity % of metered price "%"', require_price.quantity, found.id
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave quantity out: usage is the quantity.';
    ELSIF found.currency <> require_price.currency
          AND NOT coalesce(found.price::jsonb -> 'currency_options' ? require_price.currency, false)
    THEN
        RAISE EXCEPTION 'price "%" is in %, not in the currency of the subscription, %',
                found.id, found.currency, require_price.currency
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'All prices of a subscription have one currency, if need be through currency_options.';
    ELSIF found.usage_type = 'licensed' THEN
        -- Here and not in the run that first bills it, which it would stop for everybody.
        PERFORM billing.price_line_amount(
            billing.price_terms(found, require_price.currency), coalesce(require_price.quantity, 1));
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION billing.require_price(text, bigint, text, boolean) IS
'The price that a new item, or an item''s new price, names, if a subscription of that currency may have it in that
quantity. Errors: 23503 unknown; 55000 archived, unless archived_too; 22023 one-time, metered with a quantity,
another currency; 22003 an amount beyond bigint. Internal.';

CREATE FUNCTION billing.shortest_interval(prices text[], OUT "interval" text, OUT interval_count integer)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    shortest record;
    other record;
BEGIN
    FOR other IN
        SELECT p.id, p."interval", p.interval_count, u.days, u.months
        FROM billing.prices p
        CROSS JOIN LATERAL (
            SELECT p.interval_count * CASE p."interval" WHEN 'day' THEN 1 WHEN 'week' THEN 7 END,
                   p.interval_count * CASE p."interval" WHEN 'month' THEN 1 WHEN 'year' THEN 12 END) u (days, months)
        WHERE p.id = ANY (shortest_interval.prices)
        ORDER BY coalesce(u.days, 28 * u.months), p.id
    LOOP
        IF shortest IS NULL THEN
            shortest := other;
        -- Every day is a boundary of days, whatever the length of a month.
        ELSIF coalesce(other.days % shortest.days, other.months % shortest.months, shortest.days - 1, 1) <> 0
              OR other.months IS NOT NULL AND shortest."interval" = 'week'
        THEN
            RAISE EXCEPTION 'price "%" is billed every % % and price "%" every % %, which is no multiple of it',
                    shortest.id, shortest.interval_count, shortest."interval",
                    other.id, other.interval_count, other."interval"
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Every interval must be a multiple of the shortest one; weeks do not mix with months or '
                             'years. Make another subscription.';
        END IF;
    END LOOP;
    "interval" := shortest."interval";
    interval_count := shortest.interval_count;
END $$;
COMMENT ON FUNCTION billing.shortest_interval(text[]) IS
'The shortest interval of some prices, of which the others must be multiples (22023, naming both). Internal.';

CREATE FUNCTION billing.configured_anchor(config jsonb, start timestamptz, months integer) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    day constant integer := config ->> 'day_of_month';
    month constant integer := config ->> 'month';
    step constant interval := make_interval(months => CASE WHEN month IS NULL THEN months ELSE 12 END);
    first_of timestamptz := date_trunc('month', start);
    anchor timestamptz;
    best timestamptz;
BEGIN
    FOR place IN 0..12 LOOP
        best := billing.day_of_month(config, start, first_of + make_interval(months => place));
        EXIT WHEN best >= start AND coalesce(extract(month FROM best) = month, true);
    END LOOP;
    -- Counting from a month too short for its day would lose the day for good, so the anchor is a later one.
    anchor := date_trunc('month', best);
    FOR place IN 1..48 LOOP
        EXIT WHEN extract(day FROM best) = day;
        first_of := billing.day_of_month(config, start, anchor + place * step);
        IF extract(day FROM first_of) > extract(day FROM best) THEN
            best := first_of;
        END IF;
    END LOOP;
    RETURN best;
END $$;
COMMENT ON FUNCTION billing.configured_anchor(jsonb, timestamptz, integer) IS
'The anchor that a billing_cycle_anchor_config means for a subscription that starts at a time and is billed every so
many months: one that gives the first boundary at or after the start. Internal.';

CREATE FUNCTION billing.day_of_month(config jsonb, start timestamptz, month timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT month
        + make_interval(
            days => least((config ->> 'day_of_month')::integer,
                          extract(day FROM month + interval '1 month -1 day')::integer) - 1,
            hours => coalesce((config ->> 'hour')::integer, extract(hour FROM start)::integer),
            mins => coalesce((config ->> 'minute')::integer, extract(minute FROM start)::integer),
            secs => coalesce((config ->> 'second')::double precision, extract(second FROM start)::double precision))
$$;
COMMENT ON FUNCTION billing.day_of_month(jsonb, timestamptz, timestamptz) IS
'The day and time of a billing_cycle_anchor_config in a month, given by its start: the last day where the month is too
short. What the configuration leaves open is as at the subscription''s start. Internal.';
