//! Prints a quantity, like Go's `CanonicalizeBytes`. If Go prints the text that was read, this module does the same.

use std::fmt::{self, Display, Formatter};

use num_bigint::BigInt;

use super::parse::power_of_ten;
use super::{Decimal, Format, Quantity, QuantityValue};

const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Display for Quantity {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            return f.write_str(text);
        }
        if self.is_zero() {
            return f.write_str("0");
        }
        match &self.amount {
            QuantityValue::Small { mantissa, exponent } => self.print_small(f, *mantissa, *exponent),
            QuantityValue::Big(decimal) => self.print_big(f, decimal),
        }
    }
}

impl Quantity {
    fn print_small(&self, f: &mut Formatter<'_>, mantissa: i64, exponent: i32) -> fmt::Result {
        if self.format == Format::BinarySi {
            if exponent > 0 {
                return self.print_big(f, &self.amount.to_decimal());
            }
            // At most nine digits are after the point.
            let divisor = 10_i64.pow(exponent.unsigned_abs());
            let whole = mantissa / divisor;
            if mantissa % divisor == 0 && whole.unsigned_abs() >= 1024 {
                let (shift, suffix) = binary_suffix(u64::from(whole.trailing_zeros()));
                return write!(f, "{}{suffix}", whole >> shift);
            }
        }
        // Find the largest exponent that is a multiple of three and gives a whole number.
        let padding = exponent.rem_euclid(3);
        let mut number = i128::from(mantissa) * 10_i128.pow(padding.unsigned_abs());
        let mut exponent = exponent - padding;
        while number % 1000 == 0 {
            number /= 1000;
            exponent += 3;
        }
        self.print_decimal(f, number, i64::from(exponent))
    }

    fn print_big(&self, f: &mut Formatter<'_>, decimal: &Decimal) -> fmt::Result {
        if self.format == Format::BinarySi
            && let Some(whole) = decimal.whole()
            && *whole.magnitude() >= 1024_u32.into()
        {
            let (shift, suffix) = binary_suffix(whole.trailing_zeros().unwrap_or(0));
            return write!(f, "{}{suffix}", whole >> shift);
        }
        let digits = decimal.unscaled.to_string();
        let significant = digits.trim_end_matches('0');
        let zeros = digits.len() - significant.len();
        // Lower the exponent to a multiple of three. This adds at most two zeros.
        let exponent = i64::from(decimal.exponent).saturating_add_unsigned(zeros as u64);
        let padding = exponent.rem_euclid(3);
        let padding_zeros = &"00"[..usize::try_from(padding).unwrap_or(0)];
        self.print_decimal(f, format_args!("{significant}{padding_zeros}"), exponent - padding)
    }

    fn print_decimal(&self, f: &mut Formatter<'_>, number: impl Display, exponent: i64) -> fmt::Result {
        let suffix = match exponent {
            0 => "",
            _ if self.format == Format::DecimalExponent => return write!(f, "{number}e{exponent}"),
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => return write!(f, "{number}e{exponent}"),
        };
        write!(f, "{number}{suffix}")
    }
}

impl Decimal {
    /// The value, if it is a whole number.
    fn whole(&self) -> Option<BigInt> {
        let factor = power_of_ten(self.exponent.unsigned_abs());
        if self.exponent >= 0 {
            return Some(&self.unscaled * factor);
        }
        let whole = &self.unscaled / &factor;
        (&whole * factor == self.unscaled).then_some(whole)
    }
}

/// The right shift for a number with this many trailing zero bits, and the suffix for the shift.
fn binary_suffix(trailing_zeros: u64) -> (usize, &'static str) {
    let steps = usize::try_from(trailing_zeros / 10).unwrap_or(usize::MAX).min(BINARY_SUFFIXES.len() - 1);
    (steps * 10, BINARY_SUFFIXES[steps])
}
