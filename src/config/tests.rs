use super::*;

fn load(toml: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hookswitch.toml");
    std::fs::write(&path, toml).unwrap();
    let environment = environment
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Config::load_from(Some(&path), &environment).map_err(|error| error.to_string())
}

const ACCOUNT: &[(&str, &str)] = &[
    ("TWILIO_ACCOUNT_SID", "AC00000000000000000000000000000001"),
    ("TWILIO_AUTH_TOKEN", "first-secret, second-secret"),
    ("TWILIO_SERVICE_SID", "IS00000000000000000000000000000001"),
    (
        "TWILIO_MESSAGING_SERVICE_SID",
        "MG00000000000000000000000000000001",
    ),
];

#[test]
fn the_defaults_are_valid_and_know_no_account() {
    let config = load("", &[]).unwrap();
    assert_eq!(config.http.listen.port(), 8080);
    assert!(config.twilio.accounts.is_empty());
}

#[test]
fn later_layers_win() {
    let file = "[http]\nlisten = \"127.0.0.1:1111\"\nmax_connections = 7\n";
    let config = load(file, &[("HOOKSWITCH__HTTP__LISTEN", "127.0.0.1:2222")]).unwrap();
    assert_eq!(config.http.listen.port(), 2222);
    assert_eq!(config.http.max_connections, 7);
    assert_eq!(
        load(file, &[("HOOKSWITCH__HTTP__MAX_CONNECTIONS", "9")])
            .unwrap()
            .http
            .max_connections,
        9
    );
    assert!(
        load(file, &[("HOOKSWITCH__HTTP__PRE_ACTION_HOOK", "true")])
            .unwrap()
            .http
            .pre_action_hook
    );
}

#[test]
fn the_customary_names_make_an_account_and_secrets_do_not_print() {
    let config = load("", ACCOUNT).unwrap();
    assert_eq!(config.twilio.accounts[0].auth_tokens.len(), 2);
    assert!(!format!("{config:?}").contains("secret,"));
    assert!(!format!("{config:?}").contains("first-secret"));
}

#[test]
fn a_wrong_value_is_named_with_what_is_expected_and_never_repeated() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("[http]\nlisten = \"nowhere\"", &[]),
        (
            "[http]\npublic_base_url = \"https://hooks.example.com/path\"",
            &[],
        ),
        ("[http]\nheader_timeout = \"soon\"", &[]),
        ("[http]\nheader_timeout = \"31s\"", &[]),
        ("[retention]\nwebhooks = \"0d\"", &[]),
        ("[retention]\nmessage_bodies = \"90d\"", &[]),
        ("[retention]\nattributes = \"90d\"\nwebhooks = \"91d\"", &[]),
        ("[audit]\nseal_url = \"ftp://example.com\"", &[]),
        ("[http]\nlissten = \"127.0.0.1:1\"", &[]),
        ("[twilio]\nbase_url = \"ftp://example.com\"", &[]),
        ("[[twilio.accounts]]\naccount_sid = \"AC1\"", &[]),
        ("[[twilio.accounts]]\nauth_tokens = \"hidden-token\"", &[]),
        (
            "",
            &[("TWILIO_ACCOUNT_SID", "AC00000000000000000000000000000001")],
        ),
        ("not toml at all", &[]),
    ];
    let messages: Vec<String> = cases
        .iter()
        .map(|(file, env)| load(file, env).unwrap_err())
        .collect();
    assert!(
        messages
            .iter()
            .all(|message| !message.contains("hidden-token") && !message.contains('\n'))
    );
    insta::assert_debug_snapshot!(messages, @r#"
        [
            "setting http.listen: expected an address and port like 127.0.0.1:8080",
            "setting http.public_base_url: expected scheme and host like https://hooks.example.com, without path, query or fragment",
            "setting http.header_timeout: expected a duration like \"10s\" or \"PT5M\"",
            "setting http.header_timeout: expected more than 0 and at most 30 s",
            "setting retention.webhooks: expected \"keep\", or days like \"90d\"",
            "setting retention.webhooks: expected at most retention.message_bodies, since the forms of webhooks say the same",
            "setting retention.webhooks: expected at most retention.attributes, since the forms of webhooks say the same",
            "setting audit.seal_url: expected an address like https://seals.example.com/hookswitch",
            "setting http.lissten: is not a setting, expected one of `listen`, `public_base_url`, `max_connections`, `header_timeout`, `body_timeout`, `shutdown_grace`, `pre_action_hook`",
            "setting twilio.base_url: expected an address like https://conversations.twilio.com",
            "setting twilio.accounts[0].account_sid: expected a SID like AC0123456789abcdef0123456789abcdef (AC and 32 hexadecimal digits)",
            "setting twilio.accounts[0].auth_tokens: expected a sequence",
            "setting TWILIO_AUTH_TOKEN: expected beside TWILIO_ACCOUNT_SID, and is not set",
            "setting (file): expected TOML: TOML parse error at line 1, column 5",
        ]
        "#);
}

#[test]
fn files_go_to_twilio_s_media_service_or_to_the_emulator() {
    let of = |toml: &str| load(toml, &[]).unwrap().twilio.media_base_url().to_string();
    assert_eq!(of(""), "https://mcs.us1.twilio.com/");
    assert_eq!(
        of("[twilio]\nbase_url = \"http://127.0.0.1:9\""),
        "http://127.0.0.1:9/"
    );
    assert_eq!(
        of("[twilio]\nmedia_base_url = \"https://mcs.example.com\""),
        "https://mcs.example.com/"
    );
    let wrong = load("[twilio]\nmedia_base_url = \"ftp://mcs.example.com\"", &[]).unwrap_err();
    assert!(
        wrong.starts_with("setting twilio.media_base_url: expected"),
        "{wrong}"
    );
    for wrong in [
        "unused_after = \"8d\"",
        "unused_after = \"200h\"",
        "kept_max = 1000",
    ] {
        let said = load(&format!("[media]\n{wrong}"), &[]).unwrap_err();
        assert!(said.starts_with("setting media."), "{said}");
    }
}

#[test]
fn an_account_says_what_happens_when_members_opt_out() {
    let policy = |value: &str| {
        let key = "HOOKSWITCH_TEST";
        let toml = format!(
            "[[twilio.accounts]]\naccount_sid = \"AC00000000000000000000000000000001\"\nauth_tokens = [\"{key}\"]\n\
             service_sid = \"IS00000000000000000000000000000001\"\n\
             messaging_service_sid = \"MG00000000000000000000000000000001\"\n{value}"
        );
        load(&toml, &[]).map(|config| config.twilio.accounts[0].opt_out)
    };
    assert_eq!(policy(""), Ok(OptOutPolicy::CarryOn));
    assert_eq!(
        policy("opt_out = \"ask_supervisor\""),
        Ok(OptOutPolicy::AskSupervisor)
    );
    assert_eq!(policy("opt_out = \"close\""), Ok(OptOutPolicy::Close));
    assert!(policy("opt_out = \"ignore\"").unwrap_err().contains("opt_out"));
}
