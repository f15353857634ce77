//! The conformance suite, over the system calls where they exist, elsewhere over an emulation.

#[cfg(any(
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "openbsd",
    target_os = "dragonfly"
))]
hub_testkit::conformance!(hub_kqueue::KqueueHub::new);

#[cfg(any(target_os = "linux", target_os = "android"))]
mod emulation;

#[cfg(any(target_os = "linux", target_os = "android"))]
hub_testkit::conformance!(emulated: || hub_kqueue::KqueueHub::with(Box::new(emulation::Emulation::default())));
