//! The program as its users meet it: real processes on loopback, real files, real signals.

#[path = "../flock/mod.rs"]
mod flock;

mod backup;
mod battery;
mod deploy;
mod engine;
mod examples;
mod join;
mod kv;
mod leave;
mod node;
mod operations;
mod scripts;
mod secrets;
mod serve;
mod spread;
mod survive;
mod tidy;
mod trust;
mod use_cases;
mod workers;
