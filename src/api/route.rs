//! From the raw path of a request to what it addresses.
//!
//! Matches before any decoding, since a slash in a key arrives as `%2F`; knows neither methods nor what exists.

use super::workers::Place;

/// Segments after `/client/v4`, at most: accounts/{a}/storage/kv/namespaces/{ns}/bulk/get.
const SEGMENTS_MAX: usize = 8;

/// What a path addresses. Accounts, namespaces and keys are as they stand in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Health,
    Ready,
    Metrics,
    Status,
    Invite,
    Leave,
    Evict,
    Tokens,
    Token(&'a str),
    TokenRoll(&'a str),
    StarlingAccounts,
    Audit,
    Keys,
    RotateKeys,
    Verify,
    Backups,
    Backup(&'a str),
    User,
    TokenVerify,
    Memberships,
    Accounts,
    Account(&'a str),
    AccountTokenVerify(&'a str),
    Zones,
    Zone(&'a str),
    ZonePatterns(&'a str),
    ZonePattern(&'a str, &'a str),
    Workers {
        account: &'a str,
        place: Place<'a>,
    },
    /// Where a client connects to watch a script.
    Tail {
        id: &'a str,
        secret: &'a str,
    },
    OpenApi,
    Namespaces(&'a str),
    Namespace {
        account: &'a str,
        namespace: &'a str,
        target: Target<'a>,
    },
    Unknown,
}

impl Route<'_> {
    /// What it is called in metrics: from a short list, whatever clients make up.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Health => "healthz",
            Self::Ready => "readyz",
            Self::Metrics => "metrics",
            Self::OpenApi => "openapi",
            Self::Zones | Self::Zone(_) => "zones",
            Self::ZonePatterns(_) | Self::ZonePattern(..) => "routes",
            Self::Workers { place, .. } => place.label(),
            Self::Tail { .. } => "tails",
            Self::Status => "status",
            Self::Invite => "invite",
            Self::Leave => "leave",
            Self::Evict => "evict",
            Self::Tokens | Self::Token(_) | Self::TokenRoll(_) => "tokens",
            Self::StarlingAccounts => "accounts",
            Self::Audit => "audit",
            Self::Keys | Self::RotateKeys => "keyring",
            Self::Verify => "verify",
            Self::Backups | Self::Backup(_) => "backups",
            Self::User | Self::TokenVerify | Self::Memberships => "user",
            Self::Accounts | Self::Account(_) | Self::AccountTokenVerify(_) => "accounts",
            Self::Namespaces(_) => "namespaces",
            Self::Namespace { target, .. } => match target {
                Target::Itself => "namespace",
                Target::Keys => "keys",
                Target::Value(_) => "value",
                Target::Metadata(_) => "metadata",
                Target::Bulk => "bulk",
                Target::BulkDelete => "bulk_delete",
                Target::BulkGet => "bulk_get",
                Target::Changes => "changes",
            },
            Self::Unknown => "unknown",
        }
    }
}

/// What a path addresses within a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    Itself,
    Keys,
    Value(&'a str),
    Metadata(&'a str),
    Bulk,
    BulkDelete,
    BulkGet,
    Changes,
}

/// Routes a raw, undecoded path.
pub(crate) fn route(path: &str) -> Route<'_> {
    let Some(below) = path.strip_prefix("/client/v4/") else {
        return match path {
            "/healthz" => Route::Health,
            "/readyz" => Route::Ready,
            "/metrics" => Route::Metrics,
            "/starling/v1/status" => Route::Status,
            "/starling/v1/invite" => Route::Invite,
            "/starling/v1/leave" => Route::Leave,
            "/starling/v1/evict" => Route::Evict,
            "/starling/v1/tokens" => Route::Tokens,
            "/starling/v1/accounts" => Route::StarlingAccounts,
            "/starling/v1/audit" => Route::Audit,
            "/starling/v1/keys" => Route::Keys,
            "/starling/v1/keys/rotate" => Route::RotateKeys,
            "/starling/v1/verify" => Route::Verify,
            "/starling/v1/backups" => Route::Backups,
            _ => by_id(path),
        };
    };
    let mut segments = [""; SEGMENTS_MAX];
    let mut count = 0;
    for segment in below.split('/') {
        let Some(slot) = segments.get_mut(count) else {
            return Route::Unknown;
        };
        *slot = segment;
        count += 1;
    }
    match segments.get(..count).unwrap_or_default() {
        ["user"] => Route::User,
        ["user", "tokens", "verify"] => Route::TokenVerify,
        ["memberships"] => Route::Memberships,
        ["zones"] => Route::Zones,
        ["zones", zone] => Route::Zone(zone),
        ["zones", zone, "workers", "routes"] => Route::ZonePatterns(zone),
        ["zones", zone, "workers", "routes", route] => Route::ZonePattern(zone, route),
        ["openapi.json"] => Route::OpenApi,
        ["accounts"] => Route::Accounts,
        ["accounts", account] => Route::Account(account),
        ["accounts", account, "tokens", "verify"] => Route::AccountTokenVerify(account),
        // The second form is the alias of 2018.
        ["accounts", account, "storage", "kv", "namespaces", rest @ ..]
        | ["accounts", account, "workers", "namespaces", rest @ ..] => namespaces(account, rest),
        ["accounts", account, "workers", rest @ ..] => match Place::of(rest) {
            Some(place) => Route::Workers { account, place },
            None => Route::Unknown,
        },
        _ => Route::Unknown,
    }
}

fn by_id(path: &str) -> Route<'_> {
    if let Some((id, secret)) = path.strip_prefix("/starling/v1/tails/").and_then(|rest| rest.split_once('/')) {
        return Route::Tail { id, secret };
    }
    if let Some(number) = path.strip_prefix("/starling/v1/backups/") {
        return Route::Backup(number);
    }
    match path.strip_prefix("/starling/v1/tokens/").map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
        Some((id, "")) if !id.is_empty() && path.ends_with(id) => Route::Token(id),
        Some((id, "roll")) => Route::TokenRoll(id),
        _ => Route::Unknown,
    }
}

fn namespaces<'a>(account: &'a str, segments: &[&'a str]) -> Route<'a> {
    let Some((namespace, rest)) = segments.split_first() else {
        return Route::Namespaces(account);
    };
    let target = match rest {
        [] => Target::Itself,
        ["keys"] => Target::Keys,
        ["changes"] => Target::Changes,
        ["values", key] => Target::Value(key),
        ["metadata", key] => Target::Metadata(key),
        ["bulk"] => Target::Bulk,
        ["bulk", "delete"] => Target::BulkDelete,
        ["bulk", "get"] => Target::BulkGet,
        _ => return Route::Unknown,
    };
    Route::Namespace { account, namespace, target }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(rest: &str) -> Option<Target<'_>> {
        match route(rest) {
            Route::Namespace { account: "acc", namespace: "ns", target } => Some(target),
            _ => None,
        }
    }

    #[test]
    fn both_prefixes_lead_to_the_same_place() {
        for prefix in ["/client/v4/accounts/acc/storage/kv/namespaces", "/client/v4/accounts/acc/workers/namespaces"] {
            assert_eq!(route(prefix), Route::Namespaces("acc"));
            let at = |rest: &str| format!("{prefix}/ns{rest}");
            assert_eq!(target(&at("")), Some(Target::Itself));
            assert_eq!(target(&at("/keys")), Some(Target::Keys));
            assert_eq!(target(&at("/metadata/k")), Some(Target::Metadata("k")));
            assert_eq!(target(&at("/bulk")), Some(Target::Bulk));
            assert_eq!(target(&at("/bulk/delete")), Some(Target::BulkDelete));
            assert_eq!(target(&at("/bulk/get")), Some(Target::BulkGet));
            assert_eq!(target(&at("/changes")), Some(Target::Changes));
        }
    }

    #[test]
    fn a_key_is_one_raw_segment() {
        let at = |key: &str| format!("/client/v4/accounts/acc/storage/kv/namespaces/ns/values/{key}");
        for key in ["a%20b%2F%C3%BC%3F%231", "bulk%2Fget", "%2E", "..", "", "keys", "values"] {
            assert_eq!(target(&at(key)), Some(Target::Value(key)), "{key}");
        }
        assert_eq!(route(&at("a/b")), Route::Unknown);
    }

    #[test]
    fn what_is_not_served_is_unknown() {
        let paths = [
            "/",
            "/client/v4",
            "/client/v4/",
            "/client/v4/zones/z/x",
            "/client/v4/accounts/a/workers",
            "/client/v4/accounts/a/workers/scripts/n/versions/v/x",
            "/starling/v1/tails/x",
            "/client/v4/accounts/a/storage/kv",
            "/client/v4//accounts",
            "/client/v4/user/",
            "/starling/v1",
            "/client/v4/a/b/c/d/e/f/g/h/i",
        ];
        for path in paths {
            assert_eq!(route(path), Route::Unknown, "{path}");
        }
    }
}
