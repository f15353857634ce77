// Included by the documentation's examples: runs them on a hub of the tests.
mod poll_hub {
    include!("poll_hub.rs");
}

#[allow(dead_code)]
pub(crate) fn run<R>(example: impl FnOnce() -> R) -> R {
    hub_core::use_hub_with(poll_hub::PollHub::new).expect("a fresh thread takes any hub");
    example()
}
