//! The spellings of one URL that Twilio may have signed.
//!
//! Twilio is not of one mind about what of a URL it signs: it has signed group-text webhooks with `:443` although none
//! was configured, strips credentials for some products, and re-encodes an apostrophe. The URL is cut as text; what is
//! not cut is kept to the byte.

use std::borrow::Cow;
use std::fmt;

/// How a spelling differs from the URL as configured; all four may come together.
#[expect(
    clippy::struct_excessive_bools,
    reason = "four changes that are made or not, each by itself"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// The scheme's default port was added, or taken away.
    pub default_port_toggled: bool,
    /// `user:password@` was taken away.
    pub without_userinfo: bool,
    /// `'` in the query was written `%27`.
    pub apostrophes_encoded: bool,
    /// The query was sorted by key.
    pub query_sorted: bool,
}

impl Candidate {
    /// The URL as configured.
    pub const AS_CONFIGURED: Self = Self {
        default_port_toggled: false,
        without_userinfo: false,
        apostrophes_encoded: false,
        query_sorted: false,
    };

    pub fn is_as_configured(self) -> bool {
        self == Self::AS_CONFIGURED
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.default_port_toggled, "default port added or removed"),
            (self.without_userinfo, "without user:password@"),
            (self.apostrophes_encoded, "' in the query as %27"),
            (self.query_sorted, "query sorted by key"),
        ];
        let said: Vec<&str> = parts
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, text)| *text)
            .collect();
        if said.is_empty() {
            return f.write_str("URL as configured");
        }
        write!(f, "URL with: {}", said.join(", "))
    }
}

/// All spellings of `url` that differ, the likeliest first; each is made only when it is asked for.
pub fn of(url: &str) -> impl Iterator<Item = (Candidate, Cow<'_, str>)> {
    let url = without_fragment(url);
    let parts = Parts::of(url);
    let first = (Candidate::AS_CONFIGURED, Cow::Borrowed(url));
    let others = (1_u8..16).filter_map(move |bits| {
        let candidate = Candidate {
            default_port_toggled: bits & 1 != 0,
            without_userinfo: bits & 2 != 0,
            apostrophes_encoded: bits & 4 != 0,
            query_sorted: bits & 8 != 0,
        };
        Some((candidate, Cow::Owned(parts.spell(candidate)?)))
    });
    std::iter::once(first).chain(others)
}

/// A fragment stays with the client (at Twilio it holds connection settings), so it is never signed.
pub fn without_fragment(url: &str) -> &str {
    url.split_once('#').map_or(url, |(before, _)| before)
}

/// A URL cut at its joints: `scheme://userinfo@host_and_port rest?query`, the delimiters left out.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) scheme: &'a str,
    pub(super) userinfo: Option<&'a str>,
    pub(super) host: &'a str,
    pub(super) port: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(url: &'a str) -> Self {
        let (scheme, after) = url.split_once("://").unwrap_or(("", url));
        let authority_ends = after.find(['/', '?']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(authority_ends);
        let (userinfo, host_and_port) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        // The colons of an IPv6 address stand before its bracket.
        let (host, port) = match host_and_port.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (host_and_port, None),
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        Self {
            scheme,
            userinfo,
            host,
            port,
            path,
            query,
        }
    }

    /// `None` where one of the changes would change nothing, so that no spelling is tried twice.
    fn spell(self, candidate: Candidate) -> Option<String> {
        let mut parts = self;
        if candidate.default_port_toggled {
            parts = parts.with_default_port_toggled()?;
        }
        if candidate.without_userinfo {
            self.userinfo?;
            parts.userinfo = None;
        }
        let encoded;
        if candidate.apostrophes_encoded {
            encoded = encoded_apostrophes(parts.query?)?;
            parts.query = Some(&encoded);
        }
        let sorted;
        if candidate.query_sorted {
            sorted = sorted_by_key(parts.query?)?;
            parts.query = Some(&sorted);
        }
        Some(parts.to_text())
    }

    fn with_default_port_toggled(self) -> Option<Self> {
        let default = if self.scheme.eq_ignore_ascii_case("https") {
            "443"
        } else if self.scheme.eq_ignore_ascii_case("http") {
            "80"
        } else {
            return None;
        };
        let port = match self.port {
            None => Some(default),
            Some(port) if port == default => None,
            Some(_) => return None,
        };
        Some(Self { port, ..self })
    }

    pub(super) fn to_text(self) -> String {
        let mut text = String::new();
        if !self.scheme.is_empty() {
            text.extend([self.scheme, "://"]);
        }
        if let Some(userinfo) = self.userinfo {
            text.extend([userinfo, "@"]);
        }
        text.push_str(self.host);
        if let Some(port) = self.port {
            text.extend([":", port]);
        }
        text.push_str(self.path);
        if let Some(query) = self.query {
            text.extend(["?", query]);
        }
        text
    }
}

