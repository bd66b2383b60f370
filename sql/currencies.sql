-- What holds of a currency. One that has no row has no minimum charge.

CREATE TABLE billing.currencies (
    currency text PRIMARY KEY CONSTRAINT currencies_currency_form CHECK (currency ~ '^[a-z]{3}$'),
    minimum_charge bigint NOT NULL DEFAULT 0
        CONSTRAINT currencies_minimum_charge_positive CHECK (minimum_charge >= 0)
);
COMMENT ON TABLE billing.currencies IS
'What holds of a currency. Rows may be inserted and updated directly; a currency needs none.';
COMMENT ON COLUMN billing.currencies.currency IS 'ISO 4217 code in lower case.';
COMMENT ON COLUMN billing.currencies.minimum_charge IS
'The least amount worth collecting, in minor units (Stripe''s for usd is 50). An invoice that asks for less is paid at
finalization, and the next one asks for its amount too. 0: none.';
SELECT pg_catalog.pg_extension_config_dump('billing.currencies', '');
