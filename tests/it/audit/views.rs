//! The views of schema `audit` against their description, and the questions of docs/AUDIT.md with their answers.

use hookswitch::transfer::Kind;
use jiff::{SignedDuration, Timestamp};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::support::app::{BUYER, LINE, PARTNER, TestApp, sid_of};
use crate::support::{sql, tables};

const DOCUMENT: &str = include_str!("../../../docs/AUDIT.md");

/// What the document says of one view or function: name, then columns with their types.
fn described() -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for section in DOCUMENT.split("\n### audit.").skip(1) {
        let section = section.split("\n## ").next().unwrap();
        let name = section.lines().next().unwrap().to_owned();
        let columns = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .map(|line| {
                let mut cells = line.split(" | ");
                let column = cells.next().unwrap().trim_end_matches('`');
                format!("{column} {}", cells.next().unwrap().trim())
            })
            .collect();
        all.push((name, columns));
    }
    all
}

/// The statement under a heading of the worked questions.
fn question(heading: &str) -> &'static str {
    let rest = &DOCUMENT[DOCUMENT.find(heading).expect("the document has the question")..];
    let sql = rest.split("```sql\n").nth(1).unwrap();
    sql.split("```").next().unwrap()
}

#[tokio::test]
async fn the_views_are_as_described_and_nothing_else_is_there() {
    let app = TestApp::start().await;
    let in_database = sql::values(
        app.pool(),
        "select relname || ': ' || string_agg(attname || ' ' || format_type(atttypid, null), ', ' order by attnum)
        from pg_attribute join pg_class on pg_class.oid = attrelid
        where relnamespace = 'audit'::regnamespace and attnum > 0 and not attisdropped
        group by relname
        union all
        select proname || ': ' || replace(regexp_replace(pg_get_function_result(oid), '^TABLE\\((.*)\\)$', '\\1'),
                                          ' with time zone', '')
        from pg_proc where pronamespace = 'audit'::regnamespace
        order by 1",
    )
    .await;
    let mut in_document: Vec<String> = described()
        .into_iter()
        .map(|(name, columns)| format!("{name}: {}", columns.join(", ")))
        .collect();
    in_document.sort();
    let in_database: Vec<String> = in_database
        .into_iter()
        .map(|view| view.replace("timestamp with time zone", "timestamptz"))
        .map(|view| view.replace(" timestamp,", " timestamptz,"))
        .map(|view| match view.strip_suffix(" timestamp") {
            Some(start) => format!("{start} timestamptz"),
            None => view,
        })
        .collect();
    assert_eq!(in_database, in_document);
}

/// A connection with the rights of an auditor, on a login that cannot do more.
async fn auditor(app: &TestApp) -> PgConnection {
    let mut conn = PgConnection::connect_with(&app.database.options).await.unwrap();
    run(&mut conn, "set role hookswitch_audit").await.unwrap();
    conn
}

/// The rows of a statement, each as text with bars between.
async fn run(conn: &mut PgConnection, statement: &str) -> Result<Vec<String>, sqlx::Error> {
    let statement = statement.trim().trim_end_matches(';');
    if !statement.starts_with("select") {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(conn)
            .await?;
        return Ok(Vec::new());
    }
    let statement = format!(
        "select (select string_agg(coalesce(value, '-'), ' | ' order by place)
                 from json_each_text(row_to_json(asked)) with ordinality as cell (key, value, place))
        from ({statement}) as asked"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(conn).await?;
    Ok(rows.iter().map(|row| row.get::<String, _>(0)).collect())
}

/// The document's statement, asked of another time and conversation than the example's.
fn asked(heading: &str, sid: &str, at: Timestamp) -> String {
    question(heading)
        .replace("CH00000000000000000000000000000001", sid)
        .replace("2026-05-14 14:03:00+00", &at.to_string())
        .replace(
            "2026-05-01 00:00:00+00",
            &(at - SignedDuration::from_hours(1)).to_string(),
        )
        .replace(
            "2026-06-01 00:00:00+00",
            &(at + SignedDuration::from_hours(1)).to_string(),
        )
}

