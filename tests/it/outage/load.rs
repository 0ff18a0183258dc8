//! Twilio in a busy hour: several senders, each with one webhook after the other, all of them different.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::TWILIO_PATIENCE;
use crate::support::webhook::{Webhook, client, sid};

const SENDERS: usize = 8;
const CONVERSATIONS: usize = 7;
const PAUSE: Duration = Duration::from_millis(10);

/// What became of one webhook.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) number: usize,
    /// 0 where the connection broke.
    pub(super) status: u16,
    pub(super) begun: Instant,
    pub(super) took: Duration,
}

pub(super) struct Load {
    senders: JoinSet<Vec<Sent>>,
    stop: CancellationToken,
    acked: watch::Receiver<usize>,
}

impl Load {
    pub(super) fn start(url: &str) -> Self {
        let (stop, next) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let (count, acked) = watch::channel(0);
        let client = client();
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            let (client, url) = (client.clone(), url.to_owned());
            let (stop, next, count) = (stop.clone(), Arc::clone(&next), count.clone());
            senders.spawn(async move {
                let mut all = Vec::new();
                while !stop.is_cancelled() {
                    let sent = send(&client, &url, next.fetch_add(1, Ordering::Relaxed)).await;
                    count.send_modify(|count| *count += usize::from(sent.status == 200));
                    all.push(sent);
                    tokio::time::sleep(PAUSE).await;
                }
                all
            });
        }
        Self { senders, stop, acked }
    }

    /// Waits until so many have been answered 200.
    pub(super) async fn has_acked(&mut self, number: usize) {
        let acked = self.acked.wait_for(|acked| *acked >= number);
        tokio::time::timeout(Duration::from_secs(20), acked)
            .await
            .expect("webhooks are answered")
            .expect("the senders are there");
    }

    /// How many have been answered 200.
    pub(super) fn acked(&self) -> usize {
        *self.acked.borrow()
    }

    /// Stops, and tells what became of everything that was sent.
    pub(super) async fn end(self) -> Vec<Sent> {
        self.stop.cancel();
        self.senders.join_all().await.into_iter().flatten().collect()
    }
}

fn webhook(number: usize) -> Webhook {
    Webhook::message(1 + number % CONVERSATIONS, number)
}

pub(super) fn message_sid(number: usize) -> String {
    sid("IM", (1 + number % CONVERSATIONS) * 100_000 + number)
}

async fn send(client: &Client, url: &str, number: usize) -> Sent {
    let (webhook, begun) = (webhook(number), Instant::now());
    let answer = webhook.request_by(client, url).send().await;
    Sent {
        number,
        status: answer.map_or(0, |answer| answer.status().as_u16()),
        begun,
        took: begun.elapsed(),
    }
}

/// The numbers of those that were answered 200.
pub(super) fn acked(sent: &[Sent]) -> Vec<usize> {
    let acked = sent.iter().filter(|sent| sent.status == 200);
    acked.map(|sent| sent.number).collect()
}

/// Every one was taken or told to come again, before Twilio would have given up.
pub(super) fn all_are_answered_in_time(sent: &[Sent]) {
    let bad: Vec<&Sent> = sent
        .iter()
        .filter(|sent| !matches!(sent.status, 200 | 503) || sent.took >= TWILIO_PATIENCE)
        .collect();
    assert!(
        bad.is_empty(),
        "{} of {}: {:?}",
        bad.len(),
        sent.len(),
        &bad[..bad.len().min(5)]
    );
}

/// How many were answered 503 in a time.
pub(super) fn refused_within(sent: &[Sent], time: Range<Instant>) -> usize {
    sent.iter()
        .filter(|sent| sent.status == 503 && time.contains(&(sent.begun + sent.took)))
        .count()
}

/// How many of those that were sent in a time were answered 200.
pub(super) fn acked_of(sent: &[Sent], time: Range<Instant>) -> usize {
    sent.iter()
        .filter(|sent| sent.status == 200 && time.contains(&sent.begun))
        .count()
}
