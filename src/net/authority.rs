//! The cluster's certificate authority: what is in a certificate, and for how long. Refuses to know who deserves one
//! and what time it is (times are arguments).

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::identity::{
    AUTHORITY_CERTIFICATE_FILE, BACKDATE_SECS, Identity, IdentityError, NodeKey, crypto, fingerprint, load_certificate,
    malformed, node_id_of_public_key, parse, pem, server_name, write,
};
use crate::replica::{NodeId, SecretBytes};

const DAY_SECS: u64 = 24 * 60 * 60;
const AUTHORITY_VALIDITY_SECS: u64 = 20 * 365 * DAY_SECS;
const NODE_VALIDITY_SECS: u64 = 2 * 365 * DAY_SECS;

/// The cluster's certificate authority. Every node holds it, so that every node can let others in.
#[derive(Clone)]
pub struct Authority {
    key: NodeKey,
    certificate: CertificateDer<'static>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprint = blake3::hash(&self.certificate);
        f.debug_struct("Authority").field("fingerprint", &fingerprint).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new cluster's authority, valid for 20 years from `now_secs` (Unix time).
    pub fn create(now_secs: u64) -> Result<Self, IdentityError> {
        let key = NodeKey::generate()?;
        let mut params = params(now_secs, AUTHORITY_VALIDITY_SECS, format!("Starling cluster {}", key.node_id()))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(key.pair()).map_err(crypto("authority certificate"))?;
        Ok(Self { certificate: certificate.der().clone(), key })
    }

    /// Puts a key and its certificate together, checking that they match.
    pub(super) fn from_parts(key: NodeKey, certificate: CertificateDer<'static>) -> Result<Self, IdentityError> {
        let parsed = parse(&certificate, "authority certificate")?;
        if parsed.public_key().raw != key.public_key() {
            return Err(IdentityError::KeyMismatch("authority"));
        }
        // It names the cluster by its hash: changed anywhere, it would be that of another one.
        parsed
            .verify_signature(None)
            .map_err(|_| malformed("authority certificate")("its signature is wrong".into()))?;
        Ok(Self { key, certificate })
    }

    /// Puts a key and its certificate (DER) together, as a backup keeps them.
    pub fn of(key: &SecretBytes, certificate: Vec<u8>) -> Result<Self, IdentityError> {
        Self::from_parts(NodeKey::from_secret(key)?, CertificateDer::from(certificate))
    }

    /// Its key, as the keyring keeps it.
    pub fn to_secret(&self) -> SecretBytes {
        self.key.to_secret()
    }

    /// Writes `authority.crt`; the key is kept elsewhere.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        write(directory, AUTHORITY_CERTIFICATE_FILE, &pem("CERTIFICATE", &self.certificate))
    }

    /// Reads `authority.crt`, which must fit the key.
    pub fn load(key: &SecretBytes, directory: &Path) -> Result<Self, IdentityError> {
        Self::from_parts(NodeKey::from_secret(key)?, load_certificate(directory, AUTHORITY_CERTIFICATE_FILE)?)
    }

    /// The authority's certificate (DER).
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn key(&self) -> &NodeKey {
        &self.key
    }

    /// BLAKE3 of the DER certificate: names the cluster.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// Signs a certificate for `key`, valid for 2 years from `now_secs` (Unix time).
    pub fn issue(&self, key: &NodeKey, now_secs: u64) -> Result<Identity, IdentityError> {
        let certificate = self.sign(key.pair(), now_secs)?;
        Identity::new(key.clone(), certificate, self.certificate.clone())
    }

    /// A fresh key and a certificate for it that clients of the API are shown: for these DNS names and IP addresses.
    pub fn issue_for_clients(
        &self,
        names: &[String],
        now_secs: u64,
        validity_secs: u64,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IdentityError> {
        let failed = || crypto("certificate for clients");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed())?;
        let name = names.first().cloned().unwrap_or_else(|| "starling".into());
        let mut params = params(now_secs, validity_secs, name)?;
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.clone().try_into().map_err(failed())?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, self.key.pair()).map_err(failed())?;
        let certificate = params.signed_by(&key, &issuer).map_err(failed())?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((vec![certificate.der().clone(), self.certificate.clone()], private))
    }

    /// A certificate for the same key, valid for 2 years from `now_secs` (Unix time).
    pub fn renew(&self, identity: &Identity, now_secs: u64) -> Result<Identity, IdentityError> {
        self.issue(identity.key(), now_secs)
    }

    /// Signs the public key in a PKCS #10 request that proves possession of the private key. Nothing else in the
    /// request counts: names and usages are ours to say.
    pub(super) fn sign_request(
        &self,
        request: &[u8],
        now_secs: u64,
    ) -> Result<(NodeId, CertificateDer<'static>), IdentityError> {
        let request = node_request(request)?;
        let certificate = self.sign(&request.public_key, now_secs)?;
        Ok((node_id_of_public_key(&request.public_key.subject_public_key_info()), certificate))
    }

    fn sign(&self, public_key: &impl PublicKeyData, now_secs: u64) -> Result<CertificateDer<'static>, IdentityError> {
        let name = server_name(node_id_of_public_key(&public_key.subject_public_key_info()));
        let mut params = params(now_secs, NODE_VALIDITY_SECS, name.clone())?;
        params.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into().map_err(crypto("node certificate"))?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer =
            Issuer::from_ca_cert_der(&self.certificate, self.key.pair()).map_err(crypto("node certificate"))?;
        let certificate = params.signed_by(public_key, &issuer).map_err(crypto("node certificate"))?;
        Ok(certificate.der().clone())
    }
}

