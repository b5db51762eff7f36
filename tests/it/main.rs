
mod listener;
