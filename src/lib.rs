pub mod calendar;
pub mod pricing;
pub mod types;
