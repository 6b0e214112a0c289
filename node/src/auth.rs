//! The cluster secret, and what is derived from it: who holds it belongs to the cluster.
//!
//! The secret itself never travels. Each use has a key of its own, derived with keyed BLAKE3, so
//! that what one protocol reveals is worth nothing to another.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::{Exit, Hint};

/// The environment variable with the secret in hexadecimal; secrets are the one thing besides the
/// log filter that the environment may say.
pub const SECRET_VARIABLE: &str = "BATON_CLUSTER_SECRET";

/// 32 random bytes that all daemons of one cluster know.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret([u8; 32]);

/// What a derived key is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The bearer token of internal gRPC calls.
    Grpc,
    /// The hello frame of the block transports.
    Transfer,
}

impl Purpose {
    /// Part of the wire protocol.
    fn context(self) -> &'static [u8] {
        match self {
            Self::Grpc => b"baton 1 grpc bearer",
            Self::Transfer => b"baton 1 transfer hello",
        }
    }
}

/// A derived key. Comparing two takes the same time wherever they differ.
#[derive(Clone, Copy)]
pub struct Token([u8; 32]);

/// No secret could be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Not 64 hexadecimal digits. The text is not repeated: it may be a mistyped secret.
    #[error("{origin}: expected 64 hexadecimal digits, found {digits} characters")]
    Malformed {
        /// Where the text stands.
        origin: String,
        /// How long it is.
        digits: usize,
    },
    /// The file cannot be read or made.
    #[error("cannot use the cluster secret {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system has no random numbers.
    #[error("no random numbers: {0}")]
    Entropy(getrandom::Error),
}

impl Hint for SecretError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Malformed { .. } => Some("`openssl rand -hex 32` makes one".into()),
            Self::File { .. } | Self::Entropy(_) => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Permission
            }
            Self::Malformed { .. } | Self::File { .. } => Exit::Config,
            Self::Entropy(_) => Exit::Unavailable,
        }
    }
}

impl ClusterSecret {
    /// A new secret.
    pub fn generate() -> Result<Self, SecretError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(SecretError::Entropy)?;
        Ok(Self(bytes))
    }

    /// The secret from its hexadecimal form; `origin` names where that stands.
    pub fn from_hex(text: &str, origin: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let malformed =
            || SecretError::Malformed { origin: origin.into(), digits: text.chars().count() };
        let bytes = blake3::Hash::from_hex(text).map_err(|_| malformed())?;
        Ok(Self(*bytes.as_bytes()))
    }

    /// The secret from a file that holds its hexadecimal form.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SecretError::File { path: path.into(), source })?;
        Self::from_hex(&text, &path.display().to_string())
    }

    /// The secret from the environment, if it has one.
    pub fn from_environment() -> Option<Result<Self, SecretError>> {
        let text = std::env::var(SECRET_VARIABLE).ok()?;
        Some(Self::from_hex(&text, SECRET_VARIABLE))
    }

    /// Writes the hexadecimal form into a new file that only its owner can read.
    pub fn write_new(&self, path: &Path) -> Result<(), SecretError> {
        let failed = |source| SecretError::File { path: path.into(), source };
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        writeln!(file, "{}", self.to_hex()).map_err(failed)
    }

    /// The hexadecimal form, for a child's environment. Never log it.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// The key for one use.
    pub fn derive(&self, purpose: Purpose) -> Token {
        Token(*blake3::keyed_hash(&self.0, purpose.context()).as_bytes())
    }

    /// The bytes, which the root of the hash chain is keyed with.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(<redacted>)")
    }
}

impl Token {
    /// The bytes, for a frame.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `claimed` is this token, in constant time.
    pub fn admits(&self, claimed: &[u8]) -> bool {
        self.0.ct_eq(claimed).into()
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(<redacted>)")
    }
}

/// Adds the cluster's bearer token to every call of a gRPC client.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    /// Marked sensitive, so that no layer prints it.
    header: MetadataValue<Ascii>,
}

impl ClientAuth {
    /// For calls to other daemons of the cluster.
    pub fn new(secret: &ClusterSecret) -> Self {
        let bearer = secret.derive(Purpose::Grpc).bearer();
        let mut header = MetadataValue::try_from(bearer).expect("hexadecimal digits are ASCII");
        header.set_sensitive(true);
        Self { header }
    }
}

