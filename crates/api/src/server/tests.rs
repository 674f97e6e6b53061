//! Rules of the gate: who is served.

use super::*;
use axum::http::Method;
use tinkerbell_core::port::Runtime;
use tower::ServiceExt as _;

struct Still;

impl Clock for Still {
    fn now(&self) -> tinkerbell_core::clock::Stamp {
        tinkerbell_core::clock::Stamp::default()
    }
    fn sleep(&self, _: std::time::Duration) -> futures_util::future::BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

impl Daemon for Still {
    fn status(&self) -> DaemonStatus {
        DaemonStatus::default()
    }
    fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
    fn alive(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
    fn upgrade(&self, request: UpgradeRequest) -> BoxFuture<'_, Result<UpgradeView, Fault>> {
        Box::pin(async move { Ok(UpgradeView { state: "looked".to_owned(), binary: request.binary, ..UpgradeView::default() }) })
    }
    fn halt(&self) -> BoxFuture<'_, HaltView> {
        Box::pin(async { HaltView::default() })
    }
    fn reload(&self) -> Result<String, Fault> {
        Ok("nothing has changed".to_owned())
    }
    fn stop(&self) {}
    fn environment(&self, _: Vec<tinkerbell_secret::Named>) {}
}

mod idle {
    use futures_util::future::BoxFuture;
    use futures_util::stream::BoxStream;
    use tinkerbell_core::code::Fault;
    use tinkerbell_core::port::{Command, Difference, ListQuery, Listed, Listing, Runtime, Seen, Submission};
    use tinkerbell_core::words::{BlobRef, Lsn, TaskId};

    /// An engine that refuses everything.
    pub struct Idle;

    fn no() -> Fault {
        Fault::new("TB-TEST-001", 1, "no")
    }

    impl Runtime for Idle {
        fn submit(&self, _: Submission) -> BoxFuture<'_, Result<(TaskId, Lsn), Fault>> {
            Box::pin(async { Err(no()) })
        }
        fn command(&self, _: TaskId, _: Command) -> BoxFuture<'_, Result<String, Fault>> {
            Box::pin(async { Err(no()) })
        }
        fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Listed, Fault>> {
            Box::pin(async { Err(no()) })
        }
        fn list(&self, _: ListQuery) -> BoxFuture<'_, Result<Listing, Fault>> {
            Box::pin(async { Err(no()) })
        }
        fn watch(&self, _: Option<TaskId>, _: Lsn) -> BoxStream<'static, Result<Seen, Fault>> {
            Box::pin(futures_util::stream::empty())
        }
        fn diff(&self, _: TaskId, _: Option<u32>, _: Option<u32>) -> BoxFuture<'_, Result<Difference, Fault>> {
            Box::pin(async { Err(no()) })
        }
        fn blob(&self, _: BlobRef) -> BoxFuture<'_, Result<axum::body::Bytes, Fault>> {
            Box::pin(async { Err(no()) })
        }
    }
}

/// The routes are asked which methods they have, so that a new one without a line in the table fails.
#[tokio::test]
async fn every_route_has_its_line_and_every_role_gets_what_it_says() {
    let runtime: Arc<dyn Runtime> = Arc::new(idle::Idle);
    let state = ServerState { uid: 1000, ..ServerState::new(runtime, Arc::new(Still), Arc::new(Still), CancellationToken::new()) };
    let status = async |router: Router, uid: Option<u32>, method: &Method, place: &str| {
        let request = Request::builder().method(method).uri(place).header("host", "tinkerbell").body(axum::body::Body::empty());
        let mut request = request.unwrap();
        request.extensions_mut().insert(ConnectInfo(Peer { uid, is_crowded: false }));
        router.oneshot(request).await.unwrap().status().as_u16()
    };
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"].map(|name| name.parse::<Method>().unwrap());
    let mut seen = Vec::new();
    for (path, handlers) in routes() {
        let bare = Router::new().route(path, handlers).with_state(state.clone());
        let place = path.replace("{prefix}", "abcd1234").replace("{blob}", "x");
        for method in &methods {
            let exists = status(bare.clone(), Some(1000), method, &place).await != 405;
            let read = if method == Method::HEAD { Method::GET } else { method.clone() };
            let line = rights::RIGHTS.iter().find(|(known, takes, _)| *known == path && *takes == read);
            assert_eq!(exists, line.is_some(), "{method} {path}: the table and the routes differ");
            seen.extend(line);
            for role in rights::ROLES {
                let uid = match role {
                    Role::Owner => Some(1000),
                    Role::Root => Some(0),
                    Role::Other => Some(1001),
                };
                let got = status(router(state.clone()), uid, method, &place).await;
                let wanted = match (role, line) {
                    (Role::Other, _) | (Role::Root, Some((_, _, false))) => Some(403),
                    (_, None) => Some(405),
                    // Let in: what comes is the handler's word.
                    _ => None,
                };
                match wanted {
                    Some(wanted) => assert_eq!(got, wanted, "{role:?} {method} {path}"),
                    None => assert!(got != 403 && got != 405, "{role:?} {method} {path}: {got}"),
                }
            }
        }
    }
    assert!(rights::RIGHTS.iter().all(|line| seen.contains(&line)), "a line of the table has no route");
    for (uid, wanted) in [(Some(1000), 404), (Some(0), 404), (Some(1001), 403), (None, 403)] {
        assert_eq!(status(router(state.clone()), uid, &Method::GET, "/v1/nowhere").await, wanted, "{uid:?}");
    }
}

#[test]
fn only_the_owner_is_served_and_only_until_it_is_crowded() {
    let runtime: Arc<dyn Runtime> = Arc::new(idle::Idle);
    let state = ServerState { uid: 1000, ..ServerState::new(runtime, Arc::new(Still), Arc::new(Still), CancellationToken::new()) };
    for (uid, is_crowded, code) in [
        (Some(1000), false, None),
        (Some(0), false, None),
        (Some(1001), false, Some("TB-API-006")),
        (None, false, Some("TB-API-006")),
        (Some(1000), true, Some("TB-API-007")),
        (Some(1001), true, Some("TB-API-006")),
    ] {
        let request = Request::builder().uri("/x").header("host", "tinkerbell").body(axum::body::Body::empty()).unwrap();
        let judged = judge(&state, &Peer { uid, is_crowded }, &request);
        assert_eq!(judged.err().map(|fault| fault.code.0), code, "{uid:?} {is_crowded}");
    }
}
