//! What media a group text can carry, judged before anything is sent. Pure.
//!
//! Twilio's limits for messages to handsets ("Conversations Limits"): these types, less than 5 MB, one with a message.
//! What is refused later, it drops without a word, or a carrier does.

/// How many media go with one message: Twilio's REST API takes one.
pub const MEDIA_MAX: usize = 1;

/// The bytes of all media of a message together, at most: less than 5 MB, however one counts.
pub const MEDIA_BYTES_MAX: usize = 4_999_999;

/// The name of a file has so many characters at most.
pub const FILENAME_MAX: usize = 128;

/// All types, as a refusal names them.
pub const TYPES: &str = "image/jpeg, image/png, audio/mpeg, audio/amr, video/mp4 or application/pdf";

/// A type that handsets are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    Jpeg,
    Png,
    Mp3,
    Amr,
    Mp4,
    Pdf,
}

impl MediaType {
    pub const ALL: [Self; 6] = [Self::Jpeg, Self::Png, Self::Mp3, Self::Amr, Self::Mp4, Self::Pdf];

    /// As Twilio is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Mp3 => "audio/mpeg",
            Self::Amr => "audio/amr",
            Self::Mp4 => "video/mp4",
            Self::Pdf => "application/pdf",
        }
    }

    /// Of a `Content-Type`, whatever its parameters are.
    pub fn of(header: &str) -> Option<Self> {
        let essence = header.split(';').next().unwrap_or_default().trim();
        let known = Self::ALL
            .into_iter()
            .find(|one| one.as_str().eq_ignore_ascii_case(essence));
        let other_names = [("image/jpg", Self::Jpeg), ("audio/mp3", Self::Mp3)];
        known.or_else(|| {
            other_names
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(essence))
                .map(|(_, kind)| kind)
        })
    }

    /// Whether bytes begin as those of this type do. An error page under a picture's name is found by it, before a
    /// client's handset shows a broken one.
    pub fn begins(self, bytes: &[u8]) -> bool {
        match self {
            Self::Jpeg => bytes.starts_with(&[0xff, 0xd8, 0xff]),
            Self::Png => bytes.starts_with(b"\x89PNG\r\n\x1a\n"),
            // A tag, or a frame at once.
            Self::Mp3 => {
                bytes.starts_with(b"ID3") || matches!(bytes, [0xff, second, ..] if second & 0xe0 == 0xe0)
            }
            Self::Amr => bytes.starts_with(b"#!AMR"),
            Self::Mp4 => bytes.get(4..8) == Some(b"ftyp"),
            // Readers take up to a kilobyte before it.
            Self::Pdf => bytes
                .get(..bytes.len().min(1024))
                .is_some_and(|head| head.windows(5).any(|part| part == b"%PDF-")),
        }
    }
}

/// The name of a file in a `Content-Disposition`: `None` where it gives none.
pub fn filename(header: &str) -> Result<Option<String>, &'static str> {
    const EXPECTED: &str = "expected something like attachment; filename=\"plan.pdf\", the name of 1 to 128 characters without / and \\";
    let mut plain = None;
    let mut extended = None;
    for part in parts(header).skip(1) {
        let Some((name, value)) = part.split_once('=') else {
            return Err(EXPECTED);
        };
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "filename" => plain = Some(unquoted(value).ok_or(EXPECTED)?),
            "filename*" => extended = Some(decoded(value).ok_or(EXPECTED)?),
            _ => {}
        }
    }
    let Some(name) = extended.or(plain) else {
        return Ok(None);
    };
    let length = name.chars().count();
    let is_a_name = (1..=FILENAME_MAX).contains(&length)
        && !name.contains(['/', '\\'])
        && !name.contains(char::is_control)
        && !name.trim().is_empty();
    if is_a_name { Ok(Some(name)) } else { Err(EXPECTED) }
}

/// Split at semicolons that stand in no quotes.
fn parts(header: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    header.split(move |c: char| {
        if escaped {
            escaped = false;
            return false;
        }
        match c {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == ';' && !quoted
    })
}

fn unquoted(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else {
        return Some(value.to_owned());
    };
    let mut chars = inner.strip_suffix('"')?.chars();
    let mut text = String::new();
    while let Some(c) = chars.next() {
        text.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(text)
}

/// `UTF-8''plan%20b.pdf`, as RFC 8187 has it.
fn decoded(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_known_by_its_names_whatever_its_parameters() {
        assert_eq!(MediaType::of("image/JPEG; q=1"), Some(MediaType::Jpeg));
        assert_eq!(MediaType::of(" image/jpg"), Some(MediaType::Jpeg));
        for kind in MediaType::ALL {
            assert_eq!(MediaType::of(kind.as_str()), Some(kind));
            assert!(TYPES.contains(kind.as_str()));
        }
        for other in ["", "image/gif", "image/svg+xml", "text/html", "image"] {
            assert_eq!(MediaType::of(other), None, "{other}");
        }
    }

    #[test]
    fn bytes_begin_as_their_type_does() {
        let right: [(MediaType, &[u8]); 7] = [
            (MediaType::Jpeg, b"\xff\xd8\xff\xe0...."),
            (MediaType::Png, b"\x89PNG\r\n\x1a\n...."),
            (MediaType::Mp3, b"ID3\x04"),
            (MediaType::Mp3, b"\xff\xfb\x90"),
            (MediaType::Amr, b"#!AMR\n"),
            (MediaType::Mp4, b"\0\0\0\x18ftypmp42"),
            (MediaType::Pdf, b"\xef\xbb\xbf%PDF-1.7"),
        ];
        for (kind, bytes) in right {
            assert!(kind.begins(bytes), "{kind:?}");
            assert!(!kind.begins(b"<!doctype html>"), "{kind:?}");
            assert!(!kind.begins(b""), "{kind:?}");
        }
        assert!(!MediaType::Png.begins(b"\xff\xd8\xff\xe0"));
    }

    #[test]
    fn a_name_is_read_in_both_forms() {
        let name = |header: &str| filename(header).unwrap();
        assert_eq!(name("attachment"), None);
        assert_eq!(name("attachment; filename=plan.pdf").as_deref(), Some("plan.pdf"));
        assert_eq!(
            name("inline; filename=\"a;b \\\"c\\\".pdf\"").as_deref(),
            Some("a;b \"c\".pdf")
        );
        let both = "attachment; filename=\"x.pdf\"; filename*=UTF-8''%C3%BCber%20uns.pdf";
        assert_eq!(name(both).as_deref(), Some("über uns.pdf"));
        for wrong in [
            "attachment; filename=\"\"",
            "attachment; filename=../x",
            "attachment; filename=\"a\\",
            "attachment; filename*=latin1''x",
            "attachment; filename*=UTF-8''%ff",
            "attachment; plan.pdf",
        ] {
            assert!(filename(wrong).is_err(), "{wrong}");
        }
        assert!(filename(&format!("attachment; filename={}", "x".repeat(129))).is_err());
    }
}
