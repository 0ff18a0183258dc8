use super::super::{mac_of, sign, url_with_body_hash};
use super::*;
use crate::twilio::form::Form;

const URL: &str = "https://Hooks.example.com:8443/a%20b?x=1";
const TOKEN: &str = "12345";
const BODY: &str = "b=+two+&B=&a=1&c=line%0Aend&a=2&ab=3&a=1&c=%E2%82%AC";

fn signature(url: &str, suffix: &[u8]) -> String {
    BASE64_STANDARD.encode(mac_of(TOKEN, url, suffix).finalize().into_bytes())
}

fn near(url: &str, signature: &str) -> Vec<Vec<Diagnosis>> {
    let form = Form::parse(BODY.as_bytes()).unwrap();
    let explanation = explain(
        &[TOKEN.into()],
        &Request {
            url,
            payload: Payload::Form(form.fields()),
            header: Some(signature),
            raw_body: Some(BODY.as_bytes()),
            other_host: Some("inside.example.com:8080"),
        },
    );
    assert!(explanation.verdict.is_err());
    explanation.near
}

fn right_suffix() -> Vec<u8> {
    signed_fields(Form::parse(BODY.as_bytes()).unwrap().fields())
}

#[test]
fn a_mistake_in_the_url_is_named() {
    for (signed, diagnosis) in [
        ("http://Hooks.example.com:8443/a%20b?x=1", Diagnosis::OtherScheme),
        ("https://inside.example.com:8080/a%20b?x=1", Diagnosis::OtherHost),
        (
            "https://hooks.example.com:8443/a%20b?x=1",
            Diagnosis::HostInLowerCase,
        ),
        ("https://Hooks.example.com/a%20b?x=1", Diagnosis::PortLeftOut),
        (
            "https://Hooks.example.com:8443/a%20b/?x=1",
            Diagnosis::TrailingSlashAdded,
        ),
        ("https://Hooks.example.com:8443/a%20b", Diagnosis::QueryLeftOut),
        (
            "https://Hooks.example.com:8443/a b?x=1",
            Diagnosis::UrlPercentDecoded,
        ),
    ] {
        let found = near(URL, &signature(signed, &right_suffix()));
        assert_eq!(found, [[diagnosis]], "{signed}");
    }
    let found = near(
        "https://a.example.com/b/",
        &signature("https://a.example.com/b", &right_suffix()),
    );
    assert_eq!(found, [[Diagnosis::TrailingSlashRemoved]]);
}

#[test]
fn a_mistake_in_the_fields_is_named() {
    for (signed, diagnosis) in [
        ("Ba1a2ab3btwocline\nendc€", Diagnosis::ValuesTrimmed),
        ("a1a2ab3b two cline\nendc€", Diagnosis::BlankFieldsDropped),
        ("Ba1ab3b two cline\nend", Diagnosis::OnlyFirstOfRepeated),
        ("Ba1,2,1ab3b two cline\nend,€", Diagnosis::RepeatedJoinedByCommas),
        ("Ba1a1a2ab3b two cline\nendc€", Diagnosis::ExactRepeatsKept),
        (
            "Ba1a2a1ab3b two cline\nendc€",
            Diagnosis::RepeatedInOrderOfArrival,
        ),
        ("b two Ba1cline\nenda2ab3a1c€", Diagnosis::FieldsNotSorted),
        ("a1a2a1ab3b two Bcline\nendc€", Diagnosis::SortedIgnoringCase),
        ("Ba1a2ab3b+two+cline\nendc€", Diagnosis::PlusNotASpace),
        ("Ba1a2ab3b two cline\r\nendc€", Diagnosis::LineEndsToCrLf),
        (
            "Ba1a2ab3b+two+c%E2%82%ACcline%0Aend",
            Diagnosis::ValuesStillEncoded,
        ),
        ("", Diagnosis::BodyLeftOut),
        (BODY, Diagnosis::BodyAppendedAsItIs),
        ("Ba1a2ab3b two cline\nendc€x1", Diagnosis::QuerySignedTwice),
    ] {
        let found = near(URL, &signature(URL, signed.as_bytes()));
        assert_eq!(found, [[diagnosis]], "{signed}");
    }
    // The last `a` is its first as well, so this one is told by `c`.
    let found = near(URL, &signature(URL, "Ba1ab3b two c€".as_bytes()));
    assert_eq!(found, [[Diagnosis::OnlyLastOfRepeated]]);
}

