-- As before the month was invoiced. Finalized invoices are never deleted, so their triggers are passed over.
SET session_replication_role = replica;
TRUNCATE billing.invoices, billing.invoice_lines, billing.invoice_numbers, billing.billing_runs CASCADE;
UPDATE billing.subscriptions SET current_period_start = '{start}', current_period_end = '{end}', next_invoice_at = '{end}'
WHERE current_period_start <> '{start}';
RESET session_replication_role;
