//! Reading within TLS: what the rules see, what the host gets, what the command never does.

use super::house::*;
use crate::credential::placeholder;
use crate::options::HostEntry;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A host with a certificate for `name` by an authority whose file is given back.
async fn host(name: &str) -> (u16, Arc<Mutex<Vec<String>>>, tempfile::NamedTempFile) {
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&root_key).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), root.pem()).unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &Issuer::new(params, root_key)).unwrap();
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![leaf.der().clone()], der).unwrap()));
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let noted = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(serve(stream, noted.clone()));
            }
        }
    });
    (port, heard, file)
}

/// Speaks TLS to the proxy as a command does that trusts its bundle.
async fn ask(house: &House, name: &str, stream: TcpStream, text: &str) -> String {
    let mut roots = RootCertStore::empty();
    let bundle = house.gate.tls.as_ref().unwrap().bundle();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bundle).unwrap();
    roots.add_parsable_certificates(rustls_native_certs::load_certs_from_paths(Some(file.path()), None).certs);
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    match connector.connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await {
        Ok(mut stream) => {
            stream.write_all(text.as_bytes()).await.unwrap();
            rest(&mut stream).await
        }
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn requests_are_judged_and_credentials_added_within_tls() {
    let (port, heard, authority) = host("example.com").await;
    let known = HostEntry {
        methods: vec!["GET".into(), "POST".into()],
        paths: vec!["/api".into()],
        credential: Some("KEY".into()),
        ..entry("example.com", port)
    };
    let list = vec![known, entry("127.0.0.2", port), entry("other.example", port)];
    let house = House::with(list, Everywhere(vec!["127.0.0.2".parse().unwrap()]), Some(authority.path())).await;
    let (at, mark) = (format!("example.com:{port}"), placeholder("KEY"));
    for tunnel in [house.connect(&at).await.unwrap(), house.socks(b"example.com", port).await.unwrap()] {
        let text = format!(
            "GET /api/a HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {mark}\r\n\r\n\
             POST /api/b HTTP/1.1\r\nHost: {at}\r\nX-Key: {mark}\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
        );
        let answer = ask(&house, "example.com", tunnel, &text).await;
        assert_eq!(answer.matches("200 OK").count(), 2, "{answer}");
        assert!(!answer.contains("true-value"));
    }
    let got = std::mem::take(&mut *heard.lock().unwrap());
    assert_eq!(got.len(), 4);
    assert!(got[0].contains("authorization: Bearer true-value\r\n") && got[1].contains("x-key: true-value\r\n"), "{got:?}");
    assert!(got.iter().all(|text| !text.contains("placeholder")));
    for (text, why) in [
        (format!("GET /secret HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"), "paths"),
        (format!("PUT /api HTTP/1.1\r\nHost: {at}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), "methods"),
        (format!("GET /api HTTP/1.1\r\nHost: evil.net:{port}\r\nConnection: close\r\n\r\n"), "one host"),
        (format!("GET https://evil.net:{port}/api HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"), "one host"),
    ] {
        let answer = ask(&house, "example.com", house.connect(&at).await.unwrap(), &text).await;
        assert!(answer.contains("403") && answer.contains(why), "{answer}");
    }
    assert!(heard.lock().unwrap().is_empty());
    let records = house.records(6).await;
    let kept = records.iter().find(|record| record.methods == ["GET 1", "POST 1"]).unwrap();
    assert!(kept.allowed && kept.why == "egress.host example.com" && kept.address == "127.0.0.2", "{kept:?}");
    assert!(!serde_json::to_string(&records).unwrap().contains("true-value"));
}

/// A placeholder that is sent to another host stays one, sealed or not.
#[tokio::test]
async fn a_credential_goes_to_its_own_host_only() {
    let sink = Sink::at("127.0.0.3").await;
    let known = HostEntry { credential: Some("KEY".into()), header: Some("X-Key: {}".into()), ..entry("example.com", 443) };
    let list = vec![known, entry("other.example", sink.port), entry("127.0.0.3", sink.port)];
    let house = House::with(list, Everywhere(vec![sink.address]), None).await;
    let (at, mark) = (format!("other.example:{}", sink.port), placeholder("KEY"));
    house.say(format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\nX-Key: {mark}\r\nConnection: close\r\n\r\n").as_bytes()).await;
    let heard = sink.heard();
    assert!(heard[0].contains(&mark) && !heard[0].contains("true-value"), "{heard:?}");
}

#[tokio::test]
async fn a_host_whose_certificate_is_wrong_gets_nothing() {
    for (name, trusted) in [("another.example", true), ("example.com", false)] {
        let (port, heard, authority) = host(name).await;
        let known = HostEntry { methods: vec!["GET".into()], ..entry("example.com", port) };
        let list = vec![known, entry("127.0.0.2", port)];
        let house = House::with(list, Everywhere(vec!["127.0.0.2".parse().unwrap()]), trusted.then(|| authority.path())).await;
        let at = format!("example.com:{port}");
        let text = format!("GET / HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
        let answer = ask(&house, "example.com", house.connect(&at).await.unwrap(), &text).await;
        assert!(answer.contains("502") && answer.contains("not to be trusted"), "{answer}");
        assert!(heard.lock().unwrap().is_empty());
    }
}
