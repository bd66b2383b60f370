-- Alerts: thresholds on usage. roll_up() writes a row of alert_events when folding makes a value cross one; a trigger
-- notifies.

CREATE TABLE billing.alerts (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('alrt')
        CONSTRAINT alerts_id_length CHECK (length(id) BETWEEN 1 AND 255),
    event_name text COLLATE "C" NOT NULL CONSTRAINT alerts_event_name_fkey REFERENCES billing.meters (event_name),
    -- Bounded so that a notification, whose payload PostgreSQL limits to 8000 bytes, can always hold it.
    gte numeric NOT NULL CONSTRAINT alerts_gte_positive CHECK (gte > 0 AND gte < 1e100 AND scale(gte) <= 100),
    customer text COLLATE "C" CONSTRAINT alerts_customer_fkey REFERENCES billing.customers (id),
    recurrence text NOT NULL DEFAULT 'one_time'
        CONSTRAINT alerts_recurrence_known CHECK (recurrence IN ('one_time', 'per_period')),
    title text CONSTRAINT alerts_title_length CHECK (length(title) <= 250),
    status text NOT NULL DEFAULT 'active'
        CONSTRAINT alerts_status_known CHECK (status IN ('active', 'inactive', 'archived')),
    created timestamptz NOT NULL DEFAULT now(),
    activated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX alerts_active ON billing.alerts (event_name) WHERE status = 'active';
COMMENT ON INDEX billing.alerts_active IS 'Lets roll_up() find the alerts that watch a meter.';
CREATE INDEX alerts_customer ON billing.alerts (customer) WHERE customer IS NOT NULL;
COMMENT ON INDEX billing.alerts_customer IS 'Serves the foreign key: deleting a customer looks here.';
COMMENT ON TABLE billing.alerts IS
'Thresholds on usage. A crossing, previous < gte <= current, is one row of billing.alert_events per customer (and
period). Usage that had passed the threshold before the alert was activated is no crossing. What an alert watches
never changes: archive it and make another one.';
COMMENT ON CONSTRAINT alerts_gte_positive ON billing.alerts IS 'Above 0 and below 1e100, at most 100 decimals; no NaN.';
COMMENT ON CONSTRAINT alerts_title_length ON billing.alerts IS 'At most 250 characters.';
COMMENT ON CONSTRAINT alerts_recurrence_known ON billing.alerts IS 'one_time or per_period.';
COMMENT ON CONSTRAINT alerts_status_known ON billing.alerts IS 'active, inactive or archived.';
COMMENT ON COLUMN billing.alerts.id IS 'The alert''s id (alrt_...).';
COMMENT ON COLUMN billing.alerts.event_name IS 'The meter that is watched; not one that aggregates by weighted_sum.';
COMMENT ON COLUMN billing.alerts.gte IS 'The threshold, in the meter''s unit.';
COMMENT ON COLUMN billing.alerts.customer IS 'The customer watched; NULL: each customer, for itself.';
COMMENT ON COLUMN billing.alerts.recurrence IS
'one_time: once per customer in the alert''s life, on the usage of all time. per_period: once per customer and billing
period, on the period''s usage; the period is that of the customer''s subscription to the meter, else the calendar
month in UTC.';
COMMENT ON COLUMN billing.alerts.title IS 'Name for people; NULL for none.';
COMMENT ON COLUMN billing.alerts.status IS 'active; inactive: not evaluated; archived: not evaluated, for good.';
COMMENT ON COLUMN billing.alerts.created IS 'When the row was made.';
COMMENT ON COLUMN billing.alerts.activated_at IS 'When the alert last became active.';
SELECT pg_catalog.pg_extension_config_dump('billing.alerts', '');

