-- Statuses: what the application knows, and Stripe would learn from payments.

CREATE FUNCTION billing.set_subscription_status(subscription text, status text, as_of timestamptz DEFAULT now())
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
BEGIN
    PERFORM billing.require_argument('status', set_subscription_status.status);
    found := billing.current_subscription(set_subscription_status.subscription, as_of);
    IF set_subscription_status.status = 'incomplete_expired' AND found.status = 'incomplete' THEN
        PERFORM billing.expire_subscription(found, as_of);
    ELSIF (found.status, set_subscription_status.status) IN
          (('incomplete', 'active'), ('active', 'past_due'), ('active', 'unpaid'), ('past_due', 'active'),
           ('past_due', 'unpaid'), ('unpaid', 'active'), ('unpaid', 'past_due'))
    THEN
        UPDATE billing.subscriptions s
        SET status = set_subscription_status.status, next_invoice_at = s.current_period_end
        WHERE s.id = found.id;
    ELSE
        RAISE EXCEPTION 'subscription "%" is % and cannot become %',
                found.id, found.status, set_subscription_status.status
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = CASE set_subscription_status.status
                      WHEN 'paused' THEN 'Use billing.pause_subscription.'
                      WHEN 'canceled' THEN 'Use billing.cancel_subscription.'
                      WHEN 'trialing' THEN 'Use billing.update_subscription with trial_end.'
                      ELSE 'From incomplete to active or incomplete_expired; between active, past_due, unpaid.' END;
    END IF;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.set_subscription_status(text, text, timestamptz) IS
'Notes what the application knows of the payment of a subscription, and returns its id: past_due; unpaid (from then
on its invoices stay drafts until finalize_invoice); active again; incomplete_expired of an incomplete one. Errors:
42704 unknown subscription; 55000 a change that is not possible, naming both statuses; 22023 as_of before the
current period or infinite; 22004 NULL.';

