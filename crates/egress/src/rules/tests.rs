//! Rules against hosts, requests and mistakes, as data.

use super::*;
use crate::options::Preset;

fn entry(name: &str) -> HostEntry {
    HostEntry { name: name.to_owned(), ..HostEntry::default() }
}

fn list(host: Vec<HostEntry>, presets: Vec<Preset>) -> Allowlist {
    Allowlist::compile(&Egress { presets, host }).unwrap()
}

#[test]
fn hosts_are_compared_label_by_label() {
    let list =
        list(vec![entry("example.com"), entry("*.example.org"), entry("BÜCHER.example"), entry("10.0.0.5"), entry("[::1]")], Vec::new());
    for (host, allowed) in [
        ("example.com", true),
        ("EXAMPLE.COM.", true),
        ("a.example.com", false),
        ("evil-example.com", false),
        ("example.com.evil.net", false),
        ("example.co", false),
        ("example.org", false),
        ("a.example.org", true),
        ("a.b.example.org", true),
        ("evil-example.org", false),
        ("xn--bcher-kva.example", true),
        ("10.0.0.5", true),
        ("0xa000005", true),
        ("::ffff:10.0.0.5", true),
        ("10.0.0.6", false),
        ("::1", true),
        ("127.0.0.1", false),
    ] {
        let host = Host::parse(host).unwrap();
        assert_eq!(list.reach(&host, 443).is_ok(), allowed, "{host}");
    }
    assert!(list.names("10.0.0.5".parse().unwrap(), 80) && !list.names("10.0.0.5".parse().unwrap(), 22));
    assert!(!list.names("127.0.0.1".parse().unwrap(), 80));
}

#[test]
fn ports_methods_and_paths_narrow_a_rule() {
    let api = HostEntry {
        ports: vec![8443],
        methods: vec!["GET".into(), "POST".into()],
        paths: vec!["/api".into(), "/v1/".into(), "*/fetch".into()],
        ..entry("a.example")
    };
    let list = list(vec![api], Vec::new());
    let host = Host::parse("a.example").unwrap();
    assert!(list.reach(&host, 443).unwrap_err().way.contains("ports = [443]"));
    let reach = list.reach(&host, 8443).unwrap();
    assert!(reach.open.is_none() && reach.is_raw && list.reads_tls());
    for (method, path, allowed) in [
        ("GET", "/api", true),
        ("GET", "/api/x", true),
        ("GET", "/apix", false),
        ("GET", "/v1/x", true),
        ("GET", "/v1", false),
        ("POST", "/any/fetch", true),
        ("PUT", "/api", false),
        ("get", "/api", false),
        ("GET", "/api/../secret", false),
        ("GET", "/api/%2e%2e/secret", false),
        ("GET", "/api/..%2fsecret", false),
        ("GET", "/api/%252e%252e/secret", false),
        ("GET", "/api\\..\\secret", false),
        ("GET", "/api//x", false),
        ("GET", "/secret;/fetch", false),
        ("GET", "/", false),
    ] {
        assert_eq!(list.request(&reach, method, path).is_ok(), allowed, "{method} {path}");
    }
    assert!(list.request(&reach, "PUT", "/api").unwrap_err().way.contains("methods"));
    assert!(list.request(&reach, "GET", "/x").unwrap_err().way.contains("paths"));
}

#[test]
fn presets_read_and_do_not_write() {
    let all = vec![Preset::Cargo, Preset::Npm, Preset::Pip, Preset::Go, Preset::Git];
    let list = list(Vec::new(), all.clone());
    let judge = |host: &str, method: &str, path: &str| {
        let reach = list.reach(&Host::parse(host).unwrap(), 443)?;
        list.request(&reach, method, path).map(drop)
    };
    for entry in all.into_iter().flat_map(presets::entries).filter(|entry| entry.paths.is_empty()) {
        let name = entry.name.as_str();
        assert!(judge(name, "GET", "/@scope%2fname").is_ok() && judge(name, "HEAD", "/a/b-1.tgz").is_ok(), "{name}");
        for method in ["PUT", "POST", "DELETE", "PATCH"] {
            assert!(judge(name, method, "/api/v1/new").is_err(), "{method} {name}");
        }
        assert!(judge(&format!("evil-{name}"), "GET", "/").is_err() && judge(&format!("upload.{name}"), "GET", "/").is_err());
        assert!(list.reach(&Host::parse(name).unwrap(), 80).is_err());
    }
    for (host, method, path, allowed) in [
        ("storage.googleapis.com", "GET", "/proxy-golang-org-prod/x", true),
        ("storage.googleapis.com", "GET", "/evil-bucket/x", false),
        ("github.com", "GET", "/o/r/info/refs", true),
        ("github.com", "POST", "/o/r.git/git-upload-pack", true),
        ("github.com", "POST", "/o/r.git/git-receive-pack", false),
    ] {
        assert_eq!(judge(host, method, path).is_ok(), allowed, "{method} {host}{path}");
    }
}

#[test]
fn an_open_rule_beside_a_strict_one_needs_no_reading_but_a_credential_does() {
    let host = Host::parse("github.com").unwrap();
    let open = list(vec![entry("github.com")], vec![Preset::Git]);
    assert_eq!(open.reach(&host, 443).unwrap().open, Some(0));
    let known = HostEntry { credential: Some("GH".into()), header: Some("Authorization: Bearer {}".into()), ..entry("github.com") };
    let both = list(vec![entry("github.com"), known], Vec::new());
    let reach = both.reach(&host, 443).unwrap();
    assert_eq!((reach.open, both.request(&reach, "GET", "/").unwrap()), (None, 1));
}

#[test]
fn mistakes_are_told() {
    let check = |entry: HostEntry, wanted: &str| {
        let told = Allowlist::compile(&Egress { host: vec![entry], presets: Vec::new() }).unwrap_err();
        assert!(told.contains(wanted), "{told}");
    };
    check(entry(""), "empty");
    check(entry("*"), "no host may hold");
    check(entry("*.com"), "two labels");
    check(entry("https://example.com"), "looks like an address");
    check(entry("example.com/path"), "no host may hold");
    check(HostEntry { ports: vec![0], ..entry("a.example") }, "port 0");
    check(HostEntry { methods: vec!["get".into()], ..entry("a.example") }, "no method");
    check(HostEntry { paths: vec!["api".into()], ..entry("a.example") }, "no beginning");
    check(HostEntry { paths: vec!["/a/../b".into()], ..entry("a.example") }, "no beginning");
    check(HostEntry { header: Some("A: {}".into()), ..entry("a.example") }, "needs a credential");
    check(HostEntry { credential: Some("1A".into()), ..entry("a.example") }, "no name of a variable");
    check(HostEntry { credential: Some("A".into()), header: Some("Host: {}".into()), ..entry("a.example") }, "no header");
    check(HostEntry { credential: Some("A".into()), header: Some("X: y".into()), ..entry("a.example") }, "no header");
    check(HostEntry { credential: Some("A".into()), ..entry("*.a.example") }, "one host");
}
