//! The prices of the histories, for the database and, in integers, for the model.

/// The meter of a price: its name is that of its aggregation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Sum,
    Count,
    Max,
    Last,
}

impl Source {
    pub const ALL: [Source; 4] = [Source::Sum, Source::Count, Source::Max, Source::Last];

    pub fn name(self) -> &'static str {
        match self {
            Source::Sum => "sum",
            Source::Count => "count",
            Source::Max => "max",
            Source::Last => "last",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interval {
    Month,
    Week,
    TenDays,
}

pub struct Tier {
    /// Whole units; the last tier has no end.
    pub up_to: i64,
    pub hundredths: i64,
    pub flat: i64,
}

/// Unit prices are in hundredths of a cent, other amounts in cents.
pub enum Terms {
    PerUnit { hundredths: i64 },
    Package { units: i64, cents: i64 },
    Graduated(&'static [Tier]),
    Volume(&'static [Tier]),
}

pub struct Price {
    pub name: &'static str,
    pub interval: Interval,
    /// `None`: licensed.
    pub source: Option<Source>,
    pub terms: Terms,
    pub minimum: Option<i64>,
    pub maximum: Option<i64>,
}

const STEEP: &[Tier] = &[tier(20, 150, 9), tier(i64::MAX, 70, 4)];
const FALLING: &[Tier] = &[tier(10, 300, 0), tier(45, 120, 5), tier(i64::MAX, 30, 0)];

const fn tier(up_to: i64, hundredths: i64, flat: i64) -> Tier {
    Tier {
        up_to,
        hundredths,
        flat,
    }
}

const fn of(name: &'static str, interval: Interval, source: Option<Source>, terms: Terms) -> Price {
    Price {
        name,
        interval,
        source,
        terms,
        minimum: None,
        maximum: None,
    }
}

const fn all_of(interval: Interval) -> [Price; 7] {
    [
        of("seat", interval, None, Terms::PerUnit { hundredths: 33_333 }),
        of("team", interval, None, Terms::Volume(FALLING)),
        of("graduated", interval, Some(Source::Sum), Terms::Graduated(STEEP)),
        of("volume", interval, Some(Source::Sum), Terms::Volume(FALLING)),
        of(
            "package",
            interval,
            Some(Source::Count),
            Terms::Package { units: 4, cents: 41 },
        ),
        Price {
            maximum: Some(450),
            ..of("peak", interval, Some(Source::Max), Terms::PerUnit { hundredths: 1225 })
        },
        Price {
            minimum: Some(15),
            ..of(
                "latest",
                interval,
                Some(Source::Last),
                Terms::PerUnit { hundredths: 175 },
            )
        },
    ]
}

static MONTH: [Price; 7] = all_of(Interval::Month);
static WEEK: [Price; 7] = all_of(Interval::Week);
static TEN_DAYS: [Price; 7] = all_of(Interval::TenDays);

/// Every price of every interval.
pub fn all() -> impl Iterator<Item = &'static Price> {
    MONTH.iter().chain(&WEEK).chain(&TEN_DAYS)
}

impl Price {
    pub fn id(&self) -> String {
        format!("{:?} {}", self.interval, self.name)
    }

    /// What a quantity costs, in thousandths of a cent: a quantity has tenths, a unit price hundredths.
    pub fn thousandths(&self, tenths: i64) -> i128 {
        let units =
            |tenths: i64, tier: &Tier| i128::from(tenths) * i128::from(tier.hundredths) + i128::from(tier.flat) * 1000;
        let amount = match &self.terms {
            Terms::PerUnit { hundredths } => i128::from(tenths) * i128::from(*hundredths),
            Terms::Package { units, cents } => {
                let packages = (tenths + units * 10 - 1) / (units * 10);
                i128::from(packages) * i128::from(*cents) * 1000
            }
            Terms::Graduated(tiers) => {
                let mut from = 0;
                let mut sum = 0;
                for tier in *tiers {
                    let up_to = tier.up_to.saturating_mul(10);
                    sum += units(tenths.min(up_to) - from, tier);
                    from = up_to;
                    if tenths <= up_to {
                        break;
                    }
                }
                sum
            }
            Terms::Volume(tiers) => tiers
                .iter()
                .find(|tier| tenths <= tier.up_to.saturating_mul(10))
                .map_or(0, |tier| units(tenths, tier)),
        };
        let least = self.minimum.map_or(0, |cents| i128::from(cents) * 1000);
        let most = self.maximum.map_or(i128::MAX, |cents| i128::from(cents) * 1000);
        amount.max(least).min(most)
    }

    pub fn definition(&self) -> String {
        let unit = |hundredths: i64| {
            format!(
                r#""unit_amount_decimal": "{}.{:02}""#,
                hundredths / 100,
                hundredths % 100
            )
        };
        let tiers = |mode: &str, tiers: &[Tier]| {
            let tiers: Vec<String> = tiers
                .iter()
                .map(|tier| {
                    let up_to = match tier.up_to {
                        i64::MAX => "\"inf\"".to_owned(),
                        up_to => up_to.to_string(),
                    };
                    format!(
                        r#"{{"up_to": {up_to}, {}, "flat_amount": {}}}"#,
                        unit(tier.hundredths),
                        tier.flat
                    )
                })
                .collect();
            format!(
                r#""billing_scheme": "tiered", "tiers_mode": "{mode}", "tiers": [{}]"#,
                tiers.join(", ")
            )
        };
        let terms = match &self.terms {
            Terms::PerUnit { hundredths } => unit(*hundredths),
            Terms::Package { units, cents } => {
                format!(r#""unit_amount": {cents}, "transform_quantity": {{"divide_by": {units}, "round": "up"}}"#)
            }
            Terms::Graduated(of) => tiers("graduated", of),
            Terms::Volume(of) => tiers("volume", of),
        };
        let (interval, count) = match self.interval {
            Interval::Month => ("month", 1),
            Interval::Week => ("week", 1),
            Interval::TenDays => ("day", 10),
        };
        let usage = self.source.map_or(String::new(), |source| {
            format!(r#", "usage_type": "metered", "meter": "{}""#, source.name())
        });
        let bound =
            |name: &str, cents: Option<i64>| cents.map_or(String::new(), |cents| format!(r#", "{name}": {cents}"#));
        format!(
            r#"{{"currency": "usd", {terms}{}{}, "recurring": {{"interval": "{interval}", "interval_count": {count}{usage}}}}}"#,
            bound("minimum_amount", self.minimum),
            bound("maximum_amount", self.maximum)
        )
    }
}
