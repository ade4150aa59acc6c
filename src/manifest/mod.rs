//! The listener that Pipedrive calls: TLS, limits, Basic authentication, the seven manifest endpoints.
