//! What the same PostgreSQL takes at most without us: the same row, one a transaction, from many clients.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use secrecy::{ExposeSecret as _, SecretString};

use crate::traffic;

pub(crate) const CLIENTS: u16 = 32;

/// Inserts for so many seconds, by prepared statements; the service has to be stopped, or it projects what is inserted.
pub(crate) fn inserts_per_second(
    pgbench: &Path,
    database: &SecretString,
    seconds: u64,
    dir: &Path,
) -> Result<f64> {
    let script = dir.join("insert.sql");
    // A colon would begin a variable of pgbench's; the form has none, since it is percent-encoded.
    let form = traffic::sample_form();
    ensure!(!form.contains([':', '\'']), "the form cannot stand in a script");
    std::fs::write(
        &script,
        format!(
            "insert into webhook (received_at, account_sid, conversation_sid, event_type, dedupe_key, method, form, \
             token_index, url_candidate, lane) values (now(), '{}', 'CH00000000000000000000000000000001', \
             'onMessageAdded', gen_random_uuid(), 'POST', '{form}', 0, '1', (random() * 15)::smallint);\n",
            traffic::ACCOUNT,
        ),
    )?;
    let output = Command::new(pgbench)
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
        .arg(format!("--client={CLIENTS}"))
        .arg(format!("--time={seconds}"))
        .arg("--file")
        .arg(&script)
        .arg(database.expose_secret())
        .output()
        .with_context(|| format!("cannot run {}", pgbench.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "pgbench failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    text.lines()
        .find_map(|line| {
            line.strip_prefix("tps = ")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .context("pgbench tells no rate")
}
