//! Money, tiers and packages.
