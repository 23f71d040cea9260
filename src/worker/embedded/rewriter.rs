//! HTML that a script rewrites while it streams: `lol_html`, twice.
//!
//! A script's handlers may take their time, which `lol_html` does not wait for. So each piece of a page is read twice:
//! once to find what the handlers are to be told, and, when they are done, once more to do what they asked for. Both
//! readings meet the same things in the same order. Knows nothing of JavaScript.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lol_html::html_content::{Comment, ContentType, Doctype, DocumentEnd, EndTag, TextChunk};
use lol_html::send::{DocumentContentHandlers, Element, ElementContentHandlers, HtmlRewriter, Settings};
use lol_html::{HandlerResult, MemorySettings, Selector};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::OwnedSemaphorePermit;

/// Bytes of a page that are read at a time.
pub(super) const PIECE_LEN_MAX: usize = 64 * 1024;
/// Memory of each reading, in bytes: the longest tag, and how deep elements are.
const MEMORY_MAX: usize = 512 * 1024;
/// Handlers of a rewriter.
const HANDLERS_MAX: usize = 256;
/// What handlers are told of a piece, in bytes of JSON.
const MET_LEN_MAX: usize = 8 * 1024 * 1024;
/// Pages that all scripts may rewrite at a time.
pub(super) const REWRITTEN_MAX: usize = 512;

/// Said if the two readings should ever differ.
const ASTRAY: &str = "The page was read differently the second time; this is a bug.";

/// What a handler is for.
#[derive(Debug, Deserialize)]
pub(super) struct Handler {
    /// Of elements, or none for the whole document.
    selector: Option<String>,
    /// `element`, `comments`, `text`, `doctype` or `end`.
    kind: String,
}

/// What a handler asks for: its name, two texts, and whether the text is HTML.
#[derive(Debug, Deserialize)]
struct Wish(String, String, String, bool);

impl Wish {
    fn kind(&self) -> ContentType {
        if self.3 { ContentType::Html } else { ContentType::Text }
    }
}

/// What both readings share.
#[derive(Clone, Default)]
struct Notes {
    /// What the first one has met: items of a list in JSON.
    met: Arc<Mutex<String>>,
    /// What the second one is to do, for each.
    wishes: Arc<Mutex<VecDeque<Vec<Wish>>>>,
    /// How many elements were met.
    elements: Arc<Mutex<u64>>,
    out: Arc<Mutex<Vec<u8>>>,
}

fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Sink = Box<dyn FnMut(&[u8]) + Send>;
type Reading = HtmlRewriter<'static, Sink>;

/// A page that is being rewritten.
pub(super) struct Rewriter {
    finds: Option<Reading>,
    does: Option<Reading>,
    notes: Notes,
    _place: OwnedSemaphorePermit,
}

/// Why a selector is none.
pub(super) fn selector_error(selector: &str) -> Option<String> {
    selector.parse::<Selector>().err().map(|error| error.to_string())
}

impl Rewriter {
    /// One for these handlers, as JSON, that takes a place among [`REWRITTEN_MAX`].
    pub(super) fn new(handlers: &str, place: OwnedSemaphorePermit) -> Result<Self, String> {
        let handlers: Vec<Handler> = serde_json::from_str(handlers).map_err(|error| error.to_string())?;
        if handlers.len() > HANDLERS_MAX {
            return Err(format!("A rewriter can have {HANDLERS_MAX} handlers."));
        }
        let notes = Notes::default();
        let finds = reading(&handlers, &Finds(notes.clone()), Box::new(|_| {}))?;
        let out = Arc::clone(&notes.out);
        let does =
            reading(&handlers, &Does(notes.clone()), Box::new(move |bytes| locked(&out).extend_from_slice(bytes)))?;
        Ok(Self { finds: Some(finds), does: Some(does), notes, _place: place })
    }

    /// What the handlers are to be told of a piece of the page, as JSON. `None` is its end.
    pub(super) fn find(&mut self, piece: Option<&[u8]>) -> Result<String, String> {
        read(&mut self.finds, piece)?;
        let met = std::mem::take(&mut *locked(&self.notes.met));
        Ok(format!("[{met}]"))
    }