CREATE FUNCTION billing.invoice_was_paid(invoice text, as_of timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    UPDATE billing.subscriptions s SET status = 'active', next_invoice_at = s.current_period_end
    FROM billing.invoices i
    WHERE i.id = invoice_was_paid.invoice AND s.id = i.subscription
      AND (s.status = 'incomplete' AND i.billing_reason = 'subscription_create'
           OR s.status IN ('past_due', 'unpaid')
              AND NOT EXISTS (SELECT FROM billing.invoices o
                              WHERE o.subscription = s.id AND o.status = 'open' AND o.id <> i.id));
END $$;
COMMENT ON FUNCTION billing.invoice_was_paid(text, timestamptz) IS
'What the payment of an invoice does to its subscription: an incomplete one becomes active, and so does one that was
past_due or unpaid once none of its invoices is open. The caller has the subscription locked. Internal.';

CREATE FUNCTION billing.pause_subscription(subscription text, as_of timestamptz DEFAULT now()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions := billing.current_subscription(
        pause_subscription.subscription, pause_subscription.as_of);
BEGIN
    IF found.status NOT IN ('trialing', 'active', 'past_due', 'unpaid') THEN
        RAISE EXCEPTION 'subscription "%" is % and cannot become paused', found.id, found.status
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Only one that is trialing, active, past_due or unpaid can be paused.';
    END IF;
    PERFORM billing.keep_usage(found, i.id, pause_subscription.as_of)
    FROM billing.subscription_items i WHERE i.subscription = found.id AND i.ended_at IS NULL AND i.quantity IS NULL;
    UPDATE billing.subscriptions s
    SET status = 'paused', current_period_start = pause_subscription.as_of, next_invoice_at = NULL
    WHERE s.id = found.id;
    PERFORM billing.invoice_changes(found, true, true, false, pause_subscription.as_of);
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.pause_subscription(text, timestamptz) IS
'Stops the billing of a subscription at as_of until it is resumed, and returns its id. Its usage until then is on an
invoice, a draft at first; what is used while it is paused is never billed. Errors: 42704 unknown subscription;
55000 one that is not trialing, active, past_due or unpaid; 22023 as_of before the current period or infinite; 22004
NULL.';

CREATE FUNCTION billing.resume_subscription(
    subscription text, billing_cycle_anchor text DEFAULT 'now', proration_behavior text DEFAULT 'create_prorations',
    as_of timestamptz DEFAULT now()
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
    new billing.subscriptions;
    item record;
BEGIN
    PERFORM billing.require_argument('billing_cycle_anchor', resume_subscription.billing_cycle_anchor);
    PERFORM billing.require_argument('proration_behavior', resume_subscription.proration_behavior);
    IF resume_subscription.billing_cycle_anchor NOT IN ('now', 'unchanged') THEN
        RAISE EXCEPTION 'billing_cycle_anchor "%"', resume_subscription.billing_cycle_anchor
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use now or unchanged.';
    ELSIF resume_subscription.proration_behavior NOT IN ('create_prorations', 'always_invoice', 'none') THEN
        RAISE EXCEPTION 'proration_behavior "%"', resume_subscription.proration_behavior
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use create_prorations, always_invoice or none.';
    END IF;
    found := billing.current_subscription(resume_subscription.subscription, as_of);
    IF found.status <> 'paused' THEN
        RAISE EXCEPTION 'subscription "%" is % and cannot be resumed', found.id, found.status
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Only a paused one can.';
    ELSIF found.cancel_at <= as_of THEN
        RAISE EXCEPTION 'subscription "%" was to end at %, before as_of %', found.id, found.cancel_at, as_of
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Cancel it with billing.cancel_subscription.';
    END IF;
    new := found;
    new.status := CASE WHEN as_of < found.trial_end THEN 'trialing' ELSE 'active' END;
    new.current_period_start := as_of;
    IF resume_subscription.billing_cycle_anchor = 'now' AND new.status = 'active' THEN
        new.billing_cycle_anchor := as_of;
    END IF;
    SELECT p.period_end INTO new.current_period_end FROM billing.subscription_period(new, as_of) p;
    UPDATE billing.subscription_items i SET starts_at = resume_subscription.as_of
    WHERE i.subscription = found.id AND i.ended_at IS NULL AND i.quantity IS NULL;
    FOR item IN
        SELECT i.id, n.period_end,
               EXISTS (SELECT FROM billing.open_charges(i.id, resume_subscription.as_of) c
                       WHERE lower(c.open) = resume_subscription.as_of) AS paid
        FROM billing.subscription_items i JOIN billing.prices p ON p.id = i.price
        CROSS JOIN LATERAL billing.item_period(new, p."interval", p.interval_count, resume_subscription.as_of) n
        WHERE i.subscription = found.id AND i.ended_at IS NULL AND i.quantity IS NOT NULL
        ORDER BY i.created, i.id
    LOOP
        -- What was paid before the pause goes on with the old anchor; a new period is charged as a whole.
        IF new.billing_cycle_anchor <> found.billing_cycle_anchor THEN
            IF resume_subscription.proration_behavior <> 'none' THEN
                PERFORM billing.credit_unused(found, item.id, as_of, as_of);
            END IF;
            PERFORM billing.charge_remaining(new, item.id, as_of, item.period_end, as_of);
        ELSIF NOT item.paid AND resume_subscription.proration_behavior <> 'none' THEN
            PERFORM billing.charge_remaining(new, item.id, as_of, item.period_end, as_of);
        END IF;
    END LOOP;
    UPDATE billing.subscriptions s
    SET status = new.status, current_period_start = new.current_period_start,
        current_period_end = new.current_period_end, next_invoice_at = new.current_period_end,
        billing_cycle_anchor = new.billing_cycle_anchor
    WHERE s.id = found.id;
    PERFORM billing.invoice_changes(new, false, true, true, as_of);
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.resume_subscription(text, text, text, timestamptz) IS
'Goes on with a paused subscription at as_of and returns its id. With billing_cycle_anchor now a new period starts,
for which licensed items are charged as a whole and what is left of time paid before is given back (not with
proration_behavior none); unchanged: time paid before is used up, and other time charged by the second up to the
next boundary. The invoice is made and final at once. What was used while it was paused is not billed. Errors: 42704
unknown subscription; 55000 not paused; 22023 an unknown word, as_of before the pause or infinite; 22004 NULL.';
