//! Routes, and the zones that Cloudflare's clients look them up in. There are no zones here: every name that a client
//! asks for is one, whose id comes from the name, and the routes in it are those that were put there.

use std::collections::BTreeMap;

use hyper::Method;
use serde_json::{Value as Json, json};

use super::super::body::RequestBody;
use super::super::envelope;
use super::super::error::RequestError;
use super::super::paging::Paging;
use super::super::reply::Reply;
use super::{Call, json_body, text};
use crate::kv::Scope;
use crate::worker::WorkerError;
use crate::worker::catalog::Route;

/// Zones of a page if the client does not say.
const PER_PAGE_DEFAULT: usize = 20;
/// Longest name of a zone, in bytes.
const ZONE_LEN_MAX: usize = 253;

/// The id of a zone: 32 hexadecimal digits that its name stands for.
fn zone_id(name: &str) -> String {
    blake3::hash(name.to_ascii_lowercase().as_bytes()).to_hex().chars().take(32).collect()
}

/// What is kept as the zone of a route: its name, or the id that a client has made up.
fn is_in(route: &Route, id: &str) -> bool {
    route.zone == id || zone_id(&route.zone) == id
}

/// Clients may make up an id, but one that has the form.
fn check_zone(id: &str) -> Result<(), RequestError> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if id.len() == 32 && id.bytes().all(is_digit) { Ok(()) } else { Err(RequestError::no_route(id)) }
}

fn hex(id: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(id))
}

fn shown(route: &Route) -> Json {
    json!({ "id": hex(route.id), "pattern": route.pattern, "script": route.script })
}

fn shown_zone(call: &Call<'_>, name: &str) -> Json {
    let account = call.account.to_string();
    json!({ "id": zone_id(name), "name": name, "status": "active", "type": "full", "account": { "id": account } })
}

