//! `hookswitch rebuild` as a process: how it ends, what it prints, and what it never prints.

use std::process::{Command, Output};

use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::support::app::{BUYER, LINE, PARTNER, TestApp};
use crate::support::tables::execute;

fn rebuild(url: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hookswitch"))
        .arg("rebuild")
        .args(args)
        .current_dir(std::env::temp_dir())
        .env_clear()
        .env("DATABASE_URL", url)
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

const WORDS: &str = "Do you like the yellow one?";

async fn app_with_a_forged_message() -> TestApp {
    let app = TestApp::start().await;
    app.group(Some("maya")).await;
    app.text(BUYER, &[LINE, PARTNER], WORDS).await;
    app.settle().await;
    let statements = "update message set body = 'Forged';
        update tenure set holder = 'forged' where superseded_at is null; delete from holding";
    execute(&app, statements).await;
    app
}

#[tokio::test]
async fn it_ends_with_what_it_found_and_tells_nobodys_words_and_numbers_unless_asked() {
    let app = app_with_a_forged_message().await;
    let url = app.database.url();
    let url = url.expose_secret();
    let personal = [WORDS, "Forged", "forged", "maya", BUYER, LINE, PARTNER];

    let output = rebuild(url, &[]);
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("message different: "), "{text}");
    assert!(
        text.contains("differs in body") && text.contains("differs in holder"),
        "{text}"
    );
    assert!(text.contains("--swap writes what is"), "{text}");
    for word in personal {
        assert!(!text.contains(word), "{word}: {text}");
    }

    let output = rebuild(url, &["--json", "--examples", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tables = report["tables"].as_array().unwrap();
    let message = tables.iter().find(|one| one["table"] == "message").unwrap();
    assert_eq!(message["damaged"]["different"], 1);
    assert_eq!(message["examples"][0]["columns"], serde_json::json!(["body"]));
    assert_eq!(message["examples"][0].get("old"), None);
    for word in personal {
        assert!(!printed(&output).contains(word), "{word}");
    }

    let revealed = printed(&rebuild(url, &["--reveal"]));
    assert!(
        revealed.contains(WORDS) && revealed.contains("Forged"),
        "{revealed}"
    );

    let output = rebuild(url, &["--swap"]);
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("all agree now") && text.contains("message: 0 added, 1 changed, 0 removed"),
        "{text}"
    );
    let output = rebuild(url, &[]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.trim_end().ends_with("\nequal"), "{text}");
}

#[tokio::test]
async fn where_it_cannot_be_found_out_it_ends_with_two_and_says_why() {
    let app = app_with_a_forged_message().await;
    let name = format!("rebuild_{}", hookswitch::ids::new_id().simple());
    let mut url: url::Url = app.database.url().expose_secret().parse().unwrap();
    let database = url.path().trim_start_matches('/').to_owned();
    let login = format!(
        "create role {name} login password 'secret' in role hookswitch_app;
         revoke temporary on database {database} from public"
    );
    execute(&app, &login).await;
    url.set_username(&name).unwrap();
    url.set_password(Some("secret")).unwrap();
    let lesser = hookswitch::rebuild::Rebuild {
        options: url.as_str().parse().unwrap(),
        ..super::rebuild_of(&app)
    };
    let expected = [
        ("may not make temporary tables", String::new()),
        (
            "may not read",
            format!("grant temporary on database {database} to {name}"),
        ),
    ];
    for (refusal, grant) in expected {
        execute(&app, &grant).await;
        let ended = Box::pin(lesser.run(super::COMPARE, &mut |_| ())).await;
        let ended = ended.unwrap_err().to_string();
        assert!(ended.contains(refusal) && ended.contains("the owner"), "{ended}");
    }
    execute(&app, &format!("drop owned by {name}; drop role {name}")).await;

    let output = rebuild("postgres://nobody@127.0.0.1:1/nowhere", &[]);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    let help = printed(&rebuild("", &["--help"]));
    for option in [
        "--swap",
        "--examples",
        "--reveal",
        "--json",
        "--locked-max",
        "Ends with 0",
    ] {
        assert!(help.contains(option), "{option}: {help}");
    }
}
