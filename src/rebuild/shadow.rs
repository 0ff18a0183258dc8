//! The session in which everything is made anew: temporary tables, under the names of the real ones and made like them,
//! which PostgreSQL finds first. They vanish with the session, however it ends.
//!
//! Statements here are put together from [`super::tables`], since a temporary table is not there for the macros to check.

use sqlx::postgres::{PgArguments, PgConnectOptions};
use sqlx::query::Query;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, Postgres, Row as _,
};

use super::Error;
use super::tables::{Sort, TABLES};

/// One connection with the new tables.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) conn: PgConnection,
}

/// What is read besides.
const SOURCES: &[&str] = &[
    "webhook",
    "webhook_set_aside",
    "projected_batch",
    "answer",
    "unrecorded_conversation",
    "transfer",
    "transfer_step",
];

/// Whose session may make the mirror anew; one at a time.
const LOCK: &str = "hookswitch.rebuild";

impl Session {
    /// Connects as the login itself, without the limits of the service's pool: one replay is long.
    ///
    /// `to_swap`: the live tables are to be written in the end.
    pub(super) async fn open(options: &PgConnectOptions, to_swap: bool) -> Result<Self, Error> {
        let options = options.clone().application_name("hookswitch rebuild").options([
            ("client_min_messages", "error"),
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("tcp_keepalives_idle", "10"),
            // A statement of a session that is given up ends soon, and with it its locks.
            ("client_connection_check_interval", "200ms"),
            // What is made here lasts no longer than the session; a swap says otherwise for itself.
            ("synchronous_commit", "off"),
            ("temp_buffers", "64MB"),
            ("work_mem", "32MB"),
            ("jit", "off"),
        ]);
        let mut conn = options.connect().await?;
        let alone: bool = dynamic(format!("select pg_try_advisory_lock(hashtext('{LOCK}'))"))
            .fetch_one(&mut conn)
            .await?
            .get(0);
        if !alone {
            return Err(Error::Busy);
        }
        let mut session = Self { conn };
        session.may_do_it(to_swap).await?;
        session.make_tables().await?;
        Ok(session)
    }

    async fn may_do_it(&mut self, to_swap: bool) -> Result<(), Error> {
        let temporary = "has_database_privilege(current_database(), 'temporary')".to_owned();
        self.expect(&[temporary], "make temporary tables in this database")
            .await?;
        let names = TABLES.iter().map(|table| table.name);
        let mut read: Vec<String> = names
            .chain(SOURCES.iter().copied())
            .map(|name| format!("has_table_privilege('public.{name}', 'select')"))
            .collect();
        read.push("has_sequence_privilege('public.statement_number', 'select')".to_owned());
        self.expect(&read, "read the webhooks, the mirror, the ledger and the log")
            .await?;
        let mut write = Vec::new();
        for table in TABLES.iter().filter(|_| to_swap) {
            let rights = match table.sort {
                Sort::Log => ["insert"].as_slice(),
                Sort::Resource | Sort::Derived => ["insert", "update", "delete"].as_slice(),
            };
            let name = table.name;
            write.extend(
                rights
                    .iter()
                    .map(|right| format!("has_table_privilege('public.{name}', '{right}')")),
            );
        }
        self.expect(&write, "write the mirror, the ledger and the log")
            .await
    }

    async fn expect(&mut self, rights: &[String], to_do: &'static str) -> Result<(), Error> {
        for right in rights {
            let row = dynamic(format!("select {right}"))
                .fetch_one(&mut self.conn)
                .await?;
            if !row.try_get::<bool, _>(0)? {
                return Err(Error::Forbidden(to_do));
            }
        }
        Ok(())
    }

    async fn make_tables(&mut self) -> Result<(), Error> {
        for table in TABLES {
            let name = table.name;
            self.run(format!(
                "create temporary table {name} (like public.{name} including all)"
            ))
            .await?;
        }
        // What has no source any more, by what its rows belong to; and what a swap has to look at.
        for name in ["unsourced", "damaged"] {
            self.run(format!("create temporary table {name} (scope text primary key)"))
                .await?;
        }
        Ok(())
    }

    pub(super) async fn run(&mut self, sql: String) -> Result<(), sqlx::Error> {
        self.conn.execute(AssertSqlSafe(sql)).await.map(drop)
    }

    pub(super) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.run("begin isolation level read committed".to_owned()).await
    }

    pub(super) async fn begin_snapshot(&mut self) -> Result<(), sqlx::Error> {
        self.run("begin isolation level repeatable read".to_owned()).await
    }

    pub(super) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.run("commit".to_owned()).await
    }

    pub(super) async fn rollback(&mut self) -> Result<(), sqlx::Error> {
        self.run("rollback".to_owned()).await
    }

    /// The planner knows nothing of temporary tables but what it is told now and then.
    pub(super) async fn analyze(&mut self) -> Result<(), sqlx::Error> {
        for table in TABLES {
            self.run(format!("analyze pg_temp.{}", table.name)).await?;
        }
        Ok(())
    }

    /// From here on in this transaction, names mean the live tables.
    pub(super) async fn see_live_tables(&mut self) -> Result<(), sqlx::Error> {
        self.run("set local search_path = public, pg_temp".to_owned())
            .await
    }

    /// Notes that of these scopes some source is gone.
    pub(super) async fn note_unsourced(&mut self, scopes: &[String]) -> Result<(), sqlx::Error> {
        if scopes.is_empty() {
            return Ok(());
        }
        dynamic("insert into unsourced select unnest($1::text[]) on conflict do nothing".to_owned())
            .bind(scopes)
            .execute(&mut self.conn)
            .await
            .map(drop)
    }

    /// Notes as without a source what was erased of the live rows, of all or of what a swap has to look at.
    pub(super) async fn note_erased(&mut self, only_damaged: bool) -> Result<(), sqlx::Error> {
        // What is erased of the log is told entry by entry.
        for table in TABLES.iter().filter(|table| table.sort != Sort::Log) {
            let Some(erased) = table.is_erased("old") else {
                continue;
            };
            let (name, scope) = (table.name, table.scope.of("old"));
            let only = if only_damaged {
                format!("and {scope} in (select scope from pg_temp.damaged)")
            } else {
                String::new()
            };
            self.run(format!(
                "insert into pg_temp.unsourced select distinct {scope} from public.{name} as old where {erased} {only}
                 on conflict do nothing"
            ))
            .await?;
        }
        Ok(())
    }

    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        self.conn.close().await
    }
}

/// A statement that is put together at run time, from names that are in the source.
#[expect(
    clippy::disallowed_methods,
    reason = "the macros cannot check what reads temporary tables"
)]
pub(super) fn dynamic<'q>(sql: String) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(sql))
}
