// Included by the documentation's examples: runs them on a hub.
#[allow(dead_code)]
pub(crate) fn run<R>(example: impl FnOnce() -> R) -> R {
    hub_core::use_hub_with(hub_poll::PollHub::new).expect("a fresh thread takes any hub");
    example()
}
