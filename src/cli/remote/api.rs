//! `helve api`: any request, with the token and the engine of the other commands.

use std::process::ExitCode;

use clap::ValueEnum;
use helve_terminal::out;
use hyper::Method;

use super::Common;
use super::engine::Engine;
use super::failure::{Exit, Failure, Result};
use super::input;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// The method
    #[arg(value_enum, ignore_case = true)]
    method: Verb,
    /// The path with its query, such as /v1/runs?limit=1
    path: String,
    /// The body: JSON, @FILE, or - for standard input
    body: Option<String>,
    /// An idempotency key
    #[arg(long)]
    key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

impl Args {
    pub(crate) async fn run(self) -> ExitCode {
        let Self { common, method, path, body, key } = self;
        let ask = async |engine: &Engine| -> Result<Option<Exit>> {
            if !path.starts_with('/') {
                return Err(Failure::usage(format!("a path begins with a slash, such as /v1/runs; got `{path}`")));
            }
            let body = body.as_deref().map(|given| input::json("the body", given)).transpose()?;
            let body = body.map(|json| json.get().to_owned().into());
            let headers: Vec<_> = key.as_deref().map(|key| ("idempotency-key", key)).into_iter().collect();
            let response = engine.send(method.of_http(), &path, &headers, body).await?;
            let text = String::from_utf8_lossy(&response.body);
            let text = text.trim_end_matches('\n');
            if !text.is_empty() {
                out::line(text)?;
            }
            Ok(None)
        };
        common.run(ask).await
    }
}

impl Verb {
    const fn of_http(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Delete => Method::DELETE,
        }
    }
}
