//! What an upload says about itself: which module is the main one, what it is bound to, how it is to be run.

use serde_json::Value as Json;

use super::super::error::RequestError;
use super::bindings::{self, Read};
use super::form::{self, Form};
use super::{Call, picked, text, texts};
use crate::worker::catalog::{AssetConfig, NewAssets, NewBinding, Upload};
use crate::worker::{HtmlHandling, Module, ModuleKind, NotFoundHandling, ScriptFirst, Syntax, WorkerError};

/// Beside what the catalog knows of itself, this is kept with a version and shown again.
pub(super) const REMARKS: &[&str] = &["usage_model", "placement", "limits", "cache_options"];
/// This is kept for the script as a whole.
pub(super) const SETTINGS: &[&str] = &["logpush", "observability", "tags", "tail_consumers"];
/// What would be silently without effect, and matters.
const UNSUPPORTED: &[(&str, &str)] =
    &[("migrations", "durable objects"), ("containers", "containers"), ("exports", "exports that are configured")];

/// Reads an upload.
pub(super) fn upload(call: &Call<'_>, form: Form) -> Result<Upload, RequestError> {
    let Form { metadata, parts } = form;
    for (name, what) in UNSUPPORTED {
        if metadata.get(name).is_some_and(|value| !is_empty(value)) {
            return Err(RequestError::Upload(format!("there are no {what} here: take \"{name}\" out")));
        }
    }
    let (syntax, main) = match (text(&metadata, "main_module")?, text(&metadata, "body_part")?) {
        (Some(main), _) => (Syntax::Modules, Some(main)),
        (None, Some(main)) => (Syntax::ServiceWorker, Some(main)),
        (None, None) => (Syntax::Modules, None),
    };
    let mut modules = Vec::with_capacity(parts.len());
    let names: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
    for part in parts {
        let kind = match &main {
            Some(main) if part.name == *main => Some(ModuleKind::JavaScript),
            _ => form::kind(&part)?,
        };
        if let Some(kind) = kind {
            modules.push(Module { name: part.name, kind, body: part.body });
        }
    }
    match &main {
        Some(main) => match modules.iter().position(|module| module.name == *main) {
            Some(at) => modules.get_mut(..=at).unwrap_or_default().rotate_right(1),
            None => {
                let there = match names.is_empty() {
                    true => ", of which there are none".into(),
                    false => format!(" ({})", names.join(", ").chars().take(200).collect::<String>()),
                };
                return Err(WorkerError::NoMain(main.clone(), there).into());
            }
        },
        None if !modules.is_empty() => {
            return Err(RequestError::Upload("the metadata names no \"main_module\" and no \"body_part\"".into()));
        }
        None => {}
    }
    let (bindings, globals) = split(bindings::read(metadata.get("bindings"))?);
    if syntax == Syntax::ServiceWorker || !globals.is_empty() {
        bindings::globals(&mut modules, &globals)?;
    }
    Ok(Upload {
        syntax,
        modules,
        bindings,
        keep: texts(&metadata, "keep_bindings")?.unwrap_or_default(),
        compatibility_date: text(&metadata, "compatibility_date")?,
        compatibility_flags: texts(&metadata, "compatibility_flags")?.unwrap_or_default(),
        cpu_ms: cpu_ms(&metadata)?,
        assets: assets(&metadata)?,
        author: call.author(),
        source: call.source().into(),
        annotations: annotations(&metadata)?,
        remarks: picked(&metadata, REMARKS),
    })
}

/// A script that came alone.
pub(super) fn bare(call: &Call<'_>, syntax: Syntax, module: Module) -> Upload {
    Upload {
        syntax,
        modules: vec![module],
        bindings: Vec::new(),
        keep: Vec::new(),
        compatibility_date: None,
        compatibility_flags: Vec::new(),
        cpu_ms: None,
        assets: NewAssets::None,
        author: call.author(),
        source: call.source().into(),
        annotations: "{}".into(),
        remarks: "{}".into(),
    }
}

