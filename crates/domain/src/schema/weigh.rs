//! What a pattern costs: for each byte that it is matched with, and in memory.
//!
//! The engine of regular expressions takes time linear in the text, but each byte may move every state of the pattern:
//! length times size is the bound, and a pattern of a few characters may be thousands of states. A pattern is measured
//! in the form in which the validator compiles it.

use regex_syntax::hir::{Class, Hir, HirKind};

/// What a pattern costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    /// For each byte: about how many states may be active at once.
    pub(super) time: usize,
    /// Bytes when it is compiled and in use.
    pub(super) memory: usize,
}

/// A class with characters beyond ASCII is a small automaton over the bytes of UTF-8.
const WIDE: Weight = Weight { time: 8, memory: 40 << 10 };
const NARROW: Weight = Weight { time: 1, memory: 400 };
/// What every pattern takes, and the most that the limits of the compiler let one take.
const LEAST: usize = 8 << 10;
const MOST: usize = 3 << 19;

/// Weighs a pattern of a schema. One that the compiler refuses weighs nothing.
pub(super) fn weigh(pattern: &str) -> Weight {
    let translated = jsonschema_regex::to_rust_regex(pattern).ok();
    let parsed = translated.and_then(|text| regex_syntax::parse(&text).ok());
    let Weight { time, memory } = parsed.map_or(Weight { time: 0, memory: 0 }, |hir| of(&hir));
    Weight { time: time.max(1), memory: (LEAST + memory).min(MOST) }
}

fn of(hir: &Hir) -> Weight {
    match hir.kind() {
        HirKind::Empty => Weight { time: 0, memory: 0 },
        HirKind::Literal(literal) => times(NARROW, literal.0.len()),
        HirKind::Class(Class::Unicode(class)) if !class.is_ascii() => WIDE,
        HirKind::Class(_) | HirKind::Look(_) => NARROW,
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or_else(|| repetition.min.saturating_add(1));
            plus(times(of(&repetition.sub), usize::try_from(most).unwrap_or(usize::MAX)), NARROW)
        }
        HirKind::Capture(capture) => plus(of(&capture.sub), NARROW),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(of).fold(NARROW, plus),
    }
}

fn times(weight: Weight, n: usize) -> Weight {
    Weight { time: weight.time.saturating_mul(n), memory: weight.memory.saturating_mul(n) }
}

fn plus(a: Weight, b: Weight) -> Weight {
    Weight { time: a.time.saturating_add(b.time), memory: a.memory.saturating_add(b.memory) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_pattern_may_be_heavy() {
        let time = |pattern| weigh(pattern).time;
        assert!(time("^https://") < 15);
        assert!(time(r"^[\w.+-]+@[\w-]+\.[\w.-]+$") < 20);
        // Letters of every script are an automaton over the bytes of UTF-8.
        assert!((8..40).contains(&time(r"^\p{L}+$")));
        assert!(time("[ab]*a[ab]{2000}c") > 2_000);
        assert!(time("((a{10}){10}){10}") > 1_000);
        assert!(weigh("(a{1000}){1000}").memory == MOST);
    }
}