#[test]
fn sorting_joined_texts_is_told_where_one_key_begins_another() {
    let form = Form::parse(b"Reason=Participant&ReasonConferenceEnded=test").unwrap();
    let wrong = signature(
        "https://a.example.com/",
        b"ReasonConferenceEndedtestReasonParticipant",
    );
    let explanation = explain(
        &[TOKEN.into()],
        &Request {
            url: "https://a.example.com/",
            payload: Payload::Form(form.fields()),
            header: Some(&wrong),
            raw_body: None,
            other_host: None,
        },
    );
    assert_eq!(explanation.near, [[Diagnosis::SortedAsJoinedTexts]]);
}

#[test]
fn a_mistake_in_the_url_and_one_in_the_body_are_found_together() {
    let found = near(URL, &signature("http://Hooks.example.com:8443/a%20b?x=1", b""));
    assert_eq!(found, [[Diagnosis::OtherScheme, Diagnosis::BodyLeftOut]]);
}

#[test]
fn a_misspelled_signature_is_named() {
    let right = signature(URL, &right_suffix());
    let bytes = BASE64_STANDARD.decode(&right).unwrap();
    assert_eq!(
        near(URL, &format!(" {right}\n")),
        [[Diagnosis::SignatureWithWhiteSpace]]
    );
    assert_eq!(near(URL, &hex::encode(&bytes)), [[Diagnosis::SignatureInHex]]);
    assert_eq!(
        near(URL, &BASE64_URL_SAFE_NO_PAD.encode(&bytes)),
        [[Diagnosis::SignatureInUrlSafeBase64]]
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(TOKEN.as_bytes()).unwrap();
    mac.update(URL.as_bytes());
    mac.update(&right_suffix());
    let sha256 = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(near(URL, &sha256), [[Diagnosis::SignedBySha256]]);
}

#[test]
fn a_body_that_is_not_the_hashed_one_is_told_apart_from_a_wrong_signature() {
    let near = |url: &str, body: &str, signature: &str| {
        explain(
            &[TOKEN.into()],
            &Request {
                url,
                payload: Payload::Raw(body.as_bytes()),
                header: Some(signature),
                raw_body: Some(body.as_bytes()),
                other_host: None,
            },
        )
        .near
    };
    let plain = "https://a.example.com/b";
    let hashed = url_with_body_hash(plain, b"{}");
    let (before, hash) = hashed.split_once("bodySHA256=").unwrap();
    let upper = format!("{before}bodySHA256={}", hash.to_uppercase());
    let signed = |url: &str| sign(TOKEN, url, &[]);
    assert_eq!(
        near(plain, "{}", &signed(plain)),
        [[Diagnosis::UrlSignedWithoutBodyHash]]
    );
    assert_eq!(
        near(&hashed, "{1}", &signed(&hashed)),
        [[Diagnosis::UrlSignedForAnotherBody]]
    );
    assert_eq!(
        near(&hashed, "{}\n", &signed(&hashed)),
        [[Diagnosis::BodyHashOfTrimmedBody]]
    );
    assert_eq!(
        near(&upper, "{}", &signed(&upper)),
        [[Diagnosis::BodyHashInUpperCase]]
    );
    assert_eq!(
        near(&hashed, "{1}", &signed("https://other.example.com")),
        [[]; 0]
    );
}

#[test]
fn another_token_comes_near_nothing() {
    let found = near(
        URL,
        &sign("54321", URL, Form::parse(BODY.as_bytes()).unwrap().fields()),
    );
    assert_eq!(found, [[]; 0]);
}
