//! What auditors rely on: views, seals, and what they may do.

mod seals;
mod views;

use std::time::Duration;

use hookswitch::audit::{Sealer, verify};

/// Seals until nothing is left. What was written last waits for every transaction of the server that is older, and other
/// tests have such.
pub(crate) async fn seal_everything(sealer: &Sealer) -> u64 {
    let mut added = 0;
    for _ in 0..2_000 {
        added += sealer.seal_all().await.unwrap();
        let found = verify(&sealer.pool, None, 1).await.unwrap();
        if found.is_ok_and(|verified| verified.unsealed == 0) {
            return added;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("some entries are never sealed");
}
