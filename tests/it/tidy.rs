//! The absences that the architecture relies on, read off the source. Each rule says what it found where, and what to
//! do instead; and each rule is shown to find what it is for.

use std::fs;
use std::path::Path;

/// Who owns each table: the one place in `src/` that writes to it. Others call the owner's functions.
pub(crate) const OWNERS: &[(&str, &str)] = &[
    ("agent", "src/people/"),
    ("assignment_turn", "src/assignment/"),
    ("line_assignment", "src/assignment/"),
    ("number", "src/numbers/"),
    ("api_key", "src/api/auth"),
    ("chat_user", "src/mirror/"),
    ("conversation", "src/mirror/"),
    ("delivery_receipt", "src/mirror/"),
    ("conversation_check", "src/sweep/"),
    ("conversation_version", "src/mirror/"),
    ("erasure", "src/erasure/"),
    ("escalation", "src/escalation/"),
    ("escalation_policy", "src/escalation/"),
    ("escalation_policy_version", "src/escalation/"),
    ("escalation_step", "src/escalation/"),
    ("escalation_watch", "src/escalation/"),
    ("event", "src/events/"),
    ("group_text", "src/group_text/"),
    ("group_text_choice", "src/group_text/"),
    ("handover_line", "src/handover/"),
    ("handover_plan", "src/handover/"),
    ("handover_rule", "src/handover/"),
    ("holding", "src/ledger/"),
    ("idempotency_key", "src/api/idempotency"),
    ("line_finding", "src/health/"),
    ("legal_hold", "src/retention/"),
    ("line_lease", "src/ledger/"),
    ("line_send", "src/health/"),
    ("log_origin", "src/events/"),
    ("message", "src/mirror/"),
    ("message_version", "src/mirror/"),
    ("opt_out", "src/opt_out/"),
    ("opt_out_concern", "src/opt_out/"),
    ("opt_out_policy", "src/opt_out/"),
    ("outbound_media", "src/outbox/"),
    ("outbound_message", "src/outbox/"),
    ("participant", "src/mirror/"),
    ("participant_version", "src/mirror/"),
    ("projected_batch", "src/inbox/"),
    ("projection_lane", "src/inbox/"),
    ("answer", "src/projection/"),
    ("unrecorded_conversation", "src/projection/"),
    // Temporary tables of one session.
    ("damaged", "src/rebuild/"),
    ("unsourced", "src/rebuild/"),
    ("quarantined_webhook", "src/inbox/"),
    ("receipt_version", "src/mirror/"),
    ("retention_progress", "src/retention/"),
    ("retention_released", "src/retention/"),
    ("seal", "src/audit/"),
    ("sweep_run", "src/sweep/"),
    ("task", "src/queue/"),
    ("team", "src/people/"),
    ("team_on_call", "src/people/"),
    ("tenure", "src/ledger/"),
    ("transfer", "src/transfer/"),
    ("transfer_candidate", "src/transfer/"),
    ("transfer_method", "src/transfer/"),
    ("transfer_step", "src/transfer/"),
    ("webhook", "src/inbox/"),
    ("webhook_pending", "src/inbox/"),
    ("webhook_set_aside", "src/inbox/"),
];

/// A word that belongs to some places of `src/` alone.
struct Confined {
    word: &'static str,
    to: &'static [&'static str],
    instead: &'static str,
}

const CONFINED: &[Confined] = &[
    Confined {
        word: "reqwest",
        to: &[
            "src/twilio/",
            "src/sandbox/",
            "src/events/",
            "src/cli/",
            // Seals are posted outside, which is no call to Twilio.
            "src/audit/endpoint.rs",
        ],
        instead: "Twilio is called through `twilio::Client`, so that time limits and retries are in one place",
    },
    Confined {
        word: "Timestamp::now",
        to: &["src/clock.rs"],
        instead: "ask the `Clock` that you are handed, so that a test can set the time",
    },
    Confined {
        word: "SystemTime::now",
        to: &["src/clock.rs"],
        instead: "ask the `Clock` that you are handed, so that a test can set the time",
    },
    Confined {
        word: "env::var",
        to: &["src/config", "src/cli/"],
        instead: "make it a setting of `config`, which reads the environment once",
    },
];

