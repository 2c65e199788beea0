//! The floating-point numbers of INCRBYFLOAT and HINCRBYFLOAT: C's `long double` as x86-64 has it, in software.
//!
//! Redis adds in that type, 64 bits of mantissa, and prints 17 decimals; so 10.5 + 0.1 is 10.6 there, while in `f64` it
//! would be 10.59999999999999964. Clients store what they read, hence the same digits here, on every processor. Source:
//! Intel SDM vol. 1 §4.2.2 (double extended precision); rounding is to nearest, ties to even. Numbers below 2^-16382
//! keep full precision here, which no 17 decimals can show.

/// Bytes of the longest number that is read (Redis's `MAX_LONG_DOUBLE_CHARS`).
const MAX_TEXT: usize = 5 * 1024 - 1;
/// Decimal exponents beyond which a number is too large or too small for the type.
const MAX_DECIMAL: i64 = 4940;
/// Binary exponents of the largest and the smallest number.
const MAX_EXPONENT: i64 = 16383;
const MIN_EXPONENT: i64 = -16446;
/// Decimals that are printed, and the power of ten they make.
const DECIMALS: usize = 17;
const DECIMAL_UNIT: u128 = 10u128.pow(DECIMALS as u32);

/// A number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongDouble {
    /// `mantissa * 2^exponent`; the mantissa's highest bit is set, or it is 0.
    Finite {
        /// Whether it is below 0.
        negative: bool,
        /// See above.
        mantissa: u64,
        /// See above.
        exponent: i64,
    },
    /// Written `inf`.
    Infinite,
}

impl LongDouble {
    /// Zero.
    pub const ZERO: Self = LongDouble::Finite { negative: false, mantissa: 0, exponent: 0 };

    /// Reads a decimal number or `inf`, all of `text`; `None` if it is neither, not a number, or outside the range.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (negative, unsigned) = match text {
            _ if text.len() > MAX_TEXT => return None,
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
            return Some(LongDouble::Infinite);
        }
        let (digits, exponent) = decimal(unsigned)?;
        let Some(first) = digits.iter().position(|digit| *digit != b'0') else {
            return Some(Self::ZERO);
        };
        let magnitude = exponent.saturating_add((digits.len() - first) as i64);
        if magnitude.abs() > MAX_DECIMAL {
            return None;
        }
        let (mut above, mut below) = (Natural::default(), Natural::from(1));
        digits.iter().for_each(|digit| above.multiply_add(10, u64::from(digit - b'0')));
        let scaled = if exponent >= 0 { &mut above } else { &mut below };
        (0..exponent.unsigned_abs()).for_each(|_| scaled.multiply_add(10, 0));
        let (mantissa, exponent) = quotient(above, below);
        Self::finite(negative, mantissa, exponent)
    }

    /// Whether it is a number proper.
    pub fn is_finite(self) -> bool {
        self != LongDouble::Infinite
    }

    /// The sum, rounded; `None` if it is not finite.
    pub fn plus(self, other: Self) -> Option<Self> {
        let (mut large, mut small) = (self.parts()?, other.parts()?);
        if large.1 == 0 || small.1 == 0 {
            return Some(if large.1 == 0 { other } else { self });
        }
        if (large.2, large.1) < (small.2, small.1) {
            std::mem::swap(&mut large, &mut small);
        }
        // Room for a carry above, 63 bits below; what is shifted out further leaves a sticky bit.
        let shift = (large.2 - small.2).min(127) as u32;
        let (high, low) = (u128::from(large.1) << 63, u128::from(small.1) << 63);
        let lost = low & ((1u128 << shift) - 1) != 0;
        let low = low >> shift | u128::from(lost);
        let sum = if large.0 == small.0 { high + low } else { high - low };
        if sum == 0 {
            return Some(Self::ZERO);
        }
        let zeros = sum.leading_zeros();
        let sum = sum << zeros;
        let (mantissa, carried) = rounded((sum >> 64) as u64, (sum as u64).cmp(&(1 << 63)));
        Self::finite(large.0, mantissa, large.2 - 63 + 64 - i64::from(zeros) + carried)
    }

    /// Appends it in fixed notation, rounded to 17 decimals and without trailing zeros.
    pub fn write(self, out: &mut Vec<u8>) {
        let Some((negative, mantissa, exponent)) = self.parts() else {
            return out.extend_from_slice(b"inf");
        };
        let text = if exponent >= 0 {
            let mut whole = Natural::from(mantissa);
            whole.shift_left(exponent as usize);
            whole.into_decimal()
        } else {
            fixed(mantissa, exponent.unsigned_abs())
        };
        if negative && text != "0" {
            out.push(b'-');
        }
        out.extend_from_slice(text.as_bytes());
    }

    fn parts(self) -> Option<(bool, u64, i64)> {
        match self {
            LongDouble::Finite { negative, mantissa, exponent } => Some((negative, mantissa, exponent)),
            LongDouble::Infinite => None,
        }
    }

    fn finite(negative: bool, mantissa: u64, exponent: i64) -> Option<Self> {
        let fits = (MIN_EXPONENT..=MAX_EXPONENT).contains(&(exponent + 63));
        fits.then_some(LongDouble::Finite { negative, mantissa, exponent })
    }
}

