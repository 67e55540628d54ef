//! Which faults `helve bench --faults` injects, how often, and in which order.

use crate::oracle::load::Dice;
use crate::oracle::proxy::{First, Way};
use crate::oracle::wire::Lane;

pub(super) const ENGINE: &str = "engine killed";
pub(super) const POSTGRES: &str = "postgres killed";
pub(super) const BEFORE: &str = "cut before the commit";
pub(super) const AFTER: &str = "cut after the commit";
pub(super) const WHILE: &str = "cut while the server executes";

/// The kinds of cuts take turns, and within each kind its variants and the lanes.
const CUTS: [(&str, Way, Lane); 12] = [
    (BEFORE, Way::Before, Lane::Create),
    (AFTER, Way::After, Lane::Finish),
    (WHILE, Way::While(First::Statement), Lane::Create),
    (BEFORE, Way::Uncommitted, Lane::Finish),
    (AFTER, Way::After, Lane::Create),
    (WHILE, Way::While(First::Engine), Lane::Finish),
    (BEFORE, Way::Before, Lane::Finish),
    (AFTER, Way::After, Lane::Finish),
    (WHILE, Way::While(First::Statement), Lane::Finish),
    (BEFORE, Way::Uncommitted, Lane::Create),
    (AFTER, Way::After, Lane::Create),
    (WHILE, Way::While(First::Engine), Lane::Create),
];

/// How often each fault is to happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    engine: u32,
    postgres: u32,
    cut: u32,
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut wanted = Self::default();
        for item in text.split(',') {
            let wrong = || format!("`{item}` is not engine=N, postgres=N or cut=N");
            let (name, number) = item.split_once('=').ok_or_else(wrong)?;
            let number = number.parse().ok().filter(|n| (1..=10_000).contains(n)).ok_or_else(wrong)?;
            let place = match name {
                "engine" => &mut wanted.engine,
                "postgres" => &mut wanted.postgres,
                "cut" => &mut wanted.cut,
                _ => return Err(wrong()),
            };
            if std::mem::replace(place, number) != 0 {
                return Err(format!("{name} is given twice"));
            }
        }
        Ok(wanted)
    }
}

/// One fault to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strike {
    Engine,
    Postgres,
    Cut(&'static str, Way, Lane),
}

impl Strike {
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Engine => ENGINE,
            Self::Postgres => POSTGRES,
            Self::Cut(kind, ..) => kind,
        }
    }
}

impl Wanted {
    /// All of them, in an order that looks random and is the same each time.
    pub(super) fn shuffled(self, dice: &mut Dice) -> Vec<Strike> {
        let cuts = CUTS.iter().cycle().map(|(kind, way, lane)| Strike::Cut(kind, *way, *lane));
        let mut all: Vec<_> = std::iter::repeat_n(Strike::Engine, index(self.engine))
            .chain(std::iter::repeat_n(Strike::Postgres, index(self.postgres)))
            .chain(cuts.take(index(self.cut)))
            .collect();
        for last in (1..all.len()).rev() {
            let bound = u64::try_from(last).unwrap_or(u64::MAX - 1) + 1;
            all.swap(last, usize::try_from(dice.below(bound)).unwrap_or(last));
        }
        all
    }
}

fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_read() {
        assert_eq!("engine=100,cut=5".parse(), Ok(Wanted { engine: 100, postgres: 0, cut: 5 }));
        for wrong in ["", "engine", "engine=0", "engine=-1", "disk=1", "engine=1,engine=2", "engine=1,", "cut=99999"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn everything_wanted_is_planned_and_mixed() {
        let wanted = Wanted { engine: 5, postgres: 4, cut: 12 };
        let plan = wanted.shuffled(&mut Dice::new(1));
        let count = |kind| plan.iter().filter(|s| s.kind() == kind).count();
        assert_eq!([ENGINE, POSTGRES, BEFORE, AFTER, WHILE].map(count), [5, 4, 4, 4, 4]);
        assert!(plan.windows(5).all(|part| part != [Strike::Engine; 5]), "{plan:?}");
        assert!(CUTS.iter().all(|(kind, way, lane)| plan.contains(&Strike::Cut(kind, *way, *lane))));
    }
}
