//! Who may be on the other end of a connection: whoever has a certificate of the cluster's
//! authority. Both sides show one; names in it do not matter yet.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, PeerIncompatible, RootCertStore, ServerConfig,
    SignatureScheme,
};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// What this process shows to its peers, and what it demands of them. TLS 1.3.
#[derive(Clone)]
pub struct TlsIdentity {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// The files of an identity, in PEM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlsFiles<'a> {
    /// The own certificate, and those between it and the authority's. Where it says what it may be
    /// used for, that has to be both server and client authentication.
    pub cert: &'a Path,
    /// Its private key.
    pub key: &'a Path,
    /// Certificates of the cluster's authority.
    pub ca: &'a Path,
}

/// One of the three files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsFile {
    /// [`TlsFiles::cert`]
    Cert,
    /// [`TlsFiles::key`]
    Key,
    /// [`TlsFiles::ca`]
    Ca,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of the kind.
    #[error("{}: {source}: expected {} in PEM", .path.display(), .file.content())]
    File {
        /// Which one.
        file: TlsFile,
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// What a file holds is of no use.
    #[error("{}: {source}", .path.display())]
    Invalid {
        /// Which one.
        file: TlsFile,
        /// Where it was read.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

impl TlsFile {
    fn content(self) -> &'static str {
        match self {
            Self::Cert => "a certificate",
            Self::Key => "a private key",
            Self::Ca => "the certificate of an authority",
        }
    }
}

impl TlsError {
    /// Which of the files it is about.
    pub fn file(&self) -> TlsFile {
        match self {
            Self::File { file, .. } | Self::Invalid { file, .. } => *file,
        }
    }
}

impl TlsIdentity {
    /// Reads an identity.
    pub fn load(files: TlsFiles<'_>) -> Result<Self, TlsError> {
        let failed = |file, path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::File { file, path, source }
        };
        let invalid = |file, path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Invalid { file, path, source }
        };
        let TlsFiles { cert, key, ca } = files;
        let chain = certificates(cert).map_err(failed(TlsFile::Cert, cert))?;
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(failed(TlsFile::Key, key))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(ca).map_err(failed(TlsFile::Ca, ca))? {
            roots.add(root).map_err(invalid(TlsFile::Ca, ca))?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
        let verifier =
            Arc::new(ChainVerifier { roots: Arc::clone(&roots), provider: Arc::clone(&provider) });
        let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))
            .map_err(invalid(TlsFile::Ca, ca))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(invalid(TlsFile::Cert, cert))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key_der.clone_key())
            .map_err(invalid(TlsFile::Key, key))?;
        // Connections are kept, so there is nothing to resume; and nothing may come unasked.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(invalid(TlsFile::Cert, cert))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain, key_der)
            .map_err(invalid(TlsFile::Key, key))?;
        client.resumption = Resumption::disabled();
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }

    /// Shakes hands with a caller.
    pub(super) async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        Ok(TlsAcceptor::from(Arc::clone(&self.server)).accept(socket).await?.into())
    }

    /// Shakes hands with whoever is called.
    pub(super) async fn connect(
        &self,
        address: IpAddr,
        socket: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::IpAddress(address.into());
        Ok(TlsConnector::from(Arc::clone(&self.client)).connect(name, socket).await?.into())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let found = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity(..)")
    }
}

/// What to tell a person about a connection that TLS ended; `None` if something else did.
pub(crate) fn explain(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidMessage(_) => {
            "the peer does not speak it: give all daemons certificates, or none".to_owned()
        }
        rustls::Error::AlertReceived(alert) => {
            format!("the peer ended the handshake ({alert:?}): compare certificates and authority")
        }
        other => format!("{other}: compare the peer's certificate with the authority"),
    })
}

/// Checks that the owner's certificate is of the cluster's authority and valid now, and that the
/// owner has its key. Its names are not compared: addresses change, and the authority is the
/// cluster's own.
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let cert = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &cert,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
