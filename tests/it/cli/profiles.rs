//! Which engine is meant, and the file of profiles.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Person, rows};
use crate::support::engine;

/// Nothing listens there.
const NOWHERE: &str = "http://127.0.0.1:1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_goes_before_the_environment_and_that_before_the_current_profile() {
    let engine = engine().await;
    let mut person = Person::new();
    person.secrets = vec![engine.token.clone(), "helve_other".to_owned()];
    person.is_refused(&["runs", "list"], 2, "no engine is named").await;
    for (name, url, token) in [("good", engine.url.as_str(), engine.token.as_str()), ("bad", NOWHERE, "helve_other")] {
        let set = person.run_with(&["profile", "set", name, "--url", url], &format!("{token}\n")).await;
        assert_eq!(set.code, 0, "{set:?}");
    }
    let file = person.home.join(".config/helve/config.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(rows(&person.prints(&["profile", "list"]).await)[2], ["*", "good", &engine.url]);

    person.prints(&["runs", "list"]).await;
    person.is_refused(&["runs", "list", "--profile", "bad"], 5, NOWHERE).await;
    person.is_refused(&["runs", "list", "--profile", "none"], 2, "bad, good").await;
    let elsewhere = person.clone().with("HELVE_URL", NOWHERE).with("HELVE_TOKEN", "helve_other");
    elsewhere.is_refused(&["runs", "list"], 5, NOWHERE).await;
    elsewhere.prints(&["runs", "list", "--profile", "good"]).await;
    // A token is not sent to the URL of another source.
    person.clone().with("HELVE_URL", &engine.url).is_refused(&["runs", "list"], 2, "HELVE_TOKEN").await;
    person.clone().with("HELVE_TOKEN", &engine.token).is_refused(&["runs", "list"], 2, "HELVE_URL").await;

    person.prints(&["profile", "use", "bad"]).await;
    person.is_refused(&["runs", "list"], 5, NOWHERE).await;
    person.prints(&["profile", "remove", "bad"]).await;
    assert!(!fs::read_to_string(&file).unwrap().contains("helve_other"));
    person.is_refused(&["runs", "list"], 2, "no engine is named").await;
    person.is_refused(&["profile", "use", "bad"], 2, "bad").await;

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let warned = person.run(&["runs", "list", "--profile", "good"]).await;
    assert!(warned.code == 0 && warned.err.contains("chmod 600"), "{warned:?}");
    fs::write(&file, format!("{{\"profiles\": {{\"x\": \"{}\"}}}}", engine.token)).unwrap();
    person.is_refused(&["runs", "list"], 2, "line 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_profile_is_refused_before_it_is_kept() {
    let person = Person::new();
    for (name, url, token, says) in [
        ("x", "ftp://h", "helve_a", "base URL"),
        ("x", "http://h/v1", "helve_a", "base URL"),
        ("x", NOWHERE, "", "helve token create"),
        ("x", NOWHERE, "hunter2", "helve token create"),
        ("x", NOWHERE, "helve_a b", "helve token create"),
        ("a b", NOWHERE, "helve_a", "letters"),
    ] {
        let done = person.run_with(&["profile", "set", name, "--url", url], token).await;
        assert!(done.code == 2 && done.err.contains(says) && !done.err.contains("hunter2"), "{url} {token}: {done:?}");
    }
    assert!(!person.home.join(".config").exists());
    let far = person.run_with(&["profile", "set", "far", "--url", "http://helve.example"], "helve_a").await;
    assert!(far.code == 0 && far.err.contains("not https"), "{far:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_helve_dev_nothing_has_to_be_said() {
    let engine = engine().await;
    let port = engine.url.rsplit(':').next().unwrap();
    let mut person = Person::new();
    person.secrets.push(engine.token.clone());
    // As `helve dev` leaves it.
    let data = person.home.join("data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("token"), format!("{}\n", engine.token)).unwrap();
    let person = person.with("HELVE_DATA_DIR", data.to_str().unwrap()).with("HELVE_PORT", port);
    person.prints(&["runs", "list"]).await;
    let wrong = person.with("HELVE_PORT", "1");
    wrong.is_refused(&["runs", "list"], 5, NOWHERE).await;
}
