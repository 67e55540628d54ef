//! W3C trace contexts, whether a trace is recorded, and the ids of the spans of a run.
//!
//! The span ids of a run follow from its id, so none of them is stored: an engine that takes a run over ends the spans
//! that its predecessor began, under the same ids.

use std::fmt;

use data_encoding::HEXLOWER;

use crate::id::RunId;

/// Names a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// Names a span within its trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// `None` for the one value that is no id.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The number by which samplers decide: the same in every service of the trace.
    fn chance(self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1
    }
}

impl SpanId {
    /// `None` for the one value that is no id.
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&HEXLOWER.encode_display(&self.0), f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&HEXLOWER.encode_display(&self.0), f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A span of somebody, as a `traceparent` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// The standard's flags; the lowest bit says that the trace is recorded.
    pub flags: u8,
}

/// The flag of a recorded trace.
const SAMPLED: u8 = 1;

impl SpanContext {
    /// Reads a `traceparent`. `None`: the standard does not allow it.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: &[u8; 55] = text.as_bytes().try_into().ok()?;
        let dashes = [bytes[2], bytes[35], bytes[52]];
        if bytes[..2] != *b"00" || dashes != [b'-'; 3] {
            return None;
        }
        let trace = TraceId::new(digits(&bytes[3..35])?)?;
        let span = SpanId::new(digits(&bytes[36..52])?)?;
        let [flags] = digits(&bytes[53..])?;
        Some(Self { trace, span, flags })
    }

    /// Whether its trace is recorded.
    pub const fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    HEXLOWER.decode_mut(text, &mut bytes).ok()?;
    Some(bytes)
}

/// What is recorded of traces that begin here.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// All of them.
    All,
    /// None.
    None,
    /// This part of them, 0 to 1, chosen by their ids.
    Ratio(f64),
}

/// Which traces are recorded.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Sampler {
    /// A trace that began elsewhere is recorded if its flag says so.
    pub parent_based: bool,
    /// All other traces.
    pub root: Share,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { parent_based: true, root: Share::All }
    }
}

impl Sampler {
    /// Whether a trace is recorded, of which `parent` came along.
    pub fn records(self, trace: TraceId, parent: Option<SpanContext>) -> bool {
        if let Some(parent) = parent.filter(|_| self.parent_based) {
            return parent.is_sampled();
        }
        match self.root {
            Share::All => true,
            Share::None => false,
            Share::Ratio(part) => part >= 1.0 || trace.chance() < threshold(part),
        }
    }

    /// Where the spans of a run belong; `None`: nobody records them. `stored` is the `traceparent` of its trigger. A run
    /// without one is a trace of its own.
    pub fn trace_of(self, run: RunId, stored: Option<&str>) -> Option<RunTrace> {
        let parent = stored.and_then(SpanContext::parse);
        let trace = parent.map_or_else(|| own_trace(run), |parent| parent.trace);
        let flags = parent.map_or(0, |parent| parent.flags) | SAMPLED;
        self.records(trace, parent).then(|| RunTrace { trace, parent: parent.map(|p| p.span), flags })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1 of 63 bits")]
fn threshold(part: f64) -> u64 {
    (part.clamp(0.0, 1.0) * 9_223_372_036_854_775_808.0) as u64
}

/// The recorded trace of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunTrace {
    /// The trace.
    pub trace: TraceId,
    /// The span that triggered the run.
    pub parent: Option<SpanId>,
    /// The flags that travel on.
    pub flags: u8,
}

/// A span that every run may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// From its creation to its end.
    Whole,
    /// The wait for its first assignment.
    Wait,
    /// The attempt with this number.
    Attempt(i32),
}

impl RunTrace {
    /// The context of one of the run's spans.
    pub fn context(self, run: RunId, part: Part) -> SpanContext {
        SpanContext { trace: self.trace, span: span_of(run, part), flags: self.flags }
    }
}

/// The span's id: the same in every engine.
pub fn span_of(run: RunId, part: Part) -> SpanId {
    let part = match part {
        Part::Whole => 0,
        Part::Wait => 1 << 32,
        Part::Attempt(number) => u64::from(number.unsigned_abs()),
    };
    let (high, low) = run.uuid().as_u64_pair();
    SpanId(mixed(mixed(mixed(high) ^ low) ^ part).max(1).to_be_bytes())
}

