//! Tests of the whole program: the binary, real clients and servers around it, the tree itself.

mod custody;
mod demo;
mod faults;
mod parts;
mod postfix;
mod program;
mod tidy;
