//! Why a signature does not match: the mistakes that receivers make, tried one by one.
//!
//! For a person at a terminal, never for a webhook: what comes near is refused all the same. An explanation names
//! mistakes and never holds a token or the signature that would be right.

use std::fmt;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

use super::{
    Match, Payload, Refusal, body_hashes, candidates, find_match, hex_sha256, is_usable, read_header,
    signed_fields, verify,
};

mod mistakes;

use mistakes::{wrong_bodies, wrong_urls};

/// One request, with what is known of it besides what is signed.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub url: &'a str,
    pub payload: Payload<'a>,
    /// The value of `X-Twilio-Signature`.
    pub header: Option<&'a str>,
    /// The body as it was on the wire, where it is known.
    pub raw_body: Option<&'a [u8]>,
    /// Another host that the request may have been sent to, such as its `Host` header.
    pub other_host: Option<&'a str>,
}

/// The verdict, and for a refusal what would have matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub verdict: Result<Match, Refusal>,
    /// Each entry is a set of mistakes that together explain the signature.
    pub near: Vec<Vec<Diagnosis>>,
}

/// A mistake, of the receiver or of whoever signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Diagnosis {
    OtherScheme,
    OtherHost,
    HostInLowerCase,
    PortLeftOut,
    TrailingSlashAdded,
    TrailingSlashRemoved,
    QueryLeftOut,
    UrlPercentDecoded,

    ValuesTrimmed,
    BlankFieldsDropped,
    OnlyFirstOfRepeated,
    OnlyLastOfRepeated,
    RepeatedJoinedByCommas,
    RepeatedInOrderOfArrival,
    ExactRepeatsKept,
    SortedAsJoinedTexts,
    SortedIgnoringCase,
    FieldsNotSorted,
    ValuesStillEncoded,
    PlusNotASpace,
    LineEndsToLf,
    LineEndsToCrLf,
    BodyLeftOut,
    BodyAppendedAsItIs,
    QuerySignedTwice,

    UrlSignedWithoutBodyHash,
    UrlSignedForAnotherBody,
    BodyHashInUpperCase,
    BodyHashOfTrimmedBody,

    SignatureWithWhiteSpace,
    SignatureInHex,
    SignatureInUrlSafeBase64,
    SignedBySha256,
}

