//! The configuration of one workerd process, as text in Cap'n Proto's notation.
//!
//! It holds secrets, so it is never written to a disk. Knows nothing of processes.

use std::fmt::{self, Write};
use std::path::Path;

use zeroize::Zeroizing;

use crate::worker::{Binding, Module, ModuleKind, Program, Syntax};

/// Most memory that one program may have for JavaScript objects, in MiB. Beyond it the runtime ends the process.
pub(super) const HEAP_MIB_MAX: u32 = 128;
/// What a program without a date gets: the first one.
const DATE_DEFAULT: &str = "2021-11-02";

/// Carries `request.cf` to the runtime, as JSON.
pub(super) const CF_HEADER: &str = "x-starling-cf";
/// Says which program a request to the node is from; put there by the runtime, over anything that a program sets.
pub(super) const SEAT_HEADER: &str = "x-starling-seat";
/// Says what a request to the node wants.
pub(super) const DESK_HEADER: &str = "x-starling-desk";
/// The node's leave to fetch: what is to be said in `cdn-loop`.
pub(super) const LOOP_HEADER: &str = "x-starling-loop";

/// Answers whether the event loop turns, and has programs handle timers: what HTTP can't.
const WARDEN: &str = r#"export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    const program = env[url.pathname.slice(1)];
    if (!program) return new Response("turning");
    const cron = url.searchParams.get("cron"), scheduledTime = new Date(Number(url.searchParams.get("due")));
    return Response.json(await program.scheduled({ cron, scheduledTime }));
  },
};"#;
/// Tells the node what a watched program did.
const TAIL: &str = r#"export default {
  async tail(events, env) {
    await env.NODE.fetch("http://node/", { method: "POST", body: JSON.stringify(events) });
  },
};"#;
/// Between all programs and the network: asks the node for leave for each fetch. Which program it is for stands in the
/// properties of the way to it. Connections go through, uncounted.
const GATE: &str = r#"export default {
  async fetch(request, env, { props }) {
    const leave = await env.NODE.fetch("http://node/", { headers: { "x-starling-seat": props.seat } });
    if (leave.status !== 204) throw new Error("Too many subrequests by single Worker invocation.");
    const asked = new Request(request);
    asked.headers.append("cdn-loop", leave.headers.get("x-starling-loop"));
    return env.INTERNET.fetch(asked);
  },
};"#;
/// For the runtime's own programs above.
const OWN_DATE: &str = "2026-01-01";

/// A program's place in a process. Its number names its services and sockets.
pub(super) struct Seat<'a> {
    pub(super) number: usize,
    pub(super) program: &'a Program,
    /// Whether someone wants to know what it does.
    pub(super) is_watched: bool,
}

/// Where a process listens, and where it finds the node.
pub(super) trait Places {
    /// Requests for the program in a seat.
    fn requests(&self, seat: usize) -> std::path::PathBuf;
    /// Its KV bindings, at the node.
    fn bindings(&self, seat: usize) -> std::path::PathBuf;
    /// The warden.
    fn warden(&self) -> std::path::PathBuf;
    /// Tails and assets, at the node.
    fn desk(&self) -> std::path::PathBuf;
}

