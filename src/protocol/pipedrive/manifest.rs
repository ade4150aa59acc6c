//! The manifest endpoints: routes, cursors, limits, bodies and errors.
