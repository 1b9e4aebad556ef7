//! Until when a certificate is good, read from its DER.
//!
//! A walk to one field and nothing else: names, extensions and signatures are
//! the business of whoever verifies the certificate, which the server that
//! presents it does not do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity; `None` when the bytes are no certificate.
pub(super) fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let mut certificate = Der(certificate).expect(SEQUENCE)?;
    let mut signed = certificate.expect(SEQUENCE)?;
    if signed.0.first() == Some(&VERSION) {
        signed.next()?;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        signed.next()?;
    }
    let mut validity = signed.expect(SEQUENCE)?;
    validity.next()?;
    let (tag, text) = validity.next()?;
    let seconds = time(tag, text)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Elements one after another.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], mut rest) = self.0.split_first_chunk()?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            let (bytes, behind) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if bytes.len() > 4 {
                return None;
            }
            length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            rest = behind;
        }
        let (content, behind) = rest.split_at_checked(length)?;
        self.0 = behind;
        Some((tag, content))
    }

    /// Into the next element, which has to be of this kind.
    fn expect(&mut self, tag: u8) -> Option<Der<'a>> {
        let (found, content) = self.next()?;
        (found == tag).then_some(Der(content))
    }
}

/// Seconds since 1970 of a time as certificates write it, always in UTC and to the second.
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| {
        digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
    };
    let (year, rest) = match (tag, digits.len()) {
        // Two digits, from 1950 to 2049.
        (UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (if year < 50 { 2000 } else { 1900 } + year, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let mut fields = rest.chunks(2).map(number);
    let mut field = |range: std::ops::RangeInclusive<u64>| {
        let value = fields.next()?;
        range.contains(&value).then_some(value)
    };
    let (month, day) = (field(1..=12)?, field(1..=31)?);
    let (hour, minute, second) = (field(0..=23)?, field(0..=59)?, field(0..=60)?);
    let days = days_since_1970(year, month, day)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; `None` for earlier ones.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    // Years begin in March here, so that the leap day is the last of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    // 719,468 days lie between March of the year 0 and 1970.
    (year * 365 + leap_days + day_of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_found() {
        // Days by `date --utc --date=… +%s`; both ways of writing a time, leap years and not.
        for ((year, month, day), seconds) in [
            ((2024, 2, 29), 1_709_164_800),
            ((2026, 11, 22), 1_795_305_600),
            ((2049, 12, 31), 2_524_521_600),
            ((2100, 3, 1), 4_107_542_400),
            ((4096, 1, 1), 67_090_118_400),
        ] {
            let end = not_after(&certificate(year, month, day)).unwrap();
            assert_eq!(
                end.duration_since(UNIX_EPOCH).unwrap().as_secs(),
                seconds,
                "{year}-{month}-{day}"
            );
        }
        assert_eq!(time(UTC_TIME, b"700101000001Z"), Some(1));
        assert_eq!(time(UTC_TIME, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(time(GENERALIZED_TIME, b"19700102000000Z"), Some(86_400));
        for bad in [
            &b"491231235959"[..],
            b"491331235959Z",
            b"4912312359Z",
            b"49123123595xZ",
        ] {
            assert_eq!(time(UTC_TIME, bad), None);
        }
    }

    #[test]
    fn a_certificate_that_is_cut_is_none() {
        let whole = certificate(2030, 1, 1);
        for end in 0..whole.len() {
            assert_eq!(not_after(&whole[..end]), None);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_there_is_an_answer(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            at in 0_usize..120,
            value in any::<u8>(),
        ) {
            let _ = not_after(&bytes);
            let mut spoiled = certificate(2030, 1, 1);
            spoiled[at] = value;
            let _ = not_after(&spoiled);
        }
    }
}
