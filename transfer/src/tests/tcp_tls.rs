//! Encrypted connections: who gets in, what others are told, and that nothing else changes.

use super::*;
use crate::tcp::{TlsError, TlsFile, TlsFiles, TlsIdentity};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use std::path::Path;

/// An authority, as a cluster has one.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes the three files of a worker, which trusts `trusted`, and whose certificate ends in
    /// `until`.
    fn files(&self, dir: &Path, trusted: &Self, until: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["worker".to_owned()]).unwrap();
        params.not_after = date_time_ymd(until, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(dir.join("cert"), cert.pem()).unwrap();
        std::fs::write(dir.join("key"), key.serialize_pem()).unwrap();
        std::fs::write(dir.join("ca"), trusted.0.pem()).unwrap();
    }

    fn identity(&self, trusted: &Self, until: i32) -> TlsIdentity {
        let dir = tempfile::tempdir().unwrap();
        self.files(dir.path(), trusted, until);
        load(dir.path()).unwrap()
    }

    fn member(&self) -> TlsIdentity {
        self.identity(self, 2100)
    }
}

fn load(dir: &Path) -> Result<TlsIdentity, TlsError> {
    let [cert, key, ca] = ["cert", "key", "ca"].map(|name| dir.join(name));
    TlsIdentity::load(TlsFiles { cert: &cert, key: &key, ca: &ca })
}

/// Two workers, each with an identity or none.
async fn rig(owner: Option<TlsIdentity>, puller: Option<TlsIdentity>) -> Rig {
    let mut place = Place::new(TransportKind::Tcp);
    place.tls = [owner, puller];
    Rig::at(place, Guards::default()).await
}

async fn pull(
    owner: Option<TlsIdentity>,
    puller: Option<TlsIdentity>,
) -> Result<(), TransferError> {
    let rig = rig(owner, puller).await;
    let block = rig.owner.publish(1, 100_000);
    let result = rig.puller.pull_one(&rig.owner.peer, &block).await;
    rig.finish().await;
    result
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_cluster_exchange_blocks_and_say_what_was_copied() {
    let authority = Authority::new();
    let rig = rig(Some(authority.member()), Some(authority.member())).await;
    // Cut and whole ones, several to a read, and one that is refused between others.
    let blocks: Vec<_> =
        (1..=40).map(|tag| rig.owner.publish(tag, 7 * tag as usize * 900)).collect();
    rig.owner.release(&blocks[7]);
    for _ in 0..3 {
        for (i, result) in rig.puller.pull(&rig.owner.peer, &blocks).await.into_iter().enumerate() {
            match i {
                7 => assert_eq!(result, Err(TransferError::Refused(Refused::Lease))),
                _ => assert_eq!(result, Ok(())),
            }
        }
    }
    for (counters, op) in [(&rig.puller.local.counters, Op::Pull), (&rig.owner.counters, Op::Serve)]
    {
        let sample = counters.sample(TransportKind::Tcp, op);
        assert!(sample.bytes > 0);
        assert_eq!(sample.copied_bytes, sample.bytes);
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_connection_is_kept() {
    let authority = Authority::new();
    let rig = rig(Some(authority.member()), Some(authority.member())).await;
    let block = rig.owner.publish(1, 1000);
    for _ in 0..20 {
        assert_eq!(rig.puller.pull_one(&rig.owner.peer, &block).await, Ok(()));
    }
    // The listener and one connection.
    assert_eq!(rig.owner.tasks.len(), 2);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_expired_members_are_told_so_on_either_side() {
    let (own, other) = (Authority::new(), Authority::new());
    let member = || Some(own.member());
    let cases = [
        ("an owner of another authority", Some(other.identity(&own, 2100)), member()),
        ("a puller of another authority", member(), Some(other.identity(&own, 2100))),
        ("another authority on both sides", Some(other.member()), member()),
        ("an expired owner", Some(own.identity(&own, 2020)), member()),
        ("an expired puller", member(), Some(own.identity(&own, 2020))),
    ];
    for (case, owner, puller) in cases {
        let error = pull(owner, puller).await.unwrap_err();
        assert!(matches!(error, TransferError::Tls { .. }), "{case}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_encrypt_meets_no_one_who_does() {
    let authority = Authority::new();
    let error = pull(Some(authority.member()), None).await.unwrap_err();
    assert_eq!(error, TransferError::Refused(Refused::Tls));
    let error = pull(None, Some(authority.member())).await.unwrap_err();
    assert!(error.to_string().contains("does not speak it"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_pulls_that_are_cancelled_lose_no_slot() {
    let authority = Authority::new();
    let rig = rig(Some(authority.member()), Some(authority.member())).await;
    let blocks: Vec<_> = (1..=16).map(|tag| rig.owner.publish(tag, SLOT_BYTES)).collect();
    for round in 0..30 {
        let flight = rig.puller.start(&rig.owner.peer, &blocks);
        for _ in 0..round * 5 {
            tokio::task::yield_now().await;
        }
        flight.cancel();
        for result in rig.puller.judge(flight.settle().await, &blocks) {
            assert!(matches!(result, Ok(()) | Err(TransferError::Cancelled)), "{result:?}");
        }
        rig.puller.store.assert_at_rest();
    }
    assert_eq!(rig.puller.pull(&rig.owner.peer, &blocks).await, vec![Ok(()); 16]);
    rig.finish().await;
}

#[test]
fn files_that_are_no_identity_are_named() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let break_file = |name: &str, content: Option<&str>| {
        authority.files(dir.path(), &authority, 2100);
        match content {
            Some(content) => std::fs::write(dir.path().join(name), content).unwrap(),
            None => std::fs::remove_file(dir.path().join(name)).unwrap(),
        }
        load(dir.path()).unwrap_err()
    };
    for (name, file) in [("cert", TlsFile::Cert), ("key", TlsFile::Key), ("ca", TlsFile::Ca)] {
        for content in [None, Some(""), Some("nonsense")] {
            let error = break_file(name, content);
            assert_eq!(error.file(), file, "{error}");
            assert!(error.to_string().contains(dir.path().join(name).to_str().unwrap()), "{error}");
        }
    }
    // A key of another certificate.
    let key = KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(break_file("key", Some(&key)).file(), TlsFile::Key);
    assert_eq!(format!("{:?}", authority.member()), "TlsIdentity(..)");
}
