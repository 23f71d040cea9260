//! What Web Crypto computes with: `ring`.

use std::num::NonZeroU32;

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{aead, digest, hkdf, hmac, pbkdf2, signature};
use rquickjs::{Ctx, Exception, Function, Object};
use subtle::ConstantTimeEq;

use super::{Desk, Given, Passed};

fn digest_of(name: &str) -> &'static digest::Algorithm {
    match name {
        "SHA-1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        "SHA-384" => &digest::SHA384,
        "SHA-512" => &digest::SHA512,
        _ => &digest::SHA256,
    }
}

fn hmac_of(name: &str) -> hmac::Algorithm {
    match name {
        "SHA-1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "SHA-384" => hmac::HMAC_SHA384,
        "SHA-512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    }
}

fn pbkdf2_of(name: &str) -> pbkdf2::Algorithm {
    match name {
        "SHA-1" => pbkdf2::PBKDF2_HMAC_SHA1,
        "SHA-384" => pbkdf2::PBKDF2_HMAC_SHA384,
        "SHA-512" => pbkdf2::PBKDF2_HMAC_SHA512,
        _ => pbkdf2::PBKDF2_HMAC_SHA256,
    }
}

fn hkdf_of(name: &str) -> hkdf::Algorithm {
    match name {
        "SHA-1" => hkdf::HKDF_SHA1_FOR_LEGACY_USE_ONLY,
        "SHA-384" => hkdf::HKDF_SHA384,
        "SHA-512" => hkdf::HKDF_SHA512,
        _ => hkdf::HKDF_SHA256,
    }
}

fn verifier(kind: &str) -> Option<&'static dyn signature::VerificationAlgorithm> {
    Some(match kind {
        "P-256 SHA-256" => &signature::ECDSA_P256_SHA256_FIXED,
        "P-384 SHA-384" => &signature::ECDSA_P384_SHA384_FIXED,
        "Ed25519" => &signature::ED25519,
        "PKCS1 SHA-1" => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
        "PKCS1 SHA-256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "PKCS1 SHA-384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "PKCS1 SHA-512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PSS SHA-256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PSS SHA-384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PSS SHA-512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn aes_gcm(seals: bool, key: &[u8], iv: &[u8], associated: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let algorithm = if key.len() == 16 { &aead::AES_128_GCM } else { &aead::AES_256_GCM };
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).ok()?);
    let nonce = aead::Nonce::try_assume_unique_for_key(iv).ok()?;
    let mut data = data.to_vec();
    if seals {
        key.seal_in_place_append_tag(nonce, aead::Aad::from(associated), &mut data).ok()?;
    } else {
        let len = key.open_in_place(nonce, aead::Aad::from(associated), &mut data).ok()?.len();
        data.truncate(len);
    }
    Some(data)
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive(hash: &str, key: &[u8], salt: &[u8], info: &[u8], len: usize) -> Option<Vec<u8>> {
    let pseudorandom = hkdf::Salt::new(hkdf_of(hash), salt).extract(key);
    let info = [info];
    // The bound of the algorithm itself is below this.
    let mut bits = vec![0; len.min(255 * 64)];
    pseudorandom.expand(&info, Length(len)).ok()?.fill(&mut bits).ok()?;
    Some(bits)
}

fn given(bytes: Vec<u8>) -> Given {
    Given::Bytes(bytes.into())
}

pub(super) fn add<'js>(ctx: &Ctx<'js>, host: &Object<'js>, desk: &Desk) -> rquickjs::Result<()> {
    let at = desk.clone();
    host.set(
        "random",
        Function::new(ctx.clone(), move |ctx: Ctx<'js>, len: usize| {
            at.visit(&ctx)?;
            let mut bytes = vec![0; len.min(65_536)];
            let filled = SystemRandom::new().fill(&mut bytes);
            filled.map_err(|_| Exception::throw_message(&ctx, "this machine has no entropy"))?;
            rquickjs::Result::Ok(given(bytes))
        })?,
    )?;
    host.set("equal", Function::new(ctx.clone(), |a: Passed, b: Passed| bool::from(a.0.ct_eq(&b.0)))?)?;
    host.set(
        "digest",
        Function::new(ctx.clone(), |hash: String, data: Passed| {
            Given::Bytes(Bytes::copy_from_slice(digest::digest(digest_of(&hash), &data.0).as_ref()))
        })?,
    )?;
    host.set(
        "hmac",
        Function::new(ctx.clone(), |hash: String, key: Passed, data: Passed| {
            let tag = hmac::sign(&hmac::Key::new(hmac_of(&hash), &key.0), &data.0);
            Given::Bytes(Bytes::copy_from_slice(tag.as_ref()))
        })?,
    )?;
    host.set(
        "hmacVerify",
        Function::new(ctx.clone(), |hash: String, key: Passed, data: Passed, tag: Passed| {
            hmac::verify(&hmac::Key::new(hmac_of(&hash), &key.0), &data.0, &tag.0).is_ok()
        })?,
    )?;
    host.set(
        "verify",
        Function::new(ctx.clone(), |ctx: Ctx<'js>, kind: String, key: Passed, data: Passed, signature: Passed| {
            let Some(algorithm) = verifier(&kind) else {
                return Err(Exception::throw_type(&ctx, "the embedded engine can't verify that; workerd can"));
            };
            Ok(signature::UnparsedPublicKey::new(algorithm, &key.0).verify(&data.0, &signature.0).is_ok())
        })?,
    )?;
    let cipher = |seals: bool, key: Passed, iv: Passed, associated: Passed, data: Passed| {
        aes_gcm(seals, &key.0, &iv.0, &associated.0, &data.0).map(given)
    };
    host.set("aesGcm", Function::new(ctx.clone(), cipher)?)?;
    let stretch = |hash: String, key: Passed, salt: Passed, iterations: u32, len: usize| {
        let iterations = NonZeroU32::new(iterations.clamp(1, 100_000)).unwrap_or(NonZeroU32::MIN);
        let mut bits = vec![0; len.min(1024)];
        pbkdf2::derive(pbkdf2_of(&hash), iterations, &salt.0, &key.0, &mut bits);
        given(bits)
    };
    host.set("pbkdf2", Function::new(ctx.clone(), stretch)?)?;
    host.set(
        "hkdf",
        Function::new(ctx.clone(), |hash: String, key: Passed, salt: Passed, info: Passed, len: usize| {
            derive(&hash, &key.0, &salt.0, &info.0, len).map(given)
        })?,
    )
}
