//! Numbers as Redis reads and writes them.
//!
//! Reading is strict, because a command's answer depends on it: `INCR` takes `10` but neither `+10`, `010` nor ` 10`.
//! Writing integers is part of every reply's hot path, hence the two-digit table.

/// Upper bound of a header's length: type byte, 20 digits, line end.
pub(crate) const HEADER: usize = 23;

/// `00` to `99`.
static PAIRS: [[u8; 2]; 100] = pairs();

const fn pairs() -> [[u8; 2]; 100] {
    let mut pairs = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        pairs[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    pairs
}

/// Appends `type_byte`, `n` and the line end, as in `*3\r\n`.
#[inline]
pub(crate) fn write_header(out: &mut Vec<u8>, type_byte: u8, n: usize) {
    if n < 10 {
        out.extend_from_slice(&[type_byte, b'0' + n as u8, b'\r', b'\n']);
    } else if n < 100 {
        let [tens, ones] = PAIRS[n];
        out.extend_from_slice(&[type_byte, tens, ones, b'\r', b'\n']);
    } else {
        write_longer_header(out, type_byte, n);
    }
}

fn write_longer_header(out: &mut Vec<u8>, type_byte: u8, n: usize) {
    if n >= 10_000 {
        return write_line(out, type_byte, false, n as u64);
    }
    let ([thousands, hundreds], [tens, ones]) = (PAIRS[n / 100], PAIRS[n % 100]);
    if n < 1000 {
        out.extend_from_slice(&[type_byte, hundreds, tens, ones, b'\r', b'\n']);
    } else {
        out.extend_from_slice(&[type_byte, thousands, hundreds, tens, ones, b'\r', b'\n']);
    }
}

/// Appends `type_byte`, a minus if `negative`, `magnitude` and the line end.
#[inline]
pub(crate) fn write_line(out: &mut Vec<u8>, type_byte: u8, negative: bool, magnitude: u64) {
    let mut line = [0u8; HEADER + 1];
    let end = line.len() - 2;
    line[end..].copy_from_slice(b"\r\n");
    let mut start = digits_before(&mut line, end, magnitude);
    if negative {
        start -= 1;
        line[start] = b'-';
    }
    start -= 1;
    line[start] = type_byte;
    out.extend_from_slice(&line[start..]);
}

/// Writes `n` so that its last digit stands before `end`; where the first one stands.
#[inline]
fn digits_before(buf: &mut [u8; HEADER + 1], end: usize, mut n: u64) -> usize {
    let mut start = end;
    while n >= 100 {
        start -= 2;
        buf[start..start + 2].copy_from_slice(&PAIRS[(n % 100) as usize]);
        n /= 100;
    }
    if n >= 10 {
        start -= 2;
        buf[start..start + 2].copy_from_slice(&PAIRS[n as usize]);
    } else {
        start -= 1;
        buf[start] = b'0' + n as u8;
    }
    start
}

/// Whole doubles up to here are written without an exponent.
const MAX_PLAIN: f64 = (i64::MAX / 2) as f64;

/// Appends `n` in decimal.
#[inline]
pub fn write_i64(out: &mut Vec<u8>, n: i64) {
    let mut buf = [0u8; HEADER + 1];
    let end = buf.len();
    let mut start = digits_before(&mut buf, end, n.unsigned_abs());
    if n < 0 {
        start -= 1;
        buf[start] = b'-';
    }
    out.extend_from_slice(&buf[start..]);
}

/// Appends `n` in decimal.
#[inline]
pub fn write_u64(out: &mut Vec<u8>, n: u64) {
    let mut buf = [0u8; HEADER + 1];
    let end = buf.len();
    let start = digits_before(&mut buf, end, n);
    out.extend_from_slice(&buf[start..]);
}

/// The integer `text` is in canonical form (`string2ll` of Redis): no `+`, no leading zeros, no spaces, no `-0`.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut magnitude = 0u64;
    for &digit in digits {
        let value = digit.wrapping_sub(b'0');
        if value > 9 {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(value); // 19 digits fit
    }
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// The number `text` is, as Redis's `getDoubleFromObject` takes it: what `strtod` takes, all of it and no space before;
/// `inf` too, but no NaN, nor what is too large or too small for a double. Unlike `strtod` it takes no hexadecimal floats.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = text.parse().ok()?;
    let overflow = value.is_infinite() && !text.contains(['n', 'N']);
    if value.is_nan() || overflow {
        return None;
    }
    let underflow = value == 0.0 && significand(text).any(|byte| byte != b'0');
    (!underflow).then_some(value)
}

/// The digits before the exponent.
fn significand(text: &str) -> impl Iterator<Item = u8> {
    text.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).filter(u8::is_ascii_digit)
}

