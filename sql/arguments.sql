-- Checks that many functions and tables make, in one place, so that their errors read alike.

CREATE FUNCTION billing.require_argument(argument text, value anyelement) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF value IS NULL THEN
        RAISE EXCEPTION 'argument "%" must not be NULL', argument
            USING ERRCODE = 'null_value_not_allowed', HINT = format('Pass a value for "%s".', argument);
    END IF;
END $$;
COMMENT ON FUNCTION billing.require_argument(text, anyelement) IS
'Raises null_value_not_allowed (22004), naming the argument, when value is NULL. Internal.';

CREATE FUNCTION billing.require_time(argument text, value timestamptz) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM billing.require_argument(argument, value);
    IF NOT isfinite(value) THEN
        RAISE EXCEPTION 'argument "%" must be a finite time, not %', argument, value
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass the moment up to which to bill.';
    END IF;
END $$;
COMMENT ON FUNCTION billing.require_time(text, timestamptz) IS
'Raises 22004 when value is NULL and 22023 when it is infinite, naming the argument. Internal.';

CREATE FUNCTION billing.append_only() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'rows of billing.% never change', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = TG_TABLE_NAME,
              HINT = 'A correction is another row.';
END $$;
COMMENT ON FUNCTION billing.append_only() IS
'Trigger of tables that only grow: raises restrict_violation (23001). Internal.';

CREATE FUNCTION billing.never_deleted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'rows of billing.% are never deleted, and keep their ids', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = TG_TABLE_NAME,
              HINT = 'Invoice lines name them. Archive or end what is not to be used any more.';
END $$;
COMMENT ON FUNCTION billing.never_deleted() IS
'Trigger of tables that invoice lines name without a foreign key: raises restrict_violation (23001). Internal.';
