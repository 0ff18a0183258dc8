//! One request, read as Twilio reads it: path, form or query, and the headers that mean something.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::ids::ServiceSid;
use crate::sandbox::faults::RequestFaults;
use crate::sandbox::model::refusal::{INVALID_PARAMETER, MEDIA_TYPE, NOT_FOUND, PAYLOAD_TOO_LARGE, Refusal};
use crate::sandbox::model::{Account, Cause, Dates};
use crate::sandbox::world::World;

const BODY_BYTES_MAX: usize = 256 * 1024;
const FIELDS_MAX: usize = 1000;

pub(crate) struct Call {
    /// The service in the path, or the account's default service.
    pub(crate) service: ServiceSid,
    pub(crate) urls: Urls,
    /// The parameters of a POST.
    pub(crate) form: Fields,
    pub(crate) query: Fields,
    pub(crate) faults: RequestFaults,
    segments: HashMap<String, String>,
    told: bool,
}

/// The addresses of resources, in the form of path that the request used.
#[derive(Clone)]
pub(crate) struct Urls {
    /// `http://host/v1`
    pub(crate) root: String,
    /// `http://host/v1/Services/IS…`, or the root.
    pub(crate) base: String,
    /// The path of this request, without its query.
    pub(crate) own: String,
    /// Given where the service is in the path.
    service: Option<ServiceSid>,
}

impl Urls {
    /// Adds what only the service form of a resource shows.
    pub(crate) fn stamp(&self, mut resource: Value) -> Value {
        if let Some(service) = &self.service {
            resource["chat_service_sid"] = Value::from(service.as_str());
        }
        resource
    }
}

/// Form fields in the order of their arrival; a key may come several times.
#[derive(Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Strict: bytes that are no UTF-8 are refused, not replaced.
    fn parse(raw: &str) -> Result<Self, Refusal> {
        let text = |raw: &str| {
            let spaced = raw.replace('+', " ");
            let decoded = percent_decode_str(&spaced)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned);
            decoded.map_err(|_| INVALID_PARAMETER.saying("a parameter is not UTF-8"))
        };
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((text(key)?, text(value)?))
        });
        let fields: Vec<(String, String)> = pairs.collect::<Result<_, Refusal>>()?;
        if fields.len() > FIELDS_MAX {
            return Err(INVALID_PARAMETER.saying("too many parameters"));
        }
        Ok(Self(fields))
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
    }

    /// Every value of a key that may be repeated; none where it is absent.
    pub(crate) fn all(&self, key: &str) -> Option<Vec<String>> {
        let values: Vec<String> = self
            .0
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
            .collect();
        Some(values).filter(|values| !values.is_empty())
    }

    pub(crate) fn dates(&self) -> Dates {
        Dates {
            created: self.get("DateCreated"),
            updated: self.get("DateUpdated"),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }
}

impl Call {
    /// A segment of the path, decoded; routes that do not have it are never asked for it.
    pub(crate) fn segment(&self, name: &str) -> &str {
        self.segments.get(name).map_or("", String::as_str)
    }

    pub(crate) fn conversation(&self) -> &str {
        self.segment("conversation")
    }

    pub(crate) fn cause(&self) -> Cause {
        Cause::rest(self.told)
    }

    /// Whether webhooks may tell of the change, and may be asked before it.
    pub(crate) fn is_told(&self) -> bool {
        self.told
    }

    /// Runs `action` on the account, with the faults that the request asks for.
    pub(crate) fn act<T>(&self, world: &Arc<World>, action: impl FnOnce(&mut Account) -> T) -> T {
        world.act_with(self.faults.webhooks, action)
    }
}

impl FromRequest<Arc<World>> for Call {
    type Rejection = Refusal;

    async fn from_request(request: Request, world: &Arc<World>) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let segments = segments(&mut parts, world).await;
        let in_path = segments
            .get("service")
            .map(|text| ServiceSid::try_from(text.as_str()));
        let in_path = in_path.transpose().map_err(|_| NOT_FOUND.refuse())?;
        let service = world.act(|account| match &in_path {
            Some(sid) => account.service(sid).map(|service| service.sid.clone()),
            None => Ok(account.configuration.service.clone()),
        })?;
        let root = format!("{}/v1", origin(&parts.headers, world));
        let urls = Urls {
            base: in_path
                .as_ref()
                .map_or_else(|| root.clone(), |sid| format!("{root}/Services/{sid}")),
            own: format!("{}{}", root.trim_end_matches("/v1"), parts.uri.path()),
            root,
            service: in_path,
        };
        Ok(Self {
            service,
            urls,
            query: Fields::parse(parts.uri.query().unwrap_or_default())?,
            faults: faults_of(&parts.headers)?,
            told: header_is_true(&parts.headers, "x-twilio-webhook-enabled"),
            form: if parts.method == Method::POST {
                form(&parts.headers, body).await?
            } else {
                Fields::default()
            },
            segments,
        })
    }
}

async fn segments(parts: &mut Parts, world: &Arc<World>) -> HashMap<String, String> {
    use axum::extract::FromRequestParts as _;

    match RawPathParams::from_request_parts(parts, world).await {
        Ok(params) => params
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        // A segment that is not UTF-8 names nothing that exists.
        Err(_) => HashMap::new(),
    }
}

/// Where the caller reached us: behind a container's name or a forwarded port that is not the address listened on.
fn origin(headers: &HeaderMap, world: &World) -> String {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let plain = |host: &&str| {
        !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte))
    };
    host.filter(plain)
        .map_or_else(|| world.base_url.clone(), |host| format!("http://{host}"))
}

pub(crate) fn faults_of(headers: &HeaderMap) -> Result<RequestFaults, Refusal> {
    match headers.get(RequestFaults::HEADER) {
        None => Ok(RequestFaults::default()),
        Some(value) => RequestFaults::parse(value.to_str().unwrap_or("?")),
    }
}

fn header_is_true(headers: &HeaderMap, name: &str) -> bool {
    headers
        .get(name)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

async fn form(headers: &HeaderMap, body: Body) -> Result<Fields, Refusal> {
    let bytes = limited(body, BODY_BYTES_MAX).await?;
    if bytes.is_empty() {
        return Ok(Fields::default());
    }
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(MEDIA_TYPE.refuse());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| INVALID_PARAMETER.saying("the form is not UTF-8"))?;
    Fields::parse(text)
}

/// A body of at most `limit` bytes.
pub(crate) async fn limited(body: Body, limit: usize) -> Result<axum::body::Bytes, Refusal> {
    to_bytes(body, limit)
        .await
        .map_err(|_| PAYLOAD_TOO_LARGE.refuse())
}
