//! Output: for people by default, one JSON document with `--json`.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use helve_domain::error::{Error, Result};
use serde::Serialize;

/// Whoever was reading standard output has gone away.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// Writes one line to standard output. A reader that has gone away, such as `head`, is not a failure: see
/// [`is_unread`].
pub fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => {
            UNREAD.store(true, Ordering::Relaxed);
            Ok(())
        }
        other => other.map_err(|e| Error::Internal(format!("standard output: {e}"))),
    }
}

/// Whether nobody reads standard output any more: what keeps writing should then end quietly.
pub fn is_unread() -> bool {
    UNREAD.load(Ordering::Relaxed)
}

/// Begins a new screen at a terminal, and a new paragraph elsewhere: what was shown is shown again.
pub fn next_screen() -> Result<()> {
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    line(if is_terminal { "\u{1b}[2J\u{1b}[H" } else { "" })
}

/// Prints one line for the person at the terminal, on standard error. Nobody has to read it: `eprintln!` would panic.
pub fn note(text: &str) {
    ask(&format!("{text}\n"));
}

/// As [`note`], without a line break.
pub fn ask(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Writes a value as one line of JSON.
pub fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string(value).map_err(|e| Error::Internal(format!("output: {e}")))?)
}

/// Writes rows in columns as wide as their widest cell; at a terminal, lines are cut at its width.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> Result<()> {
    line(&Table::new(head).next(rows))
}

/// Foreign text made unable to steer a terminal: control characters, and those that change the direction of writing,
/// are replaced.
pub fn plain(text: &str) -> String {
    let safe = |c: char| match c {
        '\n' | '\t' => ' ',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(safe).collect()
}

fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Rows that arrive page by page under one head.
pub struct Table {
    /// Present until it is shown.
    head: Option<Vec<String>>,
    widths: Vec<usize>,
    longest: Option<usize>,
}

impl Table {
    /// A table with these columns.
    pub fn new(head: &[&str]) -> Self {
        let head: Vec<_> = head.iter().map(|&name| name.to_owned()).collect();
        Self { widths: head.iter().map(String::len).collect(), head: Some(head), longest: terminal_width() }
    }

    /// The next rows as text; the first ones with the head. Columns never become narrower.
    pub fn next(&mut self, rows: &[Vec<String>]) -> String {
        let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
        for (n, width) in self.widths.iter_mut().enumerate() {
            *width = rows.iter().map(|row| row[n].chars().count()).chain([*width]).max().unwrap_or(0);
        }
        let lines = self.head.take().into_iter().chain(rows);
        lines.map(|cells| self.fit(&cells)).collect::<Vec<_>>().join("\n")
    }

    fn fit(&self, cells: &[String]) -> String {
        let padded: Vec<_> = cells.iter().zip(&self.widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let line = padded.join("  ").trim_end().to_owned();
        match self.longest {
            Some(longest) if line.chars().count() > longest => line.chars().take(longest - 1).chain(['…']).collect(),
            _ => line,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_end_with_the_terminal() {
        let table = |head, longest| Table { longest, ..Table::new(head) };
        let rows = [vec!["ten_1".to_owned(), "a".to_owned()], vec!["t".to_owned(), "bcd".to_owned()]];
        let mut all = table(&["id", "name"], None);
        assert_eq!(all.next(&rows), "id     name\nten_1  a\nt      bcd");
        assert_eq!(all.next(&rows[1..]), "t      bcd", "the next page has no head and the same columns");
        assert_eq!(table(&["id"], None).next(&[]), "id");
        assert_eq!(table(&["id", "name"], Some(9)).next(&rows), "id     n…\nten_1  a\nt      b…");
    }

    #[test]
    fn nobody_steers_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}"), "a\u{fffd}[2Jb c\u{fffd}");
    }
}
