//! Many requests, one JSON object in a line; one answer in a line, in the same order.

use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write};

use serde::Deserialize;

use crate::twilio::signature::{Payload, verify};

/// One question. Keys that are not listed are ignored, so that a set of vectors can carry its own notes.
#[derive(Deserialize)]
struct Question {
    url: String,
    token: String,
    /// A request may come without one, and is then refused.
    #[serde(default)]
    signature: Option<String>,
    /// The fields of a form; null values are blank.
    #[serde(default)]
    params: Option<Vec<(String, Option<String>)>>,
    /// Any other body.
    #[serde(default)]
    body: Option<String>,
}

/// Writes `true` or `false` for each line; says whether every line could be read.
///
/// A line that cannot be read is answered `false`, so that answers and lines stay side by side, and is named in
/// `complaints`. One line is held at a time, and whoever waits for an answer before the next question gets it.
pub(super) fn judge(
    mut lines: BufReader<impl Read>,
    answers: impl Write,
    mut complaints: impl Write,
) -> io::Result<bool> {
    let mut answers = BufWriter::new(answers);
    let mut line = Vec::new();
    let mut number = 0_u64;
    let mut all_read = true;
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            answers.flush()?;
            return Ok(all_read);
        }
        number += 1;
        let answer = answer(&line).unwrap_or_else(|complaint| {
            all_read = false;
            // Nobody may be listening, which is no reason to stop answering.
            writeln!(complaints, "line {number}: {complaint}").ok();
            false
        });
        writeln!(answers, "{answer}")?;
        let another_is_here = lines.buffer().contains(&b'\n');
        if !another_is_here {
            answers.flush()?;
        }
    }
}

fn answer(line: &[u8]) -> Result<bool, String> {
    let question: Question = serde_json::from_slice(line).map_err(|error| explain(&error))?;
    let params: Option<Vec<(String, String)>> = question.params.map(|params| {
        params
            .into_iter()
            .map(|(key, value)| (key, value.unwrap_or_default()))
            .collect()
    });
    let payload = match (&params, &question.body) {
        (Some(params), None) => Payload::Form(params),
        (None, Some(body)) => Payload::Raw(body.as_bytes()),
        (None, None) => Payload::None,
        (Some(_), Some(_)) => return Err("expected `params` or `body`, not both".to_owned()),
    };
    let tokens = [question.token.into()];
    Ok(verify(&tokens, &question.url, payload, question.signature.as_deref()).is_ok())
}

/// What serde says, without the value that it may quote.
fn explain(error: &serde_json::Error) -> String {
    let column = error.column();
    match error.classify() {
        serde_json::error::Category::Data => format!(
            "expected an object with the texts `url`, `token` and `signature`, and `params` as pairs of texts or `body` \
             as text (column {column})"
        ),
        _ => format!("expected JSON (column {column})"),
    }
}
