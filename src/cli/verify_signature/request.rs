//! One request from flags, or from a file that holds it as it was on the wire.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};

use super::read;
use crate::twilio::form::Form;
use crate::twilio::signature::explain::Request as ToExplain;
use crate::twilio::signature::{HEADER, Payload};

const FORM: &str = "application/x-www-form-urlencoded";

/// One request, in parts or as a whole.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("content").args(["body", "body_file"]))]
pub(super) struct Flags {
    /// The URL exactly as it is configured at Twilio
    #[arg(long, required_unless_present_any = ["request_file", "jsonl"])]
    url: Option<String>,

    /// The value of the X-Twilio-Signature header
    #[arg(long)]
    signature: Option<String>,

    /// The request's body
    #[arg(long)]
    body: Option<String>,

    /// A file with the request's body, byte for byte; `-` is standard input
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,

    /// The request's content type; without it a body counts as a form
    #[arg(long)]
    content_type: Option<String>,

    /// The request's method; without it POST where there is a body, else GET
    #[arg(long)]
    method: Option<String>,

    /// A file with the whole HTTP request: request line, headers, blank line, body. `--url` overrides its URL
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["content", "signature", "content_type", "method"]
    )]
    request_file: Option<PathBuf>,
}

pub(super) struct Request {
    url: String,
    /// What the reader should know of how the URL came about.
    pub(super) url_note: Option<&'static str>,
    method: String,
    content_type: String,
    signature: Option<String>,
    host: Option<String>,
    body: Vec<u8>,
}

pub(super) fn of(flags: &Flags) -> anyhow::Result<Request> {
    match &flags.request_file {
        Some(file) => from_wire(&read(file)?, flags.url.as_deref()),
        None => from_flags(flags),
    }
}

impl Request {
    /// The decoded form, where the request is one.
    pub(super) fn fields(&self) -> anyhow::Result<Option<Form>> {
        if self.has_no_body() || !self.is_form() {
            return Ok(None);
        }
        Form::parse(&self.body)
            .map(Some)
            .context("cannot read the body as a form")
    }

    pub(super) fn to_explain<'a>(&'a self, fields: Option<&'a Form>) -> ToExplain<'a> {
        let payload = match fields {
            Some(form) => Payload::Form(form.fields()),
            None if self.has_no_body() => Payload::None,
            None => Payload::Raw(&self.body),
        };
        ToExplain {
            url: &self.url,
            payload,
            header: self.signature.as_deref(),
            raw_body: Some(&self.body),
            other_host: self.host.as_deref(),
        }
    }

    fn has_no_body(&self) -> bool {
        self.body.is_empty() && matches!(self.method.as_str(), "GET" | "HEAD")
    }

    fn is_form(&self) -> bool {
        let essence = self.content_type.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case(FORM)
    }
}

fn from_flags(flags: &Flags) -> anyhow::Result<Request> {
    let body = match (&flags.body, &flags.body_file) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(file)) => Some(read(file)?),
        (None, None) => None,
    };
    let method = match &flags.method {
        Some(method) => method.to_ascii_uppercase(),
        None if body.is_some() => "POST".to_owned(),
        None => "GET".to_owned(),
    };
    Ok(Request {
        url: flags.url.clone().context("no URL: give --url")?,
        url_note: None,
        method,
        content_type: flags.content_type.clone().unwrap_or_else(|| FORM.to_owned()),
        signature: flags.signature.clone(),
        host: None,
        body: body.unwrap_or_default(),
    })
}

fn from_wire(bytes: &[u8], url: Option<&str>) -> anyhow::Result<Request> {
    let (head, body) = split_head(bytes).context("the request has no blank line after its headers")?;
    let head = std::str::from_utf8(head).context("the request's headers are not text")?;
    let mut lines = head.lines();
    let mut request_line = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target)) = (request_line.next(), request_line.next()) else {
        bail!("expected a request line like `POST /path HTTP/1.1`");
    };
    let headers = lines
        .map(|line| {
            line.split_once(':')
                .map(|(name, value)| (name.trim(), value.trim()))
                .context("expected headers like `Name: value`")
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(
        one_of(&headers, "transfer-encoding")?.is_none(),
        "the body is in chunks: save the request with its body put together, and without Transfer-Encoding"
    );
    let host = one_of(&headers, "host")?;
    let (url, url_note) = match (url, host) {
        (Some(url), _) => (url.to_owned(), None),
        (None, _) if target.contains("://") => (target.to_owned(), None),
        (None, Some(host)) => (
            format!("https://{host}{target}"),
            Some(
                "the URL is put together from https and the Host header; give --url if Twilio calls another",
            ),
        ),
        (None, None) => bail!("no URL: the request has no Host header; give --url"),
    };
    Ok(Request {
        url,
        url_note,
        method: method.to_ascii_uppercase(),
        content_type: one_of(&headers, "content-type")?.unwrap_or_default().to_owned(),
        signature: one_of(&headers, HEADER)?.map(str::to_owned),
        host: host.map(str::to_owned),
        body: body_of(body, one_of(&headers, "content-length")?)?.to_vec(),
    })
}

/// Headers and body, at the first blank line; editors may have made CR LF into LF.
fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = |blank: &[u8]| {
        let start = bytes.windows(blank.len()).position(|window| window == blank)?;
        Some((start, start + blank.len()))
    };
    let (head_ends, body_begins) = [at(b"\r\n\r\n"), at(b"\n\n")].into_iter().flatten().min()?;
    Some((&bytes[..head_ends], &bytes[body_begins..]))
}

/// The body by its length, since editors put a line end behind it.
fn body_of<'a>(body: &'a [u8], length: Option<&str>) -> anyhow::Result<&'a [u8]> {
    let Some(length) = length else { return Ok(body) };
    let length: usize = length
        .parse()
        .context("expected a whole number as Content-Length")?;
    body.get(..length).with_context(|| {
        format!(
            "the body has {} bytes, fewer than Content-Length says",
            body.len()
        )
    })
}

fn one_of<'a>(headers: &[(&'a str, &'a str)], name: &str) -> anyhow::Result<Option<&'a str>> {
    let mut found = headers
        .iter()
        .filter(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| *value);
    let first = found.next();
    ensure!(found.next().is_none(), "the request has the header {name} twice");
    Ok(first)
}
