-- As before the month was invoiced, with the other side's invoices kept for comparison. Finalized ones are never deleted, so
-- the triggers are passed over.
SET session_replication_role = replica;
TRUNCATE {schema}.invoices, {schema}.invoice_lines CASCADE;
UPDATE billing.subscriptions SET current_period_start = '{start}', current_period_end = '{end}', next_invoice_at = '{end}'
WHERE current_period_start <> '{start}';
RESET session_replication_role;