CREATE TABLE billing.alert_events (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alert_events_pkey PRIMARY KEY,
    alert text COLLATE "C" NOT NULL CONSTRAINT alert_events_alert_fkey REFERENCES billing.alerts (id),
    customer text COLLATE "C" NOT NULL,
    event_name text COLLATE "C" NOT NULL,
    gte numeric NOT NULL,
    value numeric NOT NULL,
    period_start timestamptz,
    triggered_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT alert_events_once UNIQUE NULLS NOT DISTINCT (alert, customer, period_start)
);
COMMENT ON TABLE billing.alert_events IS
'Every crossing of an alert''s threshold, written by roll_up() in the transaction that folded the usage in. Rows are
added in the order of id and never changed: a listener that was away reads on after the last id it saw.';
COMMENT ON CONSTRAINT alert_events_once ON billing.alert_events IS
'A crossing is reported once per alert, customer and period.';
COMMENT ON COLUMN billing.alert_events.id IS 'Ascending; transactions commit in its order; gaps occur.';
COMMENT ON COLUMN billing.alert_events.alert IS 'billing.alerts.id.';
COMMENT ON COLUMN billing.alert_events.customer IS
'billing.customers.id of the customer whose usage crossed the threshold.';
COMMENT ON COLUMN billing.alert_events.event_name IS 'The meter, as in the alert.';
COMMENT ON COLUMN billing.alert_events.gte IS 'The threshold, as in the alert.';
COMMENT ON COLUMN billing.alert_events.value IS 'The usage after the fold that crossed it, in the meter''s unit.';
COMMENT ON COLUMN billing.alert_events.period_start IS
'Start of the period that the value is of; NULL for a one_time alert.';
COMMENT ON COLUMN billing.alert_events.triggered_at IS 'Start of the transaction that folded the usage in.';
SELECT pg_catalog.pg_extension_config_dump('billing.alert_events', '');
SELECT pg_catalog.pg_extension_config_dump('billing.alert_events_id_seq', '');

CREATE TABLE billing.alert_states (
    alert text COLLATE "C" NOT NULL
        CONSTRAINT alert_states_alert_fkey REFERENCES billing.alerts (id) ON DELETE CASCADE,
    customer text COLLATE "C" NOT NULL,
    period_start timestamptz,
    below boolean NOT NULL,
    CONSTRAINT alert_states_once UNIQUE NULLS NOT DISTINCT (alert, customer, period_start)
);
COMMENT ON TABLE billing.alert_states IS
'On which side of its threshold roll_up() last saw the value of an alert, customer and period that has not crossed it.
Where a row is missing, roll_up() takes the value before its fold instead. Internal.';
COMMENT ON CONSTRAINT alert_states_once ON billing.alert_states IS 'One row per alert, customer and period.';
COMMENT ON COLUMN billing.alert_states.alert IS 'billing.alerts.id.';
COMMENT ON COLUMN billing.alert_states.customer IS 'billing.customers.id.';
COMMENT ON COLUMN billing.alert_states.period_start IS 'Start of the period; NULL for a one_time alert.';
COMMENT ON COLUMN billing.alert_states.below IS
'true: the value was below gte (or there was none), and to find it at or above is a crossing. false: it had passed gte
before the alert was activated.';
SELECT pg_catalog.pg_extension_config_dump('billing.alert_states', '');

CREATE FUNCTION billing.alerts_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (
            SELECT FROM billing.meters m WHERE m.event_name = NEW.event_name AND m.aggregation = 'weighted_sum'
        ) THEN
            RAISE EXCEPTION 'meter "%" aggregates by weighted_sum, which alerts do not watch', NEW.event_name
                USING ERRCODE = 'feature_not_supported', SCHEMA = 'billing', TABLE = 'alerts', COLUMN = 'event_name',
                      HINT = 'An average over time has no moment of crossing. Use a meter of another aggregation.';
        END IF;
        RETURN NEW;
    END IF;
    IF OLD.status = 'archived' THEN
        RAISE EXCEPTION 'alert "%" is archived', OLD.id
            USING ERRCODE = 'object_not_in_prerequisite_state', SCHEMA = 'billing', TABLE = 'alerts',
                  HINT = 'Archiving is final: create another alert.';
    END IF;
    IF (NEW.id, NEW.event_name, NEW.gte, NEW.recurrence) <> (OLD.id, OLD.event_name, OLD.gte, OLD.recurrence)
       OR NEW.customer IS DISTINCT FROM OLD.customer THEN
        RAISE EXCEPTION 'what alert "%" watches cannot change', OLD.id
            USING ERRCODE = 'restrict_violation', SCHEMA = 'billing', TABLE = 'alerts',
                  HINT = 'Only title and status may change: archive the alert and create another one.';
    END IF;
    IF NEW.status <> OLD.status THEN
        -- What happens while it is inactive is no crossing, so what was seen before says nothing afterwards.
        DELETE FROM billing.alert_states s WHERE s.alert = NEW.id;
        IF NEW.status = 'active' THEN
            NEW.activated_at := now();
        END IF;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION billing.alerts_check() IS
'Trigger: keeps an alert''s definition from changing (23001) and archived alerts as they are (55000); refuses meters
that aggregate by weighted_sum (0A000).';
CREATE TRIGGER alerts_check BEFORE INSERT OR UPDATE ON billing.alerts
    FOR EACH ROW EXECUTE FUNCTION billing.alerts_check();
