//! `helve profile`: engines by name, with their tokens in a file of the user.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use helve_client::Http;
use helve_terminal::out;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::failure::{Exit, Failure, Result};
use super::finish;
use super::target::{Profile, Profiles, file};

/// How long the engine may take to say whether it knows a token.
const PATIENCE: Duration = Duration::from_secs(5);
/// No token is longer.
const MAX_TOKEN: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep an engine under a name; the token is read from standard input, or asked for
    Set {
        /// The name
        name: String,
        /// Where it listens, such as `https://helve.example`
        #[arg(long)]
        url: String,
    },
    /// List the profiles, without their tokens
    List,
    /// Use this profile from now on
    Use {
        /// Its name
        name: String,
    },
    /// Forget a profile and its token
    Remove {
        /// Its name
        name: String,
    },
}

impl Command {
    pub(crate) async fn run(self) -> ExitCode {
        finish(false, self.done().await.map(|()| None))
    }

    async fn done(self) -> Result<()> {
        let mut known = Profiles::read()?;
        match self {
            Self::Set { name, url } => set(&mut known, name, url).await?,
            Self::List => {
                let current = |name: &String| if known.current.as_ref() == Some(name) { "*" } else { "" };
                let row = |(name, profile): (&String, &Profile)| {
                    vec![current(name).to_owned(), name.clone(), profile.url.clone()]
                };
                let rows: Vec<_> = known.profiles.iter().map(row).collect();
                out::table(&["", "name", "url"], &rows)?;
            }
            Self::Use { name } => {
                exists(&known, &name)?;
                known.current = Some(name);
                known.write()?;
            }
            Self::Remove { name } => {
                exists(&known, &name)?;
                known.profiles.remove(&name);
                known.current.take_if(|current| *current == name);
                known.write()?;
            }
        }
        Ok(())
    }
}

fn exists(known: &Profiles, name: &str) -> Result<()> {
    if known.profiles.contains_key(name) { Ok(()) } else { Err(known.missing(name)) }
}

/// The first profile becomes the current one.
async fn set(known: &mut Profiles, name: String, url: String) -> Result<()> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(Failure::usage("a profile's name has letters, digits, `-`, `_` and `.` only"));
    }
    // Before the token is asked for.
    Http::new(&url, None)?;
    let token = token()?;
    let engine = Http::new(&url, Some(&token))?.with_timeout(PATIENCE);
    if url.starts_with("http://")
        && !["http://127.", "http://localhost", "http://[::1]"].iter().any(|l| url.starts_with(l))
    {
        out::note(&format!("helve: {url} is not https: the token will cross the network as it is"));
    }
    tried(&engine, &url).await?;
    known.current.get_or_insert_with(|| name.clone());
    known.profiles.insert(name, Profile { url, token });
    known.write()?;
    out::line(&format!("kept in {}", file()?.display()))?;
    Ok(())
}

/// Asks the engine whether it knows the token. One that does not answer may not be up yet.
async fn tried(engine: &Http, url: &str) -> Result<()> {
    match engine.get("/v1/runs?limit=1").await {
        Ok(response) if response.status.as_u16() == 401 => {
            Err(Failure::new(Exit::Refused, format!("{url} does not know this token: nothing was kept")))
        }
        // A token for workers alone may not read.
        Ok(response) if response.status.is_success() || response.status.as_u16() == 403 => Ok(()),
        Ok(response) => {
            out::note(&format!("helve: {url} answered {}: the token was not tried", response.status.as_u16()));
            Ok(())
        }
        Err(e) => {
            out::note(&format!("helve: the token was not tried: {} ({url})", crate::cli::text(&e)));
            Ok(())
        }
    }
}

fn token() -> Result<String> {
    let mut stdin = std::io::stdin();
    let wrong = |e: std::io::Error| Failure::usage(format!("standard input: {e}"));
    let text = if stdin.is_terminal() {
        hidden().map_err(wrong)?
    } else {
        let mut text = String::new();
        stdin.by_ref().take(MAX_TOKEN).read_to_string(&mut text).map_err(wrong)?;
        text
    };
    let token = text.trim();
    if !token.starts_with("helve_") || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Failure::usage("that is no token: one starts with `helve_`; `helve token create` prints it"));
    }
    Ok(token.to_owned())
}

/// Asks at the terminal, which does not show what is typed. Signals wait until it shows it again.
fn hidden() -> std::io::Result<String> {
    out::ask("Token: ");
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
    tcsetattr(&stdin, OptionalActions::Flush, &quiet)?;
    let mut text = String::new();
    let read = stdin.read_line(&mut text);
    tcsetattr(&stdin, OptionalActions::Now, &before)?;
    out::note("");
    read.map(|_| text)
}