#[tokio::test]
async fn the_worked_questions_are_answered() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    app.text(BUYER, &[LINE, PARTNER], "Is it still there?").await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    let before = app.clock.now();
    app.clock.advance(SignedDuration::from_mins(10));
    app.start_transfer(&sid, Kind::Cold, "noor").await;
    app.settle_for(SignedDuration::from_secs(30)).await;
    app.clock.advance(SignedDuration::from_mins(10));
    let after = app.clock.now();
    let mut conn = auditor(&app).await;
    let sid = sid.as_str();

    let then = run(&mut conn, &asked("**Who held this number then?**", sid, before))
        .await
        .unwrap();
    assert!(
        then.len() == 1 && then[0].starts_with(&format!("{sid} | maya | ")),
        "{then:?}"
    );
    let then = run(&mut conn, &asked("**Who held this number then?**", sid, after))
        .await
        .unwrap();
    assert!(
        then.len() == 1 && then[0].starts_with(&format!("{sid} | noor | ")) && then[0].ends_with(" | -"),
        "{then:?}"
    );

    let roster = run(
        &mut conn,
        &asked("**Who was in the conversation then?**", sid, before),
    )
    .await
    .unwrap();
    assert_eq!(roster.len(), 3, "{roster:?}");
    assert!(
        roster
            .iter()
            .any(|one| one.starts_with(&format!("projected | maya | {LINE}")))
    );
    assert!(
        roster
            .iter()
            .any(|one| one.starts_with(&format!("native | {BUYER}")))
    );

    let held = run(
        &mut conn,
        &asked("**Every conversation that an agent held in May.**", sid, before),
    )
    .await
    .unwrap();
    assert_eq!(held.len(), 1);

    let messages = run(
        &mut conn,
        "select author, line, holder, sent_through, contested from audit.messages",
    )
    .await
    .unwrap();
    assert_eq!(messages, [format!("{BUYER} | {LINE} | maya | false | false")]);

    let waiting = "**Conversations in which a customer has waited";
    let too_early = run(&mut conn, &asked(waiting, sid, after)).await.unwrap();
    assert_eq!(too_early, Vec::<String>::new());
    let a_day_later = after + SignedDuration::from_hours(24);
    let waits = run(&mut conn, &asked(waiting, sid, a_day_later)).await.unwrap();
    assert!(
        waits.len() == 1 && waits[0].starts_with(&format!("{sid} | {BUYER} | ")),
        "{waits:?}"
    );

    let undelivered = asked("**Messages that were not delivered", sid, after);
    assert_eq!(run(&mut conn, &undelivered).await.unwrap(), Vec::<String>::new());
    sql::execute(
        app.pool(),
        "insert into delivery_receipt (conversation_sid, message_sid, delivery_receipt_sid, account_sid, participant_sid,
            status, error_code, version_at)
        select message.conversation_sid, message_sid, 'DY00000000000000000000000000000001', message.account_sid,
            participant.participant_sid, 'undelivered', '30003', message.version_at
        from message join participant using (conversation_sid) where participant.address = '+15555550102'",
    )
    .await;
    let found = run(&mut conn, &undelivered).await.unwrap();
    assert!(
        found.len() == 1 && found[0].ends_with(&format!("maya | {PARTNER} | undelivered | 30003")),
        "{found:?}"
    );
}

#[tokio::test]
async fn an_auditor_reads_the_views_and_nothing_else() {
    let app = TestApp::start().await;
    let mut conn = auditor(&app).await;
    for refused in [
        "select * from public.message",
        "select * from public.event",
        "select * from public.api_key",
        "insert into audit.conversations (conversation_sid, account_sid, first_seen_at) values ('CH1', 'AC1', now())",
        "update audit.messages set body = 'x'",
        "delete from audit.conversations",
        "create view audit.more as select 1",
        "set role hookswitch_audit_views; select body from public.message",
    ] {
        // The test's own login is a superuser, which may take any role: only `set session authorization` gives that up.
        run(&mut conn, "reset role").await.unwrap();
        run(&mut conn, "set session authorization hookswitch_audit")
            .await
            .unwrap();
        let error = run(&mut conn, refused).await.expect_err(refused);
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        // Not allowed, or no view that can be written.
        assert!(
            matches!(code.as_deref(), Some("42501" | "55000")),
            "{refused}: {error}"
        );
        run(&mut conn, "reset session authorization").await.unwrap();
    }
    let mut owner = auditor(&app).await;
    run(&mut owner, "reset role").await.unwrap();
    run(&mut owner, "set session authorization hookswitch_audit_views")
        .await
        .unwrap();
    for refused in [
        "insert into public.conversation (conversation_sid, account_sid, first_seen_at) values ('CH1', 'AC1', now())",
        "delete from public.message",
        "delete from audit.conversations",
    ] {
        assert!(run(&mut owner, refused).await.is_err(), "{refused}");
    }
}

