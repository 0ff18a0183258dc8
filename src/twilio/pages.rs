//! Lists that come in pages.
//!
//! Twilio says where the next page is; we go there only if it is the place that we were told to trust, because our
//! credentials come along.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use url::Url;

use super::{Client, Error, from_json};

/// The most pages that are followed from one start, against a list that leads in a circle.
pub const MAX_PAGES: usize = 1000;

/// A list, page by page. Nothing is fetched until it is asked for.
#[derive(Debug)]
pub struct Pages<T> {
    client: Client,
    template: &'static str,
    /// The key of the answer that holds the rows.
    key: &'static str,
    next: Option<Url>,
    pages_left: usize,
    rows: PhantomData<fn() -> T>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    next_page_url: Option<String>,
}

impl<T: DeserializeOwned> Pages<T> {
    pub(super) fn new(client: &Client, template: &'static str, key: &'static str, first: Url) -> Self {
        Self {
            client: client.clone(),
            template,
            key,
            next: Some(first),
            pages_left: MAX_PAGES,
            rows: PhantomData,
        }
    }

    /// The next page's rows; `None` after the last page. A page that could not be read can be asked for again.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, Error> {
        let Some(url) = self.next.clone() else {
            return Ok(None);
        };
        if self.pages_left == 0 {
            return Err(malformed("it has more pages than can be"));
        }
        let page: BTreeMap<String, Box<RawValue>> = self.client.read(self.template, url).await?;
        let rows = rows_of(&page, self.key)?;
        self.next = self.next_of(&page)?;
        self.pages_left -= 1;
        Ok(Some(rows))
    }

    /// All rows of all pages.
    pub async fn all(self) -> Result<Vec<T>, Error> {
        self.first(usize::MAX).await
    }

    /// The first `limit` rows, with no more pages than they take.
    pub async fn first(mut self, limit: usize) -> Result<Vec<T>, Error> {
        let mut rows = Vec::new();
        while rows.len() < limit {
            let Some(page) = self.next().await? else { break };
            rows.extend(page);
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// Where the next page is, to go on from in another process; `None` at the end.
    pub fn position(&self) -> Option<&str> {
        self.next.as_ref().map(Url::as_str)
    }

    /// Goes on from a [`Pages::position`] that was kept.
    pub fn resume(mut self, position: &str) -> Result<Self, Error> {
        self.next = Some(trusted(position, &self.client)?);
        Ok(self)
    }

    fn next_of(&self, page: &BTreeMap<String, Box<RawValue>>) -> Result<Option<Url>, Error> {
        let meta = page
            .get("meta")
            .ok_or_else(|| malformed("it is a page without `meta`"))?;
        let meta: Meta = from_json(meta.get().as_bytes()).map_err(|reason| Error::Malformed { reason })?;
        meta.next_page_url
            .map(|url| trusted(&url, &self.client))
            .transpose()
    }
}

fn rows_of<T: DeserializeOwned>(page: &BTreeMap<String, Box<RawValue>>, key: &str) -> Result<Vec<T>, Error> {
    let rows = page
        .get(key)
        .ok_or_else(|| malformed(&format!("it is a page without `{key}`")))?;
    from_json(rows.get().as_bytes()).map_err(|reason| Error::Malformed { reason })
}

fn trusted(text: &str, client: &Client) -> Result<Url, Error> {
    let base = &client.settings().base_url;
    let Ok(url) = Url::parse(text) else {
        return Err(malformed("the next page is no URL"));
    };
    let same_place = url.scheme() == base.scheme()
        && url.host() == base.host()
        && url.port_or_known_default() == base.port_or_known_default()
        && url.username().is_empty()
        && url.password().is_none();
    if same_place {
        Ok(url)
    } else {
        Err(malformed(
            "the next page is at another place than the configured one",
        ))
    }
}

fn malformed(reason: &str) -> Error {
    Error::Malformed {
        reason: reason.to_owned(),
    }
}
