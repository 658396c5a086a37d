//! Redis over TLS with certificates of a private authority, as most organisations run it.

use std::fs;

use promptkeep::store::OpenError;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use super::*;
use crate::common::{redis_server::RedisServer, test_server::until};

/// A certificate authority and its files.
struct Authority {
    folder: TempDir,
    ca_pem: String,
}

impl Authority {
    /// A new authority, and a Redis server with a certificate of it.
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
async fn a_private_authority_is_trusted_if_the_config_names_it() {
    let (authority, server) = Authority::with_server().await;
    let (a, b) = (
        store::open("local", &authority.store(&server)).unwrap(),
        store::open("local", &authority.store(&server)).unwrap(),
    );
    let stored = put(&*a, entry(1)).await;
    until(async || {
        b.get(stored.key)
            .await
            .is_ok_and(|found| found.is_some_and(|f| without_vector(&f) == without_vector(&stored)))
    })
    .await;
}

/// Nothing is sent to a server whose certificate is not trusted.
#[tokio::test]
async fn other_authorities_are_not_trusted() {
    let (authority, server) = Authority::with_server().await;
    let (other, _server) = Authority::with_server().await;
    for config in [server.store(), other.store(&server)] {
        let store = store::open("local", &config).unwrap();
        let failed = store.put(Arc::new(entry(1)), Durability::Durable).await.unwrap_err();
        assert!(failed.to_string().contains("redis is unreachable"), "{failed}");
    }
    let trusted = store::open("local", &authority.store(&server)).unwrap();
    assert_eq!(trusted.get(entry(1).key).await.unwrap(), None);
}

#[tokio::test]
async fn a_ca_file_without_certificates_prevents_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let config =
        StoreConfig { kind: StoreKind::Redis, ca_file: Some(path.clone()), ..StoreConfig::default() };
    for text in
        [None, Some("no certificate"), Some("-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n")]
    {
        text.into_iter().for_each(|text| fs::write(&path, text).unwrap());
        let Err(OpenError::CaFile { path: reported, .. }) = store::open("local", &config) else {
            panic!("{text:?}")
        };
        assert_eq!(reported, path);
    }
}
