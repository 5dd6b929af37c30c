//! Decimals as text: the one spelling that no database and no cursor rounds.

/// Whether the text is a decimal as a database prints it: digits, perhaps a sign and a point, or one of Postgres'
/// three special values. No exponent, no blanks: every database must read it alike.
pub(crate) fn is_decimal(text: &str) -> bool {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return true;
    }
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    match unsigned.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(unsigned),
    }
}

/// The shortest decimal that is read as the same float.
#[cfg(feature = "sqlite")]
pub(crate) fn of_f64(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    value.to_string()
}

/// Postgres' binary form of a `numeric`: the number of base 10000 digits, the first one's weight, sign, digits behind
/// the point (all 2 bytes), then the digits.
#[cfg(feature = "postgres")]
pub(crate) fn of_numeric(bytes: &[u8]) -> Result<String, sqlx::error::BoxDynError> {
    use std::fmt::Write;

    let mut words = bytes
        .chunks_exact(2)
        .filter_map(|pair| pair.try_into().ok())
        .map(u16::from_be_bytes);
    let mut word = || words.next().ok_or("a numeric that is cut short");
    let (count, weight, sign, scale) = (word()?, word()?.cast_signed(), word()?, word()?);
    let negative = match sign {
        0x0000 => false,
        0x4000 => true,
        0xc000 => return Ok("NaN".to_owned()),
        0xd000 => return Ok("Infinity".to_owned()),
        0xf000 => return Ok("-Infinity".to_owned()),
        _ => return Err("a numeric of an unknown sign".into()),
    };
    let digits: Vec<u16> = words.collect();
    if digits.len() != usize::from(count) {
        return Err("a numeric that is cut short".into());
    }
    // Leading and trailing zeros are not sent: a digit is looked up by its weight.
    let digit = |at: i32| {
        usize::try_from(i32::from(weight) - at)
            .ok()
            .and_then(|i| digits.get(i))
            .copied()
            .unwrap_or_default()
    };
    let mut out = String::with_capacity(digits.len() * 4 + 4);
    if negative {
        out.push('-');
    }
    // Writing to a String cannot fail.
    let _ = write!(out, "{}", digit(i32::from(weight).max(0)));
    for at in (0..i32::from(weight)).rev() {
        let _ = write!(out, "{:04}", digit(at));
    }
    if scale > 0 {
        out.push('.');
        let end = out.len() + usize::from(scale);
        for at in 1..=i32::from(scale.div_ceil(4)) {
            let _ = write!(out, "{:04}", digit(-at));
        }
        out.truncate(end);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_digits_are_decimals() {
        for good in ["0", "-0", "007", "1.10", "-12.50", "NaN", "-Infinity"] {
            assert!(is_decimal(good), "{good}");
        }
        for bad in [
            "", "-", ".", "1.", ".5", "+1", "1e5", "1,0", " 1", "1 ", "0x1", "inf", "nan", "--1",
            "1.2.3", "١",
        ] {
            assert!(!is_decimal(bad), "{bad}");
        }
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn floats_come_back_bit_by_bit() {
        for float in [
            0.1,
            -0.0,
            1e300,
            f64::MIN_POSITIVE,
            5e-324,
            f64::MAX,
            9_223_372_036_854_775_808.0,
            f64::NEG_INFINITY,
        ] {
            let text = of_f64(float);
            assert!(is_decimal(&text), "{text}");
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), float.to_bits());
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn numerics_are_read_from_their_binary_form() {
        // count, weight, sign, scale, digits
        for (words, text) in [
            (&[0, 0, 0, 0][..], "0"),
            (&[0, 0, 0, 2], "0.00"),
            (&[2, 0, 0x4000, 2, 12, 5000], "-12.50"),
            (&[2, 1, 0, 0, 1, 2], "10002"),
            (&[1, 2, 0, 0, 7], "700000000"),
            (&[1, 2, 0, 1, 7], "700000000.0"),
            (&[1, 0xffff, 0, 4, 1], "0.0001"),
            (&[1, 0xfffe, 0, 8, 1], "0.00000001"),
            (&[1, 0xfffe, 0, 6, 100], "0.000001"),
            (&[0, 0, 0xc000, 0], "NaN"),
            (&[0, 0, 0xf000, 0x20], "-Infinity"),
        ] {
            let bytes: Vec<u8> = words.iter().copied().flat_map(u16::to_be_bytes).collect();
            assert_eq!(of_numeric(&bytes).unwrap(), text);
            assert!(is_decimal(text));
        }
        for bad in [
            &[][..],
            &[0, 1],
            &[0, 1, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0x12, 0, 0, 0],
        ] {
            of_numeric(bad).unwrap_err();
        }
    }
}
