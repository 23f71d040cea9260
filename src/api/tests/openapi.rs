//! The description says what the node does: the same routes, the same methods.

use std::collections::BTreeSet;

use super::*;
use crate::api::route::{Route, Target, route};
use crate::api::workers::Place;

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// Where a route is described. Names every route: a new one does not compile until it is here.
fn described_as(route: Route<'_>) -> Option<&'static str> {
    Some(match route {
        Route::User => "/user",
        Route::TokenVerify => "/user/tokens/verify",
        Route::Memberships => "/memberships",
        Route::Zones => "/zones",
        Route::OpenApi => "/openapi.json",
        Route::Accounts => "/accounts",
        Route::Account(_) => "/accounts/{account_id}",
        Route::AccountTokenVerify(_) => "/accounts/{account_id}/tokens/verify",
        Route::Namespaces(_) => "/accounts/{account_id}/storage/kv/namespaces",
        Route::Namespace { target, .. } => match target {
            Target::Itself => "/accounts/{account_id}/storage/kv/namespaces/{namespace_id}",
            Target::Keys => "/accounts/{account_id}/storage/kv/namespaces/{namespace_id}/keys",
            Target::Value(_) => "/accounts/{account_id}/storage/kv/namespaces/{namespace_id}/values/{key_name}",
            Target::Metadata(_) => "/accounts/{account_id}/storage/kv/namespaces/{namespace_id}/metadata/{key_name}",
            Target::Bulk => "/accounts/{account_id}/storage/kv/namespaces/{namespace_id}/bulk",
            Target::BulkDelete => "/accounts/{account_id}/storage/kv/namespaces/{namespace_id}/bulk/delete",
            Target::BulkGet => "/accounts/{account_id}/storage/kv/namespaces/{namespace_id}/bulk/get",
            // A stream without an end, for which OpenAPI has no words: a tool that believes it waits for ever.
            Target::Changes => return None,
        },
        Route::Zone(_) => "/zones/{zone_id}",
        Route::ZonePatterns(_) => "/zones/{zone_id}/workers/routes",
        Route::ZonePattern(..) => "/zones/{zone_id}/workers/routes/{route_id}",
        Route::Workers { place, .. } => match place {
            Place::Scripts => "/accounts/{account_id}/workers/scripts",
            Place::Script(_) => "/accounts/{account_id}/workers/scripts/{script_name}",
            Place::Content(_) => "/accounts/{account_id}/workers/scripts/{script_name}/content",
            Place::Settings(_) => "/accounts/{account_id}/workers/scripts/{script_name}/settings",
            Place::ScriptSettings(_) => "/accounts/{account_id}/workers/scripts/{script_name}/script-settings",
            Place::ScriptSubdomain(_) => "/accounts/{account_id}/workers/scripts/{script_name}/subdomain",
            Place::Schedules(_) => "/accounts/{account_id}/workers/scripts/{script_name}/schedules",
            Place::ScriptRoutes(_) => "/accounts/{account_id}/workers/scripts/{script_name}/routes",
            Place::Secrets(_) => "/accounts/{account_id}/workers/scripts/{script_name}/secrets",
            Place::Secret(..) => "/accounts/{account_id}/workers/scripts/{script_name}/secrets/{secret_name}",
            Place::SecretsBulk(_) => "/accounts/{account_id}/workers/scripts/{script_name}/secrets-bulk",
            Place::Versions(_) => "/accounts/{account_id}/workers/scripts/{script_name}/versions",
            Place::Version(..) => "/accounts/{account_id}/workers/scripts/{script_name}/versions/{version_id}",
            Place::Deployments(_) => "/accounts/{account_id}/workers/scripts/{script_name}/deployments",
            Place::Deployment(..) => "/accounts/{account_id}/workers/scripts/{script_name}/deployments/{deployment_id}",
            Place::Tails(_) => "/accounts/{account_id}/workers/scripts/{script_name}/tails",
            Place::Tail(..) => "/accounts/{account_id}/workers/scripts/{script_name}/tails/{tail_id}",
            Place::AssetSession(_) => "/accounts/{account_id}/workers/scripts/{script_name}/assets-upload-session",
            Place::AssetUpload => "/accounts/{account_id}/workers/assets/upload",
            Place::Subdomain => "/accounts/{account_id}/workers/subdomain",
            Place::AccountSettings => "/accounts/{account_id}/workers/account-settings",
            Place::Service(_) => "/accounts/{account_id}/workers/services/{script_name}",
            Place::Resource(_) => "/accounts/{account_id}/workers/workers/{script_name}",
            Place::ResourceLatest(_) => "/accounts/{account_id}/workers/workers/{script_name}/versions/latest",
            Place::Domains => "/accounts/{account_id}/workers/domains",
            Place::DurableObjects => "/accounts/{account_id}/workers/durable_objects/namespaces",
        },
        // Not below /client/v4.
        Route::Health | Route::Ready | Route::Metrics | Route::Unknown => return None,
        Route::Status | Route::Invite | Route::Leave | Route::Evict => return None,
        Route::Tokens | Route::Token(_) | Route::TokenRoll(_) | Route::StarlingAccounts => return None,
        Route::Tail { .. } | Route::Audit | Route::Keys | Route::RotateKeys | Route::Verify => return None,
        Route::Backups | Route::Backup(_) => return None,
    })
}

fn every_route() -> Vec<Route<'static>> {
    let (account, namespace) = ("a", "n");
    let targets = [
        Target::Itself,
        Target::Keys,
        Target::Value("k"),
        Target::Metadata("k"),
        Target::Bulk,
        Target::BulkDelete,
        Target::BulkGet,
        Target::Changes,
    ];
    let places = [
        Place::Scripts,
        Place::Script("w"),
        Place::Content("w"),
        Place::Settings("w"),
        Place::ScriptSettings("w"),
        Place::ScriptSubdomain("w"),
        Place::Schedules("w"),
        Place::ScriptRoutes("w"),
        Place::Secrets("w"),
        Place::Secret("w", "s"),
        Place::SecretsBulk("w"),
        Place::Versions("w"),
        Place::Version("w", "v"),
        Place::Deployments("w"),
        Place::Deployment("w", "d"),
        Place::Tails("w"),
        Place::Tail("w", "t"),
        Place::AssetSession("w"),
        Place::AssetUpload,
        Place::Subdomain,
        Place::AccountSettings,
        Place::Service("w"),
        Place::Resource("w"),
        Place::ResourceLatest("w"),
        Place::Domains,
        Place::DurableObjects,
    ];
    let mut routes = vec![
        Route::Zone("z"),
        Route::ZonePatterns("z"),
        Route::ZonePattern("z", "r"),
        Route::User,
        Route::TokenVerify,
        Route::Memberships,
        Route::Zones,
        Route::OpenApi,
        Route::Accounts,
        Route::Account(account),
        Route::AccountTokenVerify(account),
        Route::Namespaces(account),
    ];
    routes.extend(targets.map(|target| Route::Namespace { account, namespace, target }));
    routes.extend(places.map(|place| Route::Workers { account, place }));
    routes
}

