//! The engine that a command talks to: requests, retries that are safe, and how answers are shown.

use std::time::Duration;

use bytes::Bytes;
use helve_client::{Http, Response};
use helve_domain::clock::Clock;
use helve_terminal::out;
use hyper::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::failure::{Exit, Failure, Result};
use super::object::{Object, readable};
use super::target::Target;
use super::{Common, time};

/// What may stand in a path or a query as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// How often a write whose answer was lost is sent again, under the same key.
const AGAIN: u32 = 2;
/// Runs among which a part of an id is looked for: those that a list has just shown. Each comes with its input and output.
const NEWEST: u32 = 200;
/// Before it is sent again.
const PAUSE: Duration = Duration::from_millis(500);

/// The engine, and how to show what it says.
pub(super) struct Engine {
    http: Http,
    url: String,
    source: String,
    pub(super) json: bool,
    utc: bool,
    pub(super) clock: Clock,
}

/// A part of a path or a query.
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// A path with its parameters.
pub(super) fn query(path: &str, parameters: &[(&str, String)]) -> String {
    let pairs: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

impl Engine {
    /// The engine that is meant. Nothing is sent yet.
    pub(super) fn open(common: &Common) -> Result<Self> {
        let Target { url, token, source } = Target::find(common.profile.as_deref())?;
        let http = Http::new(&url, Some(&token))
            .map_err(|e| Failure::new(Exit::Usage, format!("{} ({source})", crate::cli::text(&e))))?;
        Ok(Self { http, url, source, json: common.json, utc: common.utc, clock: Clock::system() })
    }

    /// Its URL, and where that comes from.
    pub(super) fn place(&self) -> (&str, &str) {
        (&self.url, &self.source)
    }

    /// The same in words, for a question.
    pub(super) fn described(&self) -> String {
        out::plain(&format!("{} ({})", self.url, self.source))
    }

    /// One request; an answer that is no success is a failure.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Result<Response> {
        let sent = self.http.request(method, path, headers, body).await;
        let response = sent.map_err(|e| Failure::no_answer(&self.url, &e))?;
        if response.status.is_success() {
            return Ok(response);
        }
        Err(Failure::of_answer(&response, &self.url, &self.source))
    }

    /// The id of a run that is named by it, or by a part of it that is as good: the last digits, which chance has made, or
    /// the first ones, of the newest runs.
    pub(super) async fn run_id(&self, given: &str) -> Result<String> {
        let part = given.strip_prefix("run_").unwrap_or(given);
        let is_part = (4..32).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_part {
            return Ok(given.to_owned());
        }
        let page = self.object(&self.get(&format!("/v1/runs?limit={NEWEST}")).await?)?;
        let ids = page.list("items").into_iter().filter_map(|raw| Object::parse(raw.get().as_bytes())?.text("id"));
        let fits = |id: &String| id.strip_prefix("run_").is_some_and(|id| id.starts_with(part) || id.ends_with(part));
        let mut found: Vec<String> = ids.filter(fits).collect();
        match (found.pop(), found.len()) {
            (Some(id), 0) => Ok(id),
            (None, _) => Err(Failure::new(
                Exit::NotFound,
                format!(
                    "none of the {NEWEST} newest runs has an id that begins or ends with `{part}`: give the whole id"
                ),
            )),
            (Some(one), more) => Err(Failure::usage(format!(
                "`{part}` is a part of {} ids, among them {one} and {}: give more of it",
                more + 1,
                found.last().map_or("", String::as_str)
            ))),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Response> {
        self.send(Method::GET, path, &[], None).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Response> {
        self.send(Method::DELETE, path, &[], None).await
    }

    pub(super) async fn put(&self, path: &str, body: impl Into<Bytes>) -> Result<Response> {
        self.send(Method::PUT, path, &[], Some(body.into())).await
    }

    /// A `POST` that is sent once, whatever becomes of it.
    pub(super) async fn post_plain(&self, path: &str, body: Bytes) -> Result<Response> {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    /// A `POST` that changes nothing when it is carried out twice.
    pub(super) async fn post(&self, path: &str, body: Option<Bytes>) -> Result<Response> {
        self.again(path, &[], body).await
    }

    /// A `POST` that is carried out once: under the given key, or one of its own.
    pub(super) async fn post_once(&self, path: &str, body: Option<Bytes>, key: Option<&str>) -> Result<Response> {
        let own = new_key();
        match key.map(str::to_owned).or(own) {
            Some(key) => self.again(path, &[("idempotency-key", &key)], body).await,
            // A machine without randomness: sent once.
            None => self.send(Method::POST, path, &[], body).await,
        }
    }

    async fn again(&self, path: &str, headers: &[(&str, &str)], body: Option<Bytes>) -> Result<Response> {
        let mut tries = 0;
        loop {
            match self.send(Method::POST, path, headers, body.clone()).await {
                Err(failure) if failure.is_unknown() && tries < AGAIN => tries += 1,
                done => return done,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The answer as one object.
    pub(super) fn object(&self, response: &Response) -> Result<Object> {
        let foreign = || Failure::new(Exit::Unavailable, format!("{} does not answer as Helve does", self.url));
        Object::parse(&response.body).ok_or_else(foreign)
    }

    /// Shows one object: its JSON, or its fields one below the other.
    pub(super) fn show(&self, response: &Response) -> Result<()> {
        if self.json {
            return Ok(out::line(&String::from_utf8_lossy(&response.body))?);
        }
        self.show_fields(&self.object(response)?)
    }

    pub(super) fn show_fields(&self, object: &Object) -> Result<()> {
        // What somebody gave is shown as it is; of what the engine keeps beside it nothing is worth no line.
        let given = |name: &str| matches!(name, "input" | "output" | "payload");
        let is_shown = |(name, value): &(&str, &str)| given(name) || !matches!(*value, "{}" | "[]");
        let fields: Vec<_> = object.fields().filter(is_shown).collect();
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, raw) in fields {
            out::line(&format!("{:<width$}  {}", out::plain(name), out::plain(&self.field(object, name, raw))))?;
        }
        Ok(())
    }

    /// A field for people.
    fn field(&self, object: &Object, name: &str, raw: &str) -> String {
        let inner = || object.object(name);
        match name {
            "error" if raw.starts_with('{') => said_of_error(&inner()),
            "last_loss" => self.said_of_loss(&inner()),
            "run_at" if self.is_due(raw) => {
                format!("overdue by {}", self.both_times(&readable(raw)).replacen(" ago", "", 1))
            }
            _ if name.ends_with("_at") => self.both_times(&readable(raw)),
            _ => readable(raw),
        }
    }

    /// Whether a time is over: what waits for it is about to happen.
    fn is_due(&self, raw: &str) -> bool {
        !self.utc && time::micros(&readable(raw)).is_some_and(|at| at <= self.now())
    }

    /// How a run lost its workers.
    fn said_of_loss(&self, loss: &Object) -> String {
        let times = match loss.number("times") {
            1 => "once".to_owned(),
            n => format!("{n} times, the last time"),
        };
        let worker = loss.text("worker").map(|worker| format!(" on {worker}")).unwrap_or_default();
        format!("{times} {}: attempt {}{worker}, {}", self.time(loss, "at"), loss.cell("attempt"), loss.cell("reason"))
    }

    fn now(&self) -> i64 {
        self.clock.now().micros()
    }

    /// A time in a table: how long ago, or in UTC.
    pub(super) fn time(&self, object: &Object, field: &str) -> String {
        let Some(at) = object.text(field).and_then(|text| time::micros(&text)) else { return String::new() };
        if self.utc { time::absolute(at) } else { time::relative(at, self.now()) }
    }

    fn both_times(&self, text: &str) -> String {
        match time::micros(text) {
            Some(at) if !self.utc => format!("{} ({text})", time::relative(at, self.now())),
            _ => text.to_owned(),
        }
    }

    /// How long a run has been at work, or was.
    pub(super) fn took(&self, object: &Object) -> String {
        let at = |field| object.text(field).and_then(|text| time::micros(&text));
        match (at("started_at"), at("finished_at")) {
            (Some(start), Some(end)) => time::length(end - start),
            (Some(start), None) => time::length((self.now() - start).max(0)),
            _ => String::new(),
        }
    }
}

/// The message, with what decides whether it is retried.
fn said_of_error(error: &Object) -> String {
    let code = error.text("code").map(|code| format!("code {code}"));
    let retried = match error.raw("retryable") {
        Some("false") => Some("not to be retried".to_owned()),
        _ => None,
    };
    let more: Vec<_> = code.into_iter().chain(retried).collect();
    let message = error.cell("message");
    if more.is_empty() { message } else { format!("{message} ({})", more.join(", ")) }
}

fn new_key() -> Option<String> {
    let half = || getrandom::u64().ok();
    Some(format!("cli-{:016x}{:016x}", half()?, half()?))
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::Timestamp;

    use super::*;

    #[test]
    fn what_a_run_went_through_reads_as_words() {
        let now = Timestamp::from_micros(1_796_041_612_000_000);
        let engine = Engine {
            http: Http::new("http://127.0.0.1:1", None).unwrap(),
            url: String::new(),
            source: String::new(),
            json: false,
            utc: false,
            clock: Clock::manual(now),
        };
        let object = Object::parse(
            br#"{"run_at":"2026-11-30T12:26:49Z","error":{"message":"boom","code":"x","retryable":false},
                "last_loss":{"attempt":3,"worker":"wrk_1","at":"2026-11-30T12:26:47Z","reason":"worker_lost","times":2},
                "finished_at":"2026-11-30T12:26:50Z","input":"\"a\""}"#,
        )
        .unwrap();
        let read = |name: &str| engine.field(&object, name, object.raw(name).unwrap());
        assert_eq!(read("run_at"), "overdue by 3s (2026-11-30T12:26:49Z)");
        assert_eq!(read("error"), "boom (code x, not to be retried)");
        assert_eq!(read("last_loss"), "2 times, the last time 5s ago: attempt 3 on wrk_1, worker_lost");
        assert_eq!(read("finished_at"), "2s ago (2026-11-30T12:26:50Z)");
    }
}
