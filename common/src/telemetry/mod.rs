//! Logs: JSON for machines, text for the eye; W3C trace context through every hop.

mod lines;

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Json,
    Text,
}

/// Tells every statement's parameters at `debug`: names, addresses, hashes of passwords.
const NEVER_AT_DEBUG: &str = "tokio_postgres=info";

/// Starts logging to standard error. `RUST_LOG` overrides the level. Call once a process.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,openraft=error,tower=warn,h2=warn,hyper=warn"))
        .add_directive(NEVER_AT_DEBUG.parse().expect("a directive as its documentation has them"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.event_format(lines::Lines).fmt_fields(lines::Lines).init(),
        LogFormat::Text => builder.with_target(false).compact().init(),
    }
}

/// The trace a request belongs to (W3C Trace Context, `traceparent`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    trace: u128,
    span: u64,
}

impl Trace {
    pub fn start() -> Self {
        Self { trace: rand::random::<u128>().max(1), span: new_span() }
    }

    /// Goes on with the caller's trace where its header is well formed, else starts one.
    pub fn from_header(value: Option<&str>) -> Self {
        let continued = |value: &str| {
            let mut parts = value.split('-');
            let (version, trace) = (parts.next()?, number(parts.next()?, 32)?);
            let (_parent, flags) = (number(parts.next()?, 16)?, parts.next()?);
            let whole = version == "00" && flags.len() == 2 && parts.next().is_none();
            whole.then(|| Self { trace, span: new_span() })
        };
        value.and_then(continued).unwrap_or_else(Self::start)
    }

    /// 32 hex digits, the same through every hop.
    pub fn trace_id(&self) -> impl Display {
        Hex { number: self.trace, digits: 32 }
    }

    /// 16 hex digits, this hop's own.
    pub fn span_id(&self) -> impl Display {
        Hex { number: self.span.into(), digits: 16 }
    }

    pub fn header(&self) -> String {
        format!("00-{:032x}-{:016x}-01", self.trace, self.span)
    }
}

struct Hex {
    number: u128,
    digits: usize,
}

impl Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.number, width = self.digits)
    }
}

fn new_span() -> u64 {
    rand::random::<u64>().max(1)
}

/// A number of so many lower-case hex digits, not 0.
fn number(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let number = if text.len() == digits && is_hex { u128::from_str_radix(text, 16).ok()? } else { 0 };
    (number != 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_header_is_continued_and_a_bad_one_replaced() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::from_header(Some(given));
        assert_eq!(trace.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(trace.span_id().to_string(), "00f067aa0ba902b7");
        assert_eq!(trace.header(), format!("00-{}-{}-01", trace.trace_id(), trace.span_id()));
        assert_eq!(trace.header().len(), given.len());
        for bad in [
            "",
            "00-x-y-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            let trace = Trace::from_header(Some(bad));
            assert_ne!(trace.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736", "{bad}");
        }
    }
}
