-- Schedules are made and changed, and their phases carried out.

CREATE FUNCTION billing.create_subscription_schedule(
    schedule jsonb, id text DEFAULT NULL, as_of timestamptz DEFAULT now()
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    definition jsonb;
    made billing.subscription_schedules;
    managed billing.subscriptions;
BEGIN
    PERFORM billing.require_argument('schedule', create_subscription_schedule.schedule);
    PERFORM billing.require_time('as_of', as_of);
    definition := billing.subscription_schedule_definition(create_subscription_schedule.schedule::text, false);
    made.id := coalesce(create_subscription_schedule.id, billing.generate_id('sub_sched'));
    made.created := as_of;
    made.metadata := coalesce(definition -> 'metadata', '{}');
    made.end_behavior := coalesce(definition ->> 'end_behavior', 'release');
    made.default_settings := coalesce(definition -> 'default_settings', '{}');
    IF definition ? 'from_subscription' THEN
        managed := billing.current_subscription(definition ->> 'from_subscription', as_of);
        IF managed.schedule IS NOT NULL THEN
            RAISE EXCEPTION 'subscription "%" is managed by schedule "%" already', managed.id, managed.schedule
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Update that schedule, or release it first.';
        ELSIF managed.status NOT IN ('trialing', 'active', 'past_due', 'unpaid')
              OR managed.cancel_at IS NOT NULL OR managed.cancel_at_period_end
        THEN
            RAISE EXCEPTION 'subscription "%" is %: it cannot be scheduled', managed.id,
                    CASE WHEN managed.canceled_at IS NULL THEN managed.status ELSE 'to be canceled' END
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Only one that is billed, and is not to end, can.';
        END IF;
        made.customer := managed.customer;
        made.subscription := managed.id;
        made.status := 'active';
        made.current_phase := 0;
        made.next_phase_at := managed.current_period_end;
        made.phases := jsonb_build_array(billing.phase_of_subscription(managed));
    ELSE
        made.customer := definition ->> 'customer';
        IF NOT EXISTS (SELECT FROM billing.customers c WHERE c.id = made.customer) THEN
            RAISE EXCEPTION 'customer "%" does not exist', made.customer
                USING ERRCODE = 'foreign_key_violation', HINT = 'Create it first with billing.create_customer.';
        END IF;
        made.status := 'not_started';
        made.phases := billing.resolved_phases(
            definition -> 'phases',
            coalesce((definition ->> 'start_date')::timestamptz,
                     (definition #>> '{phases,0,start_date}')::timestamptz, as_of),
            as_of, made.default_settings);
        made.next_phase_at := made.phases #>> '{0,start_date}';
    END IF;
    INSERT INTO billing.subscription_schedules SELECT made.* ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'subscription schedule "%" exists already', made.id
            USING ERRCODE = 'unique_violation', SCHEMA = 'billing', TABLE = 'subscription_schedules',
                  HINT = 'Create one with another id.';
    END IF;
    UPDATE billing.subscriptions s SET schedule = made.id WHERE s.id = managed.id;
    PERFORM billing.advance_schedule(made.id, as_of, true);
    RETURN made.id;
END $$;
COMMENT ON FUNCTION billing.create_subscription_schedule(jsonb, text, timestamptz) IS
'Schedules what a subscription is to become, and returns the schedule''s id: the one given, or a new one
(sub_sched_...). As in Stripe''s API: customer, start_date (a time or "now"), end_behavior (release, cancel), 1 to 10
phases, each with items, an end_date, a duration or iterations of its shortest interval (default 1),
proration_behavior, trial or trial_end, billing_cycle_anchor (automatic, phase_start), default_tax_rates, discounts,
billing_thresholds, metadata; or from_subscription, whose current period is the first phase. A first phase that has
begun by as_of starts its subscription at once. Errors: 23503 unknown customer, price, coupon or tax rate; 23505 the id
exists; 55000 a subscription that ends or has a schedule, an archived price, a deleted coupon; 22023 phases that overlap,
leave a gap or have no length, and all that create_subscription refuses; 0A000 a field that is not built; 22004 NULL.';

CREATE FUNCTION billing.phase_of_subscription(subscription billing.subscriptions) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'start_date', ($1).current_period_start, 'end_date', ($1).current_period_end,
        'proration_behavior', ($1).proration_behavior, 'currency', ($1).currency,
        'default_tax_rates', to_jsonb(($1).default_tax_rates),
        'items', (SELECT jsonb_agg(jsonb_build_object('price', i.price, 'quantity', i.quantity,
                                                      'tax_rates', to_jsonb(i.tax_rates)) ORDER BY i.created, i.id)
                  FROM billing.subscription_items i WHERE i.subscription = ($1).id AND i.ended_at IS NULL)))
$$;
COMMENT ON FUNCTION billing.phase_of_subscription(billing.subscriptions) IS
'A subscription as it is, as a phase that ends with its current period. Internal.';

CREATE FUNCTION billing.update_subscription_schedule(schedule text, changes jsonb, as_of timestamptz DEFAULT now())
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    found billing.subscription_schedules;
    managed billing.subscriptions;
    wanted jsonb;
    current jsonb;
    planned jsonb;
    running integer;
    former jsonb;
    content jsonb;
    trial jsonb := '{}';
    changed boolean;
BEGIN
    PERFORM billing.require_argument('changes', changes);
    wanted := billing.subscription_schedule_definition(changes::text, true);
    -- The coupons too before a phase that is due takes numbers.
    PERFORM billing.lock_to_change(h.subscription, as_of, billing.coupons_named(wanted))
    FROM billing.subscription_schedules h WHERE h.id = update_subscription_schedule.schedule AND h.subscription IS NOT NULL;
    found := billing.running_schedule(update_subscription_schedule.schedule, as_of);
    running := coalesce(found.current_phase, 0);
    current := found.phases -> running;
    planned := found.phases;
    IF wanted ? 'phases' THEN
        planned := (SELECT coalesce(jsonb_agg(p.value ORDER BY p.place), '[]')
                   FROM jsonb_array_elements(found.phases) WITH ORDINALITY p (value, place) WHERE p.place <= running)
            || billing.resolved_phases(
                wanted -> 'phases',
                CASE WHEN found.status = 'not_started' AND wanted #> '{phases,0,start_date}' IS NOT NULL
                     THEN (wanted #>> '{phases,0,start_date}')::timestamptz
                     ELSE (current ->> 'start_date')::timestamptz END,
                as_of, coalesce(wanted -> 'default_settings', found.default_settings), found.phases,
                (SELECT s.billing_cycle_anchor FROM billing.subscriptions s WHERE s.id = found.subscription));
        IF found.status = 'active' AND (planned #>> ARRAY[running::text, 'end_date'])::timestamptz <= as_of THEN
            RAISE EXCEPTION 'phases[0], the current one, ends at %, which is not after as_of %',
                    planned #>> ARRAY[running::text, 'end_date'], as_of
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'What was cannot be changed; give it a later end_date.';
        END IF;
    END IF;
    former := billing.phase_content(current, found.default_settings);
    content := billing.phase_content(planned -> running, coalesce(wanted -> 'default_settings', found.default_settings));
    IF (planned #>> ARRAY[running::text, 'trial_end'])::timestamptz IS DISTINCT FROM (current ->> 'trial_end')::timestamptz
       AND planned -> running ? 'trial_end'
    THEN
        trial := jsonb_build_object('trial_end', planned -> running -> 'trial_end');
    END IF;
    changed := found.status = 'active' AND (content <> former OR trial <> '{}');
    IF changed THEN
        managed := billing.current_subscription(found.subscription, as_of, coupons => billing.coupons_named(wanted));
        IF managed.status IN ('incomplete', 'paused') THEN
            PERFORM billing.refuse_change(managed, 'current phase');
        END IF;
    END IF;
    UPDATE billing.subscription_schedules h
    SET phases = planned,
        next_phase_at = (planned -> running ->> CASE found.status WHEN 'active' THEN 'end_date' ELSE 'start_date' END
                        )::timestamptz,
        end_behavior = coalesce(wanted ->> 'end_behavior', h.end_behavior),
        default_settings = coalesce(wanted -> 'default_settings', h.default_settings),
        metadata = CASE WHEN wanted ? 'metadata'
                        THEN billing.changed_metadata(h.metadata, wanted -> 'metadata') ELSE h.metadata END,
        error = NULL
    WHERE h.id = found.id;
    IF changed THEN
        PERFORM billing.change_subscription(
            managed, billing.changes_of_phase(
                managed, content || trial || jsonb_build_object(
                    'proration_behavior', coalesce(wanted -> 'proration_behavior', '"create_prorations"')),
                '{}', former, false), as_of);
    END IF;
    PERFORM billing.advance_schedule(found.id, as_of, true);
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.update_subscription_schedule(text, jsonb, timestamptz) IS
'Changes a schedule at as_of and returns its id: phases (those that are over stay; the first one given is the
current one, and what it says differently changes the subscription at once, with proration_behavior; a coupon that it had
before is not redeemed again), end_behavior, default_settings, metadata. Errors: 42704 unknown; 55000 one that has ended,
and with another current phase a subscription that is canceled, paused or incomplete; 22023 a current phase that ends by
as_of, as_of before the subscription''s last change, and all that create_subscription_schedule refuses; 22004 NULL.';

CREATE FUNCTION billing.cancel_subscription_schedule(
    schedule text, invoice_now boolean DEFAULT true, prorate boolean DEFAULT true, as_of timestamptz DEFAULT now()
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscription_schedules;
BEGIN
    found := billing.running_schedule(cancel_subscription_schedule.schedule, as_of);
    IF found.status = 'active' THEN
        PERFORM billing.cancel_subscription(found.subscription, false, as_of, invoice_now, prorate);
    END IF;
    UPDATE billing.subscription_schedules h
    SET status = 'canceled', canceled_at = cancel_subscription_schedule.as_of, next_phase_at = NULL, error = NULL
    WHERE h.id = found.id;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.cancel_subscription_schedule(text, boolean, boolean, timestamptz) IS
'Cancels a schedule and the subscription that it manages, at as_of, and returns its id. As in Stripe the last
invoice is made at once (invoice_now) and unused time given back (prorate), unless said otherwise. Errors: 42704
unknown; 55000 one that has ended; 22023 as_of before the current period or infinite; 22004 NULL.';

CREATE FUNCTION billing.release_subscription_schedule(schedule text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscription_schedules := billing.running_schedule(
        release_subscription_schedule.schedule, release_subscription_schedule.as_of);
BEGIN
    UPDATE billing.subscription_schedules h
    SET status = 'released', released_at = release_subscription_schedule.as_of, next_phase_at = NULL, error = NULL
    WHERE h.id = found.id;
    UPDATE billing.subscriptions s SET schedule = NULL WHERE s.schedule = found.id;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.release_subscription_schedule(text, timestamptz) IS
'Ends a schedule at as_of and returns its id: its subscription goes on as it is. Errors: 42704 unknown; 55000 one
that has ended; 22023 as_of before its creation or infinite; 22004 NULL.';

CREATE FUNCTION billing.phase_content(phase jsonb, default_settings jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.terms - CASE WHEN p.terms -> 'default_tax_rates' = '[]' THEN ARRAY['default_tax_rates'] ELSE '{}' END
           || jsonb_build_object('items', (
               SELECT jsonb_agg(CASE WHEN i.value -> 'quantity' = '1' THEN i.value - 'quantity' ELSE i.value END ORDER BY i.place)
               FROM jsonb_array_elements(phase -> 'items') WITH ORDINALITY i (value, place)))
    FROM (SELECT (default_settings || phase) - ARRAY['start_date', 'end_date', 'trial_end', 'proration_behavior',
                                                     'billing_cycle_anchor', 'currency']) p (terms)
$$;
COMMENT ON FUNCTION billing.phase_content(jsonb, jsonb) IS
'What a phase says of a subscription in its course, by itself or by the defaults, in one form: without when it is, how it
begins, and what goes without saying. Internal.';

CREATE FUNCTION billing.discounts_of_phase(
    phase jsonb, former jsonb, begins boolean, subscription text, item text DEFAULT NULL
) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN NOT phase ? 'discounts' AND NOT coalesce(former ? 'discounts', false) THEN '{}'
                WHEN begins THEN jsonb_build_object('discounts', coalesce(phase -> 'discounts', '[]'))
                WHEN phase -> 'discounts' IS NOT DISTINCT FROM former -> 'discounts' THEN '{}'
                ELSE jsonb_build_object('discounts', (
                    SELECT coalesce(jsonb_agg(CASE WHEN d.id IS NULL THEN n.value
                                                   ELSE jsonb_build_object('discount', d.id) END ORDER BY n.place), '[]')
                    FROM jsonb_array_elements(coalesce(phase -> 'discounts', '[]')) WITH ORDINALITY n (value, place)
                    LEFT JOIN billing.discounts d
                      ON CASE WHEN item IS NULL THEN d.subscription = discounts_of_phase.subscription
                              ELSE d.subscription_item = discounts_of_phase.item END
                     AND d.ended_at IS NULL AND d.coupon = n.value ->> 'coupon')) END
$$;
COMMENT ON FUNCTION billing.discounts_of_phase(jsonb, jsonb, boolean, text, text) IS
'What a phase, or an item of one, changes of the discounts of a subscription or its item: {"discounts": ...}, or {} where
nothing. A phase that begins redeems its coupons; one that is changed in its course only those that are not on it. Internal.';

CREATE FUNCTION billing.changes_of_phase(
    subscription billing.subscriptions, phase jsonb, default_settings jsonb, former jsonb, begins boolean
) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'archived_too', true,
        'items', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', i.id, 'deleted', true)), '[]'::jsonb)
                  FROM billing.subscription_items i
                  WHERE i.subscription = ($1).id AND i.ended_at IS NULL
                    AND i.price NOT IN (SELECT n.value ->> 'price' FROM jsonb_array_elements($2 -> 'items') n (value))
                    AND (begins OR i.price IN (SELECT o.value ->> 'price' FROM jsonb_array_elements($4 -> 'items') o (value))))
              || (SELECT coalesce(jsonb_agg(
                             CASE WHEN i.id IS NULL THEN jsonb_build_object('price', n.value ->> 'price')
                                  ELSE jsonb_build_object('id', i.id) END || c.terms ORDER BY n.place), '[]'::jsonb)
                  FROM jsonb_array_elements($2 -> 'items') WITH ORDINALITY n (value, place)
                  LEFT JOIN billing.subscription_items i
                      ON i.subscription = ($1).id AND i.ended_at IS NULL AND i.price = n.value ->> 'price'
                  LEFT JOIN LATERAL (
                      SELECT o.value FROM jsonb_array_elements($4 -> 'items') o (value)
                      WHERE o.value ->> 'price' = n.value ->> 'price' LIMIT 1) f ON true
                  CROSS JOIN LATERAL (SELECT begins OR i.id IS NULL OR f.value IS NULL) a (anew)
                  CROSS JOIN LATERAL (
                      SELECT (SELECT coalesce(jsonb_object_agg(k.key, k.value), '{}'::jsonb)
                              FROM jsonb_each(n.value - ARRAY['price', 'discounts', 'quantity']) k
                              WHERE a.anew OR k.value IS DISTINCT FROM f.value -> k.key)
                             || CASE WHEN i.id IS NULL AND n.value ? 'quantity'
                                          OR i.quantity IS NOT NULL
                                             AND (a.anew OR n.value -> 'quantity' IS DISTINCT FROM f.value -> 'quantity')
                                     THEN jsonb_build_object('quantity', coalesce(n.value -> 'quantity', '1'::jsonb))
                                     ELSE '{}'::jsonb END
                             || CASE WHEN i.tax_rates IS NOT NULL AND NOT n.value ? 'tax_rates'
                                          AND (begins OR f.value ? 'tax_rates')
                                     THEN '{"tax_rates": null}'::jsonb ELSE '{}'::jsonb END
                             || billing.discounts_of_phase(n.value, CASE WHEN i.id IS NOT NULL THEN f.value END,
                                                           begins OR i.id IS NULL, ($1).id, i.id)
                             || CASE WHEN i.id IS NOT NULL AND f.value ? 'billing_thresholds'
                                          AND NOT n.value ? 'billing_thresholds'
                                     THEN '{"billing_thresholds": null}'::jsonb ELSE '{}'::jsonb END) c (terms)
                  WHERE a.anew OR c.terms <> '{}'),
        'proration_behavior', coalesce($2 -> 'proration_behavior', '"create_prorations"'))
        || CASE WHEN begins OR $2 -> 'default_tax_rates' IS DISTINCT FROM $4 -> 'default_tax_rates'
                THEN jsonb_build_object('default_tax_rates', coalesce($2 -> 'default_tax_rates', 'null'))
                ELSE '{}'::jsonb END
        || CASE WHEN begins AND ($3 || $2) ? 'billing_thresholds'
                     OR $2 -> 'billing_thresholds' IS DISTINCT FROM $4 -> 'billing_thresholds'
                THEN jsonb_build_object('billing_thresholds', coalesce(($3 || $2) -> 'billing_thresholds', 'null'))
                ELSE '{}'::jsonb END
        || billing.discounts_of_phase($2, $4, begins, ($1).id)
        || CASE WHEN begins AND ($3 || $2) ->> 'billing_cycle_anchor' = 'phase_start' AND NOT $2 ? 'trial_end'
                THEN '{"billing_cycle_anchor": "now"}'::jsonb ELSE '{}'::jsonb END
        || (SELECT coalesce(jsonb_object_agg(f.key, f.value), '{}'::jsonb) FROM jsonb_each($3 || $2) f
            WHERE f.key IN ('collection_method', 'days_until_due', 'default_payment_method', 'description', 'metadata',
                            'trial_end')
              AND (begins OR f.value IS DISTINCT FROM $4 -> f.key))
$$;
COMMENT ON FUNCTION billing.changes_of_phase(billing.subscriptions, jsonb, jsonb, jsonb, boolean) IS
'What a phase changes of a subscription, in the form of a normalised update: its items become those of the phase, an
item whose price stays being the same item. former: the phase before it, whose discounts and thresholds end as it begins;
or, where it does not begin but is changed in its course, as it was. Internal.';

CREATE FUNCTION billing.advance_schedule(schedule text, as_of timestamptz, raises boolean DEFAULT false) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    found billing.subscription_schedules;
    managed billing.subscriptions;
    at timestamptz;
    drafts text[] := '{}';
    problem text;
BEGIN
    LOOP
        found := billing.lock_schedule(advance_schedule.schedule);
        EXIT WHEN found.next_phase_at IS NULL OR found.next_phase_at > as_of;
        at := found.next_phase_at;
        IF found.status = 'active' THEN
            PERFORM billing.lock_to_change(found.subscription, as_of, '{}');
            -- The invoice that ends a period as a phase begins is made by the terms of that phase.
            drafts := drafts || billing.make_drafts(at - interval '1 microsecond', found.subscription);
            managed := billing.lock_subscription(found.subscription);
            IF managed.status IN ('canceled', 'incomplete_expired') THEN
                UPDATE billing.subscription_schedules h
                SET status = 'canceled', canceled_at = managed.ended_at, next_phase_at = NULL, error = NULL
                WHERE h.id = found.id;
                EXIT;
            END IF;
            EXIT WHEN managed.next_invoice_at IS NULL;  -- incomplete or paused
            at := greatest(at, managed.current_period_start);
        END IF;
        BEGIN
            drafts := drafts || billing.begin_phase(found, managed, at);
        EXCEPTION WHEN OTHERS THEN
            -- What is wrong with the phase, and not with the server or a lock_timeout, stops nobody else.
            IF raises OR left(SQLSTATE, 2) NOT IN ('0A', '22', '23', '42', '55') OR SQLSTATE = '55P03' THEN
                RAISE;
            END IF;
            GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT;
            UPDATE billing.subscription_schedules h SET error = problem WHERE h.id = found.id;
            EXIT;
        END;
    END LOOP;
    RETURN drafts;
END $$;
COMMENT ON FUNCTION billing.advance_schedule(text, timestamptz, boolean) IS
'Carries out the phases of a schedule that begin, and its end, up to as_of, each as of its own time, and returns the
drafts made on the way. A phase that cannot begin leaves its error in the schedule, unless raises. Internal.';

CREATE FUNCTION billing.begin_phase(
    schedule billing.subscription_schedules, managed billing.subscriptions, at timestamptz
) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    place integer := coalesce(schedule.current_phase + 1, 0);
    phase jsonb := schedule.phases -> place;
    target text := schedule.subscription;
BEGIN
    IF schedule.status = 'not_started' THEN
        target := billing.create_subscription(
            (schedule.default_settings - ARRAY['billing_cycle_anchor']
             || phase - ARRAY['start_date', 'end_date', 'billing_cycle_anchor']
             || jsonb_build_object('customer', schedule.customer))::billing.subscription, NULL, at);
    ELSIF phase IS NOT NULL THEN
        PERFORM billing.change_subscription(
            managed, billing.changes_of_phase(managed, phase, schedule.default_settings,
                                              schedule.phases -> schedule.current_phase, true), at);
    ELSIF schedule.end_behavior = 'cancel' THEN
        -- Where a period is cut short, as by cancel_at: only the time that was used is paid.
        PERFORM billing.end_subscription(
            managed, schedule.phases -> schedule.current_phase ->> 'proration_behavior' IS DISTINCT FROM 'none', at);
    END IF;
    UPDATE billing.subscription_schedules h
    SET subscription = target,
        status = CASE WHEN phase IS NOT NULL THEN 'active' WHEN h.end_behavior = 'cancel' THEN 'completed'
                      ELSE 'released' END,
        current_phase = CASE WHEN phase IS NULL THEN h.current_phase ELSE place END,
        next_phase_at = (phase ->> 'end_date')::timestamptz,
        canceled_at = NULL,
        completed_at = CASE WHEN phase IS NULL AND h.end_behavior = 'cancel' THEN at END,
        released_at = CASE WHEN phase IS NULL AND h.end_behavior = 'release' THEN at END,
        error = NULL
    WHERE h.id = schedule.id;
    UPDATE billing.subscriptions s SET schedule = CASE WHEN phase IS NOT NULL THEN begin_phase.schedule.id END
    WHERE s.id = target;
    RETURN ARRAY(SELECT i.id FROM billing.invoices i
                 WHERE i.subscription = target AND i.status = 'draft' AND i.created = at
                   AND i.billing_reason = 'subscription_update');
END $$;
COMMENT ON FUNCTION billing.begin_phase(billing.subscription_schedules, billing.subscriptions, timestamptz) IS
'Begins the next phase of a schedule at a time up to which its subscription, locked, was invoiced; or ends the
schedule after its last one. Returns drafts made for that. Internal.';

CREATE FUNCTION billing.lock_due_changes(as_of timestamptz, periods boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    schedules text[] := ARRAY(SELECT h.id FROM billing.subscription_schedules h
                              WHERE h.next_phase_at <= lock_due_changes.as_of);
    expiring text[] := ARRAY(SELECT s.id FROM billing.subscriptions s
                             WHERE s.status = 'incomplete' AND s.created <= lock_due_changes.as_of - interval '23 hours');
    subscriptions text[];
    drafts text[];
    customers text[];
BEGIN
    IF schedules = '{}' AND expiring = '{}'
       AND NOT (billing.setting_interval('finalization_delay') = interval '0'
                AND EXISTS (SELECT FROM billing.subscriptions s WHERE s.reset_billing_cycle_anchor))
    THEN
        RETURN;
    END IF;
    subscriptions := ARRAY(
        SELECT s.id FROM billing.subscriptions s
        WHERE s.id = ANY (expiring)
           OR s.id IN (SELECT h.subscription FROM billing.subscription_schedules h WHERE h.id = ANY (schedules))
           OR s.amount_gte IS NOT NULL
           OR s.id IN (SELECT i.subscription FROM billing.subscription_items i
                       WHERE i.usage_gte IS NOT NULL AND i.ended_at IS NULL)
           OR s.id IN (SELECT i.subscription FROM billing.invoices i
                       WHERE i.status = 'draft' AND (lock_due_changes.periods OR i.finalization_error IS NOT NULL))
           OR lock_due_changes.periods AND s.next_invoice_at <= lock_due_changes.as_of
        ORDER BY s.id FOR NO KEY UPDATE);
    drafts := ARRAY(
        SELECT i.id FROM billing.invoices i
        WHERE i.status = 'draft'
          AND (i.subscription = ANY (subscriptions)
               OR lock_due_changes.periods AND i.subscription IS NULL AND i.auto_advance)
        ORDER BY i.id FOR NO KEY UPDATE);
    customers := ARRAY(
        SELECT s.customer FROM billing.subscriptions s WHERE s.id = ANY (subscriptions)
        UNION SELECT i.customer FROM billing.invoices i WHERE i.id = ANY (drafts)
        UNION SELECT h.customer FROM billing.subscription_schedules h WHERE h.id = ANY (schedules));
    PERFORM billing.lock_to_finalize(customers, ARRAY(
        SELECT k.coupon FROM billing.subscription_schedules h
        CROSS JOIN LATERAL unnest(billing.coupons_named(h.phases)) k (coupon)
        WHERE h.id = ANY (schedules)));
END $$;
COMMENT ON FUNCTION billing.lock_due_changes(timestamptz, boolean) IS
'Locks, in the order of all locks, what a run will, where something due takes numbers before the run has locked all that
it bills: else the run would wait for a subscription or a customer whose holder waits for the numbers. periods: also what
ends periods and finalizes drafts. Internal.';

CREATE FUNCTION billing.missed_phases(as_of timestamptz, among text[] DEFAULT NULL) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN ARRAY(SELECT s.id FROM billing.subscription_schedules h JOIN billing.subscriptions s ON s.id = h.subscription
             WHERE h.next_phase_at <= missed_phases.as_of AND h.error IS NULL AND s.next_invoice_at <= missed_phases.as_of
               AND h.next_phase_at <= s.current_period_end AND (among IS NULL OR s.id = ANY (among))
             ORDER BY s.id);
COMMENT ON FUNCTION billing.missed_phases(timestamptz, text[]) IS
'The subscriptions (of some, or NULL for all) whose periods that end by as_of a phase ends or begins with: after
billing.apply_due_changes only such as another session has scheduled since. Internal.';

CREATE FUNCTION billing.apply_due_changes(as_of timestamptz, subscription text DEFAULT NULL) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    due record;
    drafts text[] := '{}';
BEGIN
    FOR due IN
        SELECT s AS subscription, s.created + interval '23 hours' AS at FROM billing.subscriptions s
        WHERE s.status = 'incomplete' AND s.created <= apply_due_changes.as_of - interval '23 hours'
          AND (apply_due_changes.subscription IS NULL OR s.id = apply_due_changes.subscription)
        ORDER BY s.id FOR NO KEY UPDATE
    LOOP
        PERFORM billing.expire_subscription(due.subscription, due.at);
    END LOOP;
    FOR due IN
        SELECT h.id FROM billing.subscription_schedules h
        WHERE h.next_phase_at <= apply_due_changes.as_of
          AND (apply_due_changes.subscription IS NULL OR h.subscription = apply_due_changes.subscription)
        ORDER BY h.subscription, h.id
    LOOP
        drafts := drafts || billing.advance_schedule(due.id, apply_due_changes.as_of);
    END LOOP;
    RETURN drafts;
END $$;
COMMENT ON FUNCTION billing.apply_due_changes(timestamptz, text) IS
'Does what is due to subscriptions (one, or NULL for all) by as_of besides their invoices: incomplete ones expire 23
hours after their creation, phases of schedules begin. Returns the drafts made on the way. Called before
billing.make_drafts. Internal.';
