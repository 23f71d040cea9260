//! KV namespaces: through the node's own client, with the words of the original.

use std::borrow::Cow;

use bytes::Bytes;
use rquickjs::convert::List;
use rquickjs::{Ctx, Function, Object, Value};

use super::{Desk, Failure, Given, Outcome, body_of, done};
use crate::binding::{Local, PutOptions, Refusal, value_body};
use crate::kv::{Found, Value as Stored};
use crate::worker::Binding;
use crate::worker::embedded::visit::Visit;
use crate::worker::engine::streamed;

impl Desk {
    /// The namespace of a binding, for whoever is asking.
    fn namespace(
        &self,
        ctx: &Ctx<'_>,
        index: usize,
    ) -> rquickjs::Result<(std::sync::Arc<Visit>, Result<Local, Refusal>)> {
        let (isolate, visit) = (self.isolate(ctx)?, self.visit(ctx)?);
        let local = match isolate.program.bindings.get(index) {
            Some((_, Binding::Kv(namespace))) if visit.may_use_kv() => Local::new(&visit.kv, *namespace),
            _ => Err(Local::too_often()),
        };
        Ok((visit, local))
    }
}

fn failed(what: &str, Refusal(why): Refusal) -> Failure {
    Failure::error(format!("KV {what} failed: {why}"))
}

/// The bytes of a value, all at once.
async fn whole(value: Stored) -> Result<Bytes, Failure> {
    match value {
        Stored::Inline(bytes) => Ok(bytes),
        Stored::Blob(mut reader) => {
            let mut bytes = Vec::with_capacity(usize::try_from(reader.len()).unwrap_or(0));
            while let Some(chunk) = reader.next().await {
                let chunk = chunk.map_err(|error| Failure::error(format!("KV GET failed: 500 {error}")))?;
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes.into())
        }
    }
}

async fn shown(visit: &Visit, mut found: Found, form: &str) -> Outcome {
    if form != "stream" {
        found.value = Stored::Inline(whole(found.value).await?);
    }
    given(visit, found, form)
}

/// As scripts read a text: without a byte order mark.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes))
}

/// The same for a value that need not be read chunk by chunk.
fn given(visit: &Visit, found: Found, form: &str) -> Outcome {
    let metadata = found.metadata.map_or(Given::Null, |json| Given::Text(String::from_utf8_lossy(&json).into_owned()));
    let value = match (form, found.value) {
        ("text", Stored::Inline(bytes)) => Given::Text(text_of(&bytes).into_owned()),
        ("bytes", Stored::Inline(bytes)) => Given::Bytes(bytes),
        (_, value) => {
            let len = match &value {
                Stored::Inline(bytes) => bytes.len() as u64,
                Stored::Blob(reader) => reader.len(),
            };
            let source = visit.keep(streamed(value_body(value)));
            let source = source.ok_or_else(|| Failure::error("Too many streams are open."))?;
            Given::List(vec![Given::Number(f64::from(source)), Given::Number(len as f64)])
        }
    };
    Ok(Given::List(vec![value, metadata]))
}

/// The text that a key holds, or null, if it is at hand and nothing is wrong with the question.
fn text_at_hand<'js>(desk: &Desk, ctx: &Ctx<'js>, index: usize, key: &rquickjs::String<'js>) -> Option<Value<'js>> {
    let (isolate, key) = (desk.0.upgrade()?, key.to_string().ok()?);
    let visit = isolate.current().filter(|visit| !visit.is_over())?;
    let Some((_, Binding::Kv(namespace))) = isolate.program.bindings.get(index) else { return None };
    let found = Local::at_hand(&visit.kv, *namespace, &key)?;
    let shown = match found.map(|found| found.value) {
        None => Value::new_null(ctx.clone()),
        Some(Stored::Inline(bytes)) => {
            let text = rquickjs::String::from_str(ctx.clone(), &text_of(&bytes));
            // Without memory for it: whoever asks again is told.
            text.map_err(|_| ctx.catch()).ok()?.into_value()
        }
        Some(Stored::Blob(_)) => return None,
    };
    visit.may_use_kv().then_some(shown)
}

