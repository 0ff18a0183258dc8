//! The work queue: order, leases and fences, repeats and their limit, waking.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hookswitch::clock::Clock;
use hookswitch::db::Notices;
use hookswitch::queue::{
    self, Concurrency, Counts, Handler, Lane, Lease, NewTask, Outcome, Settings, Task, TaskKind, Wake, Worker,
};
use jiff::SignedDuration;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row as _};
use tokio_util::sync::CancellationToken;

use crate::support::database::{TestDatabase, database};

const KIND: TaskKind = TaskKind::new("test.note", Lane::Foreground);

struct Queue {
    pool: PgPool,
    clock: Clock,
    _database: TestDatabase,
}

impl Queue {
    async fn start() -> Self {
        let database = database().await;
        Self {
            pool: database.pool(12).await,
            clock: Clock::fixed("2026-01-02T10:00:00Z".parse().unwrap()),
            _database: database,
        }
    }

    fn worker(&self, handler: Scripted) -> Worker {
        self.worker_with(handler, Settings::default())
    }

    fn worker_with(&self, handler: Scripted, settings: Settings) -> Worker {
        let handlers: Vec<(TaskKind, Arc<dyn Handler>)> = vec![(KIND, Arc::new(handler))];
        Worker::new(self.pool.clone(), self.clock.clone(), handlers, settings)
    }

    fn task(&self, order_key: &str, name: &str) -> NewTask {
        NewTask {
            kind: KIND,
            order_key: order_key.to_owned(),
            unique_key: None,
            payload: json!({ "name": name }),
            run_at: self.clock.now(),
            attempts_max: 3,
        }
    }

    async fn put(&self, task: &NewTask) {
        let mut conn = self.pool.acquire().await.unwrap();
        queue::put(&mut conn, task, self.clock.now()).await.unwrap();
    }

    async fn put_all(&self, order_key: &str, names: &[&str]) {
        for name in names {
            self.put(&self.task(order_key, name)).await;
        }
    }

    async fn counts(&self) -> Counts {
        queue::counts(&mut self.pool.acquire().await.unwrap())
            .await
            .unwrap()
    }

    /// A column of the only task there is, as text.
    async fn column(&self, column: &str) -> Option<String> {
        let sql = AssertSqlSafe(format!("select ({column})::text from task"));
        let row = sqlx::raw_sql(sql).fetch_one(&self.pool).await.unwrap();
        row.get(0)
    }
}

type Act = Box<dyn Fn(Task) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// Notes what it runs, and does what the test says.
struct Scripted {
    runs: Arc<Mutex<Vec<String>>>,
    buried: Arc<AtomicUsize>,
    act: Act,
}

fn scripted<F, R>(act: F) -> Scripted
where
    F: Fn(Task) -> R + Send + Sync + 'static,
    R: Future<Output = Outcome> + Send + 'static,
{
    Scripted {
        runs: Arc::default(),
        buried: Arc::default(),
        act: Box::new(move |task| Box::pin(act(task))),
    }
}

fn name_of(task: &Task) -> String {
    task.payload["name"].as_str().unwrap().to_owned()
}

impl Handler for Scripted {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        self.runs.lock().unwrap().push(name_of(task));
        (self.act)(task.clone())
    }

    fn buried<'a>(
        &'a self,
        _: &'a mut PgConnection,
        _: &'a Task,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        self.buried.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
}

fn taken(runs: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut *runs.lock().unwrap())
}

#[tokio::test]
async fn tasks_of_one_key_run_in_their_order_and_hold_up_nobody_else() {
    let queue = Queue::start().await;
    queue.put_all("a", &["a1", "a2"]).await;
    queue.put_all("b", &["b1"]).await;
    let waited = Arc::new(AtomicUsize::new(0));
    let handler = scripted(move |task| {
        let first = name_of(&task) == "a1" && waited.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                Outcome::Wait(SignedDuration::from_secs(10))
            } else {
                Outcome::Done
            }
        }
    });
    let runs = Arc::clone(&handler.runs);
    let worker = queue.worker(handler);

    worker.run_until_idle().await.unwrap();
    assert_eq!(taken(&runs), ["a1", "b1"], "a2 is due, and waits for a1");
    queue.clock.advance(SignedDuration::from_secs(9));
    worker.run_until_idle().await.unwrap();
    assert_eq!(taken(&runs), Vec::<String>::new());
    queue.clock.advance(SignedDuration::from_secs(1));
    worker.run_until_idle().await.unwrap();
    assert_eq!(taken(&runs), ["a1", "a2"]);
    assert_eq!(queue.counts().await, Counts::default());
}

