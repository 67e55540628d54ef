//! What people give a command: JSON from the line, a file or standard input, pairs, and a yes.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;

use helve_domain::plain;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::failure::{Failure, Result};

/// More than any body that an engine takes by default.
const MAX: u64 = 64 << 20;

/// JSON as it was written: `@file`, `-` for standard input, or the text itself. `what`: the argument, for people.
pub(super) fn json(what: &str, given: &str) -> Result<Box<RawValue>> {
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
        _ => what.to_owned(),
    };
    RawValue::from_string(text).map_err(|e| {
        let hint = hint(given);
        Failure::usage(format!("{from} is not JSON: {}{hint}", plain::syntax(&e)))
    })
}

/// What may have been meant by an argument that is not JSON.
fn hint(given: &str) -> String {
    let is_elsewhere = given == "-" || given.starts_with('@');
    match given.chars().next() {
        _ if is_elsewhere => String::new(),
        _ if Path::new(given).is_file() => format!("; @{given} reads the file"),
        _ if given.ends_with(".json") => format!("; @{given} would read a file, and there is none of that name"),
        Some('{' | '[' | '"') | None => String::new(),
        Some(_) => "; a text is written '\"so\"', with quotes of its own".to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_that_is_not_json_is_named_with_what_may_have_been_meant() {
        let file = std::env::temp_dir().join(format!("helve-input-{}", std::process::id()));
        std::fs::write(&file, "{}").unwrap();
        let there = file.display().to_string();
        for (given, told) in [
            ("hello", "--input is not JSON: expected value at line 1 column 1; a text is written '\"so\"'"),
            ("{\"a\":", "--input is not JSON: it ends too early"),
            ("nofile.json", "@nofile.json would read a file, and there is none"),
            (&there, "reads the file"),
            ("@no-such-file", "no-such-file: "),
        ] {
            let text = format!("{:?}", json("--input", given).unwrap_err());
            assert!(text.replace("\\\"", "\"").contains(told), "{given}: {text}");
        }
        std::fs::remove_file(file).unwrap();
    }
}
