//! What the demo prints: lines, and one progress bar below them while there is a terminal to redraw it on.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

const BAR: usize = 30;

/// Shared by the import, which draws the bar, and the listener, which prints alerts above it.
pub struct Screen {
    terminal: bool,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    bar: Option<String>,
    tenths: u64,
}

impl Screen {
    pub fn new() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            shown: Mutex::default(),
        }
    }

    pub fn title(&self, text: &str) {
        self.line(&format!("\n{text}"));
    }

    pub fn line(&self, text: &str) {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match &shown.bar {
            Some(bar) if self.terminal => put(&format!("\r\x1b[K{text}\n{bar}")),
            _ => put(&format!("{text}\n")),
        }
    }

    /// On a terminal the bar stays in its line; elsewhere each tenth is a line of its own.
    pub fn progress(&self, done: usize, all: usize, what: &str) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = done * BAR / all.max(1);
        let percent = done * 100 / all.max(1);
        let bar = format!(
            "  {}{} {percent:>3} %  {what}",
            "█".repeat(filled),
            "░".repeat(BAR - filled)
        );
        if self.terminal {
            put(&format!("\r\x1b[K{bar}"));
            shown.bar = Some(bar);
        } else if percent as u64 / 10 > shown.tenths {
            shown.tenths = percent as u64 / 10;
            put(&format!("{bar}\n"));
        }
        if done == all {
            if self.terminal {
                put("\n");
            }
            *shown = Shown::default();
        }
    }
}

/// With nobody to read it any more (`cargo demo | head`) the demo goes on, and its exit code still tells.
fn put(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// 1234567 as "1,234,567".
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Cents as "1,234.56".
pub fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", grouped((cents / 100) as i64), cents % 100)
}
