CREATE FUNCTION billing.adjust_drafts(invoices text[]) RETURNS void LANGUAGE sql AS $$ SELECT $$;
COMMENT ON FUNCTION billing.adjust_drafts(text[]) IS 'stub';
CREATE FUNCTION billing.price_in_currency(price billing.price, currency text) RETURNS billing.price LANGUAGE sql IMMUTABLE AS $$ SELECT $1 $$;
COMMENT ON FUNCTION billing.price_in_currency(billing.price, text) IS 'stub';
