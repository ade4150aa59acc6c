//! The manifest endpoints, which Pipedrive calls: routes, limits, cursors, form fields, bodies and failures.

pub mod body;
mod cursor;
mod document;
mod failure;
mod form;
mod route;

pub use cursor::Cursor;
pub use document::document;
pub use failure::{Code, Failure};
pub use form::{MAX_FIELD, MAX_FIELDS, MAX_FILES, Post, PostForm, is_file_field};
pub(super) use route::decode;
pub use route::{
    ApiCall, DEFAULT_LIMIT, MAX_LIMIT, PageRequest, Route, needs_credentials, page_request, route,
};
