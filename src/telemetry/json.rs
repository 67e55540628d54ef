//! Log lines as JSON: one object a line, each key once, with the fields of every span around it.

use std::fmt::{self, Debug};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// `timestamp`, `level`, `target`, `span`, and the event's own fields beside them. `span` has the `name` of the
/// innermost span and the fields of all, the inner one's where two have the same: a line of a task that a request has
/// started has the request's id.
pub(super) struct Lines;

impl<S> FormatEvent<S, JsonFields> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result
    where
        JsonFields: for<'a> FormatFields<'a>,
    {
        let mut line = Fields::default();
        event.record(&mut line);
        let mut span = Map::new();
        for outer in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let fields = outer.extensions().get::<FormattedFields<JsonFields>>().map(|f| serde_json::from_str(f));
            if let Some(Ok(Value::Object(fields))) = fields {
                span.extend(fields);
            }
            span.insert("name".to_owned(), outer.name().into());
        }
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let meta = event.metadata();
        let mut own = vec![
            ("timestamp", timestamp.into()),
            ("level", meta.level().as_str().into()),
            ("target", meta.target().into()),
        ];
        if !span.is_empty() {
            own.push(("span", Value::Object(span)));
        }
        writeln!(writer, "{}", line.with(own))
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    /// The line: a field that is called as one of the line's own parts gets a `_` after its name.
    fn with(mut self, own: Vec<(&str, Value)>) -> Value {
        for (name, value) in own {
            if let Some(taken) = self.0.insert(name.to_owned(), value) {
                self.0.insert(format!("{name}_"), taken);
            }
        }
        Value::Object(self.0)
    }

    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_each_key_once_and_the_fields_of_every_span() {
        let kept = Kept::default();
        let writer = kept.clone();
        let logs = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(Lines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(logs, || {
            let _request = tracing::info_span!("http", request.id = "req_1", name = "of the request").entered();
            let _task = tracing::info_span!("task", name = "write", size = 1).entered();
            tracing::warn!(level = 7, count = 2, "a line\nof two");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!((text.lines().count(), text.matches("\"name\"").count()), (1, 1), "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["span"], serde_json::json!({"name": "task", "request.id": "req_1", "size": 1}));
        assert_eq!(
            (&line["level"], &line["level_"], &line["count"], &line["message"]),
            (&"WARN".into(), &7.into(), &2.into(), &"a line\nof two".into())
        );
    }
}
