//! The database cannot be reached: not yet, or no more, without a word.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use super::load::{self, Load, all_are_answered_in_time};
use super::{Database, SOON, Service, all_kept, is_well, status};
use crate::support::webhook::Webhook;

/// Stands between service and database, and can swallow what is sent: then its connections are open and silent for
/// ever, as after a firewall has forgotten them.
struct Path {
    /// Connections made before the last change are silent for good.
    open: watch::Sender<bool>,
}

impl Path {
    fn start(listener: TcpListener, to: u16) -> Self {
        let (open, opened) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(forward(stream, to, opened.clone()));
            }
        });
        Self { open }
    }

    fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

async fn forward(mut near: TcpStream, to: u16, mut open: watch::Receiver<bool>) {
    if *open.borrow_and_update() {
        let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
            _ = open.changed() => {}
        }
        // The other end is forgotten, too; what it held is free once the server misses us.
    }
    // Held, so that the system goes on acknowledging what it will never deliver.
    std::future::pending::<()>().await;
    drop(near);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_whose_database_comes_late_or_falls_silent_is_well_soon_after() {
    let database = Database::start().await;
    let address = free_address();
    let options = database.server.connect_options().port(address.port());

    let service = Service::start(options).await;
    let client = load::client();
    assert_eq!(status(&client, &service.url, "/healthz").await, 200);
    assert_eq!(status_of_ready(&service).await, 503);
    let begun = Instant::now();
    let refused = Webhook::message(1, 99_999).send(&service.url).await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "unavailable"));
    assert!(begun.elapsed() < super::TWILIO_PATIENCE, "{:?}", begun.elapsed());

    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let path = Path::start(socket.listen(64).unwrap(), database.server.port());
    is_well(&service.url, 0, Instant::now(), SOON).await;

    let load = Load::start(&service.url);
    sleep(Duration::from_millis(500)).await;
    path.set_open(false);
    sleep(Duration::from_secs(5)).await;
    path.set_open(true);
    is_well(&service.url, 1, Instant::now(), SOON).await;
    sleep(Duration::from_millis(500)).await;

    let sent = load.end().await;
    all_are_answered_in_time(&sent);
    assert!(sent.iter().any(|sent| sent.status == 503));
    all_kept(&database.pool, &load::acked(&sent)).await;
    service.stop().await;
    database.server.stop().await.unwrap();
}

/// Once it answers at all: while the database is away that takes a moment.
async fn status_of_ready(service: &Service) -> u16 {
    let request = load::client().get(format!("{}/readyz", service.url)).send();
    request.await.unwrap().status().as_u16()
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