fn encoded_apostrophes(query: &str) -> Option<String> {
    query.contains('\'').then(|| query.replace('\'', "%27"))
}

fn sorted_by_key(query: &str) -> Option<String> {
    let mut fields: Vec<&str> = query.split('&').collect();
    let key = |field: &&str| field.split('=').next().unwrap_or_default().to_owned();
    if fields.is_sorted_by_key(key) {
        return None;
    }
    fields.sort_by_key(key);
    Some(fields.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spellings(url: &str) -> Vec<String> {
        of(url).map(|(_, url)| url.into_owned()).collect()
    }

    #[test]
    fn a_plain_url_is_tried_as_it_is_then_with_the_default_port() {
        assert_eq!(
            spellings("https://hooks.example.com/a?x=1"),
            [
                "https://hooks.example.com/a?x=1",
                "https://hooks.example.com:443/a?x=1"
            ]
        );
        assert_eq!(
            spellings("HTTP://hooks.example.com:80"),
            ["HTTP://hooks.example.com:80", "HTTP://hooks.example.com"]
        );
    }

    #[test]
    fn another_port_and_another_scheme_have_no_second_spelling() {
        for url in [
            "https://hooks.example.com:8443/a",
            "https://hooks.example.com:80/a",
            "ftp://hooks.example.com/a",
            "hooks.example.com/a",
        ] {
            assert_eq!(spellings(url), [url]);
        }
    }

    #[test]
    fn credentials_are_kept_first_and_dropped_after() {
        assert_eq!(
            spellings("https://us@er:pass@hooks.example.com:443/a@b"),
            [
                "https://us@er:pass@hooks.example.com:443/a@b",
                "https://us@er:pass@hooks.example.com/a@b",
                "https://hooks.example.com:443/a@b",
                "https://hooks.example.com/a@b",
            ]
        );
    }

    #[test]
    fn an_at_sign_or_a_colon_behind_the_authority_is_no_credential_and_no_port() {
        assert_eq!(
            spellings("https://hooks.example.com?to=a@b:80"),
            [
                "https://hooks.example.com?to=a@b:80",
                "https://hooks.example.com:443?to=a@b:80"
            ]
        );
    }

    #[test]
    fn the_brackets_of_ipv6_hide_its_colons() {
        assert_eq!(
            spellings("https://[::1]/a"),
            ["https://[::1]/a", "https://[::1]:443/a"]
        );
        assert_eq!(spellings("http://[::1]:80"), ["http://[::1]:80", "http://[::1]"]);
    }

    #[test]
    fn all_changes_combine_and_none_is_spelled_twice() {
        let all = spellings("https://user@hooks.example.com/it's?b=it's&a=1#rc=3");
        assert_eq!(all.len(), 16);
        assert_eq!(all[0], "https://user@hooks.example.com/it's?b=it's&a=1");
        assert_eq!(all[15], "https://hooks.example.com:443/it's?a=1&b=it%27s");
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), 16);
    }

    #[test]
    fn sorting_the_query_keeps_the_order_of_equal_keys() {
        assert_eq!(
            sorted_by_key("b=2&a=2&b=1&a=1").as_deref(),
            Some("a=2&a=1&b=2&b=1")
        );
        assert_eq!(sorted_by_key("a=2&a=1&b"), None);
    }
}
