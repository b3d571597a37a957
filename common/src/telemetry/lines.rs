//! Log lines as JSON, one object a line: `timestamp`, `level`, the event's fields, `target`, and `span` with
//! the fields of the span it happened in.
//!
//! By hand because every request writes them: a span is rendered once, straight into text, and copied into
//! each of its lines; the subscriber's own format reads a span's text back as JSON for every line.
//! Invariant: every line is one JSON object, whatever the fields hold.

use std::fmt::{self, Debug, Write};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Both the format of a line and that of a span's fields.
pub struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let mut line = String::with_capacity(512);
        write!(line, "{{\"timestamp\":\"{:.6}\",\"level\":\"{}\"", Timestamp::now(), meta.level())?;
        let mut members = Members { text: &mut line, first: false, target: None };
        event.record(&mut members);
        let target = members.target.take();
        member(&mut line, false, "target")?;
        quote(&mut line, target.as_deref().unwrap_or(meta.target()))?;
        let span = event.parent().and_then(|id| ctx.span(id)).or_else(|| ctx.lookup_current());
        if let Some(span) = span {
            line.push_str(",\"span\":{");
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>().filter(|f| !f.fields.is_empty()) {
                line.push_str(&fields.fields);
                line.push(',');
            }
            line.push_str("\"name\":");
            quote(&mut line, span.name())?;
            line.push('}');
        }
        line.push_str("}\n");
        out.write_str(&line)
    }
}

impl<'writer> FormatFields<'writer> for Lines {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = String::with_capacity(192);
        fields.record(&mut Members { text: &mut text, first: true, target: None });
        out.write_str(&text)
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &tracing::span::Record<'_>,
    ) -> fmt::Result {
        let first = current.fields.is_empty();
        fields.record(&mut Members { text: &mut current.fields, first, target: None });
        Ok(())
    }
}

/// Writes fields as members of an object. Writing to a `String` does not fail.
struct Members<'a> {
    text: &'a mut String,
    first: bool,
    /// Where a line that came through the `log` crate is from; its other `log.…` fields say little.
    target: Option<String>,
}

impl Members<'_> {
    fn raw(&mut self, field: &Field, value: impl fmt::Display) {
        let _ = member(self.text, std::mem::take(&mut self.first), field.name());
        let _ = write!(self.text, "{value}");
    }

    fn text(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => self.target = Some(value.to_owned()),
            name if name.starts_with("log.") => {}
            name => {
                let _ = member(self.text, std::mem::take(&mut self.first), name);
                let _ = quote(self.text, value);
            }
        }
    }
}

impl Visit for Members<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.raw(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.raw(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() != "log.line" {
            self.raw(field, value);
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows no infinity.
        if value.is_finite() { self.raw(field, value) } else { self.text(field, &value.to_string()) }
    }
}

fn member(text: &mut String, first: bool, name: &str) -> fmt::Result {
    if !first {
        text.push(',');
    }
    quote(text, name.strip_prefix("r#").unwrap_or(name))?;
    text.push(':');
    Ok(())
}

fn quote(text: &mut String, value: &str) -> fmt::Result {
    // Mostly there is nothing to escape.
    if value.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') {
        text.push('"');
        text.push_str(value);
        text.push('"');
        return Ok(());
    }
    text.push_str(&serde_json::to_string(value).map_err(|_| fmt::Error)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(work: impl FnOnce()) -> Vec<Value> {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(Lines)
            .fmt_fields(Lines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_line_is_an_object_with_its_span() {
        let all = lines(|| {
            tracing::info!("alone");
            let span = tracing::info_span!("request", request_id = "req_1", trace_id = %"4b\"f", late = tracing::field::Empty);
            let _entered = span.enter();
            span.record("late", 7);
            let error = io::Error::other("line\nbreak \\ \u{1} \"quoted\"");
            let dynamic: &(dyn std::error::Error + 'static) = &error;
            tracing::warn!(%error, dynamic, code = 503, ok = false, millis = 1.5, odd = f64::NAN, list = ?["a"], "it \"failed\"");
            tracing::info_span!("inner").in_scope(|| tracing::info!(r#type = "x", "within"));
        });
        assert_eq!(all.len(), 3);
        assert!(all[0]["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert_eq!((&all[0]["message"], all[0].get("span")), (&json!("alone"), None));
        let failed = &all[1];
        assert_eq!(failed["level"], "WARN");
        assert_eq!(failed["message"], "it \"failed\"");
        assert_eq!(failed["error"], "line\nbreak \\ \u{1} \"quoted\"");
        assert_eq!(failed["dynamic"], failed["error"]);
        assert_eq!(
            (&failed["code"], &failed["ok"], &failed["millis"]),
            (&json!(503), &json!(false), &json!(1.5))
        );
        assert_eq!((&failed["odd"], &failed["list"]), (&json!("NaN"), &json!("[\"a\"]")));
        assert_eq!(failed["target"], "common::telemetry::lines::tests");
        assert_eq!(
            failed["span"],
            json!({"request_id": "req_1", "trace_id": "4b\"f", "late": 7, "name": "request"})
        );
        assert_eq!((&all[2]["type"], &all[2]["span"]), (&json!("x"), &json!({"name": "inner"})));
    }
}
