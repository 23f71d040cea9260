//! Whether this engine can run a script, as far as that can be told without running it: so that whoever deploys it hears
//! of a mistake, and not its first visitor.

use rquickjs::context::EvalOptions;
use rquickjs::{CatchResultExt, CaughtError, Context, Ctx, Module, Runtime};

use super::modules;
use super::vm::{HEAP_LEN_MAX, STACK_LEN_MAX};
use crate::worker::{Module as File, ModuleKind, Syntax};

/// Keeps a service worker from running. Its code stays where it is, but for the first line.
const NOT_NOW: &str = "throw null;";

/// Why this engine can't run a script of these modules, whatever their code does: the way out is named.
pub fn unfit(files: &[File], syntax: Syntax) -> Option<String> {
    let odd = files.iter().find(|file| matches!(file.kind, ModuleKind::Wasm | ModuleKind::CommonJs));
    if let Some(odd) = odd {
        let what = match odd.kind {
            ModuleKind::Wasm => "WebAssembly module",
            _ => "CommonJS module",
        };
        return Some(format!(
            "The embedded engine of this node runs no {what}s like {:?}: start the nodes with --worker-engine workerd.",
            odd.name
        ));
    }
    compile(files, syntax).err()
}

/// Compiles everything that is code, and looks whether what it imports is there.
fn compile(files: &[File], syntax: Syntax) -> Result<(), String> {
    let runtime = Runtime::new().map_err(|error| error.to_string())?;
    runtime.set_memory_limit(HEAP_LEN_MAX);
    runtime.set_max_stack_size(STACK_LEN_MAX);
    modules::install(&runtime, files)?;
    let context = Context::full(&runtime).map_err(|error| error.to_string())?;
    let code = files.iter().filter(|file| file.kind == ModuleKind::JavaScript);
    context.with(|ctx| {
        for file in code {
            let compiled = match syntax {
                Syntax::Modules => Module::declare(ctx.clone(), &*file.name, &*file.body).map(drop),
                Syntax::ServiceWorker => script(&ctx, file),
            };
            compiled.catch(&ctx).map_err(|error| told(&error))?;
        }
        Ok(())
    })
}

fn script(ctx: &Ctx<'_>, file: &File) -> rquickjs::Result<()> {
    let mut options = EvalOptions::default();
    (options.strict, options.filename) = (false, Some(file.name.clone()));
    let ran = ctx.eval_with_options::<(), _>([NOT_NOW.as_bytes(), &file.body].concat(), options);
    let Err(rquickjs::Error::Exception) = ran else { return ran };
    let thrown = ctx.catch();
    // Its syntax is right: it got as far as not to run.
    if thrown.is_null() { Ok(()) } else { Err(ctx.throw(thrown)) }
}

/// A mistake in the words of the original, with the place.
fn told(error: &CaughtError<'_>) -> String {
    let CaughtError::Exception(exception) = error else { return format!("Uncaught {error}") };
    let name: String = exception.get("name").unwrap_or_else(|_| "Error".into());
    let stack = exception.stack().unwrap_or_default();
    let place = stack.lines().next().map(str::trim).filter(|place| !place.is_empty() && !place.contains("<eval>"));
    let place = place.map(|place| format!("\n  {place}")).unwrap_or_default();
    format!("Uncaught {name}: {}{place}", exception.message().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, body: &str) -> File {
        File { name: name.into(), kind: ModuleKind::JavaScript, body: body.to_owned().into() }
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (body, words) in [
            ("export default {}", &[][..]),
            ("import { env } from 'cloudflare:workers'; export default {}", &[]),
            ("throw new Error('when it runs')", &[]),
            ("export default {\n  fetch( {\n}", &["Uncaught SyntaxError: ", "w.mjs:3"]),
            ("let a;\nlet a;", &["Uncaught SyntaxError: ", "w.mjs:2"]),
            ("import './none.mjs';", &["./none.mjs", "No such module"]),
            ("import './other.mjs';\nimport 'node:fs';", &["node:fs", "--worker-engine workerd"]),
        ] {
            let files = [file("w.mjs", body), file("other.mjs", "export const a = 1;")];
            let why = unfit(&files, Syntax::Modules);
            assert_eq!(why.is_some(), !words.is_empty(), "{body}: {why:?}");
            let why = why.unwrap_or_default();
            assert!(words.iter().all(|word| why.contains(word)), "{body}: {why}");
        }
        let broken = [file("w.mjs", "import './other.mjs';"), file("other.mjs", "export const a = ;")];
        let why = unfit(&broken, Syntax::Modules).expect("a mistake");
        assert!(why.contains("SyntaxError") && why.contains("other.mjs:1"), "{why}");
    }

    #[test]
    fn a_service_worker_is_read_and_not_run() {
        for (body, place) in [
            ("addEventListener('fetch', () => {});", None),
            ("while (true);", None),
            ("with ({}) { sloppy = 1 }", None),
            ("let a = 1;\nlet b = ;", Some("worker.js:2")),
            ("return 1;", Some("worker.js:1")),
        ] {
            let why = unfit(&[file("worker.js", body)], Syntax::ServiceWorker);
            assert_eq!(why.is_some(), place.is_some(), "{body}: {why:?}");
            assert!(why.unwrap_or_default().contains(place.unwrap_or_default()), "{body}");
        }
    }
}
