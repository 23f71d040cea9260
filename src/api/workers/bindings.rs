//! Bindings in JSON, in and out.

use serde_json::{Value as Json, json};

use super::super::error::RequestError;
use crate::kv::NamespaceId;
use crate::secret::Secret;
use crate::worker::catalog::{Bound, NewBinding, Version};
use crate::worker::{Module, ModuleKind, WorkerError};

/// Types that a binding may have here.
const TYPES: &str =
    "kv_namespace, plain_text, json, secret_text, assets, inherit, wasm_module, text_blob and data_blob";

/// One binding of an upload: a name for `env`, or a part that is a global of a service worker.
pub(super) enum Read {
    Binding(String, NewBinding),
    /// The part of that name, as a global.
    Global {
        name: String,
        part: String,
        kind: ModuleKind,
    },
}

fn wrong(name: &str, why: impl Into<String>) -> RequestError {
    WorkerError::Binding { name: name.chars().take(256).collect(), why: why.into() }.into()
}

/// Reads the bindings of an upload.
pub(super) fn read(bindings: Option<&Json>) -> Result<Vec<Read>, RequestError> {
    match bindings {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(bindings)) => bindings.iter().map(one).collect(),
        Some(_) => Err(RequestError::Upload("\"bindings\" is no list".into())),
    }
}

fn one(binding: &Json) -> Result<Read, RequestError> {
    let name = binding.get("name").and_then(Json::as_str);
    let name = name.ok_or_else(|| RequestError::Upload("a binding has no \"name\"".into()))?;
    let field = |field: &str| {
        let text = binding.get(field).and_then(Json::as_str);
        text.map(str::to_owned).ok_or_else(|| wrong(name, format!("it has no {field:?}")))
    };
    let global = |kind| Ok(Read::Global { name: name.into(), part: field("part")?, kind });
    let new = match field("type")?.as_str() {
        "kv_namespace" => {
            let id = field("namespace_id")?;
            let missing = || WorkerError::NamespaceMissing { name: name.into(), id: id.chars().take(64).collect() };
            NewBinding::Kv(id.parse::<NamespaceId>().map_err(|_| missing())?)
        }
        "plain_text" => NewBinding::Text(field("text")?),
        "secret_text" => NewBinding::Secret(Secret::exact(&field("text")?)),
        "json" => {
            let value = binding.get("json").ok_or_else(|| wrong(name, "it has no \"json\""))?;
            NewBinding::Json(value.to_string())
        }
        "assets" => NewBinding::Assets,
        "inherit" => {
            let from = binding.get("old_name").and_then(Json::as_str).unwrap_or(name);
            NewBinding::Inherit(from.into())
        }
        "wasm_module" => return global(ModuleKind::Wasm),
        "text_blob" => return global(ModuleKind::Text),
        "data_blob" => return global(ModuleKind::Data),
        other => {
            let other: String = other.chars().take(64).collect();
            return Err(wrong(name, format!("the type {other:?} is not supported here; there are {TYPES}")));
        }
    };
    Ok(Read::Binding(name.into(), new))
}

/// A version's bindings, secrets without what they hold.
pub(super) fn shown(version: &Version) -> Vec<Json> {
    version
        .bindings()
        .map(|(name, bound)| {
            let mut shown = json!({ "name": name, "type": bound.type_name() });
            match bound {
                Bound::Kv(namespace) => shown["namespace_id"] = namespace.to_string().into(),
                Bound::Text(text) => shown["text"] = text.into(),
                Bound::Json(text) => shown["json"] = serde_json::from_str(&text).unwrap_or(Json::Null),
                Bound::Secret | Bound::Assets => {}
            }
            shown
        })
        .collect()
}

/// Puts the globals of a service worker among its modules.
pub(super) fn globals(modules: &mut [Module], globals: &[(String, String, ModuleKind)]) -> Result<(), RequestError> {
    for (name, part, kind) in globals {
        let module = modules.iter_mut().skip(1).find(|module| module.name == *part);
        let module = module.ok_or_else(|| wrong(name, format!("there is no part {part:?}")))?;
        (module.name, module.kind) = (name.clone(), *kind);
    }
    Ok(())
}
