//! `hookswitch verify-signature`, through the real binary.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at any surprise, in its helpers too"
)]

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use hookswitch::twilio::form::Form;
use hookswitch::twilio::signature::sign;
use serde_json::{Value, json};

const VECTORS: &str = include_str!("../fixtures/signature_vectors.jsonl");
const TOKEN: &str = "4a1b2c3d4e5f60718293a4b5c6d7e8f9";
const URL: &str = "https://hooks.example.com/twilio/conversations";

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs the command with `TOKEN` in the environment, from a folder of its own.
fn run(args: &[&str], stdin: &[u8]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hookswitch"))
        .arg("verify-signature")
        .args(args)
        .env("TWILIO_AUTH_TOKEN", TOKEN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    // From a thread, since a large input and a large output would wait for each other.
    let writer = std::thread::spawn(move || input.write_all(&bytes).ok());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let run = Run {
        code: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    };
    assert!(!run.stdout.contains(TOKEN) && !run.stderr.contains(TOKEN));
    run
}

fn jsonl(lines: &[Value]) -> Run {
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    run(&["--jsonl", "-"], (text.join("\n") + "\n").as_bytes())
}

/// The known signatures as questions: `form` is decoded, and what is presented differently is asked as well.
fn questions() -> Vec<Value> {
    let mut questions = Vec::new();
    for line in VECTORS.lines() {
        let mut vector: Value = serde_json::from_str(line).unwrap();
        if let Some(form) = vector["form"].as_str() {
            vector["params"] = json!(Form::parse(form.as_bytes()).unwrap().fields());
        }
        questions.push(vector.clone());
        for url in vector["presented"].as_array().cloned().unwrap_or_default() {
            vector["url"] = url;
            questions.push(vector.clone());
        }
    }
    questions
}

fn write(folder: &Path, name: &str, content: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn every_known_signature_is_true_and_changed_ones_are_false() {
    let good = questions();
    assert_eq!(good.len(), 51);
    let run = jsonl(&good);
    assert_eq!(run.stdout, "true\n".repeat(good.len()));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));

    let bad: Vec<Value> = good
        .into_iter()
        .enumerate()
        .map(|(at, mut question)| {
            match at % 4 {
                0 => question["token"] = json!("wrong"),
                1 => question["url"] = json!(format!("{}x", question["url"].as_str().unwrap())),
                2 => question["signature"] = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
                _ => question["signature"] = Value::Null,
            }
            question
        })
        .collect();
    let run = jsonl(&bad);
    assert_eq!(run.stdout, "false\n".repeat(bad.len()));
    assert_eq!(run.code, Some(0));
}

#[test]
fn a_line_that_cannot_be_read_is_false_named_and_told_by_the_exit_code() {
    let good = json!({"url": URL, "token": TOKEN, "signature": sign(TOKEN, URL, &[])});
    let both = json!({"url": URL, "token": TOKEN, "signature": "x", "params": [], "body": ""});
    let text = format!("{good}\nnonsense\n\n{both}\n[\"secret\"]\n{good}");
    let run = run(&["--jsonl", "-"], text.as_bytes());
    assert_eq!(run.stdout, "true\nfalse\nfalse\nfalse\nfalse\ntrue\n");
    assert_eq!(run.code, Some(2));
    let named: Vec<&str> = run.stderr.lines().map(|line| &line[..7]).collect();
    assert_eq!(named, ["line 2:", "line 3:", "line 4:", "line 5:"]);
    assert!(!run.stderr.contains("secret"));
}

#[test]
fn the_kind_of_body_decides_what_is_covered() {
    let signature = sign(TOKEN, URL, &[]);
    let question = |more: Value| {
        let mut question = json!({"url": URL, "token": TOKEN, "signature": signature});
        question
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        question
    };
    let run = jsonl(&[
        question(json!({})),
        question(json!({"params": []})),
        question(json!({"params": null, "body": null})),
        question(json!({"body": "{}"})),
        question(json!({"params": [["a", "1"]]})),
        question(json!({"params": [["a", null]]})),
    ]);
    assert_eq!(run.stdout, "true\ntrue\ntrue\nfalse\nfalse\nfalse\n");
    assert_eq!(run.code, Some(0));
}

#[test]
fn thousands_of_lines_are_answered_one_by_one() {
    let line =
        json!({"url": URL, "token": TOKEN, "signature": sign(TOKEN, URL, &[]), "note": "x".repeat(200)});
    let run = run(&["--jsonl"], format!("{line}\n").repeat(20_000).as_bytes());
    assert_eq!(run.stdout, "true\n".repeat(20_000));
}

#[test]
fn an_answer_comes_before_the_next_question_is_asked() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hookswitch"))
        .args(["verify-signature", "--jsonl"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut questions = child.stdin.take().unwrap();
    let mut answers = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    for token in [TOKEN, "wrong", TOKEN] {
        let question = json!({"url": URL, "token": token, "signature": sign(TOKEN, URL, &[])});
        writeln!(questions, "{question}").unwrap();
        let answer = answers.next().unwrap().unwrap();
        assert_eq!(answer, (token == TOKEN).to_string());
    }
    drop(questions);
    assert!(child.wait().unwrap().success());
}

#[test]
fn lines_can_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let line = json!({"url": URL, "token": TOKEN, "signature": sign(TOKEN, URL, &[])});
    let file = write(folder.path(), "lines.jsonl", line.to_string().as_bytes());
    let answered = run(&["--jsonl", &file], b"");
    assert_eq!((answered.stdout.as_str(), answered.code), ("true\n", Some(0)));
    let missing = run(&["--jsonl", "/nonexistent/lines.jsonl"], b"");
    assert_eq!((missing.stdout.as_str(), missing.code), ("", Some(2)));
}