COMMENT ON TRIGGER alerts_check ON billing.alerts IS 'The definition stays; archived is final.';

CREATE FUNCTION billing.alert_events_notify() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    title text := (SELECT a.title FROM billing.alerts a WHERE a.id = NEW.alert);
    payload text := json_build_object(
        'id', NEW.id, 'alert', NEW.alert, 'title', title, 'event_name', NEW.event_name, 'customer', NEW.customer,
        'gte', NEW.gte::text, 'value', NEW.value::text,
        'period_start', NEW.period_start, 'triggered_at', NEW.triggered_at);
BEGIN
    IF octet_length(payload) > 7900 THEN
        -- Only a value of thousands of digits gets here. The row has it; failing would stop the roll-up for good.
        payload := json_build_object(
            'id', NEW.id, 'alert', NEW.alert, 'title', title, 'event_name', NEW.event_name, 'customer', NEW.customer,
            'gte', NEW.gte::text, 'value', NULL,
            'period_start', NEW.period_start, 'triggered_at', NEW.triggered_at);
    END IF;
    PERFORM pg_notify('billing_alert', payload);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION billing.alert_events_notify() IS
'Trigger: sends the row as JSON on channel billing_alert when its transaction commits: {"id", "alert", "title",
"event_name", "customer", "gte", "value", "period_start", "triggered_at"}; id is a number, gte and value are strings,
times ISO 8601 in UTC, title and period_start may be null. A value too long for a notification is null: read the
row.';
CREATE TRIGGER alert_events_notify AFTER INSERT ON billing.alert_events
    FOR EACH ROW EXECUTE FUNCTION billing.alert_events_notify();
COMMENT ON TRIGGER alert_events_notify ON billing.alert_events IS 'Tells listeners on channel billing_alert.';

