//! Finds PostgreSQL's programs on this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use helve_domain::error::{Error, Result};

/// The oldest major version that the engine works with.
const OLDEST: u32 = 15;
/// The newest that is tested.
const NEWEST: u32 = 18;

/// A directory with `postgres` and `initdb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    /// Where they are, links resolved.
    pub dir: PathBuf,
    /// Their major version.
    pub major: u32,
}

/// The programs in `dir`, which somebody specified.
pub(super) fn at(dir: &Path) -> Result<Binaries> {
    let found = inspect(dir).ok_or_else(|| {
        Error::Internal(format!("{} does not hold the programs `postgres` and `initdb` of PostgreSQL", dir.display()))
    })?;
    if found.major < OLDEST {
        return Err(Error::Internal(format!(
            "{} holds PostgreSQL {}; {OLDEST} or newer is needed",
            dir.display(),
            found.major
        )));
    }
    Ok(found)
}

/// The best installed version. `kept` are the majors for which the data directory has data.
pub(super) fn installed(kept: &[u32]) -> Option<Binaries> {
    let mut seen = BTreeSet::new();
    let candidates: Vec<_> = places()
        .iter()
        .filter_map(|dir| inspect(dir))
        .filter(|b| b.major >= OLDEST && seen.insert(b.dir.clone()))
        .collect();
    choose(candidates, kept)
}

/// First the version of existing data; then the first tested version; then a newer one.
fn choose(candidates: Vec<Binaries>, kept: &[u32]) -> Option<Binaries> {
    let of_data = |b: &&Binaries| kept.contains(&b.major);
    let tested = |b: &&Binaries| b.major <= NEWEST;
    let newest_of_data = candidates.iter().filter(of_data).max_by_key(|b| b.major);
    newest_of_data.or_else(|| candidates.iter().find(tested)).or(candidates.first()).cloned()
}

/// Where packages install them, in order of preference.
fn places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(out) = Command::new("pg_config").arg("--bindir").output().ok().filter(|out| out.status.success()) {
        places.push(PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()));
    }
    if let Some(path) = std::env::var_os("PATH") {
        places.extend(std::env::split_paths(&path));
    }
    for (base, prefix, below) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
        ("/usr/libexec", "postgresql", ""),
    ] {
        places.extend(newest_first(Path::new(base), prefix).into_iter().map(|dir| dir.join(below)));
    }
    places
}

fn newest_first(base: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries
        .filter_map(|e| e.file_name().into_string().ok().filter(|name| name.starts_with(prefix)))
        .map(|name| (leading_number(name.trim_start_matches(|c: char| !c.is_ascii_digit())), name))
        .collect();
    dirs.sort();
    dirs.into_iter().rev().map(|(_, name)| base.join(name)).collect()
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok()
}

fn inspect(dir: &Path) -> Option<Binaries> {
    let postgres = dir.join("postgres");
    if !postgres.is_file() || !dir.join("initdb").is_file() {
        return None;
    }
    // A link in /usr/local/bin: PostgreSQL finds its files relative to the real program.
    let real = postgres.canonicalize().ok()?.parent()?.to_owned();
    let dir = if real.join("initdb").is_file() { real } else { dir.to_owned() };
    let out = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
    Some(Binaries { major: major_of(&String::from_utf8_lossy(&out.stdout))?, dir })
}

/// From `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_of(version: &str) -> Option<u32> {
    leading_number(version.split_once("(PostgreSQL) ")?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pg(dir: &str, major: u32) -> Binaries {
        Binaries { dir: dir.into(), major }
    }

    #[test]
    fn versions_are_read_as_they_are_printed() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta2"), Some(18));
        assert_eq!(major_of("something else 15.1"), None);
        assert_eq!(leading_number("9.6"), Some(9));
    }

    #[test]
    fn kept_data_decides_then_order_then_what_is_tested() {
        let all = || vec![pg("/a", 19), pg("/b", 17), pg("/c", 18), pg("/d", 16)];
        assert_eq!(choose(all(), &[]), Some(pg("/b", 17)));
        assert_eq!(choose(all(), &[16]), Some(pg("/d", 16)));
        assert_eq!(choose(all(), &[15]), Some(pg("/b", 17)), "data of an absent version decides nothing");
        assert_eq!(choose(vec![pg("/a", 19)], &[]), Some(pg("/a", 19)));
        assert_eq!(choose(Vec::new(), &[15]), None);
    }

    #[test]
    fn a_directory_without_programs_is_refused_by_name() {
        let dir = std::env::temp_dir();
        let text = at(&dir).unwrap_err().to_string();
        assert!(text.contains(&dir.display().to_string()) && text.contains("initdb"), "{text}");
    }
}