    /// The same piece, with what the handlers asked for.
    pub(super) fn rewrite(&mut self, piece: Option<&[u8]>, wishes: &str) -> Result<Vec<u8>, String> {
        *locked(&self.notes.wishes) = serde_json::from_str(wishes).map_err(|error| error.to_string())?;
        read(&mut self.does, piece)?;
        if !locked(&self.notes.wishes).is_empty() {
            return Err(ASTRAY.into());
        }
        Ok(std::mem::take(&mut *locked(&self.notes.out)))
    }
}

fn read(reading: &mut Option<Reading>, piece: Option<&[u8]>) -> Result<(), String> {
    let done = match piece {
        Some(piece) => reading.as_mut().map(|reading| reading.write(piece)),
        None => reading.take().map(Reading::end),
    };
    done.unwrap_or(Ok(())).map_err(|error| error.to_string())
}

/// What one of the readings does with what it meets. The number is the handler's.
trait Reader: Clone + Send + 'static {
    fn element(&self, handler: usize, element: &mut Element<'_, '_>) -> HandlerResult;
    fn comment(&self, handler: usize, comment: &mut Comment<'_>) -> HandlerResult;
    fn text(&self, handler: usize, text: &mut TextChunk<'_>) -> HandlerResult;
    fn doctype(&self, handler: usize, doctype: &mut Doctype<'_>) -> HandlerResult;
    fn end(&self, handler: usize, end: &mut DocumentEnd<'_>) -> HandlerResult;
}

fn reading(handlers: &[Handler], reader: &impl Reader, sink: Sink) -> Result<Reading, String> {
    let memory = MemorySettings::new().with_max_allowed_memory_usage(MEMORY_MAX);
    let mut settings = Settings::new_for_handler_types().with_memory_settings(memory).with_strict(true);
    for (number, Handler { selector, kind }) in handlers.iter().enumerate() {
        let at = reader.clone();
        settings = if let Some(selector) = selector {
            let selector = selector.parse::<Selector>().map_err(|error| error.to_string())?;
            let all = ElementContentHandlers::default();
            let all = match &**kind {
                "element" => all.element(move |element: &mut Element<'_, '_>| at.element(number, element)),
                "comments" => all.comments(move |comment: &mut Comment<'_>| at.comment(number, comment)),
                _ => all.text(move |text: &mut TextChunk<'_>| at.text(number, text)),
            };
            settings.append_element_content_handler((std::borrow::Cow::Owned(selector), all))
        } else {
            let all = DocumentContentHandlers::default();
            let all = match &**kind {
                "doctype" => all.doctype(move |doctype: &mut Doctype<'_>| at.doctype(number, doctype)),
                "comments" => all.comments(move |comment: &mut Comment<'_>| at.comment(number, comment)),
                "text" => all.text(move |text: &mut TextChunk<'_>| at.text(number, text)),
                _ => all.end(move |end: &mut DocumentEnd<'_>| at.end(number, end)),
            };
            settings.append_document_content_handler(all)
        };
    }
    Ok(HtmlRewriter::new(settings, sink))
}

/// Notes what it meets. `at` tells handlers of one thing from those of the next.
#[derive(Clone)]
struct Finds(Notes);

impl Finds {
    fn note(&self, what: &Json) -> HandlerResult {
        let (mut met, what) = (locked(&self.0.met), what.to_string());
        if met.len() + what.len() > MET_LEN_MAX {
            return Err("There is too much on the page for so many handlers.".into());
        }
        if !met.is_empty() {
            met.push(',');
        }
        met.push_str(&what);
        Ok(())
    }
}

impl Reader for Finds {
    fn element(&self, handler: usize, element: &mut Element<'_, '_>) -> HandlerResult {
        let number = {
            let mut elements = locked(&self.0.elements);
            *elements += 1;
            *elements
        };
        let attributes: Vec<(String, String)> =
            element.attributes().iter().map(|attribute| (attribute.name(), attribute.value())).collect();
        self.note(&json!({
            "kind": "element", "handler": handler, "at": element.source_location().bytes().start, "number": number,
            "name": element.tag_name(), "attributes": attributes, "namespace": element.namespace_uri(),
            "hasContent": element.can_have_content(),
        }))?;
        if element.can_have_content() {
            let at = self.clone();
            element.on_end_tag(Box::new(move |tag: &mut EndTag<'_>| {
                at.note(&json!({ "kind": "endTag", "number": number, "name": tag.name() }))
            }))?;
        }
        Ok(())
    }

    fn comment(&self, handler: usize, comment: &mut Comment<'_>) -> HandlerResult {
        let at = comment.source_location().bytes().start;
        self.note(&json!({ "kind": "comments", "handler": handler, "at": at, "text": comment.text() }))
    }

    fn text(&self, handler: usize, text: &mut TextChunk<'_>) -> HandlerResult {
        self.note(&json!({
            "kind": "text", "handler": handler, "at": text.source_location().bytes().start, "text": text.as_str(),
            "last": text.last_in_text_node(),
        }))
    }

    fn doctype(&self, handler: usize, doctype: &mut Doctype<'_>) -> HandlerResult {
        self.note(&json!({
            "kind": "doctype", "handler": handler, "at": doctype.source_location().bytes().start,
            "name": doctype.name(), "publicId": doctype.public_id(), "systemId": doctype.system_id(),
        }))
    }

    fn end(&self, handler: usize, _: &mut DocumentEnd<'_>) -> HandlerResult {
        self.note(&json!({ "kind": "end", "handler": handler, "at": -1 }))
    }
}

/// Does what handlers ask for.
#[derive(Clone)]
struct Does(Notes);

impl Does {
    fn wishes(&self) -> Result<Vec<Wish>, Box<dyn std::error::Error + Send + Sync>> {
        locked(&self.0.wishes).pop_front().ok_or_else(|| ASTRAY.into())
    }
}

/// Carries wishes out that all of them understand.
macro_rules! common {
    ($thing:expr, $wish:expr) => {
        match &*$wish.0 {
            "before" => $thing.before(&$wish.1, $wish.kind()),
            "after" => $thing.after(&$wish.1, $wish.kind()),
            "replace" => $thing.replace(&$wish.1, $wish.kind()),
            "remove" => $thing.remove(),
            _ => {}
        }
    };
}

impl Reader for Does {
    fn element(&self, _: usize, element: &mut Element<'_, '_>) -> HandlerResult {
        for wish in self.wishes()? {
            match &*wish.0 {
                "setAttribute" => element.set_attribute(&wish.1, &wish.2)?,
                "removeAttribute" => element.remove_attribute(&wish.1),
                "name" => element.set_tag_name(&wish.1)?,
                "prepend" => element.prepend(&wish.1, wish.kind()),
                "append" => element.append(&wish.1, wish.kind()),
                "setInnerContent" => element.set_inner_content(&wish.1, wish.kind()),
                "removeAndKeepContent" => element.remove_and_keep_content(),
                _ => common!(element, wish),
            }
        }
        if element.can_have_content() {
            let at = self.clone();
            element.on_end_tag(Box::new(move |tag: &mut EndTag<'_>| {
                for wish in at.wishes()? {
                    match &*wish.0 {
                        "name" => tag.set_name_str(wish.1),
                        _ => common!(tag, wish),
                    }
                }
                Ok(())
            }))?;
        }
        Ok(())
    }

    fn comment(&self, _: usize, comment: &mut Comment<'_>) -> HandlerResult {
        for wish in self.wishes()? {
            match &*wish.0 {
                "text" => comment.set_text(&wish.1)?,
                _ => common!(comment, wish),
            }
        }
        Ok(())
    }

    fn text(&self, _: usize, text: &mut TextChunk<'_>) -> HandlerResult {
        for wish in self.wishes()? {
            common!(text, wish);
        }
        Ok(())
    }

    fn doctype(&self, _: usize, doctype: &mut Doctype<'_>) -> HandlerResult {
        if self.wishes()?.iter().any(|wish| wish.0 == "remove") {
            doctype.remove();
        }
        Ok(())
    }

    fn end(&self, _: usize, end: &mut DocumentEnd<'_>) -> HandlerResult {
        for wish in self.wishes()? {
            end.append(&wish.1, wish.kind());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::Semaphore;

    use super::*;

    fn rewriter(handlers: &Json) -> Rewriter {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a place");
        Rewriter::new(&handlers.to_string(), place).expect("a rewriter")
    }

    const PARTS: &[&str] = &[
        "<p>",
        "</p>",
        "<div a=b c>",
        "</div>",
        "text ",
        "&amp; ",
        "é",
        "<!--c-->",
        "<br>",
        "<img/>",
        "<script>a<b</script>",
        "<style>",
        "</style>",
        "<svg><path/></svg>",
        "<table><tr><td>",
        "</table>",
        "<!doctype html>",
        "</nothing>",
        "<",
        "<a href='x'",
        ">",
        "<b><i>",
        "</b></i>",
        "<textarea>",
        "</textarea>",
    ];

    proptest! {
        #[test]
        fn both_readings_meet_the_same(
            parts in prop::collection::vec(prop::sample::select(PARTS), 0..40),
            cuts in prop::collection::vec(1_usize..20, 0..20),
            wishes in prop::collection::vec(0_usize..8, 1..10),
        ) {
            let page = parts.concat().into_bytes();
            let kinds = |selector: Json, kinds: &[&str]| -> Vec<Json> {
                kinds.iter().map(|kind| json!({ "selector": selector, "kind": kind })).collect()
            };
            let mut handlers = kinds("*".into(), &["element", "text", "comments"]);
            handlers.extend(kinds("p, div > *".into(), &["element", "text"]));
            handlers.extend(kinds(Json::Null, &["doctype", "text", "comments", "end"]));
            for is_touched in [false, true] {
                let (mut rewriter, mut rest, mut out, mut met) = (rewriter(&handlers.clone().into()), &page[..], Vec::new(), 0);
                let mut pieces: Vec<Option<&[u8]>> = Vec::new();
                for cut in &cuts {
                    let (piece, left) = rest.split_at((*cut).min(rest.len()));
                    pieces.push(Some(piece));
                    rest = left;
                }
                pieces.extend([Some(rest), None]);
                for piece in pieces {
                    // Some pages mean two things, and are refused by the first reading.
                    let Ok(found) = rewriter.find(piece) else { return Ok(()) };
                    let found: Vec<Json> = serde_json::from_str(&found).expect("a list");
                    let wish = |_: &Json| {
                        met += 1;
                        let all = ["remove", "replace", "setInnerContent", "removeAndKeepContent", "before", "append", "name", ""];
                        let name = all[wishes[met % wishes.len()]];
                        let text = if name == "name" { "q" } else { "<x>" };
                        if is_touched { json!([[name, text, "", true]]) } else { json!([]) }
                    };
                    let wanted = Json::Array(found.iter().map(wish).collect());
                    out.extend(rewriter.rewrite(piece, &wanted.to_string()).expect("the same"));
                }
                prop_assert!(is_touched || out == page, "what nobody touches stays");
            }
        }
    }

    #[test]
    fn what_handlers_are_told_is_bounded() {
        let handlers: Vec<Json> = (0..HANDLERS_MAX).map(|_| json!({ "selector": "*", "kind": "element" })).collect();
        let page = "<b>".repeat(PIECE_LEN_MAX / 3);
        let refused = rewriter(&handlers.clone().into()).find(Some(page.as_bytes()));
        assert!(refused.is_err_and(|why| why.contains("too much on the page")));
        let more = [handlers, vec![json!({ "selector": "*", "kind": "element" })]].concat();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a place");
        assert!(Rewriter::new(&Json::from(more).to_string(), place).is_err());
        let tag = format!("<b a='{}'>", "x".repeat(MEMORY_MAX));
        let mut long = rewriter(&json!([{ "selector": "b", "kind": "element" }]));
        let found: Result<Vec<_>, _> =
            tag.as_bytes().chunks(PIECE_LEN_MAX).map(|piece| long.find(Some(piece))).collect();
        assert!(found.is_err_and(|why| why.contains("memory")));
    }
}
