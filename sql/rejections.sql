-- Events of a batch that were refused, kept whole beside the good ones.
CREATE TABLE billing.meter_event_rejections (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    event jsonb NOT NULL,
    error_code text NOT NULL,
    error_message text NOT NULL
);

COMMENT ON TABLE billing.meter_event_rejections IS
    'Events that billing.record_meter_events() refused. Nothing is lost: mend the event, or what it lacked, and send it again. They
stay until somebody deletes them.';
COMMENT ON COLUMN billing.meter_event_rejections.id IS 'Ascending; may have gaps.';
COMMENT ON COLUMN billing.meter_event_rejections.received_at IS 'When it was refused (wall clock).';
COMMENT ON COLUMN billing.meter_event_rejections.event IS 'The event as it was sent, or, of arrays, as it would be sent as JSON.';
COMMENT ON COLUMN billing.meter_event_rejections.error_code IS 'Stripe''s code where Stripe has one, such as meter_event_customer_not_found.';
COMMENT ON COLUMN billing.meter_event_rejections.error_message IS 'What was wrong, with the offending value.';
SELECT pg_catalog.pg_extension_config_dump('billing.meter_event_rejections', '');
SELECT pg_catalog.pg_extension_config_dump('billing.meter_event_rejections_id_seq', '');
