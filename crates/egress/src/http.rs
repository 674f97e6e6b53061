//! Requests of HTTP, judged one by one, also on connections that are kept.
//!
//! A request is never passed on as it came: it is read by one parser, judged, and written anew from what
//! was read, so that nothing can hide between two readings. Invariant: the host that was judged is the
//! host in the request that is sent, on a connection to an address that was tested for it.

mod body;

use crate::credential;
use crate::gate::{Gate, No, Target, over_budget};
use crate::host::{Host, Odd, split};
use crate::record::Record;
use crate::rules::{Asked, Refusal};
use crate::tunnel;
use body::{Body, Counted, text};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Longest time for the head of a request; a kept connection is closed after it, too.
const HEAD: Duration = Duration::from_secs(60);
/// Bytes of a head that are read at once; one of twice as many is refused in any case.
const HEAD_BYTES: usize = 32 << 10;
/// Most headers.
const HEADERS: usize = 128;
/// Longest time for the head of an answer.
const ANSWER: Duration = Duration::from_secs(600);
/// Longest time for the greeting of TLS on either side.
const GREETING: Duration = Duration::from_secs(20);

/// Headers that speak of one connection only.
const HOP: [HeaderName; 11] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("http2-settings"),
];

/// Headers that name another method than the request's own. Servers that hand headers on as variables take `_` for `-`.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Headers that name another path, which some hosts obey.
const REWRITES: [&str; 3] = ["x-original-url", "x-rewrite-url", "x-original-uri"];

/// The place that a connection of the command takes, until the last who works for it is done.
pub type Place = Arc<tokio::sync::OwnedSemaphorePermit>;

/// One host and port that all requests of a connection go to.
pub struct Fixed {
    /// Where.
    pub target: Target,
    /// Whether the command speaks TLS, and the host is to be spoken to in TLS.
    pub is_sealed: bool,
    /// The record of the connection.
    pub record: Arc<Record>,
    /// A connection that stands already.
    pub first: Option<TcpStream>,
}

