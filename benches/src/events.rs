//! Made-up events, in the forms in which they are sent, all encoded before a clock starts.

use std::fmt::Write as _;
use std::io::Write as _;

use bytes::{BufMut, BytesMut};
use chrono::{DateTime, TimeDelta, Utc};
use harness::{Context, Error, Result};
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Statement};
use serde_json::json;
use uuid::Uuid;

pub const METER: &str = "api_calls";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identifiers {
    Random,
    /// UUIDv7, which begin with the time
    Ordered,
    /// none: the extension makes them
    Generated,
}

/// Events of 10,000 customers within the last hour.
#[derive(Debug, Default)]
pub struct Events {
    customers: Vec<String>,
    values: Vec<Whole>,
    identifiers: Vec<String>,
    timestamps: Vec<DateTime<Utc>>,
}

impl Events {
    pub fn random(count: usize, identifiers: Identifiers) -> Self {
        let now = Utc::now();
        let identifier = || match identifiers {
            Identifiers::Random => Some(Uuid::new_v4().to_string()),
            Identifiers::Ordered => Some(Uuid::now_v7().to_string()),
            Identifiers::Generated => None,
        };
        Self {
            customers: (0..count)
                .map(|_| format!("cus_{}", fastrand::u32(10_000..20_000)))
                .collect(),
            values: (0..count).map(|_| Whole(fastrand::i16(1..=100))).collect(),
            identifiers: (0..count).filter_map(|_| identifier()).collect(),
            timestamps: (0..count)
                .map(|_| now - TimeDelta::microseconds(fastrand::i64(0..3_600_000_000)))
                .collect(),
        }
    }

    /// The rows for COPY of [`Events::COLUMNS`].
    pub fn rows(&self) -> Vec<u8> {
        let mut text = String::new();
        let columns = self
            .customers
            .iter()
            .zip(&self.identifiers)
            .zip(&self.values)
            .zip(&self.timestamps);
        for (((customer, identifier), value), timestamp) in columns {
            let at = timestamp.format("%Y-%m-%d %H:%M:%S%.6f+00");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{customer}\t{METER}\t{identifier}\t{}\t{at}", value.0);
        }
        text.into_bytes()
    }

    pub const COLUMNS: &str = r#"customer, event_name, identifier, value, "timestamp""#;

    pub fn arrays(&self) -> Result<Vec<Encoded>> {
        let names = vec![METER; self.customers.len()];
        let identifiers = (!self.identifiers.is_empty()).then_some(&self.identifiers);
        Ok(vec![
            Encoded::of(&names, &Type::TEXT_ARRAY)?,
            Encoded::of(&self.customers, &Type::TEXT_ARRAY)?,
            Encoded::of(&self.values, &Type::NUMERIC_ARRAY)?,
            Encoded::of(&identifiers, &Type::TEXT_ARRAY)?,
            Encoded::of(&self.timestamps, &Type::TIMESTAMPTZ_ARRAY)?,
        ])
    }

    /// An array of the event objects that Stripe's API takes.
    pub fn json(&self) -> Result<Vec<Encoded>> {
        let columns = self
            .customers
            .iter()
            .zip(&self.identifiers)
            .zip(&self.values)
            .zip(&self.timestamps);
        let events: serde_json::Value = columns
            .map(|(((customer, identifier), value), timestamp)| {
                json!({
                    "event_name": METER,
                    "payload": {"customer": customer, "value": value.0.to_string()},
                    "identifier": identifier,
                    "timestamp": timestamp.timestamp(),
                })
            })
            .collect();
        Ok(vec![Encoded::of(&events, &Type::JSONB)?])
    }
}

/// A number from 1 to 9999, which is one digit of PostgreSQL's numeric. Sent as such, so that no cast is measured.
#[derive(Debug)]
struct Whole(i16);

impl ToSql for Whole {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let (digits, weight, sign, scale) = (1, 0, 0, 0);
        for part in [digits, weight, sign, scale, self.0] {
            out.put_i16(part);
        }
        Ok(IsNull::No)
    }

    fn accepts(of_type: &Type) -> bool {
        *of_type == Type::NUMERIC
    }

    to_sql_checked!();
}

/// A parameter as it goes over the wire.
#[derive(Debug)]
pub struct Encoded(Option<BytesMut>);

impl Encoded {
    fn of(value: &impl ToSql, of_type: &Type) -> Result<Self> {
        let mut bytes = BytesMut::new();
        let is_null = value
            .to_sql(of_type, &mut bytes)
            .context(|| format!("cannot encode a {of_type}"))?;
        Ok(Self(matches!(is_null, IsNull::No).then_some(bytes)))
    }
}

impl ToSql for Encoded {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(bytes) = &self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A prepared call of billing.record_meter_events().
pub struct Recording(Statement);

impl Recording {
    pub fn of_arrays(client: &mut Client) -> Result<Self> {
        let types = [
            Type::TEXT_ARRAY,
            Type::TEXT_ARRAY,
            Type::NUMERIC_ARRAY,
            Type::TEXT_ARRAY,
            Type::TIMESTAMPTZ_ARRAY,
        ];
        Ok(Self(client.prepare_typed(
            "SELECT recorded FROM billing.record_meter_events($1, $2, $3, $4, $5)",
            &types,
        )?))
    }

    pub fn of_json(client: &mut Client) -> Result<Self> {
        Ok(Self(client.prepare_typed(
            "SELECT recorded FROM billing.record_meter_events($1)",
            &[Type::JSONB],
        )?))
    }

    /// One call in a transaction of its own, of which every event must be recorded.
    pub fn call(&self, client: &mut Client, events: &[Encoded], count: usize) -> Result<()> {
        let parameters: Vec<&(dyn ToSql + Sync)> = events.iter().map(|encoded| encoded as _).collect();
        let recorded: i64 = client.query_one(&self.0, &parameters)?.get(0);
        match usize::try_from(recorded) {
            Ok(recorded) if recorded == count => Ok(()),
            _ => Err(Error::new(format!("of {count} new events {recorded} were recorded"))),
        }
    }
}

/// One COPY in a transaction of its own.
pub fn copy(client: &mut Client, rows: &[u8]) -> Result<()> {
    // As psql does, so that the server works while more is on the way.
    const CHUNK: usize = 64 * 1024;
    let failed = || "COPY failed".to_owned();
    let mut writer = client.copy_in(&format!("COPY plain.meter_events ({}) FROM STDIN", Events::COLUMNS))?;
    for chunk in rows.chunks(CHUNK) {
        writer.write_all(chunk).context(failed)?;
        writer.flush().context(failed)?;
    }
    writer.finish()?;
    Ok(())
}
