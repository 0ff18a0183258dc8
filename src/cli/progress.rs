//! The bar of commands that take long.

const WIDTH: usize = 32;

/// Full where there is more than was expected: nothing better is known.
pub(super) fn bar(done: i64, expected: i64) -> String {
    drawn(done, expected, WIDTH)
}

fn drawn(done: i64, expected: i64, width: usize) -> String {
    let width_of_all = i64::try_from(width).unwrap_or(i64::MAX);
    let filled = done.saturating_mul(width_of_all) / expected.max(1);
    let filled = usize::try_from(filled).unwrap_or(0).min(width);
    format!("[{}{}]", "#".repeat(filled), "-".repeat(width - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_up_to_what_was_expected_and_no_further() {
        assert_eq!(drawn(0, 10, 10), "[----------]");
        assert_eq!(drawn(4, 10, 10), "[####------]");
        assert_eq!(drawn(10, 10, 10), "[##########]");
        assert_eq!(drawn(99, 10, 10), "[##########]");
        assert_eq!(drawn(3, 0, 4), "[####]");
    }
}
