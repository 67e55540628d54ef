//! The shards that this process owns. They come and go: what was asked for during one tenure is worth nothing in the
//! next.

use std::time::Instant;

use helve_core::{Counters, Settings, Shard};

/// One time of owning a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sched) struct Tenure {
    pub shard: usize,
    term: u64,
}

/// An owned shard.
pub(in crate::sched) struct Owned {
    term: u64,
    pub state: Shard,
    /// It is handed over: until then it still takes requests.
    pub leaves_at: Option<Instant>,
}

/// One place for each shard.
pub(in crate::sched) struct Shards {
    places: Vec<Option<Owned>>,
    settings: Settings,
    terms: u64,
    /// What shards did that are no longer here.
    former: Counters,
}

impl Shards {
    /// None is owned yet.
    pub fn new(number: usize, settings: Settings) -> Self {
        Self { places: (0..number).map(|_| None).collect(), settings, terms: 0, former: Counters::default() }
    }

    /// Begins to own an empty shard.
    pub fn insert(&mut self, shard: usize) {
        self.terms += 1;
        if let Some(place) = self.places.get_mut(shard) {
            *place = Some(Owned { term: self.terms, state: Shard::new(self.settings.clone()), leaves_at: None });
        }
    }

    /// Forgets a shard.
    pub fn remove(&mut self, shard: usize) {
        if let Some(owned) = self.places.get_mut(shard).and_then(Option::take) {
            self.former.add(owned.state.counters());
        }
    }

    /// An owned shard.
    pub fn get(&self, shard: usize) -> Option<&Owned> {
        self.places.get(shard)?.as_ref()
    }

    /// An owned shard.
    pub fn get_mut(&mut self, shard: usize) -> Option<&mut Owned> {
        self.places.get_mut(shard)?.as_mut()
    }

    /// Every owned shard with its number.
    pub fn all(&self) -> impl Iterator<Item = (usize, &Owned)> {
        self.places.iter().enumerate().filter_map(|(shard, place)| Some((shard, place.as_ref()?)))
    }

    /// How many shards there are, owned or not.
    pub const fn places(&self) -> usize {
        self.places.len()
    }

    /// The numbers of the owned shards.
    pub fn numbers(&self) -> Vec<usize> {
        self.all().map(|(shard, _)| shard).collect()
    }

    /// The present time of owning this shard.
    pub fn tenure(&self, shard: usize) -> Option<Tenure> {
        Some(Tenure { shard, term: self.get(shard)?.term })
    }

    /// Whether it is still the same time.
    pub fn holds(&self, tenure: Tenure) -> bool {
        self.get(tenure.shard).is_some_and(|owned| owned.term == tenure.term)
    }

    /// What all shards did since the start of the process.
    pub fn counters(&self) -> Counters {
        let mut sum = self.former;
        self.all().for_each(|(_, owned)| sum.add(owned.state.counters()));
        sum
    }
}
