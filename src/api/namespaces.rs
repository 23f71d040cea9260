//! Namespaces: create, list, get, rename, delete.

use serde::{Deserialize, Serialize};

use super::Api;
use super::auth::Caller;
use super::body::RequestBody;
use super::envelope;
use super::error::RequestError;
use super::paging::Paging;
use super::query::Query;
use super::reply::Reply;
use crate::kv::{AccountId, Namespace};
use crate::replica::NamespaceId;
use crate::replica::limits::TITLE_LEN_MAX;

/// Largest JSON body that names a namespace, in bytes.
const BODY_LEN_MAX: usize = 64 * 1024;
/// Cloudflare's default for `per_page`.
const PER_PAGE_DEFAULT: usize = 20;

#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    title: &'a str,
    /// Keys in paths are percent-decoded. Old clients ask.
    supports_url_encoding: bool,
}

#[derive(Deserialize)]
struct Named {
    title: Option<String>,
}

impl<'a> From<&'a Namespace> for Shown<'a> {
    fn from(namespace: &'a Namespace) -> Self {
        Self { id: namespace.id.to_string(), title: &namespace.title, supports_url_encoding: true }
    }
}

pub(crate) fn list(api: &Api, caller: &Caller, account: AccountId, query: Query<'_>) -> Result<Reply, RequestError> {
    let paging = Paging::from_query(query, PER_PAGE_DEFAULT)?;
    let by_title = match query.value("order")?.as_deref() {
        None | Some("id") => false,
        Some("title") => true,
        Some(other) => return Err(one_of("order", other, "id or title")),
    };
    let descending = match query.value("direction")?.as_deref() {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(other) => return Err(one_of("direction", other, "asc or desc")),
    };
    let mut namespaces = api.kv.namespaces(account).map_err(RequestError::kv("list namespaces"))?;
    namespaces.retain(|namespace| caller.sees(namespace.id));
    if by_title {
        // Two PoPs may create one title at once: the id settles the order.
        namespaces.sort_by(|a, b| a.title.cmp(&b.title).then(a.id.cmp(&b.id)));
    }
    if descending {
        namespaces.reverse();
    }
    let page: Vec<Shown<'_>> = paging.slice(&namespaces).iter().map(Shown::from).collect();
    let info = paging.info(page.len(), namespaces.len());
    envelope::page(page, info)
}

pub(crate) async fn create(api: &Api, account: AccountId, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let title = title(body).await?;
    let namespace = api.kv.create_namespace(account, &title).await.map_err(RequestError::kv("create namespace"))?;
    envelope::result(Shown::from(&namespace))
}

pub(crate) fn get(api: &Api, account: AccountId, id: NamespaceId) -> Result<Reply, RequestError> {
    let namespace = api.kv.namespace(account, id).map_err(RequestError::kv("get namespace"))?;
    envelope::result(Shown::from(&namespace))
}

pub(crate) async fn rename(
    api: &Api,
    account: AccountId,
    id: NamespaceId,
    body: &mut RequestBody,
) -> Result<Reply, RequestError> {
    let title = title(body).await?;
    let namespace = api.kv.rename_namespace(account, id, &title).await.map_err(RequestError::kv("rename namespace"))?;
    envelope::result(Shown::from(&namespace))
}

pub(crate) async fn delete(api: &Api, account: AccountId, id: NamespaceId) -> Result<Reply, RequestError> {
    api.kv.delete_namespace(account, id).await.map_err(RequestError::kv("remove namespace"))?;
    Ok(envelope::empty())
}

async fn title(body: &mut RequestBody) -> Result<String, RequestError> {
    let text = body.read(BODY_LEN_MAX).await?;
    let named: Named = serde_json::from_slice(&text)
        .map_err(|error| RequestError::invalid(format!("The body is not JSON with a \"title\": {error}.")))?;
    let title = named.title.unwrap_or_default();
    match title.len() {
        _ if title.trim().is_empty() => Err(RequestError::TitleMissing),
        len if len > TITLE_LEN_MAX => Err(RequestError::TitleTooLong(len)),
        _ => Ok(title),
    }
}

fn one_of(name: &str, value: &str, choices: &str) -> RequestError {
    RequestError::invalid(format!("Invalid {name} of {value}. Use {choices}."))
}