/// Names for `env`, and parts that are globals.
#[allow(clippy::type_complexity, reason = "two lists, each of what it is called")]
pub(super) fn split(read: Vec<Read>) -> (Vec<(String, NewBinding)>, Vec<(String, String, ModuleKind)>) {
    let (mut bindings, mut globals) = (Vec::new(), Vec::new());
    for one in read {
        match one {
            Read::Binding(name, binding) => bindings.push((name, binding)),
            Read::Global { name, part, kind } => globals.push((name, part, kind)),
        }
    }
    (bindings, globals)
}

/// `limits.cpu_ms`.
pub(super) fn cpu_ms(metadata: &Json) -> Result<Option<u32>, RequestError> {
    match metadata.get("limits").and_then(|limits| limits.get("cpu_ms")) {
        None | Some(Json::Null) => Ok(None),
        Some(number) => number
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| *number > 0)
            .map(Some)
            .ok_or_else(|| RequestError::Upload("limits.cpu_ms is not a number of milliseconds".into())),
    }
}

/// `annotations`, an object of short texts.
pub(super) fn annotations(metadata: &Json) -> Result<String, RequestError> {
    match metadata.get("annotations") {
        None | Some(Json::Null) => Ok("{}".into()),
        Some(Json::Object(annotations)) => {
            let kept = annotations.iter().filter(|(name, value)| name.starts_with("workers/") && value.is_string());
            Ok(Json::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect()).to_string())
        }
        Some(_) => Err(RequestError::Upload("\"annotations\" is no object".into())),
    }
}

fn assets(metadata: &Json) -> Result<NewAssets, RequestError> {
    let Some(assets) = metadata.get("assets").filter(|assets| !assets.is_null()) else {
        let keeps = metadata.get("keep_assets").and_then(Json::as_bool).unwrap_or(false);
        return Ok(if keeps { NewAssets::Keep } else { NewAssets::None });
    };
    let token = text(assets, "jwt")?;
    let token = token.ok_or_else(|| RequestError::Upload("\"assets\" has no \"jwt\"".into()))?;
    let empty = Json::Null;
    let config = assets.get("config").unwrap_or(&empty);
    let unknown = |name: &str, value: &str| {
        let value: String = value.chars().take(64).collect();
        RequestError::Upload(format!("assets.config.{name} can't be {value:?}"))
    };
    let html = match text(config, "html_handling")?.as_deref() {
        None | Some("auto-trailing-slash") => HtmlHandling::AutoTrailingSlash,
        Some("force-trailing-slash") => HtmlHandling::ForceTrailingSlash,
        Some("drop-trailing-slash") => HtmlHandling::DropTrailingSlash,
        Some("none") => HtmlHandling::None,
        Some(other) => return Err(unknown("html_handling", other)),
    };
    let missing = match text(config, "not_found_handling")?.as_deref() {
        None | Some("none") => NotFoundHandling::None,
        Some("404-page") => NotFoundHandling::NotFoundPage,
        Some("single-page-application") => NotFoundHandling::SinglePage,
        Some(other) => return Err(unknown("not_found_handling", other)),
    };
    // `serve_directly: false` is what this was called at first.
    let is_direct = config.get("serve_directly").and_then(Json::as_bool).unwrap_or(true);
    let script_first = match config.get("run_worker_first") {
        Some(Json::Bool(true)) => ScriptFirst::Always,
        Some(Json::Array(_)) => match texts(config, "run_worker_first")?.unwrap_or_default() {
            paths if paths.is_empty() => ScriptFirst::Never,
            paths => ScriptFirst::Paths(paths),
        },
        _ if !is_direct => ScriptFirst::Always,
        _ => ScriptFirst::Never,
    };
    Ok(NewAssets::Uploaded { token, config: AssetConfig { html, missing, script_first } })
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Array(items) => items.is_empty(),
        Json::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