/// Modules that know nothing of HTTP servers.
const WITHOUT_AXUM: &[&str] = &[
    "src/twilio/",
    "src/queue/",
    "src/mirror/",
    "src/ledger/",
    "src/transfer/",
    "src/escalation/",
    "src/group_text/",
    "src/handover/",
    "src/health/",
    "src/outbox/",
    "src/people/",
    "src/sweep/",
    "src/numbers/",
    "src/assignment/",
];

/// How the calls begin that take SQL.
const SQL_CALLS: &[&str] = &[
    "query!(",
    "query_as!(",
    "query_scalar!(",
    "query_unchecked!(",
    "query_as_unchecked!(",
    "raw_sql(",
    "AssertSqlSafe(",
    "QueryBuilder::new(",
];

/// Where people's home directories are, and this checkout.
const MACHINE_PATHS: &[&str] = &["/home/", "/root/", env!("CARGO_MANIFEST_DIR")];

/// Hosts of package registries: which one a machine uses is its own affair.
const REGISTRIES: &[&str] = &[
    "crates.io",
    "registry.npmjs.org",
    "registry.yarnpkg.com",
    "pypi.org",
    "pythonhosted.org",
    "rubygems.org",
    "proxy.golang.org",
    "repo.maven.apache.org",
    "deb.debian.org",
    "docker.io",
    "ghcr.io",
];

/// Numbers in the signature vectors and the examples that Twilio publishes.
const PUBLISHED_VECTORS: &[&str] = &["+14158675309", "+14158675310", "+12349013030"];
/// The numbers of Twilio's group-texting guide.
const PUBLISHED_GUIDE: &[&str] = &["+15017122661", "+15017122662"];

struct Source {
    /// From the root of the project, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn is_under(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    fn is_rust_of_src(&self) -> bool {
        self.path.starts_with("src/")
            && Path::new(&self.path)
                .extension()
                .is_some_and(|extension| extension == "rs")
    }

    /// Numbered lines of code: whole-line comments may name what the code may not use.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }
}

/// Every text of the project that somebody has written.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(root, root, &mut sources);
    assert!(
        sources.iter().any(|source| source.path == "src/lib.rs"),
        "the walk does not find the source"
    );
    sources
}

fn collect(root: &Path, dir: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            if !matches!(
                name.as_str(),
                "target" | ".git" | ".hookswitch" | ".sqlx" | "node_modules"
            ) {
                collect(root, &path, sources);
            }
        } else if !is_generated(&name)
            && let Ok(text) = fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            sources.push(Source { path, text });
        }
    }
}

fn is_generated(name: &str) -> bool {
    // A worktree's `.git` is a file.
    matches!(name, "Cargo.lock" | "package-lock.json" | ".git" | "tidy.rs")
        || Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "log")
}

