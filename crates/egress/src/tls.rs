//! Reading within TLS: an authority of one run, and the other side verified.
//!
//! The authority's key is made when the proxy starts and lives in its memory only; its certificate is
//! what the command is told to trust. Invariant: the proxy speaks for a host to the command only after
//! the rules allowed that host, and to the host only over a connection whose certificate it verified.

use crate::host::Host;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Certificates that are kept.
const KEPT: usize = 256;
/// Width of the text form of a certificate.
const LINE: usize = 64;

/// The authority of one run.
pub struct Tls {
    issuer: Issuer<'static, KeyPair>,
    authority: CertificateDer<'static>,
    leaf: KeyPair,
    kept: Mutex<HashMap<Host, Arc<ServerConfig>>>,
    outward: Arc<ClientConfig>,
    trusted: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// Makes an authority, and reads whom the host trusts.
    ///
    /// # Errors
    /// What hindered it, in words.
    pub fn new(authorities: Option<&Path>) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (key, leaf) = (KeyPair::generate().map_err(|e| text(&e))?, KeyPair::generate().map_err(|e| text(&e))?);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Tinkerbell, for one command");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let authority = params.self_signed(&key).map_err(|e| text(&e))?.der().clone();
        // A host without any authorities still has those that the operator named.
        let mut trusted = rustls_native_certs::load_native_certs().certs;
        if let Some(path) = authorities {
            let found = rustls_native_certs::load_certs_from_paths(Some(path), None);
            if found.certs.is_empty() {
                return Err(format!("{} holds no certificate", path.display()));
            }
            trusted.extend(found.certs);
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let outward = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(|e| text(&e))?;
        let mut outward = outward.with_root_certificates(roots).with_no_client_auth();
        outward.alpn_protocols = vec![b"http/1.1".to_vec()];
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, authority, leaf, kept: Mutex::default(), outward: Arc::new(outward), trusted })
    }

    /// Whom the command is to trust: everybody whom the host trusts, and this proxy.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.trusted.iter().chain([&self.authority]).map(pem).collect()
    }

    /// Speaks to the command for a host.
    ///
    /// # Errors
    /// When no certificate can be made for it.
    pub fn inward(&self, host: &Host) -> Result<TlsAcceptor, String> {
        if let Some(known) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(host) {
            return Ok(TlsAcceptor::from(known.clone()));
        }
        let config = Arc::new(self.config(host)?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(host.clone(), config.clone());
        Ok(TlsAcceptor::from(config))
    }

    fn config(&self, host: &Host) -> Result<ServerConfig, String> {
        let name = match host {
            Host::Name(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        };
        let mut params = CertificateParams::new(vec![name]).map_err(|error| error.to_string())?;
        // Another subject than the authority's: where both are the same, programs take it for self-signed.
        params.distinguished_name.push(DnType::CommonName, "Tinkerbell, for one host");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.leaf, &self.issuer).map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?.with_no_client_auth();
        let mut config =
            config.with_single_cert(vec![certificate.der().clone(), self.authority.clone()], key).map_err(|e| e.to_string())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Speaks to a host, and the name that its certificate must have.
    ///
    /// # Errors
    /// When it has no name that a certificate could have.
    pub fn outward(&self, host: &Host) -> Result<(TlsConnector, ServerName<'static>), String> {
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|error| error.to_string())?,
            Host::Address(address) => ServerName::from(*address),
        };
        Ok((TlsConnector::from(self.outward.clone()), name))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(LINE).flat_map(|line| [String::from_utf8_lossy(line).into_owned(), "\n".to_owned()]);
    ["-----BEGIN CERTIFICATE-----\n".to_owned()].into_iter().chain(lines).chain(["-----END CERTIFICATE-----\n".to_owned()]).collect()
}
