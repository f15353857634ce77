//! The examples of std's `time`.

use super::examples;

examples! {
    fn module() {
        use greenhub::time::Duration;

        let five_seconds = Duration::new(5, 0);
        assert_eq!(five_seconds, Duration::from_millis(5_000));
        assert!(Duration::from_secs_f32(2.7) < Duration::from_secs(3));
    }

    fn instant() {
        use greenhub::thread::sleep;
        use greenhub::time::{Duration, Instant};

        let now = Instant::now();
        sleep(Duration::new(0, 1_000_000));
        assert!(now.elapsed() >= Duration::from_millis(1));
    }

    fn instant_duration_since() {
        use greenhub::thread::sleep;
        use greenhub::time::{Duration, Instant};

        let now = Instant::now();
        sleep(Duration::from_millis(1));
        let new_now = Instant::now();
        assert!(new_now.checked_duration_since(now).is_some());
        assert_eq!(now.saturating_duration_since(new_now), Duration::ZERO);
        assert!(new_now.duration_since(now) >= Duration::from_millis(1));
    }

    fn system_time() {
        use greenhub::thread::sleep;
        use greenhub::time::{Duration, SystemTime};

        let now = SystemTime::now();
        sleep(Duration::from_millis(1));
        // The clock of the system may be set meanwhile.
        let _elapsed = now.elapsed();
    }

    fn system_time_error() {
        use greenhub::time::{Duration, SystemTime, SystemTimeError};

        let sys_time = SystemTime::now();
        let later = sys_time + Duration::from_secs(1);
        let error: SystemTimeError = sys_time.duration_since(later).unwrap_err();
        assert_eq!(error.duration(), Duration::from_secs(1));
    }

    fn unix_epoch() {
        use greenhub::time::{SystemTime, UNIX_EPOCH};

        assert!(SystemTime::now().duration_since(UNIX_EPOCH).is_ok());
    }
}
