//! Every column that can hold a text, held against what erases a person: each names nobody, and it is said why, or is
//! erased by a function that `src/erasure/places.rs` calls. So a migration that adds a column is caught the day it comes.

use std::collections::BTreeMap;
use std::fs;

use crate::support::app::TestApp;
use crate::support::sql;

/// Columns of a table in which a person may be named, with the file that erases them from it, and how that is called.
struct Erased {
    table: &'static str,
    columns: &'static str,
    file: &'static str,
    call: &'static str,
}

/// One line for each table and file. A new table goes here, or below.
const ERASED: &[Erased] = &[
    erased(
        "agent",
        "identity name supervisor backup availability_reason availability_set_by",
        "src/people/erase.rs",
        "people::erase::erase(",
    ),
    erased(
        "answer",
        "statements",
        "src/projection/answers.rs",
        "answers::erase_person(",
    ),
    erased(
        "assignment_turn",
        "last_identity",
        "src/assignment/erase.rs",
        "assignment::erase::erase(",
    ),
    erased(
        "chat_user",
        "identity friendly_name attributes",
        "src/mirror/erase/person.rs",
        "of_mirror::erase_user(",
    ),
    erased(
        "conversation",
        "friendly_name unique_name attributes",
        "src/mirror/erase/person.rs",
        IN_MIRROR,
    ),
    erased(
        "conversation_version",
        "friendly_name unique_name attributes digest",
        "src/mirror/erase/person.rs",
        IN_MIRROR,
    ),
    erased(
        "escalation",
        "holder asked_by stopped_by reason cause_key",
        "src/escalation/erase.rs",
        "escalation::erase::erase(",
    ),
    erased(
        "escalation_policy_version",
        "document created_by",
        "src/escalation/erase.rs",
        "escalation::erase::erase_from_policies(",
    ),
    erased(
        "escalation_step",
        "to_identity whom",
        "src/escalation/erase.rs",
        "escalation::erase::erase(",
    ),
    erased(
        "event",
        "subject actor data",
        "src/events/erase.rs",
        "events::erase_person(",
    ),
    erased(
        "group_text",
        "friendly_name attributes roster members requested_by failure_detail",
        "src/group_text/erase.rs",
        "group_text::erase::erase(",
    ),
    erased(
        "handover_line",
        "to_holder passed",
        "src/handover/erase.rs",
        "handover::erase::erase(",
    ),
    erased(
        "handover_plan",
        "leaver requested_by started_by turned_by changed_by reason note introduction",
        "src/handover/erase.rs",
        "handover::erase::erase(",
    ),
    erased(
        "handover_rule",
        "people",
        "src/handover/erase.rs",
        "handover::erase::erase(",
    ),
    erased(
        "holding",
        "identity",
        "src/ledger/erase.rs",
        "ledger::erase::erase(",
    ),
    erased(
        "idempotency_key",
        "key response location",
        "src/api/idempotency/store.rs",
        "idempotency::erase_person(",
    ),
    erased(
        "line_assignment",
        "last_holder to_holder passed",
        "src/assignment/erase.rs",
        "assignment::erase::erase(",
    ),
    erased(
        "line_finding",
        "repair_requested_by repair_outcome",
        "src/health/erase.rs",
        "health::erase::erase(",
    ),
    erased(
        "line_lease",
        "to_holder",
        "src/ledger/erase.rs",
        "ledger::erase::erase(",
    ),
    erased(
        "message",
        "author body media attributes",
        "src/mirror/erase/messages.rs",
        IN_MIRROR,
    ),
    erased(
        "message_version",
        "author body media attributes digest",
        "src/mirror/erase/messages.rs",
        IN_MIRROR,
    ),
    erased(
        "number",
        "person label",
        "src/numbers/erase.rs",
        "numbers::erase::erase(",
    ),
    erased(
        "opt_out",
        "address set_by cleared_by",
        "src/opt_out/erase.rs",
        "opt_out::erase::erase(",
    ),
    erased(
        "opt_out_concern",
        "decided_by",
        "src/opt_out/erase.rs",
        "opt_out::erase::erase(",
    ),
    erased(
        "opt_out_policy",
        "set_by",
        "src/opt_out/erase.rs",
        "opt_out::erase::erase(",
    ),
    erased(
        "outbound_media",
        "filename requested_by content",
        "src/outbox/media/store.rs",
        "outbox::media::erase_person(",
    ),
    erased(
        "outbound_message",
        "as_holder author body attributes outcome_detail requested_by",
        "src/outbox/erase.rs",
        "outbox::erase::erase_person(",
    ),
    erased(
        "participant",
        "identity address attributes",
        "src/mirror/erase/seats.rs",
        IN_MIRROR,
    ),
    erased(
        "participant_version",
        "identity address attributes digest",
        "src/mirror/erase/seats.rs",
        IN_MIRROR,
    ),
    erased(
        "quarantined_webhook",
        "form",
        "src/inbox/erase.rs",
        "inbox::erase_person_from_quarantine(",
    ),
    erased(
        "team_on_call",
        "identity",
        "src/people/erase.rs",
        "people::erase::erase(",
    ),
    erased("tenure", "holder", "src/ledger/erase.rs", "ledger::erase::erase("),
    erased(
        "transfer",
        "from_holder to_holder requested_by decided_by decided_as displaced reason note introduction waiting_error outcome_detail",
        "src/transfer/erase.rs",
        "transfer::erase::erase(",
    ),
    erased(
        "transfer_candidate",
        "identity answered_by reason",
        "src/transfer/erase.rs",
        "transfer::erase::erase(",
    ),
    erased(
        "transfer_step",
        "detail",
        "src/transfer/erase.rs",
        "transfer::erase::erase(",
    ),
    erased("webhook", "form", "src/inbox/erase.rs", "inbox::erase_person("),
];

