mod asked;
mod crashes;
mod driver;
mod laws;
mod random;
mod schedule;
mod shared;
mod world;
