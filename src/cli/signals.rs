//! SIGTERM and SIGINT as a token that is cancelled.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled when the process is asked to end. A second signal ends it at once.
pub(super) fn shutdown() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let asked = token.clone();
    tokio::spawn(async move {
        for again in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if again {
                #[expect(clippy::exit, reason = "the second request to end is meant so")]
                std::process::exit(130);
            }
            tracing::info!("ending: no new requests, those in flight are answered");
            asked.cancel();
        }
    });
    Ok(token)
}
