-- A subscription ends.

CREATE FUNCTION billing.cancel_subscription(
    subscription text, at_period_end boolean DEFAULT false, as_of timestamptz DEFAULT now(),
    invoice_now boolean DEFAULT false, prorate boolean DEFAULT false
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found billing.subscriptions;
    draft text[];
BEGIN
    PERFORM billing.require_argument('at_period_end', at_period_end);
    PERFORM billing.require_argument('invoice_now', invoice_now);
    PERFORM billing.require_argument('prorate', prorate);
    IF at_period_end AND (invoice_now OR prorate) THEN
        RAISE EXCEPTION 'at_period_end true together with % true',
                CASE WHEN prorate THEN 'prorate' ELSE 'invoice_now' END
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'At the end of the period nothing is left to give back or to hurry.';
    END IF;
    found := billing.current_subscription(cancel_subscription.subscription, as_of, NOT at_period_end);
    IF at_period_end THEN
        IF found.schedule IS NOT NULL THEN
            RAISE EXCEPTION 'subscription "%" is managed by schedule "%": its cancel_at_period_end cannot be changed',
                    found.id, found.schedule
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Update the schedule''s end_behavior, or release it first.';
        ELSIF found.status IN ('incomplete', 'paused') THEN
            RAISE EXCEPTION 'subscription "%" is %: no period of it ends', found.id, found.status
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Cancel it now.';
        END IF;
        UPDATE billing.subscriptions s SET canceled_at = cancel_subscription.as_of, cancel_at_period_end = true
        WHERE s.id = found.id;
        RETURN found.id;
    END IF;
    PERFORM billing.end_subscription(found, prorate, as_of);
    IF invoice_now THEN
        draft := billing.make_drafts(as_of, found.id);
        PERFORM billing.finalize_now(draft, as_of);
    END IF;
    RETURN found.id;
END $$;
COMMENT ON FUNCTION billing.cancel_subscription(text, boolean, timestamptz, boolean, boolean) IS
'Ends a subscription and returns its id: with its current period (at_period_end), or at as_of. Its usage until then
is on a last invoice that the next generate_invoices makes, or this call (invoice_now), final at once; Stripe
discards it by default on an immediate cancellation. What was paid in advance is given back on that invoice if
prorate. One that is incomplete expires and its first invoice is voided. Errors: 42704 unknown subscription; 55000
ended already; at_period_end of one that is incomplete, paused or managed by a schedule; 22023 at_period_end
together with another choice, as_of before the current period or infinite; 22004 NULL.';

CREATE FUNCTION billing.end_subscription(subscription billing.subscriptions, prorate boolean, as_of timestamptz)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF subscription.status = 'incomplete' THEN
        PERFORM billing.expire_subscription(subscription, end_subscription.as_of);
    ELSE
        IF prorate THEN
            PERFORM billing.credit_unused(
                end_subscription.subscription, i.id, end_subscription.as_of, end_subscription.as_of)
            FROM billing.subscription_items i
            WHERE i.subscription = subscription.id AND i.ended_at IS NULL AND i.quantity IS NOT NULL
            ORDER BY i.created, i.id;
        END IF;
        -- A paused one has no usage to bill, but it may have something to give back.
        UPDATE billing.subscription_items i SET starts_at = end_subscription.as_of
        WHERE subscription.status = 'paused' AND i.subscription = subscription.id AND i.ended_at IS NULL
          AND i.quantity IS NULL;
        UPDATE billing.subscriptions s
        SET status = 'canceled', canceled_at = end_subscription.as_of, ended_at = end_subscription.as_of,
            cancel_at = NULL, cancel_at_period_end = false,
            current_period_start = CASE s.status WHEN 'paused' THEN end_subscription.as_of
                                                 ELSE s.current_period_start END,
            current_period_end = end_subscription.as_of, next_invoice_at = end_subscription.as_of, schedule = NULL
        WHERE s.id = subscription.id;
    END IF;
    UPDATE billing.subscription_schedules h
    SET status = 'canceled', canceled_at = end_subscription.as_of, next_phase_at = NULL, error = NULL
    WHERE h.id = subscription.schedule AND h.status IN ('not_started', 'active');
END $$;
COMMENT ON FUNCTION billing.end_subscription(billing.subscriptions, boolean, timestamptz) IS
'Ends a subscription, current at as_of and locked, and the schedule that manages it. Its last invoice is due then.
Internal.';

CREATE FUNCTION billing.expire_subscription(subscription billing.subscriptions, at timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    UPDATE billing.subscriptions s
    SET status = 'incomplete_expired', canceled_at = expire_subscription.at, ended_at = expire_subscription.at,
        next_invoice_at = NULL, schedule = NULL
    WHERE s.id = subscription.id;
    -- One that was made anew is a draft, and is never deleted.
    PERFORM billing.finalize_drafts(ARRAY(
        SELECT i.id FROM billing.invoices i WHERE i.subscription = subscription.id AND i.status = 'draft'),
        expire_subscription.at);
    PERFORM billing.void_invoice(i.id, expire_subscription.at)
    FROM billing.invoices i WHERE i.subscription = subscription.id AND i.status = 'open';
END $$;
COMMENT ON FUNCTION billing.expire_subscription(billing.subscriptions, timestamptz) IS
'Ends an incomplete subscription, whose first invoice nobody will pay now: it is voided. Internal.';