/// The zone that a pattern is in unless its client says so: its host, without a wildcard.
fn zone_of(pattern: &str) -> String {
    let rest = pattern.split_once("://").map_or(pattern, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    host.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase()
}

/// Those with routes, or the one that is asked for.
pub(crate) async fn zones(call: Call<'_>) -> Result<Reply, RequestError> {
    let paging = Paging::from_query(call.query, PER_PAGE_DEFAULT)?;
    let names: Vec<String> = match call.query.value("name")? {
        Some(name) if name.len() > ZONE_LEN_MAX => return Err(RequestError::invalid("Invalid name: it is too long.")),
        Some(name) => vec![name.to_ascii_lowercase()],
        None => {
            let named: BTreeMap<String, ()> =
                call.workers.routes(call.account).await?.into_iter().map(|route| (route.zone, ())).collect();
            named.into_keys().collect()
        }
    };
    let page: Vec<Json> = paging.slice(&names).iter().map(|name| shown_zone(&call, name)).collect();
    let info = paging.info(page.len(), names.len());
    envelope::page(page, info)
}

pub(crate) async fn zone(call: Call<'_>, id: &str) -> Result<Reply, RequestError> {
    check_zone(id)?;
    let routes = call.workers.routes(call.account).await?;
    match routes.iter().find(|route| is_in(route, id)) {
        Some(route) => envelope::result(shown_zone(&call, &route.zone)),
        None => Err(WorkerError::RouteNotFound.into()),
    }
}

pub(crate) async fn zone_routes(
    call: Call<'_>,
    zone: &str,
    method: &Method,
    body: &mut RequestBody,
) -> Result<Reply, RequestError> {
    check_zone(zone)?;
    match method.as_str() {
        "GET" => {
            may_see(&call)?;
            let routes = call.workers.routes(call.account).await?;
            envelope::result(routes.iter().filter(|route| is_in(route, zone)).map(shown).collect::<Vec<_>>())
        }
        "POST" => {
            call.caller.require(Scope::Deploy, None)?;
            let (pattern, script) = wanted(body).await?;
            // The name of the zone, if this is the id of one that the pattern may be in.
            let named = zone_of(&pattern);
            let mut name = named.as_str();
            while zone_id(name) != zone {
                match name.split_once('.') {
                    Some((_, parent)) => name = parent,
                    None => break,
                }
            }
            let zone = if zone_id(name) == zone { name } else { zone };
            let added = call.workers.add_route(call.account, zone, &pattern, script.as_deref(), false).await?;
            call.audit("worker.route", format!("{pattern} to {}", script.as_deref().unwrap_or("nothing"))).await;
            envelope::result(shown(&added))
        }
        _ => Err(super::super::dispatch::refuse(method, "GET, POST")),
    }
}

pub(crate) async fn zone_route(
    call: Call<'_>,
    zone: &str,
    id: &str,
    method: &Method,
    body: &mut RequestBody,
) -> Result<Reply, RequestError> {
    check_zone(zone)?;
    let routes = call.workers.routes(call.account).await?;
    let route = routes.into_iter().find(|route| hex(route.id) == id && is_in(route, zone));
    let route = route.ok_or(WorkerError::RouteNotFound);
    match method.as_str() {
        "GET" => {
            may_see(&call)?;
            envelope::result(shown(&route?))
        }
        "PUT" => {
            call.caller.require(Scope::Deploy, None)?;
            let route = route?;
            let (pattern, script) = wanted(body).await?;
            let set = call.workers.add_route(call.account, &route.zone, &pattern, script.as_deref(), true).await?;
            if set.id != route.id {
                call.workers.remove_route(call.account, route.id).await?;
            }
            call.audit("worker.route", format!("{pattern} to {}", script.as_deref().unwrap_or("nothing"))).await;
            envelope::result(shown(&set))
        }
        "DELETE" => remove(call, route?).await,
        _ => Err(super::super::dispatch::refuse(method, "GET, PUT, DELETE")),
    }
}

async fn remove(call: Call<'_>, route: Route) -> Result<Reply, RequestError> {
    call.caller.require(Scope::Deploy, None)?;
    call.workers.remove_route(call.account, route.id).await?;
    call.audit("worker.route", format!("{} removed", route.pattern)).await;
    envelope::result(json!({ "id": hex(route.id) }))
}

fn may_see(call: &Call<'_>) -> Result<(), RequestError> {
    call.caller.require(Scope::Deploy, None).or_else(|_| call.caller.require(Scope::Read, None))
}

async fn wanted(body: &mut RequestBody) -> Result<(String, Option<String>), RequestError> {
    let wanted = json_body(body).await?;
    let pattern = text(&wanted, "pattern")?.ok_or_else(|| RequestError::invalid("The route has no \"pattern\"."))?;
    Ok((pattern, text(&wanted, "script")?.filter(|script| !script.is_empty())))
}

pub(super) async fn of_script(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let routes = call.workers.routes(call.account).await?;
    let own = routes.iter().filter(|route| route.script.as_ref() == Some(&script.id.script));
    envelope::result(own.map(shown).collect::<Vec<_>>())
}

/// These and no others lead to the script. Answers the patterns, as clients print them.
pub(super) async fn set_of_script(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let wanted = json_body(body).await?;
    let wrong = || RequestError::invalid("The body is no list of objects with a \"pattern\".");
    let mut routes = Vec::new();
    for item in wanted.as_array().ok_or_else(wrong)? {
        let pattern = item.get("pattern").and_then(Json::as_str).or(item.as_str()).ok_or_else(wrong)?;
        let zone = text(item, "zone_name")?.or(text(item, "zone_id")?);
        let zone = zone.filter(|zone| zone.len() <= ZONE_LEN_MAX).unwrap_or_else(|| zone_of(pattern));
        routes.push((pattern.to_owned(), zone));
    }
    let routes = call.workers.set_routes(&script, routes).await?;
    call.audit("worker.route", format!("{}: {} of them", script.id, routes.len())).await;
    envelope::result(routes.iter().map(|route| &route.pattern).collect::<Vec<_>>())
}