/// Appends the shortest text that reads back as `value`, laid out as the replies of Redis since 7.2 have it (`d2string`):
/// `3`, `0.1`, `1e+21`, `1.5e-7`, `inf`, `nan`.
pub fn write_double_shortest(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        return out.extend_from_slice(b"nan");
    }
    if value != 0.0 && value.trunc() == value && value.abs() <= MAX_PLAIN {
        return write_i64(out, value as i64);
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if value.is_infinite() {
        return out.extend_from_slice(b"inf");
    }
    let scientific = format!("{:e}", value.abs());
    let (significand, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: Vec<u8> = significand.bytes().filter(u8::is_ascii_digit).collect();
    let exponent: i32 = exponent.parse().unwrap_or(0);
    write_decimal(out, &digits, exponent);
}

/// Appends `d.ddd * 10^exponent`: plain while that is short, scientific else (the rules of Redis's `fpconv_dtoa`).
fn write_decimal(out: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    let count = digits.len() as i32;
    let last = exponent - (count - 1); // power of ten of the last digit
    if last >= 0 && exponent < count + 7 {
        out.extend_from_slice(digits);
        out.resize(out.len() + last as usize, b'0');
    } else if last < 0 && (last > -7 || exponent.abs() < 4) {
        if exponent < 0 {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + (-exponent - 1) as usize, b'0');
            out.extend_from_slice(digits);
        } else {
            let (whole, fraction) = digits.split_at(exponent as usize + 1);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    } else {
        out.push(digits[0]);
        if count > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        write_u64(out, u64::from(exponent.unsigned_abs()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("numbers are ASCII")
    }

    #[test]
    fn integers_are_read_in_canonical_form_only() {
        let valid = [("0", 0), ("-1", -1), ("10", 10), ("9223372036854775807", i64::MAX)];
        for (text, n) in valid.into_iter().chain([("-9223372036854775808", i64::MIN)]) {
            assert_eq!(parse_i64(text.as_bytes()), Some(n), "{text}");
        }
        for text in ["", "-", "+1", "-0", "00", "01", "-01", " 1", "1 ", "1a", "a", "9223372036854775808"] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
        }
        for text in ["-9223372036854775809", "18446744073709551616", "99999999999999999999"] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn doubles_are_read_as_strtod_does() {
        for (text, value) in [
            ("3", 3.0),
            ("+3.5", 3.5),
            ("-0", 0.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("inf", f64::INFINITY),
            ("+INF", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0e-999", 0.0),
            ("4.9e-324", 5e-324),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), Some(value), "{text}");
        }
        for text in
            ["", " 1", "1 ", "nan", "-NaN", "1e", "e5", ".", "1e400", "-1e400", "1e-400", "1_0", "0x10", "\0"]
        {
            assert_eq!(parse_f64(text.as_bytes()), None, "{text}");
        }
    }

    /// The layouts of Redis's `fpconv_dtoa`.
    #[test]
    fn doubles_are_written_short() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-3.5, "-3.5"),
            (0.1, "0.1"),
            (100.0, "100"),
            (1234567.875, "1234567.875"),
            (1e7, "10000000"),
            (-1e18, "-1000000000000000000"),
            (1e19, "1e+19"),
            (1.5e21, "1.5e+21"),
            (123456789012345678901234.0, "123456789012345690000000"),
            (0.000001, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(text(|out| write_double_shortest(out, value)), expected);
        }
    }

    proptest! {
        #[test]
        fn integers_are_written_as_the_standard_library_does(n: i64) {
            prop_assert_eq!(text(|out| write_i64(out, n)), n.to_string());
            prop_assert_eq!(text(|out| write_u64(out, n as u64)), (n as u64).to_string());
            prop_assert_eq!(parse_i64(n.to_string().as_bytes()), Some(n));
        }

        #[test]
        fn doubles_read_back_the_same(bits: u64) {
            let value = f64::from_bits(bits);
            let written = text(|out| write_double_shortest(out, value));
            prop_assert!(value.is_nan() || parse_f64(written.as_bytes()) == Some(value), "{}", written);
        }
    }
}
