//! A lane's statement is put together for what its batch contains. Every combination must do to each of its rows what
//! a batch of that row alone does: no part may be missing, or need one that is not there.

use std::sync::Arc;
use std::time::Duration;

use helve::db::lane::{CreateRows, FinishRows, LaneConnection, LaneName};
use helve_domain::change::{Body, CreateKey, InsertRow, NewEventRow, NewRunRow, Unusual};
use helve_domain::clock::Clock;
use helve_domain::id::{EventId, RunId, TenantId};
use helve_domain::json::Payload;
use helve_domain::status::RunStatus;

use super::rows::{Change, Known, create, holder, large, new_run, place, running};
use super::{Standing, World};

/// What a batch of the finish lane may contain.
const CHANGES: usize = 8;

/// A run as it is before the n-th of the changes, and the change.
fn change(n: usize, tenant: TenantId) -> (InsertRow, Change) {
    let small = || Payload::empty_object();
    let run = |place| new_run(tenant, place, None, small());
    let held = || run(running(1, holder()));
    let queued = || run(place(RunStatus::Queued, 0));
    match n {
        0 => with(queued(), |known| known.end_with(RunStatus::Succeeded, small())),
        1 => with(held(), Known::finish),
        2 => with(queued(), Known::cancel),
        3 => with(queued(), |known| known.claim(holder())),
        4 => with(held(), Known::free_slot),
        5 => with(held(), Known::retry),
        6 => with(run(place(RunStatus::Parked, 1)), Known::unpark),
        _ => with(queued(), |known| known.end_with(RunStatus::Failed, small())),
    }
}

fn with(row: InsertRow, change: impl FnOnce(&Known) -> Change) -> (InsertRow, Change) {
    let change = change(&Known::of(&row));
    (row, change)
}

/// Who holds a run differs from one to the next.
fn without_session(mut standing: Standing) -> Standing {
    if let Some(open) = &mut standing.open {
        open.3 = open.3.take().map(|_| String::new());
    }
    standing
}

