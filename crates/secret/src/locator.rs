//! Where people leave passwords: addresses with a user part, and a repository's git configuration.
//!
//! Pure: the caller reads the file. Invariant: what is found is a value that git would send as a
//! credential, never a user's or a host's name alone.

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
/// that stand for others), and the words of extra headers.
#[must_use]
pub fn in_git_config(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.replace("\\\n", "").lines() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            // `[url "https://user:password@host/"]`
            found.extend(section.split('"').skip(1).step_by(2).flat_map(in_url));
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { continue };
        let value = unquoted(value);
        match name.trim().to_ascii_lowercase().as_str() {
            "extraheader" => found.extend(in_header(&value)),
            _ => found.extend(in_url(&value)),
        }
    }
    found.sort();
    found.dedup();
    found
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
        assert_eq!(found, ["canary-five", "canary-four", "canary-one", "canary-six", "canary-three", "canary-two", "eDpjYW5hcnktZm91cg=="]);
        assert!(in_git_config("[remote \"origin\"]\n\turl = git@host:a/b.git\n").is_empty());
    }
}
