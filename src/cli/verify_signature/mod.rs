//! `hookswitch verify-signature`: explains the signature of one request, or judges many.
//!
//! The exit code is the answer: 0 for a match, 1 for none, 2 for a question that could not be read. With `--jsonl` the
//! answers are on standard output, and the exit code only says whether every line could be read.
//!
//! [`request`] puts one request together from flags and files; [`jsonl`] reads many.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use secrecy::SecretString;

use crate::twilio::signature::explain::{self, Explanation};

mod jsonl;
mod request;

/// What to verify.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    request: Box<request::Flags>,

    /// A file with the auth token, or several, one in a line; `-` is standard input. Else `TWILIO_AUTH_TOKEN` is used
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    // Only the environment is meant to set it: the command line of a process can be read by others.
    #[arg(long, env = "TWILIO_AUTH_TOKEN", hide = true, hide_env_values = true, value_parser = secret)]
    auth_token: Option<SecretString>,

    /// Judge many: a file, or `-`, of lines {"url", "token", "signature"} with "params": [[key, value], ...] for a form
    /// or "body": text for anything else; prints true or false for each
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        default_missing_value = "-",
        conflicts_with_all = ["content", "signature", "content_type", "method", "request_file", "url", "token_file"]
    )]
    jsonl: Option<PathBuf>,
}

/// What the process answers with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Match,
    NoMatch,
    Unreadable,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let answer = match judge(args) {
        Ok(answer) => answer,
        // Not returned: an error of the process would exit with 1, which says "no match" here.
        Err(error) => {
            writeln!(io::stderr(), "{error:#}")?;
            Answer::Unreadable
        }
    };
    let code = match answer {
        Answer::Match => return Ok(()),
        Answer::NoMatch => 1,
        Answer::Unreadable => 2,
    };
    #[expect(
        clippy::exit,
        reason = "the exit code is this command's answer, and everything is written"
    )]
    std::process::exit(code)
}

fn judge(args: &Args) -> anyhow::Result<Answer> {
    if let Some(file) = &args.jsonl {
        let all_read = jsonl::judge(open(file)?, io::stdout().lock(), io::stderr().lock())?;
        return Ok(if all_read {
            Answer::Match
        } else {
            Answer::Unreadable
        });
    }
    let tokens = tokens(args)?;
    let request = request::of(&args.request)?;
    let fields = request.fields()?;
    let explanation = explain::explain(&tokens, &request.to_explain(fields.as_ref()));
    tell(&explanation, tokens.len(), request.url_note)?;
    Ok(match explanation.verdict {
        Ok(_) => Answer::Match,
        Err(_) => Answer::NoMatch,
    })
}

fn tell(explanation: &Explanation, tokens: usize, note: Option<&str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if let Some(note) = note {
        writeln!(out, "note: {note}")?;
    }
    match explanation.verdict {
        Ok(found) => {
            let token = found.token_index + 1;
            writeln!(out, "match: {}, token {token} of {tokens}", found.candidate)?;
        }
        Err(refusal) => writeln!(out, "no match: {refusal}")?,
    }
    for mistakes in &explanation.near {
        let said: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        writeln!(out, "near: {}", said.join("; and "))?;
    }
    if explanation.verdict == Err(crate::twilio::signature::Refusal::NoMatch) && explanation.near.is_empty() {
        writeln!(
            out,
            "nothing comes near: it is another token, another URL, or content that was changed"
        )?;
    }
    out.flush()
}

fn tokens(args: &Args) -> anyhow::Result<Vec<SecretString>> {
    let Some(file) = &args.token_file else {
        let token = args.auth_token.clone();
        return Ok(vec![
            token.context("no token: give --token-file, or set TWILIO_AUTH_TOKEN")?,
        ]);
    };
    let bytes = read(file)?;
    let text = std::str::from_utf8(&bytes).context("the token file is not text")?;
    let tokens: Vec<SecretString> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(SecretString::from)
        .collect();
    anyhow::ensure!(!tokens.is_empty(), "the token file has no token");
    Ok(tokens)
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the shape that clap wants of a value parser"
)]
fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(text.into())
}

fn open(file: &Path) -> anyhow::Result<BufReader<Box<dyn Read>>> {
    let opened: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?)
    };
    Ok(BufReader::new(opened))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(file)?
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", file.display()))?;
    Ok(bytes)
}
