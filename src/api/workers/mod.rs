//! Cloudflare's API of Workers: scripts, versions, deployments, secrets, routes, assets, tails.
//!
//! Goes through the catalog ([`Workers`]) for everything; knows neither how it is kept nor who runs a script. Whoever
//! has the scope `deploy` may change things, and see them; who has `read` may see them.

mod assets;
mod bindings;
mod deployments;
mod form;
mod metadata;
mod place;
mod routes;
mod scripts;
mod secrets;
mod settings;
mod shown;
mod tails;
mod versions;

use hyper::Method;
use hyper::header::{HeaderMap, USER_AGENT};
use hyper::http::request::Parts;
use serde_json::{Value as Json, json};

use super::auth::Caller;
use super::body::RequestBody;
use super::error::RequestError;
use super::query::Query;
use super::reply::Reply;
use super::{Api, envelope};
use crate::kv::{AccountId, KvError, Scope};
use crate::worker::catalog::{Script, Workers};
use crate::worker::{ScriptId, WorkerError};

pub(crate) use assets::upload as upload_assets;
pub(crate) use place::Place;
pub(crate) use routes::{zone, zone_route, zone_routes, zones};
pub(crate) use tails::{Grants as TailGrants, connect as connect_tail};

/// Largest body in JSON, in bytes.
const BODY_LEN_MAX: usize = 1024 * 1024;

/// What the handlers below work with: one request about the Workers of an account.
pub(crate) struct Call<'a> {
    api: &'a Api,
    workers: Workers,
    caller: &'a Caller,
    account: AccountId,
    headers: &'a HeaderMap,
    query: Query<'a>,
    /// The host that was asked, where no header says so.
    authority: Option<&'a str>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(api: &'a Api, caller: &'a Caller, account: AccountId, parts: &'a Parts) -> Self {
        let workers = api.shared.workers.in_session(&api.kv);
        let (query, authority) = (Query::new(parts.uri.query()), parts.uri.authority().map(|host| host.as_str()));
        Self { api, workers, caller, account, headers: &parts.headers, query, authority }
    }

    async fn script(&self, name: &str) -> Result<Script, RequestError> {
        Ok(self.workers.script(self.account, name).await?)
    }

    fn id(&self, name: &str) -> ScriptId {
        ScriptId { account: self.account, script: name.into() }
    }

    /// Who asks, for people.
    fn author(&self) -> String {
        match self.headers.get("x-auth-email").and_then(|email| email.to_str().ok()) {
            Some(email) => email.into(),
            None => self.caller.name(),
        }
    }

    /// With what they ask.
    fn source(&self) -> &'static str {
        let agent = self.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        match agent {
            _ if agent.starts_with("wrangler") => "wrangler",
            _ if agent.to_ascii_lowercase().contains("terraform") => "terraform",
            _ => "api",
        }
    }

    async fn audit(&self, what: &str, target: String) {
        self.api.audit(self.caller, what, target).await;
    }
}

impl From<WorkerError> for RequestError {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Kv(error) => RequestError::kv("workers")(error),
            error => Self::Worker(error),
        }
    }
}

impl From<KvError> for RequestError {
    fn from(error: KvError) -> Self {
        RequestError::kv("workers")(error)
    }
}

