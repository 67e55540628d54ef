//! The nginx configuration that is shipped, in front of three engines.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::cluster;
use crate::support::{Builder, Engine, Http, Worker, hello, until, wanted};

const CONF: &str = include_str!("../../../deploy/nginx.conf");
const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/platform/certs");

/// A running nginx; ended when dropped.
struct Nginx {
    /// Its plain address, `http://127.0.0.1:port`.
    url: String,
    /// The port of its TLS entry.
    tls: u16,
    dir: PathBuf,
    child: Child,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Replaces what must stand there, so that a test notices when the file has changed.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "deploy/nginx.conf has no `{from}`");
    text.replace(from, to)
}

impl Nginx {
    /// Starts nginx with the shipped file; only addresses and paths are those of the test.
    async fn start(program: &Path, engines: &[Engine]) -> Self {
        let (plain, tls) = (free_port(), free_port());
        let dir = std::env::temp_dir().join(format!("helve-nginx-{}-{plain}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut conf = replaced(CONF, "listen 443 ssl", &format!("listen 127.0.0.1:{tls} ssl"));
        conf = replaced(&conf, "listen 127.0.0.1:8080", &format!("listen 127.0.0.1:{plain}"));
        conf = replaced(&conf, "/etc/helve/tls/fullchain.pem", &format!("{CERTS}/server.pem"));
        conf = replaced(&conf, "/etc/helve/tls/privkey.pem", &format!("{CERTS}/server.key"));
        for (port, engine) in [7733, 7734, 7735].iter().zip(engines) {
            let address = engine.url.strip_prefix("http://").unwrap();
            conf = replaced(&conf, &format!("server 127.0.0.1:{port} "), &format!("server {address} "));
        }
        let file = dir.join("nginx.conf");
        fs::write(&file, conf).unwrap();
        let child = Command::new(program)
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(dir.join("error.log"))
            .arg("-g")
            .arg(format!("daemon off; pid {};", dir.join("pid").display()))
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx starts");
        let url = format!("http://127.0.0.1:{plain}");
        let nginx = Self { url, tls, dir, child };
        let http = Http::new(&nginx.url, None);
        until("nginx answers", || async {
            let answer = http.try_request("GET", "/healthz", &[], "").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", fs::read_to_string(self.dir.join("error.log")).unwrap_or_default());
        }
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM);
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_engines_behind_the_shipped_configuration() {
    let (Some(program), Some(_)) = (wanted("nginx"), wanted("curl")) else { return };
    let engines = cluster(Builder::new(), 3).await;
    let nginx = Nginx::start(&program, &engines).await;
    let http = Http::new(&nginx.url, Some(&engines[0].token));
    let task = json!({"tasks": [{"name": "a"}]});
    assert_eq!(http.put("/v1/workflows/a", task).await.0, 200);
    // Sockets and requests go to all three in turn; whose shard it is does not matter.
    let mut workers = Vec::new();
    for number in 0..3 {
        let greeting = hello(&format!("w{number}"), &["a"], 1);
        workers.push(Worker::connect(&nginx.url, &engines[0].token, greeting).await);
    }
    for round in 0..6 {
        let body = json!({"workflow": "a", "input": round});
        let answer = http.post("/v1/runs?wait=30s", body);
        let work = async {
            let next = workers.iter_mut().map(|worker| {
                Box::pin(async move {
                    let task = worker.task().await;
                    worker.finish(&task, task["input"].clone()).await;
                })
            });
            futures_util::future::select_all(next).await;
        };
        let (answer, ()) = tokio::join!(answer, work);
        assert_eq!((answer.0, &answer.1["output"]), (200, &json!(round)), "{}", answer.1);
    }
    for worker in workers {
        worker.goodbye().await;
    }
    let runs = vec![json!({"workflow": "a", "input": "x".repeat(3_000)}); 1_000];
    let (status, bulk) = http.post("/v1/runs/bulk", json!({"runs": runs})).await;
    assert_eq!((status, bulk["results"].as_array().map(Vec::len)), (200, Some(1_000)));
    let run = http.post("/v1/runs", json!({"workflow": "a"})).await.1["id"].clone();
    let path = format!("/v1/runs/{}", run.as_str().unwrap());
    assert_eq!(http.post(&format!("{path}/cancel"), json!({})).await.0, 200);
    assert_eq!(http.get(&path).await.1["status"], "cancelled");
    // Nobody outside can speak as an engine.
    let secret = engines[1].scheduler().secret().reveal().to_owned();
    let headers = [("helve-peer", secret.as_str()), ("helve-hops", "9")];
    assert_eq!(http.post_with("/v1/runs", &headers, json!({"workflow": "a"})).await.0, 201);
    tls(&nginx).await;
    for engine in engines {
        engine.stop().await;
    }
}

/// The other entry is the same behind a certificate.
async fn tls(nginx: &Nginx) {
    let output = tokio::process::Command::new("curl")
        .args([
            "-sS",
            "--cacert",
            &format!("{CERTS}/ca.pem"),
            "--resolve",
            &format!("localhost:{}:127.0.0.1", nginx.tls),
        ])
        .arg(format!("https://localhost:{}/healthz", nginx.tls))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
