//! What each mistake would have signed: another URL, or other text behind it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::super::candidates::{Parts, without_fragment};
use super::super::{Payload, concat, signed_fields};
use super::{Diagnosis, Request};

pub(super) fn wrong_urls(request: &Request<'_>) -> Vec<(Diagnosis, String)> {
    let parts = Parts::of(without_fragment(request.url));
    let mut urls = Vec::new();
    let mut add = |diagnosis, parts: Parts<'_>| urls.push((diagnosis, parts.to_text()));
    let scheme = if parts.scheme.eq_ignore_ascii_case("https") {
        "http"
    } else {
        "https"
    };
    add(Diagnosis::OtherScheme, Parts { scheme, ..parts });
    if let Some(host) = request.other_host {
        // With its port, if it has one.
        add(
            Diagnosis::OtherHost,
            Parts {
                host,
                port: None,
                ..parts
            },
        );
    }
    let lower_case = parts.host.to_lowercase();
    add(
        Diagnosis::HostInLowerCase,
        Parts {
            host: &lower_case,
            ..parts
        },
    );
    add(Diagnosis::PortLeftOut, Parts { port: None, ..parts });
    let slashed = format!("{}/", parts.path);
    add(
        Diagnosis::TrailingSlashAdded,
        Parts {
            path: &slashed,
            ..parts
        },
    );
    if let Some(path) = parts.path.strip_suffix('/') {
        add(Diagnosis::TrailingSlashRemoved, Parts { path, ..parts });
    }
    add(Diagnosis::QueryLeftOut, Parts { query: None, ..parts });
    let decoded = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8_lossy()
            .into_owned()
    };
    let (path, query) = (decoded(parts.path), parts.query.map(decoded));
    add(
        Diagnosis::UrlPercentDecoded,
        Parts {
            path: &path,
            query: query.as_deref(),
            ..parts
        },
    );
    let right = parts.to_text();
    urls.retain(|(_, url)| *url != right);
    urls
}

/// What the mistakes in reading, choosing and ordering the fields would have put behind the URL.
pub(super) fn wrong_bodies(request: &Request<'_>) -> Vec<(Diagnosis, Vec<u8>)> {
    let mut bodies = match request.payload {
        Payload::Form(params) => wrong_fields(params),
        Payload::Raw(_) | Payload::None => Vec::new(),
    };
    if let Some(raw) = request.raw_body {
        bodies.extend(wrong_decodings(raw));
    }
    let query = Parts::of(without_fragment(request.url)).query;
    if let (Some(query), Payload::Form(params)) = (query, request.payload) {
        let query = form_urlencoded::parse(query.as_bytes()).into_owned();
        let all: Vec<(String, String)> = params.iter().cloned().chain(query).collect();
        bodies.push((Diagnosis::QuerySignedTwice, signed_fields(&all)));
    }
    if let (Some(query), Payload::None) = (query, request.payload) {
        let query: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        bodies.push((Diagnosis::QuerySignedTwice, signed_fields(&query)));
    }
    let right = match request.payload {
        Payload::Form(params) => signed_fields(params),
        Payload::Raw(_) | Payload::None => Vec::new(),
    };
    bodies.retain(|(_, fields)| *fields != right);
    bodies
}

fn wrong_fields(params: &[(String, String)]) -> Vec<(Diagnosis, Vec<u8>)> {
    let with_values = |change: fn(&str) -> Cow<'_, str>| {
        let changed: Vec<(String, String)> = params
            .iter()
            .map(|(key, value)| (key.clone(), change(value).into_owned()))
            .collect();
        signed_fields(&changed)
    };
    let arrived: Vec<(&str, &str)> = params
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let sorted_by = |compare: fn(&(&str, &str), &(&str, &str)) -> Ordering| {
        let mut pairs = arrived.clone();
        pairs.sort_by(compare);
        concat(&pairs)
    };
    let filled: Vec<(String, String)> = params
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .cloned()
        .collect();
    let reversed: Vec<(&str, &str)> = arrived.iter().rev().copied().collect();
    vec![
        (Diagnosis::ValuesTrimmed, with_values(|value| value.trim().into())),
        (Diagnosis::BlankFieldsDropped, signed_fields(&filled)),
        (Diagnosis::OnlyFirstOfRepeated, one_of_each_key(&arrived)),
        (Diagnosis::OnlyLastOfRepeated, one_of_each_key(&reversed)),
        (Diagnosis::RepeatedJoinedByCommas, joined_by_commas(&arrived)),
        (
            Diagnosis::RepeatedInOrderOfArrival,
            sorted_by(|one, other| one.0.cmp(other.0)),
        ),
        (
            Diagnosis::ExactRepeatsKept,
            sorted_by(|one, other| one.cmp(other)),
        ),
        (Diagnosis::SortedAsJoinedTexts, sorted_as_joined_texts(&arrived)),
        (
            Diagnosis::SortedIgnoringCase,
            sorted_by(|one, other| one.0.to_lowercase().cmp(&other.0.to_lowercase())),
        ),
        (Diagnosis::FieldsNotSorted, concat(&arrived)),
        (
            Diagnosis::LineEndsToLf,
            with_values(|value| value.replace("\r\n", "\n").into()),
        ),
        (
            Diagnosis::LineEndsToCrLf,
            with_values(|value| value.replace("\r\n", "\n").replace('\n', "\r\n").into()),
        ),
        (Diagnosis::BodyLeftOut, Vec::new()),
    ]
}

fn sorted_as_joined_texts(pairs: &[(&str, &str)]) -> Vec<u8> {
    let texts: BTreeSet<String> = pairs.iter().map(|(key, value)| format!("{key}{value}")).collect();
    texts.into_iter().collect::<String>().into_bytes()
}

fn one_of_each_key(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut seen = BTreeSet::new();
    let mut kept: Vec<(&str, &str)> = pairs
        .iter()
        .filter(|(key, _)| seen.insert(*key))
        .copied()
        .collect();
    kept.sort_unstable();
    concat(&kept)
}

fn joined_by_commas(pairs: &[(&str, &str)]) -> Vec<u8> {
    let keys: BTreeSet<&str> = pairs.iter().map(|(key, _)| *key).collect();
    let mut text = Vec::new();
    for key in keys {
        let values: Vec<&str> = pairs
            .iter()
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| *value)
            .collect();
        text.extend_from_slice(key.as_bytes());
        text.extend_from_slice(values.join(",").as_bytes());
    }
    text
}

fn wrong_decodings(raw: &[u8]) -> Vec<(Diagnosis, Vec<u8>)> {
    let text = String::from_utf8_lossy(raw);
    let encoded: Vec<(String, String)> = text
        .split('&')
        .filter(|piece| !piece.is_empty())
        .map(|piece| piece.split_once('=').unwrap_or((piece, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let with_plus: Vec<(String, String)> = form_urlencoded::parse(text.replace('+', "%2B").as_bytes())
        .into_owned()
        .collect();
    vec![
        (Diagnosis::ValuesStillEncoded, signed_fields(&encoded)),
        (Diagnosis::PlusNotASpace, signed_fields(&with_plus)),
        (Diagnosis::BodyAppendedAsItIs, raw.to_vec()),
    ]
}
