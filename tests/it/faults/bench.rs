//! `helve bench --faults` as users run it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::helve;

#[test]
fn the_command_does_every_fault_and_finds_nothing() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("faults-{}.json", std::process::id()));
    let out = helve()
        .args(["bench", "--faults", "engine=2,postgres=1,cut=3", "--optimistic", "both", "--json"])
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, told) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{}\n{said}\n{told}", out.status);
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    println!("{said}");

    let modes = report["modes"].as_array().unwrap();
    assert_eq!(modes.iter().map(|m| &m["optimistic"]).collect::<Vec<_>>(), [true, false]);
    for mode in modes {
        let done = BTreeMap::from([
            ("engine killed", 2),
            ("postgres killed", 1),
            ("cut before the commit", 1),
            ("cut after the commit", 1),
            ("cut while the server executes", 1),
        ]);
        assert_eq!(mode["faults"], json!(done));
        assert_eq!((&mode["clean"], &mode["findings"]), (&json!(true), &json!({})));
        assert_eq!((&mode["n"], &mode["bound"]), (&json!(6), &json!(0.5)));
        assert!(mode["accepted"].as_u64().unwrap() > 150, "{mode}");
        assert_eq!(mode["longest_pause_ms"].as_object().unwrap().len(), done.len());
    }
    assert_eq!(said.matches("lost 0, stuck 0, doubly accepted 0, unjustified duplicates 0, unexpected 0").count(), 2);
    assert_eq!(said.matches("N = 6: one fault does harm with a probability below 0.500").count(), 2);
}

#[test]
fn what_is_not_known_is_refused() {
    for wrong in [&["--faults", "disk=1"][..], &["--faults", "engine=1", "--churn", "6"]] {
        let out = helve().arg("bench").args(wrong).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{wrong:?}");
    }
}
