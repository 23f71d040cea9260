//! The client against a store on disk and a driver that knows one node only.
mod driver;
mod namespaces;
mod values;

use std::sync::Arc;

use bytes::Bytes;
use driver::Node;

use super::*;
use crate::replica::limits::*;

const ACCOUNT: AccountId = AccountId([0xac; 16]);

/// A namespace to write into.
async fn namespace(node: &Node) -> NamespaceId {
    node.kv.create_namespace(ACCOUNT, "test").await.expect("creates").id
}

fn put(value: impl Into<Bytes>) -> Put {
    Put { value: value.into(), metadata: None, expiration: None }
}

/// Bytes that differ from place to place.
fn bytes(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// Reads a whole value.
async fn read(kv: &Kv, namespace: NamespaceId, key: &[u8]) -> Option<Bytes> {
    match kv.get(namespace, key).await.expect("reads")?.value {
        Value::Inline(value) => Some(value),
        Value::Blob(mut blob) => {
            let mut value = Vec::new();
            while let Some(chunk) = blob.next().await {
                value.extend_from_slice(&chunk.expect("a whole blob"));
            }
            assert_eq!(value.len() as u64, blob.len());
            Some(value.into())
        }
    }
}
