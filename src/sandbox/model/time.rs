//! Times and durations as Twilio writes them.

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

use super::refusal::{INVALID_PARAMETER, Refusal, Rule};

/// In webhooks: `2026-01-02T03:04:05.678Z`.
pub(crate) fn with_millis(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// In REST answers: `2026-01-02T03:04:05Z`.
pub(crate) fn with_seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time in a request, such as `DateCreated` of an import.
pub(crate) fn parse(name: &str, text: &str) -> Result<Timestamp, Refusal> {
    text.parse()
        .map_err(|_| INVALID_PARAMETER.saying(format!("{name} is no ISO 8601 time")))
}

/// A timer such as `PT10M` or `P1D`, at least `least`. A day is 24 hours.
pub(crate) fn timer(
    text: &str,
    least: SignedDuration,
    format: Rule,
    short: Rule,
) -> Result<SignedDuration, Refusal> {
    let span: Span = text.parse().map_err(|_| format.refuse())?;
    let length = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| format.refuse())?;
    if length < least {
        Err(short.refuse())
    } else {
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::refusal::{TIMER_CLOSED_FORMAT, TIMER_CLOSED_SHORT};
    use super::*;

    #[test]
    fn webhooks_show_milliseconds_and_rest_does_not() {
        let at: Timestamp = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        assert_eq!(with_millis(at), "2026-01-02T03:04:05.678Z");
        assert_eq!(with_seconds(at), "2026-01-02T03:04:05Z");
        assert_eq!(
            with_millis("2026-01-02T03:04:05Z".parse().unwrap()),
            "2026-01-02T03:04:05.000Z"
        );
    }

    #[test]
    fn a_timer_has_a_format_and_a_least_length() {
        let least = SignedDuration::from_mins(10);
        let code = |text| {
            timer(text, least, TIMER_CLOSED_FORMAT, TIMER_CLOSED_SHORT).map_err(|refused| refused.code)
        };
        assert_eq!(code("P1DT1H"), Ok(SignedDuration::from_hours(25)));
        assert_eq!(code("PT9M59S"), Err(50376));
        assert_eq!(code("ten minutes"), Err(50380));
        assert_eq!(code("P1M"), Err(50380));
    }
}
