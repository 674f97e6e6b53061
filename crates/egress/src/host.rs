//! The one reader of host names and addresses, and what each kind of address is.
//!
//! Pure: no resolver, no sockets. Whatever form a name comes in (HTTP, CONNECT, SOCKS5, SNI, a rule),
//! it passes here and is compared in one canonical form. Invariant: two texts that a resolver could
//! take for the same host never become two different hosts here, and an oddity is refused, not mended.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name in bytes, as in DNS.
const NAME_BYTES: usize = 253;
/// Longest label in bytes, as in DNS.
const LABEL_BYTES: usize = 63;

/// A host in its canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A name: lower case, A-labels, no trailing dot.
    Name(String),
    /// An address; one that only wraps an IPv4 address is that address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Why a text names no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Odd {
    /// Nothing is there.
    #[error("the host is empty")]
    Empty,
    /// More than DNS allows.
    #[error("the host or one of its labels is too long")]
    Long,
    /// A byte that belongs to no host: control, space, `%`, `@`, `/`, `\` and their kind.
    #[error("the host holds a byte that no host may hold")]
    Byte,
    /// Two dots in a row, or one at the start.
    #[error("the host has an empty label")]
    Label,
    /// Not a name that IDNA knows.
    #[error("the host is no valid international name")]
    Idna,
    /// It ends like an address and is none.
    #[error("the host looks like an address and is none")]
    Number,
}

impl Host {
    /// Reads a host as it stands in a URL, a request or a rule; brackets around IPv6 are allowed.
    ///
    /// # Errors
    /// When it is anything but a plain name or address.
    pub fn parse(text: &str) -> Result<Self, Odd> {
        if text.is_empty() {
            return Err(Odd::Empty);
        }
        if text.len() > NAME_BYTES * 4 {
            return Err(Odd::Long);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(Odd::Byte)?;
            return inner.parse::<Ipv6Addr>().map(|address| Self::from(IpAddr::V6(address))).map_err(|_| Odd::Number);
        }
        if text.contains(':') {
            return text.parse::<Ipv6Addr>().map(|address| Self::from(IpAddr::V6(address))).map_err(|_| Odd::Number);
        }
        if text.bytes().any(is_forbidden) {
            return Err(Odd::Byte);
        }
        let name = to_ascii(text)?;
        let name = name.strip_suffix('.').unwrap_or(&name);
        check_labels(name)?;
        match ipv4(name) {
            Some(Ok(address)) => Ok(Self::Address(IpAddr::V4(address))),
            Some(Err(odd)) => Err(odd),
            None => Ok(Self::Name(name.to_owned())),
        }
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self::Address(canonical(address))
    }
}

/// Splits `host:port`; the port may be missing.
///
/// # Errors
/// When the host is odd or the port is no number from 1 to 65535.
pub fn split(text: &str) -> Result<(Host, Option<u16>), Odd> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']').ok_or(Odd::Byte)?;
            let (inner, rest) = rest.split_at(end);
            let rest = rest.strip_prefix(']').unwrap_or(rest);
            let host = inner.parse::<Ipv6Addr>().map_err(|_| Odd::Number)?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(Odd::Byte)?) };
            return Ok((Host::from(IpAddr::V6(host)), port.map(port_of).transpose()?));
        }
        // Without brackets a second colon would leave open where the address ends.
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    Ok((Host::parse(host)?, port.map(port_of).transpose()?))
}

fn port_of(text: &str) -> Result<u16, Odd> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_plain && *port > 0).ok_or(Odd::Number)
}

fn is_forbidden(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f || br##""#%&'()*+,/:;<=>?@[\]^`{|}~!$"##.contains(&byte)
}

fn to_ascii(text: &str) -> Result<String, Odd> {
    if text.is_ascii() {
        return Ok(text.to_ascii_lowercase());
    }
    // UTS 46 folds full-width digits, ideographic dots and their kind, so what comes out is checked
    // again: it may hold bytes that were not there before.
    let name = idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::URL).map_err(|_| Odd::Idna)?;
    if name.is_empty() || name.bytes().any(is_forbidden) { Err(Odd::Byte) } else { Ok(name.into_owned()) }
}

fn check_labels(name: &str) -> Result<(), Odd> {
    if name.is_empty() || name.split('.').any(str::is_empty) {
        return Err(Odd::Label);
    }
    if name.len() > NAME_BYTES || name.split('.').any(|label| label.len() > LABEL_BYTES) {
        return Err(Odd::Long);
    }
    let is_label_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.split('.').all(|label| label.bytes().all(is_label_byte)) {
        return Err(Odd::Byte);
    }
    // An A-label that does not decode would be two names, depending on who reads it.
    let is_international = name.split('.').any(|label| label.starts_with("xn--"));
    let is_whole = || idna::domain_to_ascii(name).is_ok_and(|again| again == name);
    if is_international && !is_whole() { Err(Odd::Idna) } else { Ok(()) }
}

