//! Every setting of an engine as a flag and as a variable of the environment.

use std::time::Duration;

use helve_domain::limits::Limits;

use super::traces::TraceArgs;
use super::values::{Setting, address, count, described, metrics_access, origin, switch, typed, up_to, whole};
use crate::config::{Config, Http, MetricsAccess, Retention, Scheduling};

const MIB: usize = 1 << 20;
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// What a name may have at most: two of them stand in one row of an index, which has 2,704 bytes at most.
const LONGEST_NAME: usize = 1_000;

/// One optional flag for each field of a part of the configuration: what is not given keeps its default.
macro_rules! settings {
    ($name:ident => $target:ty, $heading:literal;
     $($field:ident: $kind:ty = $flag:literal, $env:literal, $parse:expr, $help:literal;)+) => {
        #[derive(Debug, Clone, Default, clap::Args)]
        struct $name {
            $(
                #[arg(id = $flag, long = $flag, env = $env, help_heading = $heading, value_name = <$kind as Setting>::KIND)]
                #[arg(help = described($help, &<$target>::default().$field))]
                #[arg(value_parser = typed::<$kind, _>($parse), hide_short_help = true)]
                $field: Option<$kind>,
            )+
        }

        impl $name {
            fn apply(self, target: &mut $target) {
                $(if let Some(value) = self.$field { target.$field = value; })+
            }
        }
    };
}

settings! { LimitArgs => Limits, "Limits";
    payload_bytes: usize = "limit-payload-bytes", "HELVE_LIMIT_PAYLOAD_BYTES", count(64 * MIB),
        "Bytes of one input, event payload or output";
    body_bytes: usize = "limit-body-bytes", "HELVE_LIMIT_BODY_BYTES", count(256 * MIB), "Bytes of one request body";
    frame_bytes: usize = "limit-frame-bytes", "HELVE_LIMIT_FRAME_BYTES", count(256 * MIB), "Bytes of one frame of a worker";
    tenant_bytes: usize = "limit-tenant-bytes", "HELVE_LIMIT_TENANT_BYTES", count(MIB * MIB),
        "Bytes of memory that one tenant's requests may hold; past it they are refused with 429";
    bulk_items: usize = "limit-bulk-items", "HELVE_LIMIT_BULK_ITEMS", count(100_000), "Items of one bulk request";
    metadata_keys: usize = "limit-metadata-keys", "HELVE_LIMIT_METADATA_KEYS", count(1_000), "Keys of one metadata object";
    metadata_bytes: usize = "limit-metadata-bytes", "HELVE_LIMIT_METADATA_BYTES", count(MIB),
        "Bytes of one metadata object";
    name_bytes: usize = "limit-name-bytes", "HELVE_LIMIT_NAME_BYTES", count(LONGEST_NAME), "Bytes of a name or a key";
    json_depth: usize = "limit-json-depth", "HELVE_LIMIT_JSON_DEPTH", count(128), "Nesting of any JSON document";
    event_matches: usize = "limit-event-matches", "HELVE_LIMIT_EVENT_MATCHES", count(10_000),
        "Runs that one event may start";
    page_items: usize = "limit-page-items", "HELVE_LIMIT_PAGE_ITEMS", count(10_000), "Items of one page of a list";
    wait: Duration = "limit-wait", "HELVE_LIMIT_WAIT", up_to(60 * MINUTE), "The longest wait of a trigger";
    delay: Duration = "limit-delay", "HELVE_LIMIT_DELAY", up_to(10 * 366 * DAY), "The longest delay of a run";
    actions: usize = "limit-actions", "HELVE_LIMIT_ACTIONS", count(10_000), "Actions of one worker";
    slots: u32 = "limit-slots", "HELVE_LIMIT_SLOTS", count(1_000_000_u32), "Slots of one kind of one worker";
    labels: usize = "limit-labels", "HELVE_LIMIT_LABELS", count(1_000), "Labels of one worker";
    log_line_bytes: usize = "limit-log-line-bytes", "HELVE_LIMIT_LOG_LINE_BYTES", count(MIB),
        "Bytes of one log line that are kept";
    log_lines: usize = "limit-log-lines", "HELVE_LIMIT_LOG_LINES", count(10_000_000), "Log lines of one run that are kept";
    log_bytes: usize = "limit-log-bytes", "HELVE_LIMIT_LOG_BYTES", count(1_024 * MIB), "Bytes of the log of one run";
    log_rate: u32 = "limit-log-rate", "HELVE_LIMIT_LOG_RATE", count(1_000_000_u32),
        "Log lines, and KiB of them, of one worker a second";
    progress_bytes: usize = "limit-progress-bytes", "HELVE_LIMIT_PROGRESS_BYTES", count(MIB),
        "Bytes of the data of one progress";
}

