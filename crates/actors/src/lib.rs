//! OTP-style supervision on actix.
