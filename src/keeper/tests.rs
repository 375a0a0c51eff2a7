mod asked;
mod crashes;
mod driver;
mod laws;
mod schedule;
mod shared;
mod storm;
mod world;