#[test]
fn one_request_by_flags_tells_which_url_and_which_token_matched() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = write(folder.path(), "tokens", format!("other\n{TOKEN}\n").as_bytes());
    let form = Form::from_iter([("Body", "hi & bye"), ("From", "+15555550101")]);
    let body = write(folder.path(), "body", form.encode().as_bytes());
    let signature = sign(
        TOKEN,
        "https://hooks.example.com:443/twilio/conversations",
        form.fields(),
    );
    let args = ["--url", URL, "--signature", &signature, "--body-file", &body];
    let run = run(&[&args[..], &["--token-file", &tokens]].concat(), b"");
    assert_eq!(
        run.stdout,
        "match: URL with: default port added or removed, token 2 of 2\n"
    );
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_mistake_is_named_without_the_right_answer() {
    let form = Form::from_iter([("Body", " hi "), ("From", "+15555550101")]);
    let trimmed = Form::from_iter([("Body", "hi"), ("From", "+15555550101")]);
    let signature = sign(TOKEN, URL, trimmed.fields());
    let run = run(
        &["--url", URL, "--signature", &signature, "--body", &form.encode()],
        b"",
    );
    assert_eq!(run.code, Some(1));
    insta::assert_snapshot!(run.stdout, @r"
    no match: the signature was not made by any of the tokens over this request
    near: the values were signed without the white space around them
    ");
    assert!(!run.stdout.contains(&sign(TOKEN, URL, form.fields())));
}

#[test]
fn nothing_near_says_so() {
    let signature = sign("another", URL, &[]);
    let run = run(&["--url", URL, "--signature", &signature], b"");
    assert_eq!(run.code, Some(1));
    insta::assert_snapshot!(run.stdout, @r"
    no match: the signature was not made by any of the tokens over this request
    nothing comes near: it is another token, another URL, or content that was changed
    ");
}

#[test]
fn a_json_body_is_judged_by_its_hash() {
    let url = hookswitch::twilio::signature::url_with_body_hash(URL, b"{}");
    let signature = sign(TOKEN, &url, &[]);
    let judge = |body: &str| {
        let args = ["--url", &url, "--signature", &signature, "--body", body];
        run(
            &[&args[..], &["--content-type", "application/json"]].concat(),
            b"",
        )
    };
    assert_eq!(judge("{}").stdout, "match: URL as configured, token 1 of 1\n");
    let changed = judge("{\"a\":1}");
    assert_eq!(changed.code, Some(1));
    assert!(
        changed.stdout.contains("bodySHA256 is of another body"),
        "{}",
        changed.stdout
    );
}

#[test]
fn a_whole_request_is_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let form = Form::from_iter([("Body", "hello"), ("From", "+15555550101")]);
    let body = form.encode();
    let wire = |lines: &str, signature: &str| {
        format!(
            "POST /twilio/conversations HTTP/1.1{lines}Host: hooks.example.com{lines}\
             Content-Type: application/x-www-form-urlencoded; charset=UTF-8{lines}\
             X-Twilio-Signature: {signature}{lines}Content-Length: {}{lines}{lines}{body}\n",
            body.len()
        )
    };
    let signature = sign(TOKEN, URL, form.fields());
    for lines in ["\r\n", "\n"] {
        let file = write(folder.path(), "request", wire(lines, &signature).as_bytes());
        let run = run(&["--request-file", &file], b"");
        assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
        assert!(
            run.stdout.ends_with("match: URL as configured, token 1 of 1\n"),
            "{}",
            run.stdout
        );
    }

    // Behind a proxy: Twilio called another host than the one in the request.
    let public = "https://public.example.com/twilio/conversations";
    let file = write(
        folder.path(),
        "request",
        wire("\r\n", &sign(TOKEN, public, form.fields())).as_bytes(),
    );
    assert_eq!(run(&["--request-file", &file], b"").code, Some(1));
    let right = run(&["--request-file", &file, "--url", public], b"");
    assert_eq!(right.stdout, "match: URL as configured, token 1 of 1\n");

    let wrong_side = write(folder.path(), "request", wire("\r\n", &signature).as_bytes());
    let told = run(&["--request-file", &wrong_side, "--url", public], b"");
    assert!(
        told.stdout.contains("the host of the request's Host header"),
        "{}",
        told.stdout
    );
}

#[test]
fn a_question_that_cannot_be_read_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let empty = write(folder.path(), "empty", b"");
    let no_blank_line = write(folder.path(), "request", b"POST / HTTP/1.1\r\nHost: a\r\n");
    let twice = write(
        folder.path(),
        "twice",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Twilio-Signature: a\r\nX-Twilio-Signature: b\r\n\r\n",
    );
    for args in [
        vec!["--url", URL, "--token-file", &empty],
        vec!["--url", URL, "--signature", "x", "--body", "a=%FF"],
        vec!["--request-file", &no_blank_line],
        vec!["--request-file", &twice],
        vec![],
        vec!["--url", URL, "--body", "a", "--body-file", &empty],
    ] {
        let run = run(&args, b"");
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert_ne!(run.stderr, "");
    }
}
