-- Subscription schedules: what a subscription is to become, phase after phase.

CREATE TABLE billing.subscription_schedules (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('sub_sched')
        CONSTRAINT subscription_schedules_id_length CHECK (length(id) BETWEEN 1 AND 255),
    customer text COLLATE "C" NOT NULL REFERENCES billing.customers,
    subscription text COLLATE "C" REFERENCES billing.subscriptions,
    status text NOT NULL CONSTRAINT subscription_schedules_status_known
        CHECK (status IN ('not_started', 'active', 'completed', 'released', 'canceled')),
    phases jsonb NOT NULL CONSTRAINT subscription_schedules_phases_array CHECK (jsonb_typeof(phases) = 'array'),
    current_phase integer,
    next_phase_at timestamptz,
    end_behavior text NOT NULL DEFAULT 'release' CONSTRAINT subscription_schedules_end_behavior_known
        CHECK (end_behavior IN ('release', 'cancel')),
    default_settings jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT subscription_schedules_settings_object CHECK (jsonb_typeof(default_settings) = 'object'),
    metadata jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT subscription_schedules_metadata_object CHECK (jsonb_typeof(metadata) = 'object'),
    created timestamptz NOT NULL,
    canceled_at timestamptz,
    completed_at timestamptz,
    released_at timestamptz,
    error text,
    CONSTRAINT subscription_schedules_started_with_phase
        CHECK ((status <> 'not_started' OR current_phase IS NULL)
               AND (status <> 'active' OR current_phase IS NOT NULL)),
    CONSTRAINT subscription_schedules_running_have_next
        CHECK ((status IN ('not_started', 'active')) = (next_phase_at IS NOT NULL)),
    CONSTRAINT subscription_schedules_active_has_subscription CHECK (status <> 'active' OR subscription IS NOT NULL),
    CONSTRAINT subscription_schedules_times_with_status CHECK (
        (status = 'canceled') = (canceled_at IS NOT NULL) AND (status = 'completed') = (completed_at IS NOT NULL)
        AND (status = 'released') = (released_at IS NOT NULL))
);
CREATE INDEX subscription_schedules_next_phase_at_idx ON billing.subscription_schedules (next_phase_at)
    WHERE next_phase_at IS NOT NULL;
CREATE UNIQUE INDEX subscription_schedules_subscription_key ON billing.subscription_schedules (subscription)
    WHERE status = 'active';
COMMENT ON TABLE billing.subscription_schedules IS
'What subscriptions are to become: phases, one after another without a gap, which generate_invoices carries out in
their time. Made and changed by functions only.';
COMMENT ON COLUMN billing.subscription_schedules.id IS 'The application''s own id, or one made here (sub_sched_...).';
COMMENT ON COLUMN billing.subscription_schedules.customer IS 'Whose subscription it is about.';
COMMENT ON COLUMN billing.subscription_schedules.subscription IS
'The subscription that it manages, or managed; NULL until its first phase begins.';
COMMENT ON COLUMN billing.subscription_schedules.status IS
'not_started, active, completed (it ended with its subscription), released (it ended and its subscription goes on) or
canceled.';
COMMENT ON COLUMN billing.subscription_schedules.phases IS
'An array of objects as given, with start_date and end_date (exclusive) worked out, in their order.';
COMMENT ON COLUMN billing.subscription_schedules.current_phase IS
'Place in phases, from 0, of the one that runs, or ran last; NULL before the first.';
COMMENT ON COLUMN billing.subscription_schedules.next_phase_at IS
'When something is to be done: the next phase begins, or the last one ends. NULL once nothing is.';
COMMENT ON COLUMN billing.subscription_schedules.end_behavior IS
'What the end of the last phase does to the subscription: release (it goes on) or cancel.';
COMMENT ON COLUMN billing.subscription_schedules.default_settings IS 'What phases that do not say it themselves have.';
COMMENT ON COLUMN billing.subscription_schedules.metadata IS
'A JSON object that the application keeps here; it carries no meaning for billing.';
COMMENT ON COLUMN billing.subscription_schedules.created IS 'The as_of of its creation.';
COMMENT ON COLUMN billing.subscription_schedules.canceled_at IS 'When it was canceled; else NULL.';
COMMENT ON COLUMN billing.subscription_schedules.completed_at IS 'When it was completed; else NULL.';
COMMENT ON COLUMN billing.subscription_schedules.released_at IS 'When it was released; else NULL.';
COMMENT ON COLUMN billing.subscription_schedules.error IS
'Why its next phase could not begin, such as a coupon that has expired; it is tried again by every run. NULL:
nothing is wrong.';
COMMENT ON INDEX billing.subscription_schedules_next_phase_at_idx IS 'Finds the phases that are due.';
COMMENT ON INDEX billing.subscription_schedules_subscription_key IS 'A subscription has one schedule at a time.';
SELECT pg_catalog.pg_extension_config_dump('billing.subscription_schedules', '');

