//! Next hop.