/// Serves requests on one connection of the command, to its end.
pub async fn serve<S>(gate: Arc<Gate>, stream: S, fixed: Option<Fixed>, place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut fixed = fixed;
    let first = fixed.as_mut().and_then(|fixed| fixed.first.take());
    let record = fixed.as_ref().map(|fixed| fixed.record.clone());
    let via =
        Arc::new(Via { gate: gate.clone(), fixed, first: tokio::sync::Mutex::new(first), place, kept: tokio::sync::Mutex::new(None) });
    let service = hyper::service::service_fn(move |request| {
        let via = via.clone();
        async move { Ok::<_, Infallible>(via.answer(request).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES).max_headers(HEADERS).half_close(true);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await
        && error.is_parse()
    {
        let why = format!("no request of HTTP as it must be: {error}");
        record.unwrap_or_else(|| gate.log.begin("http", "", 0)).refuse(&why);
    }
}

/// One connection of the command.
struct Via {
    gate: Arc<Gate>,
    fixed: Option<Fixed>,
    first: tokio::sync::Mutex<Option<TcpStream>>,
    place: Place,
    kept: tokio::sync::Mutex<Option<Kept>>,
}

/// A connection to a host that may serve the next request.
struct Kept {
    host: Host,
    port: u16,
    sender: SendRequest<Body>,
}

/// A request that was judged, on its way.
struct Judged {
    target: Target,
    is_sealed: bool,
    rule: usize,
    record: Arc<Record>,
}

impl Via {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let asked = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let done = match (&self.fixed, request.method()) {
            (None, &Method::CONNECT) => self.connect(request).await,
            (None, _) => self.absolute(request).await,
            (Some(fixed), _) => self.within(fixed, request).await,
        };
        done.unwrap_or_else(|no| refusal(&no, self.fixed.as_ref().map_or(asked, |fixed| fixed.target.host.to_string())))
    }

    /// `CONNECT host:port`.
    async fn connect(&self, request: Request<Incoming>) -> Result<Response<Body>, No> {
        let (host, port) = authority(request.uri(), None).inspect_err(|no| self.refuse("connect", request.uri(), no))?;
        let record = self.gate.log.begin("connect", &name(&host), port);
        agree(request.headers(), &host, port, None).map_err(|no| note(no, &record))?;
        let ready = tunnel::open(&self.gate, host, port, &record).await.map_err(|no| note(no, &record))?;
        let (gate, place) = (self.gate.clone(), self.place.clone());
        tokio::spawn(async move {
            // A client that has gone needs no tunnel.
            if let Ok(upgraded) = hyper::upgrade::on(request).await {
                tunnel::carry(gate, Box::new(TokioIo::new(upgraded)), ready, place).await;
            }
        });
        Ok(Response::new(text("")))
    }

    /// `GET http://host/path`.
    async fn absolute(&self, request: Request<Incoming>) -> Result<Response<Body>, No> {
        let uri = request.uri();
        if uri.scheme_str() != Some("http") {
            let why = "this is a proxy: ask it with a whole http:// address, or with CONNECT";
            let no = No::Refused(Refusal { why: why.into(), way: "set HTTPS_PROXY and HTTP_PROXY as the environment has them".into() });
            self.refuse("http", uri, &no);
            return Err(no);
        }
        let (host, port) = authority(uri, Some(80)).inspect_err(|no| self.refuse("http", uri, no))?;
        let record = self.gate.log.begin("http", &name(&host), port);
        agree(request.headers(), &host, port, Some(80)).map_err(|no| note(no, &record))?;
        let target = self.gate.admit(host, port).await.map_err(|no| note(no, &record))?;
        self.pass(request, target, false, record).await
    }

    /// `GET /path` within a tunnel.
    async fn within(&self, fixed: &Fixed, request: Request<Incoming>) -> Result<Response<Body>, No> {
        let target = fixed.target.clone();
        let usual = if fixed.is_sealed { 443 } else { 80 };
        let is_same = || {
            if request.method() == Method::CONNECT {
                return Err(different("a tunnel within a tunnel"));
            }
            if request.uri().authority().is_some() {
                let (host, port) = authority(request.uri(), Some(usual))?;
                if (host, port) != (target.host.clone(), target.port) {
                    return Err(different("the address differs from the host of the tunnel"));
                }
            }
            agree(request.headers(), &target.host, target.port, Some(usual))
        };
        if let Err(no) = is_same() {
            self.gate.log.begin("http", &name(&target.host), target.port).refuse(&words(&no));
            return Err(no);
        }
        self.pass(request, target, fixed.is_sealed, fixed.record.clone()).await
    }

    /// Judges the request itself and sends it.
    async fn pass(&self, request: Request<Incoming>, target: Target, is_sealed: bool, record: Arc<Record>) -> Result<Response<Body>, No> {
        let path = request.uri().path();
        let path = if path.is_empty() { "/" } else { path };
        let is_shared = self.fixed.is_some();
        let refused = |no: No| {
            // Others on this connection are allowed: the refusal is a record of its own.
            if is_shared {
                self.gate.log.begin("http", &name(&target.host), target.port).refuse(&words(&no));
                return no;
            }
            note(no, &record)
        };
        let asked = Asked {
            method: request.method().as_str(),
            path,
            has_query: request.uri().query().is_some(),
            content_type: only(request.headers(), &header::CONTENT_TYPE),
        };
        let rule = self.gate.allow.request(&target.reach, asked).map_err(|refusal| refused(refusal.into()))?;
        record.allow(self.gate.rule_id(rule));
        record.method(request.method().as_str());
        let judged = Judged { target: target.clone(), is_sealed, rule, record: record.clone() };
        let request = self.prepare(request, &judged).map_err(refused)?;
        self.send(request, &judged).await.inspect_err(|no| record.fail(&words(no)))
    }

    /// The request as the host gets it, written anew.
    fn prepare(&self, request: Request<Incoming>, judged: &Judged) -> Result<Request<Body>, No> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') || path == "*" { path.to_owned() } else { format!("/{path}") };
        let size = head_bytes(&parts.headers) + path.len() as u64;
        parts.uri = path.parse::<Uri>().map_err(|_| different("the path is malformed"))?;
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        strip(&mut parts.headers);
        parts.headers.remove(header::CONTENT_LENGTH);
        let usual = if judged.is_sealed { 443 } else { 80 };
        let host = if judged.target.port == usual {
            judged.target.host.to_string()
        } else {
            format!("{}:{}", judged.target.host, judged.target.port)
        };
        let host = HeaderValue::from_str(&host).map_err(|_| different("the host can not stand in a header"))?;
        parts.headers.insert(header::HOST, host);
        let Some(rule) = self.gate.allow.rules().get(judged.rule) else { return Err(different("there is no such rule")) };
        if rule.has_methods() {
            // Some hosts obey these instead of the method that was judged.
            without(&mut parts.headers, &OVERRIDES);
        }
        if rule.has_paths() {
            without(&mut parts.headers, &REWRITES);
        }
        credential::put(&mut parts.headers, rule, &self.gate.values, (!judged.is_sealed).then_some(judged.target.port))
            .map_err(No::Failed)?;
        let known = hyper::body::Body::size_hint(&body).exact().unwrap_or(0);
        if known.saturating_add(size) > self.gate.left(judged.rule) {
            return Err(over_budget(&rule.id).into());
        }
        self.gate.spend(judged.rule, size);
        judged.record.up(size);
        let body = Counted::up(body, judged.record.clone(), self.gate.clone(), judged.rule);
        Ok(Request::from_parts(parts, body.boxed()))
    }

    async fn send(&self, request: Request<Body>, judged: &Judged) -> Result<Response<Body>, No> {
        let (host, port) = (&judged.target.host, judged.target.port);
        let mut kept = self.kept.lock().await.take().filter(|kept| kept.host == *host && kept.port == port && kept.sender.is_ready());
        let mut request = request;
        loop {
            let is_kept = kept.is_some();
            let mut sender = match kept.take() {
                Some(kept) => kept.sender,
                None => self.reach(judged).await?,
            };
            let sent = tokio::time::timeout(ANSWER, sender.try_send_request(request)).await;
            match sent.map_err(|_| No::Failed("no answer in time".into()))? {
                Ok(response) => {
                    *self.kept.lock().await = Some(Kept { host: host.clone(), port, sender });
                    return Ok(self.returned(response, judged));
                }
                // The host had closed the kept connection meanwhile: nothing was sent.
                Err(mut error) if is_kept => match error.take_message() {
                    Some(message) => request = message,
                    None => return Err(No::Failed(error.into_error().to_string())),
                },
                Err(error) => return Err(No::Failed(error.into_error().to_string())),
            }
        }
    }

    /// A new connection to the host.
    async fn reach(&self, judged: &Judged) -> Result<SendRequest<Body>, No> {
        let stream = match self.first.lock().await.take() {
            Some(stream) => stream,
            None => judged.target.dial().await.map_err(No::Failed)?,
        };
        if let Ok(address) = stream.peer_addr() {
            judged.record.dialled(address);
        }
        if !judged.is_sealed {
            return hand_shake(stream).await;
        }
        let tls = self.gate.tls.as_ref().ok_or_else(|| No::Failed("TLS can not be read here".into()))?;
        let (connector, name) = tls.outward(&judged.target.host).map_err(No::Failed)?;
        let greeted = tokio::time::timeout(GREETING, connector.connect(name, stream)).await;
        let stream = greeted.map_err(|_| No::Failed("no greeting of TLS in time".into()))?;
        hand_shake(stream.map_err(|error| No::Failed(format!("its TLS is not to be trusted: {error}")))?).await
    }

    fn returned(&self, response: Response<Incoming>, judged: &Judged) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        strip(&mut parts.headers);
        parts.extensions.clear();
        parts.version = Version::HTTP_11;
        judged.record.down(head_bytes(&parts.headers));
        Response::from_parts(parts, Counted::down(body, judged.record.clone()).boxed())
    }

    fn refuse(&self, scheme: &str, uri: &Uri, no: &No) {
        let asked = uri.authority().map_or("", |authority| authority.as_str());
        // What stands before the host is no host.
        let asked = asked.rsplit('@').next().unwrap_or_default();
        self.gate.log.begin(scheme, asked, 0).refuse(&words(no));
    }
}

