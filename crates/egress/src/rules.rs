//! The allowlist: who may be asked, at which port, how, and how much may be sent.
//!
//! Pure. A rule compares whole labels, never pieces of text. Invariant: what no rule allows is refused,
//! and a refusal names the key that would allow it.

mod presets;

use crate::host::{Host, Odd};
use crate::options::{Egress, HostEntry};
use std::net::IpAddr;

/// Ports of a host entry that names none.
const PORTS: [u16; 2] = [443, 80];
/// Bytes that one run may send by a host entry that says nothing of it.
pub const UPLOAD_BYTES: u64 = 64 << 20;
/// Bytes that one run may send to the hosts of a preset, one by one.
pub const PRESET_UPLOAD_BYTES: u64 = 8 << 20;
/// Methods that are told by name.
const METHODS: [&str; 16] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "REPORT",
    "SEARCH",
];
/// Where forges serve programs instead of repositories.
const INTERFACES: [&str; 6] = ["api", "uploads", "upload", "graphql", "oauth", "users"];
/// Most segments of a repository's path, where groups stand within groups: GitLab allows 20 groups.
const GROUPS: usize = 21;
/// What the command sees instead of a credential, before its name.
pub const PLACEHOLDER: &str = "tinkerbell-placeholder-";

/// Hosts that a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// This one.
    Only(Host),
    /// Every name below this one.
    Below(String),
}

/// Which paths a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PathPattern {
    /// These segments first.
    Begins(String),
    /// This at the end.
    Ends(String),
    /// The place at which git asks a forge for objects; groups within groups at some forges.
    GitFetch {
        /// Whether a repository may stand deeper than below its owner.
        is_deep: bool,
    },
}

/// What a rule looks at in one request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, without what follows a question mark.
    pub path: &'a str,
    /// Whether something follows a question mark, or nothing does.
    pub has_query: bool,
    /// The one type of content that its headers name; empty for none, or several.
    pub content_type: &'a str,
}

/// A credential that the proxy puts into requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Variable and name of its value.
    pub name: String,
    /// Header to set, and its value with `{}`.
    pub header: Option<(String, String)>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// As records and refusals name it.
    pub id: String,
    pattern: Pattern,
    ports: Vec<u16>,
    is_default_ports: bool,
    methods: Vec<String>,
    paths: Vec<PathPattern>,
    /// Most bytes that one run may send by it.
    pub upload_bytes: u64,
    /// What the proxy adds.
    pub credential: Option<Credential>,
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}; {way}")]
pub struct Refusal {
    /// What is wrong.
    pub why: String,
    /// What the operator can do.
    pub way: String,
}

impl Refusal {
    /// A host that is none.
    #[must_use]
    pub fn odd(odd: Odd) -> Self {
        Self { why: odd.to_string(), way: "name the host plainly".to_owned() }
    }
}

/// All rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowlist {
    rules: Vec<Rule>,
}

impl Allowlist {
    /// Reads what the operator wrote.
    ///
    /// # Errors
    /// The first mistake, in words that name its entry.
    pub fn compile(egress: &Egress) -> Result<Self, String> {
        let mut rules = Vec::new();
        for entry in &egress.host {
            rules.push(rule(entry, format!("egress.host {}", entry.name), UPLOAD_BYTES)?);
        }
        for preset in &egress.presets {
            let id = || format!("preset {}", presets::name(*preset));
            for entry in presets::entries(*preset) {
                rules.push(rule(&entry, id(), PRESET_UPLOAD_BYTES)?);
            }
            for (entry, is_deep) in presets::fetching(*preset) {
                rules.push(Rule { paths: vec![PathPattern::GitFetch { is_deep }], ..rule(&entry, id(), PRESET_UPLOAD_BYTES)? });
            }
        }
        Ok(Self { rules })
    }

    /// All rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether any request may have to be read within TLS.
    #[must_use]
    pub fn reads_tls(&self) -> bool {
        self.rules.iter().any(Rule::is_strict)
    }

    /// Judges a connection; gives the rules that are for it, by their places.
    ///
    /// # Errors
    /// When none is.
    pub fn reach(&self, host: &Host, port: u16) -> Result<Reach, Refusal> {
        let of_host: Vec<usize> = self.places(|rule| rule.pattern.is_for(host));
        if of_host.is_empty() {
            return Err(Refusal { why: "no rule allows this host".to_owned(), way: way(host, port) });
        }
        let rules = self.places(|rule| rule.pattern.is_for(host) && rule.ports.contains(&port));
        if rules.is_empty() {
            let why = format!("no rule allows port {port} of this host");
            return Err(Refusal { why, way: format!("an operator can allow it with ports = [{port}] in its [[egress.host]]") });
        }
        let found = || rules.iter().filter_map(|at| self.rules.get(*at));
        let has_credential = found().any(|rule| rule.credential.is_some());
        let open = rules.iter().copied().find(|at| self.rules.get(*at).is_some_and(|rule| !rule.is_strict())).filter(|_| !has_credential);
        let names_port = found().any(|rule| !rule.is_default_ports);
        Ok(Reach { rules, open, is_raw: names_port && !PORTS.contains(&port) })
    }

