//! The way out of commands through the real binary: a proxy of their own at level `full`, and nothing
//! else.
//!
//! Hosts are listeners on loopback addresses of the test's own network, which is another one than a
//! command's. Invariant: nothing leaves loopback.

use crate::home::{Home, Out, exec, finish, until};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use tinkerbell_testkit::llm::Turn;

/// A host that answers `hello` to every request and notes it.
struct Host {
    at: String,
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Host {
    fn at(address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let noted = heard.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (mut text, mut block) = (Vec::new(), [0; 4096]);
                while !text.windows(4).any(|four| four == b"\r\n\r\n") {
                    match stream.read(&mut block) {
                        Ok(count) if count > 0 => text.extend_from_slice(&block[..count]),
                        _ => break,
                    }
                }
                noted.lock().unwrap().push(String::from_utf8_lossy(&text).into_owned());
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n").ok();
            }
        });
        Self { at: format!("{address}:{port}"), port, heard }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// A home at level `full` with a model that plays these turns, and more configuration.
async fn home(turns: Vec<Turn>, config: &str) -> Home {
    let mut home = Home::with(turns).await;
    home.level = "full";
    let file = home.tb().join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, format!("{text}{config}")).unwrap();
    home
}

/// Whether this host gives the level; says so where it does not.
fn is_given(out: &Out) -> bool {
    let is_refused = format!("{}{}", out.stdout, out.stderr).contains("TB-SANDBOX-002");
    if is_refused {
        eprintln!("skipped: this host does not give level full");
    }
    !is_refused
}

/// What the newest task's commands did on the network, in order.
async fn connections(home: &Home) -> Vec<Value> {
    let list: Value = serde_json::from_str(&home.run(&["ps", "-a", "--json"]).await.exits(0).stdout).unwrap();
    let log = home.run(&["logs", "--json", list[0]["short"].as_str().unwrap()]).await.exits(0).stdout;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.flat_map(|line| all(&line)).collect()
}

fn all(value: &Value) -> Vec<Value> {
    match value {
        Value::Object(fields) => match fields.get("connections") {
            Some(Value::Array(found)) => found.clone(),
            _ => fields.values().flat_map(all).collect(),
        },
        Value::Array(items) => items.iter().flat_map(all).collect(),
        _ => Vec::new(),
    }
}

fn last_request(home: &Home) -> String {
    let body = home.model.as_ref().unwrap().requests().last().unwrap().body.clone();
    // Not the prompt: what was told of the command.
    body["messages"].as_array().unwrap().last().unwrap().to_string()
}

/// Python because a shell can open neither sockets nor proxies of its own; curl where it is installed.
const TRY: &str = r#"
import os, socket, urllib.request, urllib.error
def get(url):
    try: return urllib.request.urlopen(url, timeout=10).read().decode().strip()
    except urllib.error.HTTPError as e: return f"{e.code} {e.read().decode().strip()}"
    except Exception as e: return f"failed {e}"
def broke(name, act):
    try: act()
    except OSError as e: return
    print("BROKE", name)
