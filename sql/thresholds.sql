-- Billing thresholds: usage that has accrued enough is invoiced before its period ends.

-- Few subscriptions may have thresholds among many that do not.
CREATE INDEX subscriptions_amount_gte_idx ON billing.subscriptions (id) WHERE amount_gte IS NOT NULL;
CREATE INDEX subscription_items_usage_gte_idx ON billing.subscription_items (subscription)
    WHERE usage_gte IS NOT NULL AND ended_at IS NULL;
COMMENT ON INDEX billing.subscriptions_amount_gte_idx IS 'Finds the subscriptions that have a threshold.';
COMMENT ON INDEX billing.subscription_items_usage_gte_idx IS 'Finds the subscriptions with an item that has a threshold.';

CREATE FUNCTION billing.draft_thresholds(as_of timestamptz, subscriptions text[] DEFAULT NULL) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    watched text[];
    made text[];
BEGIN
    IF NOT EXISTS (SELECT FROM billing.subscriptions s WHERE s.amount_gte IS NOT NULL)
       AND NOT EXISTS (SELECT FROM billing.subscription_items i WHERE i.usage_gte IS NOT NULL AND i.ended_at IS NULL)
    THEN
        RETURN '{}';
    END IF;
    watched := ARRAY(
        SELECT s.id FROM billing.subscriptions s
        WHERE (draft_thresholds.subscriptions IS NULL OR s.id = ANY (draft_thresholds.subscriptions))
          AND s.status IN ('active', 'past_due') AND s.current_period_start < draft_thresholds.as_of
          AND s.next_invoice_at > draft_thresholds.as_of
          -- The period's own invoice is what a pause of collection concerns.
          AND billing.collection_paused(s, draft_thresholds.as_of) IS NULL
          -- A run of the past cannot begin a period before what changed since.
          AND NOT EXISTS (
              SELECT FROM billing.subscription_items i
              LEFT JOIN billing.invoice_items x ON x.subscription_item = i.id AND x.period_end > s.current_period_start
              WHERE i.subscription = s.id AND s.reset_billing_cycle_anchor
                AND greatest(i.starts_at, i.ended_at, x.created) > draft_thresholds.as_of)
          AND (s.amount_gte IS NOT NULL
               OR EXISTS (SELECT FROM billing.subscription_items i
                          WHERE i.subscription = s.id AND i.usage_gte IS NOT NULL AND i.ended_at IS NULL))
        ORDER BY s.id FOR NO KEY UPDATE);
    IF watched = '{}' THEN
        RETURN '{}';
    END IF;
    WITH usage AS MATERIALIZED (
        SELECT row_number() OVER () AS place, s AS subscription, s.id AS of_subscription, u.*
        FROM billing.subscriptions s
        CROSS JOIN LATERAL billing.usage_lines(s, draft_thresholds.as_of, false) u
        WHERE s.id = ANY (watched)
    ), rated AS MATERIALIZED (
        SELECT u.*, q.quantity, i.usage_gte, i.created, billing.price_label(p) AS description,
               billing.usage_unbilled(u.subscription_item, u.price, u.period_start, NULL,
                                      billing.usage_amount(p, (u.subscription).currency, q.quantity)) AS amount,
               -- What an item's usage threshold counts: since it was last billed.
               q.quantity - coalesce((
                   SELECT l.quantity FROM billing.invoice_lines l JOIN billing.invoices t ON t.id = l.invoice
                   WHERE l.subscription_item = u.subscription_item AND l.price = u.price
                     AND l.period_start = u.period_start AND l.kind = 'usage'
                     AND t.billing_reason = 'subscription_threshold' AND t.regenerated_as IS NULL
                   ORDER BY l.id DESC LIMIT 1), 0) AS accrued
        FROM (SELECT array_agg(u.price ORDER BY u.place) AS prices,
                     array_agg((u.subscription).customer ORDER BY u.place) AS customers,
                     array_agg(u.period_start ORDER BY u.place) AS starts,
                     array_agg(u.period_end ORDER BY u.place) AS ends FROM usage u) a
        CROSS JOIN LATERAL billing.usage_quantities(a.prices, a.customers, a.starts, a.ends) q
        JOIN usage u USING (place)
        JOIN billing.prices p ON p.id = u.price
        JOIN billing.subscription_items i ON i.id = u.subscription_item
    ), crossed AS MATERIALIZED (
        SELECT r.subscription, billing.generate_id('in') AS id,
               count(*) FILTER (WHERE r.amount <> 0 OR r.accrued >= r.usage_gte) AS line_count,
               sum(r.amount) AS amount
        FROM rated r
        GROUP BY r.subscription
        -- An amount beyond bigint is not for here: the period's own invoice says so.
        HAVING NOT bool_or(r.amount IS NULL) AND abs(sum(r.amount)) <= 9223372036854775807
           -- A fixed fee is none of usage: with a new period each time it would be billed by every run.
           AND (sum(r.amount) >= (r.subscription).amount_gte AND bool_or(r.quantity > 0)
                OR bool_or(r.accrued >= r.usage_gte) AND bool_or(r.amount <> 0))
    ), drafts AS (
        INSERT INTO billing.invoices
            (id, customer, subscription, currency, period_start, period_end, created, billing_reason, collection_method,
             line_count, subtotal, total, amount_due)
        SELECT c.id, (c.subscription).customer, (c.subscription).id, (c.subscription).currency,
               (c.subscription).current_period_start, draft_thresholds.as_of, draft_thresholds.as_of,
               'subscription_threshold', (c.subscription).collection_method, c.line_count, c.amount, c.amount,
               greatest(c.amount, 0)
        FROM crossed c
    ), filled AS (
        INSERT INTO billing.invoice_lines
            (invoice, subscription_item, price, kind, description, quantity, amount, period_start, period_end)
        SELECT c.id, r.subscription_item, r.price, 'usage', r.description, r.quantity, r.amount, r.period_start,
               r.period_end
        FROM crossed c JOIN rated r ON r.of_subscription = (c.subscription).id
        -- Usage that is free so far is said to be billed, or it would cross its threshold again and again.
        WHERE r.amount <> 0 OR r.accrued >= r.usage_gte
        ORDER BY c.id, r.created, r.subscription_item, r.period_start
    )
    SELECT array_agg(c.id ORDER BY c.id) INTO made FROM crossed c;
    IF made IS NULL THEN
        RETURN '{}';
    END IF;
    PERFORM billing.adjust_drafts(made);
    RETURN billing.drop_unfit_thresholds(made);
