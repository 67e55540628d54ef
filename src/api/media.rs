//! Media types of bodies and of what events carry: texts are UTF-8, and that may be said or left out.

use helve_domain::error::{Code, Error, Result};

/// A media type without its parameters.
pub fn essence(media: &str) -> &str {
    media.split(';').next().unwrap_or("").trim()
}

/// Refuses a charset other than UTF-8.
///
/// # Errors
/// `UnsupportedMediaType`.
pub fn check_charset(media: &str) -> Result<()> {
    if parameters(media).all(|(name, value)| !name.eq_ignore_ascii_case("charset") || is_utf8(value)) {
        return Ok(());
    }
    let message = "the charset of the media type must be `utf-8`, or not be given";
    Err(Error::invalid(Code::UnsupportedMediaType, None, message))
}

/// The one text of a media type: lower case, and without the charset, which can only be UTF-8.
///
/// # Errors
/// As [`check_charset`].
pub fn normal(media: &str) -> Result<String> {
    check_charset(media)?;
    let mut text = essence(media).to_ascii_lowercase();
    for (name, value) in parameters(media).filter(|(name, _)| !name.eq_ignore_ascii_case("charset")) {
        text.push_str(&format!("; {}={value}", name.to_ascii_lowercase()));
    }
    Ok(text)
}

/// Whether its bodies are JSON.
pub fn is_json(media: &str) -> bool {
    let essence = essence(media);
    essence.eq_ignore_ascii_case("application/json") || ends_with(essence, "+json")
}

/// Whether its bodies are texts that are not JSON.
pub fn is_text(media: &str) -> bool {
    let essence = essence(media);
    let named = ["application/xml", "application/yaml", "application/javascript", "application/x-www-form-urlencoded"];
    let starts = essence.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"));
    starts
        || ends_with(essence, "+xml")
        || ends_with(essence, "+yaml")
        || named.iter().any(|n| n.eq_ignore_ascii_case(essence))
}

fn ends_with(text: &str, end: &str) -> bool {
    text.len().checked_sub(end.len()).and_then(|at| text.get(at..)).is_some_and(|last| last.eq_ignore_ascii_case(end))
}

fn parameters(media: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = media.split(';').skip(1).filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim(), value.trim()))
}

fn is_utf8(value: &str) -> bool {
    let value = value.trim_matches('"');
    value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_is_as_good_as_no_charset_and_others_are_refused() {
        for (media, same) in [
            ("application/json", "application/json"),
            ("Application/JSON; charset=UTF-8", "application/json"),
            ("application/json;charset=\"utf-8\"", "application/json"),
            ("text/html; Level=1;charset=utf8", "text/html; level=1"),
        ] {
            assert_eq!(normal(media).unwrap(), same);
        }
        for media in ["application/json; charset=latin1", "text/plain;x=1; Charset=utf-16"] {
            assert_eq!(normal(media).unwrap_err().code(), Code::UnsupportedMediaType, "{media}");
        }
    }

    #[test]
    fn json_and_texts_are_known_by_their_names() {
        assert!(is_json("application/vnd.a+JSON; v=1") && is_json("application/json") && !is_json("text/json-seq"));
        assert!(is_text("text/csv") && is_text("image/svg+xml") && !is_text("image/png") && !is_text("é"));
    }
}
