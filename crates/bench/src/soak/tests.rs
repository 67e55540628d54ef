//! Verdicts on invented samples, and the account of an endless load.

use helve_domain::clock::Clock;

use super::*;

/// Ten minutes in 60 samples; memory and p99 as given for each.
fn samples(memory: impl Fn(f64) -> f64, p99: impl Fn(f64) -> f64) -> Vec<Sample> {
    let at = |n: u32| f64::from(n) * 10.0;
    let wobble = |n: u32| if n.is_multiple_of(2) { 0.5 } else { -0.5 };
    let sample = |n| Sample {
        seconds: at(n),
        runs_per_second: 500.0 + wobble(n),
        start_p99: p99(at(n)) + wobble(n) / 10.0,
        engine_mib: Some(memory(at(n)) + wobble(n)),
        ..Sample::default()
    };
    (1..=60).map(sample).collect()
}

fn verdict(samples: &[Sample], what: &str) -> Verdict {
    trends(samples, Duration::from_secs(600)).into_iter().find(|t| t.what == what).unwrap().verdict
}

#[test]
fn a_leak_is_found_and_noise_is_not_one() {
    let (flat, leak) = (samples(|_| 60.0, |_| 2.0), samples(|s| 60.0 + s / 60.0, |_| 2.0));
    assert_eq!(verdict(&flat, "memory of the engine"), Verdict::Steady);
    assert_eq!(verdict(&leak, "memory of the engine"), Verdict::Worsens);
    assert_eq!(verdict(&leak, "start latency p99"), Verdict::Steady);
    assert_eq!(verdict(&leak, "throughput"), Verdict::Steady);
    // A tenth of a MiB in ten minutes is beyond the noise of exact numbers, but does not matter.
    let tiny = samples(|s| 60.0 + s / 6_000.0, |_| 2.0);
    assert_eq!(verdict(&tiny, "memory of the engine"), Verdict::Steady);
}

#[test]
fn the_way_to_the_level_is_not_growth() {
    let filling = samples(|s| 60.0 + (s.min(100.0) / 2.0), |_| 2.0);
    assert_eq!(verdict(&filling, "memory of the engine"), Verdict::Steady);
}

#[test]
fn directions_differ_and_short_soaks_say_nothing() {
    let slower = samples(|_| 60.0, |s| 2.0 + s / 200.0);
    assert_eq!(verdict(&slower, "start latency p99"), Verdict::Worsens);
    let faster = samples(|_| 60.0, |s| 8.0 - s / 100.0);
    assert_eq!(verdict(&faster, "start latency p99"), Verdict::Improves);
    let found = trends(&slower[..12], Duration::from_secs(12));
    assert!(found.iter().all(|t| t.verdict == Verdict::TooShort), "{found:?}");
    // Without a database nothing is reported about its tables.
    assert!(!found.iter().any(|t| t.what == "table of open runs"));
}

#[test]
fn the_words_and_the_exit_follow_the_verdict() {
    let soak = |samples: Vec<Sample>| {
        let trends = trends(&samples, Duration::from_secs(600));
        Soak { optimistic: "on".to_owned(), seconds: 600.0, rate: 500, samples, trends }
    };
    let leak = soak(samples(|s| 60.0 + s / 60.0, |_| 2.0));
    assert!(
        !leak.is_steady() && leak.text().contains("MiB, +60.") && leak.text().contains("WORSENS"),
        "{}",
        leak.text()
    );
    let flat = soak(samples(|_| 60.0, |_| 2.0));
    assert!(flat.is_steady() && !flat.text().contains("NOT REACHED"), "{}", flat.text());
    let behind = Soak { rate: 1_000, ..flat };
    assert!(behind.text().contains("NOT REACHED: 500 of 1000 runs/s"), "{}", behind.text());
    assert_eq!(leak.chart("n").lines.len(), 1, "no table without a database");
}

#[test]
fn the_account_forgets_what_is_settled_and_keeps_what_is_not() {
    let clock = Clock::system();
    let ids: Vec<_> = (0..5).map(|_| RunId::generate(clock.now())).collect();
    let start = clock.instant();
    let schedule = Schedule::new(start, 100, WARM_UP, Duration::from_secs(6));
    let (log, mut account, mut latencies) = (Log::new(0), Account::default(), Latencies::new().unwrap());
    let heard = |ids: &[RunId], first| Heard {
        sent: Sent { accepted: ids.to_vec(), ..Sent::default() },
        numbers: (first..).take(ids.len()).collect(),
        answered: Latencies::new().unwrap(),
    };
    // 0 is settled at once, 1 after two looks, 2 is lost, 3 starts twice, 4 was never accepted.
    for (run, seconds) in [(0, 1), (1, 1), (3, 1), (3, 2), (4, 1)] {
        log.began(ids[run], start + Duration::from_secs(seconds));
    }
    log.ended(ids[0]);
    account.settle(&heard(&ids[..3], 0), &log, &schedule, &mut latencies);
    assert_eq!((account.open.len(), latencies.len()), (4, 1));
    assert!((latencies.percentile(50.0) - 1_000.0).abs() < 1.0, "from the intended time");
    log.ended(ids[1]);
    log.ended(ids[3]);
    account.settle(&heard(&ids[3..4], 3), &log, &schedule, &mut latencies);
    assert_eq!((account.accepted, account.repeated, latencies.len()), (4, 1, 3));
    let ledger = account.ledger(&Sent::default());
    let expected = Ledger::of_counts(&Sent::default(), 4, 1, 1, 1);
    assert_eq!(format!("{ledger:?}"), format!("{expected:?}"));
    let unanswered = Sent { unanswered: 1, ..Sent::default() };
    assert_eq!(
        format!("{:?}", account.ledger(&unanswered)),
        format!("{:?}", Ledger::of_counts(&unanswered, 4, 1, 1, 1))
    );
}
