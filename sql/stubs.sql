CREATE FUNCTION billing.apply_due_changes(as_of timestamptz) RETURNS text[] LANGUAGE sql AS $$ SELECT '{}'::text[] $$;
