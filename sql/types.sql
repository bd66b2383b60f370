-- The three value types. Stored as a version byte and a compact encoding in which equal values have equal bytes; sent in binary
-- as a version byte and JSON text, as jsonb is. CREATE TYPE first makes shells, which the input functions return.
-- The operators stand in pg_catalog so that = is found whatever the search_path.

CREATE TYPE billing.meter;

CREATE FUNCTION billing.meter_in(cstring) RETURNS billing.meter
    AS 'MODULE_PATHNAME', 'meter_in_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.meter_out(billing.meter) RETURNS cstring
    AS 'MODULE_PATHNAME', 'meter_out_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.meter_recv(internal) RETURNS billing.meter
    AS 'MODULE_PATHNAME', 'meter_recv_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.meter_send(billing.meter) RETURNS bytea
    AS 'MODULE_PATHNAME', 'meter_send_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.meter_in(cstring) IS
    'Input. 22P02: no JSON object; 22023: a field breaks a rule, which the message names; 0A000: a field that is not built yet.';
COMMENT ON FUNCTION billing.meter_out(billing.meter) IS 'Output: normalised JSON text.';
COMMENT ON FUNCTION billing.meter_recv(internal) IS 'Binary input: version byte 1, then the JSON text in UTF-8. 22P03: anything else.';
COMMENT ON FUNCTION billing.meter_send(billing.meter) IS 'Binary output: version byte 1, then the JSON text in UTF-8.';

CREATE TYPE billing.meter (
    INPUT = billing.meter_in,
    OUTPUT = billing.meter_out,
    RECEIVE = billing.meter_recv,
    SEND = billing.meter_send,
    INTERNALLENGTH = VARIABLE,
    ALIGNMENT = int4,
    STORAGE = extended
);
COMMENT ON TYPE billing.meter IS
    'Which events are counted and how they become a quantity: Stripe''s billing.meter object as JSON text.';

CREATE FUNCTION billing.meter_from_jsonb(jsonb) RETURNS billing.meter
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN billing.meter_in(pg_catalog.textout($1::text));
CREATE FUNCTION billing.meter_to_jsonb(billing.meter) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN pg_catalog.jsonb_in(billing.meter_out($1));
COMMENT ON FUNCTION billing.meter_from_jsonb(jsonb) IS 'Cast, also implicit, so that a driver''s jsonb parameter serves where a meter is wanted.';
COMMENT ON FUNCTION billing.meter_to_jsonb(billing.meter) IS 'Cast: the normalised JSON object.';
CREATE CAST (jsonb AS billing.meter) WITH FUNCTION billing.meter_from_jsonb(jsonb) AS IMPLICIT;
CREATE CAST (billing.meter AS jsonb) WITH FUNCTION billing.meter_to_jsonb(billing.meter) AS ASSIGNMENT;
COMMENT ON CAST (jsonb AS billing.meter) IS 'Validates as the text input does.';
COMMENT ON CAST (billing.meter AS jsonb) IS 'The normalised JSON object.';

