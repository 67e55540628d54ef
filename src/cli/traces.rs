//! Where traces go, by the names that OpenTelemetry gives its variables. An empty one counts as not set.

use std::time::Duration;

use helve_domain::secret::Secret;
use helve_domain::trace::{Sampler, Share};
use percent_encoding::percent_decode_str;

use crate::config::Traces;
use crate::traces::{Target, Wrong};

/// What a general endpoint is continued with.
const PATH: &str = "v1/traces";

/// One optional flag for each variable; what is said for traces goes before what is said for everything.
macro_rules! variables {
    ($($field:ident = $flag:literal, $env:literal, $value:literal, $help:literal;)+) => {
        #[derive(Debug, Clone, Default, clap::Args)]
        pub(super) struct TraceArgs {
            $(
                #[arg(id = $flag, long = $flag, env = $env, help = $help, value_name = $value)]
                #[arg(help_heading = "Traces", hide_short_help = true, hide_env_values = true)]
                $field: Option<String>,
            )+
        }

        impl TraceArgs {
            /// Without those that are empty.
            fn filled(self) -> Self {
                Self { $($field: self.$field.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()),)+ }
            }
        }
    };
}

variables! {
    endpoint = "otel-exporter-otlp-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT", "URL",
        "Base URL of an OpenTelemetry collector, as http://collector:4318; without it nothing is traced";
    traces_endpoint = "otel-exporter-otlp-traces-endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "URL",
        "Whole URL for traces";
    protocol = "otel-exporter-otlp-protocol", "OTEL_EXPORTER_OTLP_PROTOCOL", "NAME", "Only http/protobuf";
    traces_protocol = "otel-exporter-otlp-traces-protocol", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "NAME",
        "The same for traces";
    headers = "otel-exporter-otlp-headers", "OTEL_EXPORTER_OTLP_HEADERS", "NAME=VALUE,..",
        "Headers for the collector, percent-encoded; as a variable, not as a flag that everybody sees";
    traces_headers = "otel-exporter-otlp-traces-headers", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "NAME=VALUE,..",
        "The same for traces";
    timeout = "otel-exporter-otlp-timeout", "OTEL_EXPORTER_OTLP_TIMEOUT", "MS",
        "Milliseconds that the collector may take for one batch";
    traces_timeout = "otel-exporter-otlp-traces-timeout", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "MS",
        "The same for traces";
    service = "otel-service-name", "OTEL_SERVICE_NAME", "NAME", "What the engine calls itself";
    resource = "otel-resource-attributes", "OTEL_RESOURCE_ATTRIBUTES", "NAME=VALUE,..",
        "What else is said of the engine, percent-encoded";
    sampler = "otel-traces-sampler", "OTEL_TRACES_SAMPLER", "NAME", "Which traces are recorded";
    sampler_arg = "otel-traces-sampler-arg", "OTEL_TRACES_SAMPLER_ARG", "RATIO", "The part of them, 0 to 1";
    exporter = "otel-traces-exporter", "OTEL_TRACES_EXPORTER", "NAME", "`otlp`, or `none` to trace nothing";
    disabled = "otel-sdk-disabled", "OTEL_SDK_DISABLED", "BOOL", "`true` to trace nothing";
    queue = "otel-bsp-max-queue-size", "OTEL_BSP_MAX_QUEUE_SIZE", "N",
        "Finished spans that wait; one more is dropped";
    batch = "otel-bsp-max-export-batch-size", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "N", "Spans of one batch";
    delay = "otel-bsp-schedule-delay", "OTEL_BSP_SCHEDULE_DELAY", "MS",
        "Milliseconds that a finished span waits for others";
}

