//! Logs: JSON for machines, text for the eye; W3C trace context through every hop.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Json,
    Text,
}

/// Starts logging to standard error. `RUST_LOG` overrides the level. Call once a process.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,openraft=error,tower=warn,h2=warn,hyper=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).init(),
        LogFormat::Text => builder.with_target(false).compact().init(),
    }
}

/// The trace a request belongs to (W3C Trace Context, `traceparent`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// 32 hex digits, the same through every hop.
    pub trace_id: String,
    /// 16 hex digits, this hop's own.
    pub span_id: String,
}

impl Trace {
    pub fn start() -> Self {
        Self { trace_id: format!("{:032x}", rand::random::<u128>().max(1)), span_id: new_span_id() }
    }

    /// Goes on with the caller's trace where its header is well formed, else starts one.
    pub fn from_header(value: Option<&str>) -> Self {
        let parts: Vec<&str> = value.unwrap_or_default().split('-').collect();
        match parts.as_slice() {
            ["00", trace_id, parent, flags]
                if is_id(trace_id, 32) && is_id(parent, 16) && flags.len() == 2 =>
            {
                Self { trace_id: (*trace_id).to_owned(), span_id: new_span_id() }
            }
            _ => Self::start(),
        }
    }

    pub fn header(&self) -> String {
        format!("00-{}-{}-01", self.trace_id, self.span_id)
    }
}

fn new_span_id() -> String {
    format!("{:016x}", rand::random::<u64>().max(1))
}

fn is_id(text: &str, len: usize) -> bool {
    text.len() == len
        && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        && text.bytes().any(|b| b != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_header_is_continued_and_a_bad_one_replaced() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::from_header(Some(given));
        assert_eq!(trace.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(trace.span_id, "00f067aa0ba902b7");
        for bad in ["", "00-x-y-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert_ne!(Trace::from_header(Some(bad)).trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        }
    }
}
