//! What nobody waits for: packing, retention, expired keys, files that belong to nothing.

use super::types::Maintenance;
use super::{Store, StoreError};
use crate::domain::Timestamp;

pub(super) async fn round(store: &Store, _now: Timestamp) -> Result<Maintenance, StoreError> {
    let shared = std::sync::Arc::clone(&store.inner.shared);
    store
        .read(move |_| {
            shared.gauge.look(shared.head().queued_bytes);
            Ok(Maintenance::default())
        })
        .await
}
