//! Session, router, registry and offline-queue actors.
