//! Ways around a list of hosts, by every protocol: the sink stays empty.

use super::house::*;
use crate::hello::tests::greeting;
use crate::host::Host;
use crate::options::HostEntry;
use tokio::io::AsyncWriteExt as _;

/// The host forms by all three protocols; gives how many connections the sink got.
async fn aim(house: &House, sink: &Sink, host: &str) -> usize {
    let (before, port) = (sink.came(), sink.port);
    house.say(format!("GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").as_bytes()).await;
    house.say(format!("GET http://{host}:{port}/ HTTP/1.0\r\n\r\n").as_bytes()).await;
    if let Ok(mut stream) = house.connect(&format!("{host}:{port}")).await {
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        rest(&mut stream).await;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    for name in [host].into_iter().chain(Some(bare).filter(|bare| bare.contains(':') && *bare != host)) {
        if let Ok(mut stream) = house.socks(name.as_bytes(), port).await {
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            rest(&mut stream).await;
        }
    }
    let address = match crate::host::Host::parse(host) {
        Ok(crate::host::Host::Address(std::net::IpAddr::V4(v4))) => [vec![1], v4.octets().to_vec()].concat(),
        Ok(crate::host::Host::Address(std::net::IpAddr::V6(v6))) => [vec![4], v6.octets().to_vec()].concat(),
        _ => return sink.came() - before,
    };
    if let Ok(mut stream) = house.socks_to(address, port).await {
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        rest(&mut stream).await;
    }
    sink.came() - before
}

/// The resolver takes every name to the sink, and the sink's address is named: only the reading of
/// names protects it.
#[tokio::test]
async fn other_names_do_not_arrive_and_the_allowed_one_does() {
    let sink = Sink::at("127.0.0.2").await;
    let list = vec![entry("example.com", sink.port), entry("*.example.org", sink.port), entry("127.0.0.2", sink.port)];
    let house = House::with(list, Everywhere(vec![sink.address]), None).await;
    for host in [
        "evil.com",
        "evil-example.com",
        "example.com.evil.net",
        "example.comevil.net",
        "example.com-evil.net",
        "sub.example.com",
        "example.org",
        "evil-example.org",
        "example.com..",
        ".example.com",
        "example..com",
        "example.com\0.evil.net",
        "evil.net\0.example.com",
        "evil.net\0example.com",
        "example.com%00.evil.net",
        "evil.net%2eexample.com",
        "evil.net%23.example.org",
        "example.com@evil.net",
        "example.com:80@evil.net",
        "evil.net#.example.org",
        "evil.net/.example.org",
        "evil.net\\.example.org",
        "evil.net?.example.org",
        "evil.net;.example.org",
        "evil.net .example.org",
        "evil.net\t.example.org",
        "evil.net\r\nX: .example.org",
        "evil.net\n.example.org",
        "exampl\u{435}.com",
        "xn--exampl-2of.com",
        "example.com\u{ff0e}evil.net",
        "*.example.org",
        "[example.com]",
        "[::ffff:example.com]",
        "",
        ".",
        "-",
        "localhost",
        "0",
        "127.0.0.3",
    ] {
        assert_eq!(aim(&house, &sink, host).await, 0, "{host:?} arrived: {:?}", sink.heard());
    }
    let long = format!("{}example.com", "a.".repeat(130));
    assert_eq!(aim(&house, &sink, &long).await, 0);
    for host in ["example.com", "EXAMPLE.com", "example.com.", "a.example.org", "a.b.example.org", "127.0.0.2", "127.2", "0x7f000002"] {
        assert!(aim(&house, &sink, host).await >= 4, "{host} did not arrive");
    }
}

/// Every name is allowed below a zone and leads inward, and every form of the address is tried.
#[tokio::test]
async fn addresses_inside_do_not_answer_whatever_leads_to_them() {
    let sink = Sink::at("127.0.0.1").await;
    let inward = |text: &str| text.parse().unwrap();
    let port = sink.port;
    let addresses = [
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "2002:7f00:1::",
        "::1",
        "10.0.0.1",
        "169.254.169.254",
        "fd00:ec2::254",
        "0.0.0.0",
        "::",
        "100.64.0.1",
        "224.0.0.1",
        "fe80::1",
    ];
    for address in addresses {
        let house = House::with(vec![entry("*.rebind.test", port)], Everywhere(vec![inward("93.184.216.34"), inward(address)]), None).await;
        assert_eq!(aim(&house, &sink, "a.rebind.test").await, 0, "{address}");
        assert!(house.records(1).await.iter().all(|record| !record.allowed && record.why.contains("leads to")), "{address}");
    }
    // A public address of this very machine leads behind its walls, too, unless it is named.
    for address in ["45.33.32.156", "::ffff:45.33.32.156", "64:ff9b::45.33.32.156", "2002:2d21:209c::1"] {
        let house = House::with(vec![entry("*.rebind.test", port)], Everywhere(vec![inward(address)]), None).await;
        assert_eq!(aim(&house, &sink, "a.rebind.test").await, 0);
        let records = house.records(1).await;
        assert!(records.iter().all(|record| !record.allowed && record.why.contains("an address of this machine")), "{records:?}");
    }
    let own = std::net::IpAddr::from(OWN);
    let house = House::with(vec![entry("*.rebind.test", port), entry(&own.to_string(), port)], Everywhere(vec![own]), None).await;
    assert!(house.gate.admit(Host::parse("a.rebind.test").unwrap(), port).await.is_ok(), "named");
    let house = House::with(vec![entry("*.rebind.test", port)], Everywhere(vec![inward("127.0.0.1")]), None).await;
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "0x7f.1",
        "0x7f000001",
        "0X7F000001",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::f]",
        "0",
        "0.0.0.0",
        "[::]",
        "localhost",
        "localhost.",
        "ip6-localhost",
        "127.0.0.1.rebind.test",
    ] {
        assert_eq!(aim(&house, &sink, host).await, 0, "{host} arrived");
    }
}

