//! The command line as its users meet it: real processes, their output and their exit codes.

mod copies;
mod daemon;
mod demo;
mod grammar;
mod held;
mod limits;
mod offline;
mod peers;
mod pki;
mod rebuild;
mod records;
mod repair;
mod run;
mod ship;
#[path = "../support/mod.rs"]
mod support;