    /// Judges one request within a connection; gives the place of the rule that allows it.
    ///
    /// # Errors
    /// When none does.
    pub fn request(&self, reach: &Reach, asked: Asked<'_>) -> Result<usize, Refusal> {
        let rules = || reach.rules.iter().filter_map(|at| Some((*at, self.rules.get(*at)?)));
        let allowed = |rule: &Rule| rule.takes_method(asked.method) && rule.takes_path(asked);
        // One that knows a credential first: a plain one must not keep it from being added.
        let by = |with: bool| rules().find(|(_, rule)| rule.credential.is_some() == with && allowed(rule));
        if let Some((at, _)) = by(true).or_else(|| by(false)) {
            return Ok(at);
        }
        let key = if rules().any(|(_, rule)| rule.takes_path(asked)) { "methods" } else { "paths" };
        // It is recorded: nothing that the command wrote stands in it.
        let why = format!("no rule allows {} at this path of this host", known_method(asked.method).unwrap_or("this method"));
        Err(Refusal { why, way: format!("an operator can allow it with {key} in [[egress.host]]") })
    }

    /// Whether the operator named this very address for this port.
    #[must_use]
    pub fn names(&self, address: IpAddr, port: u16) -> bool {
        let host = Host::from(address);
        self.rules.iter().any(|rule| rule.pattern == Pattern::Only(host.clone()) && rule.ports.contains(&port))
    }

    fn places(&self, is: impl Fn(&Rule) -> bool) -> Vec<usize> {
        self.rules.iter().enumerate().filter(|(_, rule)| is(rule)).map(|(at, _)| at).collect()
    }
}

/// The rules that are for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    rules: Vec<usize>,
    /// One that allows everything at this host and port, so that TLS need not be read.
    pub open: Option<usize>,
    /// Whether the port was named by the operator and speaks neither HTTP nor TLS as a matter of course.
    pub is_raw: bool,
}

impl Reach {
    /// Their places, in order.
    #[must_use]
    pub fn rules(&self) -> &[usize] {
        &self.rules
    }
}

impl Rule {
    /// Whether single requests are judged or changed by it.
    fn is_strict(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty() || self.credential.is_some()
    }

    /// Whether its credential may be sent unsealed: within this machine, or to HTTP's own port where
    /// the operator named it. At any other port the command would choose, and it is not to be trusted.
    #[must_use]
    pub fn may_send_plain(&self, port: u16) -> bool {
        let is_here = matches!(&self.pattern, Pattern::Only(Host::Address(address)) if address.is_loopback());
        is_here || (port == 80 && !self.is_default_ports)
    }

    fn takes_method(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|known| known == method)
    }

    fn takes_path(&self, asked: Asked<'_>) -> bool {
        self.paths.is_empty() || (is_plain(asked.path) && self.paths.iter().any(|pattern| pattern.is_for(asked)))
    }

    /// Whether only some methods are allowed by it.
    #[must_use]
    pub fn has_methods(&self) -> bool {
        !self.methods.is_empty()
    }

    /// Whether it is for some paths only.
    pub fn has_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Whether it is for all names below one, of which the command chooses the rest.
    #[must_use]
    pub const fn is_zone(&self) -> bool {
        matches!(self.pattern, Pattern::Below(_))
    }
}

impl Pattern {
    fn is_for(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Only(only), host) => only == host,
            (Self::Below(zone), Host::Name(name)) => name.strip_suffix(zone).is_some_and(|front| front.len() > 1 && front.ends_with('.')),
            (Self::Below(_), Host::Address(_)) => false,
        }
    }
}