const IN_MIRROR: &str = "of_mirror::erase_from_conversation(";

/// Why columns name nobody, and which they are.
const NAMES_NOBODY: &[(&str, &[(&str, &str)])] = &[
    (
        "SIDs, accounts and our own ids",
        &[
            ("answer", "account_sid conversation_sid"),
            ("chat_user", "account_sid user_sid service_sid role_sid"),
            (
                "conversation",
                "conversation_sid account_sid service_sid messaging_service_sid",
            ),
            ("conversation_check", "conversation_sid account_sid"),
            ("conversation_version", "conversation_sid messaging_service_sid"),
            (
                "delivery_receipt",
                "conversation_sid message_sid delivery_receipt_sid account_sid participant_sid channel_message_sid",
            ),
            ("escalation", "conversation_sid account_sid policy_id"),
            ("escalation_policy", "policy_id"),
            ("escalation_policy_version", "policy_id"),
            ("escalation_step", "conversation_sid"),
            ("escalation_watch", "conversation_sid"),
            ("group_text_choice", "existing_conversation_sid"),
            ("handover_line", "conversation_sid account_sid"),
            ("line_assignment", "conversation_sid account_sid"),
            ("number", "account_sid messaging_service_sid"),
            (
                "opt_out",
                "account_sid conversation_sid evidence cleared_evidence",
            ),
            ("opt_out_concern", "conversation_sid"),
            ("opt_out_policy", "account_sid"),
            ("outbound_media", "conversation_sid twilio_media_sid"),
            ("erasure", "conversations held"),
            ("event", "account_sid conversation_sid"),
            ("group_text", "account_sid conversation_sid"),
            ("holding", "conversation_sid participant_sid"),
            ("legal_hold", "conversation_sid"),
            ("line_finding", "conversation_sid account_sid"),
            ("line_lease", "conversation_sid"),
            ("line_send", "conversation_sid account_sid"),
            (
                "message",
                "conversation_sid message_sid account_sid participant_sid",
            ),
            ("message_version", "conversation_sid message_sid participant_sid"),
            ("outbound_message", "conversation_sid account_sid message_sid"),
            (
                "participant",
                "conversation_sid participant_sid account_sid role_sid",
            ),
            ("participant_version", "conversation_sid participant_sid role_sid"),
            ("projected_batch", "webhook_ids"),
            ("quarantined_webhook", "account_sid"),
            (
                "receipt_version",
                "conversation_sid message_sid delivery_receipt_sid",
            ),
            ("retention_progress", "row_key"),
            ("retention_released", "conversation_sid"),
            ("sweep_run", "account_sid"),
            ("tenure", "conversation_sid"),
            ("transfer", "conversation_sid account_sid"),
            ("transfer_candidate", "conversation_sid"),
            ("transfer_method", "account_sid"),
            ("transfer_step", "conversation_sid"),
            ("unrecorded_conversation", "conversation_sid"),
            ("webhook", "account_sid conversation_sid"),
        ],
    ),
    (
        "words of a closed list, codes and places in lists",
        &[
            ("agent", "availability"),
            ("answer", "via"),
            ("api_key", "scopes"),
            ("conversation", "state"),
            ("conversation_check", "verified_by"),
            ("conversation_version", "aspect state"),
            ("delivery_receipt", "status error_code"),
            (
                "erasure",
                "subject_kind upstream state via step place counts failures",
            ),
            ("escalation", "rule cause state why"),
            ("escalation_step", "how outcome code"),
            ("group_text_choice", "if_exists"),
            (
                "handover_line",
                "finding state action why outcome back_state back_outcome",
            ),
            (
                "handover_plan",
                "state direction phase otherwise back_because leaver_becomes waiting_error",
            ),
            ("handover_rule", "rule spread"),
            ("line_assignment", "state reason"),
            ("number", "kind rule"),
            ("opt_out", "source cleared_source"),
            ("opt_out_concern", "policy state"),
            ("opt_out_policy", "policy"),
            ("outbound_media", "content_type"),
            ("event", "type via cause"),
            ("group_text", "origin state failure_code"),
            ("holding", "via"),
            (
                "line_finding",
                "code severity seen_by evidence repair repair_state",
            ),
            ("line_send", "refused_code"),
            ("message", "source"),
            ("message_version", "aspect"),
            ("outbound_message", "state outcome_code waiting_error"),
            ("participant", "binding_type"),
            ("participant_version", "aspect binding_type"),
            ("quarantined_webhook", "method refusal"),
            ("receipt_version", "status error_code"),
            ("retention_progress", "place"),
            ("retention_released", "place"),
            ("sweep_run", "scope state list_position"),
            ("task", "kind order_key unique_key payload state"),
            ("team", "rotation_every rotation_start"),
            ("tenure", "cause via"),
            ("transfer", "kind state outcome_code method waiting_for"),
            ("transfer_candidate", "state"),
            ("transfer_step", "action outcome"),
            (
                "webhook",
                "event_type method idempotency_token url_candidate format",
            ),
        ],
    ),
    (
        "our own numbers, which no person is erased by",
        &[
            ("escalation", "line"),
            ("escalation_watch", "line"),
            ("group_text_choice", "number tried"),
            ("handover_line", "line"),
            ("line_assignment", "line"),
            ("number", "number"),
            ("opt_out", "line"),
            ("opt_out_policy", "line"),
            ("holding", "line"),
            ("line_finding", "line"),
            ("line_lease", "line"),
            ("line_send", "line"),
            ("outbound_message", "line"),
            ("participant", "proxy_address projected_address"),
            ("participant_version", "proxy_address projected_address"),
            ("tenure", "line"),
            ("transfer", "line"),
        ],
    ),
    (
        "errors, which say no number and nobody's words",
        &[
            ("sweep_run", "last_error"),
            ("task", "last_error"),
            ("webhook_set_aside", "reason"),
        ],
    ),
    (
        "what a team is called and when it is open, and what somebody can do",
        &[
            ("agent", "team_id skills"),
            ("team", "team_id name time_zone hours holidays"),
            ("team_on_call", "team_id"),
            ("assignment_turn", "team_id"),
            ("escalation_policy", "name since"),
            ("group_text_choice", "team_id"),
            ("handover_rule", "team_id"),
            ("line_assignment", "team_id"),
            ("number", "team_id"),
        ],
    ),
    (
        "hashes that tell nothing by themselves",
        &[
            ("api_key", "key_hash"),
            ("idempotency_key", "request_hash"),
            ("seal", "root marks previous hash"),
        ],
    ),
    (
        "the marks of what was erased: salted, without those of numbers, and a pseudonym",
        &[
            ("answer", "erased"),
            ("chat_user", "erased"),
            ("conversation", "erased"),
            ("conversation_version", "erased"),
            ("event", "erased"),
            ("message", "erased"),
            ("message_version", "erased"),
            ("outbound_message", "erased"),
            ("participant", "erased"),
            ("participant_version", "erased"),
            ("webhook", "erased"),
        ],
    ),
    (
        "whom it is about is forgotten with the last step, and who asks must not name them",
        &[("erasure", "subject pseudonym asked_by reason requested_by")],
    ),
    (
        "programs, and words about cases, which docs/OPERATIONS.md says are not looked through",
        &[("api_key", "name"), ("legal_hold", "reason held_by")],
    ),
];