ok, other, port = os.environ["OK"], os.environ["OTHER"], int(os.environ["PORT"])
print("allowed", get(f"http://{ok}/a"))
print("refused", get(f"http://{other}/b"))
print("name", get("http://evil.example/c"))
print("metadata", get("http://169.254.169.254/latest"))
broke("direct", lambda: socket.create_connection(("127.0.0.2", port), 3))
broke("direct to loopback", lambda: socket.create_connection(("127.0.0.1", port), 3))
broke("direct to the world", lambda: socket.create_connection(("192.0.2.1", 80), 3))
broke("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)))
broke("dns", lambda: socket.getaddrinfo("example.com", 80))
broke("fast open", lambda: socket.socket().sendto(b"x", 0x20000000, ("127.0.0.2", port)))
s = socket.create_connection(("127.0.0.1", 3128), 5)
s.sendall(b"\x05\x01\x00"); s.recv(2)
name = b"127.0.0.2\x00.evil.example"
s.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big"))
print("nul", s.recv(10)[1])
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_listed_host_is_reached_and_nothing_else_is() {
    let (listed, other) = (Host::at("127.0.0.2"), Host::at("127.0.0.3"));
    let script = TRY.replace('"', "\\\"").replace('$', "\\$");
    let curl = format!(
        "command -v curl >/dev/null && {{ curl -s http://{0}/curl; curl -s --proxy $ALL_PROXY http://{0}/socks; curl -s -o /dev/null -w 'code %{{http_code}}\\n' http://{1}/curl; }}",
        listed.at, other.at
    );
    let text = format!("OK={} OTHER={} PORT={} python3 -c \"{script}\"; {curl}; true", listed.at, other.at, listed.port);
    let config = format!("[[egress.host]]\nname = \"127.0.0.2\"\nports = [{}]\n", listed.port);
    let home = home(vec![exec(&text), Turn::text("done")], &config).await;
    if !is_given(&home.run(&["run", "fetch"]).await) {
        return;
    }
    let said = last_request(&home);
    assert!(said.contains("allowed hello"), "{said}");
    assert!(!said.contains("BROKE") && !said.contains("Traceback"), "{said}");
    assert!(said.contains("refused 403") && said.contains("name 403") && said.contains("metadata 403") && said.contains("nul 2"), "{said}");
    assert!(said.contains("[network: 127.0.0.3:") && said.contains("Only the user can allow more"), "{said}");
    assert!(other.heard().is_empty());
    assert!(listed.heard()[0].starts_with("GET /a HTTP/1.1\r\n"), "{:?}", listed.heard());
    let found = connections(&home).await;
    let allowed: Vec<&Value> = found.iter().filter(|one| one["allowed"] == true).collect();
    assert_eq!((allowed[0]["host"].as_str(), allowed[0]["address"].as_str()), (Some("127.0.0.2"), Some("127.0.0.2")), "{found:?}");
    assert_eq!(allowed[0]["why"], "egress.host 127.0.0.2");
    for host in ["127.0.0.3", "evil.example", "169.254.169.254"] {
        assert!(found.iter().any(|one| one["host"] == host && one["allowed"] == false), "{host}: {found:?}");
    }
    let list: Value = serde_json::from_str(&home.run(&["ps", "-a", "--json"]).await.exits(0).stdout).unwrap();
    home.run(&["logs", list[0]["short"].as_str().unwrap()]).await.exits(0).says("network: refused evil.example:80");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sees_a_placeholder_and_its_host_the_value() {
    let (owner, other) = (Host::at("127.0.0.2"), Host::at("127.0.0.3"));
    let secret = "a-value-that-nobody-may-see";
    let config = format!(
        "[[egress.host]]\nname = \"127.0.0.2\"\nports = [{}]\ncredential = \"API_TOKEN\"\n[[egress.host]]\nname = \"127.0.0.3\"\nports = [{}]\n",
        owner.port, other.port
    );
    let code = format!(
        "import os, urllib.request as u; t = os.environ['API_TOKEN']; print(t, t.encode().hex()); \
         [u.urlopen(u.Request('http://' + at + '/', headers={{'Authorization': 'Bearer ' + t}})).read() for at in ('{}', '{}')]",
        owner.at, other.at
    );
    let spy = "; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c nobody-may-see";
    let home = home(vec![exec(&format!("python3 -c \"{code}\"{spy}; env; true")), Turn::text("done")], &config).await;
    let mut command = home.command(&["run", "fetch"]);
    command.env("API_TOKEN", secret);
    if !is_given(&finish(command, &["run"]).await) {
        return;
    }
    let said = last_request(&home);
    assert!(said.contains("tinkerbell-placeholder-API_TOKEN") && !said.contains("Traceback"), "{said}");
    assert!(!said.contains(secret) && !said.contains("[API_TOKEN]"), "it was there, and only redacted: {said}");
    let mark = |value: &str| format!("Bearer {value}").to_lowercase();
    assert!(owner.heard()[0].to_lowercase().contains(&mark(secret)), "{:?}", owner.heard());
    assert!(other.heard()[0].to_lowercase().contains(&mark("tinkerbell-placeholder-API_TOKEN")), "{:?}", other.heard());
    for path in crate::home::walk(&home.tb()) {
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{}", path.display());
    }
}

/// A host that speaks TLS, with a certificate by an authority whose file is given back.
async fn sealed(dir: &std::path::Path) -> (u16, Arc<Mutex<Vec<String>>>, std::path::PathBuf) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let file = dir.join("authority.pem");
    std::fs::write(&file, params.self_signed(&root_key).unwrap().pem()).unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.2".to_owned()]).unwrap().signed_by(&key, &Issuer::new(params, root_key)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], der).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let noted = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut text = Vec::new();
            while !text.windows(4).any(|four| four == b"\r\n\r\n") && stream.read_buf(&mut text).await.is_ok_and(|count| count > 0) {}
            noted.lock().unwrap().push(String::from_utf8_lossy(&text).into_owned());
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n").await.ok();
            stream.shutdown().await.ok();
        }
    });
    (port, heard, file)
}

