//! How often something may happen in a time. Unlike a bucket it fills at once, when the time is over.

use std::time::Duration;

use crate::bucket::Moment;

/// At most so many in a time that begins with the first of them; those that are too many are counted.
#[derive(Debug, Clone)]
pub struct Ration<T> {
    most: u32,
    time: Duration,
    began: Option<T>,
    given: u32,
    refused: u64,
}

impl<T: Moment> Ration<T> {
    /// `most` in each `time`.
    pub const fn of(most: u32, time: Duration) -> Self {
        Self { most, time, began: None, given: 0, refused: 0 }
    }

    /// One more. How many were too many since the last that was not; `None` when this one is.
    pub fn take(&mut self, now: T) -> Option<u64> {
        if self.began.is_none_or(|began| now.passed_since(began) >= self.time) {
            (self.began, self.given) = (Some(now), 0);
        }
        if self.given == self.most {
            self.refused = self.refused.saturating_add(1);
            return None;
        }
        self.given += 1;
        Some(std::mem::take(&mut self.refused))
    }

    /// How many there were in this time, without those that were too many.
    pub const fn given(&self) -> u32 {
        self.given
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn what_is_too_much_is_counted_and_told_with_the_next() {
        let at = |ms: i64| Timestamp::from_micros(ms * 1_000);
        let mut ration = Ration::of(2, Duration::from_secs(1));
        let taken = [0, 10, 20, 999].map(|ms| ration.take(at(ms)));
        assert_eq!((taken, ration.given()), ([Some(0), Some(0), None, None], 2));
        assert_eq!((ration.take(at(1_000)), ration.given()), (Some(2), 1));
        assert_eq!(ration.take(at(1_999)), Some(0), "told once");
        assert_eq!(ration.take(at(0)), None, "a clock that went back begins nothing anew");
    }
}