#[tokio::test]
async fn two_workers_at_once_never_run_two_tasks_of_one_key() {
    const KEYS: usize = 4;
    const TASKS: usize = 12;
    let queue = Queue::start().await;
    for number in 0..TASKS {
        for key in 0..KEYS {
            queue
                .put(&queue.task(&format!("key {key}"), &format!("{key}/{number:02}")))
                .await;
        }
    }
    let active: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let broken = Arc::new(AtomicUsize::new(0));
    let runs: Arc<Mutex<Vec<String>>> = Arc::default();
    let cancel = CancellationToken::new();
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (active, broken) = (Arc::clone(&active), Arc::clone(&broken));
            let mut handler = scripted(move |task| {
                let (active, broken) = (Arc::clone(&active), Arc::clone(&broken));
                async move {
                    let key = name_of(&task).split('/').next().unwrap().to_owned();
                    if !active.lock().unwrap().insert(key.clone()) {
                        broken.fetch_add(1, Ordering::SeqCst);
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    active.lock().unwrap().remove(&key);
                    Outcome::Done
                }
            });
            handler.runs = Arc::clone(&runs);
            let settings = Settings {
                concurrency: Concurrency {
                    foreground: 8,
                    ..Concurrency::default()
                },
                poll: Duration::from_millis(20),
                ..Settings::default()
            };
            let (worker, cancel) = (queue.worker_with(handler, settings), cancel.clone());
            tokio::spawn(async move { worker.run(Arc::new(Wake::default()), cancel).await })
        })
        .collect();
    within_ten_seconds(|| async { queue.counts().await == Counts::default() }).await;
    cancel.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(broken.load(Ordering::SeqCst), 0);
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for run in taken(&runs) {
        let (key, number) = run.split_once('/').unwrap();
        by_key.entry(key.to_owned()).or_default().push(number.to_owned());
    }
    let in_order: Vec<String> = (0..TASKS).map(|number| format!("{number:02}")).collect();
    assert_eq!(by_key.len(), KEYS);
    assert!(by_key.values().all(|numbers| *numbers == in_order), "{by_key:?}");
}

