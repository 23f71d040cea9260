//! Scripts: upload, show, delete.

use hyper::Response;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue};
use serde_json::{Value as Json, json};

use super::super::body::RequestBody;
use super::super::envelope;
use super::super::error::RequestError;
use super::super::reply::Reply;
use super::super::timestamp::rfc3339;
use super::{Call, form, metadata, picked, shown};
use crate::worker::catalog::{NewAssets, NewDeployment, Script, Upload, Version};
use crate::worker::{Module, Syntax, WorkerError};

/// Separates the modules of a script that is shown. Random enough not to stand in one.
const BOUNDARY: &str = "starling-f3a1c7d2-5b0e-4f6a-9d8b-modules";

pub(super) async fn list(call: &Call<'_>) -> Result<Reply, RequestError> {
    let mut items = Vec::new();
    for script in call.workers.scripts(call.account).await? {
        let settings = call.workers.script_settings(&script).await?;
        items.push(shown::script(&script, running(call, &script).await?.as_ref(), &settings));
    }
    envelope::result(items)
}

/// The version that gets most requests, or else the newest.
pub(super) async fn running(call: &Call<'_>, script: &Script) -> Result<Option<Version>, RequestError> {
    if let Some(active) = call.workers.active(script).await? {
        let most = active.versions.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        if let Some((id, _)) = most
            && let Ok(version) = call.workers.version(script, *id).await
        {
            return Ok(Some(version));
        }
    }
    Ok(call.workers.latest(script).await?)
}

pub(super) async fn put(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let _place = call.api.large_body().await?;
    let (upload, metadata) = match form::read(call.headers, body).await? {
        Some(form) => {
            let metadata = form.metadata.clone();
            (metadata::upload(call, form)?, metadata)
        }
        None => {
            let (syntax, module) = form::script(call.headers, body).await?;
            (metadata::bare(call, syntax, module), json!({}))
        }
    };
    let annotations = upload.annotations.clone();
    let (script, version) = call.workers.upload(call.account, name, upload).await?;
    deploy(call, &script, &version, annotations).await?;
    if metadata::SETTINGS.iter().any(|name| metadata.get(name).is_some()) {
        super::settings::merge(call, &script, &metadata).await?;
    }
    call.audit("worker.deploy", format!("{} version {}", script.id, version.id)).await;
    let mut shown = shown::script(&script, Some(&version), &call.workers.script_settings(&script).await?);
    shown["deployment_id"] = version.id.to_string().replace('-', "").into();
    shown["startup_time_ms"] = 0.into();
    envelope::result(shown)
}

/// Has all requests go to a version.
pub(super) async fn deploy(
    call: &Call<'_>,
    script: &Script,
    version: &Version,
    annotations: String,
) -> Result<(), RequestError> {
    let (author, source) = (call.author(), call.source().into());
    let new = NewDeployment { versions: vec![(version.id, 100.0)], author, source, annotations };
    call.workers.deploy(script, new).await?;
    Ok(())
}

/// Other code, everything else as it is.
pub(super) async fn put_content(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let _place = call.api.large_body().await?;
    let script = call.script(name).await?;
    let base = call.workers.latest(&script).await?.ok_or(WorkerError::ScriptNotFound)?;
    let new = match form::read(call.headers, body).await? {
        Some(form) => metadata::upload(call, form)?,
        None => {
            let (syntax, module) = form::script(call.headers, body).await?;
            metadata::bare(call, syntax, module)
        }
    };
    let bindings = base
        .bindings()
        .map(|(name, _)| (name.to_owned(), crate::worker::catalog::NewBinding::Inherit(name.to_owned())));
    let upload = Upload {
        bindings: bindings.collect(),
        keep: Vec::new(),
        compatibility_date: Some(base.compatibility_date().into()),
        compatibility_flags: base.compatibility_flags().to_vec(),
        cpu_ms: base.cpu_ms(),
        assets: NewAssets::Keep,
        remarks: base.remarks().into(),
        ..new
    };
    let (script, version) = call.workers.upload(call.account, name, upload).await?;
    deploy(call, &script, &version, "{}".into()).await?;
    call.audit("worker.deploy", format!("{} version {}", script.id, version.id)).await;
    envelope::result(shown::script(&script, Some(&version), &call.workers.script_settings(&script).await?))
}