/// The digits of an unsigned decimal number and the power of ten of the last one.
fn decimal(text: &[u8]) -> Option<(Vec<u8>, i64)> {
    let (number, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        None => (text, 0),
        Some(at) => {
            let exponent = &text[at + 1..];
            let digits = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            let size = digits
                .iter()
                .fold(0i64, |n, digit| n.saturating_mul(10).saturating_add((digit - b'0').into()));
            (&text[..at], if exponent[0] == b'-' { -size } else { size })
        }
    };
    let mut parts = number.splitn(2, |byte| *byte == b'.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let digits = [whole, fraction].concat();
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| (digits, exponent.saturating_sub(fraction.len() as i64)))
}

/// The nearest `mantissa * 2^exponent` to `above / below`, neither of them 0, by long division.
fn quotient(mut above: Natural, mut below: Natural) -> (u64, i64) {
    let mut exponent = above.bits() as i64 - below.bits() as i64;
    let aligned = if exponent >= 0 { &mut below } else { &mut above };
    aligned.shift_left(exponent.unsigned_abs() as usize);
    if above < below {
        above.shift_left(1);
        exponent -= 1;
    }
    let mut mantissa = 0;
    for _ in 0..u64::BITS {
        let bit = above >= below;
        if bit {
            above.subtract(&below);
        }
        mantissa = mantissa << 1 | u64::from(bit);
        above.shift_left(1);
    }
    // What is left was doubled, so half a unit of the last place is `below`.
    let (mantissa, carried) = rounded(mantissa, above.cmp(&below));
    (mantissa, exponent - 63 + carried)
}

/// A mantissa rounded by how its rest compares with a half, ties to even; 1 if that carried into a further bit.
fn rounded(mantissa: u64, rest: std::cmp::Ordering) -> (u64, i64) {
    if rest.is_lt() || rest.is_eq() && mantissa & 1 == 0 {
        return (mantissa, 0);
    }
    mantissa.checked_add(1).map_or((1 << 63, 1), |mantissa| (mantissa, 0))
}

