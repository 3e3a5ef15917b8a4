//! `resource.Quantity`: exact numbers with Kubernetes' suffixes (`700m`, `1536Mi`, `12e6`).
//!
//! This module follows k8s.io/apimachinery/pkg/api/resource: it accepts, rounds, caps and prints the same texts. Nearly all
//! real values are small integers with a suffix. Reading, adding and printing them needs no heap memory. All other values are
//! big integers, as exact as Go's `inf.Dec`.
//!
//! This module differs from Go in four cases. No real metric has them:
//! - A value of 1e1024 or more is rejected. Go reads `1e2000000000`, and writes out all zeros when it adds this value to
//!   another. A member must not be able to cause this.
//! - A text of more than 4096 bytes is rejected. Go reads a fraction of any length.
//! - An exponent outside 32 bits keeps its value. Go keeps only the lowest 32 bits.
//! - A canonical text without a suffix (above `E` or `Ei`) keeps its exponent (`1e21`, `1024Ei`). Older versions of Go's
//!   package print only `1`, which is wrong.

mod parse;
mod print;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use num_bigint::{BigInt, Sign};

/// Maximum length of a text in bytes. It is more than the limit for digits, and more than any real quantity has.
const MAX_TEXT_BYTES: usize = 4096;

/// An exact decimal number. It remembers the format (the family of suffixes) of the text that it was read from.
///
/// Equality and order are by value: `1`, `1000m` and `1e0` are equal. [`Display`](std::fmt::Display) gives the text that
/// Go marshals to JSON. `FromStr` accepts the texts of Go's `ParseQuantity`. The caller applies the JSON rules: quotes may be
/// missing, white space is trimmed, `null` is zero.
#[derive(Clone, Debug)]
pub struct Quantity {
    amount: QuantityValue,
    format: Format,
    /// The text that was read, if Go prints this text although it is not canonical (`+1`, `1.500`).
    text: Option<Box<str>>,
}

