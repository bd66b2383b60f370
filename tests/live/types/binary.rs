//! Binary send and receive: parameters, results, COPY, and bytes that are no value.

use std::error::Error;
use std::io::{Read, Write};

use postgres::types::{FromSql, IsNull, ToSql, Type, private::BytesMut, to_sql_checked};

use super::{OBJECTS, database, truth};
use crate::refusal::Refusal;

/// A value in its binary form on the wire, whatever its type.
#[derive(Debug, PartialEq)]
struct Wire(Vec<u8>);

impl ToSql for Wire {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Wire {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn wire(version: u8, text: &[u8]) -> Wire {
    Wire([&[version], text].concat())
}

#[test]
fn binary_copy_brings_every_value_back() {
    let (_database, mut client) = database();
    client
        .batch_execute(
            "CREATE TABLE made (m billing.meter, p billing.price, s billing.subscription, ps billing.price[])",
        )
        .unwrap();
    let insert =
        "INSERT INTO made VALUES ($1::text::billing.meter, $2::text::billing.price, $3::text::billing.subscription,
                  ARRAY[$2::text::billing.price, NULL, $4::text::billing.price])";
    let [meter, price, tiered, subscription] = OBJECTS else {
        panic!("four objects")
    };
    client
        .execute(insert, &[&meter.1, &price.1, &subscription.1, &tiered.1])
        .unwrap();
    client
        .execute(insert, &[&None::<String>, &tiered.1, &subscription.1, &None::<String>])
        .unwrap();
    client.batch_execute("CREATE TABLE copied (LIKE made)").unwrap();
    for format in ["binary", "text", "csv"] {
        let mut copy = Vec::new();
        let out = format!("COPY made TO STDOUT (FORMAT {format})");
        client.copy_out(&out).unwrap().read_to_end(&mut copy).unwrap();
        client.batch_execute("TRUNCATE copied").unwrap();
        let mut writer = client
            .copy_in(&format!("COPY copied FROM STDIN (FORMAT {format})"))
            .unwrap();
        writer.write_all(&copy).unwrap();
        assert_eq!(writer.finish().unwrap(), 2);
        let same = "SELECT count(*) = 2 FROM made a JOIN copied b
                    ON (a.m, a.p, a.s, a.ps) IS NOT DISTINCT FROM (b.m, b.p, b.s, b.ps)";
        assert!(truth(&mut client, same), "{format}");
    }
}

#[test]
fn binary_parameters_and_results_are_a_version_byte_and_the_text() {
    let (_database, mut client) = database();
    for (name, input, expected) in OBJECTS {
        let sent = wire(1, input.as_bytes());
        let back: Wire = client
            .query_one(&format!("SELECT $1::billing.{name}"), &[&sent])
            .unwrap()
            .get(0);
        assert_eq!(back, wire(1, expected.as_bytes()));
    }
}

#[test]
fn broken_binary_values_are_clean_errors() {
    let (_database, mut client) = database();
    let cases: &[(Wire, &str, &str)] = &[
        (Wire(Vec::new()), "22P03", "empty"),
        (wire(0, b"{}"), "22P03", "version 0"),
        (wire(2, b"{}"), "22P03", "version 2"),
        (wire(1, b"\xff\xfe"), "22P03", "UTF-8"),
        (wire(1, b""), "22P02", "JSON"),
        (wire(1, b"{"), "22P02", "JSON"),
        (wire(1, b"{}\0"), "22P02", "JSON"),
        (wire(1, b"{} {}"), "22P02", "JSON"),
        (wire(1, b"[1]"), "22P02", "object"),
        (wire(1, b"{\"a\\u0000\":1}"), "22023", "u0000"),
        (wire(1, b"{\"no_such_field\":1}"), "22023", "no_such_field"),
    ];
    for name in ["meter", "price", "subscription"] {
        let sql = format!("SELECT $1::billing.{name}::text");
        for (sent, code, word) in cases {
            Refusal::of(&mut client, &sql, &[sent]).says(code, &[word]);
        }
    }
    // Noise from a fixed generator (Knuth's MMIX), after a good version byte every other time.
    let mut state = 42_u64;
    let mut byte = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for round in 0..300_usize {
        let mut noise: Vec<u8> = (0..round % 40).map(|_| byte()).collect();
        if round % 2 == 0 {
            noise.insert(0, 1);
        }
        let refusal = Refusal::of(&mut client, "SELECT $1::billing.price", &[&Wire(noise)]);
        assert!(["22P02", "22P03"].contains(&refusal.code.as_str()), "{refusal:?}");
    }
}

#[test]
fn forged_stored_bytes_are_clean_errors() {
    let (_database, mut client) = database();
    Refusal::of(&mut client, "SELECT '\\x0102'::bytea::billing.price", &[]).says("42846", &["cannot cast"]);
    // A superuser can make the way that is missing; then a broken value is an error, never a crash.
    client
        .batch_execute("CREATE CAST (bytea AS billing.price) WITHOUT FUNCTION")
        .unwrap();
    for use_of in [
        "$1::bytea::billing.price::text",
        "billing.price_amount($1::bytea::billing.price, 1)",
    ] {
        for bytes in [
            &b""[..],
            b"\x01",
            b"\x01\x02",
            b"\x02\x01",
            &[0xff; 100],
            &[0x01; 10_000],
        ] {
            Refusal::of(&mut client, &format!("SELECT {use_of}"), &[&bytes]).says("XX001", &["invalid stored price"]);
        }
    }
}
