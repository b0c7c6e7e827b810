//! OTLP metrics: hand-made requests of each type, under each option, and what becomes of them.

mod names;
mod points;
mod refused;
mod resources;
mod support;
