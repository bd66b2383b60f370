-- What the background worker runs, and what became of it.
CREATE TABLE billing.worker_jobs (
    job text COLLATE "C" PRIMARY KEY,
    last_run timestamptz,
    last_change timestamptz,
    last_failure timestamptz,
    last_error text,
    failing boolean NOT NULL DEFAULT false
);

COMMENT ON TABLE billing.worker_jobs IS
    'The worker''s jobs. Written when a job changed something, failed or recovered, and otherwise at most once a minute.';
COMMENT ON COLUMN billing.worker_jobs.job IS 'roll_up or maintain_partitions.';
COMMENT ON COLUMN billing.worker_jobs.last_run IS 'When it last ended, to within a minute.';
COMMENT ON COLUMN billing.worker_jobs.last_change IS 'When it last had something to do.';
COMMENT ON COLUMN billing.worker_jobs.last_failure IS 'When it last failed; NULL: never.';
COMMENT ON COLUMN billing.worker_jobs.last_error IS 'SQLSTATE and message of the last failure.';
COMMENT ON COLUMN billing.worker_jobs.failing IS 'Whether the last run failed.';

-- Shorter than deadlock_timeout: where a job and DROP EXTENSION wait for each other, the job gives way.
CREATE FUNCTION billing.run_job(job text) RETURNS bigint
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms'
AS $$
DECLARE
    changed bigint;
    failure text;
BEGIN
    BEGIN
        CASE job
            WHEN 'roll_up' THEN changed := billing.roll_up();
            WHEN 'maintain_partitions' THEN changed := billing.maintain_partitions();
            ELSE RAISE EXCEPTION 'unknown job "%"', job
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Jobs are roll_up and maintain_partitions.';
        END CASE;
    EXCEPTION
    WHEN lock_not_available THEN
        RETURN 0; -- somebody else is at it: the next run tries again
    WHEN OTHERS THEN
        failure := format('%s: %s', SQLSTATE, SQLERRM);
        RAISE WARNING 'pg_billing job % failed: %', job, failure;
    END;
    INSERT INTO billing.worker_jobs AS j (job, last_run, last_change, last_failure, last_error, failing)
    SELECT run_job.job, clock_timestamp(), CASE WHEN changed > 0 THEN clock_timestamp() END,
           CASE WHEN failure IS NOT NULL THEN clock_timestamp() END, failure, failure IS NOT NULL
    WHERE changed > 0 OR failure IS NOT NULL
       OR NOT EXISTS (SELECT FROM billing.worker_jobs q
                      WHERE q.job = run_job.job AND NOT q.failing AND q.last_run > clock_timestamp() - interval '1 minute')
    ON CONFLICT ON CONSTRAINT worker_jobs_pkey DO UPDATE SET
        last_run = excluded.last_run,
        last_change = coalesce(excluded.last_change, j.last_change),
        last_failure = coalesce(excluded.last_failure, j.last_failure),
        last_error = coalesce(excluded.last_error, j.last_error),
        failing = excluded.failing;
    RETURN changed;
END $$;
COMMENT ON FUNCTION billing.run_job(text) IS
    'Runs a job of the worker, and keeps a failure in billing.worker_jobs instead of raising it. Returns what the job changed; '
    '0 too when another session holds a lock that the job needs for more than half a second; NULL: it failed.';

CREATE FUNCTION billing.start_worker() RETURNS void
    AS 'MODULE_PATHNAME', 'start_worker_wrapper' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION billing.start_worker() IS
    'Starts this database''s background worker when the transaction commits, unless it lives or billing.worker is off. Recording '
    'does it too. CREATE EXTENSION does not: a restore begins with it, and a worker must find the data whole.';
