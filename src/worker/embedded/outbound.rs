//! Requests that scripts make: to public addresses only, unless the operator says otherwise.
//!
//! The addresses of a name are looked at, not the name, and the very address that was looked at is connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::Url;

use crate::https::Outgoing;
use crate::worker::engine::{Streamed, held, streamed};
use crate::worker::hops::{HOPS_MAX, LOOP, loop_header};

/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long the other end may take to begin its answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// Requests of all scripts that wait for an answer at a time. Further ones wait for a place.
const FETCHES_MAX: usize = 512;
/// Bytes of an answer's headers, and their number.
const HEADERS_LEN_MAX: usize = 256 * 1024;
const HEADERS_MAX: usize = 256;

/// The way out.
pub(super) struct Outbound {
    reach_local: bool,
    tls: Result<Outgoing, String>,
    places: Semaphore,
}

impl Outbound {
    pub(super) fn new(reach_local: bool) -> Self {
        Self { reach_local, tls: Outgoing::new(), places: Semaphore::new(FETCHES_MAX) }
    }

    /// What the other end answers, or why there is no answer.
    pub(super) async fn fetch(
        &self,
        url: &str,
        mut request: Request<Streamed>,
        hops: usize,
    ) -> Result<Response<Streamed>, String> {
        if hops >= HOPS_MAX {
            return Err(format!("Subrequest depth limit exceeded: {HOPS_MAX} scripts have asked one another."));
        }
        let url = Url::parse(url).map_err(|_| "Invalid URL string.".to_owned())?;
        let name = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_https = url.scheme() == "https";
        let port = url.port_or_known_default().unwrap_or(80);
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        *request.uri_mut() = path.parse::<Uri>().map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(host).map_err(|error| error.to_string())?);
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static("starling"));
        headers.insert(LOOP, HeaderValue::try_from(loop_header(hops + 1)).map_err(|error| error.to_string())?);

        let place = self.places.acquire().await.map_err(|error| error.to_string())?;
        let stream = timeout(CONNECT_PATIENCE, self.connect(&name, port)).await;
        let stream = stream.map_err(|_| format!("Network connection lost: {name} does not answer."))??;
        let answered = if is_https {
            let tls = self.tls.as_ref().map_err(Clone::clone)?;
            let stream = timeout(CONNECT_PATIENCE, tls.connect(&name, stream)).await;
            let stream = stream.map_err(|_| format!("TLS with {name} takes too long."))?;
            send(TokioIo::new(stream.map_err(|error| format!("TLS with {name} fails: {error}."))?), request).await
        } else {
            send(TokioIo::new(stream), request).await
        };
        drop(place);
        answered.map_err(|error| format!("Network connection lost: {error}."))
    }

    async fn connect(&self, name: &str, port: u16) -> Result<TcpStream, String> {
        let found: Vec<SocketAddr> = match name.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => {
                let found = lookup_host((name, port)).await;
                found.map_err(|error| format!("Internal error: {name} is not known: {error}."))?.collect()
            }
        };
        let mut failure = None;
        let allowed: Vec<SocketAddr> =
            found.iter().copied().filter(|address| self.reach_local || is_public(address.ip())).collect();
        if allowed.is_empty() && !found.is_empty() {
            return Err(format!(
                "{name} is an address of this machine or of a private network, which scripts may not reach; a node that \
                 runs with --workers-fetch-local lets them."
            ));
        }
        for address in allowed {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Without it small requests wait; an error changes nothing else.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure
            .map_or_else(|| format!("{name} has no address."), |error| format!("Network connection lost: {error}.")))
    }
}

async fn send<S>(stream: S, request: Request<Streamed>) -> Result<Response<Streamed>, String>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let mut builder = Builder::new();
    builder.max_buf_size(HEADERS_LEN_MAX).max_headers(HEADERS_MAX);
    let (mut sender, connection): (SendRequest<Streamed>, _) =
        builder.handshake(stream).await.map_err(|error| error.to_string())?;
    // What breaks is seen by whoever reads the answer.
    let driven = tokio::spawn(async move { drop(connection.await) });
    let answered = timeout(ANSWER_PATIENCE, sender.send_request(request)).await;
    let response =
        answered.map_err(|_| "it takes too long to answer".to_owned())?.map_err(|error| error.to_string())?;
    // The connection goes when the body does.
    Ok(response.map(|body| held(streamed(body), Ended(driven))))
}

struct Ended(tokio::task::JoinHandle<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether an address belongs to the Internet at large.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocols = a == 192 && b == 0 && c == 0;
    let is_benchmarking = a == 198 && (b == 18 || b == 19);
    !(a == 0
        || a >= 224
        || is_shared
        || is_protocols
        || is_benchmarking
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = address.to_ipv4() {
        return is_public_v4(v4);
    }
    match address.segments() {
        // Addresses of IPv4 in two disguises.
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] => is_public_v4(Ipv4Addr::from((u32::from(a) << 16) | u32::from(b))),
        [0x2002, a, b, ..] => is_public_v4(Ipv4Addr::from((u32::from(a) << 16) | u32::from(b))),
        [0x2001, 0xdb8 | 0, ..] => false,
        // All that is given out.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for text in [
            "127.0.0.1",
            "127.8.8.8",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(text.parse().expect("an address")), "{text}");
        }
        for text in
            ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
        {
            assert!(is_public(text.parse().expect("an address")), "{text}");
        }
    }
}