END $$;
COMMENT ON FUNCTION billing.draft_thresholds(timestamptz, text[]) IS
'Drafts invoices of the usage accrued in the current period up to as_of of subscriptions (some, or NULL for all) that
it has brought to their threshold: amount_gte by what is not billed yet of it, usage_gte by an item''s usage since it
was last billed. The period''s own invoice rates all of its usage and takes off what was billed here, so tiers go on.
None while collection is paused. Returns the drafts, which are finalized at once, and given to
billing.close_thresholds then. Internal.';

CREATE FUNCTION billing.drop_unfit_thresholds(drafts text[]) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    unfit text[] := ARRAY(SELECT i.id FROM billing.invoices i
                          WHERE i.id = ANY (drop_unfit_thresholds.drafts) AND i.status = 'draft'
                            AND i.finalization_error IS NOT NULL);
BEGIN
    IF unfit = '{}' THEN
        RETURN drop_unfit_thresholds.drafts;
    END IF;
    UPDATE billing.discounts x SET redeemed_invoice = NULL WHERE x.redeemed_invoice = ANY (unfit);
    DELETE FROM billing.invoice_lines l WHERE l.invoice = ANY (unfit);
    DELETE FROM billing.invoices i WHERE i.id = ANY (unfit);
    RETURN ARRAY(SELECT d.id FROM unnest(drop_unfit_thresholds.drafts) d (id) WHERE d.id <> ALL (unfit) ORDER BY d.id);
END $$;
COMMENT ON FUNCTION billing.drop_unfit_thresholds(text[]) IS
'Deletes those drafts of billing.draft_thresholds that cannot become final, and returns the others: one that waited while
its period goes on and is invoiced would give back what that has billed. The next run looks again, and the period''s own
invoice bills all of it. Internal.';

CREATE FUNCTION billing.close_thresholds(drafts text[], as_of timestamptz) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    made text[] := billing.drop_unfit_thresholds(close_thresholds.drafts);
    reset record;
BEGIN
    FOR reset IN
        SELECT s.id FROM billing.invoices i JOIN billing.subscriptions s ON s.id = i.subscription
        -- What ends with its period begins no other one, or each threshold would move the end on.
        WHERE i.id = ANY (made) AND s.reset_billing_cycle_anchor AND NOT s.cancel_at_period_end ORDER BY s.id
    LOOP
        PERFORM billing.update_subscription(reset.id, '{"billing_cycle_anchor": "now"}', close_thresholds.as_of);
    END LOOP;
    RETURN made || ARRAY(
        SELECT i.id FROM billing.invoices i
        WHERE i.subscription IN (SELECT d.subscription FROM billing.invoices d WHERE d.id = ANY (made))
          AND i.created = close_thresholds.as_of
          AND i.billing_reason = 'subscription_update' AND i.status = 'draft');
END $$;
COMMENT ON FUNCTION billing.close_thresholds(text[], timestamptz) IS
'What follows when the drafts of billing.draft_thresholds have been finalized: with reset_billing_cycle_anchor a new period
begins, unless the subscription ends with this one. Returns the invoices made, with the drafts for that. Internal.';

CREATE FUNCTION billing.finalize_thresholds(drafts text[], as_of timestamptz) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    earlier text[] := ARRAY(
        SELECT i.id FROM billing.invoices i
        WHERE i.subscription IN (SELECT d.subscription FROM billing.invoices d
                                 WHERE d.id = ANY (finalize_thresholds.drafts))
          AND i.id <> ALL (finalize_thresholds.drafts) AND i.status = 'draft' AND i.auto_advance
          AND i.created <= finalize_thresholds.as_of - billing.setting_interval('finalization_delay')
        ORDER BY i.id FOR NO KEY UPDATE);
BEGIN
    PERFORM billing.rate_drafts(earlier);
    PERFORM billing.finalize_drafts(earlier || finalize_thresholds.drafts);
    RETURN earlier;
END $$;
COMMENT ON FUNCTION billing.finalize_thresholds(text[], timestamptz) IS
'Finalizes drafts of billing.draft_thresholds, with those of the same subscriptions whose grace is over: these had their turn
for a coupon and the like before. Returns the latter. The caller holds the subscriptions'' locks. Internal.';
