//! What years of messages change: the rate beside that of an empty database, and how long reads take.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use secrecy::SecretString;

use crate::contestant::{Contestant, Kind};
use crate::load::{Connection, percentile};
use crate::report::{self, median, say};
use crate::server::{self, Server};
use crate::turn::{self, Turn};
use crate::{Args, traffic};

const MESSAGES_EACH: u64 = 50;
/// Numbers that conversations have as their line.
const LINES: u64 = 1_000;
/// Messages that are inserted by one statement.
const CHUNK: u64 = 250_000;
const READS: u64 = 1_000;

pub(crate) async fn run(server: &mut Server, args: &Args, messages: u64, dir: &Path) -> Result<()> {
    let program = args.program.as_deref();
    let mut full = Contestant::new(Kind::Ours, server, "stored", program, dir).await?;
    let mut empty = Contestant::new(Kind::Ours, server, "empty", program, dir).await?;
    let conversations = (messages / MESSAGES_EACH).max(args.conversations);
    say(&format!("\nfilling a database with {messages} messages"))?;
    let begun = Instant::now();
    fill(&full.database, conversations, messages).await?;
    say(&format!(
        "{conversations} conversations, in {:.0} s",
        begun.elapsed().as_secs_f64()
    ))?;
    reads(&full, conversations).await?;
    report::heading()?;
    let (mut on_empty, mut on_full) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds.max(1) {
        on_empty.push(one(&mut empty, "hookswitch, empty", server, args).await?);
        on_full.push(one(&mut full, "hookswitch, full", server, args).await?);
    }
    say(&format!(
        "full / empty {:27.2}",
        median(on_full) / median(on_empty)
    ))
}

async fn one(contestant: &mut Contestant, name: &str, server: &mut Server, args: &Args) -> Result<f64> {
    let turn = turn::run(contestant, server, args, args.seconds).await?;
    report::row(name, &turn)?;
    Ok(Turn::mirrored_rate(&turn))
}

/// The conversations that the traffic speaks of are among these.
async fn fill(database: &SecretString, conversations: u64, messages: u64) -> Result<()> {
    let mut one = server::connect(database).await?;
    let mut other = server::connect(database).await?;
    for conn in [&mut one, &mut other] {
        // What is lost when the machine fails now is filled again.
        server::execute(conn, "set synchronous_commit = off").await?;
    }
    server::execute(&mut one, &conversations_sql(conversations)).await?;
    let mut begin = 0;
    while begin < messages {
        let end = messages.min(begin + CHUNK);
        let [received, mirrored] = messages_sql(conversations, messages, begin, end);
        tokio::try_join!(
            server::execute(&mut one, &received),
            server::execute(&mut other, &mirrored)
        )?;
        begin = end;
    }
    server::execute(&mut one, "vacuum analyze").await
}

/// Conversations with four participants, and a line that changed hands once.
fn conversations_sql(conversations: u64) -> String {
    let account = traffic::ACCOUNT;
    let last = conversations - 1;
    let sid = "'CH' || lpad(to_hex(n), 32, '0')";
    let line = format!("'+1555555' || lpad((n % {LINES})::text, 4, '0')");
    format!(
        "insert into conversation (conversation_sid, account_sid, service_sid, friendly_name, attributes, state, \
           created_at, version_at, version_exact, first_seen_at, last_message_at) \
         select {sid}, '{account}', '{service}', 'Home-buying journey ' || n, '{{}}', 'active', timestamptz '2025-06-01', \
           timestamptz '2025-06-01', true, timestamptz '2025-06-01' + n * interval '1 millisecond', \
           timestamptz '2025-12-01' \
         from generate_series(0, {last}) as n; \
         insert into participant (conversation_sid, participant_sid, account_sid, identity, address, projected_address, \
           binding_type, attributes, created_at, version_at, version_exact) \
         select {sid}, 'MB' || lpad(to_hex(n * 4 + k), 32, '0'), '{account}', \
           case when k = 0 then 'agent-' || n % 300 end, \
           case when k > 0 then '+1555555' || lpad(((n * 3 + k) % 10000)::text, 4, '0') end, \
           case when k = 0 then {line} end, 'sms', '{{}}', timestamptz '2025-06-01', timestamptz '2025-06-01', true \
         from generate_series(0, {last}) as n, generate_series(0, 3) as k; \
         insert into holding (conversation_sid, participant_sid, at, exact, line, identity, removed, via, recorded_at) \
         select {sid}, 'MB' || lpad(to_hex(n * 4), 32, '0'), at, true, {line}, holder, false, 'webhook', at \
         from generate_series(0, {last}) as n, lateral (values (timestamptz '2025-06-01', 'agent-' || (n + 1) % 300), \
           (timestamptz '2025-09-01', 'agent-' || n % 300)) as held (at, holder); \
         insert into tenure (tenure_id, conversation_sid, line, holder, during, cause, via, recorded_at) \
         select gen_random_uuid(), {sid}, {line}, holder, during, cause, 'webhook', lower(during) \
         from generate_series(0, {last}) as n, lateral (values \
           ('agent-' || (n + 1) % 300, tstzrange('2025-06-01', '2025-09-01'), 'created'), \
           ('agent-' || n % 300, tstzrange('2025-09-01', null), 'transfer')) as held (holder, during, cause)",
        service = traffic::SERVICE,
    )
}

