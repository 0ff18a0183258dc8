//! `hookswitch sandbox` as a process: says where it listens, answers, and ends when told to.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::{ACCOUNT, answer};

fn sandbox() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookswitch"));
    command
        .args(["sandbox", "--listen", "127.0.0.1:0", "--number", "+15555550199"])
        .env("SANDBOX_AUTH_TOKEN", "token-of-the-environment")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn the_command_says_where_it_listens_and_ends_on_a_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = sandbox().spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let (_, url) = line
            .split_once(" listens on ")
            .expect("the line names the address");
        assert!(!line.contains("token-of-the-environment"));

        hookswitch::twilio::install_tls();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let numbers = http.get(format!("{url}/sandbox/v1/numbers"));
        let numbers = answer(numbers.basic_auth(ACCOUNT, Some("token-of-the-environment")))
            .await
            .expect_ok(200);
        assert_eq!(numbers["numbers"], serde_json::json!(["+15555550199"]));

        let pid = Pid::from_raw(i32::try_from(process.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(10), process.wait()).await;
        assert!(ended.expect("it ends in time").unwrap().success());
    }
}

#[tokio::test]
async fn a_wrong_setting_is_refused_by_its_name() {
    let output = sandbox()
        .args(["--identity-replacement", "perhaps"])
        .stderr(Stdio::piped())
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--identity-replacement")
    );
}