#[tokio::test]
async fn requests_that_can_be_read_in_two_ways_are_refused() {
    let sink = Sink::at("127.0.0.1").await;
    let port = sink.port;
    let house = House::with(vec![entry("127.0.0.1", port)], Everywhere(Vec::new()), None).await;
    let at = format!("127.0.0.1:{port}");
    let evil = "evil.net";
    for (name, text) in [
        ("another Host", format!("GET http://{at}/ HTTP/1.1\r\nHost: {evil}\r\n\r\n")),
        ("two Hosts", format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\nHost: {evil}\r\n\r\n")),
        ("a list of Hosts", format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}, {evil}\r\n\r\n")),
        ("userinfo", format!("GET http://{at}@{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n")),
        ("userinfo with a password", format!("GET http://a:b@{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n")),
        ("https by plain request", format!("GET https://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n")),
        ("no address", format!("GET / HTTP/1.1\r\nHost: {at}\r\n\r\n")),
        ("two lengths", format!("POST http://{at}/ HTTP/1.1\r\nHost: {at}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")),
        ("a length that is none", format!("POST http://{at}/ HTTP/1.1\r\nHost: {at}\r\nContent-Length: +1\r\n\r\na")),
        ("a strange encoding", format!("POST http://{at}/ HTTP/1.1\r\nHost: {at}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        ("a space before the colon", format!("GET http://{at}/ HTTP/1.1\r\nHost : {at}\r\n\r\n")),
        ("a NUL in a header", format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\nX: a\0b\r\n\r\n")),
        ("a header too long", format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\nX: {}\r\n\r\n", "a".repeat(100_000))),
        ("too many headers", format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n{}\r\n", "X: a\r\n".repeat(200))),
        ("CONNECT with another Host", format!("CONNECT {at} HTTP/1.1\r\nHost: {evil}\r\n\r\nGET / HTTP/1.0\r\n\r\n")),
        ("CONNECT without a port", "CONNECT 127.0.0.1 HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n".to_owned()),
        ("an old protocol", "GET http://evil.net/\r\n".to_owned()),
        ("TLS to the proxy", String::from_utf8_lossy(b"\x16\x03\x01").into_owned()),
        ("SOCKS4", "\x04\x01\x00\x50\x7f\x00\x00\x01\x00".to_owned()),
    ] {
        let answer = house.say(text.as_bytes()).await;
        assert_eq!(sink.came(), 0, "{name} arrived: {answer}");
        assert!(!answer.contains(" 200 "), "{name}: {answer}");
    }
}

/// What a lenient server could take for a second request never reaches it as one.
#[tokio::test]
async fn a_request_within_a_request_is_judged_or_stays_a_body() {
    let sink = Sink::at("127.0.0.1").await;
    let port = sink.port;
    let at = format!("127.0.0.1:{port}");
    let strict = HostEntry { methods: vec!["GET".into(), "POST".into()], paths: vec!["/ok".into()], ..entry("127.0.0.1", port) };
    let house = House::with(vec![strict], Everywhere(Vec::new()), None).await;
    let inner = "GET /secret HTTP/1.1\r\nHost: x\r\n\r\n";
    let chunk = |body: &str| format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (name, text) in [
        ("pipelined", format!("GET http://{at}/ok HTTP/1.1\r\nHost: {at}\r\n\r\nGET http://{at}/secret HTTP/1.1\r\nHost: {at}\r\n\r\n")),
        (
            "pipelined to another host",
            format!("GET http://{at}/ok HTTP/1.1\r\nHost: {at}\r\n\r\nGET http://evil.net/secret HTTP/1.1\r\n\r\n"),
        ),
        ("pipelined in origin form", format!("GET http://{at}/ok HTTP/1.1\r\nHost: {at}\r\n\r\n{inner}")),
        (
            "length and chunks",
            format!(
                "POST http://{at}/ok HTTP/1.1\r\nHost: {at}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                chunk(inner)
            ),
        ),
        (
            "chunks twice",
            format!(
                "POST http://{at}/ok HTTP/1.1\r\nHost: {at}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{inner}"
            ),
        ),
        (
            "a chunk with an extension",
            format!(
                "POST http://{at}/ok HTTP/1.1\r\nHost: {at}\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\"\r\n{inner}\"\r\nx\r\n0\r\n\r\n"
            ),
        ),
        (
            "trailers",
            format!("POST http://{at}/ok HTTP/1.1\r\nHost: {at}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: evil.net\r\n\r\n{inner}"),
        ),
        ("an upgrade", format!("GET http://{at}/ok HTTP/1.1\r\nHost: {at}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n{inner}")),
        (
            "h2c",
            format!(
                "GET http://{at}/ok HTTP/1.1\r\nHost: {at}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n{inner}"
            ),
        ),
        ("a named hop header", format!("GET http://{at}/ok HTTP/1.1\r\nHost: {at}\r\nConnection: host, x\r\nX: y\r\n\r\n")),
        ("the other path", format!("GET http://{at}/secret HTTP/1.1\r\nHost: {at}\r\n\r\n")),
        ("a climbing path", format!("GET http://{at}/ok/../secret HTTP/1.1\r\nHost: {at}\r\n\r\n")),
        ("the other method", format!("PUT http://{at}/ok HTTP/1.1\r\nHost: {at}\r\nContent-Length: 1\r\n\r\nx")),
    ] {
        house.say(text.as_bytes()).await;
        for heard in sink.heard() {
            assert!(heard.contains(" /ok HTTP/1.1\r\n") && heard.contains(&format!("host: {at}\r\n")), "{name}: {heard}");
            assert!(!heard.to_ascii_lowercase().contains("upgrade") && !heard.contains("evil.net"), "{name}: {heard}");
        }
    }
    assert!(sink.heard().iter().all(|heard| !heard.starts_with("GET /secret")));
}

#[tokio::test]
async fn a_tunnel_carries_what_it_was_opened_for() {
    let sink = Sink::at("127.0.0.2").await;
    let port = sink.port;
    // Port 80 and 443 can not be had in a test: the port is named, so raw bytes are allowed; TLS and
    // HTTP are looked at all the same.
    let list = vec![entry("example.com", port), entry("127.0.0.2", port)];
    let house = House::with(list, Everywhere(vec![sink.address]), None).await;
    for (name, bytes) in [
        ("another Host", format!("GET / HTTP/1.1\r\nHost: evil.net:{port}\r\n\r\n").into_bytes()),
        ("another Host after empty lines", format!("\r\n\r\nGET / HTTP/1.1\r\nHost: evil.net:{port}\r\n\r\n").into_bytes()),
        ("another address", format!("GET http://evil.net:{port}/ HTTP/1.1\r\nHost: example.com:{port}\r\n\r\n").into_bytes()),
        ("a small method", format!("get / HTTP/1.1\r\nHost: evil.net:{port}\r\n\r\n").into_bytes()),
        ("a tunnel within", format!("CONNECT evil.net:{port} HTTP/1.1\r\nHost: evil.net:{port}\r\n\r\n").into_bytes()),
        ("TLS for another name", greeting(&["evil.net"], false, 4096)),
        ("TLS for another name in pieces", greeting(&["evil.net"], false, 3)),
        ("TLS for two names", greeting(&["example.com", "evil.net"], false, 4096)),
        ("TLS for no name", greeting(&[], false, 4096)),
        ("TLS with a hidden name", greeting(&["example.com"], true, 4096)),
        ("TLS for a name with a NUL", greeting(&["example.com\0evil.net"], false, 4096)),
        ("TLS of odd records", b"\x16\x03\x01\xff\xffxxxxxxxxxxxxx".to_vec()),
    ] {
        let mut by_connect = house.connect(&format!("example.com:{port}")).await.unwrap();
        let mut by_socks = house.socks(b"example.com", port).await.unwrap();
        for stream in [&mut by_connect, &mut by_socks] {
            stream.write_all(&bytes).await.unwrap();
            let answer = rest(stream).await;
            assert!(!answer.contains("200 OK"), "{name}: {answer}");
        }
        assert!(sink.heard().is_empty(), "{name}: {:?}", sink.heard());
    }
    let records = house.records(24).await;
    assert!(records.iter().any(|record| record.why.contains("hides a name")));
    assert!(records.iter().any(|record| record.why.contains("another host than the tunnel")));
}

/// The system says of its own addresses that they are, and of others that they are not.
#[test]
fn own_addresses_are_known_by_the_system() {
    use crate::gate::{Resolve as _, System};
    assert!(System.is_own([127, 0, 0, 1].into()));
    for address in ["8.8.8.8", "192.0.2.7", "2001:db8::7"] {
        assert!(!System.is_own(address.parse().unwrap()), "{address}");
    }
}
