//! Credit grants: which pays first, and for what.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{AdjustedLine, Invoice, Line};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    pub id: String,
    /// Minor units that are left.
    pub balance: i64,
    /// Only lines of these prices; `None`: of all metered prices.
    pub prices: Option<Vec<String>>,
    /// 0 is used first.
    pub priority: i32,
    pub category: Category,
    pub effective_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub created: DateTime<Utc>,
}

/// In the order of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    Promotional,
    Paid,
}

impl Grant {
    /// Stripe's order of use. Ids decide at last, so that there is one order.
    fn before(&self, other: &Grant) -> Ordering {
        let expiry = |grant: &Grant| (grant.expires_at.is_none(), grant.expires_at);
        self.priority
            .cmp(&other.priority)
            .then_with(|| expiry(self).cmp(&expiry(other)))
            .then_with(|| self.category.cmp(&other.category))
            .then_with(|| self.effective_at.cmp(&other.effective_at))
            .then_with(|| self.created.cmp(&other.created))
            .then_with(|| self.id.cmp(&other.id))
    }

    fn pays_for(&self, line: &Line) -> bool {
        line.metered
            && self
                .prices
                .as_ref()
                .is_none_or(|prices| line.price.as_ref().is_some_and(|price| prices.contains(price)))
    }
}

/// Each grant pays line after line. What is corrected downwards on the same invoice needs no paying, and no more is paid than the
/// invoice comes to: credit does not turn into a balance of money.
pub(super) fn apply(invoice: &Invoice, lines: &mut [AdjustedLine]) {
    let mut grants: Vec<&Grant> = invoice.credit_grants.iter().collect();
    grants.sort_by(|a, b| a.before(b));
    let sum = |lines: &[AdjustedLine], of: &dyn Fn(&Line) -> bool| -> i128 {
        std::iter::zip(&invoice.lines, lines)
            .filter(|(line, _)| of(line))
            .map(|(_, adjusted)| i128::from(adjusted.rest))
            .sum()
    };
    for grant in grants {
        let mut room = i128::from(grant.balance)
            .min(sum(lines, &|line| grant.pays_for(line)))
            .min(sum(lines, &|_| true));
        for (line, adjusted) in std::iter::zip(&invoice.lines, lines.iter_mut()) {
            if adjusted.rest > 0 && room > 0 && grant.pays_for(line) {
                let paid = i64::try_from(room).unwrap_or(i64::MAX).min(adjusted.rest);
                room -= i128::from(paid);
                adjusted.pay(&grant.id, paid);
            }
        }
    }
}