CREATE FUNCTION billing.alert_period(event_name text, customer text, at timestamptz)
RETURNS TABLE (period_start timestamptz, period_end timestamptz)
LANGUAGE sql STABLE AS $$
    WITH subscribed AS (
        SELECT s.* FROM billing.subscriptions s
        WHERE s.customer = $2
          AND EXISTS (SELECT FROM billing.subscription_items i JOIN billing.prices p ON p.id = i.price
                      WHERE i.subscription = s.id AND p.meter = $1)
    )
    -- greatest and least pass over NULLs: no trial, no end.
    SELECT CASE WHEN s.id IS NULL THEN greatest(month.first, around.ended_at)
                WHEN s.trial_end > $3 THEN s.start_date
                ELSE greatest(lower(p.period), s.start_date, s.trial_end) END,
           CASE WHEN s.id IS NULL THEN least(month.next, around.start_date)
                WHEN s.trial_end > $3 THEN least(s.trial_end, s.ended_at)
                ELSE least(upper(p.period), s.ended_at) END
    FROM (SELECT date_trunc('month', $3, 'UTC'),
                 (date_trunc('month', $3 AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'
         ) AS month (first, next)
    CROSS JOIN (
        SELECT max(s.ended_at) FILTER (WHERE s.ended_at <= $3) AS ended_at,
               min(s.start_date) FILTER (WHERE s.start_date > $3) AS start_date
        FROM subscribed s
    ) AS around
    LEFT JOIN LATERAL (
        SELECT s.* FROM subscribed s
        WHERE s.start_date <= $3 AND (s.ended_at IS NULL OR s.ended_at > $3)
        ORDER BY s.created, s.id LIMIT 1
    ) AS s ON true
    LEFT JOIN LATERAL billing.period_containing(s.billing_cycle_anchor, s."interval", s.interval_count, $3)
        AS p (period) ON s.id IS NOT NULL
$$;
COMMENT ON FUNCTION billing.alert_period(text, text, timestamptz) IS
'The period [period_start, period_end) of per_period alerts that holds a moment: the billing period of the
customer''s first-made subscription that ran then and has a price on the meter (a trial is one period); where none
ran, the calendar month in UTC, less what subscriptions cover of it. Internal.';

CREATE FUNCTION billing.create_alert(
    event_name text, gte numeric, customer text DEFAULT NULL, recurrence text DEFAULT 'one_time',
    title text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    alert_id text;
BEGIN
    PERFORM billing.require_argument('event_name', create_alert.event_name),
            billing.require_argument('gte', create_alert.gte),
            billing.require_argument('recurrence', create_alert.recurrence);
    IF NOT EXISTS (SELECT FROM billing.meters m WHERE m.event_name = create_alert.event_name) THEN
        RAISE EXCEPTION 'no meter has event_name "%" (no_meter)', create_alert.event_name
            USING ERRCODE = 'undefined_object', HINT = 'Pass the event_name of a row of billing.meters.';
    END IF;
    IF create_alert.customer IS NOT NULL
       AND NOT EXISTS (SELECT FROM billing.customers c WHERE c.id = create_alert.customer) THEN
        RAISE EXCEPTION 'customer "%" does not exist (resource_missing)', create_alert.customer
            USING ERRCODE = 'undefined_object',
                  HINT = 'Pass the id of a row of billing.customers, or NULL for each customer.';
    END IF;
    IF NOT (create_alert.gte > 0 AND create_alert.gte < 1e100 AND scale(create_alert.gte) <= 100) THEN
        RAISE EXCEPTION 'gte "%" is not a threshold', left(create_alert.gte::text, 200)
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Pass a number above 0 and below 1e100, with at most 100 decimals.';
    END IF;
    IF create_alert.recurrence NOT IN ('one_time', 'per_period') THEN
        RAISE EXCEPTION 'recurrence "%" is not known', create_alert.recurrence
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use ''one_time'' or ''per_period''.';
    END IF;
    IF length(create_alert.title) > 250 THEN
        RAISE EXCEPTION 'title "%..." has % characters', left(create_alert.title, 50), length(create_alert.title)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A title has at most 250 characters.';
    END IF;
    -- What is pending was recorded before the alert: folded after it, it would seem to cross.
    PERFORM billing.roll_up();
    INSERT INTO billing.alerts (event_name, gte, customer, recurrence, title)
    VALUES (create_alert.event_name, create_alert.gte, create_alert.customer, create_alert.recurrence,
            create_alert.title)
    RETURNING id INTO alert_id;
    RETURN alert_id;
END $$;
COMMENT ON FUNCTION billing.create_alert(text, numeric, text, text, text) IS
'Creates an active alert on a meter and returns its id (alrt_...). customer NULL: watches each customer for itself.
recurrence: one_time, once per customer in the alert''s life, on the usage of all time; per_period, once per customer
and billing period. Usage that has passed gte already when the alert is created is no crossing, so what is pending is
folded in first (billing.roll_up(); a plain INSERT does not). title: at most 250 characters.
Errors: 42704 no_meter, unknown customer; 22023 gte, recurrence or title out of bounds; 0A000 a weighted_sum meter;
22004 event_name, gte or recurrence NULL.';

CREATE FUNCTION billing.set_alert_status(alert text, status text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    current_status text;
BEGIN
    PERFORM billing.require_argument('alert', set_alert_status.alert);
    IF set_alert_status.status = 'active' THEN
        PERFORM billing.roll_up();  -- as billing.create_alert does
    END IF;
    SELECT a.status INTO current_status FROM billing.alerts a WHERE a.id = set_alert_status.alert FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'alert "%" does not exist (resource_missing)', set_alert_status.alert
            USING ERRCODE = 'undefined_object', HINT = 'Pass the id of a row of billing.alerts.';
    END IF;
    IF current_status <> set_alert_status.status THEN
        UPDATE billing.alerts a SET status = set_alert_status.status WHERE a.id = set_alert_status.alert;
    END IF;
    RETURN set_alert_status.alert;
END $$;
COMMENT ON FUNCTION billing.set_alert_status(text, text) IS
'Sets an alert''s status and returns its id; the status it has already is no error. Errors: 42704 unknown alert; 55000
archived; 22004 NULL. Internal.';

CREATE FUNCTION billing.activate_alert(alert text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN billing.set_alert_status(alert, 'active');
COMMENT ON FUNCTION billing.activate_alert(text) IS
'Has an inactive alert evaluated again from now on; what it passed while inactive is no crossing. Returns the id;
again is no error.
Errors: 42704 unknown alert; 55000 archived; 22004 NULL.';

CREATE FUNCTION billing.deactivate_alert(alert text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN billing.set_alert_status(alert, 'inactive');
COMMENT ON FUNCTION billing.deactivate_alert(text) IS
'Stops the evaluation of an alert until activate_alert. Returns the id; again is no error.
Errors: 42704 unknown alert; 55000 archived; 22004 NULL.';

CREATE FUNCTION billing.archive_alert(alert text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN billing.set_alert_status(alert, 'archived');
COMMENT ON FUNCTION billing.archive_alert(text) IS
'Stops the evaluation of an alert for good; its rows in billing.alert_events stay. Returns the id; again is no error.
Errors: 42704 unknown alert; 22004 NULL.';
