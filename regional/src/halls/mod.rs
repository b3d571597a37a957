//! Halls and their layouts. A layout is immutable once stored; a change is a new version, and a show keeps
//! the version that it was created with.

pub mod layout;
