//! The forms in which a host can be written, as data.

use super::*;

fn check(text: &str, wanted: &str) {
    let found = match Host::parse(text) {
        Ok(Host::Name(name)) => name,
        Ok(Host::Address(address)) => format!("{address} {}", special(address).unwrap_or("public")),
        Err(odd) => format!("{odd:?}"),
    };
    assert_eq!(found, wanted, "{text:?}");
}

#[test]
fn names_have_one_form() {
    for (text, wanted) in [
        ("example.com", "example.com"),
        ("EXAMPLE.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("e\u{301}xample.com", "xn--xample-9ua.com"),
        ("example\u{3002}com", "example.com"),
        ("exa\u{ad}mple.com", "example.com"),
        ("_srv.example.com", "_srv.example.com"),
        ("1.2.3.4.example.com", "1.2.3.4.example.com"),
        ("localhost", "localhost"),
    ] {
        check(text, wanted);
    }
}

#[test]
fn oddities_are_refused() {
    let long = format!("{}.com", "a".repeat(64));
    let longer = format!("{}com", "abcdefgh.".repeat(32));
    for (text, wanted) in [
        ("", "Empty"),
        (".", "Label"),
        ("example.com..", "Label"),
        (".example.com", "Label"),
        ("a..b", "Label"),
        ("example.com\0.evil.com", "Byte"),
        ("example.com\n", "Byte"),
        (" example.com", "Byte"),
        ("example.com\t", "Byte"),
        ("exam%70le.com", "Byte"),
        ("user@example.com", "Byte"),
        ("example.com/", "Byte"),
        ("example.com\\", "Byte"),
        ("example.com#", "Byte"),
        ("example.com?", "Byte"),
        ("[::1", "Byte"),
        ("*.example.com", "Byte"),
        ("a\u{7f}.com", "Byte"),
        ("xn--a.com", "Idna"),
        ("XN--BCHER-KVA-.example", "Idna"),
        (&long, "Long"),
        (&longer, "Long"),
        ("fe80::1%eth0", "Number"),
        ("[fe80::1%25eth0]", "Number"),
        ("1.2.3.256", "Number"),
        ("256.1.1.1", "Number"),
        ("1.2.3.4.5", "Number"),
        ("0x1ffffffff", "Number"),
        ("08.8.8.8", "Number"),
        ("example.0x7f", "Number"),
        ("evil.123", "Number"),
        ("18446744073709551617", "Number"),
    ] {
        check(text, wanted);
    }
}

#[test]
fn numbers_are_converted_before_they_are_judged() {
    for (text, wanted) in [
        ("93.184.216.34", "93.184.216.34 public"),
        ("127.0.0.1", "127.0.0.1 loopback"),
        ("127.1", "127.0.0.1 loopback"),
        ("0x7f000001", "127.0.0.1 loopback"),
        ("0X7F.0.0.1", "127.0.0.1 loopback"),
        ("2130706433", "127.0.0.1 loopback"),
        ("017700000001", "127.0.0.1 loopback"),
        ("0177.0.0.01", "127.0.0.1 loopback"),
        ("0x7f.1", "127.0.0.1 loopback"),
        ("127.0.0.1.", "127.0.0.1 loopback"),
        ("１２７.0.0.1", "127.0.0.1 loopback"),
        ("127\u{3002}0\u{3002}0\u{3002}1", "127.0.0.1 loopback"),
        ("0", "0.0.0.0 unspecified"),
        ("0x", "0.0.0.0 unspecified"),
        ("169.254.169.254", "169.254.169.254 cloud metadata"),
        ("0xa9fea9fe", "169.254.169.254 cloud metadata"),
        ("2852039166", "169.254.169.254 cloud metadata"),
        ("0251.0376.0251.0376", "169.254.169.254 cloud metadata"),
        ("169.254.1.1", "169.254.1.1 link-local"),
        ("10.1", "10.0.0.1 private"),
        ("172.31.255.255", "172.31.255.255 private"),
        ("172.32.0.1", "172.32.0.1 public"),
        ("192.168.1", "192.168.0.1 private"),
        ("100.64.0.1", "100.64.0.1 shared by a carrier (CGNAT)"),
        ("198.18.0.1", "198.18.0.1 for benchmarks"),
        ("224.0.0.1", "224.0.0.1 multicast"),
        ("255.255.255.255", "255.255.255.255 broadcast"),
        ("240.0.0.1", "240.0.0.1 reserved"),
        ("192.0.2.1", "192.0.2.1 for documentation"),
        ("[::1]", "::1 loopback"),
        ("::1", "::1 loopback"),
        ("[::]", ":: unspecified"),
        ("[::ffff:127.0.0.1]", "127.0.0.1 loopback"),
        ("[::ffff:7f00:1]", "127.0.0.1 loopback"),
        ("[::127.0.0.1]", "::7f00:1 loopback"),
        ("[64:ff9b::127.0.0.1]", "64:ff9b::7f00:1 loopback"),
        ("[64:ff9b::a9fe:a9fe]", "64:ff9b::a9fe:a9fe cloud metadata"),
        ("[64:ff9b:1::1]", "64:ff9b:1::1 reserved"),
        ("[2002:7f00:1::]", "2002:7f00:1:: loopback"),
        ("[2002:a9fe:a9fe::1]", "2002:a9fe:a9fe::1 cloud metadata"),
        ("[2001:0:5db8:d822::80ff:fffe]", "2001:0:5db8:d822::80ff:fffe loopback"),
        ("[2001:0:7f00:1::f]", "2001:0:7f00:1::f loopback"),
        ("[2606:4700::5efe:7f00:1]", "2606:4700::5efe:7f00:1 loopback"),
        ("[fd12::5efe:808:808]", "fd12::5efe:808:808 private"),
        ("[fe80::5efe:808:808]", "fe80::5efe:808:808 link-local"),
        ("[fe80::1]", "fe80::1 link-local"),
        ("[fec0::1]", "fec0::1 private"),
        ("[fd00:ec2::254]", "fd00:ec2::254 cloud metadata"),
        ("[fd12::1]", "fd12::1 private"),
        ("[ff02::1]", "ff02::1 multicast"),
        ("[2001:db8::1]", "2001:db8::1 for documentation"),
        ("[2606:4700:4700::1111]", "2606:4700:4700::1111 public"),
        ("[100::1]", "100::1 reserved"),
    ] {
        check(text, wanted);
    }
}

#[test]
fn ports_are_split_off_where_only_one_reading_exists() {
    let show = |text: &str| match split(text) {
        Ok((host, port)) => format!("{host} {}", port.map_or("-".to_owned(), |port| port.to_string())),
        Err(odd) => format!("{odd:?}"),
    };
    for (text, wanted) in [
        ("example.com:443", "example.com 443"),
        ("example.com", "example.com -"),
        ("[::1]:80", "[::1] 80"),
        ("[2606:4700::1]", "[2606:4700::1] -"),
        ("example.com:", "Number"),
        ("example.com:0", "Number"),
        ("example.com:+80", "Number"),
        ("example.com:65536", "Number"),
        ("example.com:80:443", "Number"),
        ("user:pw@example.com:80", "Number"),
        ("::1", "Empty"),
        ("[::1]x", "Byte"),
    ] {
        assert_eq!(show(text), wanted, "{text}");
    }
}
