//! Seven meters without dimensions and seven with two, and the functions that count events for the readers.

use postgres::Client;
use serde_json::json;

use crate::error::Result;

/// Every aggregation.
pub const FORMULAS: [&str; 7] = ["sum", "count", "last", "max", "min", "unique_count", "weighted_sum"];
pub const METERS: usize = 14;
pub const CUSTOMERS: [&str; 6] = ["acme", "zeta", "c-3", "c-4", "Ünï", "c 'quoted\""];

pub fn formula(meter: usize) -> &'static str {
    FORMULAS[meter % FORMULAS.len()]
}

/// The keys by which the meter's usage is split.
pub fn declared(meter: usize) -> &'static [&'static str] {
    if meter < FORMULAS.len() {
        &[]
    } else {
        &["region", "tier"]
    }
}

pub fn name(meter: usize) -> String {
    format!("{}_{}", formula(meter), declared(meter).len())
}

/// What a meter of `unique_count` counts is the payload's `seat`.
pub fn definition(meter: usize) -> String {
    let mut definition = json!({
        "display_name": name(meter),
        "event_name": name(meter),
        "default_aggregation": {"formula": formula(meter)},
    });
    if !declared(meter).is_empty() {
        definition["dimension_payload_keys"] = json!(declared(meter));
    }
    if formula(meter) == "unique_count" {
        definition["value_settings"] = json!({"event_payload_key": "seat"});
    }
    definition.to_string()
}

/// Dynamic SQL is planned when it runs, after the statement that calls it has its snapshot: a plan made before would leave out a
/// partition that was attached in between. STABLE, so that it counts in that same snapshot.
const FUNCTIONS: &str = r#"
CREATE SCHEMA exactness;

CREATE FUNCTION exactness.recount(event_name text, customer text, formula text, bounds timestamptz[], filter jsonb)
RETURNS TABLE (window_no int, events bigint, value numeric) LANGUAGE plpgsql STABLE SET jit = off AS $$
DECLARE
    aggregate text := CASE formula
        WHEN 'sum' THEN 'coalesce(sum(e.value), 0)'
        WHEN 'count' THEN 'count(e.value)::numeric'
        WHEN 'unique_count' THEN 'count(DISTINCT e.dimensions ->> ''seat'')::numeric'
        WHEN 'max' THEN 'max(e.value)'
        WHEN 'min' THEN 'min(e.value)'
        WHEN 'last' THEN
            '(array_agg(e.value ORDER BY e."timestamp" DESC, e.received_at DESC, e.identifier DESC)
              FILTER (WHERE e.value IS NOT NULL))[1]'
        -- Each change counts from its moment, or from the start of the window, to the window's end.
        WHEN 'weighted_sum' THEN
            'round(round(sum(e.value * (extract(epoch FROM w.until) - extract(epoch FROM greatest(e."timestamp", w.since)))), 40)
                   / (extract(epoch FROM w.until) - extract(epoch FROM w.since)), 20)'
    END;
BEGIN
    RETURN QUERY EXECUTE format(
        'WITH e AS MATERIALIZED (
             SELECT e.value, e."timestamp", e.received_at, e.identifier, e.dimensions FROM billing.meter_events e
             WHERE e.customer = $1 AND e.event_name = $2 AND e.cancelled_at IS NULL AND e."timestamp" < $3[cardinality($3)]
               AND (%L = ''weighted_sum'' OR e."timestamp" >= $3[1]) AND ($4 IS NULL OR e.dimensions @> $4)
         )
         SELECT w.n, count(e.value), %s
         FROM (SELECT n, $3[n] AS since, $3[n + 1] AS until FROM generate_series(1, cardinality($3) - 1) n) w
         LEFT JOIN e ON %s
         GROUP BY w.n, w.since, w.until', formula, aggregate,
        CASE formula WHEN 'weighted_sum' THEN 'e."timestamp" < w.until' ELSE 'width_bucket(e."timestamp", $3) = w.n' END)
    USING customer, event_name, bounds, filter;
END $$;

-- Each event in a block of its own, which is undone where it is not to be kept.
CREATE FUNCTION exactness.record_in_blocks(
    event_names text[], customers text[], "values" numeric[], identifiers text[], timestamps timestamptz[],
    dimensions jsonb[], keep boolean[]
) RETURNS boolean[] LANGUAGE plpgsql AS $$
DECLARE
    answers boolean[] := '{}';
    answer boolean;
BEGIN
    FOR n IN 1 .. cardinality(event_names) LOOP
        BEGIN
            answer := billing.record_meter_event(
                event_names[n], customers[n], "values"[n], identifiers[n], timestamps[n], dimensions[n]);
            IF NOT keep[n] THEN
                RAISE EXCEPTION 'not kept' USING ERRCODE = 'XX999';
            END IF;
        EXCEPTION WHEN SQLSTATE 'XX999' THEN
            answer := NULL;
        END;
        answers := answers || answer;
    END LOOP;
    RETURN answers;
END $$;
"#;

/// Customers, meters and the functions above.
pub fn create(client: &mut Client) -> Result<()> {
    for customer in CUSTOMERS {
        client.execute("SELECT billing.create_customer($1)", &[&customer])?;
    }
    for meter in 0..METERS {
        let create = "SELECT billing.create_meter($1::text::billing.meter)";
        client.execute(create, &[&definition(meter)])?;
    }
    client.batch_execute(FUNCTIONS)?;
    Ok(())
}