impl Interceptor for ClientAuth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.header.clone());
        Ok(request)
    }
}

/// Refuses every call to a gRPC service that does not carry the cluster's bearer token.
#[derive(Clone, Debug)]
pub struct ServerAuth {
    expected: crate::Redacted<String>,
}

impl ServerAuth {
    /// For services that only daemons of the cluster may call.
    pub fn new(secret: &ClusterSecret) -> Self {
        Self { expected: secret.derive(Purpose::Grpc).bearer().into() }
    }
}

impl Interceptor for ServerAuth {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let claimed = request.metadata().get("authorization");
        let claimed = claimed.map(MetadataValue::as_bytes).unwrap_or_default();
        if self.expected.expose().as_bytes().ct_eq(claimed).into() {
            Ok(request)
        } else {
            // One answer for a missing and a wrong token: it says nothing about either.
            Err(Status::unauthenticated("this service is for members of the cluster"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn call(server: &ClusterSecret, request: Request<()>) -> Result<Request<()>, Status> {
        ServerAuth::new(server).call(request)
    }

    #[test]
    fn members_are_admitted_and_strangers_are_not() {
        let ours = ClusterSecret::generate().expect("entropy");
        let theirs = ClusterSecret::generate().expect("entropy");
        let signed = |secret| ClientAuth::new(secret).call(Request::new(())).expect("signed");
        call(&ours, signed(&ours)).expect("a member");
        for refused in [Request::new(()), signed(&theirs)] {
            let status = call(&ours, refused).expect_err("a stranger");
            assert_eq!(status.code(), tonic::Code::Unauthenticated);
        }
        let mut shortened = signed(&ours);
        let header = ClientAuth::new(&ours).header;
        let part = header.to_str().expect("ASCII")[..40].parse().expect("ASCII");
        shortened.metadata_mut().insert("authorization", part);
        call(&ours, shortened).expect_err("a part of the token is no token");
    }

    #[test]
    fn each_purpose_has_its_own_key_and_none_is_the_secret() {
        let secret = ClusterSecret::generate().expect("entropy");
        let (grpc, transfer) = (secret.derive(Purpose::Grpc), secret.derive(Purpose::Transfer));
        assert!(grpc.admits(grpc.bytes()) && !grpc.admits(transfer.bytes()));
        assert!(!grpc.admits(secret.expose()) && !grpc.admits(&grpc.bytes()[..31]));
    }

    #[test]
    fn derived_keys_are_part_of_the_wire_protocol() {
        let secret = ClusterSecret::from_hex(&"07".repeat(32), "test").expect("hex");
        let mut expected = blake3::Hasher::new_keyed(&[7; 32]);
        expected.update(b"baton 1 transfer hello");
        assert!(secret.derive(Purpose::Transfer).admits(expected.finalize().as_bytes()));
    }

    #[test]
    fn a_secret_survives_its_file_which_nobody_else_can_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        let secret = ClusterSecret::generate().expect("entropy");
        secret.write_new(&path).expect("written");
        assert_eq!(ClusterSecret::from_file(&path).expect("read back"), secret);
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // An existing secret is never replaced.
        secret.write_new(&path).expect_err("there already");
    }

    #[test]
    fn a_malformed_secret_is_refused_without_being_repeated() {
        let error = ClusterSecret::from_hex("c0ffee-canary", "secret.hex").expect_err("too short");
        let line = crate::Failure::from(error).to_string();
        assert!(line.starts_with("secret.hex: expected 64 hexadecimal digits"), "{line}");
        assert!(!line.contains("canary"), "{line}");
    }

    #[test]
    fn debug_output_shows_no_key() {
        let secret = ClusterSecret::from_hex(&"ab".repeat(32), "test").expect("hex");
        let token = secret.derive(Purpose::Grpc);
        let (client, server) = (ClientAuth::new(&secret), ServerAuth::new(&secret));
        let shown = format!("{secret:?} {token:?} {client:?} {server:?}");
        let hex = blake3::Hash::from_bytes(*token.bytes()).to_hex();
        assert!(!shown.contains("abab") && !shown.contains(&hex[..8]), "{shown}");
    }
}
