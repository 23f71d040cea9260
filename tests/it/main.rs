//! The program as its users meet it: real processes on loopback, real files, real signals.

#[path = "../flock/mod.rs"]
mod flock;

mod backup;
mod battery;
mod bounds;
mod deploy;
mod engine;
mod examples;
mod join;
mod kv;
mod leave;
mod node;
mod operations;
mod rejoin;
mod rot;
mod scripts;
mod secrets;
mod serve;
mod slow;
mod spread;
mod survive;
mod tidy;
mod trust;
mod upgrade;
mod use_cases;
mod workers;
