// What hub-libevent uses of <event2/event.h>, libevent 2.1 and later, under the names and types that bindgen gives.
// The crate libevent-sys includes this file if the environment says so, see README.md.

use core::ffi::{c_char, c_int, c_short, c_void};

pub const EV_READ: u32 = 0x02;
pub const EV_WRITE: u32 = 0x04;
pub const EV_PERSIST: u32 = 0x10;
pub const EV_ET: u32 = 0x20;

pub const EVLOOP_ONCE: u32 = 0x01;
pub const EVLOOP_NONBLOCK: u32 = 0x02;
pub const EVLOOP_NO_EXIT_ON_EMPTY: u32 = 0x04;

pub const EVENT_LOG_WARN: u32 = 2;

pub const event_method_feature_EV_FEATURE_ET: u32 = 0x01;
pub const event_method_feature_EV_FEATURE_O1: u32 = 0x02;

pub const event_base_config_flag_EVENT_BASE_FLAG_NOLOCK: u32 = 0x01;
pub const event_base_config_flag_EVENT_BASE_FLAG_IGNORE_ENV: u32 = 0x02;
pub const event_base_config_flag_EVENT_BASE_FLAG_PRECISE_TIMER: u32 = 0x20;

#[repr(C)]
pub struct event {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct event_base {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct event_config {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct timeval {
    pub tv_sec: core::ffi::c_long,
    #[cfg(not(target_vendor = "apple"))]
    pub tv_usec: core::ffi::c_long,
    #[cfg(target_vendor = "apple")]
    pub tv_usec: i32,
}

pub type event_callback_fn = Option<unsafe extern "C" fn(c_int, c_short, *mut c_void)>;
pub type event_log_cb = Option<unsafe extern "C" fn(c_int, *const c_char)>;

unsafe extern "C" {
    pub fn event_get_version() -> *const c_char;
    pub fn event_set_log_callback(callback: event_log_cb);

    pub fn event_config_new() -> *mut event_config;
    pub fn event_config_free(config: *mut event_config);
    pub fn event_config_set_flag(config: *mut event_config, flag: c_int) -> c_int;
    pub fn event_config_require_features(config: *mut event_config, features: c_int) -> c_int;

    pub fn event_base_new_with_config(config: *const event_config) -> *mut event_base;
    pub fn event_base_free(base: *mut event_base);
    pub fn event_base_get_method(base: *const event_base) -> *const c_char;
    pub fn event_base_loop(base: *mut event_base, flags: c_int) -> c_int;
    pub fn event_reinit(base: *mut event_base) -> c_int;

    pub fn event_new(
        base: *mut event_base,
        fd: c_int,
        what: c_short,
        callback: event_callback_fn,
        argument: *mut c_void,
    ) -> *mut event;
    pub fn event_free(event: *mut event);
    pub fn event_add(event: *mut event, timeout: *const timeval) -> c_int;
    pub fn event_del(event: *mut event) -> c_int;
}