const fn erased(
    table: &'static str,
    columns: &'static str,
    file: &'static str,
    call: &'static str,
) -> Erased {
    Erased {
        table,
        columns,
        file,
        call,
    }
}

/// Every listed column, with what is said of it.
fn listed() -> BTreeMap<String, Vec<&'static str>> {
    let mut all: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    let mut list = |table: &str, columns: &'static str, said: &'static str| {
        for column in columns.split(' ') {
            all.entry(format!("{table}.{column}")).or_default().push(said);
        }
    };
    for one in ERASED {
        list(one.table, one.columns, one.file);
    }
    for (why, tables) in NAMES_NOBODY {
        for (table, columns) in *tables {
            list(table, columns, why);
        }
    }
    all
}

#[tokio::test]
async fn every_column_that_can_name_somebody_is_erased_or_names_nobody() {
    let app = TestApp::start().await;
    let columns = sql::values(
        app.pool(),
        "select table_name || '.' || column_name
        from information_schema.columns join information_schema.tables using (table_schema, table_name)
        where table_schema = 'public' and table_type = 'BASE TABLE' and table_name <> '_sqlx_migrations'
          and data_type in ('text', 'character varying', 'json', 'jsonb', 'bytea', 'ARRAY', 'name', '\"char\"', 'inet',
                            'USER-DEFINED')
        order by 1",
    )
    .await;
    let listed = listed();
    for column in &columns {
        assert!(
            listed.contains_key(column),
            "{column} may name somebody: erase it (src/erasure/places.rs) and list it in ERASED, or say in NAMES_NOBODY why not"
        );
    }
    for (column, said) in &listed {
        assert!(columns.contains(column), "{column} is listed, and not there");
        assert_eq!(said.len(), 1, "{column} is listed twice: {said:?}");
    }
}

#[test]
fn what_erases_a_column_is_there_and_called() {
    let places = fs::read_to_string("src/erasure/places.rs").unwrap();
    for one in ERASED {
        assert!(
            places.contains(one.call),
            "src/erasure/places.rs does not call {}",
            one.call
        );
        let source = fs::read_to_string(one.file).unwrap();
        let mut statements = source.split("query").filter(|statement| {
            ["update", "delete from", "insert into", "from"]
                .iter()
                .any(|verb| statement.contains(&format!("{verb} {}", one.table)))
        });
        // A row goes whole, or says which of its columns do.
        let changing: Vec<&str> = statements.by_ref().collect();
        for column in one.columns.split(' ') {
            assert!(
                changing.iter().any(|statement| statement.contains(column)),
                "{} says nothing of {}.{column}",
                one.file,
                one.table
            );
        }
    }
}
