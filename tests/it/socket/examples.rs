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
