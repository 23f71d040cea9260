//! Pages that are rewritten: see `rewriter`.

use std::sync::Arc;

use rquickjs::{Ctx, Exception, Function, Object};

use super::{Desk, Given, Passed};
use crate::worker::embedded::rewriter::{PIECE_LEN_MAX, Rewriter, selector_error};

pub(super) fn add<'js>(ctx: &Ctx<'js>, host: &Object<'js>, desk: &Desk) -> rquickjs::Result<()> {
    host.set("pieceLength", PIECE_LEN_MAX)?;
    host.set("rewriterSelector", Function::new(ctx.clone(), |selector: String| selector_error(&selector))?)?;

    let at = desk.clone();
    let new = move |ctx: Ctx<'js>, handlers: String| {
        let (isolate, visit) = (at.isolate(&ctx)?, at.visit(&ctx)?);
        let too_many = || Exception::throw_message(&ctx, "Too many pages are being rewritten.");
        let place = Arc::clone(&isolate.ground.rewriting).try_acquire_owned().map_err(|_| too_many())?;
        let rewriter = Rewriter::new(&handlers, place).map_err(|why| Exception::throw_type(&ctx, &why))?;
        visit.keep_rewriter(rewriter).ok_or_else(too_many)
    };
    host.set("rewriterNew", Function::new(ctx.clone(), new)?)?;

    let at = desk.clone();
    let find = move |ctx: Ctx<'js>, number: u32, piece: Option<Passed>| {
        let piece = piece.as_ref().map(|piece| &*piece.0);
        let found = at.visit(&ctx)?.with_rewriter(number, |rewriter| rewriter.find(piece));
        found.map_err(|why| Exception::throw_type(&ctx, &why))
    };
    host.set("rewriterFind", Function::new(ctx.clone(), find)?)?;

    let at = desk.clone();
    let rewrite = move |ctx: Ctx<'js>, number: u32, piece: Option<Passed>, wishes: String| {
        let visit = at.visit(&ctx)?;
        let piece = piece.as_ref().map(|piece| &*piece.0);
        let written = visit.with_rewriter(number, |rewriter| rewriter.rewrite(piece, &wishes));
        if piece.is_none() {
            visit.drop_rewriter(number);
        }
        written.map(|bytes| Given::Bytes(bytes.into())).map_err(|why| Exception::throw_type(&ctx, &why))
    };
    host.set("rewriterDo", Function::new(ctx.clone(), rewrite)?)?;

    let at = desk.clone();
    let release = move |ctx: Ctx<'js>, number: u32| {
        if let Ok(visit) = at.visit(&ctx) {
            visit.drop_rewriter(number);
        }
    };
    host.set("rewriterDrop", Function::new(ctx.clone(), release)?)
}
