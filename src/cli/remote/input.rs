//! What people give a command: JSON from the line, a file or standard input, pairs, and a yes.

use std::fs::File;
use std::io::{IsTerminal, Read};

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::failure::{Failure, Result};

/// More than any body that an engine takes by default.
const MAX: u64 = 64 << 20;

/// JSON as it was written: `@file`, `-` for standard input, or the text itself.
pub(super) fn json(given: &str) -> Result<Box<RawValue>> {
    let text = match given.strip_prefix('@') {
        Some(file) => {
            let wrong = |e: std::io::Error| Failure::usage(format!("{file}: {e}"));
            read(File::open(file).map_err(wrong)?).map_err(wrong)?
        }
        None if given == "-" => read(std::io::stdin()).map_err(|e| Failure::usage(format!("standard input: {e}")))?,
        None => given.to_owned(),
    };
    let from = match given {
        "-" => "standard input".to_owned(),
        file if file.starts_with('@') => file[1..].to_owned(),
        _ => "the argument".to_owned(),
    };
    RawValue::from_string(text).map_err(|e| Failure::usage(format!("{from} is not JSON: {e}")))
}

fn read(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX {
        return Err(std::io::Error::other(format!("larger than {MAX} bytes")));
    }
    Ok(text)
}

/// `key=value` pairs as an object.
pub(super) fn pairs(given: &[String]) -> Result<Map<String, Value>> {
    given
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), Value::from(value))),
            None => Err(Failure::usage(format!("`{pair}` is not KEY=VALUE"))),
        })
        .collect()
}

/// Asks before something that cannot be taken back. Without a terminal nobody can answer, and it is refused.
pub(super) fn confirmed(question: &str, yes: bool) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "{question} Nobody can answer without a terminal: give --yes. Nothing was done"
        )));
    }
    helve_terminal::out::ask(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let asked = std::io::stdin().read_line(&mut answer);
    asked.map_err(|e| Failure::usage(format!("standard input: {e}")))?;
    let yes = matches!(answer.trim(), "y" | "Y" | "yes");
    if !yes {
        helve_terminal::out::note("nothing was done");
    }
    Ok(yes)
}
