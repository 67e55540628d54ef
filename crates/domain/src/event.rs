//! Events and the patterns by which workflows take them.

use crate::error::{Error, Result};
use crate::limits::Limits;

/// A pattern over event keys: `*` stands for any characters, also none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a pattern: characters of a name, and `*`.
    pub fn parse(pointer: &str, text: &str, limits: &Limits) -> Result<Self> {
        if !text.chars().any(|c| c != '*') && text != "*" {
            return Err(Error::field(pointer, "an event pattern is not empty, and `*` stands alone only once"));
        }
        let without: String = text.chars().map(|c| if c == '*' { 'x' } else { c }).collect();
        super::name::check(pointer, &without, limits)?;
        Ok(Self(text.to_owned()))
    }

    /// Whether the whole `key` matches. Linear: the last star takes up what is left over.
    pub fn matches(&self, key: &str) -> bool {
        let (p, k) = (self.0.as_bytes(), key.as_bytes());
        let (mut at, mut pos, mut star) = (0, 0, None);
        while pos < k.len() {
            if at < p.len() && p[at] == b'*' {
                star = Some((at, pos));
                at += 1;
            } else if at < p.len() && p[at] == k[pos] {
                at += 1;
                pos += 1;
            } else if let Some((star_at, taken)) = star {
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                pos = taken + 1;
            } else {
                return false;
            }
        }
        p[at..].iter().all(|b| *b == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_any_run_of_characters() {
        let p = |s: &str| Pattern::parse("/events/0", s, &Limits::default()).unwrap();
        assert!(p("image.*").matches("image.uploaded"));
        assert!(p("image.*").matches("image."));
        assert!(!p("image.*").matches("image"));
        assert!(p("*").matches("x"));
        assert!(p("*.created").matches("a.b.created"));
        assert!(p("a*b*c").matches("a1b2b3c"));
        assert!(!p("a*b*c").matches("a1c2b"));
        assert!(p("exact").matches("exact"));
        assert!(!p("exact").matches("exactly"));
        assert!(Pattern::parse("/events/0", "", &Limits::default()).is_err());
        assert!(Pattern::parse("/events/0", "a b", &Limits::default()).is_err());
    }
}