/// The trace of a run whose trigger brought none. Not the id itself: half of it is a clock, and samplers choose by bits.
fn own_trace(run: RunId) -> TraceId {
    let (high, low) = run.uuid().as_u64_pair();
    let (first, second) = (mixed(high ^ mixed(low)), mixed(low ^ mixed(high)).max(1));
    TraceId((u128::from(first) << 64 | u128::from(second)).to_be_bytes())
}

/// The finalizer of SplitMix64: each bit of the result hangs on each bit of the number, and no two numbers meet.
const fn mixed(number: u64) -> u64 {
    let x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::clock::Timestamp;

    const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn runs(n: usize) -> Vec<RunId> {
        (0..n).map(|_| RunId::generate(Timestamp::from_micros(1_700_000_000_000_000))).collect()
    }

    #[test]
    fn only_what_the_standard_allows_is_a_context() {
        let context = SpanContext::parse(SENT).unwrap();
        assert_eq!((context.to_string().as_str(), context.is_sampled()), (SENT, true));
        assert!(!SpanContext::parse(&SENT.replace("-01", "-02")).unwrap().is_sampled());
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319é-b7ad6b7169203331-01",
        ] {
            assert_eq!(SpanContext::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_ids_of_a_run_differ_and_are_the_same_in_every_engine() {
        let mut seen = HashSet::new();
        for run in runs(1_000) {
            for part in [Part::Whole, Part::Wait].into_iter().chain((1..10).map(Part::Attempt)) {
                assert_eq!(span_of(run, part), span_of(run, part));
                assert!(seen.insert(span_of(run, part)), "{run} {part:?}");
            }
        }
        // What other engines, of this version or the next, must compute too.
        let run: RunId = "run_01932c4f8a2b7c3d9e4f506172839401".parse().unwrap();
        let ids = [Part::Whole, Part::Wait, Part::Attempt(2)].map(|part| span_of(run, part).to_string());
        assert_eq!(ids, ["bb1b4aaca4814712", "c94b83b1fe8b9919", "cb08a1c91d6b11fc"]);
        assert_eq!(own_trace(run).to_string(), "aef01ba9d4a5f52513855a4d0c6bfe75");
    }

    #[test]
    fn a_context_that_came_decides_where_it_may() {
        let [run] = runs(1)[..] else { unreachable!() };
        let trace = |parent_based, root, stored| Sampler { parent_based, root }.trace_of(run, stored);
        let unsampled = SENT.replace("-01", "-00");
        let at = trace(true, Share::None, Some(SENT)).unwrap();
        let parent = SpanContext::parse(SENT).unwrap();
        assert_eq!((at.trace, at.parent), (parent.trace, Some(parent.span)));
        assert_eq!(trace(true, Share::All, Some(&unsampled)), None);
        assert_eq!(trace(false, Share::None, Some(SENT)), None);
        let forced = trace(false, Share::All, Some(&unsampled)).unwrap();
        assert!(forced.context(run, Part::Attempt(1)).is_sampled());
        // Without one the run is the root of its trace, and one that is broken is none.
        for stored in [None, Some("garbage")] {
            let own = trace(true, Share::All, stored).unwrap();
            assert_eq!((own.trace, own.parent), (own_trace(run), None));
            assert_eq!(trace(true, Share::None, stored), None);
        }
    }

    #[test]
    fn a_ratio_records_its_part_also_of_derived_traces() {
        let sampler = Sampler { parent_based: true, root: Share::Ratio(0.25) };
        let kept = runs(4_000).into_iter().filter(|run| sampler.trace_of(*run, None).is_some()).count();
        assert!((850..1_150).contains(&kept), "{kept} of 4000");
        for (part, all) in [(0.0, false), (1.0, true), (7.0, true)] {
            let sampler = Sampler { parent_based: false, root: Share::Ratio(part) };
            assert!(runs(100).into_iter().all(|run| sampler.trace_of(run, None).is_some() == all), "{part}");
        }
    }
}
