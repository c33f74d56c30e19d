//! TLS records, counted without a key.

/// How many records of each type a stream of bytes holds (RFC 8446, section 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// `change_cipher_spec`, which TLS 1.3 sends for middleboxes only.
    pub change_cipher_spec: usize,
    /// `alert` in the clear.
    pub alert: usize,
    /// `handshake` in the clear: the hellos.
    pub handshake: usize,
    /// `application_data`: everything encrypted, the rest of the handshake included.
    pub application_data: usize,
}

impl Records {
    /// Counts the records of a stream, whose last one may be cut off.
    ///
    /// Returns nothing when the bytes are not TLS records from the first to the last.
    pub fn count(mut bytes: &[u8]) -> Option<Self> {
        const HEADER: usize = 5;
        // RFC 8446, section 5.2: 2^14 and the expansion by encryption.
        const LONGEST: usize = (1 << 14) + 256;
        let mut records = Self::default();
        while let Some(header) = bytes.first_chunk::<HEADER>() {
            let [kind, major, minor, high, low] = *header;
            let length = usize::from(u16::from_be_bytes([high, low]));
            if major != 3 || !(1..=3).contains(&minor) || length > LONGEST {
                return None;
            }
            match kind {
                20 => records.change_cipher_spec += 1,
                21 => records.alert += 1,
                22 => records.handshake += 1,
                23 => records.application_data += 1,
                _ => return None,
            }
            bytes = bytes.get(HEADER + length..).unwrap_or_default();
        }
        Some(records)
    }

    /// All records together.
    pub fn total(&self) -> usize {
        self.change_cipher_spec + self.alert + self.handshake + self.application_data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_by_type() {
        let stream = [
            &[22, 3, 1, 0, 2, 1, 1][..],
            &[20, 3, 3, 0, 1, 1],
            &[23, 3, 3, 0, 1, 0],
            &[23, 3, 3, 0, 9, 0], // cut off
        ];
        let records = Records::count(&stream.concat()).expect("TLS records");
        let expected = Records {
            change_cipher_spec: 1,
            alert: 0,
            handshake: 1,
            application_data: 2,
        };
        assert_eq!(records, expected);
        assert_eq!(records.total(), 4);
    }

    #[test]
    fn plaintext_is_no_record() {
        assert_eq!(Records::count(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(Records::count(b"\x17\x03\x03\x00\x01\x00HTTP/1.1"), None);
    }
}
