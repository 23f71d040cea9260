//! `/starling/v1/backups`: a backup of this node, begun, sent piece by piece, ended.
//!
//! Knows nothing of what is in it: it is sealed.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::Api;
use super::auth::Caller;
use super::envelope;
use super::error::RequestError;
use super::query::Query;
use super::reply::{Reply, ReplyBody};
use crate::backup::Pieces;

pub(crate) async fn begin(api: &Api, caller: &Caller) -> Result<Reply, RequestError> {
    let begun = api.shared.operator.begin_backup(&api.kv).await?;
    api.audit(caller, "node.backup", api.shared.config.node.clone()).await;
    envelope::bare(&begun)
}

pub(crate) fn pieces(api: &Api, number: &str, query: Query<'_>) -> Result<Reply, RequestError> {
    let held = match query.value("held")?.as_deref().map(str::parse::<u64>) {
        None => 0,
        Some(Ok(held)) => held,
        Some(Err(_)) => return Err(RequestError::invalid("Invalid held. Say how many pieces arrived whole.")),
    };
    let pieces = api.shared.operator.backup_pieces(number, held)?;
    let mut reply = Response::new(ReplyBody::Pieces(PiecesBody(Some(read_next(pieces)))));
    *reply.status_mut() = StatusCode::OK;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(reply)
}

pub(crate) fn end(api: &Api, number: &str) -> Result<Reply, RequestError> {
    api.shared.operator.end_backup(number)?;
    envelope::bare(&serde_json::json!({}))
}

type Next = Pin<Box<dyn Future<Output = Option<(Pieces, Bytes)>> + Send>>;

/// Pieces on their way out, one in memory at a time.
pub(crate) struct PiecesBody(Option<Next>);

fn read_next(mut pieces: Pieces) -> Next {
    Box::pin(async move {
        // Reads the disk, and seals.
        let read = tokio::task::spawn_blocking(move || pieces.next().map(|bytes| (pieces, Bytes::from(bytes))));
        read.await.ok().flatten()
    })
}

impl PiecesBody {
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(next) = &mut self.0 else { return Poll::Ready(None) };
        let Poll::Ready(read) = next.as_mut().poll(cx) else { return Poll::Pending };
        let (next, bytes) = read.map_or((None, None), |(pieces, bytes)| (Some(read_next(pieces)), Some(bytes)));
        self.0 = next;
        Poll::Ready(bytes)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_none()
    }
}