settings! { SchedulingArgs => Scheduling, "Scheduling";
    optimistic: bool = "scheduling-optimistic", "HELVE_SCHEDULING_OPTIMISTIC", switch,
        "on: a trigger that finds a free slot is created assigned; off: everything is queued first";
    optimistic_slots: usize = "scheduling-optimistic-slots", "HELVE_SCHEDULING_OPTIMISTIC_SLOTS", count(1_000_000),
        "Optimistic assignments that wait for their commit; past it triggers are queued";
    window: usize = "scheduling-window", "HELVE_SCHEDULING_WINDOW", count(100_000),
        "Queued runs of one action that memory holds";
    pending: usize = "scheduling-pending", "HELVE_SCHEDULING_PENDING", count(1_000_000),
        "Triggers that wait for a commit; past it they are refused with 429";
    grace: Duration = "scheduling-grace", "HELVE_SCHEDULING_GRACE", up_to(DAY), "How long a lost worker keeps its work";
    ack: Duration = "scheduling-ack", "HELVE_SCHEDULING_ACK", up_to(MINUTE),
        "After this time an unconfirmed assignment is sent again";
    cancel_grace: Duration = "scheduling-cancel-grace", "HELVE_SCHEDULING_CANCEL_GRACE", up_to(DAY),
        "How long a cancelled attempt may hold its slot";
    redeliveries: i32 = "scheduling-redeliveries", "HELVE_SCHEDULING_REDELIVERIES", whole(0, 1_000_000_i32),
        "Times that a run is taken back from lost workers before it fails";
    silence: Duration = "scheduling-silence", "HELVE_SCHEDULING_SILENCE", up_to(DAY),
        "Silence after which a worker counts as gone";
    heartbeat: Duration = "scheduling-heartbeat", "HELVE_SCHEDULING_HEARTBEAT", up_to(DAY),
        "The longest time between two frames of a worker";
    lease: Duration = "scheduling-lease", "HELVE_SCHEDULING_LEASE", up_to(5 * MINUTE),
        "How long an engine's lease lasts without renewal";
}

settings! { RetentionArgs => Retention, "Retention";
    history: Duration = "retention-history", "HELVE_RETENTION_HISTORY", up_to(100 * 366 * DAY),
        "How long finished runs and events are kept";
    idempotency: Duration = "retention-idempotency", "HELVE_RETENTION_IDEMPOTENCY", up_to(366 * DAY),
        "How long idempotency keys are kept";
    jobs: Duration = "retention-jobs", "HELVE_RETENTION_JOBS", up_to(366 * DAY), "How long bulk jobs are kept after their end";
}

settings! { HttpArgs => Http, "HTTP";
    connections: usize = "http-connections", "HELVE_HTTP_CONNECTIONS", count(1_000_000), "Connections at once, sockets included";
    drain: Duration = "http-drain", "HELVE_HTTP_DRAIN", up_to(60 * MINUTE),
        "How long a stop waits for requests and workers";
    sockets_per_tenant: usize = "http-sockets-per-tenant", "HELVE_HTTP_SOCKETS_PER_TENANT", count(1_000_000),
        "Worker sockets of one tenant";
    streams_per_tenant: usize = "http-streams-per-tenant", "HELVE_HTTP_STREAMS_PER_TENANT", count(100_000),
        "Event streams of one tenant";
    metrics: MetricsAccess = "http-metrics", "HELVE_HTTP_METRICS", metrics_access,
        "Who may read /metrics: open, token (scope admin) or off";
}

/// All settings but the database's.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Settings {
    #[command(flatten)]
    http: HttpArgs,
    /// Host and port at which other engines on the same database reach this one
    #[arg(long, env = "HELVE_HTTP_ADVERTISE", value_name = "HOST:PORT", value_parser = address, help_heading = "HTTP")]
    #[arg(hide_short_help = true)]
    http_advertise: Option<String>,
    /// Origins whose pages may open a worker socket, separated by commas
    #[arg(long, env = "HELVE_HTTP_ORIGINS", value_delimiter = ',', value_name = "ORIGIN,..", help_heading = "HTTP")]
    #[arg(value_parser = origin, hide_short_help = true)]
    http_origins: Vec<String>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    scheduling: SchedulingArgs,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    traces: TraceArgs,
}

