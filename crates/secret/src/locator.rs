//! Where people leave passwords: addresses with a user part, and a repository's git configuration.
//!
//! Pure: the caller reads the file. Invariant: what is found is a value that git would send as a
//! credential, never a user's or a host's name alone.

use std::collections::BTreeSet;

/// A user part without a password counts as a token from this length on.
const SHORTEST_TOKEN: usize = 16;

/// The credentials within an address like `https://user:password@host/path`: as it is written there,
/// and as it is sent, where both differ.
#[must_use]
pub fn in_url(address: &str) -> Vec<String> {
    let Some((_, rest)) = address.split_once("://") else { return Vec::new() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, _)) = authority.rsplit_once('@') else { return Vec::new() };
    let secret = match user.split_once(':') {
        Some((name, "" | "x-oauth-basic")) | Some((name, "x-access-token")) => Some(name),
        Some((_, password)) => Some(password),
        None => Some(user),
    };
    let has_password = user.contains(':');
    let Some(secret) = secret.filter(|secret| !secret.is_empty() && (has_password || secret.len() >= SHORTEST_TOKEN)) else {
        return Vec::new();
    };
    let sent = decoded(secret);
    let written = (sent != secret).then(|| secret.to_owned());
    [Some(sent), written].into_iter().flatten().collect()
}

/// The credentials in the text of a git configuration file: user parts of addresses (also of those
/// that stand for others), and the words of extra headers; in the order of the text, each once.
#[must_use]
pub fn in_git_config(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (section, key, value) in entries(text) {
        match key.as_str() {
            // `[url "https://user:password@host/"]`
            "" => found.extend(section.split('"').skip(1).step_by(2).flat_map(in_url)),
            "extraheader" => found.extend(in_header(&value)),
            _ => found.extend(in_url(&value)),
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|value| seen.insert(value.clone()));
    found
}

/// The files that a git configuration includes, on whatever condition, as they are written there.
#[must_use]
pub fn included_in_git_config(text: &str) -> Vec<String> {
    let is_include = |section: &str| {
        let name = section.split_whitespace().next().unwrap_or_default();
        name.eq_ignore_ascii_case("include") || name.eq_ignore_ascii_case("includeif")
    };
    entries(text).into_iter().filter(|(section, key, _)| key == "path" && is_include(section)).map(|(_, _, value)| value).collect()
}

/// Section, key and value of each line, the key in small letters; a line with a section alone, or the
/// beginning of one, gives the section with an empty key.
fn entries(text: &str) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    let mut section = String::new();
    for line in text.replace("\r\n", "\n").replace("\\\n", "").lines() {
        let mut line = line.trim();
        if let Some(begun) = line.strip_prefix('[') {
            // What follows the section on its line is a key of it.
            let end = section_end(begun);
            let (name, rest) = (begun.get(..end).unwrap_or(begun), begun.get(end + 1..).unwrap_or_default());
            name.clone_into(&mut section);
            all.push((section.clone(), String::new(), String::new()));
            line = rest.trim();
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        all.push((section.clone(), key.trim().to_ascii_lowercase(), unquoted(value)));
    }
    all
}

/// Where the name of a section ends: at a bracket that stands in no quotes.
fn section_end(text: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, sign) in text.char_indices() {
        match sign {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ']' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

/// `Authorization: Basic dXNlcjpwYXNz`: the last word, and the password within it.
fn in_header(header: &str) -> Vec<String> {
    use base64::Engine as _;
    let Some((_, value)) = header.split_once(':') else { return Vec::new() };
    let mut words = value.split_whitespace();
    let (scheme, last) = (words.next().unwrap_or_default(), words.last());
    let credential = last.unwrap_or(scheme);
    let mut found = vec![credential.to_owned()];
    if scheme.eq_ignore_ascii_case("basic")
        && let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(credential)
        && let Ok(pair) = String::from_utf8(bytes)
        && let Some((_, password)) = pair.split_once(':')
    {
        found.push(password.to_owned());
    }
    found.retain(|word| !word.is_empty());
    found
}

/// A value as git reads it: without quotes and comment.
fn unquoted(value: &str) -> String {
    let (mut out, mut quoted, mut escaped) = (String::new(), false, false);
    for sign in value.trim().chars() {
        match sign {
            _ if escaped => {
                out.push(sign);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            '#' | ';' if !quoted => break,
            other => out.push(other),
        }
    }
    out.trim_end().to_owned()
}

/// Per cent signs taken as bytes; a text that is none stays as it is.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let byte = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = byte.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_addresses_are_found_and_names_are_not() {
        let cases: [(&str, &[&str]); 9] = [
            ("https://me:hunter2-hunter2@host/x", &["hunter2-hunter2"]),
            ("https://me:p%40ss%2Fword@host:8443/x", &["p@ss/word", "p%40ss%2Fword"]),
            ("https://ghp_0123456789abcdef@github.com/a/b", &["ghp_0123456789abcdef"]),
            ("https://0123456789abcdefghij:x-oauth-basic@github.com/a/b", &["0123456789abcdefghij"]),
            ("https://me@host/x", &[]),
            ("ssh://git@host/x", &[]),
            ("git@host:a/b", &[]),
            ("https://host/@x:y", &[]),
            ("https://host/x?u=me:pw@y", &[]),
        ];
        for (address, expected) in cases {
            assert_eq!(in_url(address), expected, "{address}");
        }
    }

    #[test]
    fn a_git_configuration_gives_its_credentials() {
        let text = "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://me:canary-one@host/x.git ; comment\n\
                    \tpushurl = \"https://me:canary-two@host/x.git\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n\
                    [url \"https://me:canary-three@host/\"]\n\tinsteadOf = https://host/\n\
                    [http \"https://host/\"]\n\textraheader = AUTHORIZATION: basic eDpjYW5hcnktZm91cg==\n\
                    [http]\n\tproxy = http://me:canary-five@proxy:3128\n\textraHeader = \"X-Token: canary-six\"\n";
        let found = in_git_config(text);
        assert_eq!(found, ["canary-one", "canary-two", "canary-three", "eDpjYW5hcnktZm91cg==", "canary-four", "canary-five", "canary-six"]);
        assert!(in_git_config("[remote \"origin\"]\n\turl = git@host:a/b.git\n").is_empty());
        for text in [
            "[remote \"o\"] url = https://me:canary-one@h/x",
            "[remote \"o]\"]url=https://me:canary-one@h/x\r\n",
            "[remote \"o\\\"]\"] url = https://me:\\\ncanary-one@h/x",
            "[url \"https://me:canary-one@h/\"] insteadOf = https://h/",
            "[Remote.o] URL = https://me:canary-one@h/x",
        ] {
            assert_eq!(in_git_config(text), ["canary-one"], "{text}");
        }
    }

    #[test]
    fn a_git_configuration_tells_what_it_includes() {
        let text = "[include] path = one\n[core]\n\tpath = none\n[IncludeIf \"gitdir:~/x\"]\n\tpath = \"two # x\" ; comment\n";
        assert_eq!(included_in_git_config(text), ["one", "two # x"]);
    }
}
