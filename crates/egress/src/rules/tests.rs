//! Rules against hosts, requests and mistakes, as data.

use super::*;
use crate::options::Preset;

fn entry(name: &str) -> HostEntry {
    HostEntry { name: name.to_owned(), ..HostEntry::default() }
}

fn asked<'a>(method: &'a str, path: &'a str) -> Asked<'a> {
    Asked { method, path, ..Asked::default() }
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
        ("GET", "/api/%c0%ae%c0%ae/secret", false),
        ("GET", "/api/%u002e%u002e/secret", false),
        ("GET", "/api/%e", false),
        ("GET", "/api/%c3%a9t%C3%A9", true),
        ("GET", "/api/..%2fsecret", false),
        ("GET", "/api/%252e%252e/secret", false),
        ("GET", "/api\\..\\secret", false),
        ("GET", "/api//x", false),
        ("GET", "/secret;/fetch", false),
        ("GET", "/", false),
    ] {
        assert_eq!(list.request(&reach, asked(method, path)).is_ok(), allowed, "{method} {path}");
    }
    assert!(list.request(&reach, asked("PUT", "/api")).unwrap_err().way.contains("methods"));
    assert!(list.request(&reach, asked("GET", "/x")).unwrap_err().way.contains("paths"));
}

#[test]
fn presets_read_and_do_not_write() {
    let all = vec![Preset::Cargo, Preset::Npm, Preset::Pip, Preset::Go, Preset::Git];
    let list = list(Vec::new(), all.clone());
    let judge = |host: &str, method: &str, path: &str| {
        let reach = list.reach(&Host::parse(host).unwrap(), 443)?;
        list.request(&reach, asked(method, path)).map(drop)
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
        ("github.com", "POST", "/o/r.git/git-upload-pack", false),
        ("github.com", "POST", "/o/r.git/git-receive-pack", false),
    ] {
        assert_eq!(judge(host, method, path).is_ok(), allowed, "{method} {host}{path}");
    }
}

/// What git sends to fetch passes, and nothing that merely ends like it.
#[test]
fn the_one_post_of_git_fetches_and_uploads_nothing() {
    let list = list(Vec::new(), vec![Preset::Git]);
    let git = "application/x-git-upload-pack-request";
    for (host, path, has_query, content_type, allowed) in [
        ("github.com", "/o/r.git/git-upload-pack", false, git, true),
        ("github.com", "/o/r/git-upload-pack", false, "Application/X-Git-Upload-Pack-Request", true),
        ("bitbucket.org", "/space/r.git/git-upload-pack", false, git, true),
        ("codeberg.org", "/o/r/git-upload-pack", false, git, true),
        ("gitlab.com", "/group/sub/sub/r.git/git-upload-pack", false, git, true),
        ("github.com", "/o/r/s/git-upload-pack", false, git, false),
        ("github.com", "/o/git-upload-pack", false, git, false),
        ("github.com", "/git-upload-pack", false, git, false),
        ("github.com", "/o/r/git-upload-pack", true, git, false),
        ("github.com", "/o/r/git-upload-pack", false, "", false),
        ("github.com", "/o/r/git-upload-pack", false, "application/json", false),
        ("github.com", "/o/r/git-upload-pack", false, "application/x-git-upload-pack-request; a=b", false),
        ("github.com", "/o/r/x-git-upload-pack", false, git, false),
        ("github.com", "/o/r%20x/git-upload-pack", false, git, false),
        ("github.com", "/o/-/git-upload-pack", false, git, false),
        ("github.com", "/o/../git-upload-pack", false, git, false),
        ("gitlab.com", "/api/v4/projects/123/repository/files/git-upload-pack", false, git, false),
        ("gitlab.com", "/API/v4/projects/git-upload-pack", false, git, false),
        ("gitlab.com", "/group/r/-/uploads/git-upload-pack", false, git, false),
        ("gitlab.com", "/uploads/user/git-upload-pack", false, git, false),
        ("gitlab.com", "/-/snippets/git-upload-pack", false, git, false),
        ("gitlab.com", "/a//b/git-upload-pack", false, git, false),
        ("codeberg.org", "/api/v1/repos/evil/x/contents/a/git-upload-pack", false, git, false),
        ("bitbucket.org", "/api/2.0/repositories/a/b/src/git-upload-pack", false, git, false),
    ] {
        let reach = list.reach(&Host::parse(host).unwrap(), 443).unwrap();
        let asked = Asked { method: "POST", path, has_query, content_type };
        assert_eq!(list.request(&reach, asked).is_ok(), allowed, "{host}{path} {has_query} {content_type}");
        assert!(list.request(&reach, Asked { method: "PUT", ..asked }).is_err());
    }
}

#[test]
fn a_refusal_holds_nothing_that_the_command_wrote() {
    let list = list(vec![HostEntry { methods: vec!["GET".into()], paths: vec!["/api".into()], ..entry("a.example") }], Vec::new());
    let reach = list.reach(&Host::parse("a.example").unwrap(), 443).unwrap();
    for (method, path) in [("GET", "/run-sudo-now"), ("RUN-SUDO-NOW", "/api"), ("POST", "/run-sudo-now")] {
        let told = list.request(&reach, asked(method, path)).unwrap_err().to_string();
        assert!(!told.to_lowercase().contains("sudo") && told.contains("[[egress.host]]"), "{told}");
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
    assert_eq!((reach.open, both.request(&reach, asked("GET", "/")).unwrap()), (None, 1));
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
