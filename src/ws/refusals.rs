//! Hellos that are refused: the engine's log says why, and who repeats one waits longer and longer for the answer. A
//! worker that connects again at once would otherwise do so hundreds of times a second.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use helve_domain::backoff;
use helve_domain::delivery::Close;
use helve_domain::id::TokenId;
use helve_domain::ration::Ration;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::warn;

use super::Context;
use super::wire::{End, Wire};
use crate::frames::{self, Fault};

/// Refusals that are answered at once: somebody is trying things out.
const FREE: u32 = 3;
/// The wait of the next one; it doubles with each.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);
/// Without a refusal for so long a token begins anew.
const FORGET: Duration = Duration::from_secs(60);
/// Sockets of one token that may wait for their answer at once; one more is answered without a wait.
const WAITING: usize = 64;
/// Tokens that are remembered.
const TOKENS: usize = 1_024;
/// One line in the log for each token and so much time.
const LINE: Duration = Duration::from_secs(10);

/// Who was refused lately. Those that came without a token count as one.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<Option<TokenId>, Refused>>);

struct Refused {
    times: u32,
    last: Instant,
    waiting: usize,
    lines: Ration<Instant>,
}

/// What to do about a refusal.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// How long the answer waits; a place is taken for that time.
    wait: Option<Duration>,
    /// Whether the log says it, and how many it did not say since its last line.
    log: Option<u64>,
}

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, HashMap<Option<TokenId>, Refused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, token: Option<TokenId>, now: Instant) -> Verdict {
        let mut tokens = self.lock();
        let is_over = |r: &Refused| r.waiting == 0 && now.saturating_duration_since(r.last) >= FORGET;
        if tokens.len() >= TOKENS && !tokens.contains_key(&token) {
            tokens.retain(|_, refused| !is_over(refused));
            if tokens.len() >= TOKENS {
                return Verdict { wait: None, log: None };
            }
        }
        let fresh = || Refused { times: 0, last: now, waiting: 0, lines: Ration::of(1, LINE) };
        let refused = tokens.entry(token).or_insert_with(fresh);
        if is_over(refused) {
            refused.times = 0;
        }
        refused.times = refused.times.saturating_add(1);
        refused.last = now;
        let wait = refused.times.checked_sub(FREE + 1).map(|n| backoff::nth(FIRST, LONGEST, n));
        let wait = wait.filter(|_| refused.waiting < WAITING);
        refused.waiting += usize::from(wait.is_some());
        Verdict { wait, log: refused.lines.take(now) }
    }

    fn waited(&self, token: Option<TokenId>) {
        if let Some(refused) = self.lock().get_mut(&token) {
            refused.waiting = refused.waiting.saturating_sub(1);
        }
    }
}

/// A place among those that wait; given back when dropped.
struct Waiting<'a>(&'a Refusals, Option<TokenId>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waited(self.1);
    }
}

/// Answers a hello that is refused, and says how the socket ends. What is not the worker's fault is answered at once.
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    ctx: &Context,
    wire: &mut Wire<S>,
    token: Option<TokenId>,
    fault: &Fault,
    close: Close,
) -> End {
    if matches!(close, Close::BadFrame | Close::NotAllowed | Close::Auth) {
        let verdict = ctx.refusals.note(token, ctx.clock.instant());
        if let Some(more) = verdict.log {
            let (at, reason) = frames::logged(fault);
            warn!(code = fault.code.as_str(), at, reason, close = close.code(), more, "a hello was refused");
        }
        if let Some(wait) = verdict.wait {
            let _place = Waiting(&ctx.refusals, token);
            // Nothing is read meanwhile: what the worker says before it knows does not count.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = ctx.stopping.cancelled() => {}
            }
        }
    }
    wire.push(frames::fault(fault));
    End::Close(close)
}

#[cfg(test)]
mod tests {
    use helve_domain::clock::{Clock, Timestamp};

    use super::*;

    fn token(n: i64) -> Option<TokenId> {
        Some(TokenId::generate(Timestamp::from_micros(n)))
    }

    #[test]
    fn who_repeats_it_waits_longer_and_a_minute_of_peace_forgives() {
        let (refusals, now, one) = (Refusals::default(), Clock::system().instant(), token(1));
        let mut waits = Vec::new();
        for _ in 0..12 {
            waits.push(refusals.note(one, now).wait.map_or(0, |wait| wait.as_millis()));
            refusals.waited(one);
        }
        assert_eq!(waits, [0, 0, 0, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
        assert_eq!(refusals.note(token(2), now).wait, None, "another token is not slowed down");
        assert_eq!(refusals.note(one, now + FORGET).wait, None);
    }

    #[test]
    fn what_waits_and_what_is_remembered_is_bounded() {
        let (refusals, now, one) = (Refusals::default(), Clock::system().instant(), token(1));
        let waiting = (0..200).filter(|_| refusals.note(one, now).wait.is_some()).count();
        assert_eq!(waiting, WAITING);
        for n in 0..2_000 {
            refusals.note(token(n), now);
        }
        assert!(refusals.lock().len() <= TOKENS);
        assert_eq!(refusals.note(token(-1), now + FORGET).log, Some(0), "those that are over make room");
    }

    #[test]
    fn the_log_has_one_line_for_many() {
        let (refusals, now) = (Refusals::default(), Clock::system().instant());
        let lines: Vec<_> = (0..50).filter_map(|_| refusals.note(None, now).log).collect();
        assert_eq!(lines, [0]);
        assert_eq!(refusals.note(None, now + LINE).log, Some(49));
    }
}