impl PathPattern {
    fn is_for(&self, asked: Asked<'_>) -> bool {
        let path = asked.path;
        match self {
            Self::GitFetch { is_deep } => is_git_fetch(asked, *is_deep),
            Self::Begins(start) => {
                path.strip_prefix(start.as_str()).is_some_and(|rest| start.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
            }
            Self::Ends(end) => path.ends_with(end.as_str()),
        }
    }
}

/// Whether every server reads this path as we do: no dots that climb, nothing that hides a slash.
fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let is_hidden = ["%2f", "%5c", "%2e", "%00", "%25", "\\", "//", ";"].iter().any(|piece| lower.contains(piece));
    path.starts_with('/') && !is_hidden && is_encoded(path) && !path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Whether what stands encoded in a path is UTF-8 in two hexadecimal digits a byte. Lenient servers read longer forms of
/// a dot or a slash, and `%u002e`, as those.
fn is_encoded(path: &str) -> bool {
    let mut pieces = path.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let Some((digits, rest)) = piece.split_at_checked(2) else { return false };
        let Some(byte) = digits.bytes().all(|sign| sign.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok()).flatten() else {
            return false;
        };
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// Whether this is how git asks for objects: `/owner/repository/git-upload-pack`, its own type of content,
/// and nothing else. A forge's interface for programs takes files at paths that end alike.
fn is_git_fetch(asked: Asked<'_>, is_deep: bool) -> bool {
    let Some(repository) = asked.path.strip_prefix('/').and_then(|path| path.strip_suffix("/git-upload-pack")) else { return false };
    let segments: Vec<&str> = repository.split('/').collect();
    let most = if is_deep { GROUPS } else { 2 };
    let is_name = |segment: &&str| {
        let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        !segment.is_empty() && segment.bytes().all(is_sign) && segment.bytes().any(|byte| byte.is_ascii_alphanumeric())
    };
    let is_interface = segments.first().is_some_and(|first| INTERFACES.iter().any(|name| first.eq_ignore_ascii_case(name)));
    (2..=most).contains(&segments.len())
        && segments.iter().all(is_name)
        && !is_interface
        && !asked.has_query
        && asked.content_type.eq_ignore_ascii_case("application/x-git-upload-pack-request")
}

/// A method as records name it; `None` for one that the command made up.
pub fn known_method(method: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == method)
}

fn way(host: &Host, port: u16) -> String {
    let ports = if PORTS.contains(&port) { String::new() } else { format!(", ports = [{port}]") };
    let name = match host {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    };
    format!("an operator can allow it with [[egress.host]] name = \"{name}\"{ports}")
}

fn rule(entry: &HostEntry, id: String, upload_bytes: u64) -> Result<Rule, String> {
    let wrong = |why: String| format!("[[egress.host]] name = {:?}: {why}", entry.name);
    let pattern = pattern(&entry.name).map_err(wrong)?;
    if entry.ports.contains(&0) {
        return Err(wrong("there is no port 0".to_owned()));
    }
    for method in &entry.methods {
        let is_word = !method.is_empty() && method.len() <= 32 && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if !is_word || method == "CONNECT" {
            return Err(wrong(format!("{method:?} is no method; write them like \"GET\"")));
        }
    }
    let paths = entry.paths.iter().map(|path| path_pattern(path)).collect::<Result<_, _>>().map_err(wrong)?;
    let credential = credential(entry).map_err(wrong)?;
    if credential.is_some() && matches!(pattern, Pattern::Below(_)) {
        return Err(wrong("a credential needs one host, not all below a name".to_owned()));
    }
    Ok(Rule {
        id,
        pattern,
        is_default_ports: entry.ports.is_empty(),
        ports: if entry.ports.is_empty() { PORTS.to_vec() } else { entry.ports.clone() },
        methods: entry.methods.clone(),
        paths,
        upload_bytes: entry.upload_bytes.unwrap_or(upload_bytes),
        credential,
    })
}

fn pattern(name: &str) -> Result<Pattern, String> {
    if let Some(zone) = name.strip_prefix("*.") {
        return match Host::parse(zone).map_err(|odd| odd.to_string())? {
            Host::Name(zone) if zone.contains('.') => Ok(Pattern::Below(zone)),
            _ => Err("a star needs at least two labels after it, as in *.example.com".to_owned()),
        };
    }
    Host::parse(name).map(Pattern::Only).map_err(|odd| odd.to_string())
}

fn path_pattern(text: &str) -> Result<PathPattern, String> {
    let mistake = || format!("{text:?} is no beginning of a path (\"/api\") and no end of one (\"*/name\")");
    let path = text.strip_prefix('*').unwrap_or(text);
    if !is_plain(path) || path.contains(['*', '?', '#']) || path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
        return Err(mistake());
    }
    Ok(if path.len() == text.len() { PathPattern::Begins(path.to_owned()) } else { PathPattern::Ends(path.to_owned()) })
}

fn credential(entry: &HostEntry) -> Result<Option<Credential>, String> {
    let Some(name) = &entry.credential else {
        return if entry.header.is_some() { Err("a header needs a credential".to_owned()) } else { Ok(None) };
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) || name.starts_with(|sign: char| sign.is_ascii_digit()) {
        return Err(format!("{name:?} is no name of a variable"));
    }
    let steers = ["PATH", "HOME", "SHELL", "GIT_", "LD_", "TINKERBELL_", "SSL_", "NODE_OPTIONS", "PYTHON"];
    if steers.iter().any(|start| name.starts_with(start)) || name.to_ascii_uppercase().ends_with("_PROXY") {
        return Err(format!("{name:?} steers commands and can hold no placeholder"));
    }
    let header = entry.header.as_deref().map(header).transpose()?;
    Ok(Some(Credential { name: name.clone(), header }))
}

fn header(text: &str) -> Result<(String, String), String> {
    let mistake = || format!("{text:?} is no header with a place for the value, as in \"Authorization: Bearer {{}}\"");
    let (name, value) = text.split_once(':').ok_or_else(mistake)?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let is_frame = ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"].contains(&name.as_str());
    let is_value = value.matches("{}").count() == 1 && value.bytes().all(|byte| (b' '..0x7f).contains(&byte));
    if is_name && is_value && !is_frame { Ok((name, value.to_owned())) } else { Err(mistake()) }
}

#[cfg(test)]
mod tests;
