//! What the documents show is run as it stands there, and must answer as they say.
//!
//! A block `sh run` is a shell script, `python worker` a worker that serves the rest of its page, `.. output` what the
//! script before it prints (`..` stands for anything), `sql run` must execute, and `sql none` must find nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::{Child, Command};
use tokio_postgres::SimpleQueryMessage;

use crate::support::{Engine, Worker, engine, forget, helve, sql, until_within, wanted, wanted_python, worker};

const LIMIT: Duration = Duration::from_secs(60);

/// A fenced block of a page.
struct Block {
    kind: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match (line.strip_prefix("```"), open) {
            (Some(kind), false) => {
                blocks.push(Block { kind: kind.to_owned(), text: String::new() });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(!open, "{page}: a block is not closed");
    blocks
}

/// An engine as a page sees it.
struct Place {
    url: String,
    token: String,
    database: String,
}

impl Place {
    fn of(engine: &Engine) -> Self {
        Self { url: engine.url.clone(), token: engine.token.clone(), database: engine.database.clone() }
    }

    fn command(&self, program: &str) -> Command {
        let helve = Path::new(env!("CARGO_BIN_EXE_helve")).parent().unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path: Vec<PathBuf> = std::iter::once(helve.to_owned()).chain(std::env::split_paths(&path)).collect();
        let mut command = std::process::Command::new(program);
        forget(&mut command);
        let mut command = Command::from(command);
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("HELVE_URL", &self.url)
            .env("HELVE_TOKEN", &self.token)
            .env("DATABASE_URL", &self.database)
            // A page that keeps a profile keeps it here, and not for the user of this machine.
            .env(
                "XDG_CONFIG_HOME",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pages-{}", std::process::id())),
            )
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// What a script prints.
    async fn run(&self, script: &str) -> String {
        let mut bash = self.command("bash");
        let output = tokio::time::timeout(LIMIT, bash.args(["-eu", "-o", "pipefail", "-c", script]).output());
        let output = output.await.unwrap_or_else(|_| panic!("not within {LIMIT:?}:\n{script}")).unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}:\n{script}\n{out}{err}", output.status);
        out.into_owned()
    }
}

/// Plays a page from top to bottom.
async fn play(page: &str, place: &Place) {
    let mut workers: Vec<Child> = Vec::new();
    let (mut printed, mut played) = (String::new(), 0);
    for Block { kind, text } in blocks(page) {
        match kind.as_str() {
            "sh run" => printed = place.run(&text).await,
            "python worker" => workers.push(place.command("python3").args(["-c", &text]).spawn().unwrap()),
            "json output" | "text output" => assert_prints(&printed, &text, page),
            "sql run" => drop(sql(&place.database).await.simple_query(&text).await.unwrap()),
            _ => continue,
        }
        played += 1;
    }
    assert!(played > 0, "{page} shows nothing that can be run");
    for worker in &mut workers {
        assert!(worker.try_wait().unwrap().is_none(), "{page}: its worker has ended");
    }
}

/// Everything that is expected must be there, in its order; `..` stands for anything.
fn assert_prints(printed: &str, expected: &str, page: &str) {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (printed, expected) = (words(printed), words(expected));
    let parts: Vec<&str> = expected.split("..").collect();
    let mut rest = printed.as_str();
    for (i, part) in parts.iter().enumerate() {
        let at = match (i == 0, i + 1 == parts.len()) {
            (true, true) => (rest == *part).then_some(0),
            (true, false) => rest.starts_with(part).then_some(0),
            (false, true) => rest.ends_with(part).then(|| rest.len() - part.len()),
            (false, false) => rest.find(part),
        };
        let at = at.unwrap_or_else(|| panic!("{page}: expected `{part}` of\n{expected}\nin\n{printed}"));
        rest = &rest[at + part.len()..];
    }
}

/// The first minute of a new user, on what `helve dev` starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readme_works_as_it_stands() {
    if wanted("curl").is_none() || wanted_python().is_none() {
        return;
    }
    let mut dev = Command::from(helve())
        .args(["--log", "warn", "dev", "--ephemeral", "--port", "0", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(dev.stdout.take().unwrap()));
    let line = tokio::time::timeout(LIMIT, lines.next_line()).await.expect("it is ready in time").unwrap().unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let field = |name: &str| ready[name].as_str().unwrap().to_owned();
    play("README.md", &Place { url: field("url"), token: field("token"), database: field("database_url") }).await;

    let pid = nix::unistd::Pid::from_raw(dev.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = until_within("helve dev ends", LIMIT, || std::future::ready(dev.try_wait().unwrap())).await;
    assert!(ended.success(), "{ended}");
}

macro_rules! pages {
    ($($name:ident = $page:literal;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if wanted("curl").is_none() {
                return;
            }
            let engine = engine().await;
            play($page, &Place::of(&engine)).await;
        }
    )+};
}

pages! {
    the_guide_to_runs = "docs/guide/runs.md";
    the_guide_to_workflows = "docs/guide/workflows.md";
    the_guide_to_workers = "docs/guide/workers.md";
    the_guide_to_events = "docs/guide/events.md";
    the_guide_to_pauses = "docs/guide/pauses.md";
    the_guide_to_jobs = "docs/guide/jobs.md";
    the_guide_to_the_command_line = "docs/guide/cli.md";
    the_guide_to_errors = "docs/guide/errors.md";
    the_guide_to_operations = "docs/operations.md";
}

/// The statements of a block, without comments.
fn statements(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
    code.join("\n").split(';').map(str::to_owned).collect()
}

/// Rows that a query finds.
async fn found(database: &str, query: &str) -> usize {
    let messages = sql(database).await.simple_query(query).await.unwrap_or_else(|e| panic!("{e}: {query}"));
    messages.iter().filter(|m| matches!(m, SimpleQueryMessage::Row(_))).count()
}

/// Each kind of run: succeeded at once and after a retry, failed, cancelled, queued, scheduled, of an event, and one
/// that the worker holds.
async fn some_of_everything(engine: &Engine) -> Worker {
    engine.workflow_with("work", json!({"retries": {"count": 1, "base": "10ms"}})).await;
    let (status, _) = engine.put("/v1/workflows/heard", json!({"tasks": [{"name": "heard"}], "events": ["x"]})).await;
    assert_eq!(status, 200);
    let mut worker = worker(engine, &["work"], 2).await;
    let (good, bad) = (json!({"outcome": "succeeded"}), json!({"outcome": "failed", "error": {"message": "x"}}));
    for (outcomes, end) in [(vec![&good], "succeeded"), (vec![&bad, &good], "succeeded"), (vec![&bad, &bad], "failed")]
    {
        let run = engine.trigger("work", json!({})).await;
        for outcome in outcomes {
            let task = worker.task().await;
            worker.report(&task, outcome.clone()).await;
            worker.stored(&task).await;
        }
        engine.run_is(&run["id"], end).await;
    }
    engine.trigger("work", json!({})).await;
    for _ in 0..5 {
        let (status, event) = engine.post("/v1/events", json!({"key": "x"})).await;
        assert_eq!((status, event["runs"].as_array().unwrap().len()), (201, 1));
    }
    for cancelled in [true, false] {
        let (_, run) = engine.post("/v1/runs", json!({"workflow": "heard", "delay": "1h"})).await;
        if cancelled {
            let path = format!("/v1/runs/{}/cancel", run["id"].as_str().unwrap());
            assert_eq!(engine.post(&path, json!({})).await.0, 200);
        }
    }
    worker
}

/// The violations that an operator's queries are for, one each.
const WRONG: &str = "
    update event set runs = runs || gen_random_uuid() where id = (select id from event limit 1);
    update open_run set due = now() - interval '1 hour' where state = 0;
    insert into run_history select * from run_history h where h.id = (select id from run_history where state = 10 limit 1);
    insert into idempotency values (gen_random_uuid(), 'w', 'k', '', gen_random_uuid(), now() + interval '1 hour');
    update run_history set started_at = finished_at + interval '1 second' where state = 12;
    update run_history set attempt = attempt + 5 where state = 11;
    update run_history set worker = null where id = (select id from run_history where state = 10 limit 1);
    update worker set slots = '{\"default\": 0}';
    update open_run set session = gen_random_uuid() where id = (select min(id::text)::uuid from open_run where state = 1);
    update open_run set state = 5 where id = (select max(id::text)::uuid from open_run where state = 1);
    update open_run set id = (select id from run_history where state = 12 limit 1)
        where id = (select max(id::text)::uuid from open_run where state = 1);
    update open_run set state = 2, started_at = now() - interval '1 hour', session = gen_random_uuid()
        where id = (select max(id::text)::uuid from open_run where state = 1 and session is null);
    update run_history set state = 13 where state = 11";

/// A promise that holds is not blamed, and one that is broken is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checks_of_the_guarantees_find_nothing_but_what_is_wrong() {
    let checks: Vec<String> = blocks("docs/guarantees.md")
        .into_iter()
        .filter(|block| block.kind == "sql none")
        .flat_map(|block| statements(&block.text))
        .filter(|query| !query.trim().is_empty())
        .collect();
    assert!(checks.len() >= 10, "{checks:?}");
    let engine = engine().await;
    let database = engine.database.clone();
    let worker = some_of_everything(&engine).await;
    for query in &checks {
        assert_eq!(found(&database, query).await, 0, "{query}");
    }
    engine.stop().await;
    drop(worker);
    sql(&database).await.batch_execute(WRONG).await.unwrap();
    for query in &checks {
        assert!(found(&database, query).await > 0, "finds nothing where something is wrong: {query}");
    }
}
