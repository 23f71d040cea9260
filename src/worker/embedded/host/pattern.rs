//! Patterns of URLs: `urlpattern` takes them apart, and the script's own regular expressions do the matching.

use rquickjs::{Ctx, Exception, Function, Object};
use urlpattern::UrlPatternOptions;
use urlpattern::quirks::{
    EcmaRegexp, StringOrInit, UrlPatternInit, parse_match_input, parse_pattern, process_construct_pattern_input,
    process_match_input,
};

/// What a script gives: text, or an object as JSON.
fn given(text: Option<String>, object: Option<String>) -> Option<StringOrInit<'static>> {
    match (text, object) {
        (Some(text), _) => Some(StringOrInit::String(text.into())),
        (None, Some(object)) => serde_json::from_str::<UrlPatternInit>(&object).ok().map(StringOrInit::Init),
        (None, None) => None,
    }
}

fn json(value: &impl serde::Serialize) -> Option<String> {
    serde_json::to_string(value).ok()
}

pub(super) fn add<'js>(ctx: &Ctx<'js>, host: &Object<'js>) -> rquickjs::Result<()> {
    let compile =
        |ctx: Ctx<'js>, text: Option<String>, object: Option<String>, base: Option<String>, ignore_case: bool| {
            let parsed = given(text, object).ok_or_else(|| "there is no pattern".to_owned()).and_then(|given| {
                let init =
                    process_construct_pattern_input(given, base.as_deref()).map_err(|error| error.to_string())?;
                parse_pattern::<EcmaRegexp>(init, UrlPatternOptions { ignore_case, ..Default::default() })
                    .map_err(|error| error.to_string())
            });
            match parsed {
                Ok(pattern) => Ok(json(&pattern)),
                Err(why) => Err(Exception::throw_type(&ctx, &format!("Failed to construct 'URLPattern': {why}"))),
            }
        };
    host.set("patternCompile", Function::new(ctx.clone(), compile)?)?;
    let input = |ctx: Ctx<'js>, text: Option<String>, object: Option<String>, base: Option<String>| {
        let Some(given) = given(text, object) else { return Ok(None) };
        match process_match_input(given, base.as_deref()) {
            Ok(input) => Ok(input.and_then(|(input, _)| parse_match_input(input)).and_then(|parts| json(&parts))),
            Err(error) => Err(Exception::throw_type(&ctx, &error.to_string())),
        }
    };
    host.set("patternInput", Function::new(ctx.clone(), input)?)
}
