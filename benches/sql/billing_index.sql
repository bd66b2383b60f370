-- What billing_catalog.sql took off.
ALTER TABLE billing.usage_buckets
    ADD CONSTRAINT usage_buckets_pkey PRIMARY KEY (customer, event_name, width, start, dimensions);
