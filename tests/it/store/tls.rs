//! Redis over TLS, with certificates that only the organisation knows, as most have it in-house.

use std::fs;

use promptkeep::store::OpenError;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::common::{redis_server::RedisServer, test_server::until};

/// An authority, and a server with its certificate.
struct Authority {
    folder: TempDir,
    ca_pem: String,
}

// === impl Authority ===

impl Authority {
    async fn with_server() -> (Self, RedisServer) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        let authority = Self { folder: tempfile::tempdir().unwrap(), ca_pem: ca.pem() };
        let certificate = authority.file("server.pem", &certificate.pem());
        let key = authority.file("server.key", &key.serialize_pem());
        let server = RedisServer::tls(certificate.to_str().unwrap(), key.to_str().unwrap()).await;
        (authority, server)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn store(&self, server: &RedisServer) -> StoreConfig {
        StoreConfig { ca_file: Some(self.file("ca.pem", &self.ca_pem)), ..server.store() }
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named() {
    let (authority, server) = Authority::with_server().await;
    let (a, b) =
        (store::open(&authority.store(&server)).unwrap(), store::open(&authority.store(&server)).unwrap());
    let kept = put(&*a, entry(1)).await;
    until(async || {
        b.get(kept.key).await.is_ok_and(|found| found.is_some_and(|f| answer(&f) == answer(&kept)))
    })
    .await;
}

/// Nothing is sent to somebody who only says to be Redis.
#[tokio::test]
async fn others_are_not_trusted() {
    let (authority, server) = Authority::with_server().await;
    let (other, _server) = Authority::with_server().await;
    for config in [server.store(), other.store(&server)] {
        let store = store::open(&config).unwrap();
        let failed = store.put(Arc::new(entry(1)), Durability::Durable).await.unwrap_err();
        assert!(failed.to_string().contains("redis is away"), "{failed}");
    }
    let trusted = store::open(&authority.store(&server)).unwrap();
    assert_eq!(trusted.get(entry(1).key).await.unwrap(), None);
}

#[tokio::test]
async fn a_file_without_certificates_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let config =
        StoreConfig { kind: StoreKind::Redis, ca_file: Some(path.clone()), ..StoreConfig::default() };
    for text in
        [None, Some("no certificate"), Some("-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n")]
    {
        text.into_iter().for_each(|text| fs::write(&path, text).unwrap());
        let Err(OpenError::CaFile { path: told, .. }) = store::open(&config) else { panic!("{text:?}") };
        assert_eq!(told, path);
    }
}
