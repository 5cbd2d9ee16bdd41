//! Seconds as people write them, kept to the millisecond.

/// Digits before the point, at most: seconds since 1970 have ten, and milliseconds, which are no seconds,
/// have more.
const DIGITS: usize = 10;

/// Thousandths of a number such as `12`, `0.5` or `3.25`; what is finer than that is cut off.
pub(super) fn thousandths(text: &str) -> Result<u64, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number =
        |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.len() > DIGITS {
        return Err("say a number of at most 10 digits such as 12 or 0.5".to_owned());
    }
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    let number = format!("{whole}{fraction}");
    number.parse().map_err(|e| format!("{e}"))
}
