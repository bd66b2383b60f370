//! A client that listens for alerts on a connection of its own, while another one imports.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{Context, Result};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use serde_json::Value;

use crate::screen::{Screen, grouped};

const GLANCE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

/// From its return on no alert is missed.
pub fn subscribe(mut client: Client) -> Result<Client> {
    client.batch_execute("LISTEN billing_alert")?;
    Ok(client)
}

/// Prints alerts as they come, until `stop` is set and all that were written have come.
pub fn listen(mut client: Client, stop: &AtomicBool, screen: &Screen) -> Result<Vec<Value>> {
    let mut heard = Vec::new();
    let mut deadline = None;
    loop {
        for notification in arrived(&mut client)? {
            let alert = serde_json::from_str(&notification).context(|| format!("no JSON: {notification}"))?;
            screen.line(&described(&alert));
            heard.push(alert);
        }
        if stop.load(Ordering::Relaxed) {
            let written: i64 = client
                .query_one("SELECT count(*) FROM billing.alert_events", &[])?
                .get(0);
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            // Of those that stay away the check speaks.
            if heard.len() as i64 >= written || Instant::now() > deadline {
                return Ok(heard);
            }
        }
    }
}

/// What comes until nothing has for a moment.
fn arrived(client: &mut Client) -> Result<Vec<String>> {
    let mut notifications = client.notifications();
    let arriving = notifications.timeout_iter(GLANCE);
    let payloads = arriving.map(|notification| Ok(notification.payload().to_owned()));
    Ok(payloads.collect()?)
}

fn described(alert: &Value) -> String {
    let text = |field: &str| alert[field].as_str().unwrap_or_default();
    let since = match alert["period_start"].as_str() {
        Some(start) => format!("since {}", start.get(..10).unwrap_or(start)),
        None => "in all".to_owned(),
    };
    let value = text("value").parse().map_or_else(|_| text("value").to_owned(), grouped);
    format!("  alert  {}  {}: {value} {since}", text("customer"), text("title"))
}