impl Diagnosis {
    fn describe(self) -> &'static str {
        match self {
            Self::OtherScheme => "the URL was signed with the other scheme (http or https)",
            Self::OtherHost => "the URL was signed with the host of the request's Host header",
            Self::HostInLowerCase => "the URL was signed with its host in lower case",
            Self::PortLeftOut => "the URL was signed without its port",
            Self::TrailingSlashAdded => "the URL was signed with a slash at the end of its path",
            Self::TrailingSlashRemoved => "the URL was signed without the slash at the end of its path",
            Self::QueryLeftOut => "the URL was signed without its query",
            Self::UrlPercentDecoded => "the URL was signed with its percent-encoding decoded",
            Self::ValuesTrimmed => "the values were signed without the white space around them",
            Self::BlankFieldsDropped => "fields with a blank value were not signed",
            Self::OnlyFirstOfRepeated => "only the first value of a repeated key was signed",
            Self::OnlyLastOfRepeated => "only the last value of a repeated key was signed",
            Self::RepeatedJoinedByCommas => "the values of a repeated key were joined by commas",
            Self::RepeatedInOrderOfArrival => {
                "the values of a repeated key were signed in the order of arrival"
            }
            Self::ExactRepeatsKept => "exact repeats of a field were signed each time",
            Self::SortedAsJoinedTexts => "the fields were sorted as texts `key+value`, not by key",
            Self::SortedIgnoringCase => "the keys were sorted without regard to case",
            Self::FieldsNotSorted => "the fields were signed in the order of arrival",
            Self::ValuesStillEncoded => "the fields were signed as they are encoded in the body",
            Self::PlusNotASpace => "`+` in the body was not decoded to a space",
            Self::LineEndsToLf => "line ends CR LF were signed as LF",
            Self::LineEndsToCrLf => "line ends LF were signed as CR LF",
            Self::BodyLeftOut => "the URL alone was signed, not the fields of the body",
            Self::BodyAppendedAsItIs => "the body was signed as it is, not as the fields of a form",
            Self::QuerySignedTwice => "the fields of the query were signed behind the URL, too",
            Self::UrlSignedWithoutBodyHash => {
                "the signature fits the URL, but without bodySHA256 the body is not covered: is it a form?"
            }
            Self::UrlSignedForAnotherBody => {
                "the signature fits the URL, but its bodySHA256 is of another body"
            }
            Self::BodyHashInUpperCase => "bodySHA256 is in upper case",
            Self::BodyHashOfTrimmedBody => "bodySHA256 is of the body without the white space around it",
            Self::SignatureWithWhiteSpace => "the signature has white space or quotes around it",
            Self::SignatureInHex => "the signature is in hexadecimal, not in base64",
            Self::SignatureInUrlSafeBase64 => "the signature is in URL-safe base64",
            Self::SignedBySha256 => "the signature is an HMAC-SHA256, not an HMAC-SHA1",
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

/// Judges a request as [`verify`] does and, where it is refused, looks for what would have matched.
///
/// Every mistake is tried alone; only where none explains the signature, a mistake in the URL together with one in the
/// body.
pub fn explain(tokens: &[SecretString], request: &Request<'_>) -> Explanation {
    let verdict = verify(tokens, request.url, request.payload, request.header);
    let near = match verdict {
        Ok(_) | Err(Refusal::MissingHeader | Refusal::NoToken) => Vec::new(),
        Err(Refusal::MalformedHeader) => misspelled_signatures(tokens, request),
        Err(Refusal::MissingBodyHash | Refusal::BodyHashMismatch) => body_hash_mistakes(tokens, request),
        Err(Refusal::NoMatch) => content_mistakes(tokens, request),
    };
    Explanation { verdict, near }
}

fn misspelled_signatures(tokens: &[SecretString], request: &Request<'_>) -> Vec<Vec<Diagnosis>> {
    let header = request.header.unwrap_or_default();
    let stripped = header.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
    let url_safe = BASE64_URL_SAFE
        .decode(stripped)
        .or_else(|_| BASE64_URL_SAFE_NO_PAD.decode(stripped));
    let readings = [
        (Diagnosis::SignatureWithWhiteSpace, Some(stripped.to_owned())),
        (
            Diagnosis::SignatureInHex,
            hex::decode(stripped)
                .ok()
                .map(|bytes| BASE64_STANDARD.encode(bytes)),
        ),
        (
            Diagnosis::SignatureInUrlSafeBase64,
            url_safe.ok().map(|bytes| BASE64_STANDARD.encode(bytes)),
        ),
    ];
    let mut near: Vec<Vec<Diagnosis>> = readings
        .into_iter()
        .filter(|(_, reading)| verify(tokens, request.url, request.payload, reading.as_deref()).is_ok())
        .map(|(diagnosis, _)| vec![diagnosis])
        .collect();
    if is_signed_by_sha256(tokens, request, stripped) {
        near.push(vec![Diagnosis::SignedBySha256]);
    }
    near
}

fn is_signed_by_sha256(tokens: &[SecretString], request: &Request<'_>, header: &str) -> bool {
    let Ok(presented) = BASE64_STANDARD.decode(header) else {
        return false;
    };
    let fields = match request.payload {
        Payload::Form(params) => signed_fields(params),
        Payload::Raw(_) | Payload::None => Vec::new(),
    };
    candidates::of(request.url).any(|(_, url)| {
        tokens.iter().filter(|token| is_usable(token)).any(|token| {
            let mut mac = Hmac::<Sha256>::new_from_slice(token.expose_secret().as_bytes())
                .expect("HMAC takes keys of any length");
            mac.update(url.as_bytes());
            mac.update(&fields);
            mac.verify_slice(&presented).is_ok()
        })
    })
}

fn body_hash_mistakes(tokens: &[SecretString], request: &Request<'_>) -> Vec<Vec<Diagnosis>> {
    let (Ok(presented), Payload::Raw(body)) = (read_header(request.header), request.payload) else {
        return Vec::new();
    };
    if find_match(tokens, request.url, &[], &presented).is_none() {
        return content_mistakes(tokens, request);
    }
    let stated: Vec<&str> = body_hashes(request.url).collect();
    let is_stated = |hash: &str| stated.contains(&hash);
    let diagnosis = if stated.is_empty() {
        Diagnosis::UrlSignedWithoutBodyHash
    } else if is_stated(&hex_sha256(body).to_uppercase()) {
        Diagnosis::BodyHashInUpperCase
    } else if is_stated(&hex_sha256(body.trim_ascii())) {
        Diagnosis::BodyHashOfTrimmedBody
    } else {
        Diagnosis::UrlSignedForAnotherBody
    };
    vec![vec![diagnosis]]
}

fn content_mistakes(tokens: &[SecretString], request: &Request<'_>) -> Vec<Vec<Diagnosis>> {
    let Ok(presented) = read_header(request.header) else {
        return Vec::new();
    };
    let right_fields = match request.payload {
        Payload::Form(params) => signed_fields(params),
        Payload::Raw(_) | Payload::None => Vec::new(),
    };
    let matches = |url: &str, fields: &[u8]| find_match(tokens, url, fields, &presented).is_some();
    let urls = wrong_urls(request);
    let bodies = wrong_bodies(request);
    let url_alone = urls
        .iter()
        .filter(|(_, url)| matches(url, &right_fields))
        .map(|(mistake, _)| vec![*mistake]);
    let body_alone = bodies
        .iter()
        .filter(|(_, fields)| matches(request.url, fields))
        .map(|(mistake, _)| vec![*mistake]);
    let alone: Vec<Vec<Diagnosis>> = url_alone.chain(body_alone).collect();
    if !alone.is_empty() {
        return alone;
    }
    let mut both = Vec::new();
    for (in_url, url) in &urls {
        for (in_body, fields) in &bodies {
            if matches(url, fields) {
                both.push(vec![*in_url, *in_body]);
            }
        }
    }
    both
}

#[cfg(test)]
mod tests;
