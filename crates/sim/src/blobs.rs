//! Stored bytes of the simulated house: durable once they are told to be.
//!
//! Invariant: a reference that was given out has its bytes for ever, until its owner is forgotten.

use crate::hold;
use crate::life::Life;
use crate::time::SimClock;
use crate::world::World;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::BlobStore;
use tinkerbell_core::words::{BlobRef, Owner};

/// What is stored, for all daemons.
#[derive(Default)]
pub struct Blobs {
    kept: Mutex<BTreeMap<(Owner, BlobRef), Bytes>>,
}

impl Blobs {
    /// The bytes behind a reference.
    pub fn find(&self, blob: BlobRef) -> Option<Bytes> {
        hold(&self.kept).iter().find(|((_, known), _)| *known == blob).map(|(_, bytes)| bytes.clone())
    }
}

/// The store as one daemon has it.
pub struct LifeBlobs {
    /// The world.
    pub world: Arc<World>,
    /// The daemon.
    pub life: Arc<Life>,
    /// Its clock.
    pub clock: Arc<SimClock>,
}

/// An address that depends on the bytes and the subject; four lanes of FNV-1a.
fn address(owner: Owner, content: &[u8]) -> BlobRef {
    let mut hash = [0; 32];
    for (lane, part) in (0_u64..).zip(hash.chunks_mut(8)) {
        let start = 0xcbf2_9ce4_8422_2325 ^ (lane << 32) ^ u64::from(owner.subject.0);
        let sum = content.iter().fold(start, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        part.copy_from_slice(&sum.to_le_bytes());
    }
    BlobRef { key_id: owner.subject.0, hash, size_bytes: content.len() as u64 }
}

impl BlobStore for LifeBlobs {
    fn put(&self, owner: Owner, content: Bytes) -> BoxFuture<'_, Result<BlobRef, Fault>> {
        async move {
            self.clock.sleep(Duration::from_millis(1)).await;
            self.life.pass().await;
            let blob = address(owner, &content);
            hold(&self.world.blobs.kept).entry((owner, blob)).or_insert(content);
            self.life.pass().await;
            Ok(blob)
        }
        .boxed()
    }

    fn get(&self, blob: BlobRef) -> BoxFuture<'_, Result<Bytes, Fault>> {
        let found = self.world.blobs.find(blob);
        async move { found.ok_or_else(|| Fault::new("TB-BLOB-001", exit::FAILED, format!("blob {blob} is missing"))) }.boxed()
    }

    fn list(&self, owner: Owner) -> BoxFuture<'_, Result<Vec<BlobRef>, Fault>> {
        let found = hold(&self.world.blobs.kept).keys().filter(|(whose, _)| *whose == owner).map(|(_, blob)| *blob).collect();
        async move { Ok(found) }.boxed()
    }

    fn forget(&self, owner: Owner) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            self.life.pass().await;
            hold(&self.world.blobs.kept).retain(|(whose, _), _| *whose != owner);
            Ok(())
        }
        .boxed()
    }
}
