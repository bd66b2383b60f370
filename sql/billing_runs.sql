-- Billing in batches that commit: for many subscriptions, and in several sessions at once.

CREATE TABLE billing.billing_runs (
    id text COLLATE "C" PRIMARY KEY DEFAULT billing.generate_id('run'),
    as_of timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    finished_at timestamptz,
    pid integer,
    total bigint NOT NULL,
    done bigint NOT NULL DEFAULT 0,
    made bigint NOT NULL DEFAULT 0,
    finalized bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE billing.billing_runs IS
'Every call of billing.run_billing: how far it came. What it has left to do is in the subscriptions and invoices
themselves, so a run that ended early is gone on with by the next.';
COMMENT ON COLUMN billing.billing_runs.id IS 'The run''s id (run_...).';
COMMENT ON COLUMN billing.billing_runs.as_of IS 'What it was called with.';
COMMENT ON COLUMN billing.billing_runs.started_at IS 'When it began, by the wall clock.';
COMMENT ON COLUMN billing.billing_runs.updated_at IS 'When its last batch was committed.';
COMMENT ON COLUMN billing.billing_runs.finished_at IS 'When it ended; NULL while it runs, and when it was broken off.';
COMMENT ON COLUMN billing.billing_runs.pid IS 'The server process that runs it.';
COMMENT ON COLUMN billing.billing_runs.total IS
'Period ends, later ones of the same subscriptions too, and drafts that are there or come of them, that were due when it
began. A period that comes to no such draft takes that off. Other sessions may do some of them.';
COMMENT ON COLUMN billing.billing_runs.done IS 'Period ends and drafts that it has dealt with.';
COMMENT ON COLUMN billing.billing_runs.made IS 'Invoices that it has made.';
COMMENT ON COLUMN billing.billing_runs.finalized IS 'Drafts that it has finalized.';
SELECT pg_catalog.pg_extension_config_dump('billing.billing_runs', '');

CREATE VIEW billing.billing_progress AS
SELECT r.id, r.as_of, r.started_at, r.finished_at,
       CASE WHEN r.finished_at IS NOT NULL THEN 'finished'
            WHEN k.pid IS NOT NULL THEN 'running' ELSE 'broken off' END AS state,
       greatest(r.total, r.done) AS total, r.done, r.made, r.finalized,
       round(r.done / nullif(extract(epoch FROM coalesce(r.finished_at, r.updated_at) - r.started_at), 0), 1) AS per_second,
       CASE WHEN r.finished_at IS NULL AND k.pid IS NOT NULL AND r.done > 0
            THEN r.updated_at + (r.updated_at - r.started_at) * ((greatest(r.total, r.done) - r.done)::float8 / r.done)
       END AS estimated_end
FROM billing.billing_runs r
-- A backend that lives may long do something else: each transaction of a run holds a lock of its name.
LEFT JOIN LATERAL (
    SELECT l.pid FROM pg_catalog.pg_locks l
    CROSS JOIN LATERAL (SELECT pg_catalog.hashtextextended(r.id, 0)) h (key)
    WHERE r.finished_at IS NULL AND l.pid = r.pid AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
      AND l.classid = (h.key >> 32 & 4294967295)::oid AND l.objid = (h.key & 4294967295)::oid
) k ON true
ORDER BY r.started_at DESC;
COMMENT ON VIEW billing.billing_progress IS
'Runs of billing.run_billing, the latest first: what they have done of what was due, how fast, and when they will be
through.';
COMMENT ON COLUMN billing.billing_progress.id IS 'The run''s id (run_...).';
COMMENT ON COLUMN billing.billing_progress.as_of IS 'What it was called with.';
COMMENT ON COLUMN billing.billing_progress.started_at IS 'When it began.';
COMMENT ON COLUMN billing.billing_progress.finished_at IS 'When it ended; NULL while it has not.';
COMMENT ON COLUMN billing.billing_progress.state IS
'finished, running, or broken off (by an error, a cancel or a crash): call billing.run_billing again.';
COMMENT ON COLUMN billing.billing_progress.total IS 'Period ends and drafts that were due, at least those done.';
COMMENT ON COLUMN billing.billing_progress.done IS 'Period ends and drafts dealt with.';
COMMENT ON COLUMN billing.billing_progress.made IS 'Invoices made.';
COMMENT ON COLUMN billing.billing_progress.finalized IS 'Drafts finalized.';
COMMENT ON COLUMN billing.billing_progress.per_second IS 'done per second since it began.';
COMMENT ON COLUMN billing.billing_progress.estimated_end IS 'When it will be through, at this rate; NULL unless it runs.';

CREATE FUNCTION billing.later_period_ends(subscription billing.subscriptions, as_of timestamptz)
RETURNS SETOF timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moved billing.subscriptions := subscription;
BEGIN
    LOOP
        EXIT WHEN billing.subscription_ends(moved) OR billing.subscription_pauses(moved);
        SELECT n.period_start, n.period_end INTO moved.current_period_start, moved.current_period_end
        FROM billing.subscription_period(moved, moved.current_period_end) n;
        EXIT WHEN (moved.current_period_end <= as_of) IS NOT TRUE;
        RETURN NEXT moved.current_period_end;
    END LOOP;
END $$;
COMMENT ON FUNCTION billing.later_period_ends(billing.subscriptions, timestamptz) IS
'The ends, up to as_of, of the periods of a subscription after its current one. Internal.';

CREATE FUNCTION billing.start_billing_run(as_of timestamptz, batch_size integer) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    run text := billing.generate_id('run');
    began timestamptz := clock_timestamp();
    ripe timestamptz := start_billing_run.as_of - billing.setting_interval('finalization_delay');
    drafts text[];
    crossed text[];
BEGIN
    PERFORM billing.require_time('as_of', as_of), billing.require_argument('batch_size', batch_size);
    IF start_billing_run.batch_size < 1 THEN
        RAISE EXCEPTION 'batch_size % is below 1', start_billing_run.batch_size
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It is how many subscriptions, or drafts, a transaction takes.';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(run, 0));
    PERFORM billing.roll_up(), billing.lock_usage();
    PERFORM billing.lock_due_changes(start_billing_run.as_of, false);
    drafts := billing.apply_due_changes(start_billing_run.as_of);
    crossed := billing.draft_thresholds(start_billing_run.as_of);
    -- What could not be rated when it was last tried: its usage may have been corrected since.
    PERFORM billing.rate_drafts(ARRAY(
        SELECT i.id FROM billing.invoices i
        JOIN billing.subscriptions s ON s.id = i.subscription
        WHERE i.status = 'draft' AND i.finalization_error IS NOT NULL AND i.created <= ripe
        ORDER BY s.id, i.id FOR NO KEY UPDATE OF s, i));
    PERFORM billing.finalize_thresholds(crossed, start_billing_run.as_of);
    drafts := drafts || billing.close_thresholds(crossed, start_billing_run.as_of);
    INSERT INTO billing.billing_runs (id, as_of, started_at, updated_at, pid, made, total)
    SELECT run, start_billing_run.as_of, began, clock_timestamp(), pg_backend_pid(), cardinality(drafts),
           -- A period that ended long enough ago leaves a draft to finalize, too.
           (SELECT count(*) + count(*) FILTER (WHERE s.next_invoice_at <= ripe) + coalesce(sum(
                CASE WHEN n.period_end <= start_billing_run.as_of
                     THEN (SELECT count(*) + count(*) FILTER (WHERE l.at <= ripe)
                           FROM billing.later_period_ends(s, start_billing_run.as_of) l (at)) END), 0)
            FROM billing.subscriptions s CROSS JOIN LATERAL billing.subscription_period(s, s.current_period_end) n
            WHERE s.next_invoice_at <= start_billing_run.as_of)
           + (SELECT count(*) FROM billing.invoices i
              WHERE i.status = 'draft' AND i.auto_advance AND i.created <= ripe AND i.line_count > 0
                AND i.finalization_error IS NULL);
    RETURN run;
END $$;
COMMENT ON FUNCTION billing.start_billing_run(timestamptz, integer) IS
'The first transaction of billing.run_billing: folds usage, applies what is scheduled, bills thresholds, and notes the run.
Returns its id. Internal.';

CREATE FUNCTION billing.next_drafts(as_of timestamptz, batch_size integer) RETURNS text[]
-- However few drafts are thought to be there: to sort all that are left for each batch would take longer with each. That makes
-- the plan look dear, and compiling it would take longer than all of the batch.
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
SET enable_sort = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    ripe timestamptz := next_drafts.as_of - billing.setting_interval('finalization_delay');
BEGIN
    -- No lock is waited for, so their order does not matter. What waits for a correction is not left to do for a run.
    RETURN ARRAY(
        SELECT d.id FROM (
            SELECT * FROM (
                SELECT i.id, i.created, i.subscription
                FROM billing.invoices i JOIN billing.subscriptions s ON s.id = i.subscription
                WHERE i.status = 'draft' AND i.auto_advance AND i.created <= ripe AND i.finalization_error IS NULL
                ORDER BY i.created, i.subscription, i.id LIMIT next_drafts.batch_size
                FOR NO KEY UPDATE OF s, i SKIP LOCKED) x
            UNION ALL
            SELECT * FROM (
                SELECT i.id, i.created, i.subscription FROM billing.invoices i
                WHERE i.status = 'draft' AND i.auto_advance AND i.created <= ripe AND i.finalization_error IS NULL
                  AND i.subscription IS NULL AND i.line_count > 0
                ORDER BY i.created, i.id LIMIT next_drafts.batch_size
                FOR NO KEY UPDATE SKIP LOCKED) x) d
        ORDER BY d.created, d.subscription, d.id LIMIT next_drafts.batch_size);
END $$;
COMMENT ON FUNCTION billing.next_drafts(timestamptz, integer) IS
'Of the drafts that billing.drafts_due would return and no other session holds, the first batch_size in the order of
numbers, so that batches come to what one transaction does. Locks them and their subscriptions. Internal.';

CREATE FUNCTION billing.bill_batch(run text, batch_size integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    until timestamptz;
    subscriptions text[];
    missed text[];
    drafts text[] := '{}';
    crossed text[];
    due text[] := '{}';
    ripe timestamptz;
    foreseen bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(bill_batch.run, 0));
    SELECT r.as_of INTO until FROM billing.billing_runs r WHERE r.id = bill_batch.run;
    ripe := until - billing.setting_interval('finalization_delay');
    PERFORM billing.lock_usage();
    -- Of what was scheduled since the run began, the next one begins the phases, and ends the periods.
    missed := billing.missed_phases(until);
    subscriptions := ARRAY(
        SELECT s.id FROM billing.subscriptions s
        WHERE s.next_invoice_at <= until AND s.id <> ALL (missed)
          AND NOT EXISTS (SELECT FROM billing.due_before(s))  -- its turn comes, as in billing.make_drafts
        ORDER BY s.next_invoice_at, s.id LIMIT bill_batch.batch_size FOR NO KEY UPDATE SKIP LOCKED);
    missed := billing.missed_phases(until, subscriptions);
    IF missed <> '{}' THEN
        -- Until they were locked.
        subscriptions := ARRAY(SELECT unnest(subscriptions) EXCEPT SELECT unnest(missed) ORDER BY 1);
    END IF;
    IF subscriptions <> '{}' THEN
        SELECT count(*) INTO foreseen FROM billing.subscriptions s
        WHERE s.id = ANY (subscriptions) AND s.next_invoice_at <= ripe;
        drafts := billing.end_periods(subscriptions);
        IF foreseen > 0 THEN
            foreseen := foreseen - (
                SELECT count(*) FROM billing.invoices i
                WHERE i.id = ANY (drafts) AND i.created <= ripe AND i.auto_advance AND i.finalization_error IS NULL);
        END IF;
        crossed := billing.draft_thresholds(until, subscriptions);
        IF crossed <> '{}' THEN
            due := billing.finalize_thresholds(crossed, until);
            drafts := drafts || billing.close_thresholds(crossed, until);
        END IF;
    ELSIF missed = '{}' THEN
        due := billing.next_drafts(until, bill_batch.batch_size);
        PERFORM billing.rate_drafts(due);
        PERFORM billing.finalize_drafts(due);
        IF due = '{}' THEN
            PERFORM billing.expire_credits(until);
        END IF;
    END IF;
    UPDATE billing.billing_runs r
    SET done = r.done + cardinality(subscriptions) + cardinality(due), made = r.made + cardinality(drafts),
        finalized = r.finalized + cardinality(due), total = r.total - foreseen - cardinality(missed), updated_at = clock_timestamp(),
        finished_at = CASE WHEN subscriptions || missed || due = '{}' THEN clock_timestamp() END
    WHERE r.id = bill_batch.run;
    RETURN subscriptions || missed || due <> '{}';
END $$;
COMMENT ON FUNCTION billing.bill_batch(text, integer) IS
'One transaction of billing.run_billing: ends a period of at most batch_size subscriptions that no other session holds, or
finalizes so many drafts once no period is due. False: nothing was left, and the run is finished. Internal.';

-- Without a SET clause and not SECURITY DEFINER, or it could not commit; so everything is named in full.
CREATE PROCEDURE billing.run_billing(as_of timestamptz DEFAULT pg_catalog.now(), batch_size integer DEFAULT 1000)
LANGUAGE plpgsql AS $$
DECLARE
    run pg_catalog.text := billing.start_billing_run(as_of, batch_size);
    goes_on pg_catalog.bool;
BEGIN
    COMMIT;
    LOOP
        goes_on := billing.bill_batch(run, batch_size);
        COMMIT;
        EXIT WHEN NOT goes_on;
    END LOOP;
END $$;
COMMENT ON PROCEDURE billing.run_billing(timestamptz, integer) IS
'Does what billing.generate_invoices(as_of) does, batch_size subscriptions or drafts to a transaction, in the same order,
so that numbers and balances are the same. What is committed stays: after an error, a cancel or a crash call it again. Any
number of sessions may run it at once; each takes what no other holds, and numbers go by who is first.
billing.billing_progress shows how far they are. Not within a transaction block. Errors: 2D000 in one; 22004 NULL; 22023
as_of infinite, batch_size below 1.';
