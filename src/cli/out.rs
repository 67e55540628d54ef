//! Output: for people by default, one JSON document with `--json`.

use std::io::Write;

use serde::Serialize;

use crate::error::{Error, Result};

/// Writes one line to standard output; a reader that has gone away ends the program quietly.
pub(super) fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Internal(format!("standard output: {e}"))),
        _ => Ok(()),
    }
}

/// Writes a value as one line of JSON.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string(value).map_err(|e| Error::Internal(format!("output: {e}")))?)
}

/// Writes rows in columns as wide as their widest cell.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> Result<()> {
    line(&columns(head, rows))
}

fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |n: usize| rows.iter().map(|r| r[n].chars().count()).chain([head[n].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let row = |cells: Vec<&str>| {
        let padded: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let lines =
        std::iter::once(row(head.to_vec())).chain(rows.iter().map(|r| row(r.iter().map(String::as_str).collect())));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["ten_1".to_owned(), "a".to_owned()], vec!["t".to_owned(), "bcd".to_owned()]];
        assert_eq!(columns(&["id", "name"], &rows), "id     name\nten_1  a\nt      bcd");
        assert_eq!(columns(&["id"], &[]), "id");
    }
}
