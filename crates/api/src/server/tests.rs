//! Rules of the gate: who is served.

use super::*;
use tinkerbell_core::port::Runtime;

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

#[test]
fn only_the_owner_is_served_and_only_until_it_is_crowded() {
    let runtime: Arc<dyn Runtime> = Arc::new(idle::Idle);
    let state = ServerState { uid: 1000, ..ServerState::new(runtime, Arc::new(Still), Arc::new(Still), CancellationToken::new()) };
    for (uid, is_crowded, code) in [
        (Some(1000), false, None),
        (Some(0), false, Some("TB-API-006")),
        (Some(1001), false, Some("TB-API-006")),
        (None, false, Some("TB-API-006")),
        (Some(1000), true, Some("TB-API-007")),
    ] {
        let judged = judge(&state, &Peer { uid, is_crowded });
        assert_eq!(judged.err().map(|fault| fault.code.0), code, "{uid:?} {is_crowded}");
    }
}
