//! Scripts, versions and deployments in JSON, as clients read them.

use serde_json::{Value as Json, json};

use super::super::error::RequestError;
use super::super::timestamp::rfc3339;
use super::{Call, bindings, object};
use crate::worker::Syntax;
use crate::worker::catalog::{Deployment, Script, Version};

/// Where scripts are served at their own names.
const LOCAL_DOMAIN: &str = "workers.localhost";

/// The address of a script's own: those of the first account have short names.
pub(super) async fn own_url(call: &Call<'_>, name: &str) -> Result<String, RequestError> {
    let config = &call.api.shared.config;
    let (scheme, rest) = config.workers_url.as_deref().and_then(|url| url.split_once("://")).unwrap_or(("http", ""));
    let port = rest.rsplit_once(':').map_or(String::new(), |(_, port)| format!(":{port}"));
    let label = match call.account == config.account {
        true => String::new(),
        false => format!(".{}", call.workers.subdomain(call.account).await?),
    };
    Ok(format!("{scheme}://{name}{label}.{LOCAL_DOMAIN}{port}"))
}

/// Adds the fields of one object to another.
fn add(to: &mut Json, from: Json) {
    if let (Json::Object(to), Json::Object(from)) = (to, from) {
        to.extend(from);
    }
}

/// A script as `PUT` and lists show it; `version` is what it runs, or the newest.
pub(super) fn script(script: &Script, version: Option<&Version>, settings: &str) -> Json {
    let changed_ms = version.map_or(script.created_ms, Version::created_ms);
    let mut shown = json!({
        "id": script.id.script,
        "tag": script.tag(),
        "created_on": rfc3339(script.created_ms),
        "modified_on": rfc3339(changed_ms),
        "usage_model": "standard",
        "logpush": false,
        "tags": [],
    });
    if let Some(version) = version {
        add(
            &mut shown,
            json!({
                "etag": version.etag(),
                "size": version.len(),
                "compatibility_date": version.compatibility_date(),
                "compatibility_flags": version.compatibility_flags(),
                "has_assets": version.has_assets(),
                "has_modules": version.syntax() == Syntax::Modules && !version.is_empty(),
                "last_deployed_from": version.source(),
            }),
        );
        add(&mut shown, object(version.remarks()));
    }
    add(&mut shown, object(settings));
    shown
}

/// A version as lists show it.
pub(super) fn version_item(version: &Version) -> Json {
    let created = rfc3339(version.created_ms());
    let mut annotations = object(version.annotations());
    if annotations.get("workers/triggered_by").is_none() {
        annotations["workers/triggered_by"] = "upload".into();
    }
    json!({
        "id": version.id.to_string(),
        "number": version.number(),
        "metadata": {
            "created_on": created,
            "modified_on": created,
            "source": version.source(),
            "author_id": "",
            "author_email": version.author(),
            "has_preview": false,
        },
        "annotations": annotations,
    })
}

/// A version with all that it is made of.
pub(super) fn version(version: &Version) -> Json {
    let mut shown = version_item(version);
    let script = json!({ "etag": version.etag(), "last_deployed_from": version.source() });
    let mut runtime = json!({
        "compatibility_date": version.compatibility_date(),
        "compatibility_flags": version.compatibility_flags(),
        "usage_model": "standard",
    });
    add(&mut runtime, object(version.remarks()));
    shown["resources"] = json!({
        "script": script,
        "script_runtime": runtime,
        "bindings": bindings::shown(version),
    });
    // Code is first run when a request comes: an upload starts nothing.
    shown["startup_time_ms"] = 0.into();
    shown
}

/// A deployment.
pub(super) fn deployment(deployment: &Deployment) -> Json {
    let versions: Vec<Json> = deployment
        .versions
        .iter()
        .map(|(version, share)| json!({ "version_id": version.to_string(), "percentage": number(*share) }))
        .collect();
    json!({
        "id": deployment.id.to_string(),
        "source": deployment.source,
        "strategy": "percentage",
        "author_email": deployment.author,
        "created_on": rfc3339(deployment.created_ms),
        "annotations": object(&deployment.annotations),
        "versions": versions,
    })
}

/// 100, not 100.0, where it is whole.
fn number(share: f64) -> Json {
    match share.fract() == 0.0 {
        true => (share as u64).into(),
        false => share.into(),
    }
}