async fn hand_shake<S>(stream: S) -> Result<SendRequest<Body>, No>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = client::Builder::new().max_buf_size(HEAD_BYTES * 4).max_headers(HEADERS).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = made.map_err(|error| No::Failed(error.to_string()))?;
    // It ends with the last who holds its sender; how it ends, the request tells.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Host and port of an address; the port may be missing only where one is usual.
fn authority(uri: &Uri, usual: Option<u16>) -> Result<(Host, u16), No> {
    let text = uri.authority().map_or("", |authority| authority.as_str());
    let (host, port) = split(text).map_err(Refusal::odd)?;
    let port = port.or(usual).ok_or_else(|| Refusal::odd(Odd::Number))?;
    Ok((host, port))
}

/// Whether the `Host` header says the same: at most one, and the same host and port.
fn agree(headers: &HeaderMap, host: &Host, port: u16, usual: Option<u16>) -> Result<(), No> {
    let mut all = headers.get_all(header::HOST).iter();
    let Some(first) = all.next() else { return Ok(()) };
    if all.next().is_some() {
        return Err(different("there are two Host headers"));
    }
    let said = first.to_str().ok().and_then(|text| split(text).ok());
    let is_same =
        said.is_some_and(|(said, at)| said == *host && (at == Some(port) || (at.is_none() && usual.is_none_or(|usual| usual == port))));
    if is_same { Ok(()) } else { Err(different("the Host header differs from the address")) }
}

