//! What commands print: to standard output, line by line. Nobody listening any more is no failure.

use std::io::Write as _;

/// Prints one line.
pub(super) fn line(text: impl AsRef<str>) {
    writeln!(std::io::stdout().lock(), "{}", text.as_ref()).ok();
}
