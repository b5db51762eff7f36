//! The integration tests, in one binary.

<<<<<<< HEAD
mod listener;
=======
mod dialogues;
>>>>>>> h-server
