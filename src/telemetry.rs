//! What the process tells about itself: the log on standard error, and metrics for a scraper.
//!
//! Neither ever has a token, a phone number or a message's text: fields are SIDs, ids, codes and counts.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{ConfigError, Log, LogFormat};

/// Starts the log. Only the first call of a process counts.
pub fn start(settings: &Log) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|_| ConfigError {
        key: "log.filter".to_owned(),
        expected: "expected a filter like \"info\" or \"hookswitch=debug,info\"".to_owned(),
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    // A second start, as in tests, keeps the first subscriber.
    match settings.format {
        LogFormat::Text => drop(builder.with_target(false).try_init()),
        LogFormat::Json => drop(builder.json().flatten_event(true).try_init()),
    }
    Ok(())
}

/// The metrics of this process, in Prometheus' text format when rendered.
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        // Another recorder is installed only where somebody embeds us; then ours stays empty.
        drop(metrics::set_global_recorder(recorder));
        handle
    })
}
