-- The schema and the three roles.

-- Texts are handed to Rust as they are, and Rust's texts are UTF-8. SQL_ASCII, which initdb picks without a locale, takes any bytes:
-- there each text is checked when it comes.
DO $$ BEGIN
    IF pg_catalog.getdatabaseencoding() NOT IN ('UTF8', 'SQL_ASCII') THEN
        RAISE EXCEPTION 'pg_billing needs a database with the encoding UTF8, and this one has %', pg_catalog.getdatabaseencoding()
            USING ERRCODE = 'feature_not_supported', HINT = 'CREATE DATABASE ... TEMPLATE template0 ENCODING ''UTF8''.';
    END IF;
END $$;

-- Whoever may create in this schema can put a function beside one of these that fits a call better, and what stands here runs as
-- a superuser. CREATE EXTENSION takes a schema that exists as it is.
DO $$
DECLARE
    stranger text;
BEGIN
    SELECT coalesce(r.rolname, 'PUBLIC') INTO stranger
    FROM pg_catalog.pg_namespace n
    CROSS JOIN LATERAL (
        SELECT n.nspowner UNION ALL
        SELECT a.grantee FROM pg_catalog.aclexplode(n.nspacl) a WHERE a.privilege_type = 'CREATE'
    ) may_create (role)
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = may_create.role
    WHERE n.nspname = 'billing' AND r.rolsuper IS NOT TRUE
    LIMIT 1;
    IF stranger IS NOT NULL THEN
        RAISE EXCEPTION 'schema "billing" exists, and % may create objects in it', stranger
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Drop or rename it: the extension makes its own.';
    ELSIF EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'billing'::pg_catalog.regnamespace)
          OR EXISTS (SELECT FROM pg_catalog.pg_operator o WHERE o.oprnamespace = 'billing'::pg_catalog.regnamespace) THEN
        RAISE EXCEPTION 'schema "billing" holds functions or operators already'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Move them to another schema, or drop them.';
    END IF;
END $$;

COMMENT ON SCHEMA billing IS
    'pg_billing: usage-based billing. ingest -> meter_events + usage_pending -> usage_buckets -> summaries, rating -> invoices.';

-- Roles belong to the whole cluster, so another database may have made them already, and DROP EXTENSION leaves them.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['billing_recorder', 'billing_reader', 'billing_admin'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database was faster
            END;
        END IF;
    END LOOP;
END $$;

-- CREATE ROLE stands in no database, so these comments are set anew by every database that installs the extension.
COMMENT ON ROLE billing_recorder IS 'pg_billing: may record and cancel meter events, and read nothing.';
COMMENT ON ROLE billing_reader IS 'pg_billing: may read every table and summary and preview invoices, and change nothing.';
COMMENT ON ROLE billing_admin IS 'pg_billing: may record, read, keep the catalog, bill, and loosen limits for an import.';
GRANT billing_recorder, billing_reader TO billing_admin;