CREATE FUNCTION billing.meter_eq(billing.meter, billing.meter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'value_eq_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.meter_ne(billing.meter, billing.meter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'value_ne_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.meter_hash(billing.meter) RETURNS integer
    AS 'MODULE_PATHNAME', 'value_hash_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.meter_hash_extended(billing.meter, bigint) RETURNS bigint
    AS 'MODULE_PATHNAME', 'value_hash_extended_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.meter_eq(billing.meter, billing.meter) IS 'Equal in every field that has a meaning.';
COMMENT ON FUNCTION billing.meter_ne(billing.meter, billing.meter) IS 'Different in some field that has a meaning.';
COMMENT ON FUNCTION billing.meter_hash(billing.meter) IS 'Hash, for hash joins, DISTINCT and hash indexes.';
COMMENT ON FUNCTION billing.meter_hash_extended(billing.meter, bigint) IS 'Hash with a seed, for hash partitioning.';
CREATE OPERATOR pg_catalog.= (
    LEFTARG = billing.meter, RIGHTARG = billing.meter, FUNCTION = billing.meter_eq,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES
);
CREATE OPERATOR pg_catalog.<> (
    LEFTARG = billing.meter, RIGHTARG = billing.meter, FUNCTION = billing.meter_ne,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel
);
COMMENT ON OPERATOR pg_catalog.= (billing.meter, billing.meter) IS 'Equal in every field that has a meaning.';
COMMENT ON OPERATOR pg_catalog.<> (billing.meter, billing.meter) IS 'Different in some field that has a meaning.';
CREATE OPERATOR CLASS billing.meter_ops DEFAULT FOR TYPE billing.meter USING hash AS
    OPERATOR 1 pg_catalog.=,
    FUNCTION 1 billing.meter_hash(billing.meter),
    FUNCTION 2 billing.meter_hash_extended(billing.meter, bigint);
COMMENT ON OPERATOR CLASS billing.meter_ops USING hash IS 'Lets meter values be joined, grouped and made distinct by hash.';
COMMENT ON OPERATOR FAMILY billing.meter_ops USING hash IS 'Made with operator class meter_ops.';

CREATE TYPE billing.price;

CREATE FUNCTION billing.price_in(cstring) RETURNS billing.price
    AS 'MODULE_PATHNAME', 'price_in_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.price_out(billing.price) RETURNS cstring
    AS 'MODULE_PATHNAME', 'price_out_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.price_recv(internal) RETURNS billing.price
    AS 'MODULE_PATHNAME', 'price_recv_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.price_send(billing.price) RETURNS bytea
    AS 'MODULE_PATHNAME', 'price_send_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.price_in(cstring) IS
    'Input. 22P02: no JSON object; 22023: a field breaks a rule, which the message names; 0A000: a field that is not built yet.';
COMMENT ON FUNCTION billing.price_out(billing.price) IS 'Output: normalised JSON text.';
COMMENT ON FUNCTION billing.price_recv(internal) IS 'Binary input: version byte 1, then the JSON text in UTF-8. 22P03: anything else.';
COMMENT ON FUNCTION billing.price_send(billing.price) IS 'Binary output: version byte 1, then the JSON text in UTF-8.';

CREATE TYPE billing.price (
    INPUT = billing.price_in,
    OUTPUT = billing.price_out,
    RECEIVE = billing.price_recv,
    SEND = billing.price_send,
    INTERNALLENGTH = VARIABLE,
    ALIGNMENT = int4,
    STORAGE = extended
);
COMMENT ON TYPE billing.price IS
    'What a quantity costs: Stripe''s price object as JSON text. Amounts are minor units of the currency.';

CREATE FUNCTION billing.price_from_jsonb(jsonb) RETURNS billing.price
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN billing.price_in(pg_catalog.textout($1::text));
CREATE FUNCTION billing.price_to_jsonb(billing.price) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN pg_catalog.jsonb_in(billing.price_out($1));
COMMENT ON FUNCTION billing.price_from_jsonb(jsonb) IS 'Cast, also implicit, so that a driver''s jsonb parameter serves where a price is wanted.';
COMMENT ON FUNCTION billing.price_to_jsonb(billing.price) IS 'Cast: the normalised JSON object.';
CREATE CAST (jsonb AS billing.price) WITH FUNCTION billing.price_from_jsonb(jsonb) AS IMPLICIT;
CREATE CAST (billing.price AS jsonb) WITH FUNCTION billing.price_to_jsonb(billing.price) AS ASSIGNMENT;
COMMENT ON CAST (jsonb AS billing.price) IS 'Validates as the text input does.';
COMMENT ON CAST (billing.price AS jsonb) IS 'The normalised JSON object.';

CREATE FUNCTION billing.price_eq(billing.price, billing.price) RETURNS boolean
    AS 'MODULE_PATHNAME', 'value_eq_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.price_ne(billing.price, billing.price) RETURNS boolean
    AS 'MODULE_PATHNAME', 'value_ne_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.price_hash(billing.price) RETURNS integer
    AS 'MODULE_PATHNAME', 'value_hash_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.price_hash_extended(billing.price, bigint) RETURNS bigint
    AS 'MODULE_PATHNAME', 'value_hash_extended_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.price_eq(billing.price, billing.price) IS 'Equal in every field that has a meaning.';
COMMENT ON FUNCTION billing.price_ne(billing.price, billing.price) IS 'Different in some field that has a meaning.';
COMMENT ON FUNCTION billing.price_hash(billing.price) IS 'Hash, for hash joins, DISTINCT and hash indexes.';
COMMENT ON FUNCTION billing.price_hash_extended(billing.price, bigint) IS 'Hash with a seed, for hash partitioning.';
CREATE OPERATOR pg_catalog.= (
    LEFTARG = billing.price, RIGHTARG = billing.price, FUNCTION = billing.price_eq,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES
);
CREATE OPERATOR pg_catalog.<> (
    LEFTARG = billing.price, RIGHTARG = billing.price, FUNCTION = billing.price_ne,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel
);
COMMENT ON OPERATOR pg_catalog.= (billing.price, billing.price) IS 'Equal in every field that has a meaning.';
COMMENT ON OPERATOR pg_catalog.<> (billing.price, billing.price) IS 'Different in some field that has a meaning.';
CREATE OPERATOR CLASS billing.price_ops DEFAULT FOR TYPE billing.price USING hash AS
    OPERATOR 1 pg_catalog.=,
    FUNCTION 1 billing.price_hash(billing.price),
    FUNCTION 2 billing.price_hash_extended(billing.price, bigint);
COMMENT ON OPERATOR CLASS billing.price_ops USING hash IS 'Lets price values be joined, grouped and made distinct by hash.';
COMMENT ON OPERATOR FAMILY billing.price_ops USING hash IS 'Made with operator class price_ops.';

CREATE TYPE billing.subscription;

CREATE FUNCTION billing.subscription_in(cstring) RETURNS billing.subscription
    AS 'MODULE_PATHNAME', 'subscription_in_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.subscription_out(billing.subscription) RETURNS cstring
    AS 'MODULE_PATHNAME', 'subscription_out_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.subscription_recv(internal) RETURNS billing.subscription
    AS 'MODULE_PATHNAME', 'subscription_recv_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.subscription_send(billing.subscription) RETURNS bytea
    AS 'MODULE_PATHNAME', 'subscription_send_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.subscription_in(cstring) IS
    'Input. 22P02: no JSON object; 22023: a field breaks a rule, which the message names; 0A000: a field that is not built yet.';
COMMENT ON FUNCTION billing.subscription_out(billing.subscription) IS 'Output: normalised JSON text.';
COMMENT ON FUNCTION billing.subscription_recv(internal) IS 'Binary input: version byte 1, then the JSON text in UTF-8. 22P03: anything else.';
COMMENT ON FUNCTION billing.subscription_send(billing.subscription) IS 'Binary output: version byte 1, then the JSON text in UTF-8.';

CREATE TYPE billing.subscription (
    INPUT = billing.subscription_in,
    OUTPUT = billing.subscription_out,
    RECEIVE = billing.subscription_recv,
    SEND = billing.subscription_send,
    INTERNALLENGTH = VARIABLE,
    ALIGNMENT = int4,
    STORAGE = extended
);
COMMENT ON TYPE billing.subscription IS
    'What a customer is billed for and when: Stripe''s subscription object as JSON text.';

CREATE FUNCTION billing.subscription_from_jsonb(jsonb) RETURNS billing.subscription
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN billing.subscription_in(pg_catalog.textout($1::text));
CREATE FUNCTION billing.subscription_to_jsonb(billing.subscription) RETURNS jsonb
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN pg_catalog.jsonb_in(billing.subscription_out($1));
COMMENT ON FUNCTION billing.subscription_from_jsonb(jsonb) IS 'Cast, also implicit, so that a driver''s jsonb parameter serves where a subscription is wanted.';
COMMENT ON FUNCTION billing.subscription_to_jsonb(billing.subscription) IS 'Cast: the normalised JSON object.';
CREATE CAST (jsonb AS billing.subscription) WITH FUNCTION billing.subscription_from_jsonb(jsonb) AS IMPLICIT;
CREATE CAST (billing.subscription AS jsonb) WITH FUNCTION billing.subscription_to_jsonb(billing.subscription) AS ASSIGNMENT;
COMMENT ON CAST (jsonb AS billing.subscription) IS 'Validates as the text input does.';
COMMENT ON CAST (billing.subscription AS jsonb) IS 'The normalised JSON object.';

CREATE FUNCTION billing.subscription_eq(billing.subscription, billing.subscription) RETURNS boolean
    AS 'MODULE_PATHNAME', 'value_eq_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.subscription_ne(billing.subscription, billing.subscription) RETURNS boolean
    AS 'MODULE_PATHNAME', 'value_ne_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.subscription_hash(billing.subscription) RETURNS integer
    AS 'MODULE_PATHNAME', 'value_hash_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION billing.subscription_hash_extended(billing.subscription, bigint) RETURNS bigint
    AS 'MODULE_PATHNAME', 'value_hash_extended_wrapper' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION billing.subscription_eq(billing.subscription, billing.subscription) IS 'Equal in every field that has a meaning.';
COMMENT ON FUNCTION billing.subscription_ne(billing.subscription, billing.subscription) IS 'Different in some field that has a meaning.';
COMMENT ON FUNCTION billing.subscription_hash(billing.subscription) IS 'Hash, for hash joins, DISTINCT and hash indexes.';
COMMENT ON FUNCTION billing.subscription_hash_extended(billing.subscription, bigint) IS 'Hash with a seed, for hash partitioning.';
CREATE OPERATOR pg_catalog.= (
    LEFTARG = billing.subscription, RIGHTARG = billing.subscription, FUNCTION = billing.subscription_eq,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES
);
CREATE OPERATOR pg_catalog.<> (
    LEFTARG = billing.subscription, RIGHTARG = billing.subscription, FUNCTION = billing.subscription_ne,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel
);
COMMENT ON OPERATOR pg_catalog.= (billing.subscription, billing.subscription) IS 'Equal in every field that has a meaning.';
COMMENT ON OPERATOR pg_catalog.<> (billing.subscription, billing.subscription) IS 'Different in some field that has a meaning.';
CREATE OPERATOR CLASS billing.subscription_ops DEFAULT FOR TYPE billing.subscription USING hash AS
    OPERATOR 1 pg_catalog.=,
    FUNCTION 1 billing.subscription_hash(billing.subscription),
    FUNCTION 2 billing.subscription_hash_extended(billing.subscription, bigint);
COMMENT ON OPERATOR CLASS billing.subscription_ops USING hash IS 'Lets subscription values be joined, grouped and made distinct by hash.';
COMMENT ON OPERATOR FAMILY billing.subscription_ops USING hash IS 'Made with operator class subscription_ops.';