/// The configuration of a process with these programs in it.
pub(super) fn write(seats: &[Seat<'_>], places: &impl Places, reach_local: bool) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(capacity(seats)));
    // Writing to a String can't fail.
    let _ = write_config(&mut text, seats, places, reach_local);
    text
}

/// Asks whether the runtime takes these flags, without what is experimental: a program that does nothing.
pub(super) fn write_flags(date: &str, flags: &[String]) -> String {
    let mut text = String::new();
    let _ = write_head(&mut text);
    let _ = write!(
        text,
        "services = [(name = \"p0\", worker = (modules = [(name = \"m.js\", esModule = \"export default {{}}\")]"
    );
    let _ = write_compatibility(&mut text, date, flags);
    // Ends it, whatever it makes of the flags.
    text.push_str(")), (name = \"end\", worker = (modules = [(name = \"m.js\", esModule = \"throw 0\")], ");
    let _ = writeln!(text, "compatibilityDate = \"{OWN_DATE}\"))]);");
    text
}

/// Room for everything at once: what is copied while it grows could not be wiped.
fn capacity(seats: &[Seat<'_>]) -> usize {
    let of = |seat: &Seat<'_>| {
        let modules: usize = seat.program.modules.iter().map(|module| 2 * module.body.len() + 1024).sum();
        let value = |binding: &Binding| match binding {
            Binding::Text(text) | Binding::Json(text) => text.len(),
            Binding::Secret(secret) => secret.expose().len(),
            Binding::Kv(_) | Binding::Assets => 512,
        };
        let bindings: usize = seat.program.bindings.iter().map(|(_, binding)| 4 * value(binding) + 1024).sum();
        modules + bindings + 4096
    };
    16 * 1024 + seats.iter().map(of).sum::<usize>()
}

fn write_head(text: &mut String) -> fmt::Result {
    writeln!(text, "using Workerd = import \"/workerd/workerd.capnp\";\nconst config :Workerd.Config = (")
}

fn write_config(text: &mut String, seats: &[Seat<'_>], places: &impl Places, reach_local: bool) -> fmt::Result {
    write_head(text)?;
    writeln!(text, "v8Flags = [\"--max-heap-size={HEAP_MIB_MAX}\"],\nservices = [")?;
    // Never sockets of this machine: the node's own are among them.
    let allowed = if reach_local { "\"public\", \"private\"" } else { "\"public\"" };
    writeln!(
        text,
        "(name = \"internet\", network = (allow = [{allowed}], deny = [\"unix\", \"unix-abstract\"], \
         tlsOptions = (trustBrowserCas = true))),"
    )?;
    write!(text, "(name = \"leave\", external = (address = ")?;
    write_address(text, &places.desk())?;
    writeln!(text, ", http = (injectRequestHeaders = [(name = \"{DESK_HEADER}\", value = \"leave\")]))),")?;
    let gate = ", compatibilityFlags = [\"connect_pass_through\"], globalOutbound = \"internet\", bindings = [\
                (name = \"NODE\", service = \"leave\"), (name = \"INTERNET\", service = \"internet\")]";
    write_own(text, "gate", GATE, gate)?;
    let mut warden = String::from(", compatibilityFlags = [\"service_binding_extra_handlers\"], bindings = [");
    for Seat { number, .. } in seats {
        write!(warden, "(name = \"p{number}\", service = \"p{number}\"), ")?;
    }
    warden.push(']');
    write_own(text, "warden", WARDEN, &warden)?;
    for seat in seats {
        write_seat(text, seat, places)?;
    }
    writeln!(text, "],\nsockets = [")?;
    for Seat { number, .. } in seats {
        let http = format!("(cfBlobHeader = \"{CF_HEADER}\", forwardedProtoHeader = \"x-forwarded-proto\")");
        write_socket(text, &format!("p{number}"), &places.requests(*number), &http)?;
    }
    write_socket(text, "warden", &places.warden(), "()")?;
    writeln!(text, "]);")
}

fn write_socket(text: &mut String, name: &str, path: &Path, http: &str) -> fmt::Result {
    write!(text, "(name = \"{name}\", service = \"{name}\", http = {http}, address = ")?;
    write_address(text, path)?;
    writeln!(text, "),")
}

fn write_address(text: &mut String, path: &Path) -> fmt::Result {
    write_text(text, &format!("unix:{}", path.display()))
}

/// A program of ours.
fn write_own(text: &mut String, name: &str, code: &str, more: &str) -> fmt::Result {
    write!(text, "(name = \"{name}\", worker = (modules = [(name = \"{name}.js\", esModule = ")?;
    write_text(text, code)?;
    writeln!(text, ")], compatibilityDate = \"{OWN_DATE}\"{more})),")
}

fn write_seat(text: &mut String, seat: &Seat<'_>, places: &impl Places) -> fmt::Result {
    let Seat { number, program, is_watched } = seat;
    write!(text, "(name = \"p{number}\", worker = (")?;
    let globals = match program.syntax {
        Syntax::Modules => {
            write!(text, "modules = [")?;
            for module in &program.modules {
                write_module(text, module)?;
            }
            write!(text, "]")?;
            &[]
        }
        Syntax::ServiceWorker => {
            write!(text, "serviceWorkerScript = ")?;
            let (code, globals) =
                program.modules.split_first().map_or((&[][..], &[][..]), |(code, rest)| (&code.body[..], rest));
            write_text(text, &String::from_utf8_lossy(code))?;
            globals
        }
    };
    write_compatibility(text, &program.compatibility_date, &program.compatibility_flags)?;
    write!(text, ", cacheApiOutbound = \"cache{number}\"")?;
    write!(text, ", globalOutbound = (name = \"gate\", props = (json = \"{{\\\"seat\\\":\\\"{number}\\\"}}\"))")?;
    if *is_watched {
        write!(text, ", tails = [\"tail{number}\"]")?;
    }
    write!(text, ", bindings = [")?;
    for module in globals {
        write_global(text, module)?;
    }
    for (index, (name, binding)) in program.bindings.iter().enumerate() {
        write!(text, "(name = ")?;
        write_text(text, name)?;
        match binding {
            Binding::Kv(_) => write!(text, ", kvNamespace = \"k{number}-{index}\"")?,
            Binding::Text(value) => write_field(text, "text", value)?,
            Binding::Json(value) => write_field(text, "json", value)?,
            Binding::Secret(secret) => write_field(text, "text", secret.expose())?,
            Binding::Assets => write!(text, ", service = \"assets{number}\"")?,
        }
        write!(text, "), ")?;
    }
    writeln!(text, "])),")?;
    for (index, (_, binding)) in program.bindings.iter().enumerate() {
        if let Binding::Kv(namespace) = binding {
            write!(text, "(name = \"k{number}-{index}\", external = (address = ")?;
            write_address(text, &places.bindings(*number))?;
            writeln!(
                text,
                ", http = (injectRequestHeaders = [(name = \"X-KV-Namespace\", value = \"{namespace}\")]))),"
            )?;
        }
    }
    write_desk(text, *number, "assets", "host", places)?;
    // A cache is asked for whole URLs.
    write_desk(text, *number, "cache", "proxy", places)?;
    if *is_watched {
        write_desk(text, *number, "events", "host", places)?;
        let bindings = format!(", bindings = [(name = \"NODE\", service = \"events{number}\")]");
        write_own(text, &format!("tail{number}"), TAIL, &bindings)?;
    }
    Ok(())
}

/// A way to the node for one purpose of one program.
fn write_desk(text: &mut String, number: usize, purpose: &str, style: &str, places: &impl Places) -> fmt::Result {
    write!(text, "(name = \"{purpose}{number}\", external = (address = ")?;
    write_address(text, &places.desk())?;
    writeln!(
        text,
        ", http = (style = {style}, injectRequestHeaders = [(name = \"{SEAT_HEADER}\", value = \"{number}\"), \
         (name = \"{DESK_HEADER}\", value = \"{purpose}\")]))),"
    )
}

fn write_compatibility(text: &mut String, date: &str, flags: &[String]) -> fmt::Result {
    write!(text, ", compatibilityDate = ")?;
    write_text(text, if date.is_empty() { DATE_DEFAULT } else { date })?;
    write!(text, ", compatibilityFlags = [")?;
    for flag in flags {
        write_text(text, flag)?;
        text.push_str(", ");
    }
    write!(text, "]")
}

fn write_module(text: &mut String, module: &Module) -> fmt::Result {
    write!(text, "(name = ")?;
    write_text(text, &module.name)?;
    let plain = String::from_utf8_lossy(&module.body);
    match module.kind {
        ModuleKind::JavaScript => write_field(text, "esModule", &plain)?,
        ModuleKind::CommonJs => write_field(text, "commonJsModule", &plain)?,
        ModuleKind::Text => write_field(text, "text", &plain)?,
        ModuleKind::Json => write_field(text, "json", &plain)?,
        ModuleKind::Data => write_data(text, "data", &module.body)?,
        ModuleKind::Wasm => write_data(text, "wasm", &module.body)?,
    }
    write!(text, "), ")
}

/// What an ES module would import, a service worker has as a global.
fn write_global(text: &mut String, module: &Module) -> fmt::Result {
    write!(text, "(name = ")?;
    write_text(text, &module.name)?;
    let plain = String::from_utf8_lossy(&module.body);
    match module.kind {
        ModuleKind::JavaScript | ModuleKind::CommonJs | ModuleKind::Text => write_field(text, "text", &plain)?,
        ModuleKind::Json => write_field(text, "json", &plain)?,
        ModuleKind::Data => write_data(text, "data", &module.body)?,
        ModuleKind::Wasm => write_data(text, "wasmModule", &module.body)?,
    }
    write!(text, "), ")
}

fn write_field(text: &mut String, name: &str, value: &str) -> fmt::Result {
    write!(text, ", {name} = ")?;
    write_text(text, value)
}

fn write_data(text: &mut String, name: &str, value: &[u8]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    write!(text, ", {name} = 0x\"")?;
    for byte in value {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    write!(text, "\"")
}

/// A text literal: nothing in it can end it.
fn write_text(text: &mut String, value: &str) -> fmt::Result {
    text.push('"');
    for char in value.chars() {
        match char {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\0'..='\u{1f}' | '\u{7f}' => write!(text, "\\x{:02x}", u32::from(char))?,
            char => text.push(char),
        }
    }
    text.push('"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::kv::{AccountId, NamespaceId};
    use crate::secret::Secret;

    struct Here;

    impl Places for Here {
        fn requests(&self, seat: usize) -> PathBuf {
            format!("/run/p{seat}").into()
        }
        fn bindings(&self, seat: usize) -> PathBuf {
            format!("/run/b{seat}").into()
        }
        fn warden(&self) -> PathBuf {
            "/run/w".into()
        }
        fn desk(&self) -> PathBuf {
            "/run/d".into()
        }
    }

    fn program() -> Program {
        let module = |name: &str, kind, body: &'static [u8]| Module { name: name.into(), kind, body: body.into() };
        Program {
            account: AccountId([1; 16]),
            script: "s".into(),
            life: [2; 16],
            version: "v".into(),
            syntax: Syntax::Modules,
            modules: vec![
                module("a.js", ModuleKind::JavaScript, b"export default \"\\ \x01\";\n"),
                module("b.bin", ModuleKind::Data, &[0, 255]),
            ],
            bindings: vec![
                ("KV".into(), Binding::Kv(NamespaceId([3; 16]))),
                ("QUOTE\"".into(), Binding::Text("\"), (name = \"x".into())),
                ("S".into(), Binding::Secret(Secret::new("hush"))),
            ],
            compatibility_date: String::new(),
            compatibility_flags: vec!["nodejs_compat".into()],
            assets: None,
            cpu_ms: None,
        }
    }

    #[test]
    fn whatever_a_program_holds_stays_in_its_literal() {
        let program = program();
        let text = write(&[Seat { number: 4, program: &program, is_watched: false }], &Here, false);
        for part in [
            r#"(name = "a.js", esModule = "export default \"\\ \x01\";\n")"#,
            r#"(name = "b.bin", data = 0x"00ff")"#,
            r#"(name = "QUOTE\"", text = "\"), (name = \"x")"#,
            r#"(name = "KV", kvNamespace = "k4-0")"#,
            r#"(name = "S", text = "hush")"#,
            r#"address = "unix:/run/b4", http = (injectRequestHeaders = [(name = "X-KV-Namespace", value = "03030303"#,
            r#"compatibilityDate = "2021-11-02", compatibilityFlags = ["nodejs_compat", ]"#,
            r#"network = (allow = ["public"], deny = ["unix", "unix-abstract"]"#,
            r#"globalOutbound = (name = "gate", props = (json = "{\"seat\":\"4\"}"))"#,
        ] {
            assert!(text.contains(part), "{part} is not in\n{}", *text);
        }
        assert!(!text.contains("tail4"));
    }

    #[test]
    fn a_secret_is_not_left_behind_by_growth() {
        let seats = [program(), program()];
        let seats: Vec<_> =
            seats.iter().enumerate().map(|(number, program)| Seat { number, program, is_watched: true }).collect();
        let text = write(&seats, &Here, true);
        assert!(text.len() < capacity(&seats), "the room was too small: {} of {}", text.len(), capacity(&seats));
    }
}
