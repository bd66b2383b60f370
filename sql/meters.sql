-- Meters: what usage is measured in, and how a period's events become one quantity.

CREATE TABLE billing.meters (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('mtr')
        CONSTRAINT meters_id_length CHECK (length(id) BETWEEN 1 AND 255),
    event_name text COLLATE "C" NOT NULL CONSTRAINT meters_event_name_key UNIQUE,
    meter billing.meter NOT NULL,
    status text NOT NULL DEFAULT 'active' CONSTRAINT meters_status_known CHECK (status IN ('active', 'inactive')),
    created timestamptz NOT NULL DEFAULT now(),
    deactivated_at timestamptz,
    aggregation text NOT NULL CONSTRAINT meters_aggregation_known
        CHECK (aggregation IN ('sum', 'count', 'last', 'max', 'min', 'unique_count', 'weighted_sum')),
    customer_key text,
    value_key text NOT NULL,
    dimension_keys text[] NOT NULL,
    CONSTRAINT meters_deactivated_at_with_status CHECK ((status = 'inactive') = (deactivated_at IS NOT NULL))
);
COMMENT ON TABLE billing.meters IS
'What usage is measured in. INSERT (meter) is enough: a trigger takes the other columns from the definition. Of a
definition only display_name may change later, because usage recorded under it would otherwise change its meaning.';
COMMENT ON COLUMN billing.meters.id IS 'The meter''s id (mtr_...).';
COMMENT ON COLUMN billing.meters.event_name IS
'The name that events carry; one meter has it; taken from the definition.';
COMMENT ON COLUMN billing.meters.meter IS 'The definition, as Stripe''s API describes a meter.';
COMMENT ON COLUMN billing.meters.status IS
'active, or inactive: events are refused and no new price may use the meter.';
COMMENT ON COLUMN billing.meters.created IS 'When the row was made.';
COMMENT ON COLUMN billing.meters.deactivated_at IS 'Since when the meter is inactive; NULL while it is active.';
COMMENT ON COLUMN billing.meters.aggregation IS
'sum, count, last, max, min, unique_count or weighted_sum; taken from the definition.';
COMMENT ON COLUMN billing.meters.customer_key IS
'The payload key that names the customer; taken from the definition. NULL: customer, or else stripe_customer_id.';
COMMENT ON COLUMN billing.meters.value_key IS 'The payload key that holds the value; taken from the definition.';
COMMENT ON COLUMN billing.meters.dimension_keys IS
'The payload keys that usage is also kept by, in the definition''s order; empty when there are none.';
SELECT pg_catalog.pg_extension_config_dump('billing.meters', '');

CREATE FUNCTION billing.meters_check() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    definition jsonb := NEW.meter::jsonb;
    given_name text := NEW.event_name;
