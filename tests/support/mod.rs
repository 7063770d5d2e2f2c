//! What tests share. Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod facts;
pub mod golden;
pub mod live;
