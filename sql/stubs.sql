CREATE FUNCTION billing.pending_items(subscription billing.subscriptions, before timestamptz)
RETURNS TABLE (id text, created timestamptz, subscription_item text, price text, kind text, description text, quantity numeric, amount bigint, period_start timestamptz, period_end timestamptz, discountable boolean)
LANGUAGE sql STABLE AS $$
 SELECT x.id, x.created, x.subscription_item, x.price, CASE WHEN x.amount < 0 THEN 'unused_time' ELSE 'licensed' END, x.description, x.quantity, x.amount, x.period_start, x.period_end, false
 FROM billing.invoice_items x WHERE x.subscription = ($1).id AND x.cycle_start = ($1).current_period_start
$$;
CREATE FUNCTION billing.take_items(items text[], invoices text[]) RETURNS void LANGUAGE sql AS $$ SELECT $$;
CREATE FUNCTION billing.apply_due_changes(as_of timestamptz) RETURNS text[] LANGUAGE sql AS $$ SELECT '{}'::text[] $$;
