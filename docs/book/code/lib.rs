//! The guide of greenhub, `docs/book`, with its examples as tests.
//!
//! The chapters are in `src`, and `src/SUMMARY.md` lists them. mdBook makes a site of them, which no test needs.
//! rustdoc compiles and runs the examples, `tests/quotations.rs` compares the quotations.

/// Compiles each chapter as documentation. `cargo xtask tidy` compares the list with `SUMMARY.md`.
macro_rules! chapters {
    ($($name:ident: $file:literal,)*) => {
        $(
            #[cfg(doctest)]
            #[doc = include_str!(concat!("../src/", $file))]
            struct $name;
        )*
    };
}

chapters! {
    Introduction: "introduction.md",
    FirstServer: "first-server.md",
    WhatSwitches: "what-switches.md",
    Hubs: "hubs.md",
    MainLoop: "main-loop.md",
    TimeoutsKillsShields: "timeouts-kills-shields.md",
    OsThreads: "os-threads.md",
    ChoosingAHub: "choosing-a-hub.md",
    WhichOne: "which-one.md",
    Tokio: "tokio.md",
    GeventLoop: "gevent-loop.md",
    OtherCrates: "other-crates.md",
    WritingAHub: "writing-a-hub.md",
    WhenSomethingGoesWrong: "when-something-goes-wrong.md",
    Limits: "limits.md",
    ComingFrom: "coming-from.md",
}
