use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::twilio::form::Form;

/// One known signature: from the tests of Twilio's helper libraries and its documentation (V…), or of ours (C…).
#[derive(Deserialize)]
struct Vector {
    id: String,
    /// What was signed.
    url: String,
    /// The same URL as a receiver may have it.
    #[serde(default)]
    presented: Vec<String>,
    token: String,
    signature: String,
    /// Exactly one of these three: decoded fields, a form as it is on the wire, any other body.
    params: Option<Vec<(String, String)>>,
    form: Option<String>,
    body: Option<String>,
}

impl Vector {
    fn all() -> Vec<Self> {
        include_str!("../../../tests/fixtures/signature_vectors.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn fields(&self) -> Vec<(String, String)> {
        match (&self.params, &self.form) {
            (Some(params), _) => params.clone(),
            (None, Some(form)) => Form::parse(form.as_bytes()).unwrap().fields().to_vec(),
            (None, None) => Vec::new(),
        }
    }

    fn verify(&self, url: &str, fields: &[(String, String)], token: &str) -> Result<Match, Refusal> {
        let payload = match &self.body {
            Some(body) => Payload::Raw(body.as_bytes()),
            None => Payload::Form(fields),
        };
        verify(&[token.into()], url, payload, Some(&self.signature))
    }
}

fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn flipped(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    format!("{}{rest}", if first == "0" { "1" } else { "0" })
}

#[test]
fn the_table_is_complete() {
    let ids: Vec<String> = Vector::all().into_iter().map(|vector| vector.id).collect();
    let expected: Vec<String> = (1..=40)
        .map(|n| format!("V{n:02}"))
        .chain(["C1", "C2", "C2p", "C3", "C4", "C5"].map(str::to_owned))
        .collect();
    assert_eq!(ids, expected);
}

#[test]
fn every_known_signature_is_made() {
    for vector in Vector::all() {
        let made = sign(&vector.token, &vector.url, &vector.fields());
        assert_eq!(made, vector.signature, "{}", vector.id);
    }
}

#[test]
fn every_known_signature_verifies_over_the_url_that_was_signed() {
    for vector in Vector::all() {
        let found = vector.verify(&vector.url, &vector.fields(), &vector.token);
        assert_eq!(
            found.map(|found| found.candidate),
            Ok(Candidate::AS_CONFIGURED),
            "{}",
            vector.id
        );
    }
}

#[test]
fn every_known_signature_verifies_over_the_url_as_a_receiver_has_it() {
    let mut presented = 0;
    for vector in Vector::all() {
        for url in &vector.presented {
            let found = vector.verify(url, &vector.fields(), &vector.token).unwrap();
            assert!(!found.candidate.is_as_configured(), "{}", vector.id);
            presented += 1;
        }
    }
    assert_eq!(presented, 5);
}

#[test]
fn every_known_signature_verifies_with_the_default_port_toggled() {
    for vector in Vector::all() {
        let toggled = candidates::of(&vector.url)
            .find(|(candidate, _)| candidate.default_port_toggled)
            .map(|(_, url)| url.into_owned());
        let Some(url) = toggled else { continue };
        let found = vector.verify(&url, &vector.fields(), &vector.token).unwrap();
        assert!(found.candidate.default_port_toggled, "{}", vector.id);
    }
}

#[test]
fn one_changed_dropped_or_added_field_is_refused() {
    for vector in Vector::all().iter().filter(|vector| vector.body.is_none()) {
        let fields = vector.fields();
        for at in 0..fields.len() {
            let mut changed = fields.clone();
            changed[at].1.push('x');
            let found = vector.verify(&vector.url, &changed, &vector.token);
            assert_eq!(found, Err(Refusal::NoMatch), "{}", vector.id);

            let mut dropped = fields.clone();
            let gone = dropped.remove(at);
            if !dropped.contains(&gone) {
                let found = vector.verify(&vector.url, &dropped, &vector.token);
                assert_eq!(found, Err(Refusal::NoMatch), "{}", vector.id);
            }
        }
        let mut added = fields;
        added.push(("zzz".to_owned(), String::new()));
        let found = vector.verify(&vector.url, &added, &vector.token);
        assert_eq!(found, Err(Refusal::NoMatch), "{}", vector.id);
    }
}

#[test]
fn another_path_host_scheme_or_token_is_refused() {
    for vector in Vector::all() {
        let fields = vector.fields();
        let (scheme, rest) = vector.url.split_once("://").unwrap();
        let wrong_urls = [
            vector.url.replacen(".com", ".com/x", 1),
            vector.url.replacen(".com", ".org", 1),
            format!("{}://{rest}", if scheme == "https" { "http" } else { "https" }),
            format!("{}&x=1", vector.url),
        ];
        for url in wrong_urls {
            let found = vector.verify(&url, &fields, &vector.token);
            assert_eq!(found, Err(Refusal::NoMatch), "{}: {url}", vector.id);
        }
        let found = vector.verify(&vector.url, &fields, &flipped(&vector.token));
        assert_eq!(found, Err(Refusal::NoMatch), "{}", vector.id);
    }
}

#[test]
fn a_body_other_than_the_hashed_one_is_refused() {
    for vector in Vector::all().iter().filter(|vector| vector.body.is_some()) {
        let tokens = [vector.token.as_str().into()];
        let judge = |url: &str, body: &str| {
            verify(
                &tokens,
                url,
                Payload::Raw(body.as_bytes()),
                Some(&vector.signature),
            )
        };
        let body = vector.body.as_deref().unwrap();
        assert_eq!(
            judge(&vector.url, &format!("{body} ")),
            Err(Refusal::BodyHashMismatch)
        );
        assert_eq!(judge(&vector.url, ""), Err(Refusal::BodyHashMismatch));

        // A hash that fits another body breaks the signature instead.
        let (before, _) = vector.url.split_once("bodySHA256=").unwrap();
        let forged = url_with_body_hash(before.trim_end_matches(['?', '&']), b"{\"forged\":1}");
        assert_eq!(judge(&forged, "{\"forged\":1}"), Err(Refusal::NoMatch));
    }
}

#[test]
fn the_hash_is_lower_case_stated_and_never_contradicted() {
    let token = "12345";
    let judge = |url: &str| {
        let signature = sign(token, url, &[]);
        verify(&[token.into()], url, Payload::Raw(b"{}"), Some(&signature)).map(|_| ())
    };
    let good = url_with_body_hash("https://hooks.example.com/a", b"{}");
    assert_eq!(judge(&good), Ok(()));
    let (before, hash) = good.split_once("bodySHA256=").unwrap();
    assert_eq!(
        judge(&format!("{before}bodySHA256={}", hash.to_uppercase())),
        Err(Refusal::BodyHashMismatch)
    );
    assert_eq!(
        judge(&format!("{good}&bodySHA256={}", flipped(hash))),
        Err(Refusal::BodyHashMismatch)
    );
    assert_eq!(
        judge("https://hooks.example.com/a?bodySHA256"),
        Err(Refusal::MissingBodyHash)
    );
    assert_eq!(
        judge("https://hooks.example.com/a?BodySHA256=1"),
        Err(Refusal::MissingBodyHash)
    );
    assert_eq!(
        judge(&format!(
            "https://hooks.example.com/a#?{}",
            &good[good.find("body").unwrap()..]
        )),
        Err(Refusal::MissingBodyHash)
    );
}

#[test]
fn a_body_that_is_no_form_needs_the_hash_even_with_a_good_signature_over_the_url() {
    let url = "https://hooks.example.com/a";
    let signature = sign("12345", url, &[]);
    let tokens = ["12345".into()];
    assert_eq!(
        verify(&tokens, url, Payload::Raw(b"{}"), Some(&signature)),
        Err(Refusal::MissingBodyHash)
    );
    assert!(verify(&tokens, url, Payload::None, Some(&signature)).is_ok());
}

#[test]
fn a_signature_of_a_get_request_does_not_cover_a_form() {
    let url = "https://hooks.example.com/a?x=1";
    let signature = sign("12345", url, &[]);
    let form = pairs(&[("x", "1")]);
    assert_eq!(
        verify(&["12345".into()], url, Payload::Form(&form), Some(&signature)),
        Err(Refusal::NoMatch)
    );
}

#[test]
fn keys_are_sorted_not_the_joined_texts() {
    // V16: what sorting the joined texts `Reason…` and `ReasonConferenceEnded…` gives.
    let vector = Vector::all()
        .into_iter()
        .find(|vector| vector.id == "V16")
        .unwrap();
    let found = verify(
        &[vector.token.as_str().into()],
        &vector.url,
        Payload::Form(&vector.fields()),
        Some("95+Bu0JVPi0r/SsESZCVf0dWAjw="),
    );
    assert_eq!(found, Err(Refusal::NoMatch));
}

#[test]
fn a_missing_empty_short_long_or_foreign_header_is_refused_by_its_form() {
    let url = "https://hooks.example.com/a";
    let good = sign("12345", url, &[]);
    let judge = |header: Option<&str>| verify(&["12345".into()], url, Payload::None, header).map(|_| ());
    assert_eq!(judge(Some(&good)), Ok(()));
    assert_eq!(judge(None), Err(Refusal::MissingHeader));
    assert_eq!(judge(Some("")), Err(Refusal::MissingHeader));
    for length in 1..good.len() {
        assert_eq!(
            judge(Some(&good[..length])),
            Err(Refusal::MalformedHeader),
            "{length}"
        );
    }
    let malformed = [
        format!("{good} "),
        format!("{good}{good}"),
        good.replace('=', "A"),
        format!("{}==", &good[..26]),
        "A".repeat(100_000),
        "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄ".to_owned(),
    ];
    for header in malformed {
        assert_eq!(judge(Some(&header)), Err(Refusal::MalformedHeader));
    }
}

#[test]
fn without_a_usable_token_everything_is_refused() {
    let url = "https://hooks.example.com/a";
    let signature = sign("", url, &[]);
    for tokens in [vec![], vec!["".into()], vec!["".into(), "".into()]] {
        assert_eq!(
            verify(&tokens, url, Payload::None, Some(&signature)),
            Err(Refusal::NoToken)
        );
    }
    assert_eq!(
        verify(&["".into(), "12345".into()], url, Payload::None, Some(&signature)),
        Err(Refusal::NoMatch)
    );
}

#[test]
fn the_token_that_signed_is_named_during_a_rotation() {
    let url = "https://hooks.example.com/a";
    let tokens = ["".into(), "new".into(), "old".into()];
    let index = |token: &str| {
        verify(&tokens, url, Payload::None, Some(&sign(token, url, &[]))).map(|found| found.token_index)
    };
    assert_eq!(index("new"), Ok(1));
    assert_eq!(index("old"), Ok(2));
    assert_eq!(index("older"), Err(Refusal::NoMatch));
}

#[test]
fn the_fragment_is_neither_signed_nor_needed() {
    let signature = sign("12345", "https://hooks.example.com/a#rc=3&rp=all", &[]);
    assert_eq!(signature, sign("12345", "https://hooks.example.com/a", &[]));
}

proptest! {
    #[test]
    fn what_is_signed_verifies_in_any_order_and_doubled(
        mut fields in prop::collection::vec(("[A-Za-z.]{0,4}", ".{0,4}"), 0..8),
        seed in any::<prop::sample::Index>(),
    ) {
        let url = "https://hooks.example.com/a";
        let signature = sign("12345", url, &fields);
        if !fields.is_empty() {
            let at = seed.index(fields.len());
            fields.rotate_left(at);
            let doubled = fields[0].clone();
            fields.push(doubled);
        }
        prop_assert!(verify(&["12345".into()], url, Payload::Form(&fields), Some(&signature)).is_ok());
    }
}
