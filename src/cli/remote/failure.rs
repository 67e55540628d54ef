//! What went wrong, as a person and a script read it.

use std::process::ExitCode;

use helve_client::Response;
use helve_domain::error::Error;
use helve_terminal::out;

use super::object::Object;

/// How a command ends. The numbers are promised in docs/guide/cli.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// The work itself failed: a run that was waited for, or an item of bulk work.
    Failed = 1,
    /// The command or the request is wrong.
    Usage = 2,
    /// No such object in the tenant.
    NotFound = 3,
    /// Not allowed, or not in the state that things are in.
    Refused = 4,
    /// The engine cannot be reached, or not now.
    Unavailable = 5,
    /// What was waited for has not ended.
    StillOpen = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    /// For people; lines.
    text: String,
    /// The engine's problem as it came.
    problem: Option<String>,
    /// The problem's code.
    code: String,
}

pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(super) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), problem: None, code: String::new() }
    }

    /// The command line asks for something that cannot be.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// No answer: the request was not sent, or its outcome is not known.
    pub(super) fn no_answer(url: &str, error: &Error) -> Self {
        let exit = match error {
            Error::Unavailable { .. } | Error::OutcomeUnknown | Error::Internal(_) => Exit::Unavailable,
            _ => Exit::Usage,
        };
        let text = match error {
            Error::OutcomeUnknown => {
                "the connection was cut, or no answer came in time: the request may have been carried out".to_owned()
            }
            other => crate::cli::text(other),
        };
        let code = error.code().as_str().to_owned();
        Self { exit, text: format!("{text} ({url})"), problem: None, code }
    }

    /// An answer that is not a success. `source` says where the token came from.
    pub(super) fn of_answer(response: &Response, url: &str, source: &str) -> Self {
        let status = response.status.as_u16();
        let exit = match status {
            404 => Exit::NotFound,
            401 | 403 | 409 => Exit::Refused,
            429 | 500..=599 => Exit::Unavailable,
            _ => Exit::Usage,
        };
        let problem = Object::parse(&response.body).filter(|problem| problem.raw("code").is_some());
        let Some(problem) = problem else {
            return Self::new(exit, format!("{url} answered {status}, and not as Helve does"));
        };
        let mut text = problem.cell("detail");
        let mut more = Vec::new();
        for (name, field) in
            [("field", "pointer"), ("parameter", "parameter"), ("code", "code"), ("existing", "existing")]
        {
            more.extend(problem.text(field).filter(|value| !value.is_empty()).map(|value| format!("{name} {value}")));
        }
        more.extend(problem.text("retry_after").map(|seconds| format!("try again in {seconds} s")));
        if status == 401 {
            more.push(format!("the token is that of {source}"));
        }
        let request = response.headers.get("x-request-id").and_then(|id| id.to_str().ok());
        more.extend(request.map(|id| format!("request {id}")));
        text.push_str(&format!("\n  {}", more.join(", ")));
        let raw = String::from_utf8_lossy(&response.body).into_owned();
        Self { exit, text, problem: Some(raw), code: problem.cell("code") }
    }

    /// Whether the engine refused with this code.
    pub(super) fn is(&self, code: &str) -> bool {
        self.code == code
    }

    /// What went wrong, without the details.
    pub(super) fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// Whether the request may have been carried out all the same.
    pub(super) fn is_unknown(&self) -> bool {
        self.is("outcome_unknown")
    }

    /// Says it on standard error: the engine's problem as it is when JSON is asked for.
    pub(super) fn print(&self, json: bool) {
        match &self.problem {
            Some(problem) if json => out::note(problem),
            _ => {
                let lines: Vec<_> = self.text.lines().map(out::plain).collect();
                out::note(&format!("helve: {}", lines.join("\n")));
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error {
            Error::Invalid { .. } | Error::Unauthenticated(_) => Exit::Usage,
            _ => Exit::Failed,
        };
        Self::new(exit, crate::cli::text(&error))
    }
}
