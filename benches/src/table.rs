//! The tables that people read: each case on the terminal as it ends, and all ratios of a run as Markdown.

use std::fmt::Write as _;

use crate::report::{Case, Ratio, Report, Unit};

pub fn of_case(case: &Case) -> String {
    let mut text = format!("\n{}: {}\n", case.row, case.case);
    for contender in &case.contenders {
        let figure = shown(case.unit, contender.median);
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            text,
            "    {:<36} {figure:>16}  ±{:.1} %",
            contender.contender, contender.spread_percent
        );
    }
    for ratio in &case.ratios {
        let between = format!("{} : {}", ratio.of, ratio.to);
        let _ = writeln!(
            text,
            "  {between:<60} {:>6.2}  ({:.2} to {:.2}){}",
            ratio.median,
            ratio.least,
            ratio.greatest,
            verdict(ratio)
        );
    }
    text
}

fn verdict(ratio: &Ratio) -> String {
    let said = |word: &str, bound: Option<f64>, met: Option<bool>| match (bound, met) {
        (Some(bound), Some(met)) => {
            let verdict = if met { "met" } else { "MISSED" };
            format!("  {word} {} {bound}: {verdict}", ratio.target.sign())
        }
        _ => String::new(),
    };
    said("must", ratio.target.must, ratio.must_met) + &said("aim", ratio.target.aim, ratio.aim_met)
}

/// A line for each ratio, a column for each server.
pub fn of_report(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "{}, commit {}, {} cores of {}, {} GiB, Linux {}. Medians of {} rounds{}; in parentheses the least and the greatest.\n\n",
        report.date,
        report.commit,
        machine.cores,
        machine.cpu,
        machine.memory_gib,
        machine.kernel,
        report.rounds,
        if report.quick { ", **of a quick run**" } else { "" }
    );
    let versions: String = report
        .servers
        .iter()
        .map(|server| format!(" {} |", server.postgresql))
        .collect();
    let _ = writeln!(text, "| row | case | ratio |{versions} must | aim |");
    let _ = writeln!(text, "|---|---|---|{}---|---|", "---|".repeat(report.servers.len()));
    let Some((first, others)) = report.servers.split_first() else {
        return text;
    };
    for case in &first.cases {
        for ratio in &case.ratios {
            let _ = write!(
                text,
                "| {} | {} | {} : {} | {} |",
                case.row,
                case.case,
                ratio.of,
                ratio.to,
                cell(ratio)
            );
            for server in others {
                let same = server
                    .cases
                    .iter()
                    .find(|other| (other.row, &other.case) == (case.row, &case.case));
                let same = same.and_then(|other| other.ratios.iter().find(|r| (r.of, r.to) == (ratio.of, ratio.to)));
                let _ = write!(text, " {} |", same.map(cell).unwrap_or_default());
            }
            let bound = |bound: Option<f64>| {
                bound
                    .map(|bound| format!("{} {bound}", ratio.target.sign()))
                    .unwrap_or_default()
            };
            let _ = writeln!(text, " {} | {} |", bound(ratio.target.must), bound(ratio.target.aim));
        }
    }
    text
}

/// What must be reached and is not stands out.
fn cell(ratio: &Ratio) -> String {
    let mark = if ratio.must_met == Some(false) { "**" } else { "" };
    format!(
        "{mark}{:.2}{mark} ({:.2}–{:.2})",
        ratio.median, ratio.least, ratio.greatest
    )
}

fn shown(unit: Unit, figure: f64) -> String {
    match unit {
        Unit::PerSecond => format!("{}/s", grouped(figure)),
        Unit::Milliseconds => format!("{figure:.3} ms"),
        Unit::Bytes => format!("{figure:.1} bytes"),
        Unit::Kibibytes => format!("{} KiB", grouped(figure)),
    }
}

fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    String::from_utf8_lossy(&groups.join(&b',')).into_owned()
}
