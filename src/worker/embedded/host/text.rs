//! Text in its encodings, URLs, and forms: what crates know better than a prelude.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::Bytes;
use encoding_rs::{DecoderResult, Encoding};
use rquickjs::prelude::MutFn;
use rquickjs::{Ctx, Function, Object};
use url::{Url, form_urlencoded, quirks};

use super::{Given, Passed};

/// As `atob` reads: the padding may be missing, but is right where it is there.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

fn parts(url: &Url) -> Vec<String> {
    let parts = [
        quirks::href(url),
        &quirks::origin(url),
        quirks::protocol(url),
        quirks::username(url),
        quirks::password(url),
        quirks::host(url),
        quirks::hostname(url),
        quirks::port(url),
        quirks::pathname(url),
        quirks::search(url),
        quirks::hash(url),
    ];
    parts.map(str::to_owned).to_vec()
}

fn parse(input: &str, base: Option<&str>) -> Option<Url> {
    match base {
        Some(base) => Url::parse(base).ok()?.join(input).ok(),
        None => Url::parse(input).ok(),
    }
}

/// Sets a part, by its place among the parts. A value that does not fit changes nothing.
fn set(href: &str, part: u32, value: &str) -> Option<Url> {
    let mut url = Url::parse(href).ok()?;
    // Errors mean that nothing was changed, as the standard wants it.
    match part {
        0 => drop(quirks::set_href(&mut url, value)),
        2 => drop(quirks::set_protocol(&mut url, value)),
        3 => drop(quirks::set_username(&mut url, value)),
        4 => drop(quirks::set_password(&mut url, value)),
        5 => drop(quirks::set_host(&mut url, value)),
        6 => drop(quirks::set_hostname(&mut url, value)),
        7 => drop(quirks::set_port(&mut url, value)),
        8 => quirks::set_pathname(&mut url, value),
        9 => quirks::set_search(&mut url, value),
        10 => quirks::set_hash(&mut url, value),
        _ => return None,
    }
    Some(url)
}

fn decode(label: &str, bytes: &[u8], is_fatal: bool, keeps_mark: bool) -> Option<String> {
    let encoding = Encoding::for_label(label.as_bytes())?;
    let decoded = match (is_fatal, keeps_mark) {
        (true, true) => encoding.decode_without_bom_handling_and_without_replacement(bytes)?,
        (true, false) => {
            let (decoded, had_errors) = encoding.decode_with_bom_removal(bytes);
            if had_errors {
                return None;
            }
            decoded
        }
        (false, true) => encoding.decode_without_bom_handling(bytes).0,
        (false, false) => encoding.decode_with_bom_removal(bytes).0,
    };
    Some(decoded.into_owned())
}

/// A decoder of text that comes in pieces: what it makes of the next one, of which it is told whether it is the last.
fn decoder(label: &str, is_fatal: bool, keeps_mark: bool) -> Option<impl FnMut(&[u8], bool) -> Option<String> + use<>> {
    let encoding = Encoding::for_label(label.as_bytes())?;
    let mut decoder = match keeps_mark {
        true => encoding.new_decoder_without_bom_handling(),
        false => encoding.new_decoder_with_bom_removal(),
    };
    Some(move |bytes: &[u8], is_last: bool| {
        let mut text = String::with_capacity(decoder.max_utf8_buffer_length(bytes.len())?);
        if is_fatal {
            let (result, _) = decoder.decode_to_string_without_replacement(bytes, &mut text, is_last);
            return (result == DecoderResult::InputEmpty).then_some(text);
        }
        // There is room for everything.
        let _ = decoder.decode_to_string(bytes, &mut text, is_last);
        Some(text)
    })
}

/// The bytes of text whose characters are bytes.
fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect()
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|char| !matches!(char, '\t' | '\n' | '\x0c' | '\r' | ' ')).collect();
    let unpadded = match text.len() % 4 {
        0 => text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(&text),
        _ => &text,
    };
    FORGIVING.decode(unpadded).ok()
}

pub(super) fn add<'js>(ctx: &Ctx<'js>, host: &Object<'js>) -> rquickjs::Result<()> {
    host.set("encode", Function::new(ctx.clone(), |text: String| Given::Bytes(Bytes::from(text)))?)?;
    host.set(
        "encodingOf",
        Function::new(ctx.clone(), |label: String| {
            Encoding::for_label(label.as_bytes()).map(|encoding| encoding.name().to_ascii_lowercase())
        })?,
    )?;
    host.set(
        "decode",
        Function::new(ctx.clone(), |label: String, bytes: Passed, is_fatal: bool, keeps_mark: bool| {
            decode(&label, &bytes.0, is_fatal, keeps_mark)
        })?,
    )?;
    let pieces = |ctx: Ctx<'js>, label: String, is_fatal: bool, keeps_mark: bool| {
        let decoder = decoder(&label, is_fatal, keeps_mark);
        let function = decoder.map(|mut decoder| {
            Function::new(ctx, MutFn::from(move |bytes: Passed, is_last: bool| decoder(&bytes.0, is_last)))
        });
        function.transpose()
    };
    host.set("decoder", Function::new(ctx.clone(), pieces)?)?;
    host.set("btoa", Function::new(ctx.clone(), |text: String| latin1(&text).map(|bytes| STANDARD.encode(bytes)))?)?;
    host.set(
        "atob",
        Function::new(ctx.clone(), |text: String| {
            from_base64(&text).map(|bytes| bytes.into_iter().map(char::from).collect::<String>())
        })?,
    )?;
    host.set("toBase64", Function::new(ctx.clone(), |bytes: Passed| STANDARD.encode(&bytes.0))?)?;
    host.set(
        "fromBase64",
        Function::new(ctx.clone(), |text: String| from_base64(&text).map(|bytes| Given::Bytes(bytes.into())))?,
    )?;
    host.set(
        "urlParse",
        Function::new(ctx.clone(), |input: String, base: Option<String>| {
            parse(&input, base.as_deref()).map(|url| parts(&url))
        })?,
    )?;
    host.set(
        "urlSet",
        Function::new(ctx.clone(), |href: String, part: u32, value: String| {
            set(&href, part, &value).map(|url| parts(&url))
        })?,
    )?;
    host.set(
        "formRead",
        Function::new(ctx.clone(), |text: String| {
            let pairs = form_urlencoded::parse(text.as_bytes());
            pairs.flat_map(|(name, value)| [name.into_owned(), value.into_owned()]).collect::<Vec<String>>()
        })?,
    )?;
    host.set(
        "formWrite",
        Function::new(ctx.clone(), |flat: Vec<String>| {
            let mut form = form_urlencoded::Serializer::new(String::new());
            for pair in flat.chunks_exact(2) {
                form.append_pair(&pair[0], &pair[1]);
            }
            form.finish()
        })?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_browsers_read_it() {
        for (text, bytes) in [("aGk=", Some("hi")), ("aGk", Some("hi")), (" a G k = ", Some("hi")), ("", Some(""))] {
            assert_eq!(from_base64(text), bytes.map(|bytes| bytes.as_bytes().to_vec()), "{text:?}");
        }
        for text in ["a", "a===", "aGk==", "aG*k"] {
            assert_eq!(from_base64(text), None, "{text:?}");
        }
    }
}