/// Ordinary programs take the proxy's certificate, and what they ask within TLS is judged.
#[tokio::test(flavor = "multi_thread")]
async fn requests_within_tls_are_judged_for_ordinary_programs() {
    let dir = tempfile::tempdir().unwrap();
    let (port, heard, authority) = sealed(dir.path()).await;
    let at = format!("https://127.0.0.2:{port}");
    let text = format!(
        "python3 -c \"import urllib.request as u; print('python', u.urlopen('{at}/ok').read())\"; \
         if command -v curl >/dev/null; then \
         curl -sS {at}/ok; curl -sS -X PUT -d x {at}/ok; curl -sS {at}/secret; curl -sS -k --noproxy '*' {at}/ok; fi; \
         if command -v git >/dev/null; then git ls-remote {at}/ok/repo.git 2>&1; fi; true"
    );
    let config = format!(
        "[[egress.host]]\nname = \"127.0.0.2\"\nports = [{port}]\nmethods = [\"GET\"]\npaths = [\"/ok\"]\ncredential = \"API_TOKEN\"\nheader = \"X-Token: {{}}\"\n"
    );
    let home = home(vec![exec(&text), Turn::text("done")], &config).await;
    let mut command = home.command(&["run", "fetch"]);
    command.env("API_TOKEN", "sealed-value").env("SSL_CERT_FILE", authority);
    if !is_given(&finish(command, &["run"]).await) {
        return;
    }
    let said = last_request(&home);
    assert!(said.contains("python b'hello") && !said.contains("Traceback"), "{said}");
    assert!(!said.contains("sealed-value"), "{said}");
    let heard = heard.lock().unwrap().clone();
    assert!(heard.iter().all(|one| one.starts_with("GET /ok") && one.contains("x-token: sealed-value\r\n")), "{heard:?}");
    if said.contains("hello\\nhello") || said.contains("no rule allows PUT") {
        assert!(said.contains("no rule allows PUT at this path") && said.contains("no rule allows GET at this path"), "{said}");
    }
    let found = connections(&home).await;
    assert!(!format!("{found:?}").contains("/secret"), "no path is written down: {found:?}");
    let allowed: Vec<&Value> = found.iter().filter(|one| one["allowed"] == true).collect();
    assert!(allowed.iter().all(|one| one["scheme"] == "connect"), "{found:?}");
    assert!(allowed.iter().any(|one| one["why"] == "egress.host 127.0.0.2" && one["address"] == "127.0.0.2"), "{found:?}");
}

