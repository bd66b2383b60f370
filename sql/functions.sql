-- Pure functions: amounts, periods, ids, and the settings as SQL sees them.

CREATE FUNCTION billing.generate_id(prefix text) RETURNS text
    AS 'MODULE_PATHNAME', 'generate_id_wrapper' LANGUAGE c VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.generate_id(text) IS
    'prefix, an underscore, and the 32 hex digits of a UUIDv7: ids sort by creation. NULL in, NULL out.';

CREATE FUNCTION billing.price_amount(price billing.price, quantity numeric) RETURNS numeric
    AS 'MODULE_PATHNAME', 'price_amount_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.price_amount(billing.price, numeric) IS
    'What a quantity costs: exact, unrounded, in minor units of the price''s currency. The one place where a quantity becomes an '
    'amount. A negative quantity counts as 0; 0 still costs the first tier''s flat amount. Never below minimum_amount nor above '
    'maximum_amount. NULL in, NULL out. 22023: NaN, infinity.';

CREATE FUNCTION billing.price_in_currency(price billing.price, currency text) RETURNS billing.price
    AS 'MODULE_PATHNAME', 'price_in_currency_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.price_in_currency(billing.price, text) IS
    'The price as its currency_options have it in a currency, or as it is in its own; the result has this one currency only. NULL '
    'in, NULL out. 22023: the price has no amounts in it.';

CREATE FUNCTION billing.currency_exponent(currency text) RETURNS integer
    AS 'MODULE_PATHNAME', 'currency_exponent_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.currency_exponent(text) IS
    'Decimal places of a currency''s minor unit as Stripe has it: 0 (jpy), 2 (usd) or 3 (kwd), to show amounts: 10 ^ exponent '
    'minor units are one unit. 2 for isk and ugx, whose two places are always 00. NULL in, NULL out. 22023: an unknown currency.';

CREATE FUNCTION billing.price_line_amount(price billing.price, quantity numeric) RETURNS bigint
    AS 'MODULE_PATHNAME', 'price_line_amount_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.price_line_amount(billing.price, numeric) IS
    'price_amount() rounded once, half away from zero, to the minor unit: the amount of an invoice line. 22003: beyond bigint.';

CREATE FUNCTION billing.price_fitting_amount(price billing.price, quantity numeric) RETURNS bigint
    AS 'MODULE_PATHNAME', 'price_fitting_amount_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.price_fitting_amount(billing.price, numeric) IS
    'price_line_amount(), but NULL where that is beyond bigint, so that one customer''s bad usage stops nobody else''s invoice. Internal.';

CREATE FUNCTION billing.prorated_amount(amount numeric, part tstzrange, whole tstzrange) RETURNS bigint
    AS 'MODULE_PATHNAME', 'prorated_amount_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.prorated_amount(numeric, tstzrange, tstzrange) IS
    'amount (minor units, unrounded) times the length of part over the length of whole, both [start, end), exact to the '
    'microsecond; rounded once, half away from zero. 22023: an unbounded or empty range; 22003: beyond bigint.';

CREATE FUNCTION billing.period_containing(anchor timestamptz, "interval" text, interval_count integer, at timestamptz)
    RETURNS tstzrange
    AS 'MODULE_PATHNAME', 'period_containing_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.period_containing(timestamptz, text, integer, timestamptz) IS
    'The billing period [start, end) that holds "at". Boundaries lie whole multiples of interval_count days, weeks, months or years '
    'from the anchor, in UTC; an anchor on the 29th to 31st clamps to the end of a shorter month and comes back after it. '
    '22023: an unknown interval, a count below 1, an infinite time; 22008: out of range.';

CREATE FUNCTION billing.setting_seconds(name text) RETURNS bigint
    AS 'MODULE_PATHNAME', 'setting_seconds_wrapper' LANGUAGE c STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.setting_seconds(text) IS
    'A time setting by its name without "billing.", in seconds; NULL: no limit (-1). 42704: no such setting.';

CREATE FUNCTION billing.setting_interval(name text) RETURNS interval
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    RETURN pg_catalog.make_interval(secs => billing.setting_seconds(name));
COMMENT ON FUNCTION billing.setting_interval(text) IS
    'A time setting by its name without "billing."; NULL: no limit (-1). 42704: no such setting.';

CREATE FUNCTION billing.late_usage() RETURNS text
    AS 'MODULE_PATHNAME', 'late_usage_wrapper' LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION billing.late_usage() IS 'The setting billing.late_usage: next_invoice or ignore.';

CREATE FUNCTION billing.invoice_numbering() RETURNS text
    AS 'MODULE_PATHNAME', 'invoice_numbering_wrapper' LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION billing.invoice_numbering() IS 'The setting billing.invoice_numbering: account or customer.';

CREATE FUNCTION billing.require_supported(subscription billing.subscription) RETURNS void
    AS 'MODULE_PATHNAME', 'require_supported_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.require_supported(billing.subscription) IS
    'An object that Stripe returned can be cast whatever it holds; this raises 0A000, naming the field, for one that means money and '
    'is not built yet, so that nothing is billed as if it were not there. Internal.';

CREATE FUNCTION billing.subscription_changes(changes text) RETURNS text
    AS 'MODULE_PATHNAME', 'subscription_changes_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.subscription_changes(text) IS
    'What update_subscription was given, as JSON, validated and normalised: what is to be cleared is null there. 22P02: no JSON '
    'object; 22023: a field breaks a rule, which the message names; 0A000: a field that is not built. Internal.';

CREATE FUNCTION billing.subscription_schedule_definition(definition text, is_update boolean) RETURNS text
    AS 'MODULE_PATHNAME', 'subscription_schedule_definition_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.subscription_schedule_definition(text, boolean) IS
    'What create_subscription_schedule or update_subscription_schedule was given, as JSON, validated and normalised. 22P02: no '
    'JSON object; 22023: a field breaks a rule, which the message names; 0A000: a field that is not built. Internal.';

CREATE FUNCTION billing.normalised_bill(kind text, object text) RETURNS text
    AS 'MODULE_PATHNAME', 'normalised_bill_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.normalised_bill(text, text) IS
    'The JSON of an invoice_item, an invoice_item_change, an invoice or a credit_note as somebody wrote it, checked and normalised. '
    '22P02: no JSON object; 22023: a field breaks a rule; 0A000: a field that is not built yet; NULL in, NULL out. Internal.';