async fn of(world: &World, run: RunId) -> Standing {
    without_session(world.standing(run).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_batch_of_changes_does_what_its_changes_do_alone() {
    let world = World::new().await;
    let node = world.node().await;
    let mut creates = world.lane(node.id, LaneName::Create).await;
    let mut finishes = world.lane(node.id, LaneName::Finish).await;
    let tenant = TenantId::generate(Clock::system().now());
    let mut alone = Vec::new();
    for n in 0..CHANGES {
        let (row, change) = change(n, tenant);
        create(&mut creates, &row).await.unwrap();
        assert_eq!(change.apply(&mut finishes).await, Ok(true), "change {n}");
        alone.push(of(&world, row.run.id).await);
    }
    assert_eq!(alone.iter().filter(|s| s.payloads > 0).count(), 1, "one output stands apart");
    assert_eq!(alone.iter().filter(|s| !s.traces.is_empty()).count(), 3, "a cancel, a retry and an unparked run");
    for subset in 1..1_usize << CHANGES {
        let numbers: Vec<usize> = (0..CHANGES).filter(|n| subset >> n & 1 == 1).collect();
        let changes: Vec<(InsertRow, Change)> = numbers.iter().map(|n| change(*n, tenant)).collect();
        let mut rows = CreateRows::at(Clock::system().now());
        changes.iter().for_each(|(row, _)| rows.run(row));
        creates.create(&rows).await.unwrap();
        let mut rows = FinishRows::at(Clock::system().now());
        changes.iter().for_each(|(_, change)| change.add_to(&mut rows));
        let mut outcome = finishes.finish(&rows).await.unwrap_or_else(|e| panic!("{numbers:?}: {e:?}"));
        for (n, (row, _)) in numbers.iter().zip(&changes) {
            assert!(outcome.take(row.run.id).is_some(), "change {n} of {numbers:?} is reported");
            assert_eq!(of(&world, row.run.id).await, alone[*n], "change {n} of {numbers:?}");
        }
    }
}

/// What a batch of the create lane may contain.
const CREATIONS: usize = 6;

enum Creation {
    Run(InsertRow),
    Event(NewEventRow, Vec<InsertRow>),
}

fn creation(n: usize, tenant: TenantId) -> Creation {
    let small = Payload::empty_object;
    let queued = |key, input| new_run(tenant, place(RunStatus::Queued, 0), key, input);
    let key = || {
        let key = RunId::generate(Clock::system().now()).to_string();
        Some(CreateKey { tenant, scope: "work".into(), key: key.into(), body_hash: [7; 32] })
    };
    match n {
        0 => Creation::Run(queued(None, small())),
        1 => Creation::Run(queued(None, large())),
        2 => Creation::Run(queued(key(), small())),
        3 => {
            let row = queued(None, small());
            let replay_of = Some(RunId::generate(Clock::system().now()));
            let extra = Unusual { replay_of, ..Unusual::default() }.into();
            Creation::Run(InsertRow { run: NewRunRow { extra, ..row.run }, ..row })
        }
        4 => event(tenant, None),
        _ => event(tenant, key()),
    }
}

/// An event that starts one run.
fn event(tenant: TenantId, create_key: Option<CreateKey>) -> Creation {
    let id = EventId::generate(Clock::system().now());
    let row = new_run(tenant, place(RunStatus::Queued, 0), None, Payload::empty_object());
    let run = NewRunRow { extra: Unusual { event: Some(id), ..Unusual::default() }.into(), ..row.run };
    let body = Arc::new(Body { input: large(), metadata: Payload::empty_object(), traceparent: None });
    let (key, runs) = ("order.paid".to_owned(), vec![run.clone()]);
    let event = NewEventRow { id, tenant, key, source: None, create_key, body, replay_of: None, skipped: None, runs };
    let provided = event.provided();
    Creation::Event(event, vec![InsertRow { run, provided, ..row }])
}

impl Creation {
    fn add_to<'a>(&'a self, rows: &mut CreateRows<'a>) {
        let later = Clock::system().now().plus(Duration::from_secs(3_600));
        match self {
            Self::Run(row) => {
                row.run.key.iter().for_each(|key| rows.key(key, row.run.id.uuid(), later));
                rows.run(row);
            }
            Self::Event(event, runs) => {
                event.create_key.iter().for_each(|key| rows.key(key, event.id.uuid(), later));
                rows.event(event);
                runs.iter().for_each(|row| rows.run(row));
            }
        }
    }

    fn run(&self) -> RunId {
        match self {
            Self::Run(row) => row.run.id,
            Self::Event(_, runs) => runs[0].run.id,
        }
    }

    /// How the run stands, and of how many events it is said that they started it.
    async fn standing(&self, world: &World) -> (Standing, i64) {
        let events = "select count(*) from event where $1::text::uuid = any(runs) and octet_length(payload) > 1000";
        let events = world.control.query_one(events, &[&self.run().uuid().to_string()]).await.unwrap();
        (of(world, self.run()).await, events.get(0))
    }
}

async fn written(lane: &mut LaneConnection, creations: &[Creation]) -> bool {
    let mut rows = CreateRows::at(Clock::system().now());
    creations.iter().for_each(|creation| creation.add_to(&mut rows));
    let won = lane.create(&rows).await.unwrap();
    creations.iter().all(|creation| match creation {
        Creation::Run(row) => won.admits(row.provided),
        Creation::Event(event, _) => won.admits(event.provided()),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_batch_of_creates_does_what_its_creates_do_alone() {
    let world = World::new().await;
    let node = world.node().await;
    let mut lane = world.lane(node.id, LaneName::Create).await;
    let tenant = TenantId::generate(Clock::system().now());
    let mut alone = Vec::new();
    for n in 0..CREATIONS {
        let creation = [creation(n, tenant)];
        assert!(written(&mut lane, &creation).await, "creation {n}");
        alone.push(creation[0].standing(&world).await);
    }
    assert!(alone.iter().all(|(standing, _)| standing.open.is_some()), "{alone:?}");
    assert_eq!(
        alone.iter().map(|(s, events)| (s.payloads, *events)).collect::<Vec<_>>(),
        [(0, 0), (1, 0), (0, 0), (0, 0), (0, 1), (0, 1)]
    );
    for subset in 1..1_usize << CREATIONS {
        let numbers: Vec<usize> = (0..CREATIONS).filter(|n| subset >> n & 1 == 1).collect();
        let batch: Vec<Creation> = numbers.iter().map(|n| creation(*n, tenant)).collect();
        assert!(written(&mut lane, &batch).await, "{numbers:?}");
        for (n, creation) in numbers.iter().zip(&batch) {
            assert_eq!(creation.standing(&world).await, alone[*n], "creation {n} of {numbers:?}");
        }
        // Sent again, what has a key is not written; a key says nothing about the others.
        let keyed = numbers.iter().any(|n| matches!(n, 2 | 5));
        let again: Vec<Creation> = batch.into_iter().filter(|c| c.is_keyed()).collect();
        assert!(!keyed || !written(&mut lane, &again).await, "{numbers:?}");
    }
}

impl Creation {
    fn is_keyed(&self) -> bool {
        match self {
            Self::Run(row) => row.run.key.is_some(),
            Self::Event(event, _) => event.create_key.is_some(),
        }
    }
}
