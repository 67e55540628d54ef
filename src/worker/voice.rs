//! How much of what a worker says of its attempts is passed on: one that floods harms itself only.

use std::time::Instant;

use helve_domain::bucket::Bucket;
use helve_domain::clock::Timestamp;
use helve_domain::limits::Limits;
use helve_domain::live::{LogBatch, LogLine, Progress};

use super::pace::Pace;
use crate::frames::{SaidLines, SaidProgress};

/// Seconds of the rate that may come at once.
const BURST: f64 = 10.0;
/// What a line costs besides its message.
const OVERHEAD: usize = 64;
/// Items of `progress` a second, past which a worker is read more slowly.
const PROGRESS: u32 = 1_000;

/// The budgets of one socket.
#[derive(Debug)]
pub(crate) struct Voice {
    lines: Bucket<Instant>,
    bytes: Bucket<Instant>,
    progress: Pace,
}

impl Voice {
    pub(crate) fn new(limits: &Limits, now: Instant) -> Self {
        let full = |rate: f64| Bucket::full(rate, rate * BURST, now);
        let rate = f64::from(limits.log_rate);
        Self { lines: full(rate), bytes: full(rate * 1_024.0), progress: Pace::new(PROGRESS, now) }
    }

    /// The lines that are within the budgets; the others are counted.
    pub(crate) fn log(&mut self, said: Vec<SaidLines>, now: Instant, time: Timestamp) -> Vec<LogBatch> {
        self.lines.refill(now);
        self.bytes.refill(now);
        let batch = |said: SaidLines| {
            let mut dropped = 0;
            let mut lines = Vec::new();
            for line in said.lines {
                let size = u32::try_from(line.message.len() + OVERHEAD).map_or(f64::MAX, f64::from);
                if !self.lines.has(1.0) || !self.bytes.has(size) {
                    dropped += 1;
                    continue;
                }
                self.lines.take(1.0);
                self.bytes.take(size);
                lines.push(LogLine { level: line.level, at: time.minus(line.ago), message: line.message });
            }
            LogBatch { attempt: said.attempt, lines, dropped }
        };
        said.into_iter().map(batch).collect()
    }

    /// Progress, and until when the socket is not read if there is too much of it.
    pub(crate) fn progress(
        &mut self,
        said: Vec<SaidProgress>,
        now: Instant,
        time: Timestamp,
    ) -> (Vec<Progress>, Option<Instant>) {
        let pause = self.progress.take(said.len(), now);
        let progress = |p: SaidProgress| Progress {
            attempt: p.attempt,
            fraction: p.fraction,
            parts: p.parts,
            data: p.data,
            at: time,
        };
        (said.into_iter().map(progress).collect(), pause)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use helve_domain::clock::Clock;
    use helve_domain::delivery::Attempt;
    use helve_domain::id::RunId;
    use helve_domain::live::LogLevel;

    use super::*;
    use crate::frames::SaidLine;

    #[test]
    fn what_is_over_the_rate_is_counted_and_time_gives_room_again() {
        let now = Clock::system().instant();
        let time = Timestamp::from_micros(1_800_000_000_000_000);
        let limits = Limits { log_rate: 10, ..Limits::default() };
        let attempt = Attempt { run: RunId::generate(time), number: 1 };
        let said = |n: usize, size: usize| {
            let line = |_| SaidLine { level: LogLevel::Info, ago: Duration::from_secs(1), message: "x".repeat(size) };
            vec![SaidLines { attempt, lines: (0..n).map(line).collect() }]
        };
        let mut voice = Voice::new(&limits, now);
        let batch = voice.log(said(150, 1), now, time).remove(0);
        assert_eq!((batch.lines.len(), batch.dropped), (100, 50));
        assert_eq!(batch.lines[0].at, time.minus(Duration::from_secs(1)));
        let batch = voice.log(said(150, 1), now + Duration::from_secs(2), time).remove(0);
        assert_eq!((batch.lines.len(), batch.dropped), (20, 130));
        // Long lines use up the bytes first.
        let mut voice = Voice::new(&limits, now);
        let batch = voice.log(said(100, 8 << 10), now, time).remove(0);
        assert_eq!((batch.lines.len(), batch.dropped), (12, 88));
    }
}
