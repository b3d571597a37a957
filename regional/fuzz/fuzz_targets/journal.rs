//! Bytes that pass for a show's journal, a line an entry: they are read or refused, what is read is written the
//! same, and folding it ends in a state or a reason. Start from `regional/src/show/tests/format_1.jsonl`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regional::show::{FORMAT, Show, decode, encode};

fuzz_target!(|data: &[u8]| {
    let mut show = None;
    for (seq, line) in (1..).zip(data.split(|byte| *byte == b'\n')) {
        let Ok(groups) = decode(FORMAT, line) else { return };
        assert_eq!(decode(FORMAT, &encode(&groups)).as_ref(), Ok(&groups));
        match Show::fold(show.take(), seq, &groups) {
            Ok(next) => show = next,
            Err(why) => return assert!(!why.is_empty()),
        }
    }
});