#[tokio::test]
async fn roles_are_made_by_several_databases_at_once() {
    let (one, other) = (TestApp::start().await, TestApp::start().await);
    let ensure = async |app: &TestApp| {
        for _ in 0..5 {
            let mut conn = PgConnection::connect_with(&app.database.options).await.unwrap();
            let missing = hookswitch::audit::ensure_roles(&mut conn).await.unwrap();
            assert_eq!(missing, Vec::<String>::new());
        }
    };
    tokio::join!(ensure(&one), ensure(&other), ensure(&one));
}

#[tokio::test]
async fn a_login_that_may_not_make_roles_is_told_what_is_missing() {
    let app = TestApp::start().await;
    let name = format!("login_{}", hookswitch::ids::new_id().simple());
    tables::execute(
        &app,
        &format!("create role {name} nologin; grant usage on schema audit, public to {name}"),
    )
    .await;
    let mut conn = PgConnection::connect_with(&app.database.options).await.unwrap();
    // As on a server where nobody has made the roles, for a login that may not.
    let definition = sql::value(
        app.pool(),
        "select pg_get_functiondef('ensure_audit_roles'::regproc)",
    )
    .await
    .unwrap()
    .replace("ensure_audit_roles", "ensure_other_roles")
    .replace("'hookswitch_audit'", &format!("'{name}_a'"))
    .replace("'hookswitch_audit_views'", &format!("'{name}_b'"));
    run(&mut conn, &definition).await.unwrap();
    run(&mut conn, &format!("set role {name}")).await.unwrap();
    let missing = run(
        &mut conn,
        "select array_to_string(ensure_other_roles(), ', ') as missing",
    )
    .await
    .unwrap();
    assert_eq!(missing, [format!("role {name}_a, role {name}_b")]);
    run(
        &mut conn,
        &format!("reset role; drop owned by {name}; drop role {name}"),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn the_holder_of_a_number_is_found_by_index() {
    let app = TestApp::start().await;
    tables::execute(
        &app,
        "insert into tenure (tenure_id, conversation_sid, line, holder, during, cause, via, recorded_at)
        select gen_random_uuid(), 'CH' || n, 'line ' || n % 500, 'maya', tstzrange('2026-01-01', null), 'created',
            'webhook', '2026-01-01'
        from generate_series(1, 5000) as n;
        insert into message (conversation_sid, message_sid, account_sid, version_at, version_exact)
        select 'CH' || n, 'IM' || n, 'AC1', '2026-01-02', true from generate_series(1, 5000) as n;
        analyze tenure, message",
    )
    .await;
    let mut conn = auditor(&app).await;
    let then = asked("**Who held this number then?**", "", app.clock.now());
    let plan = explain(&mut conn, &then).await;
    assert!(plan.contains("tenure_of_line"), "{plan}");
    let of_message =
        "select holder from audit.messages where conversation_sid = 'CH7' and message_sid = 'IM7'";
    let plan = explain(&mut conn, of_message).await;
    assert!(
        !plan.contains("Seq Scan on tenure") && !plan.contains("Seq Scan on message"),
        "{plan}"
    );
}

async fn explain(conn: &mut PgConnection, statement: &str) -> String {
    let rows = sqlx::raw_sql(AssertSqlSafe(format!("explain {statement}")))
        .fetch_all(conn)
        .await
        .unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.join("\n")
}
