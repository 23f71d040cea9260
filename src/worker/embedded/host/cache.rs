//! The cache of this PoP.

use hyper::StatusCode;
use rquickjs::{Ctx, Function, Object, Value};

use super::web::{header_map, shown};
use super::{Desk, Failure, Given, body_of};
use crate::worker::cache::{Key, Refused};

impl Desk {
    fn key(&self, ctx: &Ctx<'_>, cache: String, url: String) -> rquickjs::Result<Key> {
        Ok(Key { life: self.isolate(ctx)?.program.life, cache, url })
    }
}

pub(super) fn add<'js>(ctx: &Ctx<'js>, host: &Object<'js>, desk: &Desk) -> rquickjs::Result<()> {
    let at = desk.clone();
    let find = move |ctx: Ctx<'js>, operation: f64, cache: String, url: String, flat: Vec<String>| {
        let (isolate, visit, key) = (at.isolate(&ctx)?, at.visit(&ctx)?, at.key(&ctx, cache, url)?);
        at.begin(&ctx, operation, async move {
            let headers = header_map(&flat).map_err(Failure::type_error)?;
            isolate.ground.cache.find(&key, &headers).map_or(Ok(Given::Null), |response| shown(&visit, response))
        })
    };
    host.set("cacheFind", Function::new(ctx.clone(), find)?)?;

    let at = desk.clone();
    let put = move |ctx: Ctx<'js>,
                    operation: f64,
                    cache: String,
                    url: String,
                    status: u16,
                    flat: Vec<String>,
                    body: Value<'js>| {
        let (isolate, key) = (at.isolate(&ctx)?, at.key(&ctx, cache, url)?);
        let body = body_of(&body).unwrap_or_default();
        at.begin(&ctx, operation, async move {
            let headers = header_map(&flat).map_err(Failure::type_error)?;
            let status = StatusCode::from_u16(status).map_err(|_| Failure::type_error("There is no such status."))?;
            match isolate.ground.cache.put(key, status, headers, body, isolate.ground.kv.now_ms()) {
                // As with the original, what is too large is not kept, and nobody is told.
                Ok(()) | Err(Refused::TooLarge | Refused::Unwanted) => Ok(Given::Null),
                Err(Refused::Invalid(why)) => Err(Failure::type_error(why)),
            }
        })
    };
    host.set("cachePut", Function::new(ctx.clone(), put)?)?;

    let at = desk.clone();
    let remove = move |ctx: Ctx<'js>, operation: f64, cache: String, url: String| {
        let (isolate, key) = (at.isolate(&ctx)?, at.key(&ctx, cache, url)?);
        at.begin(&ctx, operation, async move { Ok(Given::Flag(isolate.ground.cache.remove(&key))) })
    };
    host.set("cacheRemove", Function::new(ctx.clone(), remove)?)
}