/// Looks again and again, as tests of what runs by itself have to.
async fn within_ten_seconds<R: Future<Output = bool>>(mut look: impl FnMut() -> R) {
    for _ in 0..1_000 {
        if look().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not so within ten seconds");
}

#[tokio::test]
async fn a_worker_that_overslept_changes_nothing_whatever_it_comes_to() {
    let ends: [fn() -> Outcome; 4] = [
        || Outcome::Done,
        || Outcome::Wait(SignedDuration::ZERO),
        || Outcome::Retry(anyhow::anyhow!("too late")),
        || Outcome::Bury(anyhow::anyhow!("too late")),
    ];
    for end in ends {
        let queue = Queue::start().await;
        queue.put_all("a", &["a1"]).await;
        let leases: Arc<Mutex<Vec<Lease>>> = Arc::default();
        // The other one takes the task and is still at it when the first one wakes up.
        let other_leases = Arc::clone(&leases);
        let other = queue.worker(scripted(move |task| {
            other_leases.lock().unwrap().push(task.lease);
            async { Outcome::Finished }
        }));
        let (clock, own_leases) = (queue.clock.clone(), Arc::clone(&leases));
        let handler = scripted(move |task| {
            own_leases.lock().unwrap().push(task.lease);
            let (other, clock) = (other.clone(), clock.clone());
            async move {
                clock.advance(SignedDuration::from_mins(60));
                other.run_until_idle().await.unwrap();
                end()
            }
        });
        let buried = Arc::clone(&handler.buried);
        queue.worker(handler).run_until_idle().await.unwrap();

        let leases = leases.lock().unwrap().clone();
        let [overslept, holder] = leases[..] else {
            panic!("both have had the task once, in this order");
        };
        assert_eq!(overslept.task_id, holder.task_id);
        let running = Counts {
            running: 1,
            ..Counts::default()
        };
        assert_eq!(queue.counts().await, running);
        assert_eq!(buried.load(Ordering::SeqCst), 0);
        assert_eq!(queue.column("last_error").await, None);
        assert_eq!(queue.column("attempts").await.as_deref(), Some("2"));
        let mut conn = queue.pool.acquire().await.unwrap();
        assert!(!queue::is_held(&mut conn, overslept).await.unwrap());
        assert!(!queue::finish(&mut conn, overslept).await.unwrap());
        assert!(queue::finish(&mut conn, holder).await.unwrap());
    }
}

#[tokio::test]
async fn a_task_that_fails_is_tried_again_later_and_put_aside_at_its_limit() {
    let queue = Queue::start().await;
    queue.put_all("a", &["a1", "a2"]).await;
    let handler = scripted(|task| async move {
        if name_of(&task) == "a1" {
            Outcome::Retry(anyhow::anyhow!("the inner cause").context("the outer one"))
        } else {
            Outcome::Done
        }
    });
    let (runs, buried) = (Arc::clone(&handler.runs), Arc::clone(&handler.buried));
    let worker = queue.worker(handler);

    worker.run_until_idle().await.unwrap();
    assert_eq!(taken(&runs), ["a1"], "tried again only later");
    queue.clock.advance(SignedDuration::from_millis(200));
    worker.run_until_idle().await.unwrap();
    assert_eq!(
        taken(&runs),
        Vec::<String>::new(),
        "a quarter of a second at least"
    );
    queue.clock.advance(SignedDuration::from_millis(400));
    worker.run_until_idle().await.unwrap();
    assert_eq!(taken(&runs), ["a1"]);
    queue.clock.advance(SignedDuration::from_secs(1));
    worker.run_until_idle().await.unwrap();
    assert_eq!(taken(&runs), ["a1", "a2"], "what is put aside holds up nobody");
    assert_eq!(buried.load(Ordering::SeqCst), 1);
    assert_eq!(queue.counts().await.dead, 1);
    assert_eq!(
        queue.column("last_error").await.as_deref(),
        Some("the outer one: the inner cause")
    );

    let mut conn = queue.pool.acquire().await.unwrap();
    let moved = queue::requeue_dead(&mut conn, queue.clock.now()).await.unwrap();
    assert_eq!(moved, 1);
    for _ in 0..3 {
        worker.run_until_idle().await.unwrap();
        queue.clock.advance(SignedDuration::from_secs(2));
    }
    assert_eq!(taken(&runs), ["a1", "a1", "a1"], "another round of attempts");
    assert_eq!(queue.counts().await.dead, 1);
}

#[tokio::test]
async fn of_tasks_with_one_unique_key_one_waits_at_most() {
    let queue = Queue::start().await;
    let unique = |name: &str, after| NewTask {
        unique_key: Some("only".to_owned()),
        run_at: queue.clock.now() + SignedDuration::from_secs(after),
        ..queue.task("a", name)
    };
    queue.put(&unique("first", 5)).await;
    queue.put(&unique("second", 20)).await;
    assert_eq!(queue.counts().await.ready, 1);

    // One that is put while another runs waits for its turn, and does the work of that one where it is given back.
    let (pool, clock) = (queue.pool.clone(), queue.clock.clone());
    let third = unique("third", 5);
    let handler = scripted(move |task| {
        let (pool, clock, third) = (pool.clone(), clock.clone(), third.clone());
        async move {
            if name_of(&task) == "third" {
                return Outcome::Done;
            }
            queue::put(&mut pool.acquire().await.unwrap(), &third, clock.now())
                .await
                .unwrap();
            Outcome::Wait(SignedDuration::from_hours(1))
        }
    });
    let runs = Arc::clone(&handler.runs);
    let worker = queue.worker(handler);
    worker.run_until_idle().await.unwrap();
    assert_eq!(taken(&runs), Vec::<String>::new());
    queue.clock.advance(SignedDuration::from_secs(5));
    worker.run_until_idle().await.unwrap();
    assert_eq!(
        taken(&runs),
        ["second", "third"],
        "the later payload, at the earlier time"
    );
    assert_eq!(queue.counts().await, Counts::default());
}

/// Runs a worker by itself until it has run one task, and answers with how long that took after `put`.
async fn time_to_run(queue: &Queue, wake: Arc<Wake>, poll: Duration, task: NewTask) -> Duration {
    let handler = scripted(|_| async { Outcome::Done });
    let runs = Arc::clone(&handler.runs);
    let settings = Settings {
        poll,
        ..Settings::default()
    };
    let worker = queue.worker_with(handler, settings);
    let cancel = CancellationToken::new();
    let running = tokio::spawn({
        let cancel = cancel.clone();
        async move { worker.run(wake, cancel).await }
    });
    // So that it has looked, and sleeps.
    tokio::time::sleep(Duration::from_millis(150)).await;
    queue.put(&task).await;
    let put_at = std::time::Instant::now();
    within_ten_seconds(|| async { !runs.lock().unwrap().is_empty() }).await;
    let took = put_at.elapsed();
    cancel.cancel();
    running.await.unwrap();
    took
}

#[tokio::test]
async fn a_notice_wakes_a_worker_at_once() {
    let mut queue = Queue::start().await;
    queue.clock = Clock::ahead();
    let notices = Notices::default();
    let cancel = CancellationToken::new();
    let listening = tokio::spawn(notices.clone().listen(queue.pool.clone(), cancel.clone()));
    let task = queue.task("a", "a1");
    let took = time_to_run(&queue, Arc::clone(&notices.tasks), Duration::from_mins(1), task).await;
    assert!(
        took < Duration::from_secs(5),
        "took {took:?}, and the tick is a minute"
    );
    cancel.cancel();
    listening.await.unwrap();
}

#[tokio::test]
async fn without_a_notice_a_worker_looks_now_and_then() {
    let mut queue = Queue::start().await;
    queue.clock = Clock::ahead();
    let task = queue.task("a", "a1");
    time_to_run(
        &queue,
        Arc::new(Wake::default()),
        Duration::from_millis(200),
        task,
    )
    .await;
    assert_eq!(queue.counts().await, Counts::default());
}

#[tokio::test]
async fn a_worker_that_sleeps_wakes_for_the_next_task_that_becomes_due() {
    let mut queue = Queue::start().await;
    queue.clock = Clock::ahead();
    let later = NewTask {
        run_at: queue.clock.now() + SignedDuration::from_millis(700),
        ..queue.task("a", "a1")
    };
    queue.put(&later).await;
    let handler = scripted(|_| async { Outcome::Done });
    let runs = Arc::clone(&handler.runs);
    let settings = Settings {
        poll: Duration::from_mins(1),
        ..Settings::default()
    };
    let worker = queue.worker_with(handler, settings);
    let cancel = CancellationToken::new();
    let running = tokio::spawn({
        let cancel = cancel.clone();
        async move { worker.run(Arc::new(Wake::default()), cancel).await }
    });
    within_ten_seconds(|| async { !runs.lock().unwrap().is_empty() }).await;
    assert!(queue.clock.now() >= later.run_at);
    cancel.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn of_buried_tasks_for_the_same_thing_one_is_tried_again() {
    let queue = Queue::start().await;
    let unique = |name: &str| NewTask {
        unique_key: Some("only".to_owned()),
        ..queue.task("a", name)
    };
    let worker = queue.worker(scripted(|_| async { Outcome::Bury(anyhow::anyhow!("never")) }));
    for name in ["first", "second", "third"] {
        queue.put(&unique(name)).await;
        worker.run_until_idle().await.unwrap();
    }
    queue.put(&queue.task("b", "other")).await;
    worker.run_until_idle().await.unwrap();
    assert_eq!(queue.counts().await.dead, 4);
    let mut conn = queue.pool.acquire().await.unwrap();
    assert_eq!(
        queue::requeue_dead(&mut conn, queue.clock.now()).await.unwrap(),
        2
    );
    assert_eq!(
        queue.counts().await,
        Counts {
            ready: 2,
            ..Counts::default()
        }
    );
    let again = scripted(|_| async { Outcome::Done });
    let runs = Arc::clone(&again.runs);
    queue.worker(again).run_until_idle().await.unwrap();
    assert_eq!(taken(&runs), ["third", "other"]);
}

#[tokio::test]
async fn a_lane_that_hangs_holds_up_no_other() {
    let mut queue = Queue::start().await;
    queue.clock = Clock::ahead();
    let runs: Arc<Mutex<Vec<String>>> = Arc::default();
    let kinds = Lane::ALL.map(|lane| TaskKind::new(lane.as_str(), lane));
    let handlers = kinds.map(|kind| {
        let mut handler = scripted(|task| async move {
            if name_of(&task).starts_with("hangs") {
                std::future::pending::<()>().await;
            }
            Outcome::Done
        });
        handler.runs = Arc::clone(&runs);
        (kind, Arc::new(handler) as Arc<dyn Handler>)
    });
    let settings = Settings {
        concurrency: Concurrency {
            foreground: 2,
            background: 1,
            local: 1,
        },
        poll: Duration::from_mins(1),
        ..Settings::default()
    };
    let worker = Worker::new(queue.pool.clone(), queue.clock.clone(), handlers.into(), settings);
    let notices = Notices::default();
    let cancel = CancellationToken::new();
    let listening = tokio::spawn(notices.clone().listen(queue.pool.clone(), cancel.clone()));
    let running = tokio::spawn({
        let (wake, cancel) = (Arc::clone(&notices.tasks), cancel.clone());
        async move { worker.run(wake, cancel).await }
    });
    let put = async |lane: Lane, name: &str| {
        let task = NewTask {
            kind: TaskKind::new(lane.as_str(), lane),
            ..queue.task(name, name)
        };
        queue.put(&task).await;
    };
    let have_run = async |names: &[&str]| {
        within_ten_seconds(|| async {
            let mut runs = runs.lock().unwrap().clone();
            runs.sort();
            runs == names
        })
        .await;
    };
    put(Lane::Foreground, "hangs 1").await;
    put(Lane::Foreground, "hangs 2").await;
    put(Lane::Foreground, "never").await;
    put(Lane::Background, "hangs 3").await;
    put(Lane::Background, "never either").await;
    have_run(&["hangs 1", "hangs 2", "hangs 3"]).await;
    put(Lane::Local, "local 1").await;
    put(Lane::Local, "local 2").await;
    have_run(&["hangs 1", "hangs 2", "hangs 3", "local 1", "local 2"]).await;
    running.abort();
    cancel.cancel();
    listening.await.unwrap();
}

#[tokio::test]
async fn a_worker_sleeps_while_all_that_is_due_waits_for_what_runs() {
    let mut queue = Queue::start().await;
    queue.clock = Clock::ahead();
    queue.put_all("a", &["hangs", "next"]).await;
    let handler = scripted(|_| async {
        std::future::pending::<()>().await;
        Outcome::Done
    });
    let runs = Arc::clone(&handler.runs);
    let settings = Settings {
        poll: Duration::from_mins(1),
        ..Settings::default()
    };
    let worker = queue.worker_with(handler, settings);
    let running = tokio::spawn(async move {
        worker
            .run(Arc::new(Wake::default()), CancellationToken::new())
            .await;
    });
    within_ten_seconds(|| async { !runs.lock().unwrap().is_empty() }).await;
    let transactions = async || {
        // What a connection did is counted a second later at most, once it does something else.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let sql = "select xact_commit from pg_stat_database where datname = current_database()";
        let row = sqlx::raw_sql(sql).fetch_one(&queue.pool).await.unwrap();
        row.get::<i64, _>(0)
    };
    let before = transactions().await;
    let after = transactions().await;
    assert!(after - before < 100, "{} looks in 1.5 s", after - before);
    assert_eq!(taken(&runs), ["hangs"]);
    running.abort();
}

#[tokio::test]
async fn what_is_due_much_later_wakes_nobody_and_is_run_when_it_is_due() {
    let mut queue = Queue::start().await;
    queue.clock = Clock::ahead();
    let mut listener = sqlx::postgres::PgListener::connect_with(&queue.pool)
        .await
        .unwrap();
    listener.listen(queue::CHANNEL).await.unwrap();
    let in_seconds = |seconds: i64, name: &str| NewTask {
        run_at: queue.clock.now() + SignedDuration::from_secs(seconds),
        ..queue.task(name, name)
    };
    queue.put(&in_seconds(61, "later")).await;
    queue.put(&in_seconds(59, "soon")).await;
    let notice = listener.recv().await.unwrap();
    assert_eq!(notice.payload(), "foreground");
    assert!(
        tokio::time::timeout(Duration::from_millis(300), listener.recv())
            .await
            .is_err(),
        "one of the two wakes"
    );
}