impl Settings {
    /// Puts what was given into `config`.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn apply(self, config: &mut Config) -> Result<(), String> {
        self.http.apply(&mut config.http);
        self.limits.apply(&mut config.limits);
        self.scheduling.apply(&mut config.scheduling);
        self.retention.apply(&mut config.retention);
        self.traces.apply(&mut config.traces)?;
        config.http.advertise = self.http_advertise.or_else(|| config.http.advertise.take());
        // A variable that is set to nothing is as good as absent.
        let origins: Vec<_> = self.http_origins.into_iter().filter(|origin| !origin.is_empty()).collect();
        if !origins.is_empty() {
            config.http.origins = origins;
        }
        let (s, l) = (&config.scheduling, &config.limits);
        for (wrong, text) in [
            (s.heartbeat >= s.silence, "HELVE_SCHEDULING_HEARTBEAT must be shorter than HELVE_SCHEDULING_SILENCE"),
            (s.lease < Duration::from_secs(1), "HELVE_SCHEDULING_LEASE must be at least 1s"),
            (l.payload_bytes >= l.body_bytes, "HELVE_LIMIT_PAYLOAD_BYTES must be below HELVE_LIMIT_BODY_BYTES"),
            (
                l.tenant_bytes < 2 * l.body_bytes,
                "HELVE_LIMIT_TENANT_BYTES must be at least twice HELVE_LIMIT_BODY_BYTES",
            ),
            (l.payload_bytes >= l.frame_bytes, "HELVE_LIMIT_PAYLOAD_BYTES must be below HELVE_LIMIT_FRAME_BYTES"),
        ] {
            if wrong {
                return Err(text.to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use helve_postgres::Database;

    use super::*;
    use crate::config::Traces;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        settings: Settings,
    }

    fn config() -> Config {
        Config {
            database: Database::at("postgres://db/x"),
            http: Http::default(),
            limits: Limits::default(),
            scheduling: Scheduling::default(),
            retention: Retention::default(),
            traces: Traces::default(),
            takeover: false,
        }
    }

    fn parse(args: &[&str]) -> Result<Config, String> {
        let only = Only::try_parse_from(["x"].iter().chain(args)).map_err(|e| e.to_string())?;
        let mut config = config();
        only.settings.apply(&mut config)?;
        Ok(config)
    }

    /// Also proof that no field was forgotten: a field without a flag has no variable of its name.
    #[test]
    fn every_field_has_a_flag() {
        use clap::CommandFactory;
        let value = serde_json::to_value(config()).unwrap();
        let command = Only::command();
        let names: Vec<String> = command.get_arguments().map(|a| a.get_id().to_string().replace('-', "_")).collect();
        for (part, prefix) in
            [("limits", "limit_"), ("scheduling", "scheduling_"), ("retention", "retention_"), ("http", "http_")]
        {
            for field in value[part].as_object().unwrap().keys().filter(|f| *f != "listen") {
                assert!(names.contains(&format!("{prefix}{field}")), "{part}.{field} cannot be set");
            }
        }
    }

    #[test]
    fn every_setting_takes_its_own_default() {
        let before = serde_json::to_value(config()).unwrap();
        for (part, prefix) in
            [("limits", "limit"), ("scheduling", "scheduling"), ("retention", "retention"), ("http", "http")]
        {
            for (field, value) in before[part].as_object().unwrap() {
                let text = match value {
                    serde_json::Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
                    serde_json::Value::Number(number) => number.to_string(),
                    serde_json::Value::String(text) if field != "listen" => text.clone(),
                    _ => continue,
                };
                let flag = format!("--{prefix}-{}", field.replace('_', "-"));
                let after = parse(&[&flag, &text]).unwrap_or_else(|e| panic!("{flag} {text}: {e}"));
                assert_eq!(serde_json::to_value(after).unwrap(), before, "{flag} {text}");
            }
        }
    }

    #[test]
    fn what_is_given_replaces_the_default_and_only_that() {
        let changed = parse(&[
            "--scheduling-optimistic",
            "off",
            "--limit-wait",
            "5m",
            "--http-origins",
            "https://A.example:443, http://b:8080,",
        ])
        .unwrap();
        assert!(!changed.scheduling.optimistic);
        assert_eq!(changed.limits.wait, Duration::from_secs(300));
        assert_eq!(changed.http.origins, ["https://a.example", "http://b:8080"]);
        assert_eq!(changed.scheduling.window, Scheduling::default().window);
    }

    #[test]
    fn wrong_values_are_refused() {
        for wrong in [
            ["--scheduling-optimistic", "maybe"],
            ["--limit-bulk-items", "0"],
            ["--scheduling-grace", "0s"],
            ["--retention-history", "soon"],
            ["--scheduling-heartbeat", "1h"],
            ["--http-advertise", "10.0.0.7"],
            ["--http-metrics", "on"],
            ["--http-origins", "app.example"],
            ["--http-origins", "https://app.example/"],
            ["--http-origins", "https://app.example/x"],
            ["--http-origins", "https://*.example"],
            ["--http-origins", "*"],
            ["--http-origins", "null"],
            ["--limit-payload-bytes", "99999999"],
            ["--limit-tenant-bytes", "8388607"],
            // Two of them would not fit into a row of an index.
            ["--limit-name-bytes", "1001"],
            ["--scheduling-window", "100001"],
            ["--scheduling-redeliveries", "-1"],
            ["--limit-wait", "61m"],
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
        let text = parse(&["--limit-name-bytes", "8000"]).unwrap_err();
        assert!(text.contains("from 1 to 1000"), "{text}");
    }
}
