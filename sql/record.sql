-- Recording. billing_recorder needs EXECUTE here and no privilege on any table: rows are inserted directly, and what the functions
-- look up they look up as the owner of the tables. The single event does that in Rust, because SECURITY DEFINER and a pinned
-- search_path would cost each call a tenth of its time; it calls nothing that a search_path could lead astray.
CREATE FUNCTION billing.record_meter_event(
    event_name text,
    customer text,
    value numeric DEFAULT 1,
    identifier text DEFAULT NULL,
    "timestamp" timestamptz DEFAULT NULL,
    dimensions jsonb DEFAULT NULL
) RETURNS boolean
    AS 'MODULE_PATHNAME', 'record_meter_event_wrapper' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION billing.record_meter_event(text, text, numeric, text, timestamptz, jsonb) IS
    'Records one event, if and only if the transaction commits. true: recorded; false: this identifier was recorded before for '
    'this meter and customer (or is one of two recorded at once). NULL identifier: one is made; NULL timestamp: now(), the transaction''s start. A refused '
    'event raises: no_meter 42704, archived_meter 55000, meter_event_customer_not_found 23503, a NULL customer or value 22004, '
    'a value of more than 28 digits 22003, everything else 22023.';

CREATE FUNCTION billing.record_meter_events(events jsonb)
    RETURNS TABLE (recorded bigint, duplicate bigint, rejected bigint)
    AS 'MODULE_PATHNAME', 'record_meter_events_json_wrapper' LANGUAGE c VOLATILE ROWS 1 SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION billing.record_meter_events(jsonb) IS
    'Records one Stripe meter event object {event_name, payload, identifier, timestamp}, or an array of them. A bad event is kept '
    'in billing.meter_event_rejections and stops no other. Timestamps are Unix seconds or ISO 8601. 22023: neither object nor array.';

CREATE FUNCTION billing.record_meter_events(
    event_names text[],
    customers text[],
    "values" numeric[],
    identifiers text[] DEFAULT NULL,
    timestamps timestamptz[] DEFAULT NULL,
    dimensions jsonb[] DEFAULT NULL
) RETURNS TABLE (recorded bigint, duplicate bigint, rejected bigint)
    AS 'MODULE_PATHNAME', 'record_meter_events_arrays_wrapper' LANGUAGE c VOLATILE ROWS 1 SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION billing.record_meter_events(text[], text[], numeric[], text[], timestamptz[], jsonb[]) IS
    'Records many events given as parallel arrays; the optional ones may be NULL, or hold NULLs. A bad event is kept in '
    'billing.meter_event_rejections and stops no other. 2202E: arrays of unequal length; 22004: a required array is NULL.';

CREATE FUNCTION billing.cancel_meter_event(event_name text, customer text, identifier text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'cancel_meter_event_wrapper' LANGUAGE c VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION billing.cancel_meter_event(text, text, text) IS
    'Takes an event back, at any age: it counts nowhere since, and its identifier stays used. true: cancelled; false: no such '
    'event, or cancelled before. 22004: a NULL argument.';