/// `mantissa / 2^shift` with the decimals that are not 0.
fn fixed(mantissa: u64, shift: u64) -> String {
    let scaled = u128::from(mantissa) * DECIMAL_UNIT; // below 2^121
    let units = if shift < 128 {
        let (units, rest) = (scaled >> shift, scaled & ((1 << shift) - 1));
        let half = 1u128 << (shift - 1);
        units + u128::from(rest > half || rest == half && units & 1 == 1)
    } else {
        0
    };
    let text = format!("{}.{:0DECIMALS$}", units / DECIMAL_UNIT, units % DECIMAL_UNIT);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A natural number of any size: 64 bits an element, the lowest first, none of the highest 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Natural(Vec<u64>);

impl From<u64> for Natural {
    fn from(n: u64) -> Self {
        Natural(Vec::from_iter((n != 0).then_some(n)))
    }
}

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Natural {
    fn bits(&self) -> usize {
        self.0.last().map_or(0, |last| self.0.len() * 64 - last.leading_zeros() as usize)
    }

    fn multiply_add(&mut self, by: u64, plus: u64) {
        let mut carry = u128::from(plus);
        for limb in &mut self.0 {
            carry += u128::from(*limb) * u128::from(by);
            *limb = carry as u64;
            carry >>= 64;
        }
        if carry != 0 {
            self.0.push(carry as u64);
        }
    }

    fn shift_left(&mut self, bits: usize) {
        if self.0.is_empty() {
            return;
        }
        self.multiply_add(1 << (bits % 64), 0);
        self.0.splice(0..0, std::iter::repeat_n(0, bits / 64));
    }

    /// Takes away what is not larger.
    fn subtract(&mut self, other: &Self) {
        let mut borrowed = false;
        for (at, limb) in self.0.iter_mut().enumerate() {
            let (less, first) = limb.overflowing_sub(other.0.get(at).copied().unwrap_or(0));
            let (less, second) = less.overflowing_sub(u64::from(borrowed));
            (*limb, borrowed) = (less, first || second);
        }
        self.trim();
    }

    fn into_decimal(mut self) -> String {
        const CHUNK: u64 = 10u64.pow(18);
        let mut chunks = Vec::new();
        while !self.0.is_empty() {
            let rest = self.0.iter_mut().rev().fold(0, |rest, limb| {
                let part = u128::from(rest) << 64 | u128::from(*limb);
                *limb = (part / u128::from(CHUNK)) as u64;
                (part % u128::from(CHUNK)) as u64
            });
            chunks.push(rest);
            self.trim();
        }
        let first = chunks.pop().unwrap_or(0).to_string();
        chunks.iter().rev().fold(first, |text, chunk| format!("{text}{chunk:018}"))
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(one: &str, other: &str) -> String {
        let parse = |text: &str| LongDouble::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        let mut out = Vec::new();
        parse(one).plus(parse(other)).expect("a finite sum").write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn sums_are_those_of_redis() {
        for (one, other, expected) in [
            ("10.5", "0.1", "10.6"),
            ("0.1", "0.2", "0.3"),
            ("0.3", "1234.5", "1234.80000000000000004"),
            ("1234.8", "1e15", "1000000000001234.79998779296875"),
            ("10.6", "-5.0e3", "-4989.39999999999999991"),
            ("3", "1.000000000000000005", "4.00000000000000001"),
            ("1e20", "1232", "100000000000000001232"),
            ("1", "-1", "0"),
            ("-1", "1e-30", "-1"),
            ("0", "-1e-30", "0"),
            ("0", "-0.0", "0"),
            (".5", "5.", "5.5"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("1", "1e-4930", "1"),
        ] {
            assert_eq!(sum(one, other), expected, "{one} + {other}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in
            ["", " 1", "1 ", "abc", "nan", "1e", "1e+", ".", "-", "1.2.3", "0x10", "1e5000", "1e-5000", "--1"]
        {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(LongDouble::parse(b"-INF"), Some(LongDouble::Infinite));
        assert_eq!(LongDouble::Infinite.plus(LongDouble::ZERO), None);
        let most = LongDouble::parse(b"1.1e4932").unwrap();
        assert_eq!(most.plus(most), None, "too large");
        assert_eq!(LongDouble::parse("9".repeat(MAX_TEXT + 1).as_bytes()), None, "too long");
        assert_eq!(LongDouble::parse(b"0e999999999999999999999"), Some(LongDouble::ZERO));
    }

    proptest! {
        #[test]
        fn integers_add_exactly(one in -(1i64 << 61)..(1 << 61), other in -(1i64 << 61)..(1 << 61)) {
            prop_assert_eq!(sum(&one.to_string(), &other.to_string()), (one + other).to_string());
        }

        #[test]
        fn doubles_pass_unchanged(value in -1e15f64..1e15) {
            let exact = format!("{value:.60}");
            let mut out = Vec::new();
            LongDouble::parse(exact.as_bytes()).unwrap().write(&mut out);
            let printed: f64 = std::str::from_utf8(&out).unwrap().parse().unwrap();
            prop_assert!((printed - value).abs() <= 1e-17f64.max(value.abs() * f64::EPSILON));
        }

        #[test]
        fn nothing_panics(one in "[-+]?[0-9]{0,30}[.]?[0-9]{0,30}(e-?[0-9]{1,5})?", other in ".{0,9}") {
            let parsed = LongDouble::parse(one.as_bytes()).zip(LongDouble::parse(other.as_bytes()));
            if let Some(sum) = parsed.and_then(|(one, other)| one.plus(other)) {
                sum.write(&mut Vec::new());
            }
        }
    }
}
