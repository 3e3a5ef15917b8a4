//! `resource.Quantity`: exact numbers with Kubernetes' suffixes (`700m`, `1536Mi`, `12e6`).
//!
//! Follows k8s.io/apimachinery/pkg/api/resource: what is accepted, how it is rounded and capped, which text
//! comes out. Nearly all real values are small integers with a suffix: they are read, added and printed
//! without touching the heap. Anything else takes big integers and stays as exact as Go's `inf.Dec`.
//!
//! Four things are done otherwise, none of which a real metric meets:
//! - a value of 1e1024 or more is refused. Go reads `1e2000000000` and then writes out its zeros as soon as
//!   it is added to something; a member must not be able to make us do that;
//! - a text of more than 4096 bytes is refused: Go reads a fraction of any length;
//! - an exponent outside 32 bits is taken for what it says, where Go keeps its lowest 32 bits;
//! - a canonical text that has no suffix left (above `E` or `Ei`) keeps its exponent (`1e21`, `1024Ei`),
//!   where older versions of Go's package print a bare, wrong `1`.

mod parse;
mod print;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use num_bigint::{BigInt, Sign};

/// Bytes of a text that are still read: more than the digits that are, and than any real quantity has.
const LONGEST: usize = 4096;

/// An exact decimal number that remembers which family of suffixes it was written with.
///
/// Equality and order are by value: `1`, `1000m` and `1e0` are equal. [`Display`](std::fmt::Display) gives the text that
/// Go marshals to JSON. `FromStr` reads what Go's `ParseQuantity` reads; the JSON rules around it (quotes may
/// be missing, white space is trimmed, `null` is zero) are the caller's.
#[derive(Clone, Debug)]
pub struct Quantity {
    amount: QuantityValue,
    format: Format,
    /// The text it was read from, where Go repeats that text although it is not canonical (`+1`, `1.500`).
    text: Option<Box<str>>,
}

/// The family of suffixes that a quantity is printed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `n u m "" k M G T P E`
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`
    BinarySi,
    /// `e-9 … e3 e6 …`
    DecimalExponent,
}

/// Why a text is no quantity. The first three are Go's, to the letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Something other than sign, digits, point and suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// A suffix without a number, where Go looks for one.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// No known suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// A value that only a broken or hostile sender writes; see the module's documentation.
    #[error("quantities must be smaller than 1e1024")]
    TooLarge,
    /// A text that only a broken or hostile sender writes.
    #[error("quantities must have at most {LONGEST} characters")]
    TooLong,
}

/// A number as Go holds it.
#[derive(Clone, Debug)]
enum QuantityValue {
    /// Go's `int64Amount`: `mantissa` × 10^`exponent`.
    Small { mantissa: i64, exponent: i32 },
    /// Go's `infDecAmount`, for what does not fit.
    Big(Box<Decimal>),
}

/// `unscaled` × 10^`exponent`. The exponent lies between -9 (nothing is kept below nano) and 1023.
#[derive(Clone, Debug)]
struct Decimal {
    unscaled: BigInt,
    exponent: i32,
}

impl Quantity {
    /// Nothing, to start a sum from: the first summand that is added gives it its format.
    pub const ZERO: Self = Self { amount: QuantityValue::ZERO, format: Format::DecimalSi, text: None };

    fn is_zero(&self) -> bool {
        self.amount.is_zero()
    }

    /// How many bytes of memory it takes beside its own size: none for nearly all real values.
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

    /// Adds `other`, exactly.
    ///
    /// The value of a sum does not depend on the order of its summands. The format is that of the first
    /// summand that is not zero (a running sum of zero takes the next one's), as in Go, so the text does not
    /// depend on the order either as long as all summands have one format. Whoever adds values from several
    /// senders adds them in a fixed order.
    pub fn add(&mut self, other: &Self) {
        self.text = None;
        if self.is_zero() {
            self.format = other.format;
        }
        self.amount.add(&other.amount);
    }

    /// The `count`th part, rounded up to nano, which is as fine as a quantity is. `count` is above zero.
    #[must_use]
    pub fn divided_by(&self, count: u32) -> Self {
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

    /// Writes the same value with `exponent`, if that is lower than its own.
    fn lower_to(&mut self, exponent: i32) {
        if exponent < self.exponent {
            self.unscaled *= parse::power_of_ten(self.exponent.abs_diff(exponent));
            self.exponent = exponent;
        }
    }
}

/// The sum of two small amounts (mantissa, exponent), unless it leaves 64 bits.
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
