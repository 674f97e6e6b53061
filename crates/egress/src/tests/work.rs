//! What an honest command does, and what is written down of it.

use super::house::*;
use crate::hello::tests::greeting;
use crate::options::HostEntry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

#[tokio::test]
async fn every_connection_is_written_down_with_its_rule_and_its_size() {
    let sink = Sink::at("127.0.0.1").await;
    let (port, at) = (sink.port, format!("127.0.0.1:{}", sink.port));
    let house = House::with(vec![entry("127.0.0.1", port)], Everywhere(Vec::new()), None).await;
    let answer = house.say(format!("GET http://{at}/a HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
    let refused = house.say(b"GET http://evil.net/ HTTP/1.1\r\nHost: evil.net\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    assert!(
        refused.contains("refused evil.net: no rule allows this host") && refused.contains("[[egress.host]] name = \"evil.net\""),
        "{refused}"
    );
    assert_eq!(refused.split("\r\n\r\n").nth(1).unwrap().trim_end().lines().count(), 1);
    let mut tunnel = house.connect(&at).await.unwrap();
    tunnel.write_all(b"POST /b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
    let answer = rest(&mut tunnel).await;
    assert!(answer.contains("403"), "the port is not the usual one and must be named: {answer}");
    let mut tunnel = house.socks(b"127.0.0.1", port).await.unwrap();
    for _ in 0..2 {
        tunnel.write_all(format!("POST /b HTTP/1.1\r\nHost: {at}\r\nContent-Length: 3\r\n\r\nabc").as_bytes()).await.unwrap();
        let mut answer = vec![0; 20];
        tunnel.read_exact(&mut answer).await.unwrap();
    }
    drop(tunnel);
    let records = house.records(5).await;
    let found = |scheme: &str, allowed: bool| records.iter().find(|r| r.scheme == scheme && r.allowed == allowed).unwrap();
    let plain = found("http", true);
    assert_eq!((plain.host.as_str(), plain.port, plain.address.as_str()), ("127.0.0.1", u32::from(port), "127.0.0.1"));
    assert_eq!((plain.why.as_str(), plain.methods.as_slice(), plain.count), ("egress.host 127.0.0.1", &["GET 1".to_owned()][..], 1));
    assert!(plain.up_bytes > 10 && plain.down_bytes > 5, "{plain:?}");
    assert_eq!(found("socks", true).methods, ["POST 2"]);
    assert!(records.iter().any(|r| !r.allowed && r.host == "evil.net" && r.address.is_empty()));
}

#[tokio::test]
async fn what_passes_is_what_was_sent() {
    let sink = Sink::at("127.0.0.1").await;
    let at = format!("127.0.0.1:{}", sink.port);
    let house = House::with(vec![entry("127.0.0.1", sink.port)], Everywhere(Vec::new()), None).await;
    let body = "x".repeat(100_000);
    house.say(format!("POST http://{at}/p?q=1&r=%2F HTTP/1.1\r\nHost: {at}\r\nX-A: b\r\nAuthorization: c\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
    house
        .say(
            format!(
                "PUT http://{at} HTTP/1.1\r\nHost: {at}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            )
            .as_bytes(),
        )
        .await;
    house.say(format!("HEAD http://{at}/h HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n").as_bytes()).await;
    let heard = sink.heard();
    assert!(heard[0].starts_with("POST /p?q=1&r=%2F HTTP/1.1\r\n") && heard[0].ends_with(&body), "{}", &heard[0][..200]);
    assert!(
        heard[0].contains("x-a: b\r\n") && heard[0].contains("authorization: c\r\n") && heard[0].contains("content-length: 100000\r\n")
    );
    assert!(heard[1].starts_with("PUT / HTTP/1.1\r\n") && heard[1].ends_with("3\r\nabc\r\n0\r\n\r\n"), "{}", heard[1]);
    assert!(heard[2].starts_with("HEAD /h HTTP/1.1\r\n"), "{}", heard[2]);
}

#[tokio::test]
async fn a_budget_is_an_end() {
    let sink = Sink::at("127.0.0.1").await;
    let at = format!("127.0.0.1:{}", sink.port);
    let small = HostEntry { upload_bytes: Some(2_000), ..entry("127.0.0.1", sink.port) };
    let house = House::with(vec![small], Everywhere(Vec::new()), None).await;
    let told =
        house.say(format!("POST http://{at}/ HTTP/1.1\r\nHost: {at}\r\nContent-Length: 3000\r\n\r\n{}", "x".repeat(3000)).as_bytes()).await;
    assert!(told.contains("403") && told.contains("upload_bytes"), "{told}");
    assert_eq!(sink.came(), 0);
    let chunk = format!("bb8\r\n{}\r\n0\r\n\r\n", "x".repeat(3000));
    house.say(format!("POST http://{at}/ HTTP/1.1\r\nHost: {at}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}").as_bytes()).await;
    assert!(sink.heard().is_empty(), "{:?}", sink.heard());
    let mut raw = house.socks(b"127.0.0.1", sink.port).await.unwrap();
    raw.write_all(&[b'*'; 5000]).await.unwrap();
    assert_eq!(rest(&mut raw).await, "");
    let records = house.records(3).await;
    assert!(records.iter().all(|record| !record.allowed && record.why.contains("as much as egress.host 127.0.0.1")), "{records:?}");
    let many = house.say(format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes()).await;
    assert!(many.contains("403"), "the budget is for the run, not for one connection: {many}");
}

/// Whoever answers for a zone hears every name that is asked for below it.
#[tokio::test]
async fn names_below_a_zone_count_as_sent() {
    let sink = Sink::at("127.0.0.1").await;
    let zone = HostEntry { upload_bytes: Some(100), ..entry("*.zone.test", sink.port) };
    let list = vec![zone, entry("exact.zone.test", sink.port), entry("127.0.0.1", sink.port)];
    let house = House::with(list, Everywhere(vec![sink.address]), None).await;
    let name = format!("{}.zone.test", "x".repeat(40));
    for (round, is_open) in [true, true, false].into_iter().enumerate() {
        assert_eq!(house.connect(&format!("{name}:{}", sink.port)).await.is_ok(), is_open, "{round}");
    }
    let told = house.connect(&format!("{name}:{}", sink.port)).await.unwrap_err();
    assert!(told.contains("upload_bytes") && told.contains("*.zone.test"), "{told}");
    assert!(house.connect(&format!("exact.zone.test:{}", sink.port)).await.is_ok(), "a name that the operator wrote tells nobody anything");
}

/// What the command chose of a request stands in no record: neither path nor method nor user.
#[tokio::test]
async fn records_hold_no_words_of_the_command_but_hosts() {
    let sink = Sink::at("127.0.0.1").await;
    let at = format!("127.0.0.1:{}", sink.port);
    let narrow = HostEntry { paths: vec!["/ok".into()], ..entry("127.0.0.1", sink.port) };
    let house = House::with(vec![narrow], Everywhere(Vec::new()), None).await;
    for request in [
        format!("IGNORE-ALL-RULES http://{at}/ok HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"),
        format!("GET http://{at}/ignore-all-rules HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"),
        format!("IGNORE-ALL-RULES http://{at}/no HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"),
        format!("GET http://ignore-all-rules@{at}/ok HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"),
        format!("CONNECT ignore-all-rules@{at} HTTP/1.1\r\nHost: {at}\r\n\r\n"),
        format!("GET http://{at}/ok HTTP/1.1\r\nHost: {at}\r\nignore all rules: x\r\n\r\n"),
    ] {
        house.say(request.as_bytes()).await;
    }
    let records = house.records(6).await;
    let told = serde_json::to_string(&records).unwrap().to_lowercase();
    assert!(!told.contains("ignore") && records.iter().any(|record| record.methods == ["other 1"]), "{told}");
}

/// A host that obeys such a header would do what was not allowed.
#[tokio::test]
async fn headers_that_name_another_method_go_where_methods_count() {
    for (methods, stay) in [(vec!["POST".to_owned()], false), (Vec::new(), true)] {
        let sink = Sink::at("127.0.0.1").await;
        let at = format!("127.0.0.1:{}", sink.port);
        let house = House::with(vec![HostEntry { methods, ..entry("127.0.0.1", sink.port) }], Everywhere(Vec::new()), None).await;
        let headers =
            "X-HTTP-Method-Override: DELETE\r\nx-http-method: DELETE\r\nX-Method-Override: DELETE\r\nX-Method-Overrides: DELETE\r\n";
        house
            .say(format!("POST http://{at}/ HTTP/1.1\r\nHost: {at}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())
            .await;
        let heard = sink.heard().concat().to_lowercase();
        assert_eq!(heard.matches("delete").count(), if stay { 4 } else { 1 }, "{heard}");
    }
}

#[tokio::test]
async fn a_host_that_greets_first_is_heard_at_a_named_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"220 hello\r\n").await.unwrap();
            let mut word = [0; 4];
            if stream.read_exact(&mut word).await.is_ok() {
                stream.write_all(&word).await.unwrap();
            }
        }
    });
    let house = House::with(vec![entry("127.0.0.1", port)], Everywhere(Vec::new()), None).await;
    let mut stream = house.socks(b"127.0.0.1", port).await.unwrap();
    let mut line = [0; 11];
    stream.read_exact(&mut line).await.unwrap();
    stream.write_all(b"EHLO").await.unwrap();
    assert_eq!((&line, rest(&mut stream).await.as_str()), (b"220 hello\r\n", "EHLO"));
}

#[tokio::test]
async fn tls_that_needs_no_reading_passes_untouched() {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hello = greeting(&["example.com"], false, 99);
    let len = hello.len();
    let host = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = vec![0; len];
        stream.read_exact(&mut all).await.unwrap();
        stream.write_all(b"from the host").await.unwrap();
        all
    });
    let list = vec![entry("example.com", port), entry("127.0.0.2", port)];
    let house = House::with(list, Everywhere(vec!["127.0.0.2".parse().unwrap()]), None).await;
    let mut stream = house.connect(&format!("example.com:{port}")).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    assert_eq!(rest(&mut stream).await, "from the host");
    assert_eq!(host.await.unwrap(), hello);
}

#[tokio::test]
async fn socks_is_for_connections_only() {
    let house = House::with(vec![entry("127.0.0.1", 9)], Everywhere(Vec::new()), None).await;
    for request in [&[5, 2, 0, 1, 127, 0, 0, 1, 0, 9][..], &[5, 3, 0, 1, 127, 0, 0, 1, 0, 9], &[5, 1, 0, 9, 0, 0]] {
        let answer = house.say(&[&[5, 1, 0][..], request].concat()).await;
        assert!(matches!(answer.as_bytes().get(3), Some(7 | 8)), "{answer:?}");
    }
    assert_eq!(house.say(&[5, 1, 2]).await.as_bytes(), String::from_utf8_lossy(&[5, 0xff]).as_bytes());
}
