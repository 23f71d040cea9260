//! What is set for a script: with its version (bindings, compatibility), as a whole (tags, observability), where it is
//! served and when it runs by itself.

use serde_json::{Value as Json, json};

use super::super::body::RequestBody;
use super::super::envelope;
use super::super::error::RequestError;
use super::super::reply::Reply;
use super::super::timestamp::rfc3339;
use super::{Call, bindings, form, json_body, metadata, object, picked, scripts, text, texts};
use crate::worker::WorkerError;
use crate::worker::catalog::{Cron, Place, Script, SettingsChange, Version};

pub(super) async fn get(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let version = call.workers.latest(&script).await?.ok_or(WorkerError::ScriptNotFound)?;
    shown(call, &script, &version).await
}

async fn shown(call: &Call<'_>, script: &Script, version: &Version) -> Result<Reply, RequestError> {
    let mut shown = json!({
        "bindings": bindings::shown(version),
        "compatibility_date": version.compatibility_date(),
        "compatibility_flags": version.compatibility_flags(),
        "usage_model": "standard",
        "logpush": false,
        "tags": [],
        "tail_consumers": [],
        "placement": {},
    });
    for more in [object(version.remarks()), object(&call.workers.script_settings(script).await?)] {
        if let (Json::Object(shown), Json::Object(more)) = (&mut shown, more) {
            shown.extend(more);
        }
    }
    envelope::result(shown)
}

/// Makes a version with other settings and deploys it.
pub(super) async fn patch(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let wanted = match form::read(call.headers, body).await? {
        Some(form) => form.metadata,
        None => json_body(body).await?,
    };
    let bindings = match wanted.get("bindings") {
        None => None,
        Some(_) => {
            let (bindings, globals) = metadata::split(bindings::read(wanted.get("bindings"))?);
            if !globals.is_empty() {
                return Err(RequestError::Upload("parts that are globals come with the script itself".into()));
            }
            Some(bindings)
        }
    };
    let base = call.workers.latest(&script).await?.ok_or(WorkerError::ScriptNotFound)?;
    super::secrets::check_deployed(call, &script, &base).await?;
    let mut remarks = object(base.remarks());
    if let (Json::Object(remarks), Json::Object(more)) = (&mut remarks, object(&picked(&wanted, metadata::REMARKS))) {
        remarks.extend(more);
    }
    let change = SettingsChange {
        bindings,
        keep: texts(&wanted, "keep_bindings")?.unwrap_or_default(),
        compatibility_date: text(&wanted, "compatibility_date")?,
        compatibility_flags: texts(&wanted, "compatibility_flags")?,
        cpu_ms: wanted.get("limits").map(|_| metadata::cpu_ms(&wanted)).transpose()?,
        remarks: Some(remarks.to_string()),
    };
    let version = call.workers.change_settings(&script, change, &call.author(), call.source()).await?;
    scripts::deploy(call, &script, &version, "{}".into()).await?;
    merge(call, &script, &wanted).await?;
    call.audit("worker.settings", format!("{} version {}", script.id, version.id)).await;
    shown(call, &script, &version).await
}

/// Notes what the object says of a script as a whole, beside what is noted already.
pub(super) async fn merge(call: &Call<'_>, script: &Script, wanted: &Json) -> Result<Json, RequestError> {
    let mut settings = object(&call.workers.script_settings(script).await?);
    for name in metadata::SETTINGS {
        match wanted.get(name) {
            None => {}
            Some(Json::Null) => {
                settings.as_object_mut().map(|settings| settings.remove(*name));
            }
            Some(value) => settings[*name] = value.clone(),
        }
    }
    call.workers.set_script_settings(script, settings.to_string()).await?;
    Ok(settings)
}

pub(super) async fn get_script(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    envelope::result(whole(object(&call.workers.script_settings(&script).await?)))
}

pub(super) async fn patch_script(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let wanted = json_body(body).await?;
    let settings = merge(call, &script, &wanted).await?;
    call.audit("worker.settings", script.id.to_string()).await;
    envelope::result(whole(settings))
}

fn whole(settings: Json) -> Json {
    let mut whole =
        json!({ "logpush": false, "observability": { "enabled": false }, "tags": [], "tail_consumers": [] });
    if let (Json::Object(whole), Json::Object(settings)) = (&mut whole, settings) {
        whole.extend(settings);
    }
    whole
}

pub(super) async fn place(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    place_of(call.workers.place(&script).await?)
}

pub(super) async fn set_place(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let wanted = json_body(body).await?;
    let enabled = wanted.get("enabled").and_then(Json::as_bool);
    let enabled = enabled.ok_or_else(|| RequestError::invalid("\"enabled\" must be true or false."))?;
    let previews = wanted.get("previews_enabled").and_then(Json::as_bool);
    let place = Place { workers_dev: enabled, previews: previews.unwrap_or(enabled) };
    call.workers.set_place(&script, place).await?;
    call.audit("worker.subdomain", format!("{} {}", script.id, if enabled { "on" } else { "off" })).await;
    place_of(place)
}

pub(super) async fn remove_place(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let place = Place { workers_dev: false, previews: false };
    call.workers.set_place(&script, place).await?;
    call.audit("worker.subdomain", format!("{} off", script.id)).await;
    place_of(place)
}

fn place_of(place: Place) -> Result<Reply, RequestError> {
    envelope::result(json!({ "enabled": place.workers_dev, "previews_enabled": place.previews }))
}

pub(super) async fn schedules(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    schedules_of(call.workers.crons(&script).await?)
}

pub(super) async fn set_schedules(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let wanted = json_body(body).await?;
    let cron = |item: &Json| item.get("cron").and_then(Json::as_str).or(item.as_str()).map(str::to_owned);
    let crons: Option<Vec<String>> = wanted.as_array().and_then(|items| items.iter().map(cron).collect());
    let crons = crons.ok_or_else(|| RequestError::invalid("The body is no list of objects with a \"cron\"."))?;
    let crons = call.workers.set_crons(&script, crons).await?;
    call.audit("worker.schedules", format!("{}: {} of them", script.id, crons.len())).await;
    schedules_of(crons)
}

fn schedules_of(crons: Vec<Cron>) -> Result<Reply, RequestError> {
    let shown = |cron: &Cron| {
        let created = rfc3339(cron.created_ms);
        json!({ "cron": cron.cron, "created_on": created, "modified_on": created })
    };
    envelope::result(json!({ "schedules": crons.iter().map(shown).collect::<Vec<_>>() }))
}

pub(super) async fn subdomain(call: &Call<'_>) -> Result<Reply, RequestError> {
    envelope::result(json!({ "subdomain": call.workers.subdomain(call.account).await? }))
}

pub(super) async fn set_subdomain(call: &Call<'_>, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let wanted = text(&json_body(body).await?, "subdomain")?;
    let wanted = wanted.ok_or_else(|| RequestError::invalid("\"subdomain\" is missing."))?;
    call.workers.set_subdomain(call.account, &wanted).await?;
    call.audit("worker.subdomain", format!("of {}: {wanted}", call.account)).await;
    envelope::result(json!({ "subdomain": wanted }))
}
