//! Times in columns: milliseconds since 1970 in UTC, so that they sort and compare as integers.

use time::OffsetDateTime;

/// Returns the column value of a time.
pub fn to_column(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

/// Reads a column value; what no calendar holds becomes 1970.
pub fn from_column(milliseconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_a_column_to_the_millisecond() {
        let time = time::macros::datetime!(2026-03-01 12:30:15.123 UTC);
        assert_eq!(from_column(to_column(time)), time);
        assert_eq!(from_column(i64::MAX), OffsetDateTime::UNIX_EPOCH);
    }
}
