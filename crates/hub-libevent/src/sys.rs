//! The declarations of libevent: the part of `<event2/event.h>` that this hub uses.
//!
//! Ground rules:
//! - Each declaration matches libevent 2.1 and later: `tests/declarations.rs` lets a C compiler compare this file with
//!   the installed headers. The test reads the text of this file, and fails for an unknown form of declaration.
//! - The structures are opaque. This crate only passes pointers that the library returned.
//! - `evutil_socket_t` is `int` on every supported system.

#![allow(non_camel_case_types)]

use std::ffi::{c_char, c_int, c_short, c_void};

pub(crate) use libc::timeval;

pub(crate) const EV_READ: c_short = 0x02;
pub(crate) const EV_WRITE: c_short = 0x04;
pub(crate) const EV_PERSIST: c_short = 0x10;
pub(crate) const EV_ET: c_short = 0x20;

pub(crate) const EVLOOP_ONCE: c_int = 0x01;
pub(crate) const EVLOOP_NONBLOCK: c_int = 0x02;
pub(crate) const EVLOOP_NO_EXIT_ON_EMPTY: c_int = 0x04;

pub(crate) const EVENT_LOG_WARN: c_int = 2;

pub(crate) const EV_FEATURE_ET: c_int = 0x01;
pub(crate) const EV_FEATURE_O1: c_int = 0x02;

pub(crate) const EVENT_BASE_FLAG_NOLOCK: c_int = 0x01;
pub(crate) const EVENT_BASE_FLAG_IGNORE_ENV: c_int = 0x02;
pub(crate) const EVENT_BASE_FLAG_PRECISE_TIMER: c_int = 0x20;

#[repr(C)]
pub(crate) struct event {
    _opaque: [u8; 0],
}

#[repr(C)]
pub(crate) struct event_base {
    _opaque: [u8; 0],
}

#[repr(C)]
pub(crate) struct event_config {
    _opaque: [u8; 0],
}

pub(crate) type event_callback_fn = unsafe extern "C" fn(c_int, c_short, *mut c_void);
pub(crate) type event_log_cb = unsafe extern "C" fn(c_int, *const c_char);

unsafe extern "C" {
    pub(crate) fn event_get_version() -> *const c_char;
    pub(crate) fn event_set_log_callback(callback: event_log_cb);

    pub(crate) fn event_config_new() -> *mut event_config;
    pub(crate) fn event_config_free(config: *mut event_config);
    pub(crate) fn event_config_set_flag(config: *mut event_config, flag: c_int) -> c_int;
    pub(crate) fn event_config_require_features(config: *mut event_config, features: c_int) -> c_int;

    pub(crate) fn event_base_new_with_config(config: *const event_config) -> *mut event_base;
    pub(crate) fn event_base_free(base: *mut event_base);
    pub(crate) fn event_base_get_method(base: *const event_base) -> *const c_char;
    pub(crate) fn event_base_loop(base: *mut event_base, flags: c_int) -> c_int;

    pub(crate) fn event_new(
        base: *mut event_base,
        fd: c_int,
        what: c_short,
        callback: event_callback_fn,
        argument: *mut c_void,
    ) -> *mut event;
    pub(crate) fn event_free(event: *mut event);
    pub(crate) fn event_add(event: *mut event, timeout: *const timeval) -> c_int;
    pub(crate) fn event_del(event: *mut event) -> c_int;
}
