//! Values of settings: how they are read, and how the help shows them.

use std::time::Duration;

use helve_domain::duration;

use crate::config::MetricsAccess;

/// Reads a whole number from one on. Every number has an upper bound: past it the engine would break at something that
/// is not its own, such as the size of a row of an index, and break for everybody.
pub(super) fn count<T>(most: T) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display + From<u8> + Copy + Send + Sync + 'static,
{
    whole(1.into(), most)
}

/// Reads a whole number between two others.
pub(super) fn whole<T>(least: T, most: T) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok().filter(|n| *n >= least && *n <= most);
        number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
    }
}

/// Reads a duration with an upper bound.
pub(super) fn up_to(most: Duration) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| match helve_terminal::args::span(text)? {
        longer if longer > most => Err(format!("must be at most {}", duration::format(most))),
        d => Ok(d),
    }
}

/// Reads `on` or `off`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("must be `on` or `off`".to_owned()),
    }
}

/// Reads who may ask for the figures.
pub(super) fn metrics_access(text: &str) -> Result<MetricsAccess, String> {
    match text {
        "open" => Ok(MetricsAccess::Open),
        "token" => Ok(MetricsAccess::Token),
        "off" => Ok(MetricsAccess::Off),
        _ => Err("must be `open`, `token` or `off`".to_owned()),
    }
}

/// Reads `host:port`; the host may be a name.
pub(super) fn address(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match parts.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(port) if port > 0 => Ok(text.to_owned()),
        _ => Err("must be a host and a port, as in `10.0.0.7:7733`".to_owned()),
    }
}

/// Reads the origin of a page as a browser sends it: they are compared exactly.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let text = text.trim();
    let wrong = |why: &str| {
        Err(format!(
            "{why}; an origin is a scheme, a host and a port that is not the usual one, as in `https://app.example`"
        ))
    };
    if text.is_empty() {
        return Ok(String::new());
    }
    let Some((scheme, place)) = text.split_once("://") else { return wrong("it has no scheme") };
    if let Some((_, path)) = place.split_once('/') {
        return wrong(if path.is_empty() { "it ends with a slash" } else { "it has a path" });
    }
    if place.is_empty() || place.contains(['@', '?', '#', '*', ' ']) {
        return wrong("it has no host, or more than a host and a port");
    }
    let (scheme, place) = (scheme.to_ascii_lowercase(), place.to_ascii_lowercase());
    let usual = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let place =
        Some(place.as_str()).filter(|_| !usual.is_empty()).and_then(|p| p.strip_suffix(usual)).unwrap_or(&place);
    Ok(format!("{scheme}://{place}"))
}

/// A parser of just this type: clap finds out about another one when it is too late.
pub(super) fn typed<T, P: Fn(&str) -> Result<T, String>>(parser: P) -> P {
    parser
}

/// A kind of value, as the help shows it.
pub(super) trait Setting {
    /// What stands for it behind a flag.
    const KIND: &'static str;

    /// As it is given.
    fn text(&self) -> String;
}

macro_rules! numbers {
    ($($number:ty)+) => {$(
        impl Setting for $number {
            const KIND: &'static str = "N";
            fn text(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

numbers! { usize u32 i32 }

impl Setting for bool {
    const KIND: &'static str = "on|off";
    fn text(&self) -> String {
        if *self { "on" } else { "off" }.to_owned()
    }
}

impl Setting for Duration {
    const KIND: &'static str = "DURATION";
    fn text(&self) -> String {
        duration::format(*self)
    }
}

impl Setting for MetricsAccess {
    const KIND: &'static str = "open|token|off";
    fn text(&self) -> String {
        match self {
            Self::Open => "open",
            Self::Token => "token",
            Self::Off => "off",
        }
        .to_owned()
    }
}

/// The help of a setting, with what it is when nobody sets it.
pub(super) fn described(help: &str, default: &impl Setting) -> String {
    format!("{help} [default: {}]", default.text())
}
