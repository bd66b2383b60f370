-- A running subscription is changed: its items, when it is billed, how long it runs.

CREATE FUNCTION billing.coupons_named(definition jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
RETURN ARRAY(SELECT DISTINCT k.coupon #>> '{}'
             FROM jsonb_path_query(definition, '$.**.discounts[*].coupon') k (coupon) ORDER BY 1);
COMMENT ON FUNCTION billing.coupons_named(jsonb) IS
'The coupons that a subscription, a change of one, or phases of a schedule would redeem; none of NULL. Internal.';

CREATE FUNCTION billing.lock_to_change(subscription text, as_of timestamptz, coupons text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions := billing.lock_subscription(lock_to_change.subscription);
    due jsonb := (SELECT h.phases FROM billing.subscription_schedules h
                  WHERE h.id = found.schedule AND h.next_phase_at <= lock_to_change.as_of);
BEGIN
    IF due IS NULL AND coalesce(coupons, '{}') = '{}' THEN
        RETURN;
    END IF;
    PERFORM FROM billing.invoices i WHERE i.subscription = found.id AND i.status = 'draft' ORDER BY i.id FOR NO KEY UPDATE;
    IF due IS NULL THEN
        PERFORM billing.lock_discounts(ARRAY[found.customer], coupons);
    ELSE
        PERFORM billing.lock_to_finalize(ARRAY[found.customer], coupons || billing.coupons_named(due));
    END IF;
END $$;
COMMENT ON FUNCTION billing.lock_to_change(text, timestamptz, text[]) IS
'Locks a subscription and, in the order of all locks, what changing it at as_of takes where that redeems coupons or begins
phases: either may be followed by an invoice at once. Errors: 42704 unknown; 22004 NULL. Internal.';

CREATE FUNCTION billing.current_subscription(
    subscription text, as_of timestamptz, ends boolean DEFAULT false, coupons text[] DEFAULT '{}'
) RETURNS billing.subscriptions
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
    last_change timestamptz;
BEGIN
    PERFORM billing.require_argument('subscription', current_subscription.subscription);
    PERFORM billing.require_time('as_of', as_of);
    -- Not billing.lock_usage(), which would keep roll_up() waiting for the caller's transaction: what is drafted here is rated again
    -- when it becomes final, and what is invoiced at once has its days marked for late usage.
    PERFORM billing.lock_to_change(current_subscription.subscription, as_of, current_subscription.coupons);
    PERFORM billing.apply_due_changes(as_of, current_subscription.subscription);
    PERFORM billing.make_drafts(as_of - CASE WHEN ends THEN interval '1 microsecond' ELSE interval '0' END,
                                current_subscription.subscription);
    found := billing.lock_subscription(current_subscription.subscription);
    IF found.status IN ('canceled', 'incomplete_expired') THEN
        RAISE EXCEPTION 'subscription "%" is %, since %', found.id, found.status, found.ended_at
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Create another subscription.';
    ELSIF as_of < found.current_period_start THEN
        RAISE EXCEPTION 'as_of % is before the current period of subscription "%", which starts at %',
                as_of, found.id, found.current_period_start
            USING ERRCODE = 'invalid_parameter_value', HINT = 'What is invoiced already cannot change.';
    END IF;
    SELECT greatest(max(i.starts_at), max(i.ended_at), max(x.created)) INTO last_change
    FROM billing.subscription_items i
    LEFT JOIN billing.invoice_items x ON x.subscription_item = i.id AND x.period_end > found.current_period_start
    WHERE i.subscription = found.id;
    IF as_of < last_change THEN
        RAISE EXCEPTION 'as_of % is before the last change of subscription "%", of %', as_of, found.id, last_change
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Changes are prorated in their order.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION billing.current_subscription(text, timestamptz, boolean, text[]) IS
'Locks a subscription that is to change at as_of and the coupons that this redeems, after the phases of its schedule that began and the periods that
ended by then (ends: before then, as one that ends just there has no other), and returns it. Errors: 42704 unknown;
55000 ended; 22023 as_of before the current period, before the last change of its items or infinite; 22004 NULL.
Internal.';

CREATE FUNCTION billing.refuse_change(subscription billing.subscriptions, part text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'subscription "%" is %: its % cannot be changed', subscription.id, subscription.status, part
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = CASE subscription.status WHEN 'paused' THEN 'Resume it first with billing.resume_subscription.'
                                              ELSE 'Its first invoice has to be paid first.' END;
END $$;
COMMENT ON FUNCTION billing.refuse_change(billing.subscriptions, text) IS
'Raises 55000: part of a subscription that is paused or incomplete was to change. Internal.';

CREATE FUNCTION billing.update_subscription(subscription text, changes jsonb, as_of timestamptz DEFAULT now())
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
    wanted jsonb;
    refused text;
BEGIN
    PERFORM billing.require_argument('changes', changes);
    wanted := billing.subscription_changes(changes::text);
    found := billing.current_subscription(
        update_subscription.subscription, as_of, coupons => billing.coupons_named(wanted));
    SELECT min(k.field) INTO refused FROM jsonb_object_keys(wanted) k (field)
    WHERE found.status IN ('incomplete', 'paused') AND k.field NOT IN
              ('description', 'metadata', 'default_payment_method', 'proration_behavior', 'trial_settings')
       OR found.schedule IS NOT NULL AND k.field IN ('cancel_at', 'cancel_at_period_end');
    IF refused IS NOT NULL AND found.schedule IS NOT NULL AND refused LIKE 'cancel%' THEN
        RAISE EXCEPTION 'subscription "%" is managed by schedule "%": its % cannot be changed',
                found.id, found.schedule, refused
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Update the schedule''s end_behavior, or release it first.';
    ELSIF refused IS NOT NULL THEN
        PERFORM billing.refuse_change(found, refused);
    END IF;
    PERFORM billing.change_subscription(found, wanted, as_of);
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.update_subscription(text, jsonb, timestamptz) IS
'Changes a subscription at as_of and returns its id. Fields, as in Stripe''s API: items ({id} with price, quantity,
deleted, tax_rates, discounts, billing_thresholds, metadata; or a new one by its price), proration_behavior,
proration_date, billing_cycle_anchor (now), trial_end (a time or "now"), cancel_at (a time, min_period_end,
max_period_end), cancel_at_period_end, pause_collection, collection_method, days_until_due, default_tax_rates,
default_payment_method, discounts, billing_thresholds, trial_settings, description, metadata (merged); null or ""
clears a field. A new price of an item has quantity 1 unless another is given. When all intervals change a new
period starts, unless billing_cycle_anchor is unchanged; what was used and the new period are invoiced then. Unused
time of what was charged is given back and remaining time charged by the second, on the next invoice
(create_prorations), on one made at once (always_invoice), or not at all (none); usage is billed at the price that
was in effect. Errors: 42704 unknown subscription or item; 55000 ended, paused, the end of one that a schedule manages, an
archived price; 23503 unknown price, coupon or tax rate; 22023 an unknown field, a quantity of a metered item, a price twice,
another currency, intervals that are no multiples of the shortest, no item left, proration_date outside the current
period or after as_of, times that are not after as_of, as_of before the current period or an earlier change; 22003
an amount beyond bigint; 0A000 a field that is not built; 22P02, 22004 changes that are no object, or NULL.';

CREATE FUNCTION billing.change_subscription(
    subscription billing.subscriptions, changes jsonb, as_of timestamptz
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    old constant billing.subscriptions := change_subscription.subscription;
    new billing.subscriptions := billing.changed_terms(old, changes, change_subscription.as_of);
    behavior constant text := coalesce(changes ->> 'proration_behavior', 'create_prorations');
    since timestamptz := coalesce((changes ->> 'proration_date')::timestamptz, change_subscription.as_of);
    -- The period ends just now, and the invoice to come charges for the next one: by a phase, or a trial's early end.
    ending constant boolean := new.current_period_end = change_subscription.as_of;
    noted constant timestamptz := change_subscription.as_of - CASE WHEN ending THEN interval '1 microsecond'
                                                                   ELSE interval '0' END;
    restarts boolean := new.billing_cycle_anchor <> old.billing_cycle_anchor AND old.status <> 'trialing';
    closes boolean;
    charged text[];
    prices text[];
    item record;
BEGIN
    IF since < old.current_period_start OR since > as_of THEN
        RAISE EXCEPTION 'proration_date % is not in the current period of subscription "%" up to as_of, % to %',
                since, old.id, old.current_period_start, as_of
            USING ERRCODE = 'invalid_parameter_value', HINT = 'What is invoiced already cannot change.';
    END IF;
    IF restarts THEN
        FOR item IN SELECT i.id, i.quantity FROM billing.subscription_items i
                    WHERE i.subscription = old.id AND i.ended_at IS NULL ORDER BY i.created, i.id
        LOOP
            IF item.quantity IS NULL THEN
                PERFORM billing.keep_usage(old, item.id, as_of);
            ELSIF behavior <> 'none' THEN
                PERFORM billing.credit_unused(old, item.id, since, noted);
            END IF;
        END LOOP;
    END IF;
    charged := billing.change_items(old, coalesce(changes -> 'items', '[]'), behavior <> 'none', since, noted, as_of,
                                    coalesce((changes ->> 'archived_too')::boolean, false));
    SELECT array_agg(i.price) INTO prices FROM billing.subscription_items i
    WHERE i.subscription = old.id AND i.ended_at IS NULL;
    IF coalesce(cardinality(prices), 0) NOT BETWEEN 1 AND 20 THEN
        RAISE EXCEPTION 'subscription "%" would have % items', old.id, coalesce(cardinality(prices), 0)
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'It has 1 to 20. To end it, use billing.cancel_subscription.';
    END IF;
    SELECT t."interval", t.interval_count INTO new."interval", new.interval_count
    FROM billing.shortest_interval(prices) t;
    -- With all of its intervals others, nothing is left of its periods.
    IF (old."interval", old.interval_count) <> (new."interval", new.interval_count) AND new.status <> 'trialing'
       AND NOT restarts AND NOT changes ? 'billing_cycle_anchor'
       AND NOT EXISTS (SELECT FROM billing.subscription_items i
                       WHERE i.subscription = old.id AND i.ended_at IS NULL AND i.id <> ALL (charged))
    THEN
        restarts := true;
        new.billing_cycle_anchor := as_of;
    END IF;
    IF jsonb_typeof(changes -> 'cancel_at') = 'string' THEN
        new.cancel_at := billing.cancellation_time(new, prices, changes ->> 'cancel_at', as_of);
        IF new.cancel_at <= as_of THEN
            RAISE EXCEPTION 'cancel_at % is not after as_of %', new.cancel_at, as_of
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Use billing.cancel_subscription to end it now.';
        END IF;
    END IF;

    -- What is charged from now on, by the new terms.
    FOR item IN
        SELECT i.id, i.id = ANY (charged) OR restarts AS anew, b.period_end AS old_end, n.period_end AS new_end,
               lower(n.whole) = change_subscription.as_of AND ending AS by_cycle
        FROM billing.subscription_items i JOIN billing.prices p ON p.id = i.price
        CROSS JOIN LATERAL billing.item_period(old, p."interval", p.interval_count, change_subscription.as_of) b
        CROSS JOIN LATERAL billing.item_period(new, p."interval", p.interval_count, change_subscription.as_of) n
        WHERE i.subscription = old.id AND i.ended_at IS NULL AND i.quantity IS NOT NULL
        ORDER BY i.created, i.id
    LOOP
        CONTINUE WHEN item.by_cycle OR behavior = 'none' AND NOT restarts;
        IF item.anew THEN
            PERFORM billing.charge_remaining(
                new, item.id, CASE WHEN restarts THEN as_of ELSE since END, item.new_end, noted);
        ELSIF item.new_end < item.old_end THEN
            PERFORM billing.credit_unused(old, item.id, item.new_end, noted);
        ELSE
            PERFORM billing.charge_remaining(new, item.id, item.old_end, item.new_end, noted);
        END IF;
    END LOOP;
    PERFORM billing.store_terms(old, new, changes, ending, restarts, as_of);
    closes := restarts OR (old."interval", old.interval_count) <> (new."interval", new.interval_count);
    IF ending AND old.current_period_end <> as_of THEN
        PERFORM billing.make_drafts(as_of, old.id);
    ELSIF NOT ending AND (closes OR behavior = 'always_invoice') THEN
        PERFORM billing.invoice_changes(
            old, closes, restarts OR behavior = 'always_invoice', behavior = 'always_invoice', as_of);
    END IF;
END $$;
COMMENT ON FUNCTION billing.change_subscription(billing.subscriptions, jsonb, timestamptz) IS
'What update_subscription and a schedule''s phase do to a subscription, which is current at as_of and locked;
changes are normalised. Where its period ends at as_of, the invoice to come charges by the new terms. Internal.';

CREATE FUNCTION billing.changed_terms(subscription billing.subscriptions, changes jsonb, as_of timestamptz)
RETURNS billing.subscriptions
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    new billing.subscriptions := subscription;
    at timestamptz;
BEGIN
    new.collection_method := coalesce(changes ->> 'collection_method', new.collection_method);
    IF changes ? 'days_until_due' OR new.collection_method = 'charge_automatically' THEN
        new.days_until_due := (changes ->> 'days_until_due')::integer;
    END IF;
    IF (new.collection_method = 'send_invoice') <> (new.days_until_due IS NOT NULL) THEN
        RAISE EXCEPTION 'collection_method "%" with days_until_due %',
                new.collection_method, coalesce(new.days_until_due::text, 'null')
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'days_until_due is for send_invoice, which needs it.';
    END IF;
    IF changes ? 'description' THEN
        new.description := changes ->> 'description';
    END IF;
    IF changes ? 'metadata' THEN
        new.metadata := billing.changed_metadata(new.metadata, changes -> 'metadata');
    END IF;
    IF changes ? 'default_payment_method' THEN
        new.default_payment_method := changes ->> 'default_payment_method';
    END IF;
    IF changes ? 'default_tax_rates' THEN
        new.default_tax_rates := billing.text_array(changes -> 'default_tax_rates');
        IF new.default_tax_rates IS NOT NULL THEN
            PERFORM billing.require_tax_rates(new.default_tax_rates);
        END IF;
    END IF;
    IF changes ? 'pause_collection' THEN
        new.pause_behavior := changes #>> '{pause_collection,behavior}';
        new.pause_resumes_at := (changes #>> '{pause_collection,resumes_at}')::timestamptz;
        IF new.pause_resumes_at <= as_of THEN
            RAISE EXCEPTION 'pause_collection.resumes_at % is not after as_of %', new.pause_resumes_at, as_of
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass pause_collection null to resume now.';
        END IF;
    END IF;
    IF changes ? 'billing_thresholds' THEN
        new.amount_gte := (changes #>> '{billing_thresholds,amount_gte}')::bigint;
        new.reset_billing_cycle_anchor := (changes #>> '{billing_thresholds,reset_billing_cycle_anchor}')::boolean;
    END IF;
    new.trial_end_behavior := coalesce(changes #>> '{trial_settings,end_behavior,missing_payment_method}',
                                       new.trial_end_behavior);
    IF changes ? 'trial_end' AND changes ->> 'billing_cycle_anchor' = 'now' THEN
        RAISE EXCEPTION 'billing_cycle_anchor "now" together with trial_end %', changes -> 'trial_end'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The anchor moves to the end of the trial.';
    ELSIF changes ->> 'trial_end' = 'now' THEN
        IF new.status = 'trialing' THEN
            new.billing_cycle_anchor := as_of;
            new.current_period_end := as_of;
            new.trial_end := CASE WHEN new.trial_start < as_of THEN as_of END;
            new.trial_start := CASE WHEN new.trial_start < as_of THEN new.trial_start END;
            new.status := CASE WHEN new.trial_end IS NULL THEN 'active' ELSE new.status END;
        END IF;
    ELSIF changes ? 'trial_end' THEN
        at := changes ->> 'trial_end';
        IF at <= as_of OR at > as_of + interval '730 days' THEN
            RAISE EXCEPTION 'trial_end % is not within 730 days after as_of %', at, as_of
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass "now" to end the trial.';
        ELSIF new.status NOT IN ('trialing', 'active') THEN
            RAISE EXCEPTION 'subscription "%" is % and cannot become trialing', new.id, new.status
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Only an active one takes a trial.';
        ELSIF new.status = 'active' THEN
            new.trial_start := as_of;
            new.status := 'trialing';
        END IF;
        new.trial_end := at;
        new.billing_cycle_anchor := at;
    ELSIF changes ->> 'billing_cycle_anchor' = 'now' THEN
        -- Just where it ends, it is one still for a phase that begins there, and the anchor is there already.
        IF new.status = 'trialing' AND new.trial_end > as_of THEN
            RAISE EXCEPTION 'billing_cycle_anchor "now" before the trial''s end, %', new.trial_end
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass trial_end "now", which moves the anchor too.';
        ELSIF changes ? 'proration_date' THEN
            RAISE EXCEPTION 'billing_cycle_anchor "now" together with proration_date %', changes ->> 'proration_date'
                USING ERRCODE = 'invalid_parameter_value', HINT = 'A period that starts now is prorated from now.';
        END IF;
        new.billing_cycle_anchor := as_of;
    END IF;
    IF changes ? 'cancel_at' THEN
        -- A time that its items decide is known once they have changed.
        new.cancel_at := NULL;
        new.cancel_at_period_end := new.cancel_at_period_end AND changes -> 'cancel_at' = 'null';
    END IF;
    IF changes ? 'cancel_at_period_end' THEN
        new.cancel_at_period_end := (changes ->> 'cancel_at_period_end')::boolean;
        new.cancel_at := CASE WHEN NOT new.cancel_at_period_end THEN new.cancel_at END;
    END IF;
    RETURN new;
END $$;
COMMENT ON FUNCTION billing.changed_terms(billing.subscriptions, jsonb, timestamptz) IS
'A subscription with the changes that concern itself and not its items. Errors: 22023 contradictions and times that
are not after as_of; 55000 a trial of one that is not active; 23503 unknown tax rates. Internal.';

CREATE FUNCTION billing.changed_metadata(metadata jsonb, changes jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed jsonb := CASE WHEN changes = 'null' THEN '{}' ELSE jsonb_strip_nulls(metadata || changes) END;
    keys bigint := (SELECT count(*) FROM jsonb_object_keys(changed));
BEGIN
    IF keys > 50 THEN
        RAISE EXCEPTION 'metadata would have % keys', keys
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It has at most 50. A key set to null goes.';
    END IF;
    RETURN changed;
END $$;
COMMENT ON FUNCTION billing.changed_metadata(jsonb, jsonb) IS
'metadata with changes merged in: null removes a key, or all. Errors: 22023 more than 50 keys. Internal.';

CREATE FUNCTION billing.store_terms(
    old billing.subscriptions, new billing.subscriptions, changes jsonb, ending boolean, restarts boolean,
    as_of timestamptz
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT ending THEN
        SELECT p.period_end INTO new.current_period_end FROM billing.subscription_period(new, as_of) p;
        IF restarts THEN
            new.current_period_start := as_of;
        ELSIF (old."interval", old.interval_count) <> (new."interval", new.interval_count)
              AND old.status <> 'trialing'
        THEN
            -- Items of a longer interval have used more than the period that the shortest one had.
            SELECT least(as_of, greatest(lower(p.whole), new.start_date, new.trial_end)) INTO new.current_period_start
            FROM billing.subscription_period(new, as_of) p;
        END IF;
    END IF;
    -- Drafts that are there already keep what they were created under, whenever a run makes them final.
    UPDATE billing.invoices i
    SET default_tax_rates = coalesce(i.default_tax_rates, old.default_tax_rates, '{}'),
        days_until_due = coalesce(i.days_until_due, old.days_until_due),
        pause_behavior = coalesce(i.pause_behavior, billing.collection_paused(old, i.created), 'none')
    WHERE i.subscription = old.id AND i.status = 'draft'
      AND (old.default_tax_rates, old.days_until_due, old.pause_behavior, old.pause_resumes_at)
          IS DISTINCT FROM (new.default_tax_rates, new.days_until_due, new.pause_behavior, new.pause_resumes_at);
    UPDATE billing.subscriptions s
    SET status = new.status,
        current_period_start = new.current_period_start,
        current_period_end = new.current_period_end,
        next_invoice_at = CASE WHEN old.next_invoice_at IS NOT NULL THEN new.current_period_end END,
        billing_cycle_anchor = new.billing_cycle_anchor,
        "interval" = new."interval",
        interval_count = new.interval_count,
        trial_start = new.trial_start,
        trial_end = new.trial_end,
        trial_end_behavior = new.trial_end_behavior,
        cancel_at = new.cancel_at,
        cancel_at_period_end = new.cancel_at_period_end,
        canceled_at = CASE WHEN new.cancel_at IS NOT NULL OR new.cancel_at_period_end
                           THEN coalesce(s.canceled_at, as_of) END,
        collection_method = new.collection_method,
        days_until_due = new.days_until_due,
        description = new.description,
        metadata = new.metadata,
        default_tax_rates = new.default_tax_rates,
        default_payment_method = new.default_payment_method,
        pause_behavior = new.pause_behavior,
        pause_resumes_at = new.pause_resumes_at,
        amount_gte = new.amount_gte,
        reset_billing_cycle_anchor = new.reset_billing_cycle_anchor
    WHERE s.id = old.id;
    IF changes ? 'discounts' THEN
        PERFORM billing.replace_discounts('subscription', old.id, changes -> 'discounts', as_of);
    END IF;
END $$;
COMMENT ON FUNCTION billing.store_terms(
    billing.subscriptions, billing.subscriptions, jsonb, boolean, boolean, timestamptz) IS
'Writes a changed subscription with the period that it is in then. Internal.';
