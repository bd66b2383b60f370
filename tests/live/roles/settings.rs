//! Who may loosen the limits.

use super::{CATALOG, database, login, strings};
use crate::refusal::Refusal;

/// Settings that billing_admin may change in a session. Nobody else may change any.
const SET_BY_ADMIN: &[&str] = &[
    "billing.filter_memory",
    "billing.finalization_delay",
    "billing.identifier_window",
    "billing.invoice_numbering",
    "billing.late_usage",
    "billing.max_event_age",
    "billing.max_event_lead",
    "billing.partition_width",
];

#[test]
fn limits_are_loosened_by_admins_only() {
    let (database, mut owner) = database();
    owner.batch_execute(CATALOG).unwrap();
    let settings = strings(&mut owner, "SELECT name FROM pg_settings WHERE name LIKE 'billing.%'");
    assert!(settings.len() >= SET_BY_ADMIN.len(), "{settings:?}");
    let roles = [
        ("stranger", ""),
        ("recorder", "billing_recorder"),
        ("reader", "billing_reader"),
        ("admin", "billing_admin"),
    ];
    for (name, group) in roles {
        let mut client = database.connect_as(&login(&database, name, group)).unwrap();
        client
            .batch_execute("SELECT billing.setting_interval('retention')")
            .unwrap();
        for setting in &settings {
            let set = client.batch_execute(&format!("SET {setting} TO DEFAULT"));
            let allowed = name == "admin" && SET_BY_ADMIN.contains(&setting.as_str());
            let code = set
                .err()
                .map(|error| error.as_db_error().unwrap().code().code().to_owned());
            match code.as_deref() {
                None => assert!(allowed, "{name} may set {setting}"),
                // 55P02: of no session at all
                Some(code) => assert!(
                    !allowed && ["42501", "55P02"].contains(&code),
                    "{name} {setting}: {code}"
                ),
            }
        }
    }
    // Before the library is loaded any session may write down any setting; what it wrote must not count.
    let recorder = login(&database, "sly", "billing_recorder");
    let old = "SELECT billing.record_meter_event('calls', 'c', 1, NULL, now() - interval '100 days')";
    let mut early = database.connect_as(&recorder).unwrap();
    early
        .batch_execute("SET billing.max_event_age = -1")
        .unwrap_or_default();
    Refusal::of(&mut early, old, &[]).says("22023", &["(timestamp_too_far_in_past)"]);
    let mut config = database.config();
    let mut started = config
        .user(&recorder)
        .options("-c billing.max_event_age=-1")
        .connect(postgres::NoTls)
        .unwrap();
    Refusal::of(&mut started, old, &[]).says("22023", &["(timestamp_too_far_in_past)"]);
    Refusal::of(
        &mut started,
        &format!("ALTER ROLE {recorder} SET billing.max_event_age = -1"),
        &[],
    )
    .says("42501", &[]);
}