BEGIN
    IF definition IS NULL THEN
        -- The column's own NOT NULL would come too late: it would name event_name, which stands before it.
        RAISE EXCEPTION 'null value in column "meter" of relation "meters"'
            USING ERRCODE = 'not_null_violation', SCHEMA = 'billing', TABLE = 'meters', COLUMN = 'meter',
                  HINT = 'Give the definition: the other columns are taken from it.';
    END IF;
    IF TG_OP = 'UPDATE' AND (OLD.meter::jsonb - 'display_name') IS DISTINCT FROM (definition - 'display_name') THEN
        RAISE EXCEPTION 'the definition of meter "%" cannot change', OLD.event_name
            USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'meters', COLUMN = 'meter',
                  HINT = 'Only display_name may change. Create a meter with another event_name.';
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
        RAISE EXCEPTION 'the id of meter "%" cannot change', OLD.event_name
            USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'meters', COLUMN = 'id',
                  HINT = 'Prices may name the meter by its id.';
    END IF;
    IF definition ->> 'event_time_window' IS NOT NULL THEN
        RAISE EXCEPTION 'meter "%": event_time_window "%" is not supported',
                definition ->> 'event_name', definition ->> 'event_time_window'
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Leave event_time_window out: every event counts as it stands.';
    END IF;
    -- Always from the definition, so that no column can ever contradict it.
    NEW.event_name := definition ->> 'event_name';
    NEW.aggregation := definition #>> '{default_aggregation,formula}';
    NEW.customer_key := definition #>> '{customer_mapping,event_payload_key}';
    NEW.value_key := coalesce(definition #>> '{value_settings,event_payload_key}', 'value');
    NEW.dimension_keys := ARRAY(
        SELECT k.key FROM jsonb_array_elements_text(
            CASE jsonb_typeof(definition -> 'dimension_payload_keys')
                WHEN 'array' THEN definition -> 'dimension_payload_keys' ELSE '[]' END) WITH ORDINALITY k (key, place)
        ORDER BY k.place);
    IF given_name <> NEW.event_name THEN
        RAISE EXCEPTION 'event_name "%" contradicts the definition''s "%"', given_name, NEW.event_name
            USING ERRCODE = 'check_violation', SCHEMA = 'billing', TABLE = 'meters', COLUMN = 'event_name',
                  HINT = 'Leave the column out: it is taken from the definition.';
    END IF;
    -- One statement must be enough for an ORM that only knows the status.
    IF NEW.status = 'active' THEN
        NEW.deactivated_at := NULL;
    ELSIF NEW.deactivated_at IS NULL THEN
        NEW.deactivated_at := now();
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION billing.meters_check() IS
'Trigger: fills the columns that a meter''s definition decides, and keeps the definition from changing (23001).
Errors: 0A000 event_time_window; 23514 an event_name that contradicts the definition; 23502 no definition.';
CREATE TRIGGER meters_check BEFORE INSERT OR UPDATE ON billing.meters
    FOR EACH ROW EXECUTE FUNCTION billing.meters_check();
COMMENT ON TRIGGER meters_check ON billing.meters IS 'The columns follow the definition; the definition stays.';

CREATE TRIGGER meters_announce_change AFTER UPDATE OR DELETE OR TRUNCATE ON billing.meters
    FOR EACH STATEMENT EXECUTE FUNCTION billing.announce_change();
ALTER TABLE billing.meters ENABLE ALWAYS TRIGGER meters_announce_change;
COMMENT ON TRIGGER meters_announce_change ON billing.meters IS
'Has every session that records look the meters up again.';
CREATE TRIGGER meters_announce_replicated_change AFTER UPDATE OR DELETE ON billing.meters
    FOR EACH ROW EXECUTE FUNCTION billing.announce_change();
ALTER TABLE billing.meters ENABLE REPLICA TRIGGER meters_announce_replicated_change;
COMMENT ON TRIGGER meters_announce_replicated_change ON billing.meters IS
'The same for each row that a subscription of logical replication changes, which fires no triggers of statements.';

CREATE FUNCTION billing.create_meter(meter billing.meter) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    name text := create_meter.meter::jsonb ->> 'event_name';
    meter_id text;
    kept jsonb;
BEGIN
    PERFORM billing.require_argument('meter', name);
    INSERT INTO billing.meters (meter) VALUES (create_meter.meter)
    ON CONFLICT (event_name) DO NOTHING
    RETURNING id INTO meter_id;
    IF meter_id IS NOT NULL THEN
        RETURN meter_id;
    END IF;
    SELECT m.id, m.meter::jsonb INTO meter_id, kept FROM billing.meters m WHERE m.event_name = name;
    IF kept IS DISTINCT FROM create_meter.meter::jsonb THEN
        RAISE EXCEPTION 'meter "%" exists already with another definition', name
            USING ERRCODE = 'duplicate_object', DETAIL = format('It is %s.', kept),
                  HINT = 'An event_name belongs to one meter: choose another one.';
    END IF;
    RETURN meter_id;
END $$;
COMMENT ON FUNCTION billing.create_meter(billing.meter) IS
'Creates a meter and returns its id (mtr_...). Fields, as in Stripe''s API: event_name, display_name, default_aggregation
({formula}), customer_mapping ({event_payload_key, type}), value_settings ({event_payload_key}), dimension_payload_keys (a
list: the keys that every event must carry, that summaries group by and prices filter by). Again with the same
definition: no error, the same id. Errors: 42710 the event_name exists with another definition; 0A000
event_time_window; 22004 NULL.';

CREATE FUNCTION billing.set_meter_status(meter text, status text, deactivated_at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    meter_id text;
BEGIN
    PERFORM billing.require_argument('meter', set_meter_status.meter);
    SELECT m.id INTO meter_id FROM billing.meters m
    WHERE m.id = set_meter_status.meter OR m.event_name = set_meter_status.meter
    ORDER BY m.event_name = set_meter_status.meter DESC LIMIT 1;
    IF meter_id IS NULL THEN
        RAISE EXCEPTION 'meter "%" does not exist', set_meter_status.meter
            USING ERRCODE = 'undefined_object', HINT = 'Pass the id or the event_name of a row of billing.meters.';
    END IF;
    UPDATE billing.meters m
    SET status = set_meter_status.status, deactivated_at = set_meter_status.deactivated_at
    WHERE m.id = meter_id AND m.status <> set_meter_status.status;
    RETURN meter_id;
END $$;
COMMENT ON FUNCTION billing.set_meter_status(text, text, timestamptz) IS
'Sets a meter''s status, found by event_name or id, and returns its id. Errors: 42704 unknown meter; 22004 NULL.
Internal.';

CREATE FUNCTION billing.deactivate_meter(meter text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM billing.require_time('as_of', as_of);
    RETURN billing.set_meter_status(meter, 'inactive', as_of);
END $$;
COMMENT ON FUNCTION billing.deactivate_meter(text, timestamptz) IS
'Makes a meter (its event_name or id) refuse events and new prices; what is recorded stays and is billed. Returns the
id; again is no error. Errors: 42704 unknown meter; 22004 NULL; 22023 as_of infinite.';

CREATE FUNCTION billing.reactivate_meter(meter text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN billing.set_meter_status(meter, 'active', NULL);
COMMENT ON FUNCTION billing.reactivate_meter(text) IS
'Takes deactivate_meter back and returns the meter''s id. Again is no error. Errors: 42704 unknown meter; 22004 NULL.';
