//! The list of what is compared, held against the schema: a new table or column has to be decided on.

use std::collections::BTreeSet;

use hookswitch::rebuild::tables::{LOG_KINDS, Role, Sort, TABLES};

use crate::support::app::{TestApp, sid_of};
use crate::support::sql;
use crate::support::tables;
use crate::tidy::OWNERS;

/// Tables of the mirror and the ledger that are not made of what Twilio says.
const NOT_MADE: &[&str] = &["line_lease"];

#[tokio::test]
async fn every_table_and_column_of_the_mirror_and_the_ledger_is_decided_on() {
    let app = TestApp::start().await;
    let owned: BTreeSet<&str> = OWNERS
        .iter()
        .filter(|(_, owner)| ["src/mirror/", "src/ledger/"].contains(owner))
        .map(|(table, _)| *table)
        .chain(["event"])
        .filter(|table| !NOT_MADE.contains(table))
        .collect();
    let listed: BTreeSet<&str> = TABLES.iter().map(|table| table.name).collect();
    assert_eq!(listed, owned, "say in src/rebuild/tables.rs how it is compared");
    for table in TABLES {
        let query = format!(
            "select column_name::text from information_schema.columns
             where table_schema = 'public' and table_name = '{}'",
            table.name
        );
        let found: BTreeSet<String> = sql::values(app.pool(), &query).await.into_iter().collect();
        let listed: BTreeSet<String> = table.all().map(str::to_owned).collect();
        assert_eq!(
            listed, found,
            "columns of {}: say in src/rebuild/tables.rs",
            table.name
        );
    }
}

/// What swaps and comparisons join by must not be null, and tell rows apart.
#[tokio::test]
async fn keys_are_keys() {
    let app = TestApp::start().await;
    for table in TABLES {
        let nullable: Vec<&str> = table
            .columns
            .iter()
            .filter(|(name, role)| {
                *role == Role::Key && !(table.name == "event" && *name == "conversation_sid")
            })
            .map(|(name, _)| *name)
            .collect();
        let query = format!(
            "select column_name::text from information_schema.columns
             where table_schema = 'public' and table_name = '{}' and is_nullable = 'YES'",
            table.name
        );
        for column in sql::values(app.pool(), &query).await {
            assert!(
                !nullable.contains(&column.as_str()),
                "{}.{column} may be null",
                table.name
            );
        }
        if table.sort == Sort::Resource {
            let query = format!(
                "select attname::text from pg_index
                 join pg_attribute on attrelid = indrelid and attnum = any(indkey)
                 where indrelid = 'public.{}'::regclass and indisprimary order by 1",
                table.name
            );
            let mut key: Vec<&str> = table.key().collect();
            key.sort_unstable();
            assert_eq!(sql::values(app.pool(), &query).await, key, "{}", table.name);
        }
    }
}

#[tokio::test]
async fn the_mirror_and_the_ledger_write_no_other_kind_into_the_log() {
    let app = TestApp::start().await;
    let group = app.group(Some("maya")).await;
    app.start_transfer(&sid_of(&group), hookswitch::transfer::Kind::Cold, "jonas")
        .await;
    app.settle().await;
    let kinds = LOG_KINDS.iter().map(|kind| format!("'{}'", kind.as_str()));
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    // What others write has a subject of theirs, or is about a transfer, a send or the like by its kind.
    let others = tables::rows(
        &app,
        &format!(
            "select distinct type from event where type not in ({kinds})
             and split_part(type, '.', 1) in ('conversation', 'participant', 'message', 'delivery', 'user')"
        ),
    )
    .await;
    assert_eq!(others, Vec::<String>::new());
}
