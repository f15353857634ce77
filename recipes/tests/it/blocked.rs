//! The mistakes that block an OS thread, as the blocking detector reports them.

use recipes::way::Way;

use crate::blocked_hub::{MISTAKES, report_of};

#[test]
fn the_detector_names_the_green_thread_that_blocks() {
    // The report stream is that of the process, so the hubs take turns.
    for hub in ["epoll", "poll", "select"] {
        greenhub::thread::os::spawn(move || {
            Way::Hub(hub).run(|| {
                for (name, mistake) in MISTAKES {
                    let report = report_of(name, *mistake).expect("a report");
                    assert!(report.contains(name) && report.contains("blocked_hub.rs"), "{report}");
                }
            });
        })
        .join()
        .expect("no panic");
    }
}
