//! Reading a request: extractors that refuse with a [`Problem`], never with axum's plain text.
//!
//! What the members of a request mean is read in [`crate::web::field`]; here are the forms that they come in.

use std::fmt::Write as _;

use axum::body::{Body, Bytes};
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::web::field::{pointer, without_values};
use crate::web::problem::{FieldError, Problem};

/// A JSON body may have so many bytes.
pub const BODY_LIMIT: usize = 64 * 1024;

/// A file of CSV may have so many.
pub const CSV_LIMIT: usize = 1024 * 1024;

const JSON: &str = "application/json";
const CSV: &str = "text/csv";

/// A JSON body, with the bytes it was read from.
#[derive(Debug)]
pub struct Json<T> {
    pub value: T,
    pub raw: Bytes,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        expect_type(&parts.headers, JSON)?;
        let raw = read(body, BODY_LIMIT).await?;
        let value = parse(&raw)?;
        Ok(Self { value, raw })
    }
}

/// The bytes of a CSV file; what they say is read elsewhere.
#[derive(Debug)]
pub struct Csv(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Csv {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        expect_type(&parts.headers, CSV)?;
        Ok(Self(read(body, CSV_LIMIT).await?))
    }
}

fn expect_type(headers: &HeaderMap, expected: &'static str) -> Result<(), Problem> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = media_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    if essence.trim().eq_ignore_ascii_case(expected) {
        Ok(())
    } else {
        Err(Problem::UnsupportedMediaType { expected })
    }
}

/// A body of at most so many bytes, read as it comes.
pub async fn read_body(body: Body, limit_bytes: usize) -> Result<Bytes, Problem> {
    read(body, limit_bytes).await
}

async fn read(body: Body, limit_bytes: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, limit_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::TooLarge { limit_bytes }),
        Err(_) => Err(Problem::RequestTimeout),
    }
}

fn parse<T: DeserializeOwned>(raw: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(raw);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        if error.inner().is_data() {
            wrong_member(pointer(error.path()), &error.inner().to_string())
        } else {
            not_json(error.inner())
        }
    })?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    Problem::Malformed {
        detail: format!("the body is not JSON: see line {line}, column {column}"),
    }
}

/// A member that no field took: one that we do not know, or that comes twice.
fn wrong_member(mut place: String, message: &str) -> Problem {
    let message = without_values(message);
    let code = match message.split('`').next() {
        Some("unknown field ") => "unknown",
        Some("duplicate field ") => "duplicate",
        _ => "malformed",
    };
    // The path may end at the object or at the member.
    if let (true, Some(name)) = (code != "malformed", message.split('`').nth(1))
        && !place.ends_with(&format!("/{name}"))
    {
        write!(place, "/{name}").expect("writing to a string succeeds");
    }
    Problem::Invalid {
        errors: vec![FieldError::new(place, code, message)],
    }
}

/// The parameters of a query. Each at most once; unknown ones are refused.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        read_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let mut parameters = Map::new();
    for piece in query.split('&').filter(|piece| !piece.is_empty()) {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        if parameters.insert(name.clone(), Value::String(value)).is_some() {
            let error = FieldError::new(name, "duplicate", "expected at most once");
            return Err(Problem::Invalid { errors: vec![error] });
        }
    }
    serde_path_to_error::deserialize(Value::Object(parameters)).map_err(|error| {
        let problem = wrong_member(pointer(error.path()), &error.inner().to_string());
        without_slash(problem)
    })
}

fn decode(text: &str) -> Result<String, Problem> {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Problem::Malformed {
            detail: "the query is not UTF-8".to_owned(),
        })
}

/// Parameters are named, not pointed at.
fn without_slash(problem: Problem) -> Problem {
    match problem {
        Problem::Invalid { mut errors } => {
            for error in &mut errors {
                error.field = error.field.trim_start_matches('/').to_owned();
            }
            Problem::Invalid { errors }
        }
        other => other,
    }
}

/// The parameter of a path.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(wrong_path(&rejection, parts.extensions.get())),
        }
    }
}

fn wrong_path(rejection: &PathRejection, matched: Option<&MatchedPath>) -> Problem {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
        return Problem::Internal;
    };
    let template = matched.map_or("", MatchedPath::as_str);
    let (field, message) = match failed.kind() {
        ErrorKind::Message(message) => (first_parameter(template), without_values(message)),
        ErrorKind::DeserializeError { key, message, .. } => (key.as_str(), without_values(message)),
        ErrorKind::InvalidUtf8InPathParam { key } => (key.as_str(), "expected UTF-8".to_owned()),
        ErrorKind::ParseErrorAtKey {
            key, expected_type, ..
        } => (key.as_str(), format!("expected a {expected_type}")),
        _ => (first_parameter(template), "expected something else".to_owned()),
    };
    Problem::Invalid {
        errors: vec![FieldError::new(field, "malformed", message)],
    }
}

/// Where only one parameter is read, axum does not name it.
fn first_parameter(template: &str) -> &str {
    let name = template
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(name, _)| name);
    name.unwrap_or("path")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::web::field::Field;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        name: Field<String>,
    }

    fn field_of(problem: Problem) -> (String, String) {
        let Problem::Invalid { errors } = problem else {
            panic!("expected wrong members, got {problem:?}");
        };
        (errors[0].field.clone(), errors[0].code.clone())
    }

    #[test]
    fn an_unknown_or_repeated_member_is_named() {
        let read = |text: &str| field_of(parse::<Sample>(text.as_bytes()).unwrap_err());
        assert_eq!(
            read(r#"{"name": "a", "nam": "b"}"#),
            ("/nam".into(), "unknown".into())
        );
        assert_eq!(
            read(r#"{"name": "a", "name": "b"}"#),
            ("/name".into(), "duplicate".into())
        );
        let query = |text: &str| field_of(read_query::<Sample>(text).unwrap_err());
        assert_eq!(query("name=a&nam=b"), ("nam".into(), "unknown".into()));
        assert_eq!(query("name=a&name=b"), ("name".into(), "duplicate".into()));
    }

    #[test]
    fn what_is_no_json_is_told_by_its_place() {
        for wrong in ["", "{", "{}x", "\u{feff}{}", r#"{"name": "\ud800"}"#] {
            let problem = parse::<Sample>(wrong.as_bytes()).unwrap_err();
            assert!(
                matches!(problem, Problem::Malformed { .. }),
                "{wrong}: {problem:?}"
            );
        }
        assert!(matches!(
            parse::<Sample>(b"{\"name\": \"\xff\"}"),
            Err(Problem::Malformed { .. })
        ));
        let deep = "[".repeat(100_000);
        assert!(parse::<Sample>(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_query_is_decoded_strictly() {
        let name = |query: &str| match read_query::<Sample>(query).unwrap().name {
            Field::Given(name) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(name("name=%2B1+5"), "+1 5");
        assert_eq!(name("name"), "");
        assert!(matches!(
            read_query::<Sample>("name=%ff"),
            Err(Problem::Malformed { .. })
        ));
    }
}
