//! A checksum on every row, and one number for all rows together.
//!
//! redb keeps a 128-bit xxh3 of each page in the page above, and its integrity
//! check on open walks the committed trees from the newest commit slot. What
//! that cannot see: bytes outside of the walked pages; a header that points at
//! the older of the two commit slots, whose tree is whole, too (one bit of the
//! header, which no checksum covers). So each row carries its own checksum, the
//! sum of all is a row of its own, and the backup beside the file knows how far
//! the file must have come.

/// Bytes of a row's checksum: the head of its SHA-256.
pub(super) const SEAL_BYTES: usize = 16;

/// The checksum of some parts; where a part ends counts, too.
pub(super) fn checksum(parts: &[&[u8]]) -> u128 {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let mut sha256 = suite.tls13().expect("the suite is a TLS 1.3 suite").common.hash_provider.start();
    for part in parts {
        sha256.update(&(part.len() as u64).to_be_bytes());
        sha256.update(part);
    }
    let mut head = [0; SEAL_BYTES];
    head.copy_from_slice(&sha256.finish().as_ref()[..SEAL_BYTES]);
    u128::from_be_bytes(head)
}

/// A row as it is stored: checksum, then body.
pub(super) fn seal(table: &str, key: &str, body: &[u8]) -> (Vec<u8>, u128) {
    let sum = checksum(&[table.as_bytes(), key.as_bytes(), body]);
    ([&sum.to_be_bytes(), body].concat(), sum)
}

/// The body and checksum of a stored row; none where they do not fit.
pub(super) fn unseal<'a>(table: &str, key: &str, row: &'a [u8]) -> Option<(&'a [u8], u128)> {
    let (seal, body) = row.split_first_chunk::<SEAL_BYTES>()?;
    let sum = checksum(&[table.as_bytes(), key.as_bytes(), body]);
    (sum.to_be_bytes() == *seal).then_some((body, sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_row_does_not_open() {
        let (row, sum) = seal("address", "10.0.0.1", b"{}");
        assert_eq!(unseal("address", "10.0.0.1", &row), Some((b"{}".as_slice(), sum)));
        assert_eq!(unseal("address", "10.0.0.2", &row), None);
        assert_eq!(unseal("age", "10.0.0.1", &row), None);
        for bit in 0..row.len() * 8 {
            let mut changed = row.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal("address", "10.0.0.1", &changed), None, "bit {bit}");
        }
        assert_eq!(unseal("address", "10.0.0.1", &row[..9]), None);
    }
}