/// The proxy belongs to the keeper: it serves on while no daemon lives, and what it wrote down is told
/// once by the one that comes back.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_out_outlives_the_daemon_and_is_told_once() {
    let host = Host::at("127.0.0.2");
    let config = format!("[[egress.host]]\nname = \"127.0.0.2\"\nports = [{}]\n", host.port);
    let get = |path: &str| format!("python3 -c \"import urllib.request as u; print(u.urlopen('http://{}/{path}').read())\"", host.at);
    let text = format!("{}; echo first; while ! test -e go; do sleep 0.02; done; {}; echo second", get("one"), get("two"));
    let turns = vec![Turn::call("exec", json!({ "cmd": text, "yield_ms": 30000 })), Turn::text("done")];
    let home = home(turns, &config).await;
    let task = home.submit(&["fetch"]).await;
    let status = || std::fs::read_to_string(home.tb().join("state/daemon.log")).unwrap_or_default();
    until("the command has begun, or may not", || host.heard().len() == 1 || status().contains("TB-SANDBOX-002")).await;
    if host.heard().is_empty() {
        eprintln!("skipped: this host does not give level full");
        return;
    }
    home.until_output("first").await;
    let tree = home.inspect(&task).await["workspace"].as_str().unwrap().to_owned();
    home.kill_daemon().await;
    std::fs::write(std::path::Path::new(&tree).join("go"), "").unwrap();
    until("the second request came without a daemon", || host.heard().len() == 2).await;
    home.run(&["wait", &task]).await.exits(0);
    let found = connections(&home).await;
    assert_eq!(found.iter().map(|one| one["count"].as_u64().unwrap()).sum::<u64>(), 2, "{found:?}");
    assert!(found.iter().all(|one| one["methods"] == json!(["GET 2"])), "{found:?}");
}

/// Nobody waits for a command that goes on in the background; what it does is in the journal all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_is_told_by_the_check_or_the_end() {
    for args in [&["run", "fetch"][..], &["run", "--verify", "true", "fetch"]] {
        let host = Host::at("127.0.0.2");
        let config = format!("[[egress.host]]\nname = \"127.0.0.2\"\nports = [{}]\n", host.port);
        let get = |path: &str| format!("python3 -c \"import urllib.request as u; print(u.urlopen('http://{}/{path}').read())\"", host.at);
        let text = format!("while ! test -e go; do sleep 0.02; done; {}; touch gone; exec sleep 600", get("one"));
        let turns = vec![
            Turn::call("exec", json!({ "cmd": text, "yield_ms": 250 })),
            Turn::call("write", json!({ "path": "go", "content": "x\n" })),
            exec("while ! test -e gone; do sleep 0.02; done"),
            Turn::text("done"),
            Turn::text("done"),
        ];
        let home = home(turns, &config).await;
        if !is_given(&home.run(args).await) {
            return;
        }
        let found = connections(&home).await;
        assert_eq!(found.iter().map(|one| one["count"].as_u64().unwrap()).sum::<u64>(), 1, "{args:?}: {found:?}");
        assert_eq!(found[0]["methods"], json!(["GET 1"]), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_level_full_there_is_no_way_out() {
    let mut home = home(vec![exec("true"), Turn::text("done")], "[egress]\npresets = [\"cargo\"]\n").await;
    home.level = "landlock";
    let out = home.run(&["run", "fetch"]).await;
    let text = format!("{}{}", out.stdout, out.stderr);
    if is_given(&out) {
        assert!(text.contains("TB-EGRESS-001") && text.contains("needs level `full`"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_the_operators_word_and_mistakes_are_told() {
    let home = Home::bare();
    for (text, code) in [
        ("[sandbox]\nnetwork = \"proxy\"\n", "TB-EGRESS-003"),
        ("[[egress.host]]\nname = \"*.com\"\n", "TB-EGRESS-002"),
        ("[[egress.host]]\nname = \"a.example\"\nmethod = [\"GET\"]\n", "TB-CONFIG-002"),
        ("[egress]\npresets = [\"everything\"]\n", "TB-CONFIG-002"),
    ] {
        home.config(text);
        home.run(&["config", "validate"]).await.exits(78).says(code);
    }
    let home = Home::with(vec![Turn::text("done")]).await;
    for text in ["[egress]\npresets = [\"cargo\"]\n", "[sandbox]\nnetwork = \"proxy\"\n", "[[egress.host]]\nname = \"a.example\"\n"] {
        std::fs::create_dir_all(home.repo.join(".tinkerbell")).unwrap();
        std::fs::write(home.repo.join(".tinkerbell/config.toml"), text).unwrap();
        home.run(&["run", "x"]).await.says("TB-CONFIG-006");
    }
    let home = Home::bare();
    home.config("[egress]\npresets = [\"cargo\", \"git\"]\n");
    home.run(&["doctor"]).await.says("proxy: commands reach preset cargo, preset git");
}
