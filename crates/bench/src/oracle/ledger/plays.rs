//! What the load plays besides plain triggers: events, required labels, parked runs and pauses.

use std::collections::{BTreeMap, BTreeSet};

use helve_domain::clock::Timestamp;

use super::{Create, Facts, Fate, Fault, Ledger, Nonce, Plan, RunId};

/// An event's id in its text form.
pub type EventId = String;

/// The action of the load, and its workflow.
pub const ACTION: &str = "load";
/// The second workflow that an event of [`Topic::Two`] starts.
pub const PAIR: &str = "load-pair";
/// The workflow whose runs are parked when their attempts are spent.
pub const PARKING: &str = "load-parking";
/// Its retries: each time it is unparked it has one attempt more.
pub const PARK_RETRIES: u32 = 1;
/// The workflow that is paused and resumed.
pub const PAUSING: &str = "load-pausing";
/// The workflow that requires a label itself.
pub const ZONED: &str = "load-zoned";

/// What is played. Each play must occur, or the verdict proves nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Play {
    /// An event in a request of its own was accepted.
    PushedAlone,
    /// An event as an item of a bulk was accepted.
    PushedInBulk,
    /// An event was sent again under its source's id.
    PushedAgain,
    /// An event was refused.
    PushRefused,
    /// A run that requires a label was accepted.
    Labelled,
    /// A worker changed its labels.
    Relabelled,
    /// A run was seen parked.
    Parked,
    /// An unpark was answered.
    Unparked,
    /// A run was left parked after it had been unparked once.
    LeftParked,
    /// A pause was answered, runs were accepted during it, and it was resumed.
    Paused,
    /// One of those pauses was in force when a fault was injected.
    StoodOver,
}

impl Play {
    /// Everything that a load plays by itself.
    pub const ALL: [Self; 10] = [
        Self::PushedAlone,
        Self::PushedInBulk,
        Self::PushedAgain,
        Self::PushRefused,
        Self::Labelled,
        Self::Relabelled,
        Self::Parked,
        Self::Unparked,
        Self::LeftParked,
        Self::Paused,
    ];

    /// Its name in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PushedAlone => "events pushed alone",
            Self::PushedInBulk => "events pushed in bulk",
            Self::PushedAgain => "events sent again",
            Self::PushRefused => "events refused",
            Self::Labelled => "runs with a required label",
            Self::Relabelled => "label changes",
            Self::Parked => "runs parked",
            Self::Unparked => "runs unparked",
            Self::LeftParked => "runs left parked",
            Self::Paused => "pauses with runs waiting",
            Self::StoodOver => "of these over a fault",
        }
    }
}

/// The topic of an event, which decides which runs it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// One workflow matches.
    One,
    /// Two workflows match.
    Two,
    /// No workflow matches: the event is stored all the same.
    Nobody,
    /// Its key is not a valid name: it must be refused.
    Wrong,
}

impl Topic {
    /// The event's key.
    pub const fn key(self) -> &'static str {
        match self {
            Self::One => "load.one",
            Self::Two => "load.two",
            Self::Nobody => "other.topic",
            Self::Wrong => "no name",
        }
    }

    /// The workflows of which it starts one run each, in order.
    pub const fn workflows(self) -> &'static [&'static str] {
        match self {
            Self::One => &[ACTION],
            Self::Two => &[ACTION, PAIR],
            Self::Nobody | Self::Wrong => &[],
        }
    }
}

/// One intended event.
#[derive(Debug, Clone)]
pub struct Push {
    /// Its topic.
    pub topic: Topic,
    /// What the tasks of its runs do.
    pub plan: Plan,
    /// Whether it was part of a bulk.
    pub bulk: bool,
    /// What the client knows.
    pub fate: Fate,
    /// How often it was sent.
    pub sent: u32,
    /// Every event id that an answer named.
    pub events: BTreeSet<EventId>,
    /// Every run id that an answer named.
    pub runs: BTreeSet<RunId>,
}

/// What happened to a run that is parked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parking {
    /// How often a client saw it parked.
    pub seen: u32,
    /// Whether an unpark was sent.
    pub asked: bool,
    /// Whether it was answered.
    pub answered: bool,
}

/// One pause of the workflow [`PAUSING`].
#[derive(Debug, Clone, Copy)]
pub struct Pause {
    /// When it was answered.
    pub from: Timestamp,
    /// When a resume was first sent; `None`: the pause is still in force.
    pub until: Option<Timestamp>,
    /// Runs that were accepted during it.
    pub waiting: u32,
}

/// A label that a run requires of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Required {
    /// The label.
    pub key: &'static str,
    /// Its value.
    pub value: &'static str,
}

impl Required {
    /// The label that never changes on a worker.
    pub const ZONE: &'static str = "zone";
    /// The label that changes now and then.
    pub const SHIFT: &'static str = "shift";
    /// What the workflow [`ZONED`] requires.
    pub const BY_WORKFLOW: Self = Self { key: Self::ZONE, value: ZONES[1] };

    /// A requirement that a run may bring.
    pub const fn number(n: u64) -> Self {
        match n % 4 {
            0 => Self { key: Self::ZONE, value: ZONES[0] },
            1 => Self { key: Self::ZONE, value: ZONES[1] },
            2 => Self { key: Self::SHIFT, value: SHIFTS[0] },
            _ => Self { key: Self::SHIFT, value: SHIFTS[1] },
        }
    }
}

const ZONES: [&str; 2] = ["a", "b"];
const SHIFTS: [&str; 2] = ["day", "night"];

/// The labels of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labels {
    /// Never changes.
    pub zone: &'static str,
    /// Changes now and then.
    pub shift: &'static str,
}

