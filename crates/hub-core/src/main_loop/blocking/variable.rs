//! The variable of the environment that switches the blocking detector on.

use std::env;
use std::sync::OnceLock;
use std::time::Duration;

use crate::report;

const VARIABLE: &str = "GREENHUB_BLOCKING";

/// Returns the resolution that `GREENHUB_BLOCKING` sets, in seconds. Reports a value that is none, once.
///
/// The variable is read once in the process.
pub(in super::super) fn resolution() -> Option<Duration> {
    static ASKED: OnceLock<Option<Duration>> = OnceLock::new();
    if let Some(asked) = ASKED.get() {
        return *asked;
    }
    let value = env::var_os(VARIABLE)?;
    let parsed = parse(&value.to_string_lossy());
    // The report stream is foreign code, which may build another hub. So the value is stored before the report.
    let is_first = ASKED.set(parsed.clone().unwrap_or_default()).is_ok();
    if is_first && let Err(error) = &parsed {
        report::warn(error.clone());
    }
    parsed.unwrap_or_default()
}

/// Reports that the detector cannot be started.
pub(in super::super) fn report_failure(error: &std::io::Error) {
    report::warn(format!("{VARIABLE}: cannot start the blocking detector: {error}"));
}

fn parse(value: &str) -> Result<Option<Duration>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    match value.parse().map(Duration::try_from_secs_f64) {
        Ok(Ok(time)) if !time.is_zero() => Ok(Some(time)),
        Ok(Ok(_)) if value.parse() == Ok(0.0) => Ok(None),
        _ => Err(format!(
            "{VARIABLE}={value:?}: the resolution of the blocking detector is a number of seconds, such as 0.5; the \
             detector stays off"
        )),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_a_resolution_and_zero_is_none() {
        assert_eq!(parse("1"), Ok(Some(Duration::from_secs(1))));
        assert_eq!(parse("0.25"), Ok(Some(Duration::from_millis(250))));
        assert_eq!((parse(""), parse("0"), parse("0.0")), (Ok(None), Ok(None), Ok(None)));
    }

    #[test]
    fn a_value_that_is_no_time_is_an_error_that_names_it() {
        for wrong in ["on", "1s", " 1", "-1", "-0.5", "inf", "NaN", "1e400", "1e30", "1e-20", "0,5"] {
            let error = parse(wrong).unwrap_err();
            assert!(error.starts_with(&format!("GREENHUB_BLOCKING={wrong:?}: ")), "{error}");
        }
    }
}