pub(super) fn add<'js>(ctx: &Ctx<'js>, host: &Object<'js>, desk: &Desk) -> rquickjs::Result<()> {
    let at = desk.clone();
    // The short way: whatever it does not answer is asked again, of `kvGet`.
    let at_hand = move |ctx: Ctx<'js>, index: usize, key: rquickjs::String<'js>| {
        text_at_hand(&at, &ctx, index, &key).unwrap_or_else(|| Value::new_undefined(ctx.clone()))
    };
    host.set("kvText", Function::new(ctx.clone(), at_hand)?)?;

    let at = desk.clone();
    let get =
        move |ctx: Ctx<'js>, operation: f64, index: usize, key: String, form: String, cache_ttl: Option<String>| {
            let (visit, local) = at.namespace(&ctx, index)?;
            let at_once = match &local {
                Ok(local) => local.get_at_once(&key, cache_ttl.as_deref()),
                Err(_) => None,
            };
            match at_once {
                Some(Ok(None)) => return done(&ctx, Ok(Given::Null)),
                Some(Ok(Some(found))) if form == "stream" || matches!(found.value, Stored::Inline(_)) => {
                    return done(&ctx, given(&visit, found, &form));
                }
                _ => {}
            }
            at.begin(&ctx, operation, async move {
                let found = match local {
                    Ok(local) => local.get(&key, cache_ttl.as_deref()).await,
                    Err(refusal) => Err(refusal),
                };
                match found.map_err(|refusal| failed("GET", refusal))? {
                    Some(found) => shown(&visit, found, &form).await,
                    None => Ok(Given::Null),
                }
            })
        };
    host.set("kvGet", Function::new(ctx.clone(), get)?)?;

    let at = desk.clone();
    let get_many = move |ctx: Ctx<'js>,
                         operation: f64,
                         index: usize,
                         keys: Vec<String>,
                         kind: Option<String>,
                         rest: List<(bool, Option<String>)>| {
        let (_, local) = at.namespace(&ctx, index)?;
        let (with_metadata, cache_ttl) = rest.0;
        at.begin(&ctx, operation, async move {
            let json = match local {
                Ok(local) => local.get_many(keys, kind.as_deref(), with_metadata, cache_ttl.as_deref()).await,
                Err(refusal) => Err(refusal),
            };
            text(json, "GET_BULK")
        })
    };
    host.set("kvGetMany", Function::new(ctx.clone(), get_many)?)?;

    let at = desk.clone();
    let put = move |ctx: Ctx<'js>,
                    operation: f64,
                    index: usize,
                    key: String,
                    value: Value<'js>,
                    options: Vec<Option<String>>| {
        let (_, local) = at.namespace(&ctx, index)?;
        let value = body_of(&value).unwrap_or_default();
        let mut options = options.into_iter();
        let mut next = || options.next().flatten();
        let options = PutOptions { expiration: next(), expiration_ttl: next(), metadata: next() };
        at.begin(&ctx, operation, async move {
            let done = match local {
                Ok(local) => local.put(&key, value, options).await,
                Err(refusal) => Err(refusal),
            };
            done.map(|()| Given::Null).map_err(|refusal| failed("PUT", refusal))
        })
    };
    host.set("kvPut", Function::new(ctx.clone(), put)?)?;

    let at = desk.clone();
    let delete = move |ctx: Ctx<'js>, operation: f64, index: usize, key: String| {
        let (_, local) = at.namespace(&ctx, index)?;
        at.begin(&ctx, operation, async move {
            let done = match local {
                Ok(local) => local.delete(&key).await,
                Err(refusal) => Err(refusal),
            };
            done.map(|()| Given::Null).map_err(|refusal| failed("DELETE", refusal))
        })
    };
    host.set("kvDelete", Function::new(ctx.clone(), delete)?)?;

    let at = desk.clone();
    let list = move |ctx: Ctx<'js>,
                     operation: f64,
                     index: usize,
                     prefix: String,
                     limit: Option<String>,
                     cursor: Option<String>| {
        let (_, local) = at.namespace(&ctx, index)?;
        at.begin(&ctx, operation, async move {
            let json = match local {
                Ok(local) => local.list(limit.as_deref(), &prefix, cursor.as_deref()).await,
                Err(refusal) => Err(refusal),
            };
            text(json, "GET")
        })
    };
    host.set("kvList", Function::new(ctx.clone(), list)?)
}

fn text(json: Result<Vec<u8>, Refusal>, what: &str) -> Outcome {
    let json = json.map_err(|refusal| failed(what, refusal))?;
    Ok(Given::Text(String::from_utf8_lossy(&json).into_owned()))
}
