//! Connections: accepted within bounds, served over HTTP/1.1 alone, drained at the end.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::bulk_get::LARGE_BODIES_MAX;
use super::{Authorize, Binding, Listener};
use crate::api::places::{Place, Places};
use crate::api::reply::{Reply, ReplyBody};
use crate::api::serve::{Answers, DRAIN_TIMEOUT, accept_until, connection, over_http1};
use crate::kv::Kv;

/// Connections at a time, of a listener for everyone. Further ones wait in its backlog.
pub(crate) const CONNECTIONS_MAX: u32 = 4096;
/// Whoever asks is on this machine.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Answers for Binding {
    type Body = ReplyBody;

    fn answer(&self, request: Request<Incoming>, _: IpAddr) -> impl Future<Output = Result<Reply, Infallible>> + Send {
        self.handle(request)
    }
}

/// Serves bindings on `listener`, over so many connections at a time, until `shutdown` completes, then lets requests
/// in flight finish for up to 5 s. workerd itself closes idle connections after 5 s, long before it would be late here, so
/// that it never sends into one that is closed; nor does anyone have to make room.
pub(crate) async fn serve(
    listener: Listener,
    kv: Kv,
    authorize: Arc<dyn Authorize>,
    connections_max: u32,
    shutdown: impl Future<Output = ()>,
) {
    let binding = Arc::new(Binding { kv, authorize, large_bodies: Semaphore::new(LARGE_BODIES_MAX) });
    // HTTP/2 has no reason phrases.
    let [keeps, closes] = [true, false].map(|keeps| Arc::new(over_http1(keeps).http1_only()));
    let places = Places::new(connections_max);
    let begin = |accepted, place: Arc<Place>| {
        let binding = Arc::clone(&binding);
        // Where many wait for a place, nobody keeps one for later.
        let server = Arc::clone(if places.has_plenty() { &keeps } else { &closes });
        tokio::spawn(async move {
            match accepted {
                Accepted::Tcp(stream) => connection(stream, HERE, &server, binding, &place).await,
                Accepted::Unix(stream) => connection(stream, HERE, &server, binding, &place).await,
            }
        });
    };
    accept_until(shutdown, &places, || accept(&listener, &places), begin).await;
    drop(listener);
    places.drain();
    if timeout(DRAIN_TIMEOUT, places.all_free()).await.is_err() {
        tracing::warn!("requests of bindings were cut off after {} s", DRAIN_TIMEOUT.as_secs());
    }
}

async fn accept(listener: &Listener, places: &Places) -> io::Result<(Accepted, Arc<Place>)> {
    let place = places.wait().await?;
    let accepted = match listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Accepted::Tcp(stream)
        }
        Listener::Unix(listener, _) => Accepted::Unix(listener.accept().await?.0),
    };
    Ok((accepted, place))
}
