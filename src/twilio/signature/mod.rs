//! Twilio's request signature: made and verified, pure.
//!
//! `X-Twilio-Signature = base64(HMAC-SHA1(auth token, URL ‖ key ‖ value ‖ key ‖ value …))` (Twilio: Security). The URL
//! is taken as text and never goes through a parser that would normalise it, because its spelling is what was signed.
//! [`candidates`] lists the spellings that Twilio may have signed; [`explain`] is for a person who looks at a
//! signature that does not match.
//!
//! Building the URL from the configured public address is the caller's; so is refusing a request with two signature
//! headers.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

pub mod candidates;
pub mod explain;

pub use candidates::Candidate;

/// The name of the header, in lower case as HTTP libraries compare it.
pub const HEADER: &str = "x-twilio-signature";

/// The parameter of the query that binds a body that is no form.
pub const BODY_HASH_KEY: &str = "bodySHA256";

/// What came with the request besides its URL, which decides what the signature has to cover.
#[derive(Clone, Copy)]
pub enum Payload<'a> {
    /// A form, decoded: every field is signed.
    Form(&'a [(String, String)]),
    /// Any other body: the URL carries its SHA-256, and the URL is signed.
    Raw(&'a [u8]),
    /// No body, as with GET: the URL alone is signed.
    None,
}

/// How a signature is made.
///
/// Twilio has begun to sign with keys that are shared for the purpose, by HMAC-SHA256. That would be a second variant;
/// until it is seen on the wire and configured, nothing is accepted by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA1 with the account's auth token.
    AuthToken,
}

/// What matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    pub algorithm: Algorithm,
    /// Which of the given tokens signed.
    pub token_index: usize,
    /// Which spelling of the URL was signed.
    pub candidate: Candidate,
}

/// Why a signature is refused. For the log and the counter; the caller of a webhook is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request has no signature")]
    MissingHeader,
    #[error("the signature is not the base64 of 20 bytes")]
    MalformedHeader,
    #[error("there is no token to verify with")]
    NoToken,
    #[error("the body is no form, and the URL has no {BODY_HASH_KEY}")]
    MissingBodyHash,
    #[error("{BODY_HASH_KEY} in the URL is not the SHA-256 of the body")]
    BodyHashMismatch,
    #[error("the signature was not made by any of the tokens over this request")]
    NoMatch,
}

/// The value of `X-Twilio-Signature` for a request to `url` with the form fields `params` (none for GET and JSON).
///
/// `url` is signed as it is spelled, up to its fragment.
pub fn sign(token: &str, url: &str, params: &[(String, String)]) -> String {
    let mac = mac_of(token, candidates::without_fragment(url), &signed_fields(params));
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

/// The URL that Twilio calls and signs when the body is no form: `url` with the body's hash in its query.
pub fn url_with_body_hash(url: &str, body: &[u8]) -> String {
    let url = candidates::without_fragment(url);
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{BODY_HASH_KEY}={}", hex_sha256(body))
}

/// Judges a signature: by every token, over every spelling of the URL that Twilio may have signed.
///
/// The ordinary case, the URL as configured and the first token, costs one HMAC.
pub fn verify(
    tokens: &[SecretString],
    url: &str,
    payload: Payload<'_>,
    header: Option<&str>,
) -> Result<Match, Refusal> {
    let presented = read_header(header)?;
    if !tokens.iter().any(is_usable) {
        return Err(Refusal::NoToken);
    }
    let fields = match payload {
        Payload::Form(params) => signed_fields(params),
        Payload::Raw(body) => {
            check_body_hash(url, body)?;
            Vec::new()
        }
        Payload::None => Vec::new(),
    };
    find_match(tokens, url, &fields, &presented).ok_or(Refusal::NoMatch)
}

fn find_match(tokens: &[SecretString], url: &str, suffix: &[u8], presented: &[u8; 20]) -> Option<Match> {
    for (candidate, url) in candidates::of(url) {
        for (token_index, token) in tokens.iter().enumerate().filter(|(_, token)| is_usable(token)) {
            let mac = mac_of(token.expose_secret(), &url, suffix);
            if mac.verify_slice(presented).is_ok() {
                return Some(Match {
                    algorithm: Algorithm::AuthToken,
                    token_index,
                    candidate,
                });
            }
        }
    }
    None
}

/// An empty token is a setting that was forgotten, and anyone can sign with it.
fn is_usable(token: &SecretString) -> bool {
    !token.expose_secret().is_empty()
}

fn read_header(header: Option<&str>) -> Result<[u8; 20], Refusal> {
    let header = header.ok_or(Refusal::MissingHeader)?;
    if header.is_empty() {
        return Err(Refusal::MissingHeader);
    }
    // 20 bytes are 28 characters: an oversized header is not even decoded.
    if header.len() != 28 {
        return Err(Refusal::MalformedHeader);
    }
    let bytes = BASE64_STANDARD
        .decode(header)
        .map_err(|_| Refusal::MalformedHeader)?;
    bytes.try_into().map_err(|_| Refusal::MalformedHeader)
}

fn check_body_hash(url: &str, body: &[u8]) -> Result<(), Refusal> {
    let expected = hex_sha256(body);
    let mut stated = body_hashes(url).peekable();
    if stated.peek().is_none() {
        return Err(Refusal::MissingBodyHash);
    }
    // Where the hash is stated twice, a library may read the one or the other: both have to hold.
    if stated.all(|hash| bool::from(hash.as_bytes().ct_eq(expected.as_bytes()))) {
        Ok(())
    } else {
        Err(Refusal::BodyHashMismatch)
    }
}

fn body_hashes(url: &str) -> impl Iterator<Item = &str> {
    let (_, query) = candidates::without_fragment(url)
        .split_once('?')
        .unwrap_or_default();
    query
        .split('&')
        .filter_map(|field| field.split_once('='))
        .filter(|(key, _)| *key == BODY_HASH_KEY)
        .map(|(_, hash)| hash)
}

fn hex_sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// What follows the URL: keys in the order of their bytes, under each key its distinct values in order.
///
/// Sorting the pairs sorts the keys first; sorting the texts `key+value` would not, where one key begins another.
fn signed_fields(params: &[(String, String)]) -> Vec<u8> {
    let mut pairs: Vec<(&str, &str)> = params
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    concat(&pairs)
}

fn concat(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut text = Vec::with_capacity(pairs.iter().map(|(key, value)| key.len() + value.len()).sum());
    for (key, value) in pairs {
        text.extend_from_slice(key.as_bytes());
        text.extend_from_slice(value.as_bytes());
    }
    text
}

fn mac_of(token: &str, url: &str, suffix: &[u8]) -> Hmac<Sha1> {
    let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(url.as_bytes());
    mac.update(suffix);
    mac
}

#[cfg(test)]
mod tests;