/// The node a PKCS #10 request asks a certificate for, its signature verified.
pub(super) fn node_id_of_request(request: &[u8]) -> Result<NodeId, IdentityError> {
    Ok(node_id_of_public_key(&node_request(request)?.public_key.subject_public_key_info()))
}

fn node_request(request: &[u8]) -> Result<CertificateSigningRequestParams, IdentityError> {
    let malformed = malformed("certificate request");
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
        .map_err(|error| malformed(error.to_string()))?;
    if PublicKeyData::algorithm(&request.public_key) != &PKCS_ED25519 {
        return Err(malformed("not an Ed25519 key".into()));
    }
    Ok(request)
}

#[allow(clippy::disallowed_methods, reason = "a serial number decides nothing that is replayed")]
fn params(now_secs: u64, validity_secs: u64, name: String) -> Result<CertificateParams, IdentityError> {
    let at = |secs: u64| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(secs);
    // Far above any clock, far below what the calendar can't express: a broken clock must not panic here.
    const NOW_MAX: u64 = 200 * 365 * DAY_SECS;
    let now_secs = now_secs.min(NOW_MAX);
    let mut serial = [0; 16];
    getrandom::fill(&mut serial)
        .map_err(|error| IdentityError::Crypto { what: "serial number", detail: error.to_string() })?;
    serial[0] &= 0x7f; // RFC 5280, 4.1.2.2: positive.
    let mut params = CertificateParams::default();
    params.not_before = at(now_secs.saturating_sub(BACKDATE_SECS));
    params.not_after = at(now_secs + validity_secs);
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn files_bring_back_the_same_node_and_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let key = NodeKey::generate().unwrap();
        assert!(matches!(Identity::load(key.clone(), directory.path()), Err(IdentityError::Missing(_))));
        key.save(directory.path()).unwrap();
        assert_eq!(NodeKey::load(directory.path()).unwrap().node_id(), key.node_id());
        NodeKey::remove(directory.path()).unwrap();
        assert!(matches!(NodeKey::load(directory.path()), Err(IdentityError::Missing(_))));
        let authority = Authority::create(NOW).unwrap();
        let identity = authority.issue(&key, NOW).unwrap();
        authority.save(directory.path()).unwrap();
        identity.save(directory.path()).unwrap();
        let key = NodeKey::from_secret(&key.to_secret()).unwrap();
        let loaded = Identity::load(key, directory.path()).unwrap();
        assert_eq!(loaded.node_id(), identity.node_id());
        assert_eq!(loaded.cluster_fingerprint(), authority.fingerprint());
        let loaded = Authority::load(&authority.to_secret(), directory.path()).unwrap();
        assert_eq!(loaded.fingerprint(), authority.fingerprint());
        let renewed = loaded.renew(&identity, NOW + 1000).unwrap();
        assert_eq!(renewed.node_id(), identity.node_id());
        assert_eq!(renewed.not_after_secs(), identity.not_after_secs() + 1000);
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (authority, other) = (Authority::create(NOW).unwrap(), Authority::create(NOW).unwrap());
        let key = NodeKey::generate().unwrap();
        authority.issue(&key, NOW).unwrap().save(directory.path()).unwrap();
        other.save(directory.path()).unwrap();
        assert!(matches!(Identity::load(key.clone(), directory.path()), Err(IdentityError::ForeignCertificate)));
        authority.issue(&key, NOW).unwrap().save(directory.path()).unwrap();
        let stranger = NodeKey::generate().unwrap();
        assert!(matches!(Identity::load(stranger, directory.path()), Err(IdentityError::KeyMismatch("node"))));
        let foreign = Authority::load(&other.to_secret(), directory.path());
        assert!(matches!(foreign, Err(IdentityError::KeyMismatch("authority"))));
    }

    #[test]
    fn renewal_is_due_at_half_of_the_certificate_life() {
        let authority = Authority::create(NOW).unwrap();
        let identity = authority.issue(&NodeKey::generate().unwrap(), NOW).unwrap();
        assert!(!identity.needs_renewal(NOW));
        assert!(!identity.needs_renewal(NOW + NODE_VALIDITY_SECS / 2 - DAY_SECS));
        assert!(identity.needs_renewal(NOW + NODE_VALIDITY_SECS / 2 + DAY_SECS));
        assert!(identity.needs_renewal(u64::MAX));
    }

    #[test]
    fn a_request_is_signed_for_its_key_only() {
        let authority = Authority::create(NOW).unwrap();
        let key = NodeKey::generate().unwrap();
        let params = CertificateParams::new(vec!["other.starling".to_owned()]).unwrap();
        let request = params.serialize_request(key.pair()).unwrap().der().to_vec();
        let (node, certificate) = authority.sign_request(&request, NOW).unwrap();
        assert_eq!(node, key.node_id());
        let parsed = parse(&certificate, "node certificate").unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
        assert_eq!(names, [x509_parser::extensions::GeneralName::DNSName(&server_name(node))]);

        let mut forged = request.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(authority.sign_request(&forged, NOW).is_err());
        let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let request = CertificateParams::default().serialize_request(&p256).unwrap().der().to_vec();
        assert!(authority.sign_request(&request, NOW).is_err());
    }

    #[test]
    fn debug_shows_no_private_key() {
        let authority = Authority::create(NOW).unwrap();
        let key = NodeKey::generate().unwrap();
        let text = format!("{authority:?} {key:?} {:?}", authority.issue(&key, NOW).unwrap());
        assert!(text.len() < 400 && text.contains(&key.node_id().to_string()), "{text}");
    }
}