/// A path with something for each of its parameters.
fn filled(path: &str, account: &str, namespace: &str) -> String {
    let values = [
        ("{account_id}", account),
        ("{namespace_id}", namespace),
        ("{key_name}", "k"),
        ("{script_name}", "w"),
        ("{secret_name}", "s"),
        ("{version_id}", "v"),
        ("{deployment_id}", "d"),
        ("{tail_id}", "t"),
        ("{zone_id}", "00000000000000000000000000000000"),
        ("{route_id}", "r"),
    ];
    let path = values.into_iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
    format!("/client/v4{path}")
}

async fn described(server: &Server) -> Json {
    let answer = server.call("GET", "/client/v4/openapi.json", "", b"").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.json()
}

#[tokio::test]
async fn every_route_is_described_and_nothing_else() {
    let server = Server::start(false).await;
    let json = described(&server).await;
    let paths: BTreeSet<&str> = json["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    let routes: BTreeSet<&str> = every_route().into_iter().filter_map(described_as).collect();
    assert_eq!(paths, routes);
    for path in paths {
        assert_eq!(described_as(route(&filled(path, "a", "n"))), Some(path));
    }
}

#[tokio::test]
async fn methods_are_taken_if_described() {
    let server = Server::start(true).await;
    let json = described(&server).await;
    let ns = server.namespace("a").await.replace("/namespaces/", "");
    for (path, operations) in json["paths"].as_object().expect("paths") {
        let at = filled(path, &ACCOUNT.to_string(), &ns);
        let taken = METHODS.into_iter().filter(|method| operations.get(method).is_some());
        let allow = taken.map(str::to_ascii_uppercase).collect::<Vec<_>>().join(", ");
        for method in METHODS.into_iter().filter(|method| operations.get(method).is_none()) {
            let refused = server.call(&method.to_ascii_uppercase(), &at, "", b"").await;
            assert_eq!((refused.code(), refused.header("allow")), ((405, 7001), Some(&*allow)), "{method} {path}");
        }
    }
    // The namespace's own deletion comes last.
    let last = |path: &str| path.ends_with("{namespace_id}");
    let mut paths: Vec<_> = json["paths"].as_object().expect("paths").iter().collect();
    paths.sort_by_key(|(path, _)| last(path));
    for (path, operations) in paths {
        let at = filled(path, &ACCOUNT.to_string(), &ns);
        for method in METHODS.into_iter().filter(|method| operations.get(method).is_some()) {
            let body = operations[method]["requestBody"]["content"]["application/json"]["example"].to_string();
            let answer = server.call(&method.to_ascii_uppercase(), &at, "", body.as_bytes()).await;
            let described = operations[method]["responses"].get(answer.status.to_string());
            assert!(described.is_some(), "{method} {path} answers {}", answer.status);
            assert_ne!(answer.status, 405, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn credentials_are_described_where_they_count() {
    let described_by = async |dev| described(&Server::start(dev).await).await;
    assert_eq!(described_by(true).await.get("security"), None);
    assert_eq!(described_by(false).await["security"][0], serde_json::json!({ "token": [] }));
}
