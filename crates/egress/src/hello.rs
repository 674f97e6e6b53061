//! The first message of TLS, read only as far as the name that it asks for.
//!
//! Pure. Invariant: a message that two readers could take for two names is refused.

/// What the first bytes of a client are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// Not enough to tell.
    More,
    /// A whole greeting of TLS.
    Tls(Hello),
    /// A request of HTTP.
    Http,
    /// Anything else.
    Other,
    /// TLS as no honest client begins it.
    Odd(&'static str),
}

/// A greeting of TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// The name that it asks for.
    pub name: Option<String>,
    /// Whether it may ask for another one that is hidden (encrypted client hello).
    pub is_hidden: bool,
}

/// Most bytes of a greeting.
pub const MOST: usize = 32 << 10;
/// Longest method of HTTP that is looked for.
const METHOD: usize = 24;

/// Looks at what a client has sent so far.
#[must_use]
pub fn first(bytes: &[u8]) -> First {
    match bytes.first() {
        None => First::More,
        Some(22) => tls(bytes),
        Some(_) => http(bytes),
    }
}

/// A method in capitals and a space; servers skip empty lines before it.
fn http(bytes: &[u8]) -> First {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let rest = bytes.get(start..).unwrap_or_default();
    let word = rest.iter().take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'-').count();
    // By the same bounds whether the rest has come already or not, or what it is would hang on how it was cut.
    let may_be = word < METHOD && start < METHOD;
    match rest.get(word) {
        Some(b' ' | b'\t') if word > 0 && may_be => First::Http,
        None if may_be => First::More,
        _ => First::Other,
    }
}

/// Puts the greeting together from its records, which may split it anywhere.
fn tls(bytes: &[u8]) -> First {
    let mut message: Vec<u8> = Vec::new();
    let mut rest = bytes;
    loop {
        if let Some(len) = length(message.get(1..4)) {
            if message.first() != Some(&1) {
                return First::Odd("its first message is no greeting");
            }
            if len + 4 > MOST {
                return First::Odd("its greeting is too long");
            }
            if let Some(body) = message.get(4..4 + len) {
                return hello(body).map_or(First::Odd("its greeting is malformed"), |found| found);
            }
        }
        let Some(head) = rest.get(..5) else { return First::More };
        let len = length(head.get(3..5)).unwrap_or(0);
        if head.first() != Some(&22) || head.get(1) != Some(&3) || len == 0 || len > 1 << 14 {
            return First::Odd("its records are malformed");
        }
        let Some(body) = rest.get(5..5 + len) else { return First::More };
        message.extend_from_slice(body);
        rest = rest.get(5 + len..).unwrap_or_default();
    }
}

fn length(bytes: Option<&[u8]>) -> Option<usize> {
    Some(bytes?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

/// Takes a vector with a length of `size` bytes off the front.
fn vector<'a>(bytes: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let len = length(bytes.get(..size))?;
    let found = bytes.get(size..size + len)?;
    *bytes = bytes.get(size + len..)?;
    Some(found)
}

fn hello(body: &[u8]) -> Option<First> {
    // Version and random.
    let mut rest = body.get(34..)?;
    vector(&mut rest, 1)?;
    vector(&mut rest, 2)?;
    vector(&mut rest, 1)?;
    if rest.is_empty() {
        return Some(First::Tls(Hello::default()));
    }
    let mut extensions = vector(&mut rest, 2)?;
    if !rest.is_empty() {
        return None;
    }
    let (mut found, mut names) = (Hello::default(), 0);
    while !extensions.is_empty() {
        let kind = length(extensions.get(..2))?;
        extensions = extensions.get(2..)?;
        let value = vector(&mut extensions, 2)?;
        match kind {
            0 => {
                names += 1;
                found.name = Some(server_name(value)?);
            }
            0xfe0d => found.is_hidden = true,
            _ => {}
        }
    }
    Some(if names > 1 { First::Odd("it asks for two names") } else { First::Tls(found) })
}

/// The one name of the extension.
fn server_name(mut value: &[u8]) -> Option<String> {
    let mut list = vector(&mut value, 2)?;
    let kind = *list.first()?;
    list = list.get(1..)?;
    let name = vector(&mut list, 2)?;
    if kind != 0 || !list.is_empty() || !value.is_empty() {
        return None;
    }
    String::from_utf8(name.to_vec()).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn with_len(size: usize, bytes: &[u8]) -> Vec<u8> {
        let len = bytes.len().to_be_bytes();
        [&len[8 - size..], bytes].concat()
    }

    /// The greeting of a client that asks for these names, cut into records of at most `cut` bytes.
    pub fn greeting(names: &[&str], hidden: bool, cut: usize) -> Vec<u8> {
        let mut extensions = Vec::new();
        for name in names {
            let entry = [vec![0], with_len(2, name.as_bytes())].concat();
            extensions.extend([vec![0, 0], with_len(2, &with_len(2, &entry))].concat());
        }
        if hidden {
            extensions.extend([vec![0xfe, 0x0d], with_len(2, b"x")].concat());
        }
        let body =
            [vec![3, 3], vec![7; 32], with_len(1, &[]), with_len(2, &[0x13, 1]), with_len(1, &[0]), with_len(2, &extensions)].concat();
        let message = [vec![1], with_len(3, &body)].concat();
        message.chunks(cut).flat_map(|part| [vec![22, 3, 1], with_len(2, part)].concat()).collect()
    }

    #[test]
    fn the_name_is_found_however_it_is_cut() {
        let wanted = First::Tls(Hello { name: Some("example.com".into()), is_hidden: false });
        for cut in [1, 7, 50, 4096] {
            let bytes = greeting(&["example.com"], false, cut);
            assert_eq!(first(&bytes), wanted);
            for end in 0..bytes.len() {
                assert_eq!(first(&bytes[..end]), First::More, "{cut} {end}");
            }
        }
        assert_eq!(first(&greeting(&[], true, 99)), First::Tls(Hello { name: None, is_hidden: true }));
        assert_eq!(first(&greeting(&["a", "b"], false, 99)), First::Odd("it asks for two names"));
    }

    #[test]
    fn what_is_no_greeting_is_told_apart() {
        for (bytes, wanted) in [
            (&b"GET / HTTP/1.1\r\n"[..], First::Http),
            (b"\r\nget / HTTP/1.1", First::Http),
            (b"GE", First::More),
            (b"AMETHODOFTWENTYFOURSIGNS", First::Other),
            (b"AMETHODOFTWENTYFOURSIGNS /", First::Other),
            (b"\r\n", First::More),
            (b"SSH-2.0-x\r\n", First::Other),
            (b"*1\r\n", First::Other),
            (b"\0\0\0\x08", First::Other),
            (b"\x16\x03\x01\x00\x00", First::Odd("its records are malformed")),
            (b"\x16\x05\x01\x00\x01x", First::Odd("its records are malformed")),
            (b"\x16\x03\x01\x00\x04\x02\0\0\0", First::Odd("its first message is no greeting")),
            (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", First::Odd("its greeting is too long")),
            (b"\x16\x03\x01\x00\x05\x01\0\0\x01x", First::Odd("its greeting is malformed")),
        ] {
            assert_eq!(first(bytes), wanted, "{bytes:?}");
        }
    }
}
