//! Who asks, and for which account. Tokens are compared by `kv`; none is ever logged or kept here.
//!
//! Statuses and codes as Cloudflare's: 400/9106 without credentials, 400/6003 with unreadable ones, 403/10000 with
//! wrong ones. A right token for another account gets the answer of a wrong token, so that nothing leaks; 403/9109 is
//! for a token of the account that may not do what was asked.

use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderMap};

use super::error::RequestError;
use crate::kv::{AccountId, Grants, Kv, NamespaceId, Scope, Token};

/// Longest token looked at, in bytes.
const TOKEN_LEN_MAX: usize = 512;

/// Who sent a request.
#[derive(Clone)]
pub(crate) enum Caller {
    /// Whoever reaches a node that runs with `--dev`; its default account.
    Anyone(AccountId),
    /// The holder of a token.
    Holder(Arc<Token>),
}

impl Caller {
    /// In dev mode everyone is let in, except what a browser sends for a page of another site: such a page could
    /// otherwise write to a node on the user's own machine.
    pub(crate) fn anyone(headers: &HeaderMap, account: AccountId) -> Result<Self, RequestError> {
        match headers.get("sec-fetch-site") {
            Some(site) if site == "cross-site" => Err(RequestError::CrossSite),
            _ => Ok(Self::Anyone(account)),
        }
    }

    pub(crate) fn authenticate(headers: &HeaderMap, kv: &Kv) -> Result<Self, RequestError> {
        kv.authenticate(token(headers)?).map(Self::Holder).ok_or(RequestError::Unauthenticated)
    }

    /// The account of the caller's own.
    pub(crate) fn home(&self) -> AccountId {
        match self {
            Self::Anyone(account) => *account,
            Self::Holder(token) => token.account,
        }
    }

    /// Fails unless the caller may do that there; see [`Grants::allow`](crate::kv::Grants::allow).
    pub(crate) fn require(&self, scope: Scope, namespace: Option<NamespaceId>) -> Result<(), RequestError> {
        match self {
            Self::Holder(token) if !token.grants.allow(scope, namespace) => Err(RequestError::OutOfScope {
                scope,
                place: if namespace.is_some() { "this namespace" } else { "the whole account" },
            }),
            _ => Ok(()),
        }
    }

    /// Whether the caller could do itself all that a token with these grants could.
    pub(crate) fn covers(&self, grants: &Grants, account: AccountId) -> bool {
        match self {
            Self::Anyone(_) => true,
            // Who operates the cluster could make itself a token for any account; but only for itself one that operates.
            Self::Holder(token) if token.account != account => {
                token.grants.allow(Scope::Operate, None) && !grants.scopes.contains(&Scope::Operate)
            }
            Self::Holder(token) => token.grants.cover(grants),
        }
    }

    /// Whether the caller sees a namespace of the own account at all.
    pub(crate) fn sees(&self, namespace: NamespaceId) -> bool {
        match self {
            Self::Anyone(_) => true,
            Self::Holder(token) => token.grants.sees(namespace),
        }
    }

    /// For the audit log.
    pub(crate) fn who(&self) -> String {
        match self {
            Self::Anyone(_) => "anyone (--dev)".into(),
            Self::Holder(token) => format!("{:?} {}", token.name, token.id),
        }
    }

    /// What the caller's token is called.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Anyone(_) => "anyone (--dev)".into(),
            Self::Holder(token) => token.name.clone(),
        }
    }

    /// The id of the caller's token.
    pub(crate) fn token_id(&self) -> String {
        match self {
            Self::Anyone(account) => account.to_string(),
            Self::Holder(token) => token.id.to_string(),
        }
    }

    /// The account that a path names, if the caller may use it.
    pub(crate) fn account(&self, segment: &str, path: &str) -> Result<AccountId, RequestError> {
        match (self, segment.parse::<AccountId>()) {
            (Self::Holder(token), Ok(account)) if account == token.account => Ok(account),
            (Self::Holder(_), Ok(_)) => Err(RequestError::Unauthenticated),
            (Self::Holder(_), Err(_)) => Err(RequestError::no_route(path)),
            (Self::Anyone(_), Ok(account)) => Ok(account),
            (Self::Anyone(_), Err(_)) => Ok(named_account(segment)),
        }
    }
}

/// The account that a free name stands for in dev mode.
pub(super) fn named_account(name: &str) -> AccountId {
    let hash = blake3::hash(name.as_bytes());
    let mut id = [0; 16];
    id.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
    AccountId(id)
}

/// `Authorization: Bearer T`, or `X-Auth-Email` with `X-Auth-Key: T`.
fn token(headers: &HeaderMap) -> Result<&str, RequestError> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let token = value.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        return token
            .filter(|token| is_plausible(token))
            .ok_or(RequestError::MalformedCredentials(6111, "Invalid format for Authorization header"));
    }
    match (headers.get("x-auth-email"), headers.get("x-auth-key")) {
        (None, None) => Err(RequestError::MissingCredentials),
        (None, Some(_)) => Err(RequestError::MalformedCredentials(6102, "Missing X-Auth-Email header")),
        (Some(_), None) => Err(RequestError::MalformedCredentials(6103, "Missing X-Auth-Key header")),
        (Some(_), Some(key)) => key
            .to_str()
            .ok()
            .filter(|token| is_plausible(token))
            .ok_or(RequestError::MalformedCredentials(6103, "Invalid format for X-Auth-Key header")),
    }
}

fn is_plausible(token: &str) -> bool {
    !token.is_empty() && token.len() <= TOKEN_LEN_MAX && token.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    fn read(headers: &[(&'static str, &str)]) -> Result<String, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::from_static(name), value.parse().expect("a header value"));
        }
        token(&map).map(str::to_owned).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn both_kinds_of_credentials_are_read() {
        assert_eq!(read(&[("authorization", "Bearer abc")]).as_deref(), Ok("abc"));
        assert_eq!(read(&[("authorization", "bearer abc")]).as_deref(), Ok("abc"));
        assert_eq!(read(&[("x-auth-email", "a@b"), ("x-auth-key", "abc")]).as_deref(), Ok("abc"));
        assert!(read(&[]).is_err_and(|e| e.contains("Missing")));
        for bad in ["abc", "Basic abc", "Bearer", "Bearer ", "Bearer a b"] {
            assert!(read(&[("authorization", bad)]).is_err_and(|e| e.contains("6111")), "{bad}");
        }
        assert!(read(&[("x-auth-key", "abc")]).is_err_and(|e| e.contains("6102")));
    }

    #[test]
    fn a_holder_reaches_only_the_own_account() {
        let own = AccountId([7; 16]);
        let token = Token {
            id: crate::kv::TokenId([1; 16]),
            account: own,
            name: "t".into(),
            grants: Grants::all(),
            created_ms: 0,
            expires_ms: 0,
        };
        let caller = Caller::Holder(Arc::new(token));
        assert!(caller.account(&own.to_string(), "/").is_ok_and(|account| account == own));
        assert!(matches!(caller.account(&AccountId([8; 16]).to_string(), "/"), Err(RequestError::Unauthenticated)));
        assert!(matches!(caller.account("me", "/"), Err(RequestError::NoRoute(_))));
    }

    #[test]
    fn in_dev_mode_a_name_always_stands_for_the_same_account() {
        let caller = Caller::Anyone(AccountId([0; 16]));
        let named = |name| caller.account(name, "/").expect("any account");
        assert_eq!(named("me"), named("me"));
        assert_ne!(named("me"), named("you"));
    }
}
