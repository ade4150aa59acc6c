//! Backoff and pacing arithmetic.