/// Messages as time would bring them: each to another conversation, with its webhook and its entry in the log; one of
/// four with a receipt. Two halves of the same size, for two connections.
fn messages_sql(conversations: u64, messages: u64, begin: u64, end: u64) -> [String; 2] {
    let account = traffic::ACCOUNT;
    let series = format!("generate_series({begin}::bigint, {}::bigint) as n", end - 1);
    let conversation = format!("'CH' || lpad(to_hex(n % {conversations}), 32, '0')");
    let member = format!("'MB' || lpad(to_hex(n % {conversations} * 4), 32, '0')");
    // Apart from the messages of the traffic.
    let message = "'IMf' || lpad(to_hex(n), 31, '0')";
    let at = format!("timestamptz '2025-06-01' + n::float8 / {messages} * interval '200 days'");
    let form = traffic::sample_form();
    let received = format!(
        "insert into webhook (received_at, account_sid, conversation_sid, event_type, dedupe_key, method, form, token_index, \
           url_candidate, lane) \
         select {at}, '{account}', {conversation}, 'onMessageAdded', gen_random_uuid(), 'POST', \
           convert_to('{form}' || n, 'UTF8'), 0, '1', (n % 16)::smallint from {series}; \
         insert into event (commit_xid, type, account_sid, conversation_sid, subject, via, occurred_at, recorded_at, data) \
         select (select log_xid()), 'message.added', '{account}', {conversation}, {message}, 'webhook', {at}, {at}, '{{}}' \
         from {series}"
    );
    let mirrored = format!(
        "insert into message (conversation_sid, message_sid, account_sid, message_index, author, participant_sid, body, \
           attributes, source, created_at, version_at, version_exact) \
         select {conversation}, {message}, '{account}', n / {conversations}, '+15555550101', {member}, \
           'The inspection went well, can we move the closing to the ' || n || 'th?', '{{}}', 'SMS', {at}, {at}, true \
         from {series}; \
         insert into delivery_receipt (conversation_sid, message_sid, delivery_receipt_sid, account_sid, participant_sid, \
           channel_message_sid, status, created_at, version_at) \
         select {conversation}, {message}, 'DYf' || lpad(to_hex(n), 31, '0'), '{account}', {member}, \
           'SMf' || lpad(to_hex(n), 31, '0'), 'delivered', {at}, {at} from {series} where n % 4 = 0"
    );
    [received, mirrored]
}

/// What is asked about a conversation, given its SID and its number.
type PathOf = fn(&str, u64) -> String;

/// Through the API, one after the other over one connection, each of another conversation.
async fn reads(contestant: &Contestant, conversations: u64) -> Result<()> {
    let key = contestant.run(&[
        "key",
        "create",
        "--name",
        "bench",
        "--scope",
        "ledger:read",
        "--scope",
        "conversations:read",
    ])?;
    let process = contestant.start().await?;
    let mut connection = Connection::open(process.address).await?;
    let paths: [(&str, PathOf); 3] = [
        ("timeline page", |sid, _| {
            format!("/v1/conversations/{sid}/timeline")
        }),
        ("roster", |sid, _| format!("/v1/conversations/{sid}/participants")),
        ("holder at", |_, number| {
            let at = format!("2025-{:02}-15T12%3A00%3A00Z", 6 + number % 6);
            let line = number % LINES;
            format!("/v1/lines/%2B1555555{line:04}/tenures?from={at}&to={at}")
        }),
    ];
    for (name, path) in paths {
        let mut times = Vec::new();
        for read in 0..READS {
            // A prime, so that no two in a row lie beside each other.
            let number = read * 7_919 % conversations;
            let path = path(&traffic::conversation_sid(number), number);
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {key}\r\n\r\n",
                traffic::HOST
            );
            let begun = Instant::now();
            let status = connection.exchange(request.as_bytes()).await?;
            times.push(begun.elapsed());
            ensure!(status.starts_with("HTTP/1.1 200 "), "{name}: {status}");
            ensure!(connection.answered(b"\"items\":[{"), "{name}: nothing was found");
        }
        times.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        say(&format!(
            "{name:16} p50 {:6.2} ms   p99 {:6.2} ms",
            ms(percentile(&times, 50)),
            ms(percentile(&times, 99))
        ))?;
    }
    process.stop()
}
