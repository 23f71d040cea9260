//! One request: for which namespace, and which handler answers.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::header::EXPECT;
use hyper::http::request::Parts;
use hyper::{Method, Request};

use super::{Binding, bulk_get, list, reply, values};
use crate::api::body::RequestBody;
use crate::api::error::RequestError;
use crate::api::key::{check_key, decode_key};
use crate::api::query::Query;
use crate::api::reply::Reply;
use crate::kv::Scope;

impl Binding {
    /// Answers one request.
    pub(super) async fn handle(&self, request: Request<Incoming>) -> Result<Reply, Infallible> {
        let (parts, incoming) = request.into_parts();
        let mut body = RequestBody::new(incoming, parts.headers.contains_key(EXPECT));
        Ok(match self.dispatch(&parts, &mut body).await {
            Ok(reply) => reply,
            Err(error) => {
                body.drain().await;
                reply::failure(error)
            }
        })
    }

    async fn dispatch(&self, parts: &Parts, body: &mut RequestBody) -> Result<Reply, RequestError> {
        let path = parts.uri.path();
        let scope = match (path, &parts.method) {
            ("/", &Method::GET) => Scope::List,
            (_, &Method::GET) | ("/bulk/get", _) => Scope::Read,
            _ => Scope::Write,
        };
        let ns = self.authorize.namespace(&self.kv, &parts.headers, scope)?;
        let query = Query::new(parts.uri.query());
        // Raw, before any decoding: a slash in a key arrives as %2F.
        let segment = path.strip_prefix('/').unwrap_or(path);
        match (segment, &parts.method) {
            ("", &Method::GET) => return list::list(self, ns, query).await,
            ("bulk/get", &Method::POST) => return bulk_get::get(self, ns, body).await,
            _ if segment.contains('/') => return Err(RequestError::no_route(path)),
            _ => {}
        }
        let is_encoded = query.value("urlencoded")?.is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let key = if is_encoded {
            decode_key(segment)?
        } else {
            check_key(segment)?;
            segment.as_bytes().into()
        };
        match parts.method {
            Method::GET => values::get(self, ns, &key, query).await,
            Method::PUT => values::put(self, ns, &key, query, &parts.headers, body).await,
            Method::DELETE => values::delete(self, ns, &key).await,
            _ => Err(RequestError::Method {
                method: parts.method.as_str().chars().take(32).collect(),
                allow: "GET, PUT, DELETE",
            }),
        }
    }
}
