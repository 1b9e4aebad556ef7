//! The delivery logic of Stonechat as state machines without IO.
