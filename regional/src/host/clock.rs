//! The process's own clock, which only measures how long ago something was.

use common::BootTime;

/// Milliseconds on a clock that also runs while the machine sleeps (R15).
pub fn boot_ms() -> u64 {
    let since = BootTime::now().since(BootTime::default());
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
