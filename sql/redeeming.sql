-- Redeeming: what drafts show of discounts for once and of credit is used up by those that become final, and comes back from those that
-- are voided. Locks are those of adjusting.

CREATE FUNCTION billing.redeem_discounts(invoices text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    pending text[];
    used_discounts text[];
    used_invoices text[];
    charging text[];
BEGIN
    IF NOT EXISTS (SELECT FROM billing.discounts) THEN
        RETURN;
    END IF;
    -- The discounts of the charges that some of them give back may have changed since.
    charging := billing.charging_drafts(redeem_discounts.invoices);
    PERFORM billing.adjust_drafts(billing.giving_back(redeem_discounts.invoices || charging, redeem_discounts.invoices));
    pending := ARRAY(SELECT i.id FROM billing.invoices i LEFT JOIN billing.subscriptions s ON s.id = i.subscription
                     WHERE i.id = ANY (redeem_discounts.invoices) AND i.status = 'draft'
                       AND NOT billing.is_waived(i, s)
                       -- What is given back may have brought the sum to zero.
                       AND (i.total_discount_amount <> 0
                            OR EXISTS (SELECT FROM billing.invoice_lines l
                                       WHERE l.invoice = i.id AND l.kind IN ('usage', 'late_usage', 'unused_time')
                                         AND l.amount < 0)));
    charging := ARRAY(SELECT unnest(billing.charging_drafts(pending)) EXCEPT SELECT unnest(redeem_discounts.invoices));
    LOOP
        -- By time and then subscription, as they get their numbers.
        SELECT array_agg(u.discount ORDER BY u.created, u.subscription, u.invoice),
               array_agg(u.invoice ORDER BY u.created, u.subscription, u.invoice)
        INTO used_discounts, used_invoices
        FROM (SELECT DISTINCT x.id AS discount, i.id AS invoice, i.created, i.subscription
              FROM billing.invoices i
              JOIN billing.invoice_lines l ON l.invoice = i.id
              CROSS JOIN LATERAL jsonb_array_elements(l.discount_amounts) a (amount)
              JOIN billing.discounts x ON x.id = a.amount ->> 'discount'
              JOIN billing.coupons c ON c.id = x.coupon
              WHERE i.id = ANY (pending) AND c.duration = 'once' AND (a.amount ->> 'amount')::bigint > 0
              UNION
              -- What is given back of a charge on a draft goes by the coupon that it shows, so the draft has it from now on.
              SELECT x.id, i.id, i.created, i.subscription
              FROM billing.draft_discounts(charging) l
              JOIN billing.invoices i ON i.id = l.invoice
              CROSS JOIN LATERAL jsonb_array_elements(l.discount_amounts) a (amount)
              JOIN billing.discounts x ON x.id = a.amount ->> 'discount'
              JOIN billing.coupons c ON c.id = x.coupon
              WHERE c.duration = 'once' AND (a.amount ->> 'amount')::bigint > 0) u;
        EXIT WHEN used_discounts IS NULL;
        PERFORM FROM billing.discounts x WHERE x.id = ANY (used_discounts) ORDER BY x.id FOR NO KEY UPDATE;
        UPDATE billing.discounts x SET redeemed_invoice = f.invoice
        FROM (SELECT DISTINCT ON (u.discount) u.discount, u.invoice
              FROM unnest(used_discounts, used_invoices) WITH ORDINALITY u (discount, invoice, place)
              ORDER BY u.discount, u.place) f
        WHERE x.id = f.discount AND x.redeemed_invoice IS NULL;
        -- An invoice that comes second, here or behind another session, does without, and perhaps with another one instead.
        pending := ARRAY(SELECT DISTINCT u.invoice FROM unnest(used_discounts, used_invoices) u (discount, invoice)
                         JOIN billing.discounts x ON x.id = u.discount AND x.redeemed_invoice <> u.invoice
                         WHERE u.invoice = ANY (redeem_discounts.invoices)
                         ORDER BY u.invoice);
        EXIT WHEN cardinality(pending) = 0;
        PERFORM billing.adjust_drafts(pending);
        PERFORM billing.adjust_drafts(billing.giving_back(pending || charging, redeem_discounts.invoices));
    END LOOP;
END $$;
COMMENT ON FUNCTION billing.redeem_discounts(text[]) IS
'Uses up the discounts of duration once that rated drafts about to be finalized show: the first invoice takes each, and
the others are adjusted and added up again, as is what gives back a charge of theirs. Before billing.apply_credits. The
caller holds their locks. Internal.';

CREATE FUNCTION billing.credit_used(credit_grant text, line billing.invoice_lines) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN (SELECT coalesce(sum(CASE t.type WHEN 'debit' THEN t.amount ELSE -t.amount END), 0)::bigint
        FROM billing.invoice_lines l
        JOIN billing.credit_balance_transactions t ON t.invoice_line = l.id AND t.credit_grant = credit_used.credit_grant
        WHERE l.subscription_item = line.subscription_item AND l.price = line.price
          AND l.period_start = line.period_start AND l.kind IN ('usage', 'late_usage')
          AND t.reason <> 'credits_repaid');
COMMENT ON FUNCTION billing.credit_used(text, billing.invoice_lines) IS
'What a credit grant has paid, by its ledger, for the usage of a line''s item, price and period, less what came back.
Internal.';

CREATE FUNCTION billing.expire_returned_credits(invoices text[], reason text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO billing.credit_balance_transactions (credit_grant, type, reason, amount, effective_at, created)
    SELECT g.id, 'debit', 'credits_expired', sum(t.amount), t.created, t.created
    FROM billing.credit_balance_transactions t
    JOIN billing.credit_grants g ON g.id = t.credit_grant AND g.expires_at <= t.created
    WHERE t.invoice = ANY (expire_returned_credits.invoices) AND t.reason = expire_returned_credits.reason
      -- An invoice made anew of the same period may have it still; billing.expire_credits takes what it leaves.
      AND NOT EXISTS (SELECT FROM billing.invoices d
                      WHERE d.from_invoice = t.invoice AND d.status = 'draft' AND d.period_end < g.expires_at)
    GROUP BY g.id, t.created ORDER BY g.id, t.created;
END;
COMMENT ON FUNCTION billing.expire_returned_credits(text[], text) IS
'Expires at once what came back, for some reason, to credit grants that had expired by then. Internal.';

CREATE FUNCTION billing.apply_credits(invoices text[], as_of timestamptz DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    delay interval := billing.setting_interval('finalization_delay');
    giving text[];
    candidates text[];
    turns bigint[];
    batch text[];
BEGIN
    IF NOT EXISTS (SELECT FROM billing.credit_grants) AND NOT EXISTS (SELECT FROM billing.discounts) THEN
        RETURN;
    END IF;
    -- What is waived uses up nothing, and would have to take away again what it gave back.
    apply_credits.invoices := ARRAY(
        SELECT i.id FROM billing.invoices i LEFT JOIN billing.subscriptions s ON s.id = i.subscription
        WHERE i.id = ANY (apply_credits.invoices) AND i.status = 'draft' AND NOT billing.is_waived(i, s));
    -- What one invoice gives back, the customer's next can use, and does not give back again.
    giving := ARRAY(SELECT DISTINCT i.customer FROM billing.invoices i JOIN billing.invoice_lines l ON l.invoice = i.id
                    WHERE i.id = ANY (apply_credits.invoices) AND l.kind IN ('usage', 'late_usage') AND l.amount < 0);
    SELECT coalesce(array_agg(c.id), '{}'), array_agg(c.turn) INTO candidates, turns
    FROM (SELECT i.id, row_number() OVER (PARTITION BY i.customer, i.currency
                                          ORDER BY i.created, i.subscription, i.id) AS turn
          FROM billing.invoices i
          WHERE i.id = ANY (apply_credits.invoices)
            AND (i.total_credit_amount <> 0 OR i.customer = ANY (giving) OR EXISTS (
                SELECT FROM billing.credit_grants g
                WHERE g.customer = i.customer AND g.currency = i.currency AND g.balance > 0
                  AND i.period_end >= g.effective_at AND coalesce(i.period_end < g.expires_at, true)
                  AND g.created <= i.created + delay))) c;
    -- From here on nobody else uses them: what drafts showed may be gone, so each is adjusted again, in its turn.
    PERFORM FROM billing.credit_grants g
    WHERE (g.customer, g.currency) IN (SELECT i.customer, i.currency FROM billing.invoices i WHERE i.id = ANY (candidates))
    ORDER BY g.id FOR NO KEY UPDATE;
    FOR round IN 1 .. (SELECT coalesce(max(t), 0) FROM unnest(turns) t) LOOP
        batch := ARRAY(SELECT c.id FROM unnest(candidates, turns) c (id, turn) WHERE c.turn = round ORDER BY c.id);
        PERFORM billing.adjust_drafts(batch);
        INSERT INTO billing.credit_balance_transactions
            (credit_grant, type, reason, amount, invoice, invoice_line, effective_at, created)
        SELECT a.used ->> 'credit_grant', 'credit', 'credits_usage_corrected', b.amount, i.id, l.id, t.at, t.at
        FROM billing.invoices i
        JOIN billing.invoice_lines l ON l.invoice = i.id AND l.kind IN ('usage', 'late_usage') AND l.amount < 0
        CROSS JOIN LATERAL jsonb_array_elements(l.credit_amounts) WITH ORDINALITY a (used, place)
        -- Less where voiding a correction could not take all of it away again.
        CROSS JOIN LATERAL (SELECT least(-(a.used ->> 'amount')::bigint,
                                         billing.credit_used(a.used ->> 'credit_grant', l))) b (amount)
        CROSS JOIN LATERAL (SELECT coalesce(apply_credits.as_of, billing.finalizes_at(i, delay))) t (at)
        WHERE i.id = ANY (batch) AND i.finalization_error IS NULL AND b.amount > 0
        ORDER BY i.id, l.id, a.place;
        PERFORM billing.expire_returned_credits(batch, 'credits_usage_corrected');
        INSERT INTO billing.credit_balance_transactions
            (credit_grant, type, reason, amount, invoice, invoice_line, effective_at, created)
        SELECT a.used ->> 'credit_grant', 'debit', 'credits_applied', (a.used ->> 'amount')::bigint, i.id, l.id, t.at, t.at
        FROM billing.invoices i
        JOIN billing.invoice_lines l ON l.invoice = i.id
        CROSS JOIN LATERAL jsonb_array_elements(l.credit_amounts) WITH ORDINALITY a (used, place)
        CROSS JOIN LATERAL (SELECT coalesce(apply_credits.as_of, billing.finalizes_at(i, delay))) t (at)
        WHERE i.id = ANY (batch) AND i.finalization_error IS NULL AND (a.used ->> 'amount')::bigint > 0
        ORDER BY i.id, l.id, a.place;
    END LOOP;
END $$;
COMMENT ON FUNCTION billing.apply_credits(text[], timestamptz) IS
'Gives back the credit that had paid for usage which rated drafts about to be finalized give back, and uses the credit
that they can have, one invoice of a customer after the other, and writes the ledger; drafts whose credit is gone are
adjusted and added up again. The time is as_of, or that of billing.finalizes_at when as_of is NULL. The caller
holds their locks and finalizes those without a finalization_error. Internal.';

CREATE FUNCTION billing.retract_credits(invoice text, as_of timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    given record;
    lost bigint;
    here bigint;
    repaid bigint;
    owed bigint := 0;
BEGIN
    FOR given IN
        SELECT t.* FROM billing.credit_balance_transactions t
        JOIN billing.credit_grants g ON g.id = t.credit_grant AND coalesce(g.expires_at > t.created, true)
        WHERE t.invoice = retract_credits.invoice AND t.reason = 'credits_usage_corrected'
        ORDER BY t.credit_grant, t.place
    LOOP
        -- What expired unused since is lost already, and nobody had it: all that expired, but for what came back after the
        -- expiry, and what voided corrections have left so before.
        SELECT coalesce(sum(t.amount) FILTER (WHERE t.reason = 'credits_expired' AND t.place > given.place), 0)
               - coalesce(sum(t.amount) FILTER (WHERE t.reason = 'credits_usage_corrected' AND t.place > given.place
                                                  AND t.created >= g.expires_at), 0)
               - coalesce(sum(t.amount - coalesce(r.amount, 0)) FILTER (
                     WHERE t.reason = 'credits_usage_corrected' AND i.status = 'void' AND t.created < g.expires_at
                       AND (t.credit_grant, t.place) <> (given.credit_grant, given.place)
                       AND (i.id <> retract_credits.invoice OR t.place < given.place)), 0)
        INTO lost
        FROM billing.credit_grants g
        JOIN billing.credit_balance_transactions t ON t.credit_grant = g.id
        LEFT JOIN billing.invoices i ON i.id = t.invoice
        LEFT JOIN billing.credit_balance_transactions r
            ON r.invoice_line = t.invoice_line AND r.credit_grant = t.credit_grant
           AND r.reason = 'credits_correction_invoice_voided'
        WHERE g.id = given.credit_grant;
        SELECT least(given.amount, g.balance) INTO here FROM billing.credit_grants g WHERE g.id = given.credit_grant;
        -- The rest has paid for something else: that is owed in money now, and buys back the credit that is taken away.
        repaid := least(given.amount - here, greatest(given.amount - here - greatest(lost, 0), 0));
        INSERT INTO billing.credit_balance_transactions
            (credit_grant, type, reason, amount, invoice, invoice_line, effective_at, created)
        SELECT given.credit_grant, e.type, e.reason, e.amount, given.invoice, given.invoice_line, retract_credits.as_of,
               retract_credits.as_of
        FROM (VALUES (1, 'credit', 'credits_repaid', repaid),
                     (2, 'debit', 'credits_correction_invoice_voided', here + repaid)) e (step, type, reason, amount)
        WHERE e.amount > 0 ORDER BY e.step;
        owed := owed + repaid;
    END LOOP;
    RETURN owed;
END $$;
COMMENT ON FUNCTION billing.retract_credits(text, timestamptz) IS
'Takes away the credit that a voided correction had given back: from what is left of it, and as far as it has paid for
something else, repaid in money, which the customer owes from now on; returns how much. The caller holds the locks.
Internal.';

CREATE FUNCTION billing.reinstate_credits(invoice text, as_of timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    owed bigint;
BEGIN
    PERFORM FROM billing.discounts x WHERE x.redeemed_invoice = reinstate_credits.invoice
    ORDER BY x.id FOR NO KEY UPDATE;
    UPDATE billing.discounts x SET redeemed_invoice = NULL WHERE x.redeemed_invoice = reinstate_credits.invoice;
    PERFORM FROM billing.credit_grants g
    WHERE g.id IN (SELECT t.credit_grant FROM billing.credit_balance_transactions t
                   WHERE t.invoice = reinstate_credits.invoice)
    ORDER BY g.id FOR NO KEY UPDATE;
    owed := billing.retract_credits(reinstate_credits.invoice, reinstate_credits.as_of);
    -- Less what came back already with usage that was given back.
    INSERT INTO billing.credit_balance_transactions
        (credit_grant, type, reason, amount, invoice, invoice_line, effective_at, created)
    SELECT t.credit_grant, 'credit', 'credits_application_invoice_voided', a.amount, t.invoice, t.invoice_line,
           reinstate_credits.as_of, reinstate_credits.as_of
    FROM billing.credit_balance_transactions t
    JOIN billing.invoice_lines l ON l.id = t.invoice_line
    CROSS JOIN LATERAL (SELECT least(t.amount, billing.credit_used(t.credit_grant, l))) a (amount)
    WHERE t.invoice = reinstate_credits.invoice AND t.reason = 'credits_applied' AND a.amount > 0
    ORDER BY t.id;
    PERFORM billing.expire_returned_credits(ARRAY[reinstate_credits.invoice], 'credits_application_invoice_voided');
    RETURN owed;
END $$;
COMMENT ON FUNCTION billing.reinstate_credits(text, timestamptz) IS
'Gives back the credit that a voided invoice had used and takes away again what it had given back; what comes back to a
grant that has expired expires at once. Discounts of duration once that it had used up can be used again. Returns what
the customer owes for credit that cannot be taken away any more. The caller holds its lock. Internal.';