/// An IPv4 address in any form that C libraries take: one to four parts, decimal, octal or
/// hexadecimal. `None` when the last label is no number, and the text therefore is a name.
fn ipv4(name: &str) -> Option<Result<Ipv4Addr, Odd>> {
    let last = name.rsplit('.').next()?;
    let is_hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if !is_hex && !last.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(ipv4_of(name).ok_or(Odd::Number))
}

fn ipv4_of(name: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = name.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    let room = 8 * (4 - u32::try_from(first.len()).ok()?);
    if *last >= 1_u64 << room {
        return None;
    }
    let high = first.iter().enumerate().fold(0_u64, |sum, (at, part)| sum | part << (24 - 8 * at));
    Some(Ipv4Addr::from(u32::try_from(high | last).ok()?))
}

fn number(text: &str) -> Option<u64> {
    // Length bounds the value before it is computed.
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    let (digits, radix) = match text.strip_prefix("0x") {
        Some("") => ("0", 16),
        Some(rest) => (rest, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if digits.starts_with(['+', '-']) { None } else { u64::from_str_radix(digits, radix).ok() }
}

/// The address itself: what wraps an IPv4 address by definition of the form is that address.
#[must_use]
pub fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// IPv4 addresses that a packet to this IPv6 address may end at: translation and tunnels.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let s = address.segments();
    let pair = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match s {
        // Mapped, translated and (deprecated) compatible.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => vec![pair(high, low)],
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => vec![pair(high, low)],
        // NAT64, well known and local.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => vec![pair(high, low)],
        // 6to4.
        [0x2002, high, low, ..] => vec![pair(high, low)],
        // Teredo: the server, and the client with its bits turned.
        [0x2001, 0, a, b, _, _, high, low] => vec![pair(a, b), pair(!high, !low)],
        // ISATAP.
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => vec![pair(high, low)],
        _ => Vec::new(),
    }
}

/// All addresses that a packet to this one may end at: itself, and those that it wraps.
#[must_use]
pub fn ends(address: IpAddr) -> Vec<IpAddr> {
    let inner = match address {
        IpAddr::V6(v6) => embedded(v6),
        IpAddr::V4(_) => Vec::new(),
    };
    std::iter::once(canonical(address)).chain(inner.into_iter().map(IpAddr::V4)).collect()
}

/// What kind of address this is when it is none of the public internet; `None` for a public one.
#[must_use]
pub fn special(address: IpAddr) -> Option<&'static str> {
    match canonical(address) {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => {
            // A wrapping prefix that says nothing of its own; ISATAP's stands below any network's.
            let is_wrapped = matches!(v6.segments(), [0, 0, 0, 0, ..] | [0x64, 0xff9b, 0, ..] | [0x2002, ..] | [0x2001, 0, ..]);
            let inner = embedded(v6);
            let own = if is_wrapped && !inner.is_empty() { None } else { special_v6(v6) };
            inner.iter().find_map(|v4| special_v4(*v4)).or(own)
        }
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, d] = address.octets();
    match (a, b, c, d) {
        (169, 254, 169, 254) | (100, 100, 100, 200) | (192, 0, 0, 192) | (168, 63, 129, 16) => Some("cloud metadata"),
        (0, ..) => Some("unspecified"),
        (127, ..) => Some("loopback"),
        (10, ..) | (192, 168, ..) => Some("private"),
        (172, 16..=31, ..) => Some("private"),
        (100, 64..=127, ..) => Some("shared by a carrier (CGNAT)"),
        (169, 254, ..) => Some("link-local"),
        (192, 0, 0, _) | (192, 88, 99, _) => Some("reserved"),
        (192, 0, 2, _) | (198, 51, 100, _) | (203, 0, 113, _) => Some("for documentation"),
        (198, 18..=19, ..) => Some("for benchmarks"),
        (224..=239, ..) => Some("multicast"),
        (255, 255, 255, 255) => Some("broadcast"),
        (240..=255, ..) => Some("reserved"),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let s = address.segments();
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254] => Some("cloud metadata"),
        [0xfc00..=0xfdff, ..] => Some("private"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xfec0..=0xfeff, ..] => Some("private"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Some("for documentation"),
        [0x2001, 2, 0, ..] => Some("for benchmarks"),
        [0x2001, 0..=0x1ff, ..] => Some("reserved"),
        // Only this part of the space is given out for the internet.
        [0x2000..=0x3fff, ..] => None,
        _ => Some("reserved"),
    }
}

#[cfg(test)]
mod tests;