/// Checks all sources with one rule.
fn check(rule: impl Fn(&Source) -> Vec<String>) {
    let found: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn example(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn confined_words(source: &Source) -> Vec<String> {
    if !source.is_rust_of_src() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (number, line) in source.code() {
        for Confined { word, to, instead } in CONFINED {
            if has_word(line, word) && !source.is_under(to) {
                found.push(format!(
                    "{}:{number}: `{word}` is for {} alone: {instead}",
                    source.path,
                    to.join(", ")
                ));
            }
        }
        if has_word(line, "axum") && source.is_under(WITHOUT_AXUM) {
            found.push(format!(
                "{}:{number}: no `axum` here: handlers call this module, not the reverse",
                source.path
            ));
        }
    }
    found
}

/// Whether `word` stands in `line` with nothing before it that would make it part of another name.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            // `env::var` is also meant as the beginning of `env::vars` and `env::var_os`.
            && (word == "env::var" || !line[at + word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

#[test]
fn what_belongs_in_one_place_is_in_one_place() {
    check(confined_words);
}

#[test]
fn a_confined_word_is_found_outside_its_place() {
    let found = |path, text| confined_words(&example(path, text)).len();
    assert_eq!(
        found("src/mirror/store.rs", "let client = reqwest::Client::builder();"),
        1
    );
    assert_eq!(
        found("src/twilio/mod.rs", "let client = reqwest::Client::builder();"),
        0
    );
    assert_eq!(found("src/mirror/store.rs", "// reqwest is not used here"), 0);
    assert_eq!(
        found("src/mirror/store.rs", "let now = jiff::Timestamp::now();"),
        1
    );
    assert_eq!(found("src/queue/worker.rs", "std::env::var_os(\"HOME\")"), 1);
    assert_eq!(found("src/queue/worker.rs", "use axum::Router;"), 1);
    assert_eq!(found("src/api/mod.rs", "use axum::Router;"), 0);
    assert_eq!(found("src/queue/worker.rs", "let taxum = 1;"), 0);
    assert_eq!(found("tests/it/flow.rs", "reqwest::get(url)"), 0);
}

fn sql_outside_its_owner(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    if !source.is_rust_of_src() || source.path.starts_with("src/db/") {
        return found;
    }
    for (number, sql) in sql_calls(&source.text) {
        if !OWNERS.iter().any(|(_, owner)| source.path.starts_with(owner)) {
            let path = &source.path;
            found.push(format!(
                "{path}:{number}: no SQL here: call a function of the module that owns the table"
            ));
        }
        for table in written_tables(&sql) {
            if let Some((_, owner)) = OWNERS.iter().find(|(name, _)| *name == table)
                && !source.path.starts_with(owner)
            {
                let path = &source.path;
                found.push(format!(
                    "{path}:{number}: `{table}` is written in {owner} alone: call a function there"
                ));
            }
        }
    }
    found
}

/// The arguments of every call that takes SQL, with the line of the call. Parentheses in SQL are balanced too.
fn sql_calls(text: &str) -> Vec<(usize, String)> {
    let mut calls = Vec::new();
    for call in SQL_CALLS {
        for (at, _) in text.match_indices(call) {
            let line = text[..at].matches('\n').count() + 1;
            let is_comment = text[..at]
                .rsplit('\n')
                .next()
                .is_some_and(|line| line.trim_start().starts_with("//"));
            if !is_comment {
                calls.push((line, arguments(&text[at + call.len()..]).to_lowercase()));
            }
        }
    }
    calls
}

/// Up to the parenthesis that closes the call.
fn arguments(rest: &str) -> &str {
    let mut open = 1_usize;
    for (at, character) in rest.char_indices() {
        match character {
            '(' => open += 1,
            ')' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return &rest[..at];
        }
    }
    rest
}

/// Tables that lower-case SQL writes to. `for update of x` and `do update set` write to none of their own.
fn written_tables(sql: &str) -> Vec<String> {
    let words: Vec<&str> = sql
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .collect();
    let mut tables = Vec::new();
    for at in 0..words.len() {
        let word = |offset: usize| words.get(at + offset).copied().unwrap_or_default();
        let before = at.checked_sub(1).map_or("", |before| words[before]);
        let table = match (word(0), word(1)) {
            ("insert" | "merge", "into") | ("delete", "from") | ("update", "only") => word(2),
            ("update", _) if before == "for" || before == "do" => continue,
            ("update" | "truncate", _) => word(1),
            _ => continue,
        };
        tables.push(table.to_owned());
    }
    tables
}

#[test]
fn each_table_is_written_by_its_owner() {
    check(sql_outside_its_owner);
}

#[test]
fn every_table_has_an_owner() {
    let tables = |source: &Source| -> Vec<String> {
        let text = source.text.to_lowercase();
        text.match_indices("create table ")
            .map(|(at, found)| {
                text[at + found.len()..]
                    .trim_start_matches("if not exists ")
                    .to_owned()
            })
            .map(|rest| {
                rest.split(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    };
    check(|source| {
        let mut found = tables(source);
        found.retain(|table| {
            source.path.starts_with("migrations/") && !OWNERS.iter().any(|(name, _)| name == table)
        });
        let path = &source.path;
        found
            .iter()
            .map(|table| format!("{path}: say in {} who owns `{table}`", file!()))
            .collect()
    });
    assert_eq!(
        tables(&example(
            "migrations/1_x.sql",
            "create table one (\n);\nCREATE TABLE two("
        )),
        ["one", "two"]
    );
}

#[test]
fn sql_is_found_outside_the_owner_of_its_table() {
    let found = |path, text| sql_outside_its_owner(&example(path, text)).len();
    let update =
        "sqlx::query!(\n\"-- queue.finish\nupdate task set state = lower($1) where id = $2\",\nstate)";
    assert_eq!(found("src/queue/store.rs", update), 0);
    assert_eq!(found("src/mirror/store.rs", update), 1, "another's table");
    assert_eq!(
        found("src/cli/sweep.rs", update),
        2,
        "another's table, where no SQL belongs"
    );
    let read = "sqlx::query_scalar!(\"select 1 from task where id = $1 for update\", id)";
    assert_eq!(found("src/mirror/store.rs", read), 0, "to read is free");
    assert_eq!(found("src/web/page.rs", read), 1);
    let upsert =
        "query!(\"insert into message (sid) values ($1) on conflict (sid) do update set index = 1\", sid)";
    assert_eq!(found("src/mirror/message.rs", upsert), 0);
    assert_eq!(found("src/inbox/process.rs", upsert), 1);
    assert_eq!(
        written_tables("delete from a; truncate b; merge into c; update only d set x = 1"),
        ["a", "b", "c", "d"]
    );
}

fn machine_paths(source: &Source) -> Vec<String> {
    named(source, MACHINE_PATHS, "say it without a path of one machine")
}

fn registries(source: &Source) -> Vec<String> {
    named(
        source,
        REGISTRIES,
        "packages come from where the machine is set up to get them",
    )
}

fn named(source: &Source, needles: &[&str], instead: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in source.lines() {
        for needle in needles.iter().filter(|needle| line.contains(**needle)) {
            found.push(format!(
                "{}:{number}: no `{needle}` in this project: {instead}",
                source.path
            ));
        }
    }
    found
}

#[test]
fn nothing_names_a_path_of_one_machine() {
    check(machine_paths);
    assert_eq!(
        machine_paths(&example("README.md", "cd /home/me/project")).len(),
        1
    );
}

#[test]
fn nothing_names_a_package_registry() {
    check(registries);
    assert_eq!(
        registries(&example("scripts/x", "curl https://registry.npmjs.org/x")).len(),
        1
    );
}

fn real_numbers(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in source.lines() {
        for phone in phone_numbers(line)
            .into_iter()
            .filter(|phone| !is_nobodys(phone, &source.path))
        {
            let path = &source.path;
            found.push(format!(
                "{path}:{number}: {phone} may be somebody's number: use one like +15555550100"
            ));
        }
    }
    found
}

/// Numbers in E.164, as they are or percent-encoded: a plus and 10 to 15 digits.
fn phone_numbers(line: &str) -> Vec<String> {
    let mut numbers = Vec::new();
    for plus in ["+", "%2B", "%2b"] {
        for (at, _) in line.match_indices(plus) {
            let digits: String = line[at + plus.len()..]
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            // No country code begins with 0, and one that begins with 1 has ten digits after it.
            let length = if digits.starts_with('1') { 11..=11 } else { 10..=15 };
            if !digits.starts_with('0') && length.contains(&digits.len()) {
                numbers.push(format!("+{digits}"));
            }
        }
    }
    numbers
}

/// Whether a number is nobody's: fictitious by its area code or exchange 555, of Britain's range for drama, or published
/// by Twilio for the purpose that it has in that file.
fn is_nobodys(phone: &str, path: &str) -> bool {
    let fictitious = phone.starts_with("+1") && (&phone[2..5] == "555" || &phone[5..8] == "555");
    let vectors = path.contains("signature") || path.contains("fixtures/");
    fictitious
        || phone.starts_with("+447700900")
        || PUBLISHED_GUIDE.contains(&phone)
        || (vectors && PUBLISHED_VECTORS.contains(&phone))
}

#[test]
fn no_number_of_a_person_is_in_the_project() {
    check(real_numbers);
}

#[test]
fn a_number_that_may_be_real_is_found() {
    let found = |path: &str, text: &str| real_numbers(&example(path, text)).len();
    // Put together here, so that no such number is in this file either.
    let real = format!("+1{}", "2125550000".replace("555", "736"));
    assert_eq!(found("README.md", &format!("text {real} now")), 1);
    assert_eq!(found("README.md", &format!("From=%2B{}", &real[1..])), 1);
    assert_eq!(
        found(
            "README.md",
            "text +15555550100 and +18005550100, not +05555550100 or +155555501001"
        ),
        0
    );
    assert_eq!(found("README.md", "from +15017122661"), 0);
    assert_eq!(found("README.md", PUBLISHED_VECTORS[0]), 1);
    assert_eq!(found("src/twilio/signature.rs", PUBLISHED_VECTORS[0]), 0);
}
