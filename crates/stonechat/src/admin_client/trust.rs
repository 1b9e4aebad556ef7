//! Whose certificates a command believes: the system's authorities, what `--ca`
//! names, and for the node on this machine the certificate it serves itself.
//!
//! Names are checked in any case: a certificate has to be for the address or the
//! name that is asked.

use std::path::Path;
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::exit::{Exit, Failure};

/// Settings of a client that believes the system's authorities and those in `files`.
pub(super) fn trusting(files: &[&Path]) -> Result<TlsConfig, Failure> {
    let system = rustls_native_certs::load_native_certs().certs;
    let mut roots: Vec<Certificate<'static>> = system
        .iter()
        .map(|one| Certificate::from_der(one.as_ref()).to_owned())
        .collect();
    for file in files {
        roots.extend(read(file)?);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

fn read(file: &Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let pem = std::fs::read(file).map_err(|error| Failure::io(file.display(), &error))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let text = format!(
            "{}: no certificate in the file, PEM is expected",
            file.display()
        );
        return Err(Failure::new(Exit::Config, text));
    }
    Ok(certificates)
}
