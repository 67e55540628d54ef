//! The form of a token or ticket: its prefix, 43 base62 digits of 256 random bits, 6 base62 digits of a CRC-32.
//!
//! The prefix lets secret scanners find a leaked token; the checksum refuses a mistyped or invented one without a
//! look into the database.

use helve_domain::error::{Error, Result};
use helve_domain::secret::Secret;
use sha2::{Digest, Sha256};

use crate::db::tokens::TokenHash;

/// What every API token begins with.
pub const TOKEN: &str = "helve_";
const RANDOM_DIGITS: usize = 43;
const CHECK_DIGITS: usize = 6;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A fresh secret that begins with `prefix`.
///
/// # Errors
/// `Internal` when the system gives no random bytes.
pub fn generate(prefix: &str) -> Result<Secret> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).map_err(|e| Error::Internal(format!("no random bytes: {e}")))?;
    let mut token = format!("{prefix}{}", base62(random, RANDOM_DIGITS));
    let check = check_digits(&token);
    token.push_str(&check);
    Ok(Secret::new(token))
}

/// Whether `token` begins with `prefix` and has the form of a secret, with a right checksum.
pub fn is_well_formed(token: &str, prefix: &str) -> bool {
    let right_length = token.len() == prefix.len() + RANDOM_DIGITS + CHECK_DIGITS;
    if !right_length || !token.starts_with(prefix) || !token[prefix.len()..].bytes().all(|b| b.is_ascii_alphanumeric())
    {
        return false;
    }
    let (body, check) = token.split_at(token.len() - CHECK_DIGITS);
    check == check_digits(body)
}

/// What is stored of a token.
pub fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

fn check_digits(body: &str) -> String {
    base62(crc32fast::hash(body.as_bytes()).to_be_bytes(), CHECK_DIGITS)
}

/// A big-endian number in base 62 with leading zeros. 43 digits hold 256 bits, 6 hold 32.
fn base62<const N: usize>(mut number: [u8; N], digits: usize) -> String {
    let mut text = vec![b'0'; digits];
    for digit in text.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut number {
            let dividend = (rest << 8) | u32::from(*byte);
            *byte = u8::try_from(dividend / 62).unwrap_or(0);
            rest = dividend % 62;
        }
        *digit = DIGITS[rest as usize];
    }
    text.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_secret_has_the_form_and_differs_from_the_next() {
        let (a, b) = (generate(TOKEN).unwrap(), generate(TOKEN).unwrap());
        assert_ne!(a.reveal(), b.reveal());
        assert!(is_well_formed(a.reveal(), TOKEN));
        assert_eq!(a.reveal().len(), 55);
        assert_eq!(format!("{a:?}"), "[redacted]");
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let token = generate(TOKEN).unwrap().reveal().to_owned();
        for at in 0..token.len() {
            let mut wrong = token.clone().into_bytes();
            wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
            assert!(!is_well_formed(std::str::from_utf8(&wrong).unwrap(), TOKEN), "position {at}");
        }
        assert!(!is_well_formed(&token[..54], TOKEN));
        assert!(!is_well_formed(&format!("{token}0"), TOKEN));
        assert!(!is_well_formed("helve_ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄa", TOKEN));
        assert!(!is_well_formed("", TOKEN));
    }

    #[test]
    fn the_digits_are_those_of_the_number() {
        let number = |n: u8| {
            let mut bytes = [0; 32];
            bytes[31] = n;
            bytes
        };
        assert_eq!(base62(number(61), 3), "00z");
        assert_eq!(base62(number(62), 3), "010");
        // The largest number of 256 bits needs all 43 digits and fits in them.
        assert_ne!(base62([0xff; 32], 43).as_bytes()[0], b'0');
        assert_eq!(base62([0xff; 32], 44).as_bytes()[0], b'0');
    }
}
