//! Parses a quantity, like Go's `ParseQuantity` and `parseQuantityString`.

use std::str::FromStr;

use num_bigint::{BigInt, Sign};

use super::{Decimal, Format, MAX_TEXT_BYTES, Quantity, QuantityError, QuantityValue};

/// Maximum number of digits before the point.
const MAX_WHOLE_DIGITS: i64 = 1024;
/// Maximum number of digits that Go stores in a 64-bit mantissa.
const MAX_SMALL_DIGITS: usize = 18;
/// The exponent of the lowest digit that is kept.
const NANO: i32 = -9;

/// The parts of a text.
struct QuantityParts<'a> {
    negative: bool,
    has_leading_zeros: bool,
    /// Digits before the point, without leading zeros.
    whole: &'a [u8],
    fraction: &'a [u8],
    suffix: &'a [u8],
}

/// The factor of a suffix.
#[derive(Clone, Copy)]
enum SuffixUnit {
    /// 10^exponent
    Ten(i64, Format),
    /// 2^exponent
    Two(u32),
}

/// A quantity that fits into 64 bits.
struct SmallQuantity {
    quantity: Quantity,
    /// Whether Go prints the text that was read.
    keeps_text: bool,
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(QuantityError::TooLong);
        }
        let parts = QuantityParts::split(text.as_bytes())?;
        let unit = SuffixUnit::of(parts.suffix).ok_or(QuantityError::Suffix)?;
        if let Some(small) = parts.small(unit)? {
            let keep_text = small.keeps_text && !parts.are_canonical(text, small.quantity.format);
            return Ok(Self { text: keep_text.then(|| text.into()), ..small.quantity });
        }
        if !parts.has_leading_zeros && parts.whole.is_empty() && parts.fraction.is_empty() {
            return Err(QuantityError::Number);
        }
        let (absolute, format) = match unit {
            SuffixUnit::Ten(exponent, format) => (parts.decimal(exponent)?, format),
            SuffixUnit::Two(exponent) => parts.binary(exponent)?,
        };
        let amount = match absolute {
            zero if zero.unscaled.sign() == Sign::NoSign => QuantityValue::ZERO,
            Decimal { unscaled, exponent } => {
                let unscaled = if parts.negative { -unscaled } else { unscaled };
                QuantityValue::Big(Box::new(Decimal { unscaled, exponent }))
            }
        };
        Ok(Self { amount, format, text: None })
    }
}

impl<'a> QuantityParts<'a> {
    fn split(text: &'a [u8]) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let (zeros, rest) = split_while(rest, |byte| byte == b'0');
        let (whole, rest) = split_while(rest, |byte| byte.is_ascii_digit());
        let (fraction, suffix) = match rest {
            [b'.', rest @ ..] => split_while(rest, |byte| byte.is_ascii_digit()),
            _ => (&rest[..0], rest),
        };
        let (_, rest) = split_while(suffix, |byte| b"eEinumkKMGTP".contains(&byte));
        let rest = rest.strip_prefix(b"-").or_else(|| rest.strip_prefix(b"+")).unwrap_or(rest);
        match split_while(rest, |byte| byte.is_ascii_digit()) {
            (_, []) => Ok(Self { negative, has_leading_zeros: !zeros.is_empty(), whole, fraction, suffix }),
            _ => Err(QuantityError::Format),
        }
    }

    /// The value, if Go stores it in 64 bits.
    fn small(&self, unit: SuffixUnit) -> Result<Option<SmallQuantity>, QuantityError> {
        let digits = self.whole.len().max(1) + self.fraction.len();
        let (mantissa, exponent, format, keeps_text) = match unit {
            SuffixUnit::Ten(exponent, format) => {
                let exponent = exponent.saturating_sub_unsigned(self.fraction.len() as u64);
                if digits > MAX_SMALL_DIGITS || exponent < i64::from(NANO) {
                    return Ok(None);
                }
                let mantissa = self.mantissa();
                // Go prints the text that was read if it considers it canonical. Go does not check sign, leading zeros and
                // point.
                let keeps_text = exponent % 3 == 0 && mantissa % 1000 != 0 && !self.whole.is_empty();
                (mantissa, small_exponent(mantissa, exponent)?, format, keeps_text)
            }
            SuffixUnit::Two(exponent) => {
                // Go estimates what fits into 64 bits: three digits for ten bits.
                if !self.fraction.is_empty() || digits + exponent as usize * 3 / 10 > 14 {
                    return Ok(None);
                }
                let mantissa = self.mantissa();
                (mantissa << exponent, 0, Format::BinarySi, mantissa % 8 != 0)
            }
        };
        let mantissa = if self.negative { -mantissa } else { mantissa };
        let quantity = Quantity { amount: QuantityValue::Small { mantissa, exponent }, format, text: None };
        Ok(Some(SmallQuantity { quantity, keeps_text }))
    }

