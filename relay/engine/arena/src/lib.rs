//! The shared memory of the box.
