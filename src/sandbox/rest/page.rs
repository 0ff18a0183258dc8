//! Lists, a page at a time: `PageSize`, and tokens that only `next_page_url` and `previous_page_url` make.

use serde_json::{Value, json};

use super::call::Call;
use crate::sandbox::model::refusal::{INVALID_PARAMETER, Refusal};

/// Default and largest page of a resource. More than the largest is cut down to it, as Twilio does.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) default: usize,
    pub(super) max: usize,
}

impl Sizes {
    pub(super) const FIFTY: Self = Self { default: 50, max: 50 };
    pub(super) const HUNDRED: Self = Self {
        default: 50,
        max: 100,
    };
    pub(super) const FIVE: Self = Self { default: 5, max: 5 };
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
}

/// Where a page begins or ends: beside the item of this number, whether or not it is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    After(u64),
    Before(u64),
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        match text.split_at_checked(2)? {
            ("PA", digits) => number(digits).map(Self::After),
            ("PB", digits) => number(digits).map(Self::Before),
            _ => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::After(number) => format!("PA{number:016x}"),
            Self::Before(number) => format!("PB{number:016x}"),
        }
    }
}

/// One page of `items`, which are in `order` of the numbers that come with them.
///
/// A token names an item, not a position: what is added or removed between two pages neither repeats nor skips another.
pub(super) fn page<T>(
    call: &Call,
    key: &str,
    sizes: Sizes,
    order: Order,
    items: &[(u64, T)],
    render: impl Fn(&T) -> Value,
) -> Result<Value, Refusal> {
    let size = page_size(call, sizes)?;
    let number = page_number(call)?;
    let token = match call.query.get("PageToken") {
        None if number > 0 => return Err(INVALID_PARAMETER.saying("Page without its PageToken")),
        None => None,
        Some(text) => {
            Some(Token::parse(&text).ok_or_else(|| INVALID_PARAMETER.saying("PageToken is not valid"))?)
        }
    };
    let (start, end) = bounds(items, order, size, token);
    let shown = &items[start..end];

    let url = |number: u64, token: Option<Token>| page_url(call, size, number, token);
    let next = shown
        .last()
        .filter(|_| end < items.len())
        .map(|(last, _)| url(number.saturating_add(1), Some(Token::After(*last))));
    let previous = shown
        .first()
        .filter(|_| start > 0)
        .map(|(first, _)| url(number.saturating_sub(1), Some(Token::Before(*first))));
    let rendered: Vec<Value> = shown.iter().map(|(_, item)| render(item)).collect();
    Ok(json!({
        "meta": {
            "page": number,
            "page_size": size,
            "first_page_url": url(0, None),
            "previous_page_url": previous,
            "url": url(number, token),
            "next_page_url": next,
            "key": key,
        },
        key: rendered,
    }))
}

fn bounds<T>(items: &[(u64, T)], order: Order, size: usize, token: Option<Token>) -> (usize, usize) {
    let beyond = |number: u64, mark: u64| match order {
        Order::Ascending => number > mark,
        Order::Descending => number < mark,
    };
    match token {
        None => (0, size.min(items.len())),
        Some(Token::After(mark)) => {
            let start = items.partition_point(|(number, _)| !beyond(*number, mark));
            (start, (start + size).min(items.len()))
        }
        Some(Token::Before(mark)) => {
            let end = items.partition_point(|(number, _)| *number != mark && !beyond(*number, mark));
            (end.saturating_sub(size), end)
        }
    }
}

fn page_size(call: &Call, sizes: Sizes) -> Result<usize, Refusal> {
    let Some(text) = call.query.get("PageSize") else {
        return Ok(sizes.default);
    };
    let size: usize = text
        .parse()
        .map_err(|_| INVALID_PARAMETER.saying("PageSize is no number"))?;
    if size == 0 {
        return Err(INVALID_PARAMETER.saying("PageSize must be at least 1"));
    }
    Ok(size.min(sizes.max))
}

fn page_number(call: &Call) -> Result<u64, Refusal> {
    let number = call.query.get("Page").map(|text| text.parse());
    let number = number
        .transpose()
        .map_err(|_| INVALID_PARAMETER.saying("Page is no number"))?;
    Ok(number.unwrap_or(0))
}

fn page_url(call: &Call, size: usize, number: u64, token: Option<Token>) -> String {
    let filters = call
        .query
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "PageSize" | "Page" | "PageToken"));
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in filters {
        query.append_pair(name, value);
    }
    query.append_pair("PageSize", &size.to_string());
    query.append_pair("Page", &number.to_string());
    if let Some(token) = token {
        query.append_pair("PageToken", &token.text());
    }
    format!("{}?{}", call.urls.own, query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(numbers: &[u64], order: Order, token: Token) -> Vec<u64> {
        let items: Vec<(u64, ())> = numbers.iter().map(|&number| (number, ())).collect();
        let (start, end) = bounds(&items, order, 2, Some(token));
        numbers[start..end].to_vec()
    }

    #[test]
    fn a_page_goes_on_beside_its_item_even_if_that_is_gone() {
        assert_eq!(shown(&[1, 2, 4, 5, 6], Order::Ascending, Token::After(3)), [4, 5]);
        assert_eq!(
            shown(&[6, 5, 4, 2, 1], Order::Descending, Token::After(3)),
            [2, 1]
        );
        assert!(shown(&[1, 2, 4, 5, 6], Order::Ascending, Token::After(6)).is_empty());
    }

    #[test]
    fn the_page_before_an_item_ends_there() {
        assert_eq!(
            shown(&[1, 2, 4, 5, 6], Order::Ascending, Token::Before(4)),
            [1, 2]
        );
        assert_eq!(
            shown(&[6, 5, 4, 2, 1], Order::Descending, Token::Before(2)),
            [5, 4]
        );
        assert!(shown(&[1, 2], Order::Ascending, Token::Before(1)).is_empty());
    }

    #[test]
    fn a_token_is_read_back_and_nothing_else_is_one() {
        for token in [Token::After(255), Token::Before(0)] {
            assert_eq!(Token::parse(&token.text()), Some(token));
        }
        for wrong in ["", "P", "PX01", "PAzz", "é1"] {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
    }
}