/// Answers a request below `/accounts/{account}/workers/`.
pub(crate) async fn answer(
    call: Call<'_>,
    place: Place<'_>,
    method: &Method,
    body: &mut RequestBody,
) -> Result<Reply, RequestError> {
    let is_read = *method == Method::GET;
    if call.caller.require(Scope::Deploy, None).is_err() {
        // What there is may be seen by who may read the whole account.
        call.caller.require(if is_read { Scope::Read } else { Scope::Deploy }, None)?;
    }
    let call = &call;
    match (place, method.as_str()) {
        (Place::Scripts, "GET") => scripts::list(call).await,
        (Place::Script(name), "GET") | (Place::Content(name), "GET") => scripts::content(call, name).await,
        (Place::Script(name), "PUT") => scripts::put(call, name, body).await,
        (Place::Content(name), "PUT") => scripts::put_content(call, name, body).await,
        (Place::Script(name) | Place::Service(name), "DELETE") => scripts::delete(call, name).await,
        (Place::Service(name), "GET") => scripts::service(call, name).await,
        (Place::Resource(name), "GET") => scripts::resource(call, name).await,
        (Place::Settings(name), "GET") => settings::get(call, name).await,
        (Place::Settings(name), "PATCH") => settings::patch(call, name, body).await,
        (Place::ScriptSettings(name), "GET") => settings::get_script(call, name).await,
        (Place::ScriptSettings(name), "PATCH") => settings::patch_script(call, name, body).await,
        (Place::ScriptSubdomain(name), "GET") => settings::place(call, name).await,
        (Place::ScriptSubdomain(name), "POST") => settings::set_place(call, name, body).await,
        (Place::ScriptSubdomain(name), "DELETE") => settings::remove_place(call, name).await,
        (Place::Schedules(name), "GET") => settings::schedules(call, name).await,
        (Place::Schedules(name), "PUT") => settings::set_schedules(call, name, body).await,
        (Place::Subdomain, "GET") => settings::subdomain(call).await,
        (Place::Subdomain, "PUT") => settings::set_subdomain(call, body).await,
        (Place::AccountSettings, "GET") => {
            envelope::result(json!({ "default_usage_model": "standard", "green_compute": false }))
        }
        (Place::ScriptRoutes(name), "GET") => routes::of_script(call, name).await,
        (Place::ScriptRoutes(name), "PUT") => routes::set_of_script(call, name, body).await,
        (Place::Secrets(name), "GET") => secrets::list(call, name).await,
        (Place::Secrets(name), "PUT") => secrets::put(call, name, body).await,
        (Place::Secret(name, secret), "GET") => secrets::get(call, name, secret).await,
        (Place::Secret(name, secret), "DELETE") => secrets::delete(call, name, secret).await,
        (Place::SecretsBulk(name), "PATCH") => secrets::patch(call, name, body).await,
        (Place::ResourceLatest(name), "PATCH") => secrets::patch_latest(call, name, body).await,
        (Place::Versions(name), "GET") => versions::list(call, name).await,
        (Place::Versions(name), "POST") => versions::upload(call, name, body).await,
        (Place::Version(name, version), "GET") => versions::get(call, name, version).await,
        (Place::Deployments(name), "GET") => deployments::list(call, name).await,
        (Place::Deployments(name), "POST") => deployments::create(call, name, body).await,
        (Place::Deployment(name, deployment), "GET") => deployments::get(call, name, deployment).await,
        (Place::Tails(name), "GET") => tails::list(call, name).await,
        (Place::Tails(name), "POST") => tails::create(call, name, body).await,
        (Place::Tail(name, tail), "DELETE") => tails::delete(call, name, tail).await,
        (Place::AssetSession(name), "POST") => assets::begin(call, name, body).await,
        (Place::Domains | Place::DurableObjects, "GET") => envelope::page(
            [(); 0],
            json!({ "page": 1, "per_page": 20, "count": 0, "total_count": 0, "total_pages": 0, "cursor": "" }),
        ),
        (place, _) => Err(super::dispatch::refuse(method, place.methods())),
    }
}

/// A body in JSON.
async fn json_body(body: &mut RequestBody) -> Result<Json, RequestError> {
    let text = body.read(BODY_LEN_MAX).await?;
    serde_json::from_slice(&text).map_err(|error| RequestError::invalid(format!("The body is not JSON: {error}.")))
}

/// An optional text in JSON.
fn text(json: &Json, name: &str) -> Result<Option<String>, RequestError> {
    match json.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(RequestError::invalid(format!("\"{name}\" is not text."))),
    }
}

/// An optional list of texts in JSON.
fn texts(json: &Json, name: &str) -> Result<Option<Vec<String>>, RequestError> {
    let wrong = || RequestError::invalid(format!("\"{name}\" is not a list of texts."));
    match json.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()
            .map(Some),
        Some(_) => Err(wrong()),
    }
}

/// Some of an object's fields, as the text of another.
fn picked(json: &Json, names: &[&str]) -> String {
    let fields = names.iter().filter_map(|name| Some(((*name).to_owned(), json.get(name)?.clone())));
    Json::Object(fields.filter(|(_, value)| !value.is_null()).collect()).to_string()
}

/// The text of an object that was kept.
fn object(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| json!({}))
}
