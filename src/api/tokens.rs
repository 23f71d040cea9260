//! `/starling/v1/tokens` and `/starling/v1/accounts`: credentials, for who may hand them out.
//!
//! A secret is shown once, to who made it. Who has the scope `admin` acts within the own account; with `operate`,
//! within any. Nobody hands out more than they have.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::auth::Caller;
use super::body::RequestBody;
use super::error::RequestError;
use super::query::Query;
use super::reply::Reply;
use super::{Api, envelope};
use crate::kv::{AccountId, Grants, NamespaceId, NewToken, Scope, Token, TokenId};
use crate::secret::Secret;

/// Largest body, in bytes.
const BODY_LEN_MAX: usize = 64 * 1024;
/// How long a token that was rolled goes on beside its successor, if the request does not say.
const GRACE_SECS_DEFAULT: u64 = 3600;
/// Longest life, and longest grace: 10 years.
const TTL_SECS_MAX: u64 = 10 * 365 * 24 * 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    scopes: Vec<String>,
    #[serde(default)]
    namespaces: Vec<String>,
    account: Option<String>,
    ttl_secs: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Roll {
    grace_secs: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

pub(crate) fn list(api: &Api, caller: &Caller, query: Query<'_>) -> Result<Reply, RequestError> {
    let account = account_of(caller, query.value("account")?.as_deref())?;
    let tokens = api.kv.tokens(account).map_err(RequestError::kv("list tokens"))?;
    envelope::bare(&tokens.iter().map(|token| shown(api, token)).collect::<Vec<_>>())
}

pub(crate) async fn create(api: &Api, caller: &Caller, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let Wanted { name, scopes, namespaces, account, ttl_secs } = json_of(body, "a \"name\" and \"scopes\"").await?;
    let account = account_of(caller, account.as_deref())?;
    let scopes: Result<BTreeSet<Scope>, String> = scopes.iter().map(|scope| scope.parse()).collect();
    let scopes = scopes.map_err(|error| RequestError::Invalid(format!("{error}.")))?;
    if scopes.is_empty() {
        return Err(RequestError::Invalid("A token without scopes is good for nothing: name one or more.".into()));
    }
    let namespaces: Result<BTreeSet<NamespaceId>, RequestError> = namespaces
        .iter()
        .map(|id| {
            let id = id.parse().map_err(|_| RequestError::Invalid(format!("{id:?} is no namespace id.")))?;
            api.kv.namespace(account, id).map_err(RequestError::kv("create token"))?;
            Ok(id)
        })
        .collect();
    let grants = Grants { scopes, namespaces: namespaces? };
    if !caller.covers(&grants, account) {
        return Err(RequestError::Scope("hand out more than it has itself"));
    }
    let expires_ms = match ttl_secs {
        None => 0,
        Some(ttl_secs) => api.kv.now_ms() + in_bounds("ttl_secs", ttl_secs, 1)? * 1000,
    };
    let (secret, token) = add(api, NewToken { account, name, grants, expires_ms }).await?;
    api.audit(caller, "token.create", format!("{} {:?} of {account}", token.id, token.name)).await;
    with_secret(api, &token, &secret)
}

pub(crate) async fn revoke(api: &Api, caller: &Caller, id: &str, query: Query<'_>) -> Result<Reply, RequestError> {
    let account = account_of(caller, query.value("account")?.as_deref())?;
    let id: TokenId = id.parse().map_err(RequestError::kv("revoke token"))?;
    api.kv.revoke_token(account, id).await.map_err(RequestError::kv("revoke token"))?;
    api.audit(caller, "token.revoke", format!("{id} of {account}")).await;
    envelope::bare(&json!({ "id": id.to_string() }))
}

/// A successor with the same name and scopes; the old one goes on for a while.
pub(crate) async fn roll(
    api: &Api,
    caller: &Caller,
    id: &str,
    query: Query<'_>,
    body: &mut RequestBody,
) -> Result<Reply, RequestError> {
    let account = account_of(caller, query.value("account")?.as_deref())?;
    let id: TokenId = id.parse().map_err(RequestError::kv("roll token"))?;
    let Roll { grace_secs } = json_of(body, "\"grace_secs\"").await?;
    let grace_secs = in_bounds("grace_secs", grace_secs.unwrap_or(GRACE_SECS_DEFAULT), 0)?;
    let old = api.kv.token(account, id).map_err(RequestError::kv("roll token"))?;
    if !caller.covers(&old.grants, account) {
        return Err(RequestError::Scope("hand out more than it has itself"));
    }
    let Token { name, grants, expires_ms, .. } = old;
    let (secret, token) = add(api, NewToken { account, name, grants, expires_ms }).await?;
    let ends_ms = api.kv.now_ms() + grace_secs * 1000;
    api.kv.end_token(account, id, ends_ms).await.map_err(RequestError::kv("roll token"))?;
    api.audit(caller, "token.roll", format!("{id} to {} of {account}", token.id)).await;
    with_secret(api, &token, &secret)
}

pub(crate) fn accounts(api: &Api, caller: &Caller) -> Result<Reply, RequestError> {
    caller.require(Scope::Operate, None)?;
    let founded = api.shared.config.account;
    let mut accounts = vec![json!({ "id": founded.to_string(), "name": "the cluster's first", "created_ms": null })];
    let created = api.kv.accounts().map_err(RequestError::kv("list accounts"))?;
    accounts.extend(created.iter().map(
        |account| json!({ "id": account.id.to_string(), "name": account.name, "created_ms": account.created_ms }),
    ));
    envelope::bare(&accounts)
}

pub(crate) async fn create_account(api: &Api, caller: &Caller, body: &mut RequestBody) -> Result<Reply, RequestError> {
    caller.require(Scope::Operate, None)?;
    let Named { name } = json_of(body, "a \"name\"").await?;
    let account = api.kv.create_account(&name).await.map_err(RequestError::kv("create account"))?;
    api.audit(caller, "account.create", format!("{} {name:?}", account.id)).await;
    envelope::bare(&json!({ "id": account.id.to_string(), "name": account.name }))
}

/// Whose tokens the caller may deal with: those of the own account, or with `operate` of any.
fn account_of(caller: &Caller, named: Option<&str>) -> Result<AccountId, RequestError> {
    let account = match named {
        None => caller.home(),
        Some(text) => text.parse().map_err(|error| RequestError::Invalid(format!("{error}.")))?,
    };
    match caller.require(Scope::Operate, None) {
        Ok(()) => Ok(account),
        Err(_) if account == caller.home() => caller.require(Scope::Admin, None).map(|()| account),
        Err(_) => Err(RequestError::Unauthenticated),
    }
}

async fn add(api: &Api, new: NewToken) -> Result<(Secret, Token), RequestError> {
    api.kv.create_token(new).await.map_err(RequestError::kv("create token"))
}

fn with_secret(api: &Api, token: &Token, secret: &Secret) -> Result<Reply, RequestError> {
    let mut answer = shown(api, token);
    answer["token"] = secret.expose().into();
    envelope::bare(&answer)
}

fn shown(api: &Api, token: &Token) -> Json {
    let secs = |ms: u64| (ms != 0).then_some(ms / 1000);
    let namespaces: Vec<String> = token.grants.namespaces.iter().map(ToString::to_string).collect();
    json!({
        "id": token.id.to_string(),
        "name": token.name,
        "account": token.account.to_string(),
        "scopes": token.grants.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
        "namespaces": namespaces,
        "created_secs": token.created_ms / 1000,
        "expires_secs": secs(token.expires_ms),
        "last_used_secs": api.kv.token_last_used(token.id).and_then(secs),
    })
}

pub(super) async fn json_of<T: for<'de> Deserialize<'de>>(
    body: &mut RequestBody,
    what: &str,
) -> Result<T, RequestError> {
    let text = body.read(BODY_LEN_MAX).await?;
    let text = if text.is_empty() { &b"{}"[..] } else { &text[..] };
    serde_json::from_slice(text)
        .map_err(|error| RequestError::invalid(format!("The body is not JSON with {what}: {error}.")))
}

fn in_bounds(name: &str, secs: u64, min: u64) -> Result<u64, RequestError> {
    match (min..=TTL_SECS_MAX).contains(&secs) {
        true => Ok(secs),
        false => Err(RequestError::Invalid(format!(
            "Invalid {name} of {secs}. Please specify an integer from {min} to {TTL_SECS_MAX}."
        ))),
    }
}
