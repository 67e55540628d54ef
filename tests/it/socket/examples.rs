//! The example workers do what their readers will copy: work, and come back after the engine's restart.

use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tokio::process::{Child, Command};

use crate::support::{Engine, engine, until_within, wanted_python};

fn start(mut command: Command, engine: &Engine) -> Child {
    command.env("HELVE_URL", &engine.url).env("HELVE_TOKEN", &engine.token).env("NO_PROXY", "127.0.0.1");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).kill_on_drop(true);
    command.spawn().unwrap()
}

async fn works(engine: &Engine, child: &mut Child) {
    until_within("the worker has registered its workflow", std::time::Duration::from_secs(20), || async {
        let (status, workers) = engine.get("/v1/workers").await;
        (status == 200 && workers["items"].as_array().is_some_and(|w| !w.is_empty())).then_some(())
    })
    .await;
    let runs: Vec<_> = (0..20).map(|i| json!({"workflow": "resize", "input": {"url": format!("{i}.png")}})).collect();
    let (status, created) = engine.post("/v1/runs/bulk", json!({ "runs": runs })).await;
    assert_eq!(status, 200, "{created}");
    for (i, item) in created["results"].as_array().unwrap().iter().enumerate() {
        let run = engine.run_is(&item["run"]["id"], "succeeded").await;
        assert!(run["output"]["resized"].to_string().contains(&format!("{i}.png")), "{run}");
    }
    assert!(child.try_wait().unwrap().is_none(), "the worker still runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_worker_works() {
    let engine = engine().await;
    // Cargo builds examples together with tests.
    let path = Path::new(env!("CARGO_BIN_EXE_helve")).with_file_name("examples").join("worker");
    let mut child = start(Command::new(path), &engine);
    works(&engine, &mut child).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_worker_works() {
    let Some(python) = wanted_python() else { return };
    let engine = engine().await;
    let mut command = Command::new(python);
    command.arg("examples/worker.py");
    let mut child = start(command, &engine);
    works(&engine, &mut child).await;
}

/// The worker of the README, with some of its words replaced.
fn readme(engine: &Engine, changes: &[(&str, &str)]) -> Command {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut text = page.split("```python worker\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "the README's worker has no `{from}`");
        text = text.replace(from, to);
    }
    let mut command = Command::new("python3");
    command.args(["-u", "-c", &text]).stdout(Stdio::piped());
    command.env("HELVE_URL", &engine.url).env("HELVE_TOKEN", &engine.token).env("NO_PROXY", "127.0.0.1");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn has_python() -> bool {
    let found = Command::new("python3").args(["-c", "import websockets.asyncio.client"]).output().await;
    let found = found.is_ok_and(|out| out.status.success());
    assert!(found || std::env::var_os("CI").is_none(), "CI has python3 with the package `websockets`");
    found
}

/// The lines that the worker prints, as they come.
fn lines(child: &mut Child) -> tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>> {
    tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readmes_worker_fails_what_is_not_json_and_says_goodbye() {
    if !has_python().await {
        return eprintln!("not run: python3 with the package `websockets` is not there");
    }
    let engine = engine().await;
    engine.workflow("hello").await;
    let mut child =
        readme(&engine, &[("f\"Hello, {input['name']}!\"", "input['name'] or float('nan')")]).spawn().unwrap();
    let broken = engine.trigger("hello", json!({"name": ""})).await;
    let run = engine.run_is(&broken["id"], "failed").await;
    assert!(run["error"]["message"].as_str().unwrap().contains("not JSON compliant"), "{run}");
    let good = engine.trigger("hello", json!({"name": "Ada"})).await;
    let run = engine.run_is(&good["id"], "succeeded").await;
    assert_eq!((&run["output"]["greeting"], &run["attempt"]), (&json!("Ada"), &json!(1)));
    let pid = nix::unistd::Pid::from_raw(child.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    // Without a goodbye it would stand there for the grace of 15 s.
    until_within("it has left", std::time::Duration::from_secs(10), || async {
        engine.get("/v1/workers").await.1["items"].as_array().is_some_and(Vec::is_empty).then_some(())
    })
    .await;
    let ended =
        until_within("it ends", std::time::Duration::from_secs(10), || std::future::ready(child.try_wait().unwrap()))
            .await;
    assert!(ended.success(), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readmes_worker_shows_a_refusal_and_waits_before_it_comes_back() {
    if !has_python().await {
        return eprintln!("not run: python3 with the package `websockets` is not there");
    }
    let engine = engine().await;
    let mut child = readme(&engine, &[("\"protocol\": 1", "\"protocol\": 2")]).spawn().unwrap();
    let mut lines = lines(&mut child);
    let started = tokio::time::Instant::now();
    for _ in 0..6 {
        let line = tokio::time::timeout(std::time::Duration::from_secs(20), lines.next_line()).await.unwrap();
        let refused = line.unwrap().unwrap();
        assert_eq!(refused, "refused: this engine speaks protocol 1; got 2 /protocol");
        assert!(lines.next_line().await.unwrap().unwrap().starts_with("closed: 4400 "));
    }
    // Five random waits below 2 s, of which the chance that all are short is one in millions, and the engine's own.
    assert!(started.elapsed() > std::time::Duration::from_millis(300), "{:?}", started.elapsed());
}

/// A socket that is refused is told in one line, by both of the workers in Python.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_worker_that_is_refused_says_why_without_a_stack_trace() {
    let Some(python) = wanted_python() else { return };
    let engine = engine().await;
    let mut example = Command::new(python);
    example.arg("examples/worker.py").current_dir(env!("CARGO_MANIFEST_DIR"));
    for mut worker in [example, readme(&engine, &[])] {
        worker.env("HELVE_URL", &engine.url).env("HELVE_TOKEN", "helve_wrong").env("NO_PROXY", "127.0.0.1");
        worker.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(std::time::Duration::from_secs(20), worker.output()).await.unwrap().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("401") && said.contains("unauthenticated") && !said.contains("Traceback"), "{said}");
    }
}
