//! Commands and rendering.
