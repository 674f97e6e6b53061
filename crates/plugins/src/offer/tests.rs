//! Pages of tools: what is pinned, what is shown, what is refused.

use super::*;
use std::collections::BTreeSet;
use std::time::Duration;

fn server() -> Server {
    Server {
        name: "s".into(),
        command: Vec::new(),
        env: Vec::new(),
        network: None,
        reads: true,
        writes: false,
        read: Vec::new(),
        tools: None,
        read_only: ["list".to_owned()].into(),
        timeout: Duration::from_secs(1),
        fault: None,
    }
}

fn offer(tools: &str) -> Result<Offer, Error> {
    offer_of(&server(), tools)
}

fn offer_of(server: &Server, tools: &str) -> Result<Offer, Error> {
    let mut pages = Pages::default();
    pages.take(server, &format!("{{\"tools\":[{tools}]}}"))?;
    Ok(pages.finish(server))
}

const LIST: &str =
    r#"{"name":"list","description":"Lists.","inputSchema":{"type":"object","properties":{}},"annotations":{"readOnlyHint":true}}"#;

#[test]
fn everything_that_is_said_is_in_the_digest_and_the_order_is_not() {
    let more = r#"{"name":"more"}"#;
    let first = offer(&format!("{LIST},{more}")).unwrap();
    assert_eq!(first.digest, offer(&format!("{more},{LIST}")).unwrap().digest);
    let keys = LIST.replace(r#""type":"object","properties":{}"#, r#""properties":{},"type":"object""#);
    assert_eq!(first.digest, offer(&format!("{keys},{more}")).unwrap().digest, "keys in another order say the same");
    let mut seen: BTreeSet<String> = [first.digest].into();
    for (from, to) in [
        ("Lists.", "Lists, and sends."),
        ("Lists.", "Lists.\u{200b}"),
        ("\"list\"", "\"lists\""),
        ("true", "false"),
        ("{}", "{\"path\":{}}"),
        ("\"description\"", "\"title\""),
    ] {
        let other = offer(&format!("{},{more}", LIST.replacen(from, to, 1))).unwrap();
        assert!(seen.insert(other.digest), "{from} → {to}");
    }
    assert!(seen.insert(offer(LIST).unwrap().digest), "a tool less");
}

#[test]
fn what_is_not_offered_is_not_pinned() {
    let only = Server { tools: Some(["list".to_owned()].into()), ..server() };
    let alone = offer_of(&only, LIST).unwrap();
    assert_eq!(alone, offer_of(&only, &format!("{LIST},{{\"name\":\"other\",\"description\":\"new\"}}")).unwrap());
}

#[test]
fn a_person_sees_what_differs_and_every_hidden_sign() {
    let before = offer(LIST).unwrap().pin(1);
    let now = offer(&format!("{},{{\"name\":\"send\"}}", LIST.replace("Lists.", "Lists\u{202e} all."))).unwrap();
    let (title, body) = now.question(&server(), Some(&before));
    assert!(title.contains("differently than you agreed to"));
    for part in ["s.list (changed), called without asking", "- Lists.\n", "+ Lists\\u{202e} all.\n", "s.send (new)", "1 invisible signs"] {
        assert!(body.contains(part), "{part}: {body}");
    }
    let (_, body) = offer("").unwrap().question(&server(), Some(&before));
    assert!(body.contains("s.list (gone)"), "{body}");
    let (title, body) = offer(LIST).unwrap().question(&server(), None);
    assert!(title.contains("describes 1 tools") && body.contains("  hints of the server: {\"readOnlyHint\":true}"), "{body}");
}

#[test]
fn nobody_is_shown_more_than_anybody() {
    let long = format!("{{\"name\":\"long\",\"description\":\"{}THE END\"}}", "x".repeat(5_000));
    let now = offer(&long).unwrap();
    let (_, body) = now.question(&server(), None);
    let found = search(&[(server(), now)], "long");
    assert!(!body.contains("THE END") && body.contains("3007 more signs, shown to nobody"), "{body}");
    assert!(!found.contains("THE END") && found.contains("shown to nobody"));
}

#[test]
fn lists_that_are_too_much_or_malformed_are_refused() {
    let many: Vec<String> = (0..=MOST_TOOLS).map(|at| format!("{{\"name\":\"t{at}\"}}")).collect();
    for (tools, expected) in [
        (many.join(","), "more than 500 tools"),
        (format!("{LIST},{LIST}"), "two tools named `list`"),
        (format!("{{\"name\":\"x\",\"inputSchema\":{{\"a\":\"{}\"}}}}", "y".repeat(MOST_JSON)), "larger than 64 KiB"),
        (format!("{{\"name\":\"x\",\"inputSchema\":{}{}}}", "[".repeat(500), "]".repeat(500)), "malformed"),
        (r#"{"name":"x","name":"y"}"#.to_owned(), "malformed"),
        ("5".to_owned(), "malformed"),
    ] {
        let error = offer(&tools).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let odd = offer(r#"{"name":"reаd"},{"name":"a b"},{"name":"\u202elist"}"#).unwrap();
    assert!(odd.tools.is_empty() && odd.notes.len() == 3, "{odd:?}");
}

#[test]
fn a_search_finds_by_name_and_words_and_lists_the_rest() {
    let tools: Vec<String> = (0..30)
        .map(|at| format!("{{\"name\":\"t{at:02}\",\"description\":\"{}\"}}", if at == 7 { "Mends a kettle." } else { "Other." }))
        .collect();
    let offers = [(server(), offer(&format!("{},{LIST}", tools.join(","))).unwrap())];
    let found = search(&offers, "kettle");
    assert!(found.contains("s.t07 (the user may be asked)\n  Mends a kettle.") && !found.contains("s.t08"), "{found}");
    let all = search(&offers, "");
    assert!(all.contains("\ns.list\n") && all.contains("more: ") && all.contains("s.t29"), "{all}");
    assert!(search(&offers, "nowhere").contains("no tool fits; all tools:"));
    assert_eq!(search(&offers, "other"), search(&offers, "other"));
}
