//! Credentials at the edge: the command holds a placeholder, the host gets the value.
//!
//! Invariant: a value is put into headers for the host of its own rule only, over TLS, within
//! this machine, or to port 80 where the operator named it, and into nothing that goes to the command.

use crate::rules::{PLACEHOLDER, Rule};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue};
use std::collections::BTreeMap;

/// What a command sees instead of the value of this name.
#[must_use]
pub fn placeholder(name: &str) -> String {
    format!("{PLACEHOLDER}{name}")
}

/// Puts the value of a rule's credential into the headers of a request that the rule allowed; `plain` is
/// the port where it is not sealed.
///
/// # Errors
/// When the value is missing, or can not stand in a header; in words without the value.
pub fn put(headers: &mut HeaderMap, rule: &Rule, values: &BTreeMap<String, String>, plain: Option<u16>) -> Result<(), String> {
    let Some(credential) = &rule.credential else { return Ok(()) };
    if plain.is_some_and(|port| !rule.may_send_plain(port)) {
        return Ok(());
    }
    let name = &credential.name;
    let missing = || format!("the credential {name} has no value: set it where the daemon or its client is started");
    let value = values.get(name).filter(|value| !value.is_empty()).ok_or_else(missing)?;
    let unfit = |_| format!("the value of the credential {name} can not stand in a header");
    let sensitive = |text: &str| {
        let mut value = HeaderValue::from_str(text).map_err(unfit)?;
        value.set_sensitive(true);
        Ok::<_, String>(value)
    };
    if let Some((header, template)) = &credential.header {
        let header = HeaderName::from_bytes(header.as_bytes()).map_err(|_| format!("{header:?} is no header"))?;
        headers.insert(header, sensitive(&template.replace("{}", value))?);
        // The proxy sets this header and no other one: a host writes others into its logs and answers.
        return Ok(());
    }
    let mark = placeholder(name);
    for (header, text) in headers.iter_mut().filter(|(header, _)| may_hold_secrets(header)) {
        let Ok(old) = text.to_str() else { continue };
        let new = if header == AUTHORIZATION { basic(old, &mark, value) } else { None };
        let new = new.or_else(|| old.contains(&mark).then(|| replaced(old, &mark, value)));
        if let Some(new) = new {
            *text = sensitive(&new)?;
        }
    }
    Ok(())
}

/// Whether a header is one in which hosts expect a credential. Others are shown by hosts, and by what stands
/// before them, to more people.
fn may_hold_secrets(header: &HeaderName) -> bool {
    *header == COOKIE || ["auth", "key", "token", "secret"].iter().any(|word| header.as_str().contains(word))
}

/// A placeholder within `Basic`, which hides it in Base64.
fn basic(text: &str, mark: &str, value: &str) -> Option<String> {
    let (scheme, rest) = text.split_once(' ')?;
    let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    (scheme.eq_ignore_ascii_case("basic") && pair.contains(mark))
        .then(|| format!("Basic {}", STANDARD.encode(replaced(&pair, mark, value))))
}

/// Replaces the placeholder where its name ends: `…-A` stands at the beginning of `…-AB`, too.
fn replaced(text: &str, mark: &str, value: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(mark) {
        let is_longer = after.starts_with(|sign: char| sign.is_ascii_alphanumeric() || sign == '_');
        out.push_str(before);
        out.push_str(if is_longer { mark } else { value });
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Egress, HostEntry};
    use crate::rules::Allowlist;

    fn sent(entry: HostEntry, header: (&'static str, &str), is_sealed: bool) -> String {
        let entry_port = entry.ports.first().copied().unwrap_or(80);
        let list = Allowlist::compile(&Egress { host: vec![entry], presets: Vec::new() }).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header.0, HeaderValue::from_str(header.1).unwrap());
        let values = BTreeMap::from([("KEY".to_owned(), "true-value".to_owned())]);
        match put(&mut headers, &list.rules()[0], &values, (!is_sealed).then_some(entry_port)) {
            Ok(()) => headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect::<Vec<_>>().join(" | "),
            Err(why) => why,
        }
    }

    #[test]
    fn placeholders_become_values_for_their_host() {
        let entry = |header: Option<&str>| HostEntry {
            name: "a.example".into(),
            credential: Some("KEY".into()),
            header: header.map(str::to_owned),
            ..HostEntry::default()
        };
        let marked = format!("Bearer {}", placeholder("KEY"));
        assert_eq!(sent(entry(None), ("authorization", &marked), true), "authorization: Bearer true-value");
        assert_eq!(sent(entry(None), ("authorization", &marked), false), format!("authorization: {marked}"));
        let longer = format!("{}S", placeholder("KEY"));
        assert_eq!(sent(entry(None), ("x-key", &longer), true), format!("x-key: {longer}"));
        let basic = format!("Basic {}", STANDARD.encode(format!("me:{}", placeholder("KEY"))));
        assert_eq!(
            sent(entry(None), ("authorization", &basic), true),
            format!("authorization: Basic {}", STANDARD.encode("me:true-value"))
        );
        assert_eq!(sent(entry(Some("X-Key: k {}")), ("a", "b"), true), "a: b | x-key: k true-value");
        // Where the proxy sets a header, and in headers that hold no credentials, the placeholder stays one.
        for header in ["authorization", "cookie", "x-api-token", "user-agent"] {
            assert_eq!(sent(entry(Some("X-Key: k {}")), (header, &marked), true), format!("{header}: {marked} | x-key: k true-value"));
        }
        for (header, is_put) in [
            ("proxy-authorization", true),
            ("cookie", true),
            ("x-api-key", true),
            ("private-token", true),
            ("x-client-secret", true),
            ("user-agent", false),
            ("referer", false),
            ("x-request-id", false),
            ("accept", false),
        ] {
            let value = if is_put { "Bearer true-value" } else { marked.as_str() };
            assert_eq!(sent(entry(None), (header, &marked), true), format!("{header}: {value}"));
        }
        let named = HostEntry { ports: vec![80], ..entry(None) };
        assert_eq!(sent(named, ("authorization", &marked), false), "authorization: Bearer true-value");
        let odd = HostEntry { ports: vec![8443], ..entry(None) };
        assert_eq!(sent(odd, ("authorization", &marked), false), format!("authorization: {marked}"));
        let here = HostEntry { name: "127.0.0.2".into(), ports: vec![8443], ..entry(None) };
        assert_eq!(sent(here, ("authorization", &marked), false), "authorization: Bearer true-value");
        let other = HostEntry { credential: Some("OTHER".into()), ..entry(None) };
        assert!(sent(other, ("a", "b"), true).contains("has no value"));
    }
}