/// The code: a service worker as it is, modules as a form.
pub(super) async fn content(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let version = running(call, &script).await?.ok_or(WorkerError::ScriptNotFound)?;
    let modules = call.workers.content(&script, &version).await?;
    let (body, content_type) = match (version.syntax(), &modules[..]) {
        (Syntax::ServiceWorker, [only]) => (only.body.clone(), "application/javascript".into()),
        _ => (multipart(&modules).into(), format!("multipart/form-data; boundary={BOUNDARY}")),
    };
    let mut reply = Response::new(body.into());
    let header = |text: &str| HeaderValue::from_str(text).map_err(|_| RequestError::Internal("a header is no text"));
    reply.headers_mut().insert(CONTENT_TYPE, header(&content_type)?);
    reply.headers_mut().insert(ETAG, header(&format!("\"{}\"", version.etag()))?);
    if let Some(main) = modules.first().filter(|_| version.syntax() == Syntax::Modules)
        && let Ok(main) = HeaderValue::from_str(&main.name)
    {
        reply.headers_mut().insert("cf-entrypoint", main);
    }
    Ok(reply)
}

fn multipart(modules: &[Module]) -> Vec<u8> {
    let mut body = Vec::with_capacity(modules.iter().map(|module| module.body.len() + 256).sum());
    for module in modules {
        let name = module.name.replace('\\', "\\\\").replace('"', "\\\"");
        let kind = form::type_of(module.kind);
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
             Content-Type: {kind}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&module.body);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

pub(super) async fn delete(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    call.workers.delete_script(call.account, name).await?;
    call.audit("worker.delete", call.id(name).to_string()).await;
    Ok(envelope::empty())
}

/// The script as a service with one environment.
pub(super) async fn service(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let script = match call.workers.script(call.account, name).await {
        Err(WorkerError::ScriptNotFound) => return Err(RequestError::ServiceNotFound),
        found => found?,
    };
    let version = running(call, &script).await?;
    let settings = call.workers.script_settings(&script).await?;
    let environment = json!({
        "environment": "production",
        "created_on": rfc3339(script.created_ms),
        "modified_on": rfc3339(version.as_ref().map_or(script.created_ms, Version::created_ms)),
        "script": shown::script(&script, version.as_ref(), &settings),
    });
    envelope::result(json!({
        "id": name,
        "default_environment": environment,
        "environments": [environment],
        "created_on": rfc3339(script.created_ms),
        "modified_on": environment["modified_on"],
    }))
}

/// The script as a resource.
pub(super) async fn resource(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let place = call.workers.place(&script).await?;
    let version = running(call, &script).await?;
    let settings: Json = super::object(&call.workers.script_settings(&script).await?);
    let observability = settings.get("observability").cloned().unwrap_or(json!({ "enabled": false }));
    let kept = super::object(&picked(&settings, &["tags", "tail_consumers"]));
    let mut shown = json!({
        "id": script.tag(),
        "name": name,
        "created_on": rfc3339(script.created_ms),
        "updated_on": rfc3339(version.map_or(script.created_ms, |version| version.created_ms())),
        "subdomain": {
            "enabled": place.workers_dev,
            "previews_enabled": place.previews,
            "url": shown::own_url(call, name).await?,
        },
        "observability": observability,
        "logpush": settings.get("logpush").and_then(Json::as_bool).unwrap_or(false),
        "tags": [],
        "tail_consumers": [],
        "references": { "domains": [], "durable_objects": [], "queues": [], "workers": [] },
    });
    if let (Json::Object(shown), Json::Object(kept)) = (&mut shown, kept) {
        shown.extend(kept);
    }
    envelope::result(shown)
}