fn different(why: &str) -> No {
    No::Refused(Refusal { why: why.to_owned(), way: "a request must name one host, the same in every place".to_owned() })
}

/// Takes out what speaks of one connection only, and what a header names as such.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH && *name != header::AUTHORIZATION)
        .collect();
    for name in HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// The value of a header that is there once; empty where it is not.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    let mut all = headers.get_all(name).iter();
    let first = all.next().filter(|_| all.next().is_none());
    first.and_then(|value| value.to_str().ok()).map(str::trim).unwrap_or_default()
}

fn head_bytes(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| name.as_str().len() as u64 + value.len() as u64 + 4).sum()
}

/// The host as records spell it.
pub fn name(host: &Host) -> String {
    match host {
        Host::Name(name) => name.clone(),
        Host::Address(address) => address.to_string(),
    }
}

/// What is told of it.
pub fn words(no: &No) -> String {
    match no {
        No::Refused(refusal) => refusal.why.clone(),
        No::Failed(why) => why.clone(),
    }
}

/// Writes it into the record.
pub fn note(no: No, record: &Record) -> No {
    match &no {
        No::Refused(refusal) => record.refuse(&refusal.why),
        No::Failed(why) => record.fail(why),
    }
    no
}

/// The answer that the command gets instead.
fn refusal(no: &No, host: String) -> Response<Body> {
    let (status, line) = match no {
        No::Refused(refusal) => (StatusCode::FORBIDDEN, format!("tinkerbell egress: refused {host}: {refusal}\n")),
        No::Failed(why) => (StatusCode::BAD_GATEWAY, format!("tinkerbell egress: {host}: {why}\n")),
    };
    let mut response = Response::new(text(&line));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Takes headers away, in any spelling.
fn without(headers: &mut HeaderMap, all: &[&str]) {
    let other = |name: &&HeaderName| all.contains(&name.as_str().replace('_', "-").as_str());
    let names: Vec<HeaderName> = headers.keys().filter(other).cloned().collect();
    names.iter().for_each(|name| drop(headers.remove(name)));
}

#[cfg(test)]
#[test]
fn no_spelling_of_another_method_is_carried() {
    let mut headers = HeaderMap::new();
    for name in
        ["x-http-method-override", "X_HTTP_Method_Override", "x-http_method-override", "x_http_method", "x-method_override", "x-method"]
    {
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("DELETE"));
    }
    without(&mut headers, &OVERRIDES);
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-method"]);
}
