//! What clients ask on their way to the store: who they are and which accounts they have.
//!
//! A Starling token has one account, and there are no users: both are answered for this node as it is.

use hyper::header::HeaderMap;
use serde_json::{Value as Json, json};

use super::auth::Caller;
use super::envelope::{self, Message};
use super::error::RequestError;
use super::paging::Paging;
use super::query::Query;
use super::reply::Reply;

/// There is no person behind a token: an address that RFC 2606 promises will never exist.
const NO_EMAIL: &str = "api-token@starling.invalid";
/// Default `per_page` of these lists.
const PER_PAGE_DEFAULT: usize = 20;

pub(crate) fn user(caller: &Caller, headers: &HeaderMap) -> Result<Reply, RequestError> {
    let email = headers.get("x-auth-email").and_then(|value| value.to_str().ok()).unwrap_or(NO_EMAIL);
    envelope::result(json!({ "id": caller.home().to_string(), "email": email, "suspended": false }))
}

pub(crate) fn verify_token(caller: &Caller) -> Result<Reply, RequestError> {
    let message = Message { code: 10000, message: "This API Token is valid and active" };
    envelope::result_and_message(json!({ "id": caller.token_id(), "status": "active" }), message)
}

pub(crate) fn account(id: &str, node: &str) -> Result<Reply, RequestError> {
    envelope::result(account_json(id, node))
}

pub(crate) fn accounts(caller: &Caller, query: Query<'_>, node: &str) -> Result<Reply, RequestError> {
    one_item(account_json(&caller.home().to_string(), node), query)
}

pub(crate) fn memberships(caller: &Caller, query: Query<'_>, node: &str) -> Result<Reply, RequestError> {
    let id = caller.home().to_string();
    let account = account_json(&id, node);
    one_item(json!({ "id": id, "status": "accepted", "account": account, "roles": ["Administrator"] }), query)
}

fn account_json(id: &str, node: &str) -> Json {
    json!({ "id": id, "name": format!("Starling at {node}"), "type": "standard", "settings": {} })
}

fn one_item(item: Json, query: Query<'_>) -> Result<Reply, RequestError> {
    let paging = Paging::from_query(query, PER_PAGE_DEFAULT)?;
    let items = [item];
    let page = paging.slice(&items);
    envelope::page(page, paging.info(page.len(), items.len()))
}
