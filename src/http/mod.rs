//! The one HTTP client: the only room besides `sim` that names ureq.
