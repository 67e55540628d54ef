//! What `HELVE_LOG` may say: every directive of it matches something, or is refused.

use tracing_subscriber::EnvFilter;

const DEFAULT: &str = "info";
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
/// The parts of the engine that log: the first two names of their targets.
const PARTS: &[&str] = &[
    "api",
    "app",
    "cli",
    "cluster",
    "config",
    "db",
    "failpoint",
    "forward",
    "housekeeping",
    "hub",
    "live",
    "metrics",
    "ops",
    "sched",
    "share",
    "telemetry",
    "traces",
    "ws",
];
/// The crates beside it: the first name of their targets.
const CRATES: &[&str] = &[
    "helve_bench",
    "helve_client",
    "helve_core",
    "helve_domain",
    "helve_postgres",
    "helve_supervisor",
    "helve_terminal",
];

/// Reads a filter: directives between commas, each a level for everything, or `helve::part=level`.
///
/// # Errors
/// What is wrong with it, and what is allowed.
pub(super) fn parse(text: &str) -> Result<EnvFilter, String> {
    let directives = text.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    let directives = directives.map(directive).collect::<Result<Vec<_>, _>>()?;
    // A variable that is set to nothing is as good as absent.
    let directives = if directives.is_empty() { vec![DEFAULT.to_owned()] } else { directives };
    EnvFilter::try_new(directives.join(",")).map_err(|e| e.to_string())
}

/// A directive as the subscriber reads it.
fn directive(text: &str) -> Result<String, String> {
    let (target, given) = match text.split_once('=') {
        // The directive for spans has a grammar of its own.
        _ if text.contains('[') => return Ok(text.to_owned()),
        Some((target, given)) => (Some(target.trim()), given.trim()),
        None if text == "helve" || CRATES.contains(&text) || text.contains("::") => (Some(text), "trace"),
        None => (None, text),
    };
    let level = level(given).ok_or_else(|| format!("`{given}` is no level: {}", LEVELS.join(", ")))?;
    let Some(target) = target else { return Ok(level.to_owned()) };
    if !logs(target) {
        return Err(format!(
            "nothing here logs as `{target}`: a target is `helve`, or `helve::` and one of {}, or one of {}",
            PARTS.join(", "),
            CRATES.join(", ")
        ));
    }
    Ok(format!("{target}={level}"))
}

/// A level by its name, as it is written elsewhere too.
fn level(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    let name = match text.as_str() {
        "warning" => "warn",
        "none" => "off",
        other => other,
    };
    LEVELS.into_iter().find(|level| *level == name)
}

/// Whether a part of the program logs under a target that begins so.
fn logs(target: &str) -> bool {
    let mut names = target.split("::");
    let part = (names.next(), names.next());
    match part {
        (Some("helve"), None) => true,
        (Some("helve"), Some(part)) => PARTS.contains(&part),
        (Some(other), _) => CRATES.contains(&other),
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matches_nothing_is_refused() {
        for (text, same) in [
            ("info", "info"),
            ("", "info"),
            ("warning", "warn"),
            ("WARN", "warn"),
            ("warn, helve=trace", "helve=trace,warn"),
            ("helve::sched=Debug,info", "helve::sched=debug,info"),
            ("info,helve::ws::session", "helve::ws::session=trace,info"),
            ("helve_core=debug", "helve_core=debug"),
        ] {
            assert_eq!(parse(text).map(|filter| filter.to_string()), Ok(same.to_owned()), "{text}");
        }
        for (text, part) in [
            ("loud", "`loud` is no level: error, warn, info"),
            ("info,helv=debug", "logs as `helv`"),
            ("helve::shed=debug", "helve::"),
            ("helve=loud", "`loud` is no level"),
            ("info,hyper=debug", "logs as `hyper`"),
        ] {
            let wrong = parse(text).unwrap_err();
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }

    #[test]
    fn every_part_of_the_program_is_known() {
        let lib = include_str!("../lib.rs");
        let parts: Vec<_> = lib.lines().filter_map(|l| l.trim().strip_prefix("pub mod ")?.strip_suffix(';')).collect();
        assert!(parts.len() > 15, "{parts:?}");
        assert_eq!(parts, PARTS);
        let manifest = include_str!("../../Cargo.toml");
        let ours = manifest.lines().filter_map(|l| l.strip_suffix(".workspace = true")?.strip_prefix("helve-"));
        let mut ours: Vec<_> = ours.map(|name| format!("helve_{name}")).collect();
        ours.sort();
        assert_eq!(ours, CRATES);
    }
}