impl Labels {
    /// Those of the worker with this number: any two consecutive workers cover each zone and each shift.
    pub const fn of_worker(number: u32) -> Self {
        let index = if number.is_multiple_of(2) { 0 } else { 1 };
        Self { zone: ZONES[index], shift: SHIFTS[index] }
    }

    /// After a change of the shift.
    #[must_use]
    pub fn changed(self) -> Self {
        Self { shift: if self.shift == SHIFTS[0] { SHIFTS[1] } else { SHIFTS[0] }, ..self }
    }

    /// Whether a run with this requirement may start on a worker with these labels.
    pub fn fit(self, required: Required) -> bool {
        let has = if required.key == Required::ZONE { self.zone } else { self.shift };
        has == required.value
    }

    /// In the form of a frame.
    pub fn to_json(self) -> serde_json::Value {
        serde_json::json!({Required::ZONE: self.zone, Required::SHIFT: self.shift})
    }
}

impl Ledger {
    /// A new intended event; its fate is `Maybe` until it is known.
    pub fn intend_event(&self, topic: Topic, plan: Plan, bulk: bool) -> Nonce {
        let mut facts = self.facts();
        let nonce = facts.next_nonce();
        let (events, runs) = (BTreeSet::new(), BTreeSet::new());
        facts.pushes.insert(nonce, Push { topic, plan, bulk, fate: Fate::Maybe, sent: 0, events, runs });
        nonce
    }

    /// An event is sent, for the first time or again.
    pub fn sends(&self, nonce: Nonce) {
        if let Some(push) = self.facts().pushes.get_mut(&nonce) {
            push.sent += 1;
        }
    }

    /// A push was answered with this event and these runs.
    pub fn pushed(&self, nonce: Nonce, event: &str, runs: impl IntoIterator<Item = RunId>) {
        if let Some(push) = self.facts().pushes.get_mut(&nonce) {
            push.fate = Fate::Accepted;
            push.events.insert(event.to_owned());
            push.runs.extend(runs);
        }
    }

    /// A push was refused, and nothing written.
    pub fn push_refused(&self, nonce: Nonce) {
        if let Some(push) = self.facts().pushes.get_mut(&nonce) {
            push.fate = Fate::Refused;
        }
    }

    /// A worker has these labels from now on, as it is about to announce. Call it *before* they are sent.
    pub fn labelled(&self, worker: &str, labels: Labels, from: Timestamp) {
        let mut facts = self.facts();
        let history = facts.labels.entry(worker.to_owned()).or_default();
        if history.last().is_none_or(|(_, last)| *last != labels) {
            history.push((from, labels));
        }
    }

    /// A client saw a run parked.
    pub fn seen_parked(&self, run: &str) {
        self.facts().parkings.entry(run.to_owned()).or_default().seen += 1;
    }

    /// An unpark is sent. Call it *before* that: the next attempt may come at once.
    pub fn asks_unpark(&self, run: &str) {
        self.facts().parkings.entry(run.to_owned()).or_default().asked = true;
    }

    /// An unpark was answered.
    pub fn unparked(&self, run: &str) {
        self.facts().parkings.entry(run.to_owned()).or_default().answered = true;
    }

    /// A pause was answered: from now on nothing may start.
    pub fn paused(&self) {
        let from = self.now();
        self.facts().pauses.push(Pause { from, until: None, waiting: 0 });
    }

    /// A run was accepted during the pause.
    pub fn waits(&self) {
        if let Some(pause) = self.facts().pauses.last_mut() {
            pause.waiting += 1;
        }
    }

    /// A resume is sent. Call it *before* that.
    pub fn resumes(&self) {
        let until = self.now();
        if let Some(pause) = self.facts().pauses.last_mut() {
            pause.until.get_or_insert(until);
        }
    }
}

impl Facts {
    /// How often each play occurred.
    pub fn played(&self) -> BTreeMap<Play, usize> {
        let accepted = |bulk: bool| self.pushes.values().filter(|p| p.bulk == bulk && p.fate == Fate::Accepted).count();
        let labelled = |c: &&Create| c.fate == Fate::Accepted && c.requires.is_some();
        let left = |c: &Create| {
            let parkings = c.runs.iter().filter_map(|run| self.parkings.get(run));
            c.plan == Plan::LeftParked && parkings.into_iter().any(|p| p.seen > 1)
        };
        let waited = |p: &Pause| p.until.is_some() && p.waiting > 0;
        let over = |p: &Pause, f: &Fault| p.from <= f.from && p.until.is_some_and(|until| f.until <= until);
        let again = |p: &Push| usize::try_from(p.sent.saturating_sub(1)).unwrap_or(usize::MAX);
        let count = |play| match play {
            Play::PushedAlone => accepted(false),
            Play::PushedInBulk => accepted(true),
            Play::PushedAgain => self.pushes.values().map(again).sum(),
            Play::PushRefused => self.pushes.values().filter(|p| p.fate == Fate::Refused).count(),
            Play::Labelled => self.creates.values().filter(labelled).count(),
            Play::Relabelled => self.labels.values().map(|history| history.len().saturating_sub(1)).sum(),
            Play::Parked => self.parkings.values().filter(|p| p.seen > 0).count(),
            Play::Unparked => self.parkings.values().filter(|p| p.answered).count(),
            Play::LeftParked => self.creates.values().filter(|c| left(c)).count(),
            Play::Paused => self.pauses.iter().filter(|p| waited(p)).count(),
            Play::StoodOver => {
                self.pauses.iter().filter(|p| waited(p) && self.faults.iter().any(|f| over(p, f))).count()
            }
        };
        Play::ALL.iter().chain([&Play::StoodOver]).map(|play| (*play, count(*play))).collect()
    }
}
