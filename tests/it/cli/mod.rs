//! The commands for people, through the real program against an engine.

mod about;
mod bulk;
mod insight;
mod profiles;
mod runs;
mod tls;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::{Engine, helve};

/// What a command did.
#[derive(Debug)]
struct Done {
    code: i32,
    out: String,
    err: String,
}

/// Somebody at a shell: an environment, a home of their own, and tokens that no output may show.
#[derive(Clone)]
struct Person {
    home: PathBuf,
    env: Vec<(String, String)>,
    secrets: Vec<String>,
}

impl Person {
    /// With an empty home and nothing in the environment.
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("home-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        Self { home, env: Vec::new(), secrets: Vec::new() }
    }

    /// With the engine's URL and token in the environment.
    fn of(engine: &Engine) -> Self {
        Self::new().with("HELVE_URL", &engine.url).with("HELVE_TOKEN", &engine.token)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        if name == "HELVE_TOKEN" {
            self.secrets.push(value.to_owned());
        }
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    async fn run(&self, args: &[&str]) -> Done {
        self.run_with(args, "").await
    }

    /// With this on standard input.
    async fn run_with(&self, args: &[&str], stdin: &str) -> Done {
        let mut command = Command::from(helve());
        // Root's `helve dev` keeps its token in a place that is not below the home.
        command
            .args(args)
            .env("HOME", &self.home)
            .env("HELVE_DATA_DIR", self.home.join("none"))
            .envs(self.env.iter().cloned())
            .kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // A command that reads nothing may have ended already.
        let _ = input.write_all(stdin.as_bytes()).await;
        drop(input);
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let done = Done { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) };
        for secret in &self.secrets {
            assert!(!done.out.contains(secret) && !done.err.contains(secret), "{args:?} shows a token: {done:?}");
        }
        done
    }

    /// How a command ends whose output nobody reads: its standard output, or its standard error.
    async fn unread(&self, args: &[&str], out: bool) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_helve"));
        command.args(args).env("HOME", &self.home).envs(self.env.iter().cloned()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        if out {
            drop(child.stdout.take());
        } else {
            drop(child.stderr.take());
        }
        let done = child.wait_with_output().await.unwrap();
        (done.status.code().unwrap(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    }

    /// What a command that must succeed prints.
    async fn prints(&self, args: &[&str]) -> String {
        let done = self.run(args).await;
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
        done.out
    }

    /// As [`Person::prints`], as JSON.
    async fn json(&self, args: &[&str]) -> Value {
        let out = self.prints(&[args, &["--json"]].concat()).await;
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"))
    }

    /// The command must end so, say this on standard error, and print nothing.
    async fn is_refused(&self, args: &[&str], code: i32, says: &str) {
        let done = self.run(args).await;
        assert!(done.code == code && done.err.contains(says) && done.out.is_empty(), "{args:?}: {done:?}");
    }
}

/// The lines of a table as words.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}
