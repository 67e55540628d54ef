//! Where a private server's data is, which user it runs as, and who may use it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use helve_domain::error::{Error, Result};
use nix::unistd::{Gid, Uid, User, geteuid};

use super::{guard, pidfile};

/// The prefix of private directories, by which later starts know what they may remove.
const PREFIX: &str = "helve-pg-";
/// A Unix socket's path may have 107 bytes (103 on macOS), and the socket's own name takes 16.
const MAX_BASE: usize = 60;

/// The user that the server runs as: PostgreSQL refuses root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
}

impl Identity {
    /// `None`: as the user of this process. As root: `postgres`, else `nobody`.
    pub fn find() -> Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let user = ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten());
        let user =
            user.ok_or_else(|| failed("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`"))?;
        Ok(Some(Self { uid: user.uid, gid: user.gid }))
    }

    /// Gives a directory to the server.
    fn own(who: Option<Self>, path: &Path) -> Result<()> {
        let Some(who) = who else { return Ok(()) };
        chown(path, Some(who.uid.as_raw()), Some(who.gid.as_raw())).map_err(|e| at(path, e))
    }

    /// Refuses a path below a directory that the server's user cannot enter, such as `/root`.
    pub fn check_reach(who: Option<Self>, path: &Path) -> Result<()> {
        let Some(who) = who else { return Ok(()) };
        for dir in path.ancestors().filter(|d| d.is_dir()) {
            let meta = fs::metadata(dir).map_err(|e| at(dir, e))?;
            let bit = match (meta.uid() == who.uid.as_raw(), meta.gid() == who.gid.as_raw()) {
                (true, _) => 0o100,
                (_, true) => 0o010,
                _ => 0o001,
            };
            if meta.mode() & bit == 0 {
                let name = User::from_uid(who.uid).ok().flatten().map_or_else(|| who.uid.to_string(), |u| u.name);
                return Err(failed(format!(
                    "PostgreSQL runs as user `{name}`, who cannot enter {}: choose a place elsewhere than {}",
                    dir.display(),
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

/// A short, private directory of the server; removed when dropped. Its lock tells others that its owner is alive.
#[derive(Debug)]
pub(super) struct PrivateDir {
    path: PathBuf,
    _lock: File,
}

impl PrivateDir {
    /// A new one.
    pub fn create(who: Option<Identity>) -> Result<Self> {
        let base = Some(std::env::temp_dir()).filter(|d| d.as_os_str().len() <= MAX_BASE);
        let base = base.unwrap_or_else(|| PathBuf::from("/tmp"));
        // In parallel with the start: removing a large one takes longer than starting a server. The thread ends by
        // itself, and what a short-lived process does not finish is left to the next.
        let abandoned = base.clone();
        let clearing = std::thread::Builder::new().name("clear-abandoned".to_owned());
        clearing.spawn(move || clear_abandoned(&abandoned)).map_err(|e| at(&base, e))?;
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|e| failed(format!("no random numbers: {e}")))?;
        let path = base.join(format!("{PREFIX}{:08x}", u32::from_ne_bytes(random)));
        DirBuilder::new().mode(0o700).create(&path).map_err(|e| at(&path, e))?;
        Identity::own(who, &path)?;
        // Locked before it gets its name, so that nobody ever sees it unlocked.
        let unnamed = path.join("lock.new");
        let lock = File::create(&unnamed).map_err(|e| at(&unnamed, e))?;
        lock.lock().and_then(|()| fs::rename(&unnamed, path.join("lock"))).map_err(|e| at(&path, e))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // What cannot be removed now is removed by a later start.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes private directories whose owner was killed.
fn clear_abandoned(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let named = entry.file_name().to_str().is_some_and(|n| n.starts_with(PREFIX));
        let dir = entry.path();
        let free = || File::open(dir.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if named && entry.file_type().is_ok_and(|t| t.is_dir()) && free() && !pidfile::is_running(&dir.join("data")) {
            // The data first: as long as the lock file exists, a later start knows what this is.
            let _ = fs::remove_dir_all(dir.join("data"));
            let _ = fs::remove_dir_all(&dir);
        }
    }
}

/// A data directory that only this process uses.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    _lock: File,
}

impl Kept {
    /// Creates or takes `path`.
    pub fn take(path: &Path, who: Option<Identity>) -> Result<Self> {
        Self::take_there(path, who).map_err(|e| match e {
            Error::Internal(text) if !text.contains("--data-dir") => {
                failed(format!("{text} (--data-dir or HELVE_DATA_DIR chooses where data and token are kept)"))
            }
            other => other,
        })
    }

    fn take_there(path: &Path, who: Option<Identity>) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|e| at(path, e))?;
        Identity::check_reach(who, &path)?;
        make_public(&path)?;
        let path = path.canonicalize().map_err(|e| at(&path, e))?;
        let name = path.join("lock");
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&name)
            .map_err(|e| at(&name, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner);
                return Err(failed(format!(
                    "another helve (process {}) uses {}: stop it, or choose another --data-dir",
                    owner.trim(),
                    path.display()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(at(&name, e)),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(|e| at(&name, e))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The major versions of PostgreSQL for which it has data.
    pub fn majors(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().into_string().ok());
        names.filter_map(|n| n.strip_prefix("pg")?.parse().ok()).collect()
    }
}

/// Creates the cluster in `data` unless it exists. It is either complete or absent, because it gets its name last.
pub(super) fn ensure_cluster(bin: &Path, data: &Path, who: Option<Identity>, durable: bool) -> Result<()> {
    if data.join("PG_VERSION").is_file() {
        return Ok(());
    }
    let fresh = data.with_extension("new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(|e| at(&fresh, e))?;
    }
    DirBuilder::new().mode(0o700).create(&fresh).map_err(|e| at(&fresh, e))?;
    Identity::own(who, &fresh)?;
    let mut initdb = Command::new(bin.join("initdb"));
    initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions", "-D"]).arg(&fresh);
    if !durable {
        initdb.arg("-N");
    }
    guard::prepare(&mut initdb, &fresh);
    if let Some(who) = who {
        use std::os::unix::process::CommandExt;
        initdb.uid(who.uid.as_raw()).gid(who.gid.as_raw());
    }
    let out = initdb.output().map_err(|e| failed(format!("initdb does not start: {e}")))?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        return Err(failed(format!("initdb failed ({}): {}", out.status, text.trim())));
    }
    fs::rename(&fresh, data).map_err(|e| at(data, e))
}

/// Creates a directory and its missing parents, open for everybody to enter: the server runs as another user than root,
/// whatever root's umask is.
pub(super) fn make_public(path: &Path) -> Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        let made = match fs::create_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            made => made.and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o755))),
        };
        made.map_err(|e| at(dir, e))?;
    }
    Ok(())
}