CREATE FUNCTION billing.phase_end(phase jsonb, begins timestamptz, anchor timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    length interval;
    since integer := (extract(year FROM begins) - extract(year FROM anchor)) * 12
                     + extract(month FROM begins) - extract(month FROM anchor);
BEGIN
    IF phase ? 'duration' THEN
        length := concat(phase #> '{duration,interval_count}', phase #>> '{duration,interval}')::interval;
    ELSE
        SELECT (p.interval_count || p."interval")::interval * coalesce((phase ->> 'iterations')::integer, 1) INTO length
        FROM billing.shortest_interval(ARRAY(
            SELECT i.value ->> 'price' FROM jsonb_array_elements(phase -> 'items') i (value))) p;
    END IF;
    -- From the end of February on, months are those of the periods: to 31 March again where they began on the 31st.
    IF anchor + make_interval(months => since) = begins THEN
        RETURN anchor + (make_interval(months => since) + length);
    END IF;
    RETURN begins + length;
END $$;
COMMENT ON FUNCTION billing.phase_end(jsonb, timestamptz, timestamptz) IS
'Where a phase without an end_date ends, by its duration or iterations: where a period does, if it begins where one of
that anchor does. Internal.';

CREATE FUNCTION billing.resolved_phases(
    phases jsonb, start timestamptz, as_of timestamptz, default_settings jsonb, planned jsonb DEFAULT '[]',
    anchor timestamptz DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    planned_prices text[] := ARRAY(
        SELECT k.id #>> '{}' FROM jsonb_path_query(resolved_phases.planned, '$[*].items[*].price') k (id));
    planned_coupons text[] := billing.coupons_named(resolved_phases.planned);
    coupons text[];
    phase record;
    item record;
    missing record;
    begins timestamptz;
    ends timestamptz := resolved_phases.start;
    cycle timestamptz := coalesce(anchor, resolved_phases.start);
    prices text[];
    former_prices text[];
    length text;
    former_length text;
    trial timestamptz;
    currency text;
    resolved jsonb := '[]';
BEGIN
    FOR phase IN SELECT p.value, p.place - 1 AS place FROM jsonb_array_elements(resolved_phases.phases)
                 WITH ORDINALITY p (value, place) ORDER BY p.place
    LOOP
        begins := coalesce((phase.value ->> 'start_date')::timestamptz, ends);
        IF begins <> ends THEN
            RAISE EXCEPTION 'phases[%] starts at %, not at %, where % ends', phase.place, begins, ends,
                    CASE phase.place WHEN 0 THEN 'what is before it' ELSE format('phases[%s]', phase.place - 1) END
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Phases follow one another without gaps and overlaps; start_date may be left out.';
        END IF;
        currency := coalesce(currency, phase.value ->> 'currency', (
            SELECT p.currency FROM billing.prices p WHERE p.id = phase.value #>> '{items,0,price}'));
        IF currency <> phase.value ->> 'currency' THEN
            RAISE EXCEPTION 'phases[%] is in %, not in %', phase.place, phase.value ->> 'currency', currency
                USING ERRCODE = 'invalid_parameter_value', HINT = 'All phases have one currency.';
        END IF;
        FOR item IN SELECT i.value ->> 'price' AS price, (i.value ->> 'quantity')::bigint AS quantity
                    FROM jsonb_array_elements(phase.value -> 'items') i (value)
        LOOP
            PERFORM billing.require_price(item.price, item.quantity, currency,
                                          item.price = ANY (planned_prices));
        END LOOP;
        coupons := billing.coupons_named(phase.value);
        SELECT k.kind, k.id INTO missing
        FROM (SELECT 'coupon' AS kind, unnest(coupons) AS id
              UNION ALL
              SELECT 'tax rate', t.id #>> '{}' FROM jsonb_path_query(phase.value, '$.default_tax_rates[*]') t (id)
              UNION ALL
              SELECT 'tax rate', t.id #>> '{}' FROM jsonb_path_query(phase.value, '$.items[*].tax_rates[*]') t (id)) k
        WHERE NOT EXISTS (SELECT FROM billing.coupons c WHERE k.kind = 'coupon' AND c.id = k.id)
          AND NOT EXISTS (SELECT FROM billing.tax_rates t WHERE k.kind = 'tax rate' AND t.id = k.id)
        ORDER BY 1, 2 LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION '% "%" of phases[%] does not exist', missing.kind, missing.id, phase.place
                USING ERRCODE = 'foreign_key_violation',
                      HINT = format('Create it first with billing.create_%s.', replace(missing.kind, ' ', '_'));
        END IF;
        SELECT c.id INTO missing FROM billing.coupons c
        WHERE c.deleted_at IS NOT NULL AND c.id = ANY (coupons) AND c.id <> ALL (planned_coupons)
        ORDER BY c.id LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'coupon "%" of phases[%] was deleted', missing.id, phase.place
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Use another coupon.';
        END IF;
        SELECT c.id, c.redeem_by INTO missing FROM billing.coupons c
        WHERE begins < resolved_phases.as_of AND c.redeem_by <= resolved_phases.as_of
          -- What a subscription has begun with is redeemed already.
          AND c.id = ANY (coupons) AND (anchor IS NULL OR c.id <> ALL (planned_coupons))
        ORDER BY c.id LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'coupon "%" of phases[%] had to be redeemed before % (coupon_expired)',
                    missing.id, phase.place, missing.redeem_by
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Use another coupon.';
        END IF;
        prices := ARRAY(SELECT i.value ->> 'price' FROM jsonb_array_elements(phase.value -> 'items') i (value));
        SELECT s.interval_count || s."interval" INTO length FROM billing.shortest_interval(prices) s;
        IF (default_settings || phase.value) ->> 'billing_cycle_anchor' = 'phase_start'
           -- With all of its intervals others, a subscription begins periods of its own.
           OR length <> former_length AND NOT prices && former_prices
        THEN
            cycle := begins;
        END IF;
        former_prices := prices;
        former_length := length;
        ends := coalesce((phase.value ->> 'end_date')::timestamptz, billing.phase_end(phase.value, begins, cycle));
        trial := CASE WHEN phase.value ? 'trial' THEN ends ELSE (phase.value ->> 'trial_end')::timestamptz END;
        IF ends <= begins THEN
            RAISE EXCEPTION 'phases[%] ends at %, which is not after its start, %', phase.place, ends, begins
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Every phase lasts some time.';
        ELSIF trial <= begins OR trial > ends THEN
            RAISE EXCEPTION 'trial_end % of phases[%] is not within it, % to %', trial, phase.place, begins, ends
                USING ERRCODE = 'invalid_parameter_value', HINT = 'A trial ends with its phase at the latest.';
        END IF;
        resolved := resolved || jsonb_build_array((phase.value - ARRAY['duration', 'iterations', 'trial'])
            || jsonb_build_object('start_date', begins, 'end_date', ends)
            || CASE WHEN trial IS NULL THEN '{}' ELSE jsonb_build_object('trial_end', trial) END);
        cycle := coalesce(trial, cycle);
    END LOOP;
    RETURN resolved;
END $$;
COMMENT ON FUNCTION billing.resolved_phases(jsonb, timestamptz, timestamptz, jsonb, jsonb, timestamptz) IS
'Phases with their dates worked out, the first from a start on, as they are planned at as_of. planned: the phases as they
were before, whose prices may be archived and coupons deleted. anchor: that of the subscription''s periods, NULL for the
start. Errors: 55000 an archived price, a deleted coupon, one that has expired for a phase of the past; 22023 phases that
overlap, leave a gap, or end before they start, a trial beyond its phase, prices that no subscription takes together;
23503 unknown prices, coupons or tax rates. Internal.';

CREATE FUNCTION billing.lock_schedule(schedule text) RETURNS billing.subscription_schedules
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscription_schedules;
BEGIN
    PERFORM billing.require_argument('schedule', lock_schedule.schedule);
    -- Subscriptions are locked before their schedules, here as everywhere.
    PERFORM FROM billing.subscriptions s JOIN billing.subscription_schedules h ON h.subscription = s.id
    WHERE h.id = lock_schedule.schedule FOR NO KEY UPDATE OF s;
    SELECT h.* INTO found FROM billing.subscription_schedules h WHERE h.id = lock_schedule.schedule FOR NO KEY UPDATE;
    IF found.id IS NULL THEN
        RAISE EXCEPTION 'subscription schedule "%" does not exist', lock_schedule.schedule
            USING ERRCODE = 'undefined_object', HINT = 'See billing.subscription_schedules.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION billing.lock_schedule(text) IS
'Locks a schedule and its subscription until the transaction ends and returns it. Errors: 42704 unknown; 22004 NULL.
Internal.';

CREATE FUNCTION billing.running_schedule(schedule text, as_of timestamptz) RETURNS billing.subscription_schedules
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found billing.subscription_schedules;
BEGIN
    PERFORM billing.require_time('as_of', as_of);
    found := billing.lock_schedule(schedule);
    PERFORM billing.advance_schedule(found.id, as_of);
    found := billing.lock_schedule(schedule);
    IF found.status NOT IN ('not_started', 'active') THEN
        RAISE EXCEPTION 'subscription schedule "%" is %', found.id, found.status
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Create another one.';
    ELSIF as_of < found.created THEN
        RAISE EXCEPTION 'as_of % is before subscription schedule "%", which is of %', as_of, found.id, found.created
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass a later as_of.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION billing.running_schedule(text, timestamptz) IS
'Locks a schedule that is to change at as_of, after the phases that began by then, and returns it. Errors: 42704
unknown; 55000 ended; 22023 as_of before its creation or infinite; 22004 NULL. Internal.';
