//! The edge: WebSocket, admin HTTP, TLS and tokens.