/// The family of suffixes for printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `n u m "" k M G T P E`
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`
    BinarySi,
    /// `e-9 … e3 e6 …`
    DecimalExponent,
}

/// Why a text is not a quantity. The first three texts are exactly Go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text has other parts than sign, digits, point and suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The text has no number where Go needs one.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// The value is 1e1024 or more; see the module documentation. Only a broken or malicious sender writes it.
    #[error("quantities must be smaller than 1e1024")]
    TooLarge,
    /// The text is too long. Only a broken or malicious sender writes it.
    #[error("quantities must have at most {MAX_TEXT_BYTES} bytes")]
    TooLong,
}

/// A number in one of Go's two representations.
#[derive(Clone, Debug)]
enum QuantityValue {
    /// Go's `int64Amount`: `mantissa` × 10^`exponent`.
    Small { mantissa: i64, exponent: i32 },
    /// Go's `infDecAmount`, for numbers that do not fit into `Small`.
    Big(Box<Decimal>),
}

/// `unscaled` × 10^`exponent`. The exponent is between -9 (nano, the lowest digit that is kept) and 1023.
#[derive(Clone, Debug)]
struct Decimal {
    unscaled: BigInt,
    exponent: i32,
}

impl Quantity {
    /// Zero, the start value of a sum. The sum takes the format of the first summand.
    pub const ZERO: Self = Self { amount: QuantityValue::ZERO, format: Format::DecimalSi, text: None };

    fn is_zero(&self) -> bool {
        self.amount.is_zero()
    }

    /// Heap memory in bytes; 0 for nearly all real values.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let decimal = match &self.amount {
            QuantityValue::Small { .. } => 0,
            QuantityValue::Big(decimal) => {
                size_of::<Decimal>() + usize::try_from(decimal.unscaled.bits() / 8).unwrap_or(usize::MAX) + 8
            }
        };
        decimal + self.text.as_ref().map_or(0, |text| text.len())
    }

    /// Adds `other` without rounding.
    ///
    /// The value of a sum does not depend on the order of its summands. The format does: as in Go, a sum has the format of the
    /// first summand that is not zero, and a sum that becomes zero takes the format of the next summand. If all summands have
    /// the same format, the text does not depend on the order. Add values of several senders in a fixed order.
    pub fn add(&mut self, other: &Self) {
        self.text = None;
        if self.is_zero() {
            self.format = other.format;
        }
        self.amount.add(&other.amount);
    }

    /// The quantity divided by `count`, rounded up to nano (the finest unit of a quantity). `count` must be above zero.
    #[must_use]
    pub fn divide_rounding_up(&self, count: u32) -> Self {
        let mut part = self.amount.to_decimal();
        part.lower_to(-9);
        let rest = &part.unscaled % count;
        part.unscaled /= count;
        if rest.sign() == Sign::Plus {
            part.unscaled += 1;
        }
        Self { amount: QuantityValue::Big(Box::new(part)), format: self.format, text: None }
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.amount, &other.amount) {
            (
                QuantityValue::Small { mantissa: left, exponent: left_exponent },
                QuantityValue::Small { mantissa: right, exponent: right_exponent },
            ) if left_exponent == right_exponent => left.cmp(right),
            (left, right) => {
                let (mut left, mut right) = (left.to_decimal(), right.to_decimal());
                left.lower_to(right.exponent);
                right.lower_to(left.exponent);
                left.unscaled.cmp(&right.unscaled)
            }
        }
    }
}

impl QuantityValue {
    const ZERO: Self = Self::Small { mantissa: 0, exponent: 0 };

    fn is_zero(&self) -> bool {
        match self {
            Self::Small { mantissa, .. } => *mantissa == 0,
            Self::Big(decimal) => decimal.unscaled.sign() == Sign::NoSign,
        }
    }

    fn add(&mut self, other: &Self) {
        if let (Self::Small { mantissa, exponent }, Self::Small { mantissa: more, exponent: at }) =
            (&*self, other)
            && let Some(sum) = small_sum((*mantissa, *exponent), (*more, *at))
        {
            *self = sum;
            return;
        }
        let mut sum = match std::mem::replace(self, Self::ZERO) {
            Self::Big(decimal) => decimal,
            small @ Self::Small { .. } => Box::new(small.to_decimal()),
        };
        sum.add(other);
        *self = Self::Big(sum);
    }

    fn to_decimal(&self) -> Decimal {
        match self {
            Self::Small { mantissa, exponent } => {
                Decimal { unscaled: BigInt::from(*mantissa), exponent: *exponent }
            }
            Self::Big(decimal) => (**decimal).clone(),
        }
    }
}

impl Decimal {
    fn add(&mut self, other: &QuantityValue) {
        match other {
            QuantityValue::Big(decimal) if decimal.exponent == self.exponent => {
                self.unscaled += &decimal.unscaled;
            }
            _ => {
                let mut other = other.to_decimal();
                other.lower_to(self.exponent);
                self.lower_to(other.exponent);
                self.unscaled += other.unscaled;
            }
        }
    }

    /// Lowers the exponent to `exponent` without changing the value. Does nothing if the exponent is already as low.
    fn lower_to(&mut self, exponent: i32) {
        if exponent < self.exponent {
            self.unscaled *= parse::power_of_ten(self.exponent.abs_diff(exponent));
            self.exponent = exponent;
        }
    }
}

/// The sum of two small amounts (mantissa, exponent); `None` if it does not fit into 64 bits.
fn small_sum(left: (i64, i32), right: (i64, i32)) -> Option<QuantityValue> {
    let (high, low) = if left.1 >= right.1 { (left, right) } else { (right, left) };
    let (mantissa, exponent) = match (high, low) {
        ((0, _), rest) | (rest, (0, _)) => rest,
        (high, low) => {
            let raised = high.0.checked_mul(10_i64.checked_pow(high.1.abs_diff(low.1))?)?;
            (raised.checked_add(low.0)?, low.1)
        }
    };
    Some(QuantityValue::Small { mantissa, exponent })
}
