-- How sessions that keep rows in memory (src/pg/catalog.rs) hear that these have changed.

CREATE FUNCTION billing.announce_relation_change(relation regclass) RETURNS void
    AS 'MODULE_PATHNAME', 'announce_change_wrapper' LANGUAGE c VOLATILE STRICT;
COMMENT ON FUNCTION billing.announce_relation_change(regclass) IS
    'Has every session look up again what it keeps of the relation: this one now, the others once the transaction commits. Internal.';

CREATE FUNCTION billing.announce_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM billing.announce_relation_change(TG_RELID);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION billing.announce_change() IS
'Trigger: announces a change of the rows of a table that recording keeps in memory. Always enabled, because a
replicated change is a change too. Internal.';
