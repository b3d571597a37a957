//! Nothing breaks, anywhere within the bounds.

use protocol_model::{all, check};

/// Steps; far more than any of them needs.
const MOST: usize = 5_000_000;

#[test]
fn nothing_breaks_within_the_short_forms_bounds() {
    for (bounds, _) in all().into_iter().filter(|(_, short)| *short) {
        let (size, found) = check(&bounds, MOST);
        println!("{}: {size}", bounds.name);
        if let Some(found) = found {
            panic!("{}: {found}", bounds.name);
        }
        assert!(size.whole, "{}: {size}", bounds.name);
    }
}
