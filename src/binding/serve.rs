//! Connections: accepted within bounds, served over HTTP/1.1 alone, drained at the end.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::bulk_get::LARGE_BODIES_MAX;
use super::{Authorize, Binding, Listener};
use crate::api::places::Places;
use crate::api::reply::{Reply, ReplyBody};
use crate::api::serve::{ACCEPT_PAUSE, Answers, DRAIN_TIMEOUT, HEADER_READ_TIMEOUT, connection, over_http1};
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
    let [keeps, closes] = [true, false].map(|keeps| {
        let server = over_http1(keeps);
        // HTTP/2 has no reason phrases.
        Arc::new(server.http1_only())
    });
    let places = Places::new(connections_max);
    {
        let (mut shutdown, mut sweeping) = (pin!(shutdown), pin!(places.sweep(HEADER_READ_TIMEOUT)));
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                never = &mut sweeping => match never {},
                accepted = async { Ok::<_, io::Error>((places.wait().await?, accept(&listener).await?)) } => accepted,
            };
            match accepted {
                Ok((place, accepted)) => {
                    let binding = Arc::clone(&binding);
                    // Where many wait for a place, nobody keeps one for later.
                    let server = Arc::clone(if places.has_plenty() { &keeps } else { &closes });
                    place.connected();
                    tokio::spawn(async move {
                        match accepted {
                            Accepted::Tcp(stream) => connection(stream, HERE, &server, binding, &place).await,
                            Accepted::Unix(stream) => connection(stream, HERE, &server, binding, &place).await,
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection for bindings could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    places.drain();
    if timeout(DRAIN_TIMEOUT, places.all_free()).await.is_err() {
        tracing::warn!("requests of bindings were cut off after {} s", DRAIN_TIMEOUT.as_secs());
    }
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Accepted::Tcp(stream))
        }
        Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
    }
}