    /// Whether printing gives the same text, so the text need not be stored.
    fn are_canonical(&self, text: &str, format: Format) -> bool {
        let bare = usize::from(self.negative) + self.whole.len() + self.suffix.len();
        format != Format::DecimalExponent && text.len() == bare
    }

    /// The digits as a number. Callers must check before that they fit into 64 bits.
    fn mantissa(&self) -> i64 {
        self.digits().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'))
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.iter().chain(self.fraction).copied()
    }

    /// The absolute value in nano, rounded up.
    fn decimal(&self, exponent: i64) -> Result<Decimal, QuantityError> {
        let digits: Vec<u8> = self.digits().skip_while(|digit| *digit == b'0').collect();
        if digits.is_empty() {
            return Ok(Decimal { unscaled: BigInt::ZERO, exponent: NANO });
        }
        let lowest = exponent.saturating_sub_unsigned(self.fraction.len() as u64);
        if lowest.saturating_add_unsigned(digits.len() as u64) > MAX_WHOLE_DIGITS {
            return Err(QuantityError::TooLarge);
        }
        let missing = lowest - i64::from(NANO);
        let unscaled = if let Ok(missing) = u32::try_from(missing) {
            number(&digits) * power_of_ten(missing)
        } else {
            let dropped = usize::try_from(missing.unsigned_abs()).unwrap_or(usize::MAX);
            let (kept, dropped) = digits.split_at(digits.len().saturating_sub(dropped));
            number(kept) + u8::from(dropped.iter().any(|digit| *digit != b'0'))
        };
        Ok(Decimal { unscaled, exponent: NANO })
    }

    /// The absolute value in nano, rounded up and capped at `i64::MAX` units, and its format.
    fn binary(&self, exponent: u32) -> Result<(Decimal, Format), QuantityError> {
        let cap = Decimal { unscaled: BigInt::from(i64::MAX), exponent: 0 };
        if self.whole.len() > 19 {
            return Ok((cap, Format::BinarySi));
        }
        // Multiplied by 2^exponent and in nano, the first exponent + 9 digits of the fraction are a multiple of
        // 5^-exponent. All later digits together are less than 5^-exponent, so they can only change the rounding.
        let (kept, dropped) = self.fraction.split_at(self.fraction.len().min(exponent as usize + 9));
        let digits = [self.whole, kept].concat();
        let divisor = power_of_ten(u32::try_from(kept.len()).map_err(|_| QuantityError::Number)?);
        let scaled = (number(&digits) << exponent) * power_of_ten(NANO.unsigned_abs());
        let inexact =
            (&scaled % &divisor).sign() != Sign::NoSign || dropped.iter().any(|digit| *digit != b'0');
        let unscaled = scaled / divisor + u8::from(inexact);

        let one = power_of_ten(NANO.unsigned_abs());
        if unscaled > &cap.unscaled * &one {
            return Ok((cap, Format::BinarySi));
        }
        let below_one = unscaled.sign() != Sign::NoSign && unscaled < one;
        let format = if below_one { Format::DecimalSi } else { Format::BinarySi };
        Ok((Decimal { unscaled, exponent: NANO }, format))
    }
}

impl SuffixUnit {
    fn of(suffix: &[u8]) -> Option<Self> {
        let exponent = match suffix {
            b"n" => -9,
            b"u" => -6,
            b"m" => -3,
            b"" => 0,
            b"k" => 3,
            b"M" => 6,
            b"G" => 9,
            b"T" => 12,
            b"P" => 15,
            b"E" => 18,
            b"Ki" => return Some(Self::Two(10)),
            b"Mi" => return Some(Self::Two(20)),
            b"Gi" => return Some(Self::Two(30)),
            b"Ti" => return Some(Self::Two(40)),
            b"Pi" => return Some(Self::Two(50)),
            b"Ei" => return Some(Self::Two(60)),
            [b'e' | b'E', exponent @ ..] => {
                let exponent = std::str::from_utf8(exponent).ok()?.parse().ok()?;
                return Some(Self::Ten(exponent, Format::DecimalExponent));
            }
            _ => return None,
        };
        Some(Self::Ten(exponent, Format::DecimalSi))
    }
}

fn small_exponent(mantissa: i64, exponent: i64) -> Result<i32, QuantityError> {
    let Some(log) = mantissa.checked_ilog10() else {
        return Ok(0); // Zero needs no exponent, even if the text has a large one.
    };
    match i32::try_from(exponent) {
        Ok(small) if i64::from(log) + exponent < MAX_WHOLE_DIGITS => Ok(small),
        _ => Err(QuantityError::TooLarge),
    }
}

/// ASCII digits as a number. No digits are zero.
fn number(digits: &[u8]) -> BigInt {
    BigInt::parse_bytes(digits, 10).unwrap_or_default()
}

fn split_while(bytes: &[u8], accept: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !accept(*byte)).unwrap_or(bytes.len());
    bytes.split_at(end)
}

/// 10^`exponent`. The exponent must be in the range of a quantity.
pub(super) fn power_of_ten(exponent: u32) -> BigInt {
    BigInt::from(10).pow(exponent)
}
