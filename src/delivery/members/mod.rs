//! Who else is at work on the queue, and how much of the limits is one's own.
//!
//! Several gateways share one queue, and any of them may be cut off from it and go on alone. So each judges by what it heard
//! itself, on its own clock that nobody sets, and always to the side on which no limit is exceeded: for its own life the time counts
//! from before it spoke, for that of the others from before it asked. `word` is what they say of themselves, `known` what is remembered
//! of it, `roll` what follows from it, `parts` which limits hold for all together and what becomes of their numbers.
//!
//! All of it is arithmetic over times that are given as arguments: how long the machine has been running, asleep or awake. Who speaks to
//! the store and who starts a delivery is not decided here.

mod known;
pub mod parts;
pub mod roll;
pub mod word;
