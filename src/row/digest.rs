//! The keyed digest of one row.

use std::fmt;

/// The key of all digests of one task: 32 random bytes, made once and kept in the state directory.
///
/// With a secret key nobody can make two sets of rows whose sums agree. The certificate publishes
/// it afterwards, so that an auditor can compute the digests again.
#[derive(Clone)]
pub struct DigestKey([u8; 32]);

impl DigestKey {
    /// Takes the key from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        DigestKey(bytes)
    }

    /// Returns the digest of a row in canonical form.
    pub fn row(&self, canonical: &[u8]) -> RowDigest {
        RowDigest(*blake3::keyed_hash(&self.0, canonical).as_bytes())
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(..)")
    }
}

/// The keyed BLAKE3-256 digest of one row's canonical form.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RowDigest([u8; 32]);

impl RowDigest {
    /// Takes a digest from where it was stored.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        RowDigest(bytes)
    }

    /// Returns the 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
