//! Which engine is meant, and the file of profiles.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::failure::{Exit, Failure, Result};
use crate::cli::{dev, kept};

/// An engine and how to be let in.
pub(super) struct Target {
    pub(super) url: String,
    pub(super) token: String,
    /// Where both come from, for people.
    pub(super) source: String,
}

/// The profiles of a person.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profiles {
    /// The one that is used when nothing else is said.
    #[serde(default)]
    pub(super) current: Option<String>,
    #[serde(default)]
    pub(super) profiles: BTreeMap<String, Profile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) url: String,
    pub(super) token: String,
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `~/.config/helve/config.json`.
pub(super) fn file() -> Result<PathBuf> {
    let config = env("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(Path::new(&env("HOME")?).join(".config")));
    let missing = || Failure::usage("neither XDG_CONFIG_HOME nor HOME is set: there is no place for profiles");
    Ok(config.ok_or_else(missing)?.join("helve").join("config.json"))
}

impl Profiles {
    /// What the file says; nothing where there is none.
    pub(super) fn read() -> Result<Self> {
        let Ok(file) = file() else { return Ok(Self::default()) };
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Failure::usage(format!("{}: {e}", file.display()))),
        };
        let mode = fs::metadata(&file).map_or(0, |meta| meta.permissions().mode());
        if mode & 0o077 != 0 {
            helve_terminal::out::note(&format!(
                "helve: others can read the tokens in {0}: chmod 600 {0}",
                file.display()
            ));
        }
        // Where it is wrong, and not what stands there: that may be a token.
        serde_json::from_str(&text).map_err(|e| {
            let place = format!("line {} column {}", e.line(), e.column());
            Failure::usage(format!("{} is not a file of profiles: see {place}", file.display()))
        })
    }

    /// Writes the file so that nobody else can read it.
    pub(super) fn write(&self) -> Result<()> {
        let file = file()?;
        let wrong = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("{}: {e}", file.display()));
        let text = serde_json::to_string_pretty(self).map_err(|e| wrong(&e))?;
        kept::keep(&file, &text).map_err(|e| wrong(&e))
    }

    /// There is no profile of this name.
    pub(super) fn missing(&self, name: &str) -> Failure {
        let known = self.profiles.keys().cloned().collect::<Vec<_>>().join(", ");
        Failure::usage(match known.is_empty() {
            true => {
                format!("there is no profile `{name}`, nor any other: `helve profile set {name} --url URL` makes it")
            }
            false => format!("there is no profile `{name}`; there are: {known}"),
        })
    }

    fn take(mut self, name: &str, source: String) -> Result<Target> {
        let missing = self.missing(name);
        let Profile { url, token } = self.profiles.remove(name).ok_or(missing)?;
        Ok(Target { url, token, source })
    }
}

impl Target {
    /// `--profile`, else the environment, else the current profile, else the `helve dev` of this machine. A token is
    /// never sent to the URL of another source.
    pub(super) fn find(profile: Option<&str>) -> Result<Self> {
        if let Some(name) = profile {
            return Profiles::read()?.take(name, format!("the profile `{name}`"));
        }
        match (env("HELVE_URL"), env("HELVE_TOKEN")) {
            (Some(url), Some(token)) => return Ok(Self { url, token, source: "the environment".to_owned() }),
            (Some(_), None) => return Err(Failure::usage("HELVE_URL is set and HELVE_TOKEN is not: set both")),
            (None, Some(_)) => return Err(Failure::usage("HELVE_TOKEN is set and HELVE_URL is not: set both")),
            (None, None) => {}
        }
        let mut profiles = Profiles::read()?;
        if let Some(name) = profiles.current.take() {
            return profiles.take(&name, format!("the current profile `{name}`"));
        }
        Self::of_dev().ok_or_else(|| {
            Failure::usage(
                "no engine is named: set HELVE_URL and HELVE_TOKEN, or `helve profile set NAME --url URL`; \
                 beside a `helve dev` of this user nothing is needed",
            )
        })
    }

    /// What `helve dev` would listen on here, with the token that it keeps.
    fn of_dev() -> Option<Self> {
        let dir = match env("HELVE_DATA_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => dev::default_data_dir().ok()?,
        };
        let file = dir.join("token");
        let token = fs::read_to_string(&file).ok()?.trim().to_owned();
        let port = env("HELVE_PORT").unwrap_or_else(|| "7733".to_owned());
        let source = format!("`helve dev` in {}", file.display());
        Some(Self { url: format!("http://127.0.0.1:{port}"), token, source })
    }
}
