//! The private PostgreSQL: its life, its deaths, and what it says when there is none.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hookswitch::db::MIGRATOR;
use hookswitch::db::embedded::{self, Durability, Embedded, EmbeddedError, Options};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret as _;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, Row as _};

use crate::support::database::database;

/// Plays the part of a process that is killed: set in the second process of a test, to the data directory.
const VICTIM: &str = "HOOKSWITCH_TEST_VICTIM";
const PATIENCE: Duration = Duration::from_secs(30);

fn throwaway(data_dir: &Path) -> Options {
    Options {
        durability: Durability::Throwaway,
        max_connections: 20,
        lock_time_limit: Duration::from_millis(200),
        bin_dir: std::env::var_os("PG_BIN_DIR").map(PathBuf::from),
        ..Options::new(data_dir)
    }
}

/// A data directory that other accounts can enter, as those of root's tests must be.
fn data_dir() -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("hookswitch-test-")
        .tempdir_in("/var/tmp")
        .unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

async fn ask(connection: &mut PgConnection, sql: &str) -> String {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .fetch_one(connection)
        .await
        .unwrap()
        .get(0)
}

async fn run(connection: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

async fn connect(server: &Embedded) -> PgConnection {
    server.connect_options().connect().await.unwrap()
}

/// Waits until `condition` holds; what it says about the state is the message of a failure.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Runs the named test again in a process of its own, as the victim, and returns it with its server's pid and port.
fn victim(test: &str, data_dir: &Path) -> (Child, u32, u16) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([&format!("embedded::{test}"), "--exact", "--nocapture"])
        .env(VICTIM, data_dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines
        .map_while(Result::ok)
        .find(|line| line.contains("serving"))
        .expect("the victim serves");
    let numbers: Vec<u32> = ready
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    (child, numbers[0], u16::try_from(numbers[1]).unwrap())
}

/// What the victim does: it commits a row, tells, and waits for its end.
async fn be_killed(data_dir: PathBuf) -> ! {
    let server = embedded::start(throwaway(&data_dir)).await.unwrap();
    let mut connection = connect(&server).await;
    run(&mut connection, "create table kept as select 'before' as word").await;
    let ready = format!("\nserving {} {}\n", server.pid().unwrap(), server.port());
    std::io::stdout().write_all(ready.as_bytes()).unwrap();
    std::future::pending().await
}

#[tokio::test]
async fn a_first_start_gives_an_empty_utf8_database_behind_a_password() {
    let dir = data_dir();
    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    let mut connection = connect(&server).await;
    assert_eq!(
        ask(&mut connection, "select current_database()::text").await,
        "hookswitch"
    );
    assert_eq!(ask(&mut connection, "show server_encoding").await, "UTF8");
    assert_eq!(ask(&mut connection, "show listen_addresses").await, "127.0.0.1");
    assert_eq!(ask(&mut connection, "show unix_socket_directories").await, "");
    assert_eq!(ask(&mut connection, "show timezone").await, "UTC");

    let by_url: PgConnectOptions = server.url().expose_secret().parse().unwrap();
    let wrong = by_url.clone().password("wrong").connect().await.unwrap_err();
    assert_eq!(
        wrong.into_database_error().unwrap().code().as_deref(),
        Some("28P01")
    );
    by_url.connect().await.unwrap();

    let password = dir.path().join("postgres/password");
    assert_eq!(password.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!format!("{server:?}").contains(std::fs::read_to_string(password).unwrap().trim()));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_durable_server_forces_commits_to_disk_and_a_throwaway_one_does_not() {
    let dir = data_dir();
    for (durability, expected) in [(Durability::Durable, "on"), (Durability::Throwaway, "off")] {
        let options = Options {
            durability,
            ..throwaway(dir.path())
        };
        let server = embedded::start(options).await.unwrap();
        let mut connection = connect(&server).await;
        for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
            assert_eq!(
                ask(&mut connection, &format!("show {setting}")).await,
                expected,
                "{setting}"
            );
        }
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_stop_and_a_start() {
    let dir = data_dir();
    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    run(
        &mut connect(&server).await,
        "create table kept as select 'before' as word",
    )
    .await;
    server.stop().await.unwrap();
    assert!(
        !dir.path().join("postgres/data/postmaster.pid").exists(),
        "stop waits for the end"
    );

    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    assert_eq!(
        ask(&mut connect(&server).await, "select word from kept").await,
        "before"
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_dropped_server_ends_by_itself() {
    let dir = data_dir();
    drop(embedded::start(throwaway(dir.path())).await.unwrap());
    let pid_file = dir.path().join("postgres/data/postmaster.pid");
    until("the server has ended", async || !pid_file.exists()).await;
}

#[test]
fn the_server_outlives_the_runtime_that_it_was_started_from() {
    let dir = data_dir();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let server = runtime()
        .block_on(embedded::start(throwaway(dir.path())))
        .unwrap();
    runtime().block_on(async {
        assert_eq!(
            ask(&mut connect(&server).await, "select 'still here'").await,
            "still here"
        );
        server.stop().await.unwrap();
    });
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused_by_name() {
    let dir = data_dir();
    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    let refused = embedded::start(throwaway(dir.path())).await.unwrap_err();
    assert!(matches!(refused, EmbeddedError::Locked { .. }), "{refused}");
    assert!(
        refused
            .to_string()
            .contains(&format!("in use by process {}", std::process::id())),
        "{refused}"
    );
    assert_eq!(
        ask(&mut connect(&server).await, "select 'unharmed'").await,
        "unharmed"
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_command_joins_the_server_that_another_process_runs() {
    let dir = data_dir();
    let nobody = embedded::running(dir.path()).unwrap();
    assert!(nobody.is_none(), "there is none yet");
    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    hookswitch::db::migrate(&server.connect_options()).await.unwrap();
    let made = tokio::process::Command::new(env!("CARGO_BIN_EXE_hookswitch"))
        .args(["key", "create", "--name", "beside", "--scope", "ledger:read"])
        .current_dir(dir.path())
        .env("HOOKSWITCH__DATABASE__DATA_DIR", dir.path())
        .env_remove("DATABASE_URL")
        .output()
        .await
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(
        ask(&mut connect(&server).await, "select name from api_key").await,
        "beside"
    );
    server.stop().await.unwrap();
    assert!(embedded::running(dir.path()).unwrap().is_none(), "it has ended");
}

#[tokio::test]
async fn a_killed_owner_takes_its_server_down_cleanly() {
    if let Some(data_dir) = std::env::var_os(VICTIM) {
        be_killed(data_dir.into()).await;
    }
    let dir = data_dir();
    let (mut owner, ..) = victim("a_killed_owner_takes_its_server_down_cleanly", dir.path());
    owner.kill().unwrap();
    owner.wait().unwrap();

    // No waiting for the end of the old server: that is for `start` to do.
    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    assert_eq!(
        ask(&mut connect(&server).await, "select word from kept").await,
        "before"
    );
    let log = std::fs::read_to_string(server.log_path()).unwrap();
    assert!(
        log.contains("received fast shutdown request") && log.contains("database system is shut down"),
        "{log}"
    );
    assert!(!log.contains("automatic recovery"), "{log}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_lost_owner_and_keeper_is_taken_over() {
    if let Some(data_dir) = std::env::var_os(VICTIM) {
        be_killed(data_dir.into()).await;
    }
    let dir = data_dir();
    let (mut owner, pid, port) = victim("a_server_that_lost_owner_and_keeper_is_taken_over", dir.path());
    // Held first, or it would give its server a new keeper.
    signal(owner.id(), Signal::STOP);
    for keeper in keepers_of(pid) {
        signal(keeper, Signal::KILL);
    }
    owner.kill().unwrap();
    owner.wait().unwrap();

    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    assert_eq!(
        (server.pid(), server.port()),
        (Some(pid), port),
        "it is the same server"
    );
    assert_eq!(
        ask(&mut connect(&server).await, "select word from kept").await,
        "before"
    );
    server.stop().await.unwrap();
    assert!(
        !dir.path().join("postgres/data/postmaster.pid").exists(),
        "the new owner stops it"
    );
}

/// The shells that watch over a server: its parent, and the child of that which is no server.
fn keepers_of(postmaster: u32) -> Vec<u32> {
    let parent = parent_of(postmaster).expect("the server has a parent");
    let siblings = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut keepers: Vec<u32> = siblings
        .filter(|pid| *pid != postmaster && parent_of(*pid) == Some(parent))
        .collect();
    assert_eq!(keepers.len(), 1, "one guard");
    // The parent first, since it would otherwise see the guard go.
    keepers.insert(0, parent);
    keepers
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test]
async fn a_killed_server_is_back_by_itself_at_the_same_address_with_all_that_was_committed() {
    let dir = data_dir();
    let durable = Options {
        durability: Durability::Durable,
        ..throwaway(dir.path())
    };
    let server = embedded::start(durable).await.unwrap();
    run(
        &mut connect(&server).await,
        "create table kept as select 'before' as word",
    )
    .await;
    let (pid, port) = (server.pid().unwrap(), server.port());
    signal(pid, Signal::KILL);
    until("the server is back", async || {
        server.connect_options().connect().await.is_ok()
    })
    .await;
    assert_ne!(server.pid(), Some(pid));
    assert_eq!(server.port(), port);
    assert_eq!(
        ask(&mut connect(&server).await, "select word from kept").await,
        "before"
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_start_after_both_were_killed_recovers() {
    if let Some(data_dir) = std::env::var_os(VICTIM) {
        be_killed(data_dir.into()).await;
    }
    let dir = data_dir();
    let (mut owner, pid, _) = victim("a_start_after_both_were_killed_recovers", dir.path());
    owner.kill().unwrap();
    signal(pid, Signal::KILL);
    owner.wait().unwrap();

    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    assert_eq!(
        ask(&mut connect(&server).await, "select 'recovered'").await,
        "recovered"
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_handle_keeps_the_server_running_without_its_owner() {
    let dir = data_dir();
    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    let (options, handle) = (server.connect_options(), server.keep_running().unwrap());
    drop(server);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        ask(&mut options.connect().await.unwrap(), "select 'kept'").await,
        "kept"
    );
    drop(handle);
    until("the server has ended", async || options.connect().await.is_err()).await;
}

#[tokio::test]
async fn a_data_directory_that_is_closed_to_the_servers_account_serves_all_the_same() {
    let dir = data_dir();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    assert_eq!(
        ask(&mut connect(&server).await, "select 'within'").await,
        "within"
    );
    let base = server.log_path().ancestors().nth(2).unwrap().to_owned();
    server.stop().await.unwrap();

    if rustix::process::geteuid().is_root() {
        assert!(
            base.starts_with("/var/tmp") && base != dir.path(),
            "{}",
            base.display()
        );
        assert_eq!(base.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        // Somebody else's directory under that name is not trusted.
        std::fs::set_permissions(&base, Permissions::from_mode(0o755)).unwrap();
        let refused = embedded::start(throwaway(dir.path())).await.unwrap_err();
        assert!(
            matches!(refused, EmbeddedError::ForeignDirectory { .. }),
            "{refused}"
        );
        std::fs::remove_dir_all(base).unwrap();
    } else {
        assert_eq!(base, dir.path(), "we are the server's account ourselves");
    }
}

#[tokio::test]
async fn a_half_made_cluster_is_made_again() {
    let dir = data_dir();
    let aside = dir.path().join("postgres.new");
    std::fs::create_dir(&aside).unwrap();
    std::fs::write(aside.join("password"), "of an attempt that was killed").unwrap();
    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    assert!(!aside.exists());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn data_of_another_major_version_is_refused_and_left_alone() {
    let dir = data_dir();
    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    server.stop().await.unwrap();
    let version = dir.path().join("postgres/data/PG_VERSION");
    std::fs::write(&version, "9\n").unwrap();
    let refused = embedded::start(throwaway(dir.path()))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("was made by PostgreSQL 9") && refused.contains("move that directory away"),
        "{refused}"
    );
    assert_eq!(std::fs::read_to_string(&version).unwrap(), "9\n");
}

#[tokio::test]
async fn a_bin_dir_without_postgresql_is_named_with_what_to_do() {
    let dir = data_dir();
    let options = Options {
        bin_dir: Some(dir.path().to_owned()),
        ..throwaway(dir.path())
    };
    let refused = embedded::start(options).await.unwrap_err().to_string();
    let expected = format!(
        "PG_BIN_DIR is {}, but there is no `postgres` in it: set it to the directory of PostgreSQL's `postgres` and `initdb`",
        dir.path().display()
    );
    assert_eq!(refused, expected);
}

#[tokio::test]
async fn a_server_that_cannot_start_is_told_with_the_end_of_its_log() {
    let dir = data_dir();
    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    server.stop().await.unwrap();
    std::fs::remove_file(dir.path().join("postgres/data/global/pg_control")).unwrap();
    let refused = embedded::start(throwaway(dir.path()))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("postgres/log") && refused.contains("could not find the database system"),
        "{refused}"
    );
}

#[tokio::test]
async fn the_log_does_not_quote_rows() {
    let dir = data_dir();
    let server = embedded::start(throwaway(dir.path())).await.unwrap();
    let mut connection = connect(&server).await;
    run(
        &mut connection,
        "create table person (name text primary key, age int check (age > 0))",
    )
    .await;
    run(&mut connection, "insert into person values ('Nobody-We-Know', 1)").await;
    for sql in [
        "insert into person values ('Nobody-We-Know', 1)",
        "insert into person values ('Nobody-We-Know-2', -1)",
    ] {
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap_err();
    }
    let log = std::fs::read_to_string(server.log_path()).unwrap();
    assert!(
        log.contains("duplicate key value") && log.contains("violates check constraint"),
        "{log}"
    );
    assert!(!log.contains("Nobody-We-Know"), "{log}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn each_test_has_a_migrated_database_of_its_own() {
    let (one, two) = (database().await, database().await);
    let (pool, mut other) = (one.pool(2).await, two.options.connect().await.unwrap());
    run(&mut pool.acquire().await.unwrap(), "create table mine ()").await;
    assert_eq!(
        ask(
            &mut other,
            "select coalesce(to_regclass('mine')::text, 'not here')"
        )
        .await,
        "not here"
    );
    let applied = ask(&mut other, "select count(*)::text from _sqlx_migrations").await;
    assert_eq!(applied, MIGRATOR.iter().count().to_string());
    assert!(one.url().expose_secret().ends_with("sslmode=disable"));
}
