//! Where modules come from: the prelude, compiled once a process, and the files of a script.
//!
//! Knows nothing of what they do.

use std::sync::{Arc, OnceLock};

use rquickjs::loader::bundle::Bundle;
use rquickjs::loader::{ImportAttributes, Loader, Resolver};
use rquickjs::module::{Declared, WriteOptions};
use rquickjs::{ArrayBuffer, Context, Ctx, Error, Module, Result, Runtime};

use crate::worker::ModuleKind;

/// What the prelude's modules are called, and what no script may import.
const OWN: &str = "starling:";
/// What scripts import from the platform.
const WORKERS: &str = "cloudflare:workers";
/// Where the prelude begins.
pub(super) const MAIN: &str = "starling:main";

const SOURCES: &[(&str, &str)] = &[
    ("starling:host", include_str!("prelude/host.js")),
    ("starling:events", include_str!("prelude/events.js")),
    ("starling:encoding", include_str!("prelude/encoding.js")),
    ("starling:url", include_str!("prelude/url.js")),
    ("starling:headers", include_str!("prelude/headers.js")),
    ("starling:streams", include_str!("prelude/streams.js")),
    ("starling:form", include_str!("prelude/form.js")),
    ("starling:body", include_str!("prelude/body.js")),
    ("starling:fetch", include_str!("prelude/fetch.js")),
    ("starling:cache", include_str!("prelude/cache.js")),
    ("starling:rewriter", include_str!("prelude/rewriter.js")),
    ("starling:pattern", include_str!("prelude/pattern.js")),
    ("starling:crypto", include_str!("prelude/crypto.js")),
    ("starling:kv", include_str!("prelude/kv.js")),
    ("starling:globals", include_str!("prelude/globals.js")),
    (WORKERS, include_str!("prelude/workers.js")),
    (MAIN, include_str!("prelude/main.js")),
];

/// Names and their bytecode.
type Compiled = &'static [(&'static str, &'static [u8])];

/// The prelude as bytecode: reading that takes a third of the time that reading its source takes.
fn compiled() -> std::result::Result<Bundle<Compiled>, String> {
    static COMPILED: OnceLock<std::result::Result<Compiled, String>> = OnceLock::new();
    COMPILED.get_or_init(|| compile().map_err(|error| error.to_string())).clone().map(Bundle)
}

fn compile() -> Result<Compiled> {
    let runtime = Runtime::new()?;
    runtime.set_loader(Names { script: None }, Sources);
    let modules = Context::full(&runtime)?.with(|ctx| {
        let compile = |(name, source): &(&'static str, &str)| {
            let code =
                Module::declare(ctx.clone(), *name, *source).and_then(|module| module.write(WriteOptions::default()));
            if code.is_err() {
                tracing::error!(name, error = ?ctx.catch(), "the prelude does not compile");
            }
            // For as long as the process lives.
            Ok((*name, &*Vec::leak(code?)))
        };
        SOURCES.iter().map(compile).collect::<Result<Vec<(&'static str, &'static [u8])>>>()
    })?;
    Ok(Vec::leak(modules))
}

struct Sources;

impl Loader for Sources {
    fn load<'js>(
        &mut self,
        ctx: &Ctx<'js>,
        name: &str,
        _: Option<ImportAttributes<'js>>,
    ) -> Result<Module<'js, Declared>> {
        let found = SOURCES.iter().find(|(known, _)| *known == name);
        let (_, source) = found.ok_or_else(|| Error::new_loading(name))?;
        Module::declare(ctx.clone(), name, *source)
    }
}

/// Has a runtime find the prelude and a script's files.
pub(super) fn install(runtime: &Runtime, script: &[crate::worker::Module]) -> std::result::Result<(), String> {
    let (prelude, script): (_, Script) = (compiled()?, script.into());
    runtime.set_loader(Names { script: Some(Arc::clone(&script)) }, Files { prelude, script });
    Ok(())
}

/// The files of a script.
type Script = Arc<[crate::worker::Module]>;

struct Names {
    script: Option<Script>,
}

impl Resolver for Names {
    fn resolve<'js>(
        &mut self,
        _: &Ctx<'js>,
        base: &str,
        name: &str,
        _: Option<ImportAttributes<'js>>,
    ) -> Result<String> {
        let refuse = |why: &str| Err(Error::new_resolving_message(base, name, why));
        let is_own = base.is_empty() || base.starts_with(OWN) || base == WORKERS;
        if name == WORKERS || (name.starts_with(OWN) && is_own) {
            return Ok(name.to_owned());
        }
        let Some(script) = &self.script else { return refuse("there is no such module of the prelude") };
        let path = join(base, name);
        let has = |path: &str| script.iter().any(|module| module.name == path);
        match [&*path, name].into_iter().find(|path| has(path)) {
            Some(path) => Ok(path.to_owned()),
            None if name.starts_with("node:") || name.starts_with("cloudflare:") => {
                refuse("the embedded engine has no such module; workerd has it: --worker-engine workerd")
            }
            None => refuse("No such module"),
        }
    }
}

/// Where `name` leads, seen from the module `base`.
fn join(base: &str, name: &str) -> String {
    let mut parts: Vec<&str> = match name.starts_with("./") || name.starts_with("../") {
        true => base.rsplit_once('/').map_or(Vec::new(), |(folder, _)| folder.split('/').collect()),
        false => Vec::new(),
    };
    for part in name.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

struct Files {
    prelude: Bundle<Compiled>,
    script: Script,
}

impl Loader for Files {
    fn load<'js>(
        &mut self,
        ctx: &Ctx<'js>,
        name: &str,
        kind: Option<ImportAttributes<'js>>,
    ) -> Result<Module<'js, Declared>> {
        if name.starts_with(OWN) || name == WORKERS {
            return self.prelude.load(ctx, name, kind);
        }
        let found = self.script.iter().find(|module| module.name == name);
        let module = found.ok_or_else(|| Error::new_loading(name))?;
        let text = || String::from_utf8_lossy(&module.body).into_owned();
        let content = match module.kind {
            ModuleKind::JavaScript => return Module::declare(ctx.clone(), name, &*module.body),
            ModuleKind::Text => rquickjs::String::from_str(ctx.clone(), &text())?.into_value(),
            ModuleKind::Json => ctx.json_parse(text())?,
            ModuleKind::Data => ArrayBuffer::new_copy(ctx.clone(), &module.body)?.into_value(),
            ModuleKind::CommonJs | ModuleKind::Wasm => {
                return Err(Error::new_loading_message(name, "only workerd runs modules of this kind"));
            }
        };
        let holder = Module::declare(ctx.clone(), name, "export default import.meta.content;")?;
        holder.meta()?.set("content", content)?;
        Ok(holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_from_module_to_module_and_never_out() {
        for (base, name, path) in [
            ("index.js", "./lib/card.js", "lib/card.js"),
            ("lib/card.js", "../text.txt", "text.txt"),
            ("lib/card.js", "./digits.js", "lib/digits.js"),
            ("index.js", "lib/card.js", "lib/card.js"),
            ("index.js", "../../x.js", "x.js"),
        ] {
            assert_eq!(join(base, name), path);
        }
    }

    #[test]
    fn the_prelude_compiles() {
        let compiled = compiled().expect("the prelude");
        assert_eq!(compiled.len(), SOURCES.len());
    }
}