pub(super) fn failed(text: impl Into<String>) -> Error {
    Error::Internal(text.into())
}

pub(super) fn at(path: &Path, e: std::io::Error) -> Error {
    Error::Internal(format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_directory_is_short_private_and_gone_after_use() {
        let dir = PrivateDir::create(None).unwrap();
        let path = dir.path().to_owned();
        assert!(path.as_os_str().len() + 16 < 100);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        clear_abandoned(path.parent().unwrap());
        assert!(path.is_dir(), "its owner lives");
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_owner_left_is_cleared() {
        let base = std::env::temp_dir().join(format!("helve-place-test-{}", std::process::id()));
        let left = base.join(format!("{PREFIX}x"));
        fs::create_dir_all(&left).unwrap();
        clear_abandoned(&base);
        assert!(left.is_dir(), "without a lock it may be in the making");
        fs::write(left.join("lock"), "").unwrap();
        clear_abandoned(&base);
        assert!(!left.exists());
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn the_second_user_of_a_data_directory_is_told_about_the_first() {
        let dir = std::env::temp_dir().join(format!("helve-kept-test-{}", std::process::id()));
        let first = Kept::take(&dir, None).unwrap();
        let text = Kept::take(&dir, None).unwrap_err().to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        let text = Kept::take(&dir.join("lock"), None).unwrap_err().to_string();
        assert!(text.contains("lock") && text.contains("--data-dir"), "{text}");
        drop(first);
        fs::create_dir(dir.join("pg15")).unwrap();
        assert_eq!(Kept::take(&dir, None).unwrap().majors(), [15]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