impl TraceArgs {
    /// Puts what was given into `traces`.
    ///
    /// # Errors
    /// Which variable is wrong, and what is allowed.
    pub fn apply(self, traces: &mut Traces) -> Result<(), String> {
        let args = self.filled();
        let mut headers_by = "OTEL_EXPORTER_OTLP_HEADERS";
        traces.sampler = sampler(args.sampler.as_deref(), args.sampler_arg.as_deref())?;
        let either = |own: Option<String>, general: Option<String>, own_name, general_name| match own {
            Some(own) => Some((own, own_name)),
            None => general.map(|general| (general, general_name)),
        };
        if let Some((text, name)) =
            either(args.traces_timeout, args.timeout, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
        {
            traces.timeout = Duration::from_millis(count(&text, name)?);
        }
        if let Some((text, name)) =
            either(args.traces_headers, args.headers, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
        {
            let pairs = pairs(&text, name)?.into_iter();
            headers_by = name;
            traces.headers = pairs.map(|(name, value)| (name, Secret::new(value))).collect();
        }
        if let Some(text) = args.resource {
            traces.resource = pairs(&text, "OTEL_RESOURCE_ATTRIBUTES")?;
        }
        let named = traces.resource.iter().find(|(name, _)| name == "service.name").map(|(_, value)| value.clone());
        if let Some(name) = args.service.or(named) {
            traces.service_name = name;
        }
        let batch_is_given = args.batch.is_some();
        for (text, name, target) in [
            (args.queue, "OTEL_BSP_MAX_QUEUE_SIZE", &mut traces.queue),
            (args.batch, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", &mut traces.batch),
        ] {
            if let Some(text) = text {
                *target = usize::try_from(count(&text, name)?).unwrap_or(usize::MAX);
            }
        }
        if !batch_is_given {
            traces.batch = traces.batch.min(traces.queue);
        }
        for (value, name, most) in [
            (traces.queue, "OTEL_BSP_MAX_QUEUE_SIZE", 1_000_000),
            (traces.batch, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", traces.queue.min(10_000)),
        ] {
            if value > most {
                return Err(format!("{name} is {value} and must be at most {most}"));
            }
        }
        if let Some(text) = args.delay {
            traces.delay = Duration::from_millis(count(&text, "OTEL_BSP_SCHEDULE_DELAY")?);
        }
        let on = is_on(args.exporter.as_deref(), args.disabled.as_deref())?;
        let set_by = match args.traces_endpoint {
            Some(_) => "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            None => "OTEL_EXPORTER_OTLP_ENDPOINT",
        };
        let general = args.endpoint.map(|base| format!("{}/{PATH}", base.trim_end_matches('/')));
        traces.endpoint = args.traces_endpoint.or(general).filter(|_| on);
        if traces.endpoint.is_some() {
            let name = if args.traces_protocol.is_some() {
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
            } else {
                "OTEL_EXPORTER_OTLP_PROTOCOL"
            };
            protocol(args.traces_protocol.or(args.protocol).as_deref(), name)?;
        }
        Target::of(traces).map(drop).map_err(|wrong| match wrong {
            Wrong::Endpoint(why) => format!("{set_by} {why}"),
            Wrong::Header(why) => format!("{headers_by}: {why}"),
        })
    }
}

fn count(text: &str, name: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|n| (1..=3_600_000).contains(n));
    number.ok_or_else(|| format!("{name} must be a whole number from 1 to 3600000, and is `{text}`"))
}

/// The value may be a secret: it is not shown.
fn pairs(text: &str, name: &str) -> Result<Vec<(String, String)>, String> {
    let decoded = |part: &str| percent_decode_str(part.trim()).decode_utf8().map(String::from);
    let pair = |item: &str| {
        let (key, value) = item.split_once('=').filter(|(key, _)| !key.trim().is_empty())?;
        Some((decoded(key).ok()?, decoded(value).ok()?))
    };
    let items = text.split(',').filter(|item| !item.trim().is_empty());
    let found: Option<Vec<_>> = items.map(pair).collect();
    found.ok_or_else(|| format!("{name} must be NAME=VALUE,NAME=VALUE with percent-encoded values in UTF-8"))
}

fn sampler(name: Option<&str>, arg: Option<&str>) -> Result<Sampler, String> {
    let Some(name) = name else {
        return match arg {
            None => Ok(Sampler::default()),
            Some(_) => Err("OTEL_TRACES_SAMPLER_ARG is set without OTEL_TRACES_SAMPLER".to_owned()),
        };
    };
    let (parent_based, root) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, name),
    };
    let root = match root {
        "always_on" => Share::All,
        "always_off" => Share::None,
        "traceidratio" => {
            let part = arg.map_or(Ok(1.0), str::parse).ok().filter(|part| (0.0..=1.0).contains(part));
            Share::Ratio(part.ok_or_else(|| "OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1".to_owned())?)
        }
        _ => {
            let all = "always_on, always_off or traceidratio, also with parentbased_ before it";
            return Err(format!("OTEL_TRACES_SAMPLER must be {all}, and is `{name}`"));
        }
    };
    Ok(Sampler { parent_based, root })
}

fn is_on(exporter: Option<&str>, disabled: Option<&str>) -> Result<bool, String> {
    let exported = match exporter {
        None | Some("otlp") => true,
        Some("none") => false,
        Some(other) => return Err(format!("OTEL_TRACES_EXPORTER must be `otlp` or `none`, and is `{other}`")),
    };
    match disabled.map(str::to_ascii_lowercase).as_deref() {
        None | Some("false") => Ok(exported),
        Some("true") => Ok(false),
        Some(other) => Err(format!("OTEL_SDK_DISABLED must be `true` or `false`, and is `{other}`")),
    }
}

fn protocol(given: Option<&str>, name: &str) -> Result<(), String> {
    match given {
        None | Some("http/protobuf") => Ok(()),
        Some(other) => {
            let why = "the engine speaks http/protobuf, to port 4318 of most collectors";
            Err(format!("{name} is `{other}`: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(args: &[(&str, &str)]) -> Result<Traces, String> {
        use clap::Parser;
        #[derive(Debug, Parser)]
        struct Only {
            #[command(flatten)]
            traces: TraceArgs,
        }
        let flag = |name: &str| format!("--{}", name.to_lowercase().replace('_', "-"));
        let words = args.iter().flat_map(|(name, value)| [flag(name), (*value).to_owned()]);
        let only = Only::try_parse_from(["x".to_owned()].into_iter().chain(words)).map_err(|e| e.to_string())?;
        let mut traces = Traces::default();
        only.traces.apply(&mut traces)?;
        Ok(traces)
    }

    const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/");

    #[test]
    fn the_endpoint_is_what_switches_it_on() {
        let endpoint = |args: &[(&str, &str)]| traces(args).unwrap().endpoint;
        assert_eq!(endpoint(&[]), None);
        assert_eq!(endpoint(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), None);
        assert_eq!(endpoint(&[BASE]).unwrap(), "http://c:4318/v1/traces");
        assert_eq!(endpoint(&[BASE, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/x")]).unwrap(), "http://t/x");
        assert_eq!(endpoint(&[BASE, ("OTEL_TRACES_EXPORTER", "none")]), None);
        assert_eq!(endpoint(&[BASE, ("OTEL_SDK_DISABLED", "true")]), None);
        assert_eq!(endpoint(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), None, "nothing is sent");
    }

    #[test]
    fn what_is_said_for_traces_goes_first() {
        let found = traces(&[
            BASE,
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=s%20e, b = 2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=prod"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50"),
            ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ])
        .unwrap();
        let headers: Vec<_> = found.headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
        assert_eq!(headers, [("api-key", "s e"), ("b", "2")]);
        assert_eq!((found.timeout, found.delay), (Duration::from_millis(2_500), Duration::from_millis(200)));
        assert_eq!((found.service_name.as_str(), found.resource.len()), ("other", 2));
        assert_eq!(found.sampler, Sampler { parent_based: true, root: Share::Ratio(0.25) });
        assert_eq!((found.queue, found.batch), (100, 50));
        assert_eq!(traces(&[("OTEL_BSP_MAX_QUEUE_SIZE", "100")]).unwrap().batch, 100);
        assert_eq!(traces(&[("OTEL_SERVICE_NAME", "mine")]).unwrap().service_name, "mine");
        assert!(!serde_json::to_string(&found).unwrap().contains("s e"), "secrets are not printed");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "unix:///x"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "no-value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "=x"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "k=%ff"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "host=x"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_RESOURCE_ATTRIBUTES", "x"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_SDK_DISABLED", "maybe"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "2000000"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "20000"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1.5"),
        ] {
            let args = if name.ends_with("ENDPOINT") { vec![(name, value)] } else { vec![BASE, (name, value)] };
            let text = traces(&args).unwrap_err();
            let batch = text.contains("OTEL_BSP_MAX_EXPORT_BATCH_SIZE");
            assert!(text.contains(name) || batch, "{name}={value}: {text}");
        }
        for part in ["2", "1.01", "NaN", "x"] {
            let args = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", part)];
            assert!(traces(&args).unwrap_err().contains("OTEL_TRACES_SAMPLER_ARG"), "{part}");
        }
    }
}
